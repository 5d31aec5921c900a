//! Tokenizers out of their older files, as the classes of transformers build them.

use crate::error::{Error, Result};
use crate::text::tokenizer::special::Special;
use crate::text::tokenizer::{CONFIG, Class, MERGES, WORDS};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::{BertNormalizer, unicode::NFC};
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{SplitDelimiterBehavior, Tokenizer};

/// Qwen2's words: contractions, letters with what stands before them, single digits, signs, line ends.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Builds the tokenizer from the files of a directory and its `tokenizer_config.json`.
pub(super) fn build(dir: &Path, config: &Value, class: Class) -> Result<Tokenizer> {
    let path = &dir.join(class.file());
    let place = dir.join(CONFIG);
    let flag = |field: &str| match config.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(other) => Err(Error::config(place.display(), field, format!("{other} is not true or false"))),
    };
    let special = Special::read(dir, config, class)?;
    let wrong = |e: tokenizers::Error| Error::format(path, e);
    let space = flag("add_prefix_space")?.unwrap_or(false);
    let words = ByteLevel::new(space, true, class != Class::Qwen2);
    let mut tokenizer = match class {
        Class::Bert => Tokenizer::new(pieces(path, &special.content("unk_token")?)?),
        _ => Tokenizer::new(pairs(path, &dir.join(MERGES))?),
    };
    match class {
        Class::Bert => {
            let normalizer = BertNormalizer::new(
                true,
                flag("tokenize_chinese_chars")?.unwrap_or(true),
                flag("strip_accents")?,
                flag("do_lower_case")?.unwrap_or(true),
            );
            tokenizer.with_normalizer(Some(normalizer)).map_err(wrong)?;
            tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
            tokenizer.with_decoder(Some(WordPieceDecoder::default()));
        }
        Class::Qwen2 => {
            tokenizer.with_normalizer(Some(NFC)).map_err(wrong)?;
            let split = SplitPattern::Regex(QWEN2.to_owned());
            let split = Split::new(split, SplitDelimiterBehavior::Isolated, false).map_err(wrong)?;
            tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![split.into(), words.into()])));
            tokenizer.with_decoder(Some(ByteLevel::default()));
        }
        Class::Gpt2 | Class::Roberta => {
            tokenizer.with_pre_tokenizer(Some(words));
            tokenizer.with_decoder(Some(ByteLevel::default()));
        }
    }
    special.add(&mut tokenizer, class == Class::Qwen2).map_err(wrong)?;
    if flag("split_special_tokens")? == Some(true) {
        tokenizer.set_encode_special_tokens(true);
    }
    let around = Around { tokenizer: &tokenizer, special: &special, place: &place.display().to_string() };
    match class {
        Class::Bert => {
            let template = around.template(Some("cls_token"), Some("sep_token"))?;
            tokenizer.with_post_processor(Some(template));
        }
        Class::Roberta => {
            let template = RobertaProcessing::new(around.token("sep_token")?, around.token("cls_token")?);
            tokenizer.with_post_processor(Some(template.add_prefix_space(space)));
        }
        Class::Gpt2 | Class::Qwen2 => {
            let (before, after) =
                (flag("add_bos_token")? == Some(true), flag("add_eos_token")? == Some(true));
            let [before, after] = [(before, "bos_token"), (after, "eos_token")]
                .map(|(wanted, name)| (wanted && special.has(name)).then_some(name));
            let template = around.template(before, after)?;
            tokenizer.with_post_processor(Some(template));
        }
    }
    Ok(tokenizer)
}

/// What stands around each text.
struct Around<'a> {
    tokenizer: &'a Tokenizer,
    special: &'a Special,
    place: &'a str,
}

impl Around<'_> {
    /// A special token and its id.
    fn token(&self, name: &str) -> Result<(String, u32)> {
        let token = self.special.content(name)?;
        let id = self.tokenizer.token_to_id(&token);
        Ok((token, id.ok_or_else(|| Error::config(self.place, name, "has no id"))?))
    }

    /// These special tokens before and behind the text.
    fn template(&self, before: Option<&str>, after: Option<&str>) -> Result<TemplateProcessing> {
        let [before, after] = [before, after].map(|name| name.map(|name| self.token(name)).transpose());
        let (before, after) = (before?, after?);
        let piece =
            |token: &Option<(String, u32)>| token.iter().map(|(token, _)| token.clone()).collect::<Vec<_>>();
        let single = [piece(&before), vec!["$A".to_owned()], piece(&after)].concat();
        let wrong = |e: String| Error::config(self.place, "special tokens", e);
        let tokens: Vec<(String, u32)> = before.into_iter().chain(after).collect();
        let mut builder = TemplateProcessing::builder();
        builder.try_single(single).map_err(wrong)?.special_tokens(tokens);
        builder.build().map_err(|e| wrong(e.to_string()))
    }
}

/// WordPiece: one piece a line, its number is its id.
fn pieces(path: &Path, unknown: &str) -> Result<WordPiece> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::file(path, e))?;
    let vocab: Vocab = (0..).zip(text.lines()).map(|(id, line)| (line.trim_end().to_owned(), id)).collect();
    if !vocab.contains_key(unknown) {
        return Err(Error::format(
            path,
            format!("has no `{unknown}`, the unk_token that stands for unknown words"),
        ));
    }
    let model = WordPiece::builder().vocab(vocab).unk_token(unknown.to_owned()).build();
    model.map_err(|e| Error::format(path, e))
}

/// A text without its byte order mark.
fn read(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::file(path, e))?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// Byte-level BPE: ids by word, and the pairs that are merged, the first ones first.
fn pairs(words: &Path, path: &Path) -> Result<BPE> {
    let text = read(words)?;
    let vocab: BTreeMap<String, u32> = serde_json::from_str(&text)
        .map_err(|e| Error::format(words, format!("{e} (expected ids by token)")))?;
    let text = read(path)?;
    let mut merges = Merges::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.starts_with("#version") || line.is_empty() {
            continue;
        }
        let wrong = |what: String| Error::format(path, format!("line {number}: {what}"));
        let Some((a, b)) = line.split_once(' ').filter(|(_, b)| !b.contains(' ')) else {
            return Err(wrong(format!("`{line}` is not two tokens")));
        };
        let whole = format!("{a}{b}");
        if let Some(missing) = [a, b, &whole].into_iter().find(|token| !vocab.contains_key(*token)) {
            return Err(wrong(format!("`{missing}` is not in {WORDS}")));
        }
        merges.push((a.to_owned(), b.to_owned()));
    }
    let vocab: Vocab = vocab.into_iter().collect();
    BPE::builder().vocab_and_merges(vocab, merges).build().map_err(|e| Error::format(words, e))
}
