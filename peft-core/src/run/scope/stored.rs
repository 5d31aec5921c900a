//! How the parameters of a layer are stored.

use crate::error::Result;
use tch::Tensor;

/// How the parameters of a layer are stored.
#[derive(Debug)]
pub(super) struct Stored<'s> {
    /// Its name in the scope.
    pub weight: String,
    /// As the kernel needs it: `[out, in]`.
    pub shape: &'s [i64],
    /// Stored as `[in, out]`.
    pub transposed: bool,
    /// Full name of the parameter whose tensor the weight is.
    pub tied: Option<&'s str>,
    /// The bias, by its name in the scope, and its length.
    pub bias: Option<(String, i64)>,
}

impl<'s> Stored<'s> {
    /// `leaf.weight`, and `leaf.bias` with a value an output where there is a bias.
    pub fn new(leaf: &str, shape: &'s [i64], bias: bool) -> Self {
        let out = shape.first().copied().unwrap_or_default();
        let bias = bias.then(|| (format!("{leaf}.bias"), out));
        Self { weight: format!("{leaf}.weight"), shape, transposed: false, tied: None, bias }
    }

    /// The weight's shape in the file.
    pub fn dims(&self) -> Vec<i64> {
        let shape = self.shape.iter().copied();
        if self.transposed { shape.rev().collect() } else { shape.collect() }
    }

    /// From the file's form to the kernel's, and back.
    pub fn turn(&self, weight: Tensor) -> Result<Tensor> {
        if self.transposed { Ok(weight.f_tr()?) } else { Ok(weight) }
    }
}
