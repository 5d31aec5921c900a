//! Self-attention by hand, with projections of any kind and, if wanted, keys and values before the words' own.

use super::lora::{LoraLayer, LoraLinear};
use super::module::{Frozen, Module, Parameter, kept, within};
use super::tensors::{Source, merge_heads, split_heads};
use anyhow::{Result, bail};
use tch::{Kind, Tensor};

/// `O = softmax(Q Kᵀ/√d) V` for each head.
///
/// ```text
/// S = Q Kᵀ/√d       [L, d] [d, K]     = [L, K]     scores of L queries and K keys
/// P = softmax(S)                        [L, K]     each row sums to 1
/// O = P V           [L, K] [K, d]     = [L, d]
/// ```
///
/// Backward, with `G = ∂L/∂O`, `[L, d]`. The derivative of one row of a softmax is `∂pᵢ/∂sⱼ = pᵢ (δᵢⱼ − pⱼ)`, so
///
/// ```text
/// dV = Pᵀ G         [K, L] [L, d]     = [K, d]
/// dP = G Vᵀ         [L, d] [d, K]     = [L, K]
/// dS = P ⊙ (dP − rowsum(P ⊙ dP))        [L, K]     each row sums to 0
/// dQ = dS K/√d      [L, K] [K, d]     = [L, d]
/// dK = dSᵀ Q/√d     [K, L] [L, d]     = [K, d]
/// ```
#[derive(Debug, Default)]
pub struct Core {
    cache: Option<Kept>,
}

#[derive(Debug)]
struct Kept {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    p: Tensor,
}

impl Core {
    /// q `[batch, heads, L, d]`, k and v `[batch, heads, K, d]`, to `[batch, heads, L, d]`.
    pub fn forward(&mut self, q: Tensor, k: Tensor, v: Tensor) -> Result<Tensor> {
        let scores = q.f_matmul(&k.f_transpose(-2, -1)?)?.f_mul_scalar(scale(&q)?)?;
        let p = scores.f_softmax(-1, None::<Kind>)?;
        let o = p.f_matmul(&v)?;
        self.cache = Some(Kept { q, k, v, p });
        Ok(o)
    }

    /// The gradients by q, k and v.
    pub fn backward(&self, grad: &Tensor) -> Result<[Tensor; 3]> {
        let Kept { q, k, v, p } = kept(&self.cache)?;
        let dv = p.f_transpose(-2, -1)?.f_matmul(grad)?;
        let dp = grad.f_matmul(&v.f_transpose(-2, -1)?)?;
        let mean = p.f_mul(&dp)?.f_sum_dim_intlist([-1i64].as_slice(), true, None::<Kind>)?;
        let ds = p.f_mul(&dp.f_sub(&mean)?)?.f_mul_scalar(scale(q)?)?;
        Ok([ds.f_matmul(k)?, ds.f_transpose(-2, -1)?.f_matmul(q)?, dv])
    }

    /// P of the last forward pass, `[batch, heads, L, K]`.
    pub fn weights(&self) -> Result<&Tensor> {
        Ok(&kept(&self.cache)?.p)
    }
}

/// `1/√d`
fn scale(q: &Tensor) -> Result<f64> {
    Ok(1.0 / (q.size4()?.3 as f64).sqrt())
}

/// The projections' names, in order.
pub const NAMES: [&str; 4] = ["q", "k", "v", "o"];

/// Multi-head self-attention: `q`, `k` and `v` of x, the core, `o` of its output.
#[derive(Debug)]
pub struct SelfAttention {
    projections: [Box<dyn Module>; 4],
    heads: i64,
    pub core: Core,
    /// Length of the last prefix.
    prefix: i64,
}

impl SelfAttention {
    pub fn new(projections: [Box<dyn Module>; 4], heads: i64) -> Self {
        Self { projections, heads, core: Core::default(), prefix: 0 }
    }

