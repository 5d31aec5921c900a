//! What an adapter changes, layer by layer, and a LoRA adapter made of such changes.

use crate::layer::{Kernel, Layer, Weights};
use crate::low_rank::LowRank;
use crate::methods::{Common, LoraConfig, Method, Overlay, from_json, to_json};
use crate::model::Model;
use crate::peft::build;
use crate::scope::{Active, Scope};
use crate::site::PREFIX;
use crate::target::Names;
use crate::watch::{Place, Watch};
use crate::{Error, Peft, Result};
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
    /// Δb
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
    pub fn read<M: Model>(peft: &Peft<M>, name: &str, own: bool) -> Result<Self> {
        let active = peft.active(&[name])?;
        let collect = Collect {
            own,
            layers: RefCell::default(),
            copies: RefCell::default(),
            trained: RefCell::default(),
        };
        let mut build = build::<M>(peft.base(), peft.config(), active);
        build.watch = Some(&collect);
        M::new(&Scope::root(&build), peft.config())?;
        Ok(Self {
            config: peft.file(name)?,
            layers: collect.layers.into_inner(),
            copies: collect.copies.into_inner(),
        })
    }

    /// A list in the adapter's file.
    fn list(&self, field: &str) -> Option<Vec<String>> {
        serde_json::from_value(self.config.get(field)?.clone()).ok()
    }

    /// Modules that it trains whole.
    pub fn modules(&self) -> Vec<String> {
        self.list("modules_to_save").unwrap_or_default()
    }

    fn has(&self, field: &str) -> bool {
        !self.config.get(field).is_none_or(Value::is_null)
    }
}

impl<M: Model> Peft<M> {
    /// An adapter's `adapter_config.json`.
    pub(crate) fn file(&self, name: &str) -> Result<Value> {
        Ok(self.method(name)?.config(self.params(name)?)?.unwrap_or_default())
    }
}

#[derive(Debug)]
struct Collect {
    own: bool,
    layers: RefCell<Vec<Change>>,
    copies: RefCell<BTreeMap<String, Tensor>>,
    /// The base's own values of the parameters that are trained.
    trained: RefCell<BTreeMap<String, (Tensor, &'static str)>>,
}

impl Watch for Collect {
    fn layer(&self, layer: &mut Layer, place: &Place<'_>) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let mut trained = self.trained.borrow_mut();
        let weight = trained.remove(&place.weight);
        let bias = place.bias.as_ref().and_then(|b| trained.remove(b));
        let adapter = layer.adapters.first();
        let methods = [adapter.map(|a| a.name()), weight.as_ref().map(|t| t.1), bias.as_ref().map(|t| t.1)];
        let Some(method) = methods.into_iter().flatten().next() else { return Ok(()) };

        let there = layer.base.dense()?;
        let oriented = |t: Tensor| if place.transposed { t.f_tr() } else { Ok(t) };
        let before = Weights {
            weight: weight
                .map(|(t, _)| oriented(t))
                .transpose()?
                .unwrap_or_else(|| there.weight.shallow_clone()),
            bias: bias.map(|(t, _)| t).or_else(|| there.bias.as_ref().map(Tensor::shallow_clone)),
        };
        let low_rank = match adapter {
            Some(adapter) if before.weight.data_ptr() == there.weight.data_ptr() => adapter.low_rank()?,
            _ => None,
        };
        let change = match low_rank {
            Some(mut change) => {
                let own = delta(there.bias.as_ref(), before.bias.as_ref())?;
                let bias = match (change.bias.take(), own) {
                    (Some(a), Some(b)) => Some(a.f_add(&b)?),
                    (a, b) => a.or(b),
                };
                (Delta::LowRank(change), bias, there)
            }
            None => {
                let after = layer.folded(|_| Ok(()))?;
                let weight =
                    after.weight.f_to_kind(Kind::Float)?.f_sub(&before.weight.f_to_kind(Kind::Float)?)?;
                let weight = if layer.kernel == Kernel::Embedding { weight.f_tr()? } else { weight };
                (Delta::Dense(weight), delta(after.bias.as_ref(), before.bias.as_ref())?, after)
            }
        };
        let (weight, bias, values) = change;
        let params = std::iter::once(&place.weight).chain(&place.bias).cloned().collect();
        let (site, kernel) = (layer.name.clone(), layer.kernel);
        self.layers.borrow_mut().push(Change { site, kernel, params, values, method, weight, bias });
        Ok(())
    }

