//! What this crate asks of a model: a pure constructor over a [`Scope`], and a forward pass.

use crate::attention::lowest;
use crate::{Error, Pass, Result, Scope};
use serde::{Deserialize, Serialize};
use std::fmt::{Debug, Display, Formatter};
use tch::{Kind, Tensor};

/// An architecture. Its constructor is the visitor that finds the sites: it is run again for every view, so it draws
/// nothing at random, reads no file and computes nothing large.
pub trait Model: Debug + Send + Sized + 'static {
    /// What tells two models of the family apart (the Hub's `config.json`).
    type Config: Debug + Clone + Send + Sync;

    /// The sizes that methods need.
    fn dims(config: &Self::Config) -> Dims;

    /// A view of the model in `scope`.
    fn new(scope: &Scope<'_>, config: &Self::Config) -> Result<Self>;

    /// Logits for a batch: `[batch, classes]`, or `[batch, virtual tokens + length, vocab]` of a causal model.
    fn forward(&self, batch: &Batch, pass: Pass<'_>) -> Result<Tensor>;

    /// The same configuration for a model whose head is no longer tied to its word embedding.
    fn untied(config: &Self::Config) -> Self::Config {
        config.clone()
    }

    /// The same configuration with another size of the vocabulary; `None` where that is fixed.
    fn resized(config: &Self::Config, vocab: i64) -> Option<Self::Config> {
        let _ = (config, vocab);
        None
    }
}

/// Sizes of a model, as methods need them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dims {
    /// `model_type` of the Hub's config.
    pub model_type: String,
    pub layers: i64,
    pub hidden: i64,
    pub heads: i64,
    pub kv_heads: i64,
    pub head_dim: i64,
    /// Name of the word embedding, to start prompts from real tokens.
    pub word_embedding: String,
    pub vocab: i64,
    /// Tokens that there are positions for, virtual ones included; `None` where positions are computed.
    pub positions: Option<i64>,
    /// Name of the output layer.
    pub head: String,
    /// A token sees itself and those before it alone; logits are per token.
    pub causal: bool,
}

impl Dims {
    /// What the model's head is for.
    pub fn task(&self) -> TaskType {
        match (self.causal, self.head.is_empty()) {
            (true, _) => TaskType::CausalLm,
            (false, true) => TaskType::FeatureExtraction,
            (false, false) => TaskType::SeqCls,
        }
    }
}

/// Token ids and, where rows are of different length, which of them are real.
#[derive(Debug)]
pub struct Batch {
    /// `[batch, length]`, int64.
    pub ids: Tensor,
    /// `[batch, length]`, 1 for real tokens and 0 for padding; `None` when all are real. With a cache,
    /// `[batch, cached tokens + length]`.
    pub mask: Option<Tensor>,
    /// `[batch, length]`, which text of a pair each token is of, for models that were trained with such types (BERT);
    /// `None` is type 0 throughout.
    pub token_types: Option<Tensor>,
}

impl Batch {
    /// A batch without padding.
    pub fn dense(ids: Tensor) -> Self {
        Self { ids, mask: None, token_types: None }
    }

    /// With the token types of rows that were [padded](Batch::padded): 0 for padding.
    ///
    /// # Errors
    /// Other rows than those of the ids.
    pub fn typed<R: AsRef<[i64]>>(self, rows: &[R]) -> Result<Self> {
        let types = Self::padded(rows, 0, self.ids.device())?.ids;
        let typed = Self { token_types: Some(types), ..self };
        typed.check_types_shape()?;
        Ok(typed)
    }

    /// Rows of ids, padded on the right with `pad` to the longest of them.
    ///
    /// # Errors
    /// No row, or one without an id.
    pub fn padded<R: AsRef<[i64]>>(rows: &[R], pad: i64, device: tch::Device) -> Result<Self> {
        let longest = rows.iter().map(|row| row.as_ref().len()).max().unwrap_or_default();
        let (mut ids, mut mask) = (Vec::new(), Vec::new());
        for (number, row) in (1..).zip(rows) {
            let row = row.as_ref();
            if row.is_empty() {
                return Err(Error::Input(format!("row {number} of {} has no token", rows.len())));
            }
            let padding = longest.saturating_sub(row.len());
            ids.extend(row.iter().copied().chain(std::iter::repeat_n(pad, padding)));
            mask.extend(std::iter::repeat_n(1i64, row.len()).chain(std::iter::repeat_n(0, padding)));
        }
        if rows.is_empty() {
            return Err(Error::Input("a batch without rows".into()));
        }
        let padded = mask.contains(&0);
        let shape = [rows.len(), longest].map(|n| i64::try_from(n).unwrap_or(i64::MAX));
        let tensor =
            |v: &[i64]| -> Result<Tensor> { Ok(Tensor::f_from_slice(v)?.f_view(shape)?.f_to(device)?) };
        let mask = padded.then(|| tensor(&mask)).transpose()?;
        Ok(Self { mask, ..Self::dense(tensor(&ids)?) })
    }

    /// The labels of a causal model that learns to go on as these rows do: the ids, and −100 for padding. See
    /// [`next_token_loss`](crate::train::next_token_loss).
    pub fn next_token_labels(&self) -> Result<Tensor> {
        match &self.mask {
            Some(mask) => Ok(self.ids.f_masked_fill(&mask.f_eq(0)?, -100)?),
            None => Ok(self.ids.shallow_clone()),
        }
    }

