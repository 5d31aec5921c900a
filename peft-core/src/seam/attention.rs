//! The attention core, `softmax(Q Kᵀ/√d + mask) V`, as a site of its own: an [`AttentionAdapter`] is middleware
//! around it, as an [`Adapter`](crate::seam::layer::Adapter) is around a layer.

use crate::error::{Error, Result};
use crate::seam::low_rank::plus;
use crate::seam::numerics::Numerics;
use crate::seam::pass::Pass;
use std::fmt::Debug;
use tch::{Device, Kind, Tensor};

/// What the core reads, split into heads: q `[batch, heads, queries, d]`, k and v `[batch, kv_heads, keys, d]`.
#[derive(Debug)]
pub struct Heads {
    pub q: Tensor,
    pub k: Tensor,
    pub v: Tensor,
    /// Added to the scores; `[batch, 1, 1 or queries, keys]`.
    pub mask: Option<Tensor>,
    /// Query i sees the keys up to i and no others; for as many keys as queries, and without a mask.
    pub causal: bool,
    /// How many keys a query sees, its own included, where not all; the mask says so already.
    pub window: Option<i64>,
}

impl Heads {
    /// Puts further keys and values, `[batch or 1, kv_heads, n, d]`, before the ones there are; every query sees them
    /// whose window reaches so far.
    pub fn prepend(mut self, k: &Tensor, v: &Tensor) -> Result<Self> {
        let batch = self.k.size4()?.0;
        let join = |new: &Tensor, old: &Tensor| -> Result<Tensor> {
            let new = new.f_to_kind(old.kind())?.f_expand([batch, -1, -1, -1], false)?;
            Ok(Tensor::f_cat(&[&new, old], 2)?)
        };
        let (queries, keys, n) = (self.q.size4()?.2, self.k.size4()?.2, k.size4()?.2);
        let (all, options) = (keys.saturating_add(n), (self.q.kind(), self.q.device()));
        let narrow = self.window.is_some_and(|window| window < all);
        if std::mem::take(&mut self.causal) || (narrow && self.mask.is_none()) {
            self.mask = Some(causal_mask(queries, keys, self.window, options)?);
        }
        self.k = join(k, &self.k)?;
        self.v = join(v, &self.v)?;
        self.mask = match self.mask {
            Some(mask) if narrow => {
                let new = causal_mask(queries, all, self.window, options)?.f_narrow(-1, 0, n)?;
                Some(Tensor::f_cat(&[&new.f_expand([mask.size4()?.0, -1, -1, -1], false)?, &mask], -1)?)
            }
            mask => mask.map(|mask| open_keys(&mask, n)).transpose()?,
        };
        Ok(self)
    }
}

/// An additive mask with `n` more keys in front that everybody may see.
pub fn open_keys(mask: &Tensor, n: i64) -> Result<Tensor> {
    Ok(mask.f_constant_pad_nd([n, 0])?)
}

/// The additive mask of `queries` tokens that end a row of `keys`: 0 for a token itself and those before it (at most
/// `window` of them, itself included), the dtype's lowest number for the others; `[1, 1, queries, keys]`.
pub fn causal_mask(
    queries: i64,
    keys: i64,
    window: Option<i64>,
    (kind, device): (Kind, Device),
) -> Result<Tensor> {
    let before = keys.saturating_sub(queries);
    let all = Tensor::f_ones([queries, keys], (Kind::Bool, device))?;
    let mut seen = all.f_tril(before)?;
    if let Some(window) = window {
        seen = seen.f_logical_and(&all.f_triu(before.saturating_sub(window).saturating_add(1))?)?;
    }
    let zeros = Tensor::f_zeros([queries, keys], (kind, device))?;
    let hidden = zeros.f_masked_fill(&seen.f_logical_not()?, lowest(kind))?;
    Ok(hidden.f_view([1, 1, queries, keys])?)
}

/// `softmax(Q Kᵀ/√d) V` over keys and values `[1 or batch, kv_heads, n, d]` that stand beside the model's own: without
/// a mask, the softmax in f32; `[batch, heads, queries, d]`.
pub fn attend_to(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    let (batch, heads, queries, d) = q.size4()?;
    // The query heads that share a key head are further queries of it.
    let kv_heads = k.size4()?.1;
    let rows = q.f_reshape([batch, kv_heads, -1, d])?;
    let scores = rows.f_matmul(&k.f_to_kind(q.kind())?.f_transpose(-2, -1)?)?;
    let weights = scores.f_mul_scalar((1.0 / d as f64).sqrt())?.f_softmax(-1, Kind::Float)?;
    let y = weights.f_to_kind(q.kind())?.f_matmul(&v.f_to_kind(q.kind())?)?;
    Ok(y.f_reshape([batch, heads, queries, d])?)
}

/// The lowest finite number of a dtype. Masks are made of it and not of −∞, so that a row which may see nothing
/// (padding before the first word) is a mean and not a NaN.
pub(crate) fn lowest(kind: Kind) -> f64 {
    match kind {
        Kind::Half => -65504.0,
        Kind::Double => f64::MIN,
        // bfloat16's lowest is above f32's, which would round to −∞ there.
        Kind::BFloat16 => -3.3895313892515355e38,
        _ => f64::from(f32::MIN),
    }
}

