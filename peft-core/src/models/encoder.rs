//! The encoder of the BERT family with a classifier. Devlin et al. 2019, <https://arxiv.org/abs/1810.04805>.
//!
//! Per layer `x = LN(x + attention(x))`, `x = LN(x + W₂ act(W₁ x))`; logits `W₄ tanh(W₃ x₀)` of the first position. A
//! family is an [`EncoderFamily`]: what its positions are, and how its head is called.

use crate::error::{Error, Result};
use crate::io::fields::{Fields, patched};
use crate::models::activation::HiddenAct;
use crate::models::attention::{Projections, SelfAttention};
use crate::models::classes::{Classes, unnamed};
use crate::run::model::Model;
use crate::run::scope::Scope;
use crate::seam::attention::Softmax;
use crate::seam::batch::{Batch, Input, Prompt};
use crate::seam::dims::Dims;
use crate::seam::layer::{Block, Layer};
use crate::seam::pass::Pass;
use crate::seam::site::Role;
use serde_json::{Map, Value};
use std::fmt::Debug;
use std::marker::PhantomData;
use tch::{Kind, Tensor};

/// A family of encoders.
pub trait EncoderFamily: Debug + Clone + Copy + Send + Sync + 'static {
    /// The family's `model_type`, which also stands in front of its tensors.
    const MODEL_TYPE: &'static str;
    /// Full names of the head's two layers.
    const HEAD: [&'static str; 2];
    /// Whether dropout comes before the head's first layer too.
    const DROPS_FIRST: bool;
    /// The id of padding, where the file names none.
    const PAD: i64;
    /// Position of the first word.
    fn first_position(c: &EncoderConfig) -> i64;
    /// Position of each row of `input`, `[batch or 1, t]`.
    fn positions(c: &EncoderConfig, ids: &Tensor, input: &Input) -> Result<Tensor>;
}

/// What an encoder's numbers depend on; field names and defaults are those of `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderConfig {
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
    pub(super) fn read<F: EncoderFamily>(f: &Fields<'_>, labels: Option<i64>) -> Result<Self> {
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
            initializer_range: f.or("initializer_range", 0.02)?,
            pad_token_id: f.or("pad_token_id", F::PAD)?.max(-1),
            num_labels: number,
            labels: names,
            json: f.json.clone(),
        })
    }

    /// `config.json` with the classes as they are now.
    pub(super) fn to_json(&self, architecture: &str) -> Value {
        let now = Classes { number: self.num_labels, names: self.labels.clone() };
        let vocab = ("vocab_size", self.vocab_size.into());
        let mut json = patched(&self.json, [("architectures", vec![architecture].into()), vocab]);
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
}

/// A view of an encoder with its classifier.
#[derive(Debug)]
pub struct Encoder<F> {
    words: Layer,
    prompts: Vec<Box<dyn Prompt>>,
    positions: Layer,
    types: Layer,
    norm: Layer,
    layers: Vec<EncoderLayer>,
    dense: Layer,
    out: Layer,
    config: EncoderConfig,
    family: PhantomData<F>,
}

impl<F: EncoderFamily> Model for Encoder<F> {
    type Config = EncoderConfig;

    fn dims(c: &EncoderConfig) -> Dims {
        Dims {
            model_type: F::MODEL_TYPE.into(),
            layers: c.num_hidden_layers,
            hidden: c.hidden_size,
            heads: c.num_attention_heads,
            kv_heads: c.num_attention_heads,
            head_dim: c.hidden_size.checked_div(c.num_attention_heads).unwrap_or_default(),
            word_embedding: format!("{}.embeddings.word_embeddings.weight", F::MODEL_TYPE),
            vocab: c.vocab_size,
            positions: Some(c.max_position_embeddings.saturating_sub(F::first_position(c))),
            head: "classifier".into(),
            causal: false,
        }
    }

    fn new(s: &Scope<'_>, c: &EncoderConfig) -> Result<Self> {
        let (encoder, d, [dense, out]) = (s.at(F::MODEL_TYPE), c.hidden_size, F::HEAD);
        let (embeddings, stack) = (encoder.at("embeddings"), encoder.at("encoder").at("layer"));
        let head_dim = Self::dims(c).head_dim;
        Ok(Self {
            words: embeddings.embedding("word_embeddings", c.vocab_size, d)?,
            prompts: s.prompts()?,
            positions: embeddings.embedding("position_embeddings", c.max_position_embeddings, d)?,
            types: embeddings.embedding("token_type_embeddings", c.type_vocab_size, d)?,
            norm: embeddings.layer_norm("LayerNorm", d, c.layer_norm_eps)?,
            layers: (0..c.num_hidden_layers)
                .map(|i| EncoderLayer::new(&stack.layer(i), c, head_dim))
                .collect::<Result<_>>()?,
            dense: s.linear(dense, d, d, true)?,
            out: s.linear(out, d, c.num_labels, true)?,
            config: c.clone(),
            family: PhantomData,
        })
    }

