//! One run of a model's constructor: what it is given, and what it leaves behind.

pub(crate) mod carried;
pub(crate) mod model;
pub(crate) mod rewrite;
pub(crate) mod scope;

use crate::run::carried::Carried;
use crate::run::rewrite::Rewrite;
use crate::seam::dims::Dims;
use crate::seam::method::{Counting, Method, Overlay};
use crate::seam::numerics::Numerics;
use crate::seam::params::Params;
use crate::seam::site::SiteOutline;
use std::cell::{Cell, RefCell};

/// One active adapter, and how often the constructor met a place that it adapts.
#[derive(Debug)]
pub(crate) struct Active<'a> {
    pub name: &'a str,
    pub method: &'a dyn Method,
    pub params: &'a Params,
    /// Weights of the base that its file has beside.
    pub carried: Option<&'a Carried>,
    pub hits: Cell<usize>,
}

impl<'a> Active<'a> {
    pub fn new(name: &'a str, method: &'a dyn Method, params: &'a Params) -> Self {
        Self { name, method, params, carried: None, hits: Cell::new(0) }
    }

    /// Its copy of a parameter of the base, if it has one.
    pub fn overlay(&self, param: &str) -> Option<Overlay> {
        self.method.overlay(param).or_else(|| self.carried?.overlay(param))
    }

    /// Whether a tensor of the adapter, by its name, is not trained.
    pub fn frozen(&self, key: &str) -> bool {
        self.method.frozen(key) || self.carries(key)
    }

    /// Whether a tensor of the adapter, by its name, is the base's, as the adapter's file has it.
    pub fn carries(&self, key: &str) -> bool {
        self.carried.is_some_and(|carried| carried.has(key))
    }

    /// Whether it trains the model's own parameter `name`, and no copy beside it; see [`Method::overlay`].
    pub fn replaces(&self, name: &str) -> bool {
        self.overlay(name).is_some_and(|o| o.counting == Counting::Replaces)
    }
}

/// One run of a constructor.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub base: &'a Params,
    pub dims: &'a Dims,
    pub numerics: Numerics,
    pub active: Vec<Active<'a>>,
    pub sites: RefCell<Vec<SiteOutline>>,
    pub params: RefCell<Vec<String>>,
    /// Parameters that are another one's tensor: name and the other's name.
    pub tied: RefCell<Vec<(String, String)>>,
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
            tied: RefCell::default(),
            rewrite: None,
        }
    }
}
