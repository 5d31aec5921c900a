//! What low-rank methods have in common: a thin product beside a layer.

use crate::error::Result;
use crate::seam::Inner;
use tch::Tensor;

/// `inner(x) + down(x) Bᵀ`, B `[out, r]`; `down` maps `[rows, in]`, in the dtype of B, to `[rows, r]`. The product is
/// accumulated into the layer's output: no second tensor of that size is formed.
pub(super) fn accumulate(
    x: &Tensor,
    inner: &Inner<'_>,
    b: &Tensor,
    down: impl FnOnce(Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let mut shape = x.size();
    let width = shape.pop().unwrap_or_default();
    let x = x.f_contiguous()?;
    // Two views and not one: the gradients of the two paths are then added at x itself, in the order in which PyTorch adds
    // them for `y + h Bᵀ`. It is the same one addition, and a view copies nothing, so no kernel would be faster: the bits of
    // a Python program cost nothing here, and there is no choice of `Numerics` to be made.
    let mut y = inner.forward(&x.f_view([-1, width])?)?;
    let h = down(x.f_view([-1, width])?.f_to_kind(b.kind())?)?;
    let up = b.f_tr()?;
    let y = if y.kind() == h.kind() {
        y.f_addmm_(&h, &up)?
    } else {
        y.f_add(&h.f_mm(&up)?)?.f_to_kind(y.kind())?
    };
    shape.push(b.size2()?.0);
    Ok(y.f_view(shape.as_slice())?)
}
