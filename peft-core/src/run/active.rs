//! An adapter that is active in a run of the constructor.

use crate::run::carried::Carried;
use crate::seam::{Counting, Method, Overlay, Params, Resolved};
use std::cell::{Cell, RefCell};

/// One active adapter, and how often the constructor met a place that it adapts.
#[derive(Debug)]
pub(crate) struct Active<'a> {
    pub name: &'a str,
    pub resolved: &'a Resolved,
    pub params: &'a Params,
    /// Weights of the base that its file has beside.
    pub carried: Option<&'a Carried>,
    pub hits: Cell<usize>,
    /// Where its adapters are: names of the base's parameters, of layers, and of sites, where there are no weights.
    pub places: RefCell<Vec<String>>,
}

impl<'a> Active<'a> {
    pub fn new(name: &'a str, resolved: &'a Resolved, params: &'a Params) -> Self {
        Self { name, resolved, params, carried: None, hits: Cell::new(0), places: RefCell::default() }
    }

    pub fn method(&self) -> &'a dyn Method {
        self.resolved.method.as_ref()
    }

    /// Its copy of a parameter of the base, if it has one.
    pub fn overlay(&self, param: &str) -> Option<Overlay> {
        self.resolved.overlay(param).or_else(|| self.carried?.overlay(param))
    }

    /// Whether a tensor of the adapter, by its name, is not trained.
    pub fn frozen(&self, key: &str) -> bool {
        self.method().frozen(key) || self.method().inert(key) || self.carries(key)
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
