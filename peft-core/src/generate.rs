//! Text generation: greedy or sampled, for rows of different length, over any view of a causal model.

use crate::cache::KvCache;
use crate::layer::Pass;
use crate::model::{Batch, Model};
use crate::{Error, Result};
use tch::{Device, Kind, Tensor};

/// How text is generated.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateConfig {
    /// New tokens of a row, if nothing ends it before.
    pub max_new_tokens: i64,
    /// Ids that end a row; they are part of it.
    pub eos_token_ids: Vec<i64>,
    /// What the result has behind a row's end.
    pub pad_token_id: i64,
    /// Draws each token; `None` takes the likeliest.
    pub sampling: Option<Sampling>,
    /// Keeps the keys and values of the tokens so far. Without it, every new token costs a pass over all of them.
    pub use_cache: bool,
}

impl Default for GenerateConfig {
    fn default() -> Self {
        Self {
            max_new_tokens: 20,
            eos_token_ids: Vec::new(),
            pad_token_id: 0,
            sampling: None,
            use_cache: true,
        }
    }
}

/// How a token is drawn: from `softmax(logits / temperature)`, cut to the `top_k` likeliest tokens, and then to the
/// fewest likeliest ones whose probabilities reach `top_p`.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    pub temperature: f64,
    pub top_k: Option<i64>,
    pub top_p: Option<f64>,
    /// The same seed draws the same tokens on every device; libtorch's generator is not touched.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 1.0, top_k: None, top_p: None, seed: 0 }
    }
}

impl GenerateConfig {
    fn check(&self) -> Result<()> {
        let wrong = |field: &str, message: String| Err(Error::config("generation", field, message));
        if self.max_new_tokens < 1 {
            return wrong(
                "max_new_tokens",
                format!("should be a positive integer, is {}", self.max_new_tokens),
            );
        }
        let Some(s) = &self.sampling else { return Ok(()) };
        if !(s.temperature > 0.0 && s.temperature.is_finite()) {
            let hint = "without sampling the likeliest token is taken";
            return wrong("temperature", format!("should be above 0, is {}; {hint}", s.temperature));
        }
        match (s.top_k, s.top_p) {
            (Some(k), _) if k < 1 => wrong("top_k", format!("should be a positive integer, is {k}")),
            (_, Some(p)) if !(p > 0.0 && p <= 1.0) => wrong("top_p", format!("should be in (0, 1], is {p}")),
            _ => Ok(()),
        }
    }

    /// Ids that the model does not have could not be met, or not be read on.
    fn check_ids(&self, vocab: i64) -> Result<()> {
        let ends = self.eos_token_ids.iter().map(|id| ("eos_token_ids", *id));
        let wrong =
            ends.chain([("pad_token_id", self.pad_token_id)]).find(|(_, id)| !(0..vocab).contains(id));
        wrong.map_or(Ok(()), |(field, id)| {
            let message = format!("{id} is outside the model's vocabulary of {vocab}");
            Err(Error::config("generation", field, message))
        })
    }
}

