//! An encoder's configuration: the Hub's `config.json`, and what is a family's own.

use crate::error::Result;
use crate::io::{Fields, patched};
use crate::models::activation::HiddenAct;
use crate::models::classes::{Classes, unnamed};
use crate::models::encoder::Encoder;
use crate::models::hub_model::{Described, Family, HubModel};
use crate::run::{Architecture, Model, Scope};
use crate::seam::{Dims, Init, Transformer};
use serde_json::{Map, Value};
use std::fmt::Debug;
use std::sync::Arc;
use tch::{Device, Tensor};

/// What is a family's own.
#[derive(Debug)]
pub struct EncoderFamily {
    /// Its names on the Hub; `model_type` also stands in front of its tensors.
    pub hub: &'static Family,
    /// Full names of the head's two layers.
    pub head: [&'static str; 2],
    /// Whether dropout comes before the head's first layer too.
    pub drops_first: bool,
    /// The id of padding, where the file names none.
    pub pad: i64,
    pub positions: Positions,
    /// How tensors begin in files that lack the `model_type` in front of them.
    pub bare: &'static [&'static str],
    /// How tensors begin that are not the model's: other heads.
    pub foreign: &'static [&'static str],
}

/// How tokens are numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Positions {
    /// From 0 on, one after the other, padding too.
    All,
    /// Words alone, from `pad_token_id + 1` on; padding, told by its id, stays at `pad_token_id`. Behind virtual tokens ids
    /// are not looked at: they all count, one after the other.
    Words,
}

impl PartialEq for EncoderFamily {
    fn eq(&self, other: &Self) -> bool {
        self.hub == other.hub
    }
}

/// What an encoder's numbers depend on; field names and defaults are those of `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderConfig {
    /// Which of the families it is.
    pub family: &'static EncoderFamily,
    pub vocab_size: i64,
    pub hidden_size: i64,
    pub num_hidden_layers: i64,
    pub num_attention_heads: i64,
    pub intermediate_size: i64,
    pub max_position_embeddings: i64,
    pub type_vocab_size: i64,
    pub layer_norm_eps: f64,
    pub hidden_act: HiddenAct,
    pub hidden_dropout_prob: f64,
    pub attention_probs_dropout_prob: f64,
    /// Dropout of the head.
    pub classifier_dropout: f64,
    pub initializer_range: f64,
    /// The id of padding; −1 where the file says that there is none.
    pub pad_token_id: i64,
    /// Number of classes.
    pub num_labels: i64,
    /// Their names; empty where the file has none.
    pub labels: Vec<String>,
    /// The file as it was read.
    pub json: Value,
}

impl EncoderConfig {
    /// Reads a `config.json`, with `labels` classes where that is given.
    pub(in crate::models) fn read(
        family: &'static EncoderFamily,
        f: &Fields<'_>,
        labels: Option<i64>,
    ) -> Result<Self> {
        f.only("position_embedding_type", "absolute")?;
        f.only("is_decoder", false)?;
        f.only("add_cross_attention", false)?;
        let (hidden, heads) = (f.size("hidden_size")?, f.size("num_attention_heads")?);
        if hidden.checked_rem(heads) != Some(0) {
            let message = format!("{hidden} is not a multiple of num_attention_heads {heads}");
            return Err(f.wrong("hidden_size", message));
        }
        let dropout = f.dropout("hidden_dropout_prob", 0.1)?;
        let Classes { number, names } = Classes::read(f, labels)?;
        Ok(Self {
            family,
            vocab_size: f.size("vocab_size")?,
            hidden_size: hidden,
            num_hidden_layers: f.size("num_hidden_layers")?,
            num_attention_heads: heads,
            intermediate_size: f.size("intermediate_size")?,
            max_position_embeddings: f.size("max_position_embeddings")?,
            type_vocab_size: f.positive("type_vocab_size", f.or("type_vocab_size", 2)?)?,
            layer_norm_eps: f.epsilon("layer_norm_eps", 1e-12)?,
            hidden_act: f.or("hidden_act", HiddenAct::Gelu)?,
            hidden_dropout_prob: dropout,
            attention_probs_dropout_prob: f.dropout("attention_probs_dropout_prob", 0.1)?,
            classifier_dropout: f.dropout("classifier_dropout", dropout)?,
            initializer_range: f.epsilon("initializer_range", 0.02)?,
            pad_token_id: f.or("pad_token_id", family.pad)?.max(-1),
            num_labels: number,
            labels: names,
            json: f.json.clone(),
        })
    }

    /// With what the file says that does not count.
    pub(in crate::models) fn described(self, place: &str) -> Result<Described> {
        let warnings = Classes::passed_over(&Fields::new(&self.json, place))?;
        Ok((Arc::new(self), warnings))
    }

