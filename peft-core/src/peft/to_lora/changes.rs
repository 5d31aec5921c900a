//! What an adapter changes, layer by layer.

use crate::error::{Error, Result};
use crate::peft::Peft;
use crate::run::{Copied, Origin, Rewrite};
use crate::seam::{Counting, Kernel, Layer, LowRank, PREFIX, Weights, plus};
use serde_json::Value;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use tch::{Kind, Tensor};

/// What one adapter changes.
#[derive(Debug)]
pub(crate) struct Changes {
    /// Its `adapter_config.json`.
    pub config: Value,
    /// In the constructor's order.
    pub layers: Vec<Change>,
    /// Parameters that it trains whole beside the method (`modules_to_save`), by name.
    pub copies: BTreeMap<String, Tensor>,
    /// Tensors of the file that are the base's, unchanged.
    pub inert: BTreeSet<String>,
}

/// The change of one layer's weights.
#[derive(Debug)]
pub(crate) struct Change {
    pub site: String,
    pub kernel: Kernel,
    /// Names of the layer's parameters.
    pub params: Vec<String>,
    /// The parameters' values with the change.
    pub values: Weights,
    /// Name of the method, for messages.
    pub method: &'static str,
    pub weight: Delta,
    /// The change of the bias, Δb; `None` where it is 0 or there is no bias.
    pub bias: Option<Tensor>,
}

/// The change of a weight.
#[derive(Debug)]
pub(crate) enum Delta {
    LowRank(LowRank),
    /// `[out, in]`; of an embedding `[dim, vocab]`.
    Dense(Tensor),
}

impl Changes {
    /// Runs the constructor with the one adapter. `own` is whether it may train the model's own parameters.
    pub fn read(peft: &Peft, name: &str, own: bool) -> Result<Self> {
        let collect = Collect { own, ..Collect::default() };
        peft.rewritten(peft.active(&[name])?, &collect)?;
        if let Some((site, (_, method))) = collect.trained.take().into_iter().next() {
            let why =
                "it trains this parameter, which is of no layer: LoRA can hold changes of layers".to_owned();
            return Err(Error::Unsupported { method, site, why });
        }
        Ok(Self {
            config: peft.file(name)?,
            layers: collect.layers.into_inner(),
            copies: collect.copies.into_inner(),
            inert: collect.inert.into_inner(),
        })
    }

    /// A list in the adapter's file.
    pub fn list(&self, field: &str) -> Option<Vec<String>> {
        serde_json::from_value(self.config.get(field)?.clone()).ok()
    }

    /// Modules that it trains whole.
    pub fn modules(&self) -> Vec<String> {
        self.list("modules_to_save").unwrap_or_default()
    }

    pub fn has(&self, field: &str) -> bool {
        !self.config.get(field).is_none_or(Value::is_null)
    }
}

impl Peft {
    /// What an adapter's `adapter_config.json` says of this model: without the names that it lacks.
    pub(crate) fn file(&self, name: &str) -> Result<Value> {
        let adapter = self.adapter(name)?;
        Ok(adapter.resolved.json(&adapter.params)?.map(Value::Object).unwrap_or_default())
    }
}