/// Middleware around the attention core of one layer of the model.
pub trait AttentionAdapter: Debug + Send {
    /// The adapted computation.
    fn forward(&self, heads: Heads, inner: &AttentionInner<'_>) -> Result<Attended>;
}

/// What an attention core gives: the model's attention leaves [through](Attended::through) it.
#[derive(Debug)]
pub struct Attended {
    /// `[batch, heads, queries, d]`, for the output projection.
    y: Tensor,
    /// What is added behind the output projection, of the same shape, if anything is.
    behind: Option<Tensor>,
}

impl Attended {
    /// With more before the output projection, `[batch, heads, queries, d]`.
    pub fn plus(self, more: &Tensor) -> Result<Self> {
        Ok(Self { y: self.y.f_add(more)?, ..self })
    }

    /// With more behind the output projection, `[batch, heads, queries, d]`.
    pub fn plus_behind(self, more: Tensor) -> Result<Self> {
        Ok(Self { behind: plus(self.behind, Some(more))?, ..self })
    }

    /// The end of the model's attention: `output(join(y))`, and what comes behind it. `join` puts the heads side by side,
    /// `[batch, heads, queries, d]` to what `output` gives and takes.
    pub fn through(
        self,
        join: impl Fn(&Tensor) -> Result<Tensor>,
        output: impl FnOnce(Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let y = output(join(&self.y)?)?;
        match self.behind {
            Some(behind) => Ok(y.f_add(&join(&behind)?)?),
            None => Ok(y),
        }
    }
}

/// The attention core of one layer, with the adapters that are active there.
#[derive(Debug)]
pub struct Attention {
    pub(crate) name: String,
    pub(crate) numerics: Numerics,
    pub(crate) dropout: f64,
    /// Index of the model's layer, for the cache.
    pub(crate) layer: i64,
    pub(crate) adapters: Vec<Box<dyn AttentionAdapter>>,
}

/// The model's own key and value projections: `[batch, n, hidden]` to two of `[batch, kv_heads, n, d]`.
pub type Project<'a> = &'a dyn Fn(&Tensor) -> Result<(Tensor, Tensor)>;

impl Attention {
    /// Attends; `project` is there for adapters that bring hidden states of their own.
    pub fn forward(&self, heads: Heads, pass: Pass<'_>, project: Project<'_>) -> Result<Attended> {
        let inner = AttentionInner { attention: self, adapters: &self.adapters, project, pass };
        let attend = || {
            let Some(cache) = pass.cache else { return inner.forward(heads) };
            let (k, v) = cache.extend(self.layer, &heads.k, &heads.v)?;
            inner.forward(Heads { k, v, ..heads })
        };
        attend().map_err(|e| e.at(&self.name))
    }
}

/// The rest of the chain, as one attention adapter sees it.
#[derive(Clone, Copy)]
pub struct AttentionInner<'a> {
    attention: &'a Attention,
    adapters: &'a [Box<dyn AttentionAdapter>],
    project: Project<'a>,
    /// The state of this call.
    pub pass: Pass<'a>,
}

impl AttentionInner<'_> {
    /// The rest of the chain.
    pub fn forward(&self, heads: Heads) -> Result<Attended> {
        match self.adapters.split_last() {
            Some((last, before)) => last.forward(heads, &AttentionInner { adapters: before, ..*self }),
            None => Ok(Attended { y: self.core(&heads)?, behind: None }),
        }
    }

    /// Keys and values of hidden states `[batch, n, hidden]`, by the model's own projections.
    pub fn project(&self, hidden: &Tensor) -> Result<(Tensor, Tensor)> {
        (self.project)(hidden)
    }

    fn core(&self, h: &Heads) -> Result<Tensor> {
        let dropout = if self.pass.train { self.attention.dropout } else { 0.0 };
        match self.attention.numerics {
            Numerics::Fast => {
                let grouped = h.q.size4()?.1 != h.k.size4()?.1;
                let mask = h.mask.as_ref();
                Ok(Tensor::f_scaled_dot_product_attention(
                    &h.q, &h.k, &h.v, mask, dropout, h.causal, None, grouped,
                )?)
            }
            Numerics::Exact => by_steps(h, dropout),
        }
    }
}

/// `nn.MultiheadAttention`'s order: scale q, multiply, add the mask, softmax, dropout, multiply.
fn by_steps(h: &Heads, dropout: f64) -> Result<Tensor> {
    let (heads, d) = (h.q.size4()?.1, h.q.size4()?.3);
    if heads != h.k.size4()?.1 {
        return Err(Error::Input("attention step by step needs as many key heads as query heads".into()));
    }
    let mut scores = h.q.f_mul_scalar((1.0 / d as f64).sqrt())?.f_matmul(&h.k.f_transpose(-2, -1)?)?;
    if h.causal {
        let (queries, keys) = (h.q.size4()?.2, h.k.size4()?.2);
        scores = scores.f_add(&causal_mask(queries, keys, None, (scores.kind(), scores.device()))?)?;
    }
    if let Some(mask) = &h.mask {
        scores = scores.f_add(mask)?;
    }
    let mut weights = scores.f_softmax(-1, None::<Kind>)?;
    if dropout > 0.0 {
        weights = weights.f_dropout(dropout, true)?;
    }
    Ok(weights.f_matmul(&h.v)?)
}

impl Debug for AttentionInner<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AttentionInner").field("attention", &self.attention).finish()
    }
}
