//! The bottleneck adapter by hand.

use super::module::{Module, Parameter, kept};
use super::tensors::{Source, rows};
use anyhow::Result;
use tch::Tensor;

/// The bottleneck alone, `Y = relu(X D) U`, without biases; D and U are stored as the lesson has them.
///
/// ```text
/// Z = X D           [N, d] [d, m]     = [N, m]
/// H = max(Z, 0)                         [N, m]
/// Y = H U           [N, m] [m, d]     = [N, d]
/// ```
///
/// Backward, with `G = ∂L/∂Y`, `[N, d]`:
///
/// ```text
/// dU = Hᵀ G         [m, N] [N, d]     = [m, d]
/// dH = G Uᵀ         [N, d] [d, m]     = [N, m]
/// dZ = dH ⊙ [Z > 0]                     [N, m]     a unit that is off passes nothing on
/// dD = Xᵀ dZ        [d, N] [N, m]     = [d, m]
/// dX = dZ Dᵀ        [N, m] [m, d]     = [N, d]
/// ```
#[derive(Debug)]
pub struct Bottleneck {
    /// D `[d, m]`
    pub down: Parameter,
    /// U `[m, d]`
    pub up: Parameter,
    /// X `[N, d]` and Z `[N, m]`.
    cache: Option<(Tensor, Tensor)>,
}

impl Bottleneck {
    /// As the lesson starts it: both N(0, 0.01²).
    pub fn new(source: Source, width: i64, size: i64) -> Result<Self> {
        Self::of(source.normal(&[width, size], 0.01)?, source.normal(&[size, width], 0.01)?)
    }

    /// Of D `[d, m]` and U `[m, d]`.
    pub fn of(down: Tensor, up: Tensor) -> Result<Self> {
        Ok(Self { down: Parameter::new(down)?, up: Parameter::new(up)?, cache: None })
    }

    /// m
    pub fn size(&self) -> Result<i64> {
        Ok(self.up.value.size2()?.0)
    }
}

impl Module for Bottleneck {
    fn forward(&mut self, x: &Tensor) -> Result<Tensor> {
        let z = x.f_matmul(&self.down.value)?;
        self.cache = Some((rows(x)?, rows(&z)?));
        Ok(z.f_relu()?.f_matmul(&self.up.value)?)
    }

    fn backward(&mut self, grad: &Tensor) -> Result<Tensor> {
        let (x, z) = kept(&self.cache)?;
        let g = rows(grad)?;
        self.up.accumulate(&z.f_relu()?.f_tr()?.f_matmul(&g)?)?;
        let dz = g.f_matmul(&self.up.value.f_tr()?)?.f_mul(&z.f_gt(0.0)?)?;
        self.down.accumulate(&x.f_tr()?.f_matmul(&dz)?)?;
        Ok(dz.f_matmul(&self.down.value.f_tr()?)?.f_view_as(grad)?)
    }

    fn parameters(&self) -> Vec<(String, &Parameter)> {
        vec![("W_down".into(), &self.down), ("W_up".into(), &self.up)]
    }
}

/// The adapter: `Y = X + relu(X D) U`. The residual connection adds G itself to dX.
#[derive(Debug)]
pub struct Adapter(pub Bottleneck);

impl Module for Adapter {
    fn forward(&mut self, x: &Tensor) -> Result<Tensor> {
        Ok(x.f_add(&self.0.forward(x)?)?)
    }

    fn backward(&mut self, grad: &Tensor) -> Result<Tensor> {
        Ok(grad.f_add(&self.0.backward(grad)?)?)
    }

    fn parameters(&self) -> Vec<(String, &Parameter)> {
        self.0.parameters()
    }
}