    fn param(
        &self,
        name: &str,
        [own, value]: [&Tensor; 2],
        copy: Option<(&Active<'_>, &Overlay)>,
    ) -> Result<()> {
        let Some((owner, overlay)) = copy else { return Ok(()) };
        let method = owner.method.name();
        if overlay.beside {
            self.copies.borrow_mut().insert(name.to_owned(), value.f_detach()?);
        } else if self.own {
            self.trained.borrow_mut().insert(name.to_owned(), (own.shallow_clone(), method));
        } else {
            let why = "it trains this parameter of the model itself, which cannot be combined".to_owned();
            return Err(Error::Unsupported { method, site: name.to_owned(), why });
        }
        Ok(())
    }

    fn refuse(&self, site: &str, method: &'static str) -> Error {
        let why = "it is not a change of weights, which is what LoRA can hold".to_owned();
        Error::Unsupported { method, site: site.to_owned(), why }
    }
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

/// A LoRA adapter of scale 1 under construction.
#[derive(Debug)]
pub(crate) struct Assembly {
    pub rank: i64,
    /// Changes by site, with whether it is an embedding.
    pub sites: Vec<(String, bool, LowRank)>,
    /// Parameters to train whole, by name, and the modules that they are in.
    pub copies: BTreeMap<String, Tensor>,
    pub modules: BTreeSet<String>,
}

/// What an adapter is added from.
pub(crate) type Made = (Box<dyn Method>, Vec<(String, Tensor)>);

impl Assembly {
    /// The configuration and the tensors; what describes the file is taken from `sources`.
    pub fn finish(self, sources: &[Changes]) -> Result<Made> {
        let first = sources.first().map(|s| &s.config);
        let field = |name: &str| first.and_then(|f| f.get(name)).cloned().unwrap_or_default();
        let biased = self.sites.iter().any(|(_, _, change)| change.bias.is_some());
        let config = LoraConfig {
            r: self.rank,
            lora_alpha: self.rank as f64,
            lora_dropout: field("lora_dropout").as_f64().unwrap_or_default(),
            target_modules: Some(self.targets(sources)),
            common: Common {
                task_type: serde_json::from_value(field("task_type")).unwrap_or_default(),
                base_model_name_or_path: field("base_model_name_or_path").as_str().map(str::to_owned),
                modules_to_save: (!self.modules.is_empty()).then(|| self.modules.iter().cloned().collect()),
                ..Common::default()
            },
            ..LoraConfig::default()
        };
        let mut json = to_json(&config)?;
        if let Some(value) = json.get_mut("lora_bias") {
            *value = biased.into();
        }
        let copies = self.copies.into_iter().map(|(name, t)| (format!("{PREFIX}{name}"), t));
        let mut tensors: Vec<(String, Tensor)> = copies.collect();
        for (site, embedding, change) in self.sites {
            let [a, b] = match embedding {
                true => ["lora_embedding_A", "lora_embedding_B"],
                false => ["lora_A.weight", "lora_B.weight"],
            };
            let zeros = || change.b.f_new_zeros([change.b.size2()?.0], (change.b.kind(), change.b.device()));
            if biased && !embedding {
                let bias = match change.bias {
                    Some(bias) => bias,
                    None => zeros()?,
                };
                tensors.push((format!("{PREFIX}{site}.lora_B.bias"), bias));
            }
            tensors.push((format!("{PREFIX}{site}.{a}"), change.a.f_contiguous()?));
            tensors.push((format!("{PREFIX}{site}.{b}"), change.b.f_contiguous()?));
        }
        Ok((from_json(json, "the new adapter")?, tensors))
    }

    /// The union of the sources' targets where those are plain lists for the same layers as here; otherwise the sites'
    /// full names.
    fn targets(&self, sources: &[Changes]) -> Names {
        const FILTERS: [&str; 3] = ["exclude_modules", "layers_to_transform", "layers_pattern"];
        let lists = sources.iter().map(|source| match FILTERS.iter().any(|f| source.has(f)) {
            true => None,
            false => source.list("target_modules"),
        });
        let sites: BTreeSet<&String> = self.sites.iter().map(|(name, ..)| name).collect();
        let theirs: BTreeSet<&String> =
            sources.iter().flat_map(|s| s.layers.iter().map(|l| &l.site)).collect();
        let names: Option<BTreeSet<String>> =
            lists.collect::<Option<Vec<_>>>().map(|l| l.into_iter().flatten().collect());
        match names.filter(|_| sites == theirs) {
            Some(names) => Names::list(names),
            None => Names::list(sites.into_iter().cloned()),
        }
    }
}
