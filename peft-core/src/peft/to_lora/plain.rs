//! A plain LoRA of an adapter that is one in other words: for programs that read nothing else.

use crate::error::{Error, Result};
use crate::methods::from_json;
use crate::peft::Peft;
use crate::peft::to_lora::assembly::{Assembly, AssemblySite};
use crate::peft::to_lora::changes::{Changes, Delta};
use crate::seam::{Kernel, LowRank};
use serde_json::{Map, Value};
use std::fmt;

/// How an adapter became a plain LoRA. Nothing is lost in either way.
#[derive(Debug, Clone, PartialEq)]
pub enum PlainLora {
    /// It was one.
    Already,
    /// rsLoRA's scale is LoRA's with this `lora_alpha`.
    Rescaled(f64),
    /// The change as a product of this rank.
    Product(i64),
}

impl fmt::Display for PlainLora {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlainLora::Already => f.write_str("a plain LoRA as it was"),
            PlainLora::Rescaled(alpha) => write!(f, "a plain LoRA, rsLoRA's scale as lora_alpha {alpha}"),
            PlainLora::Product(rank) => write!(f, "a plain LoRA of rank {rank}"),
        }
    }
}

/// Fields that few programs read.
const OTHERS: &[&str] =
    &["use_dora", "lora_bias", "modules_to_save", "trainable_token_indices", "target_parameters"];

impl Peft {
    /// Adds the adapter `new`: a LoRA without anything that programs other than PEFT leave out, which computes exactly what
    /// `name` does. rsLoRA's scale becomes part of `lora_alpha`; PiSSA and OLoRA become a LoRA of twice the rank over the base
    /// as it is, `[B, −B₀]` and `[A; A₀]`; and whatever else is a product of low rank becomes that product.
    ///
    /// # Errors
    /// [`Error::Unsupported`], with what is in the way: trained biases and saved modules, and changes that are no such product:
    /// [`Peft::to_lora`] comes as close to them as a rank allows.
    pub fn to_plain_lora(&mut self, name: &str, new: &str) -> Result<PlainLora> {
        self.check_new(new)?;
        let config = self.file(name)?;
        let fields = config.as_object().cloned().unwrap_or_default();
        let said = |field: &str| fields.get(field).is_some_and(|v| !empty(v));
        let refuse = |why: String| {
            let method = self.method(name).map_or("LoRA", |m| m.name());
            Error::Unsupported { method, site: name.to_owned(), why }
        };
        let others = OTHERS
            .iter()
            .filter(|field| said(field))
            .chain((fields.get("bias").is_some_and(|bias| bias != "none")).then_some(&"bias"));
        let others: Vec<&str> = others.copied().collect();
        if !others.is_empty() {
            let why = format!("a plain LoRA has no {}", others.join(" and no "));
            return Err(refuse(why));
        }
        let text = |field: &str| fields.get(field).and_then(Value::as_str);
        let started = matches!(text("init_lora_weights"), Some("pissa" | "olora"));
        if text("peft_type") == Some("LORA") && !started {
            if !said("use_rslora") {
                self.copy(name, new)?;
                return Ok(PlainLora::Already);
            }
            if !said("rank_pattern") {
                return self.rescaled(name, new, fields);
            }
        }
        let _guard = tch::no_grad_guard();
        let changes = Changes::read(self, name, true)?;
        if let Some(param) = changes.copies.keys().next() {
            return Err(refuse(format!("it trains `{param}` whole")));
        }
        let mut sites = Vec::new();
        for layer in &changes.layers {
            let Delta::LowRank(LowRank { a, b, scale, .. }) = &layer.weight else {
                return Err(refuse(format!("its change of `{}` is no product of low rank", layer.site)));
            };
            if layer.bias.is_some() {
                return Err(refuse(format!("it trains the bias of `{}`", layer.site)));
            }
            let change = LowRank { a: a.f_mul_scalar(*scale)?, b: b.shallow_clone(), scale: 1.0, bias: None };
            sites.push((layer.site.clone(), layer.kernel == Kernel::Embedding, change));
        }
        let ranks = sites.iter().map(|(_, _, change)| change.rank()).collect::<Result<Vec<_>>>()?;
        let rank = ranks.into_iter().max().unwrap_or_default();
        let padded = sites.into_iter().map(|(name, embedding, change)| {
            Ok(AssemblySite { name, embedding, change: change.padded(rank)? })
        });
        let lora = Assembly { rank, sites: padded.collect::<Result<_>>()?, ..Assembly::default() };
        self.add_assembly(new, &lora, &[changes])?;
        self.take_classes(new, &[name])?;
        Ok(PlainLora::Product(rank))
    }

    /// `alpha/√r` is `(alpha·√r)/r`.
    fn rescaled(&mut self, name: &str, new: &str, mut fields: Map<String, Value>) -> Result<PlainLora> {
        let number = |field: &str| fields.get(field).and_then(Value::as_f64).unwrap_or(1.0);
        let root = number("r").sqrt();
        let alpha = number("lora_alpha") * root;
        fields.insert("use_rslora".into(), false.into());
        fields.insert("lora_alpha".into(), alpha.into());
        if let Some(patterns) = fields.get_mut("alpha_pattern").and_then(Value::as_object_mut) {
            for value in patterns.values_mut() {
                *value = (value.as_f64().unwrap_or(1.0) * root).into();
            }
        }
        let method = self.resolve(new, from_json(Value::Object(fields), "the new adapter")?)?;
        let tensors = self.params(name)?.tensors();
        let copies = tensors.into_iter().map(|(name, t)| Ok((name, t.f_detach_copy()?)));
        self.attach_with(new, method, copies.collect::<Result<Vec<_>>>()?)?;
        self.take_classes(new, &[name])?;
        Ok(PlainLora::Rescaled(alpha))
    }
}

fn empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
        _ => false,
    }
}
