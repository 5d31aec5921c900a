//! Gates, differences, and what is added to a layer.

use crate::error::{Error, Result};
use crate::methods::diff_pruning::{GROUP, INDICES, LOG_ALPHA, STRETCH, VALUES};
use crate::seam::{Adapter, Inner, Params, Weights, is_float, numel};
use tch::{Kind, Tensor};

/// The expected number of open gates, `[]`, and the number of all.
pub(super) fn open_gates(params: &Params) -> Result<Option<(Tensor, i64)>> {
    let (low, high) = STRETCH;
    let open = |log_alpha: &Tensor| log_alpha.f_sub_scalar((-low / high).ln())?.f_sigmoid();
    let mut sum: Option<(Tensor, i64)> = None;
    for (name, log_alpha) in params.tensors() {
        let Some(name) = name.strip_suffix(LOG_ALPHA) else { continue };
        let term = open(&log_alpha)?.f_sum(Kind::Float)?;
        let term = match params.find(&format!("{name}{GROUP}")) {
            Some(group) => term.f_mul(&open(&group)?.f_sum(Kind::Float)?)?,
            None => term,
        };
        let all = numel(&log_alpha);
        sum = Some(match sum {
            Some((open, before)) => (open.f_add(&term)?, all.saturating_add(before)),
            None => (term, all),
        });
    }
    Ok(sum)
}

/// The difference of one parameter.
#[derive(Debug)]
pub(super) enum Diff {
    /// All of the parameter's shape, but for the group's `[1]`.
    Gated { w: Tensor, log_alpha: Tensor, group: Option<Tensor> },
    /// Places in the flat parameter, int64, and the differences there, both `[n]`.
    Sparse { indices: Tensor, values: Tensor, dims: Vec<i64> },
}

impl Diff {
    /// Reads a pruned difference of a parameter of shape `dims`.
    pub fn sparse(name: &str, dims: &[i64], params: &Params) -> Result<Self> {
        let (places, values) = (format!("{name}{INDICES}"), format!("{name}{VALUES}"));
        let n = params.find(&values).or_else(|| params.find(&places)).map_or(0, |t| numel(&t));
        let (places, values) = (params.get(&places, &[n])?, params.get(&values, &[n])?);
        let indices = params.derived(&format!("{name} as int64"), || {
            let all: i64 = dims.iter().product();
            let indices = places.f_to_kind(Kind::Int64)?;
            // −1, the places, the end: each above the one before.
            let ends = |end: i64| indices.f_new_full([1], end, (Kind::Int64, indices.device()));
            let rises = indices.f_diff(1, 0, Some(ends(-1)?), Some(ends(all)?))?.f_gt(0)?;
            if is_float(&places) || !bool::try_from(rises.f_all()?)? {
                let what = format!("`{name}{INDICES}` are not rising whole numbers below {all}");
                return Err(Error::Input(format!("{}: {what}", params.label())));
            }
            Ok(indices)
        })?;
        Ok(Diff::Sparse { indices, values, dims: dims.to_vec() })
    }

    /// The difference, in the parameter's shape. In training, gates are drawn.
    pub fn value(&self, train: bool) -> Result<Tensor> {
        match self {
            Diff::Gated { w, log_alpha, group } => {
                let value = w.f_mul(&gate(log_alpha, train)?)?;
                Ok(match group {
                    Some(group) => value.f_mul(&gate(group, train)?)?,
                    None => value,
                })
            }
            Diff::Sparse { indices, values, dims } => {
                let all: i64 = dims.iter().product();
                let zeros = Tensor::f_zeros([all], (values.kind(), values.device()))?;
                Ok(zeros.f_index_add(0, indices, values)?.f_view(dims.as_slice())?)
            }
        }
    }
}

/// `min(1, max(0, s (r − l) + l))`.
fn gate(log_alpha: &Tensor, train: bool) -> Result<Tensor> {
    let (low, high) = STRETCH;
    let s = match train {
        true => log_alpha.f_rand_like()?.f_logit(None)?.f_add(log_alpha)?.f_sigmoid()?,
        false => log_alpha.f_sigmoid()?,
    };
    Ok(s.f_mul_scalar(high - low)?.f_add_scalar(low)?.f_clamp(0.0, 1.0)?)
}

/// Diff pruning at one layer.
#[derive(Debug)]
pub(super) struct DiffPruning {
    pub weight: Diff,
    pub bias: Option<Diff>,
}

impl DiffPruning {
    /// The adapted weights, in f32.
    fn add(&self, w: &Weights, train: bool) -> Result<Weights> {
        let bias = match (&self.bias, &w.bias) {
            (Some(diff), Some(bias)) => Some(diff.value(train)?.f_add(bias)?),
            (_, bias) => bias.as_ref().map(Tensor::shallow_clone),
        };
        Ok(Weights { weight: self.weight.value(train)?.f_add(&w.weight)?, bias })
    }
}

impl Adapter for DiffPruning {
    fn reweight(&self, w: Weights) -> Result<Weights> {
        self.add(&w, false)?.in_kinds(w.kinds())
    }

    /// In f32, whatever the base's dtype: differences are small beside the weights, and would be rounded away.
    fn forward(&self, x: &Tensor, inner: &Inner<'_>) -> Result<Tensor> {
        let base = inner.weights()?;
        let wide = if is_float(x) { x.f_to_kind(Kind::Float)? } else { x.shallow_clone() };
        let y = inner.apply(&wide, &self.add(&base, inner.pass.train)?)?;
        Ok(y.f_to_kind(base.weight.kind())?)
    }
}
