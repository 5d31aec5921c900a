//! What BitFit, LN tuning, partial and full fine-tuning come to in a model: trained copies of some of its parameters. The
//! base stays as it is and can serve other adapters beside this one.

use crate::seam::{Method, Overlay};
use std::collections::BTreeMap;

/// A method that trains copies and does nothing else.
#[derive(Debug)]
pub(super) struct Copies {
    /// The method's name.
    method: &'static str,
    /// By the parameter that is copied.
    copies: BTreeMap<String, Overlay>,
}

impl Copies {
    pub fn new<'p>(
        method: &'static str,
        params: impl IntoIterator<Item = &'p str>,
        copy: impl Fn(&str) -> Overlay,
    ) -> Self {
        Self { method, copies: params.into_iter().map(|p| (p.to_owned(), copy(p))).collect() }
    }
}

impl Method for Copies {
    fn name(&self) -> &'static str {
        self.method
    }

    fn overlay(&self, param: &str) -> Option<Overlay> {
        self.copies.get(param).cloned()
    }
}