/// The new tokens of each row of `batch`, `[batch, n]` with `n ≤ max_new_tokens`; behind a row's end there is padding.
///
/// Rows of different length are padded on the left or on the right, and say so in the batch's mask: a row's text is
/// what it is alone. (Where layers have a sliding window, padding on the left does count as distance to a prompt before
/// it.) Nothing is recorded for gradients.
///
/// # Errors
/// A setting that cannot be, a row without a token, a model that is not causal, more tokens than it has positions, and
/// [`Error::NonFinite`] for logits that are not finite.
pub fn generate<M: Model>(model: &M, batch: &Batch, config: &GenerateConfig) -> Result<Tensor> {
    config.check()?;
    let _guard = tch::no_grad_guard();
    let prompt = aligned(batch)?;
    let (rows, length) = prompt.ids.size2()?;
    let mask = prompt.mask.map(|m| {
        let new = Tensor::f_ones([rows, config.max_new_tokens], (m.kind(), m.device()))?;
        Tensor::f_cat(&[&m, &new], 1)
    });
    let mask = mask.transpose()?;
    let mut ids = prompt.ids;
    let mut draws = config.sampling.as_ref().map(|s| (s, Draws(s.seed)));
    let cache = KvCache::new();
    let pass = Pass { cache: config.use_cache.then_some(&cache), last: true, ..Pass::eval() };
    let mut ended = Tensor::f_zeros([rows], (Kind::Bool, ids.device()))?;
    let mut text = Vec::new();
    for step in 0..config.max_new_tokens {
        let seen = mask.as_ref().map(|m| m.f_narrow(1, 0, length.saturating_add(step))).transpose()?;
        let logits =
            model.forward(&Batch { ids: ids.shallow_clone(), mask: seen, token_types: None }, pass)?;
        let &[_, 1, vocab] = logits.size().as_slice() else {
            return Err(Error::Input("this model is not causal: it has no logits for a next token".into()));
        };
        let logits = logits.f_view([rows, vocab])?;
        let next = match &mut draws {
            Some((sampling, draws)) => drawn(&logits, sampling, draws)?,
            None => logits.f_argmax(-1, false)?,
        };
        if step == 0 {
            config.check_ids(vocab)?;
        }
        let best = logits.f_amax(-1, false)?;
        let broken = best.f_isfinite()?.f_logical_or(&ended)?.f_logical_not()?;
        let next = next.f_masked_fill(&ended, config.pad_token_id)?;
        for end in &config.eos_token_ids {
            ended = ended.f_logical_or(&next.f_eq(*end)?)?;
        }
        let next = next.f_unsqueeze(1)?;
        text.push(next.shallow_clone());
        // One look at the device a token.
        let flags = Tensor::f_stack(&[broken.f_any()?, ended.f_all()?], 0)?.f_to_device(Device::Cpu)?;
        if flags.f_int64_value(&[0])? != 0 {
            let value = best.f_masked_select(&broken)?.f_double_value(&[0])?;
            return Err(Error::NonFinite {
                what: "a logit",
                value,
                step: u64::try_from(step).unwrap_or_default(),
            });
        }
        if flags.f_int64_value(&[1])? != 0 {
            break;
        }
        ids = if config.use_cache { next } else { Tensor::f_cat(&[&ids, &next], 1)? };
    }
    Ok(Tensor::f_cat(&text, 1)?)
}

/// The batch with all its padding on the left, so that every row ends with a token.
fn aligned(batch: &Batch) -> Result<Batch> {
    let ids = batch.ids.shallow_clone();
    let &[_, length] = ids.size().as_slice() else {
        return Err(Error::Input(format!("ids of shape {:?}, expected [batch, length]", ids.size())));
    };
    if ids.numel() == 0 {
        return Err(Error::Input("there is no token to go on from".into()));
    }
    batch.check_mask(0)?;
    batch.check_untyped()?;
    let Some(mask) = &batch.mask else { return Ok(Batch { ids, mask: None, token_types: None }) };
    let real = mask.f_ne(0)?.f_flip([1])?.f_cumsum(1, Kind::Int64)?;
    let right = real.f_eq(0)?.f_sum_dim_intlist(1, true, Kind::Int64)?;
    if right.f_max()?.f_int64_value(&[])? >= length {
        return Err(Error::Input(
            "a row of the batch is all padding: there is no token to go on from".into(),
        ));
    }
    let all = Tensor::f_arange(length, (Kind::Int64, ids.device()))?;
    let from = all.f_unsqueeze(0)?.f_sub(&right)?.f_remainder(length)?;
    Ok(Batch {
        ids: ids.f_gather(1, &from, false)?,
        mask: Some(mask.f_gather(1, &from, false)?),
        token_types: None,
    })
}