#[derive(Debug, Default)]
struct Collect {
    /// Whether the adapter may train the model's own parameters.
    own: bool,
    layers: RefCell<Vec<Change>>,
    copies: RefCell<BTreeMap<String, Tensor>>,
    inert: RefCell<BTreeSet<String>>,
    /// The base's own values of the parameters that are trained.
    trained: RefCell<BTreeMap<String, (Tensor, &'static str)>>,
}

impl Rewrite for Collect {
    fn layer(&self, layer: &mut Layer, origin: &Origin<'_>) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let mut trained = self.trained.borrow_mut();
        let weight = trained.remove(&origin.weight);
        let bias = origin.bias.as_ref().and_then(|b| trained.remove(b));
        let adapter = layer.adapters.first();
        let methods = [adapter.map(|a| a.method), weight.as_ref().map(|t| t.1), bias.as_ref().map(|t| t.1)];
        let Some(method) = methods.into_iter().flatten().next() else { return Ok(()) };
        // A layer that the model has in several places is changed once.
        if self.layers.borrow().iter().any(|there| there.site == layer.name) {
            return Ok(());
        }
        let there = layer.base.dense()?;
        let oriented = |t: Tensor| if origin.transposed { t.f_tr() } else { Ok(t) };
        let untouched = weight.is_none();
        let before = Weights {
            weight: weight
                .map(|(t, _)| oriented(t))
                .transpose()?
                .unwrap_or_else(|| there.weight.shallow_clone()),
            bias: bias.map(|(t, _)| t).or_else(|| there.bias.as_ref().map(Tensor::shallow_clone)),
        };
        let low_rank = match adapter {
            Some(adapter) if untouched && layer.kernel.has_matrix() => adapter.adapter.low_rank()?,
            _ => None,
        };
        let (weight, bias, values) = match low_rank {
            Some(change) => {
                let more = || change.bias.as_ref().map(Tensor::shallow_clone);
                let bias = plus(delta(there.bias.as_ref(), before.bias.as_ref())?, more())?;
                let after = Weights { bias: plus(there.bias, more())?, ..there };
                (Delta::LowRank(change), bias, after)
            }
            None => {
                let after = layer.folded(|_| Ok(()))?;
                let weight =
                    after.weight.f_to_kind(Kind::Float)?.f_sub(&before.weight.f_to_kind(Kind::Float)?)?;
                let weight = if layer.kernel == Kernel::Embedding { weight.f_tr()? } else { weight };
                (Delta::Dense(weight), delta(after.bias.as_ref(), before.bias.as_ref())?, after)
            }
        };
        let params = std::iter::once(&origin.weight).chain(&origin.bias).cloned().collect();
        let (site, kernel) = (layer.name.clone(), layer.kernel.clone());
        self.layers.borrow_mut().push(Change { site, kernel, params, values, method, weight, bias });
        Ok(())
    }

    fn param(&self, name: &str, [own, value]: [&Tensor; 2], (owner, overlay): Copied<'_>) -> Result<()> {
        let method = owner.method().name();
        if own.f_equal(value)? {
            self.inert.borrow_mut().insert(overlay.key.clone());
        } else if overlay.counting == Counting::Adds && self.copies.borrow().contains_key(twin(&overlay.key))
        {
            // A tied head shares the copy of the embedding, and is tied to it again by the same field.
        } else if !owner.carries(&overlay.key)
            && overlay.key == format!("{PREFIX}{name}")
            && overlay.counting == Counting::Adds
        {
            self.copies.borrow_mut().insert(name.to_owned(), value.f_detach()?);
        } else if self.own {
            self.trained.borrow_mut().insert(name.to_owned(), (own.shallow_clone(), method));
        } else {
            let why = "it trains this parameter of the model itself, which cannot be combined".to_owned();
            return Err(Error::Unsupported { method, site: name.to_owned(), why });
        }
        Ok(())
    }

    /// A change of the tied parameter is this one's, too. What may not be is refused under the other's name.
    fn tied(&self, name: &str, [own, value]: [&Tensor; 2], copy: Option<Copied<'_>>) -> Result<()> {
        if let Some((owner, _)) = copy
            && !own.f_equal(value)?
        {
            let trained = (own.shallow_clone(), owner.method().name());
            self.trained.borrow_mut().insert(name.to_owned(), trained);
        }
        Ok(())
    }

    fn refuse(&self, site: &str, method: &'static str) -> Error {
        let why = "it is not a change of weights, which is what LoRA can hold".to_owned();
        Error::Unsupported { method, site: site.to_owned(), why }
    }
}

/// The parameter that a copy of this name is of, by PEFT's rule.
fn twin(key: &str) -> &str {
    key.strip_prefix(PREFIX).unwrap_or(key)
}

/// `after − before` in f32, unless it is 0 or there is neither.
fn delta(after: Option<&Tensor>, before: Option<&Tensor>) -> Result<Option<Tensor>> {
    let float = |t: &Tensor| t.f_to_kind(Kind::Float);
    let change = match (after, before) {
        (Some(after), Some(before)) => float(after)?.f_sub(&float(before)?)?,
        (Some(after), None) => float(after)?,
        (None, Some(before)) => float(before)?.f_neg()?,
        (None, None) => return Ok(None),
    };
    Ok(if bool::try_from(change.f_any()?)? { Some(change) } else { None })
}
