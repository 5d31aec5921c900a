//! The tokenizer of a model directory: `tokenizer.json`, or built from `vocab.json` and `merges.txt` (byte-level BPE of GPT-2,
//! RoBERTa, Qwen2) or from `vocab.txt` (BERT's WordPiece), as transformers builds its fast tokenizers.

mod build;
mod special;

use crate::error::{Error, Result};
use crate::io;
use serde_json::Value;
use std::path::{Path, PathBuf};
use tokenizers::Tokenizer;

const WHOLE: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";
const WORDS: &str = "vocab.json";
const MERGES: &str = "merges.txt";
const PIECES: &str = "vocab.txt";
const SENTENCEPIECE: &str = "tokenizer.model";

/// Names of special tokens, in the order in which transformers adds them.
pub(super) const SPECIAL_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// How to come by a `tokenizer.json`.
const CONVERT: &str = "make a tokenizer.json of it: python -c \"from transformers import AutoTokenizer; \
                       AutoTokenizer.from_pretrained('.').save_pretrained('.')\"";

/// Whether a directory has a tokenizer, in whatever form: if not, its texts are token ids.
pub(crate) fn exists(dir: &Path) -> bool {
    [WHOLE, WORDS, PIECES, SENTENCEPIECE].iter().any(|name| dir.join(name).exists())
}

/// A tokenizer with neither padding nor truncation.
#[derive(Debug)]
pub(crate) struct Opened {
    pub tokenizer: Tokenizer,
    /// The file that errors are about.
    pub path: PathBuf,
    pub alphabet: Alphabet,
}

/// The bytes that a byte-level vocabulary lacks. Text with one of them would be shorter afterwards, without a word.
#[derive(Debug, Default)]
pub(crate) struct Alphabet {
    lacks: Vec<u8>,
}

impl Alphabet {
    fn of(tokenizer: &Tokenizer) -> Self {
        // The bytes that are printed stand for themselves, and the others for what follows on 255 (GPT-2's table).
        let printed = |b: u8| matches!(b, 33..=126 | 161..=172 | 174..=255);
        let others = (0..=255).filter(|b| !printed(*b)).zip(256u32..);
        let own = (0..=255).filter(|b| printed(*b)).map(|b| (b, u32::from(b)));
        let lacks = own.chain(others).filter(|(_, c)| {
            char::from_u32(*c).is_none_or(|c| tokenizer.token_to_id(c.encode_utf8(&mut [0; 4])).is_none())
        });
        Self { lacks: lacks.map(|(b, _)| b).collect() }
    }

    /// # Errors
    /// A text with characters that the vocabulary lacks.
    pub fn check(&self, text: &str, path: &Path) -> Result<()> {
        if self.lacks.is_empty() {
            return Ok(());
        }
        match text.chars().find(|c| c.encode_utf8(&mut [0; 4]).bytes().any(|b| self.lacks.contains(&b))) {
            Some(c) => Err(Error::format(
                path,
                format!("has no token for `{}`: the text would lose it", c.escape_debug()),
            )),
            None => Ok(()),
        }
    }
}

/// Opens the tokenizer of a directory.
pub(crate) fn open(dir: &Path) -> Result<Opened> {
    let path =
        [WHOLE, WORDS, PIECES, SENTENCEPIECE].map(|name| dir.join(name)).into_iter().find(|p| p.exists());
    let Some(path) = path else {
        let message = "is not there, nor vocab.json with merges.txt, nor vocab.txt: a model for text needs its tokenizer \
                       beside it";
        return Err(Error::format(dir.join(WHOLE), message));
    };
    let mut opened = if path.ends_with(WHOLE) {
        let bytes = std::fs::read(&path).map_err(|e| Error::file(&path, e))?;
        let json = serde_json::from_slice(&bytes).map_err(|e| Error::format(&path, e))?;
        check_merges(&path, &json)?;
        check_template(&path, json.get("post_processor").unwrap_or(&Value::Null))?;
        let tokenizer = Tokenizer::from_bytes(&bytes).map_err(|e| Error::format(&path, e))?;
        Opened { tokenizer, path, alphabet: Alphabet::default() }
    } else if path.ends_with(SENTENCEPIECE) {
        return Err(Error::format(path, format!("is of sentencepiece, which is not read; {CONVERT}")));
    } else {
        let config = optional(dir, CONFIG)?.unwrap_or_default();
        let class = Class::of(&config, &optional(dir, "config.json")?.unwrap_or_default(), &path)?;
        let tokenizer = build::build(dir, &config, class)?;
        let alphabet = if class == Class::Bert { Alphabet::default() } else { Alphabet::of(&tokenizer) };
        Opened { tokenizer, path: dir.join(class.file()), alphabet }
    };
    let plain = opened.tokenizer.with_padding(None).with_truncation(None).map(drop);
    plain.map_err(|e| Error::format(&opened.path, e))?;
    Ok(opened)
}