/// One token a row of `logits` `[batch, vocab]`, by the inverse of the cumulative distribution.
fn drawn(logits: &Tensor, s: &Sampling, draws: &mut Draws) -> Result<Tensor> {
    let (rows, vocab) = logits.size2()?;
    let likeliest = s.top_k.map_or(vocab, |k| k.min(vocab));
    let (values, tokens) = logits.f_to_kind(Kind::Double)?.f_topk(likeliest, -1, true, true)?;
    let p = values.f_div_scalar(s.temperature)?.f_softmax(-1, None::<Kind>)?;
    let sums = p.f_cumsum(-1, None::<Kind>)?;
    // A token stays if those before it do not reach top_p: the likeliest always does.
    let kept = sums.f_sub(&p)?.f_lt(s.top_p.unwrap_or(f64::INFINITY))?;
    let total = p.f_mul(&kept)?.f_sum_dim_intlist(-1, true, None::<Kind>)?;
    let uniform: Vec<f64> = (0..rows).map(|_| draws.next()).collect();
    let target = Tensor::f_from_slice(&uniform)?.f_to(logits.device())?.f_unsqueeze(1)?.f_mul(&total)?;
    let below = sums.f_le_tensor(&target)?.f_sum_dim_intlist(-1, true, Kind::Int64)?;
    let last = kept.f_sum_dim_intlist(-1, true, Kind::Int64)?.f_sub_scalar(1)?;
    Ok(tokens.f_gather(-1, &below.f_minimum(&last)?.f_clamp_min(0)?, false)?.f_squeeze_dim(1)?)
}

/// SplitMix64. Steele et al. 2014, <https://doi.org/10.1145/2660193.2660195>: a few lines, so that a seed means the same
/// whatever libraries there are.
struct Draws(u64);

impl Draws {
    /// Uniform in [0, 1).
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first outputs of the reference implementation for seed 1234567.
    #[test]
    fn draws_are_splitmix64() {
        let mut draws = Draws(1_234_567);
        for expected in [6_457_827_717_110_365_317u64, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423] {
            assert_eq!(draws.next(), (expected >> 11) as f64 / (1u64 << 53) as f64);
        }
    }

    #[test]
    fn draws_follow_the_distribution() {
        let logits = Tensor::from_slice(&[0.0f32, 2.0, -1.0, 1.0]).unsqueeze(0);
        let rows = 20_000;
        let shares = |s: Sampling| -> Vec<f64> {
            let tokens = drawn(&logits.expand([rows, 4], false), &s, &mut Draws(3)).unwrap();
            let counts = tokens.bincount::<Tensor>(None, 4).to_kind(Kind::Double);
            Vec::try_from(counts / rows as f64).unwrap()
        };
        let softmax = |kept: &[usize], t: f64| -> Vec<f64> {
            let e = [0.0f64, 2.0, -1.0, 1.0].map(|l| (l / t).exp());
            let sum: f64 = kept.iter().map(|i| e[*i]).sum();
            (0..4).map(|i| if kept.contains(&i) { e[i] / sum } else { 0.0 }).collect()
        };
        let close = |a: &[f64], b: &[f64]| {
            a.iter().zip(b).all(|(a, b)| (a - b).abs() < 0.015 && (*b > 0.0 || *a == 0.0))
        };
        let base = Sampling::default();
        assert!(close(&shares(base.clone()), &softmax(&[0, 1, 2, 3], 1.0)));
        assert!(close(&shares(Sampling { temperature: 3.0, ..base.clone() }), &softmax(&[0, 1, 2, 3], 3.0)));
        assert!(close(&shares(Sampling { top_k: Some(2), ..base.clone() }), &softmax(&[1, 3], 1.0)));
        // 0.64 alone is below 0.7, with the next it is 0.88.
        assert!(close(&shares(Sampling { top_p: Some(0.7), ..base.clone() }), &softmax(&[1, 3], 1.0)));
        assert!(close(&shares(Sampling { top_p: Some(0.6), ..base.clone() }), &softmax(&[1], 1.0)));
        assert!(close(&shares(Sampling { top_k: Some(9), ..base }), &softmax(&[0, 1, 2, 3], 1.0)));
    }
}
