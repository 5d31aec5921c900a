//! A Hub tokenizer with a model's limits: texts to token ids, and back.

use crate::error::{Error, Result};
use crate::io;
use crate::text::chat::CONFIG;
use crate::text::encoded::{Encoded, Inputs};
use crate::text::limits::Limits;
use crate::text::tokenizer::Alphabet;
use crate::text::{Dataset, tokenizer};
use serde_json::Value;
use std::ops::Range;
use std::path::{Path, PathBuf};
use tokenizers::{EncodeInput, Encoding, PostProcessor, PostProcessorWrapper, Tokenizer, TruncationParams};

/// A tokenizer with the model's limits.
#[derive(Debug)]
pub struct TextEncoder {
    tokenizer: Tokenizer,
    /// The same, cutting texts to the model's length, its special tokens kept.
    cutting: Tokenizer,
    path: PathBuf,
    alphabet: Alphabet,
    pub(super) longest: usize,
    pub(super) pad: i64,
    vocab: i64,
    /// Whether token types go to the model.
    typed: bool,
}

impl TextEncoder {
    /// Whether a model directory has a tokenizer: `tokenizer.json`, or the files of an older form.
    pub fn exists(dir: impl AsRef<Path>) -> bool {
        let dir = dir.as_ref();
        tokenizer::exists(dir)
    }

    /// Reads the tokenizer of a directory, for a model with these limits: `tokenizer.json`, or the older `vocab.json` and `merges.txt` (byte-level BPE, as GPT-2 has it) or `vocab.txt` (BERT),
    /// with the ids that transformers has. Texts that are longer are cut, and counted. Padding and truncation that a file
    /// itself asks for do not apply.
    ///
    /// # Errors
    /// No such file, one that is malformed, or of another kind of tokenizer (sentencepiece), with the command that converts it.
    pub fn open(dir: impl AsRef<Path>, limits: Limits) -> Result<Self> {
        let dir = dir.as_ref();
        let Limits { vocab, positions, pad } = limits;
        let positions = positions.unwrap_or(i64::MAX);
        let tokenizer::Opened { tokenizer, path, alphabet } = tokenizer::open(dir)?;
        let longest = usize::try_from(positions).unwrap_or(0);
        let special = tokenizer.get_post_processor().map_or(0, |p| p.added_tokens(false));
        if longest <= special {
            let message = format!("adds {special} tokens to every text, of which {} fit", positions.max(0));
            return Err(Error::format(path, message));
        }
        let mut cutting = tokenizer.clone();
        let params = TruncationParams { max_length: longest, ..TruncationParams::default() };
        cutting.with_truncation(Some(params)).map_err(|e| Error::format(&path, e))?;
        Ok(Self { tokenizer, cutting, path, alphabet, longest, pad, vocab, typed: typed(dir)? })
    }

    /// Token ids and class numbers of a dataset; `labels` names the classes in order. Of a pair that is too long the longer
    /// text is cut, token by token, as transformers does (`longest_first`).
    ///
    /// # Errors
    /// A label that is not among `labels`, with its row; a text without a token; a token id beyond the model's vocabulary.
    pub fn encode(&self, data: &Dataset, labels: &[String]) -> Result<Encoded> {
        let classes = (1..).zip(&data.rows).map(|(number, row)| {
            let class = labels.iter().position(|l| *l == row.label).ok_or_else(|| {
                let label = &row.label;
                let known = labels.join(", ");
                let message = format!("row {number}: label `{label}` is not in the training data ({known})");
                Error::format(&data.path, message)
            })?;
            Ok(i64::try_from(class).unwrap_or(i64::MAX))
        });
        self.labelled(data, classes.collect::<Result<_>>()?)
    }

    /// The same of a dataset with numbers, which a model learns by regression.
    ///
    /// # Errors
    /// A text without a token; a token id beyond the model's vocabulary.
    pub fn encode_numbers(&self, data: &Dataset<f32>) -> Result<Encoded<f32>> {
        self.labelled(data, data.rows.iter().map(|row| row.label).collect())
    }

