//! What this crate asks of a model: an [`Architecture`] that builds views over a [`Scope`], and their forward pass.

use crate::error::Result;
use crate::run::scope::Scope;
use crate::seam::{Batch, Dims, Numerics, Pass};
use serde_json::Value;
use std::fmt::Debug;
use tch::Tensor;

/// A view of a model: what [`Architecture::build`] made of the base's tensors and those of the active adapters.
///
/// ```
/// use peft_core::tch::{Device, Tensor};
/// use peft_core::{Batch, Model, Pass, Peft, Result, models::TinyConfig};
///
/// /// The class of each row, for a model that may be any.
/// fn classes(model: &dyn Model, rows: &Batch) -> Result<Vec<i64>> {
///     Ok(Vec::try_from(model.forward(rows, Pass::eval())?.f_argmax(-1, false)?)?)
/// }
///
/// # fn main() -> Result<()> {
/// let config = TinyConfig::default();
/// let peft = Peft::new(config.init(Device::Cpu)?, config)?;
/// let rows = Batch::dense(Tensor::f_from_slice(&[5i64, 17, 2, 9, 9, 1])?.f_view([2, 3])?);
/// assert_eq!(classes(&peft.view(&[])?, &rows)?.len(), 2);
/// # Ok(())
/// # }
/// ```
pub trait Model: Debug + Send {
    /// What the model computes for a batch: `[batch, classes]` of a classifier, `[batch, virtual tokens + length, vocab]`
    /// of a causal language model.
    ///
    /// # Errors
    /// A batch that does not fit the model.
    fn forward(&self, batch: &Batch, pass: Pass<'_>) -> Result<Tensor>;
}

/// A boxed view is one, too: `generate(&view, ..)`.
impl<M: Model + ?Sized> Model for Box<M> {
    fn forward(&self, batch: &Batch, pass: Pass<'_>) -> Result<Tensor> {
        (**self).forward(batch, pass)
    }
}

/// All that tells two models of a kind apart, as a value that builds views: a model's configuration.
///
/// Building is what finds the sites, and is done again for every view. So it draws nothing at random, reads no file and
/// computes nothing large.
///
/// ```
/// use peft_core::build::{Architecture, Layer, Scope};
/// use peft_core::{Batch, Model, Params, Pass, Peft, Result};
/// use peft_core::tch::{Device, Kind, Tensor};
///
/// /// `W₂ relu(W₁ x)`, for `x` of 4 features.
/// #[derive(Debug)]
/// struct Mlp;
///
/// #[derive(Debug)]
/// struct MlpView([Layer; 2]);
///
/// impl Architecture for Mlp {
///     fn build(&self, scope: &Scope<'_>) -> Result<Box<dyn Model>> {
///         Ok(Box::new(MlpView([scope.linear("up", 4, 16, false)?, scope.linear("down", 16, 2, false)?])))
///     }
/// }
///
/// impl Model for MlpView {
///     fn forward(&self, batch: &Batch, pass: Pass<'_>) -> Result<Tensor> {
///         let h = self.0[0].forward(batch.features()?, pass)?.f_relu()?;
///         self.0[1].forward(&h, pass)
///     }
/// }
///
/// # fn main() -> Result<()> {
/// let base = Params::new("the perceptron", Device::Cpu);
/// for (name, shape) in [("up.weight", [16, 4]), ("down.weight", [2, 16])] {
///     base.insert(name, Tensor::f_randn(shape, (Kind::Float, Device::Cpu))?, false)?;
/// }
/// let peft = Peft::new(base, Mlp)?;
/// let batch = Batch::of_features(Tensor::f_ones([3, 4], (Kind::Float, Device::Cpu))?);
/// assert_eq!(peft.view(&[])?.forward(&batch, Pass::eval())?.size(), [3, 2]);
/// # Ok(())
/// # }
/// ```
#[expect(unused_variables, reason = "a default does nothing with what it is given")]
pub trait Architecture: Debug + Send + Sync {
    /// A view of the model in `scope`.
    ///
    /// # Errors
    /// What the scope says of parameters that are missing or of another shape.
    fn build(&self, scope: &Scope<'_>) -> Result<Box<dyn Model>>;

    /// What methods ask of the model beyond its sites; nothing by default.
    fn dims(&self) -> Dims {
        Dims::default()
    }

    /// What the model computes with where nobody says otherwise: fast kernels, or for a model that stands for a Python
    /// program's bits, its order of operations. Fast by default.
    fn numerics(&self) -> Numerics {
        Numerics::default()
    }

    /// The same for a model whose head is no longer tied to its word embedding; `None` where it is not.
    fn untied(&self) -> Option<Box<dyn Architecture>> {
        None
    }

    /// The same with `vocab` words; `None` where their number is fixed.
    fn resized(&self, vocab: i64) -> Option<Box<dyn Architecture>> {
        None
    }

    /// The same with other names for the classes of its head, as many as there are; `None` where classes have no names.
    fn named(&self, classes: &[String]) -> Option<Box<dyn Architecture>> {
        None
    }

    /// `config.json` of a model directory; `None` for a model that has no such form.
    fn json(&self) -> Option<Value> {
        None
    }
}

impl<A: Architecture + 'static> From<A> for Box<dyn Architecture> {
    fn from(architecture: A) -> Self {
        Box::new(architecture)
    }
}
