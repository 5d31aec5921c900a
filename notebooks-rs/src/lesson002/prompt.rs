//! Prompt tuning by hand.

use super::module::{Module, Parameter, kept};
use super::tensors::Source;
use anyhow::Result;
use tch::{Device, Kind, Tensor};

/// `n` trained vectors before the words: `Y = [P; X]`, `[batch, n + length, d]`.
///
/// Backward, with `G = ∂L/∂Y` cut where the prompt ends, `G = [Gₚ; Gₓ]`:
///
/// ```text
/// dP = Σ_batch Gₚ   [batch, n, d] → [n, d]         every row of the batch has the same prompt
/// dX = Gₓ           [batch, length, d]
/// ```
#[derive(Debug)]
pub struct PromptTuning {
    /// P `[n, d]`
    pub prompt: Parameter,
    /// Length of the last input.
    cache: Option<i64>,
}

impl PromptTuning {
    /// As the lesson starts it: N(0, 0.01²).
    pub fn new(source: Source, width: i64, length: i64) -> Result<Self> {
        Self::of(source.normal(&[length, width], 0.01)?)
    }

    /// Of P `[n, d]`.
    pub fn of(prompt: Tensor) -> Result<Self> {
        Ok(Self { prompt: Parameter::new(prompt)?, cache: None })
    }

    /// The other start: copies of rows of the word embedding `[vocab, d]`, drawn with replacement.
    pub fn from_vocab(words: &Tensor, length: i64) -> Result<Self> {
        let ids = Tensor::f_randint(words.size2()?.0, [length], (Kind::Int64, Device::Cpu))?;
        Self::of(words.f_index_select(0, &ids.f_to(words.device())?)?)
    }

    /// n
    pub fn length(&self) -> Result<i64> {
        Ok(self.prompt.value.size2()?.0)
    }
}

impl Module for PromptTuning {
    fn forward(&mut self, x: &Tensor) -> Result<Tensor> {
        let (batch, length, _) = x.size3()?;
        self.cache = Some(length);
        let prompt = self.prompt.value.f_unsqueeze(0)?.f_expand([batch, -1, -1], false)?;
        Ok(Tensor::f_cat(&[&prompt, x], 1)?)
    }

    fn backward(&mut self, grad: &Tensor) -> Result<Tensor> {
        let (n, length) = (self.length()?, *kept(&self.cache)?);
        let by_prompt = grad.f_narrow(1, 0, n)?;
        self.prompt.accumulate(&by_prompt.f_sum_dim_intlist([0i64].as_slice(), false, None::<Kind>)?)?;
        Ok(grad.f_narrow(1, n, length)?)
    }

    fn parameters(&self) -> Vec<(String, &Parameter)> {
        vec![("prompt".into(), &self.prompt)]
    }
}