    /// Behind a prefix of keys and values, `[n, heads, d]` each.
    pub fn forward_behind(&mut self, x: &Tensor, prefix: Option<[&Tensor; 2]>) -> Result<Tensor> {
        let batch = x.size3()?.0;
        let [q, k, v, o] = &mut self.projections;
        let q = split_heads(&q.forward(x)?, self.heads)?;
        let mut k = split_heads(&k.forward(x)?, self.heads)?;
        let mut v = split_heads(&v.forward(x)?, self.heads)?;
        self.prefix = 0;
        if let Some([keys, values]) = prefix {
            let before = |prefix: &Tensor, own: &Tensor| -> Result<Tensor> {
                let prefix =
                    prefix.f_transpose(0, 1)?.f_unsqueeze(0)?.f_expand([batch, -1, -1, -1], false)?;
                Ok(Tensor::f_cat(&[&prefix, own], 2)?)
            };
            (k, v) = (before(keys, &k)?, before(values, &v)?);
            self.prefix = keys.size3()?.0;
        }
        o.forward(&merge_heads(&self.core.forward(q, k, v)?)?)
    }

    /// The gradients by x, and by the prefix's keys and values, `[n, heads, d]` each.
    pub fn backward_behind(&mut self, grad: &Tensor) -> Result<(Tensor, [Tensor; 2])> {
        let [q, k, v, o] = &mut self.projections;
        let [dq, dk, dv] = self.core.backward(&split_heads(&o.backward(grad)?, self.heads)?)?;
        let n = self.prefix;
        // Every row of the batch has the same prefix: a sum, as for prompts.
        let before = |d: &Tensor| -> Result<Tensor> {
            let sum = d.f_narrow(2, 0, n)?.f_sum_dim_intlist([0i64].as_slice(), false, None::<Kind>)?;
            Ok(sum.f_transpose(0, 1)?)
        };
        let own = |d: &Tensor| -> Result<Tensor> { merge_heads(&d.f_narrow(2, n, d.size4()?.2 - n)?) };
        let dx = q.backward(&merge_heads(&dq)?)?;
        let dx = dx.f_add(&k.backward(&own(&dk)?)?)?.f_add(&v.backward(&own(&dv)?)?)?;
        Ok((dx, [before(&dk)?, before(&dv)?]))
    }
}

impl Module for SelfAttention {
    fn forward(&mut self, x: &Tensor) -> Result<Tensor> {
        self.forward_behind(x, None)
    }

    /// x is used three times, so its gradient is a sum of three.
    fn backward(&mut self, grad: &Tensor) -> Result<Tensor> {
        Ok(self.backward_behind(grad)?.0)
    }

    fn parameters(&self) -> Vec<(String, &Parameter)> {
        let named = NAMES.iter().zip(&self.projections);
        named.flat_map(|(name, projection)| within(name, projection.parameters())).collect()
    }
}

/// Four weights `[d, d]` as projections: those of `targets` with LoRA, as it starts, the others frozen.
///
/// # Errors
/// A target that is none of [`NAMES`].
pub fn apply_lora(
    source: Source,
    weights: [Tensor; 4],
    rank: i64,
    alpha: f64,
    targets: &[&str],
) -> Result<[Box<dyn Module>; 4]> {
    if let Some(unknown) = targets.iter().find(|t| !NAMES.contains(t)) {
        bail!("there is no projection `{unknown}`: they are {}", NAMES.join(", "));
    }
    let mut projections = Vec::<Box<dyn Module>>::new();
    for (name, weight) in NAMES.iter().zip(weights) {
        let shape = <[i64; 2]>::from(weight.size2()?);
        let base = Frozen { weight, bias: None };
        projections.push(if targets.contains(name) {
            Box::new(LoraLinear { base, lora: LoraLayer::new(source, shape, rank, alpha)? })
        } else {
            Box::new(base)
        });
    }
    <[_; 4]>::try_from(projections).map_err(|_| anyhow::anyhow!("not four projections"))
}
