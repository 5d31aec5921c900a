//! One run of a model's constructor: what it is given, and what it leaves behind.

pub(crate) mod active;
pub(crate) mod carried;
pub(crate) mod model;
pub(crate) mod rewrite;
pub(crate) mod scope;

pub(crate) use active::Active;
pub(crate) use carried::Carried;
pub use model::{Architecture, Model};
pub(crate) use rewrite::{Copied, Origin, Rewrite};
pub use scope::Scope;

use crate::seam::{Dims, Numerics, Params, SiteOutline};
use std::cell::RefCell;

/// Parameters that are another one's tensor: name and the other's name.
pub(crate) type Tied = Vec<(String, String)>;

/// One run of a constructor.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub base: &'a Params,
    pub dims: &'a Dims,
    pub numerics: Numerics,
    pub active: Vec<Active<'a>>,
    pub sites: RefCell<Vec<SiteOutline>>,
    pub params: RefCell<Vec<String>>,
    /// Those of them that the model asked for by themselves, without a layer.
    pub bare: RefCell<Vec<String>>,
    pub tied: RefCell<Tied>,
    /// What may put other adapters in; see [`Rewrite`].
    pub rewrite: Option<&'a dyn Rewrite>,
}

impl<'a> Run<'a> {
    pub fn new(base: &'a Params, dims: &'a Dims, numerics: Numerics, active: Vec<Active<'a>>) -> Self {
        Self {
            base,
            dims,
            numerics,
            active,
            sites: RefCell::default(),
            params: RefCell::default(),
            bare: RefCell::default(),
            tied: RefCell::default(),
            rewrite: None,
        }
    }
}