    /// Checks that there is an id, and that every one is below `vocab`. The ids themselves on the CPU alone: elsewhere it
    /// would make the device wait, and ids are checked where they are made ([`crate::io::text`]).
    pub fn check_ids(&self, vocab: i64) -> Result<()> {
        if self.ids.dim() != 2 {
            return Err(Error::Input(format!(
                "ids of shape {:?}, expected [batch, length]",
                self.ids.size()
            )));
        }
        if self.ids.numel() == 0 {
            let message = format!("ids of shape {:?}: there is no token in it", self.ids.size());
            return Err(Error::Input(message));
        }
        if self.ids.device() != tch::Device::Cpu {
            return Ok(());
        }
        let (low, high) = self.ids.f_aminmax(None, false)?;
        for id in [low.f_int64_value(&[])?, high.f_int64_value(&[])?] {
            if id < 0 || id >= vocab {
                return Err(Error::Input(format!(
                    "token id {id} is outside the model's vocabulary of {vocab}"
                )));
            }
        }
        Ok(())
    }

    /// Checks that the mask covers `cached` earlier tokens and those of the batch.
    pub fn check_mask(&self, cached: i64) -> Result<()> {
        let (rows, length) = self.ids.size2()?;
        match self.mask.as_ref().map(Tensor::size) {
            Some(m) if m != [rows, length.saturating_add(cached)] => {
                let i = self.ids.size();
                let cache = if cached > 0 { format!(" after {cached} cached tokens") } else { String::new() };
                Err(Error::Input(format!("attention mask of shape {m:?} for ids of shape {i:?}{cache}")))
            }
            _ => Ok(()),
        }
    }

    /// Checks that there are no token types: for models that have no use for them.
    pub fn check_untyped(&self) -> Result<()> {
        match &self.token_types {
            Some(_) => Err(Error::Input("token types, of which this model has none".into())),
            None => Ok(()),
        }
    }

    fn check_types_shape(&self) -> Result<()> {
        match self.token_types.as_ref().map(Tensor::size) {
            Some(types) if types != self.ids.size() => {
                let ids = self.ids.size();
                Err(Error::Input(format!("token types of shape {types:?} for ids of shape {ids:?}")))
            }
            _ => Ok(()),
        }
    }

    /// Checks that there is a token type below `types` for every id; on the CPU alone, as [`Batch::check_ids`].
    pub fn check_token_types(&self, types: i64) -> Result<()> {
        self.check_types_shape()?;
        let Some(all) = &self.token_types else { return Ok(()) };
        if all.device() != tch::Device::Cpu || all.numel() == 0 {
            return Ok(());
        }
        let (low, high) = all.f_aminmax(None, false)?;
        for found in [low.f_int64_value(&[])?, high.f_int64_value(&[])?] {
            if !(0..types).contains(&found) {
                let message = format!("token type {found}, of which the model has {types} from 0 on");
                return Err(Error::Input(message));
            }
        }
        Ok(())
    }

    /// The mask in the form that attention adds to its scores, `[batch, 1, 1, length]`: 0, and the dtype's lowest
    /// number for padding.
    pub fn additive_mask(&self, kind: Kind) -> Result<Option<Tensor>> {
        let Some(mask) = &self.mask else { return Ok(None) };
        let hidden = mask.f_eq(0)?.f_unsqueeze(1)?.f_unsqueeze(1)?;
        let zeros = Tensor::f_zeros(hidden.size(), (kind, mask.device()))?;
        Ok(Some(zeros.f_masked_fill(&hidden, lowest(kind))?))
    }
}

/// What enters the first layer; input-level methods rewrite it.
#[derive(Debug)]
pub struct Input {
    /// Word embeddings `[batch, length, hidden]`, before positions are added.
    pub embeds: Tensor,
    /// As [`Pass::mask`], without the causal part.
    pub mask: Option<Tensor>,
    /// Position of the first token.
    pub position: i64,
    /// How many leading rows of `embeds` are not tokens of the batch.
    pub virtual_tokens: i64,
}

/// Rewrites a model's input: prompts, and what shifts its positions.
pub trait Prompt: Debug + Send {
    /// The method's name, for messages.
    fn name(&self) -> &'static str;
    /// The rewritten input.
    fn rewrite(&self, input: Input, pass: Pass<'_>) -> Result<Input>;
}

/// What a model is fine-tuned for, in PEFT's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs)]
pub enum TaskType {
    SeqCls,
    #[serde(rename = "SEQ_2_SEQ_LM")]
    Seq2SeqLm,
    CausalLm,
    TokenCls,
    QuestionAns,
    FeatureExtraction,
}

impl Display for TaskType {
    /// What the head does, with PEFT's word for it: `classes of texts (SEQ_CLS)`.
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            TaskType::SeqCls => "classes of texts (SEQ_CLS)",
            TaskType::Seq2SeqLm => "texts by an encoder and a decoder (SEQ_2_SEQ_LM)",
            TaskType::CausalLm => "the next token (CAUSAL_LM)",
            TaskType::TokenCls => "classes of tokens (TOKEN_CLS)",
            TaskType::QuestionAns => "answers within texts (QUESTION_ANS)",
            TaskType::FeatureExtraction => "features, without a head (FEATURE_EXTRACTION)",
        })
    }
}