    fn forward(&self, batch: &Batch, pass: Pass<'_>) -> Result<Tensor> {
        let c = &self.config;
        batch.check_ids(c.vocab_size)?;
        batch.check_mask(0)?;
        batch.check_token_types(c.type_vocab_size)?;
        let embeds = self.words.forward(&batch.ids, pass)?;
        let mask = batch.additive_mask(embeds.kind())?;
        let input = Input { embeds, mask, position: 0, virtual_tokens: 0 };
        let input = self.prompts.iter().try_fold(input, |input, p| p.rewrite(input, pass))?;
        let pass = Pass { mask: input.mask.as_ref(), ..pass };

        let mut x = self.embed(batch, &input, pass)?;
        for layer in &self.layers {
            x = layer.forward(&x, pass)?;
        }
        x = x.f_select(1, 0)?;
        if F::DROPS_FIRST {
            x = pass.dropped(x, c.classifier_dropout)?;
        }
        let x = self.dense.forward(&x, pass)?.f_tanh()?;
        self.out.forward(&pass.dropped(x, c.classifier_dropout)?, pass)
    }

    fn resized(config: &EncoderConfig, vocab_size: i64) -> Option<EncoderConfig> {
        Some(EncoderConfig { vocab_size, ..config.clone() })
    }
}

impl<F: EncoderFamily> Encoder<F> {
    /// Words + positions + token types, normed: `[batch, t, d]`.
    fn embed(&self, batch: &Batch, input: &Input, pass: Pass<'_>) -> Result<Tensor> {
        let c = &self.config;
        let length = input.embeds.size3()?.1;
        let start = F::first_position(c).saturating_add(input.position);
        let most = c.max_position_embeddings;
        if start.saturating_add(length) > most {
            let text =
                format!("{length} tokens from position {start} on do not fit the model's {most} positions");
            return Err(Error::Input(text));
        }
        let positions = self.positions.forward(&F::positions(c, &batch.ids, input)?, pass)?;
        let types = self.types.forward(&types(batch, input)?, pass)?;
        let x = input.embeds.f_add(&types)?.f_add(&positions)?;
        pass.dropped(self.norm.forward(&x, pass)?, c.hidden_dropout_prob)
    }
}

/// The types of what enters: 0 for virtual tokens, and for all where the batch has none.
fn types(batch: &Batch, input: &Input) -> Result<Tensor> {
    let index = (Kind::Int64, input.embeds.device());
    let Some(types) = &batch.token_types else { return Ok(Tensor::f_zeros([1], index)?) };
    let virtual_tokens = Tensor::f_zeros([types.size2()?.0, input.virtual_tokens], index)?;
    Ok(Tensor::f_cat(&[&virtual_tokens, types], 1)?)
}

#[derive(Debug)]
struct EncoderLayer {
    whole: Block,
    attention_block: Block,
    attention: SelfAttention,
    attention_norm: Layer,
    ffn_block: Block,
    intermediate: Layer,
    output: Layer,
    output_norm: Layer,
    act: HiddenAct,
    dropout: f64,
}

impl EncoderLayer {
    fn new(s: &Scope<'_>, c: &EncoderConfig, head_dim: i64) -> Result<Self> {
        let (d, eps) = (c.hidden_size, c.layer_norm_eps);
        let (attention, output) = (s.at("attention"), s.at("output"));
        let own = attention.at("self");
        Ok(Self {
            attention_block: s.block("attention", Role::Attention, d)?,
            attention: SelfAttention {
                projections: Projections::Separate {
                    q: own.linear("query", d, d, true)?,
                    k: own.linear("key", d, d, true)?,
                    v: own.linear("value", d, d, true)?,
                },
                core: own.attention("", Softmax::Fused, c.attention_probs_dropout_prob)?,
                output: attention.at("output").linear("dense", d, d, true)?,
                output_dropout: c.hidden_dropout_prob,
                heads: c.num_attention_heads,
                kv_heads: c.num_attention_heads,
                head_dim,
                window: None,
            },
            attention_norm: attention.at("output").layer_norm("LayerNorm", d, eps)?,
            ffn_block: s.block("ffn", Role::FeedForward, d)?,
            intermediate: s.at("intermediate").linear("dense", d, c.intermediate_size, true)?,
            output: output.linear("dense", c.intermediate_size, d, true)?,
            output_norm: output.layer_norm("LayerNorm", d, eps)?,
            whole: s.block("", Role::Layer, d)?,
            act: c.hidden_act,
            dropout: c.hidden_dropout_prob,
        })
    }

    fn forward(&self, x: &Tensor, pass: Pass<'_>) -> Result<Tensor> {
        self.whole.around(x, pass, &|x, pass| {
            let a = self.attention_block.around(x, pass, &|x, pass| self.attention.forward(x, None, pass))?;
            let x = self.attention_norm.forward(&a.f_add(x)?, pass)?;
            let f = self.ffn_block.around(&x, pass, &|x, pass| {
                let h = self.act.apply(&self.intermediate.forward(x, pass)?)?;
                pass.dropped(self.output.forward(&h, pass)?, self.dropout)
            })?;
            self.output_norm.forward(&f.f_add(&x)?, pass)
        })
    }
}