/// A class of transformers, under the name that `tokenizer_class` has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Bert,
    Gpt2,
    Qwen2,
    Roberta,
}

impl Class {
    /// The file of its vocabulary.
    fn file(self) -> &'static str {
        if self == Class::Bert { PIECES } else { WORDS }
    }

    /// What `tokenizer_config.json` or else `config.json` say, as transformers decides it.
    fn of(config: &Value, model: &Value, path: &Path) -> Result<Self> {
        let text = |json: &Value, field: &str| json.get(field).and_then(Value::as_str).map(str::to_owned);
        let kind = text(model, "model_type").unwrap_or_default();
        let own = match kind.as_str() {
            "bert" => Some("BertTokenizer"),
            "gpt2" => Some("GPT2Tokenizer"),
            // Families that transformers has no class of this kind for: where they come with these two files, the
            // tokenizer is byte-level BPE all the same. A character that it lacks is an error.
            "llama" | "mistral" if path.ends_with(WORDS) => Some("GPT2Tokenizer"),
            "qwen2" => Some("Qwen2Tokenizer"),
            "roberta" => Some("RobertaTokenizer"),
            _ => None,
        };
        let said = text(config, "tokenizer_class").or_else(|| text(model, "tokenizer_class"));
        // Directories of Qwen2 are known to say another class than theirs.
        let said = if kind == "qwen2" { None } else { said };
        let name = said.or(own.map(str::to_owned));
        match name.as_deref().map(|name| name.strip_suffix("Fast").unwrap_or(name)) {
            Some("BertTokenizer") => Ok(Class::Bert),
            Some("GPT2Tokenizer") => Ok(Class::Gpt2),
            Some("Qwen2Tokenizer") => Ok(Class::Qwen2),
            Some("RobertaTokenizer") => Ok(Class::Roberta),
            other => {
                let found = match other {
                    Some(class) => format!("tokenizer_class `{class}` is not one"),
                    None => format!(
                        "neither {CONFIG} says it (tokenizer_class), nor model_type `{kind}` in config.json"
                    ),
                };
                let message = format!(
                    "tokenizer.json is not there, and what kind of tokenizer this file is of is not known: {found} (there \
                     are BertTokenizer, GPT2Tokenizer, Qwen2Tokenizer and RobertaTokenizer)"
                );
                Err(Error::format(path, message))
            }
        }
    }
}

/// A JSON file of the directory that need not be there.
fn optional(dir: &Path, name: &str) -> Result<Option<Value>> {
    let path = dir.join(name);
    path.exists().then(|| io::read_object(&path)).transpose()
}

/// That the special tokens which a post-processor puts around a text are among those it knows: `tokenizers` panics later if
/// one is not.
fn check_template(path: &Path, processor: &Value) -> Result<()> {
    let known = processor.get("special_tokens").and_then(Value::as_object);
    let pieces = ["single", "pair"].into_iter().filter_map(|name| processor.get(name)?.as_array()).flatten();
    let names = pieces.filter_map(|piece| piece.pointer("/SpecialToken/id")?.as_str());
    let kind = processor.get("type").and_then(Value::as_str);
    for name in names.filter(|_| kind == Some("TemplateProcessing")) {
        if !known.is_some_and(|known| known.contains_key(name)) {
            let message = format!("has no `{name}`, which single or pair put into a text");
            return Err(Error::config(path.display(), "post_processor.special_tokens", message));
        }
    }
    let inner = processor.get("processors").and_then(Value::as_array).into_iter().flatten();
    inner.into_iter().try_for_each(|processor| check_template(path, processor))
}

/// Every merge of a `tokenizer.json` makes a token. The tokenizers crate relies on that, and panics where it is not so.
fn check_merges(path: &Path, json: &Value) -> Result<()> {
    let part = |name: &str| json.pointer(&format!("/model/{name}"));
    let (Some(vocab), Some(merges)) =
        (part("vocab").and_then(Value::as_object), part("merges").and_then(Value::as_array))
    else {
        return Ok(());
    };
    let prefix = part("continuing_subword_prefix").and_then(Value::as_str).unwrap_or_default();
    for (number, merge) in (1..).zip(merges) {
        let pair = match merge {
            Value::String(text) => text.split_once(' '),
            other => other.get(0).and_then(Value::as_str).zip(other.get(1).and_then(Value::as_str)),
        };
        let whole = pair.and_then(|(a, b)| Some(format!("{a}{}", b.get(prefix.len()..)?)));
        if whole.is_none_or(|whole| !vocab.contains_key(&whole)) {
            let shown = match merge {
                Value::String(text) => text.clone(),
                _ => pair.map_or_else(|| merge.to_string(), |(a, b)| format!("{a} {b}")),
            };
            let message = format!("merge {number}: `{shown}` is not a pair whose whole is in model.vocab");
            return Err(Error::config(path.display(), "model.merges", message));
        }
    }
    Ok(())
}