    fn labelled<L, M>(&self, data: &Dataset<L>, labels: Vec<M>) -> Result<Encoded<M>> {
        let texts: Vec<_> = data.rows.iter().map(|r| (r.text.as_str(), r.pair.as_deref())).collect();
        let Inputs { ids, token_types, truncated, pad } = self.rows(&texts)?;
        Ok(Encoded { ids, token_types, labels, truncated, pad })
    }

    /// Token ids of texts without labels, for a classifier to judge. Texts that are longer than the model are cut, and
    /// counted.
    ///
    /// # Errors
    /// As [`TextEncoder::encode`].
    ///
    /// ```no_run
    /// use peft_core::Pass;
    /// use peft_core::hub::{self, Head};
    /// use peft_core::tch::Device;
    /// use peft_core::text::texts;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let peft = hub::open("models/bert", Device::Cpu, Head::Stored)?.peft;
    /// let encoder = hub::encoder("models/bert", &peft)?;
    /// let inputs = encoder.inputs(&texts("new.txt")?)?;
    /// println!("{} of {} texts are longer than the model, and cut", inputs.truncated, inputs.len());
    /// let rows: Vec<usize> = (0..inputs.len()).collect();
    /// let model = peft.view(&[])?;
    /// for rows in rows.chunks(32) {
    ///     let logits = model.forward(&inputs.batch(rows, Device::Cpu)?, Pass::eval())?;
    ///     println!("{:?}", Vec::<i64>::try_from(logits.f_argmax(-1, false)?)?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn inputs<T: AsRef<str>>(&self, texts: &[T]) -> Result<Inputs> {
        self.rows(&texts.iter().map(|t| (t.as_ref(), None)).collect::<Vec<_>>())
    }

    /// As [`TextEncoder::inputs`], of pairs of texts.
    pub fn pairs<T: AsRef<str>>(&self, pairs: &[(T, T)]) -> Result<Inputs> {
        self.rows(&pairs.iter().map(|(a, b)| (a.as_ref(), Some(b.as_ref()))).collect::<Vec<_>>())
    }

    /// Token ids of one text, however long: a prompt.
    ///
    /// # Errors
    /// A token id beyond the model's vocabulary.
    pub fn ids(&self, text: &str) -> Result<Vec<i64>> {
        let ids = ids(&self.encoding(text, true)?);
        self.check(&ids)?;
        Ok(ids)
    }

    /// Token ids of a text that has its special tokens written out: a chat in the form of its template.
    ///
    /// # Errors
    /// As [`TextEncoder::ids`].
    pub fn plain(&self, text: &str) -> Result<Vec<i64>> {
        let ids = ids(&self.encoding(text, false)?);
        self.check(&ids)?;
        Ok(ids)
    }

    /// The text of token ids, without special tokens.
    ///
    /// # Errors
    /// An id below 0.
    pub fn text(&self, ids: &[i64]) -> Result<String> {
        let id = |id: &i64| u32::try_from(*id).map_err(|_| Error::Input(format!("{id} is no token id")));
        let ids = ids.iter().map(id).collect::<Result<Vec<_>>>()?;
        self.tokenizer.decode(&ids, true).map_err(|e| Error::format(&self.path, e))
    }

    /// Token ids of a text, and whether it was cut.
    pub(super) fn text_ids(&self, text: &str) -> Result<(Vec<i64>, bool)> {
        let encoding = self.encoding(text, true)?;
        let cut = encoding.len() > self.longest;
        Ok((ids(&if cut { self.cut(text.into(), false)? } else { encoding }), cut))
    }

    /// The tokenizer that says which part of a text each token is, spaces included: what comes after the splitting may
    /// trim them, and adds nothing to a text that has its special tokens.
    pub(super) fn bare(&self) -> Tokenizer {
        let mut bare = self.tokenizer.clone();
        bare.with_post_processor(None::<PostProcessorWrapper>);
        bare
    }

    /// Token ids of a text that has its special tokens written out, and the bytes of it that each token is.
    pub(super) fn places(&self, bare: &Tokenizer, text: &str) -> Result<Vec<(i64, Range<usize>)>> {
        self.alphabet.check(text, &self.path)?;
        let encoding = bare.encode(text, false).map_err(|e| self.broken(e))?;
        let places = encoding.get_offsets().iter().map(|(from, to)| *from..*to);
        Ok(ids(&encoding).into_iter().zip(places).collect())
    }

    /// Texts, or pairs of them, cut to the model's length.
    fn rows(&self, texts: &[(&str, Option<&str>)]) -> Result<Inputs> {
        let mut both = texts.iter().flat_map(|(text, pair)| [Some(*text), *pair]).flatten();
        both.try_for_each(|text| self.alphabet.check(text, &self.path))?;
        let all: Vec<_> = texts.iter().map(|text| input(*text)).collect();
        let encodings = self.tokenizer.encode_batch(all, true).map_err(|e| self.broken(e))?;
        let (mut rows, mut types, mut truncated) = (Vec::new(), Vec::new(), 0usize);
        for (text, mut encoding) in texts.iter().zip(encodings) {
            if encoding.len() > self.longest {
                encoding = self.cut(input(*text), text.1.is_some())?;
                truncated = truncated.saturating_add(1);
            }
            if encoding.is_empty() {
                let number = rows.len().saturating_add(1);
                return Err(Error::Input(format!(
                    "text {number} is empty: the tokenizer makes no token of it"
                )));
            }
            rows.push(ids(&encoding));
            types.push(encoding.get_type_ids().iter().map(|id| i64::from(*id)).collect());
        }
        self.check(rows.iter().flatten())?;
        Ok(Inputs { ids: rows, token_types: self.typed.then_some(types), truncated, pad: self.pad })
    }

    /// A text as it is, with special tokens or without.
    fn encoding(&self, text: &str, special: bool) -> Result<Encoding> {
        self.alphabet.check(text, &self.path)?;
        self.tokenizer.encode(text, special).map_err(|e| self.broken(e))
    }

    fn cut(&self, text: EncodeInput<'_>, pair: bool) -> Result<Encoding> {
        let special = self.tokenizer.get_post_processor().map_or(0, |p| p.added_tokens(pair));
        if self.longest <= special {
            let message =
                format!("adds {special} tokens to every pair of texts, of which {} fit", self.longest);
            return Err(Error::format(&self.path, message));
        }
        self.cutting.encode(text, true).map_err(|e| self.broken(e))
    }

    fn broken(&self, e: tokenizers::Error) -> Error {
        Error::format(&self.path, e)
    }

    pub(super) fn check<'a>(&self, ids: impl IntoIterator<Item = &'a i64>) -> Result<()> {
        match ids.into_iter().find(|id| !(0..self.vocab).contains(*id)) {
            Some(id) => {
                let message = format!("token id {id} is beyond the model's vocabulary of {}", self.vocab);
                Err(Error::format(&self.path, message))
            }
            None => Ok(()),
        }
    }
}

fn input<'a>((text, pair): (&'a str, Option<&'a str>)) -> EncodeInput<'a> {
    match pair {
        Some(pair) => (text, pair).into(),
        None => text.into(),
    }
}

fn ids(encoding: &Encoding) -> Vec<i64> {
    encoding.get_ids().iter().map(|id| i64::from(*id)).collect()
}

/// Whether transformers hands this tokenizer's token types to the model: unless its settings leave them out.
fn typed(dir: &Path) -> Result<bool> {
    let path = dir.join(CONFIG);
    if !path.exists() {
        return Ok(true);
    }
    let json = io::read_object(&path)?;
    let names = json.get("model_input_names").and_then(Value::as_array);
    Ok(names.is_none_or(|names| names.iter().any(|name| name == "token_type_ids")))
}