    /// `config.json` with the classes as they are now.
    fn to_json(&self) -> Value {
        let now = Classes { number: self.num_labels, names: self.labels.clone() };
        let vocab = ("vocab_size", self.vocab_size.into());
        let mut json = patched(&self.json, [("architectures", vec![self.class()].into()), vocab]);
        let read = Fields::new(&self.json, "");
        if self.json.get("id2label").is_some() && Classes::read(&read, None).is_ok_and(|read| read == now) {
            return json;
        }
        let name = |i: i64| match usize::try_from(i).ok().and_then(|i| self.labels.get(i)) {
            Some(name) => name.clone(),
            None => unnamed(i),
        };
        let classes = 0..self.num_labels;
        let names: Map<String, Value> = classes.clone().map(|i| (i.to_string(), name(i).into())).collect();
        let ids: Map<String, Value> = classes.map(|i| (name(i), i.into())).collect();
        json = patched(&json, [("id2label", names.into()), ("label2id", ids.into())]);
        if let Some(fields) = json.as_object_mut() {
            fields.shift_remove("num_labels"); // id2label says it
        }
        json
    }
    /// Position of the first word.
    pub(super) fn first_position(&self) -> i64 {
        match self.family.positions {
            Positions::All => 0,
            Positions::Words => self.pad_token_id.saturating_add(1),
        }
    }

    pub(super) fn head_dim(&self) -> i64 {
        self.hidden_size.checked_div(self.num_attention_heads).unwrap_or_default()
    }
}

impl Architecture for EncoderConfig {
    fn build(&self, scope: &Scope<'_>) -> Result<Box<dyn Model>> {
        Ok(Box::new(Encoder::new(scope, self)?))
    }

    fn dims(&self) -> Dims {
        let named = (0..).zip(&self.labels).any(|(class, name)| *name != unnamed(class));
        let (hub, first) = (self.family.hub, self.first_position());
        let stack = Transformer {
            layers: self.num_hidden_layers,
            hidden: self.hidden_size,
            heads: self.num_attention_heads,
            kv_heads: self.num_attention_heads,
            head_dim: self.head_dim(),
            word_embedding: format!("{}.embeddings.word_embeddings.weight", hub.model_type),
            vocab: self.vocab_size,
            positions: Some(self.max_position_embeddings.saturating_sub(first)),
            pad: Some(self.pad_token_id.max(0)),
        };
        // LABEL_0 and so on are what transformers writes where nobody has named them.
        let classes = if named { self.labels.clone() } else { Vec::new() };
        Dims { classes, ..hub.dims(HEAD, stack) }
    }

    fn resized(&self, vocab_size: i64) -> Option<Box<dyn Architecture>> {
        Some(Self { vocab_size, ..self.clone() }.into())
    }

    fn named(&self, classes: &[String]) -> Option<Box<dyn Architecture>> {
        let fits = i64::try_from(classes.len()) == Ok(self.num_labels);
        fits.then(|| Self { labels: classes.to_vec(), ..self.clone() }.into())
    }

    fn json(&self) -> Option<Value> {
        Some(self.to_json())
    }
}

impl HubModel for EncoderConfig {
    fn class(&self) -> &'static str {
        self.family.hub.class
    }

    /// Encoders are saved with and without the family in front; other heads and position buffers are not ours.
    fn rename(&self, name: &str) -> Option<String> {
        let EncoderFamily { hub, bare, foreign, .. } = self.family;
        if foreign.iter().any(|p| name.starts_with(p)) || name.ends_with("embeddings.position_ids") {
            return None;
        }
        let bare = bare.iter().any(|p| name.starts_with(p));
        let name = if bare { format!("{}.{name}", hub.model_type) } else { name.to_owned() };
        Some(name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias"))
    }

    /// The layers of the head that belong to the classifier: the pooler comes with the encoder.
    fn fresh_head(&self) -> Result<Vec<(String, Tensor)>> {
        let sizes = [self.hidden_size, self.num_labels];
        let mut fresh = Vec::new();
        for (name, out) in self.family.head.iter().zip(sizes).filter(|(name, _)| name.starts_with(HEAD)) {
            let draw = Init::Normal { std: self.initializer_range };
            let weight = draw.tensor(&[out, self.hidden_size], Device::Cpu)?;
            fresh.push((format!("{name}.weight"), weight));
            fresh.push((format!("{name}.bias"), Init::Zeros.tensor(&[out], Device::Cpu)?));
        }
        Ok(fresh)
    }
}

/// The module that has the head's own layers.
const HEAD: &str = "classifier";
