//! Drawing a token.

use crate::check;
use crate::error::{Error, Result};
use tch::{Kind, Tensor};

/// How a token is drawn: from `softmax(logits / temperature)`, cut to the `top_k` likeliest tokens, then to the fewest
/// likeliest ones whose probabilities reach `top_p`, then to those at least `min_p` times as likely as the likeliest.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// What logits are divided by: below 1 likely tokens become likelier, above 1 all become more alike.
    pub temperature: f64,
    /// How many of the likeliest tokens one is drawn from; `None` for all.
    pub top_k: Option<i64>,
    /// A token is drawn from the fewest likeliest ones that have this probability together; `None` for all.
    pub top_p: Option<f64>,
    /// A token is drawn from those that are at least this many times as likely as the likeliest one; `None` for all.
    pub min_p: Option<f64>,
    /// Where the random numbers begin: the same seed draws the same tokens on every device. libtorch's generator is not
    /// touched.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 1.0, top_k: None, top_p: None, min_p: None, seed: 0 }
    }
}

impl Sampling {
    pub(super) fn check(&self, place: &str) -> Result<()> {
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            let hint = "without sampling the likeliest token is taken";
            let message = format!("should be above 0, is {}; {hint}", self.temperature);
            return Err(Error::config(place, "temperature", message));
        }
        self.top_k.map_or(Ok(()), |k| check::positive(place, "top_k", k))?;
        self.top_p.map_or(Ok(()), |p| check::kept(place, "top_p", p))?;
        let fits = |p: f64| check::should_be((0.0..=1.0).contains(&p), "in [0, 1]", place, "min_p", p);
        self.min_p.map_or(Ok(()), fits)
    }
}

/// One token a row of `logits` `[batch, vocab]`, by the inverse of the cumulative distribution.
pub(super) fn drawn(logits: &Tensor, s: &Sampling, draws: &mut Draws) -> Result<Tensor> {
    let (rows, vocab) = logits.size2()?;
    let likeliest = s.top_k.map_or(vocab, |k| k.min(vocab));
    let (values, tokens) = logits.f_to_kind(Kind::Double)?.f_topk(likeliest, -1, true, true)?;
    let p = values.f_div_scalar(s.temperature)?.f_softmax(-1, None::<Kind>)?;
    let sums = p.f_cumsum(-1, None::<Kind>)?;
    // A token stays if those before it do not reach top_p: the likeliest always does.
    let kept = sums.f_sub(&p)?.f_lt(s.top_p.unwrap_or(f64::INFINITY))?;
    // Tokens are sorted, so that what stays is always the first ones.
    let enough = p.f_narrow(1, 0, 1)?.f_mul_scalar(s.min_p.unwrap_or_default())?;
    let kept = kept.f_logical_and(&p.f_ge_tensor(&enough)?)?;
    let total = p.f_mul(&kept)?.f_sum_dim_intlist(-1, true, None::<Kind>)?;
    let uniform: Vec<f64> = (0..rows).map(|_| draws.next()).collect();
    let target = Tensor::f_from_slice(&uniform)?.f_to(logits.device())?.f_unsqueeze(1)?.f_mul(&total)?;
    let below = sums.f_le_tensor(&target)?.f_sum_dim_intlist(-1, true, Kind::Int64)?;
    let last = kept.f_sum_dim_intlist(-1, true, Kind::Int64)?.f_sub_scalar(1)?;
    Ok(tokens.f_gather(-1, &below.f_minimum(&last)?.f_clamp_min(0)?, false)?.f_squeeze_dim(1)?)
}

/// SplitMix64. Steele et al. 2014, <https://doi.org/10.1145/2660193.2660195>: a few lines, so that a seed means the same
/// whatever libraries there are.
pub(super) struct Draws(pub u64);

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
        // The likeliest has 2.72 times the probability of the next, and 7.39 times that of the third.
        assert!(close(&shares(Sampling { min_p: Some(0.3), ..base.clone() }), &softmax(&[1, 3], 1.0)));
        assert!(close(&shares(Sampling { min_p: Some(0.4), ..base.clone() }), &softmax(&[1], 1.0)));
        assert!(close(&shares(Sampling { top_k: Some(9), ..base }), &softmax(&[0, 1, 2, 3], 1.0)));
    }
}
