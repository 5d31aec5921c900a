//! What prompt tuning, P-tuning and prefix tuning share: trained vectors that stand for tokens, and the encoders that
//! some of them are trained through.
//!
//! A file has one tensor for all of these, `prompt_embeddings`: an encoder's output. In training the adapter holds the
//! encoder's own tensors, `encoder.*`. An adapter from a file holds `prompt_embeddings`, and that is trained further.

use crate::error::Result;
use crate::seam::{Init, Input, Params, Pass, Prompt, open_keys};
use std::collections::BTreeMap;
use std::fmt::Debug;
use tch::Tensor;

pub(super) const EMBEDDINGS: &str = "prompt_embeddings";
const ENCODER: &str = "encoder.";
const ENCODER_EMBEDDING: &str = "encoder.embedding.weight";

/// Whether the adapter holds an encoder, or is new and shall have one.
pub(super) fn has_encoder(params: &Params) -> bool {
    !params.is_sealed() || params.find(ENCODER_EMBEDDING).is_some()
}

/// The encoder's input, `[n, width]`: `nn.Embedding`.
pub(super) fn encoder_embedding(params: &Params, n: i64, width: i64) -> Result<Tensor> {
    params.get_or_init(ENCODER_EMBEDDING, &[n, width], Init::Normal { std: 1.0 })
}

/// What is written: `prompt_embeddings`, which `encode` computes of an encoder, and all else as it is.
pub(super) fn export(
    params: &Params,
    encode: impl FnOnce() -> Result<Tensor>,
) -> Result<BTreeMap<String, Tensor>> {
    let mut tensors = params.tensors();
    if tensors.contains_key(ENCODER_EMBEDDING) {
        tensors.retain(|name, _| !name.starts_with(ENCODER));
        // With gradients, as in training: libtorch's LSTM has other bits without.
        tensors.insert(EMBEDDINGS.into(), encode()?.f_detach()?);
    }
    Ok(tensors)
}

/// A linear layer of an encoder, started as `nn.Linear` is.
#[derive(Debug)]
pub(super) struct Linear {
    pub weight: Tensor,
    pub bias: Tensor,
}

impl Linear {
    /// `encoder.<name>`, with the weight at 0 where `zero` says so.
    pub fn new(params: &Params, name: &str, (inp, out): (i64, i64), zero: bool) -> Result<Self> {
        let start = |init| if zero { Init::ZerosDrawn } else { init };
        let weight = format!("{ENCODER}{name}.weight");
        let bias = format!("{ENCODER}{name}.bias");
        Ok(Self {
            weight: params.get_or_init(&weight, &[out, inp], start(Init::KaimingUniform))?,
            bias: params.get_or_init(&bias, &[out], start(Init::linear_bias(inp)))?,
        })
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.f_linear(&self.weight, Some(&self.bias))?)
    }
}

/// Vectors for the place of words.
pub(super) trait Vectors: Debug + Send {
    /// `[batch, n, hidden]`, or `[1, n, hidden]` where all rows have the same.
    fn vectors(&self, batch: i64, pass: Pass<'_>) -> Result<Tensor>;
}

/// `[n, hidden]`.
impl Vectors for Tensor {
    fn vectors(&self, _: i64, _: Pass<'_>) -> Result<Tensor> {
        Ok(self.f_unsqueeze(0)?)
    }
}

/// `n` vectors before the words: `[P; E(x)]`.
#[derive(Debug)]
pub(super) struct SoftPrompt {
    pub n: i64,
    pub tokens: Box<dyn Vectors>,
}

impl Prompt for SoftPrompt {
    fn rewrite(&self, input: Input, pass: Pass<'_>) -> Result<Input> {
        let (batch, _, hidden) = input.embeds.size3()?;
        let mask = input.mask.map(|m| open_keys(&m, self.n)).transpose()?;
        if pass.cache.is_some_and(|cache| !cache.is_empty()) {
            return Ok(Input { mask, ..input }); // it is in the cache already
        }
        let prompt = self.tokens.vectors(batch, pass)?.f_to_kind(input.embeds.kind())?;
        let prompt = prompt.f_expand([batch, self.n, hidden], false)?;
        Ok(Input {
            embeds: Tensor::f_cat(&[&prompt, &input.embeds], 1)?,
            mask,
            virtual_tokens: input.virtual_tokens.saturating_add(self.n),
            ..input
        })
    }
}
