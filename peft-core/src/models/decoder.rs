//! The decoder of the Llama family: `x + attention(norm(x))`, `x + down(act(gate(x)) ⊙ up(x))`, with rotary positions,
//! grouped key heads and RMS norms. Touvron et al. 2023, <https://arxiv.org/abs/2302.13971>. A family says how
//! its `config.json` is read.

use crate::error::Result;
use crate::io::Fields;
use crate::models::activation::HiddenAct;
use crate::models::attention::{Projections, SelfAttention};
use crate::models::causal::{HEAD, Stream, head, written};
use crate::models::hub_model::{Described, Family, HubModel};
use crate::models::pre_norm::{FeedForward, PreNorm};
use crate::models::rope::RopeConfig;
use crate::run::{Architecture, Model, Scope};
use crate::seam::{Batch, Dims, Layer, Pass, Prompt, Role, Stack, Transformer};
use serde_json::Value;
use std::fmt::Debug;
use std::sync::Arc;
use tch::Tensor;

/// What a decoder's numbers depend on.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderConfig {
    /// Which of the Hub's families it is.
    pub family: &'static Family,
    pub vocab_size: i64,
    pub hidden_size: i64,
    pub intermediate_size: i64,
    pub num_hidden_layers: i64,
    pub num_attention_heads: i64,
    pub num_key_value_heads: i64,
    pub head_dim: i64,
    pub rms_norm_eps: f64,
    pub rope: RopeConfig,
    pub hidden_act: HiddenAct,
    pub tie_word_embeddings: bool,
    /// Biases of q, k and v.
    pub qkv_bias: bool,
    /// Bias of the output projection.
    pub output_bias: bool,
    pub mlp_bias: bool,
    pub attention_dropout: f64,
    /// How many tokens one sees, itself included, at the layers that are `windowed`.
    pub sliding_window: Option<i64>,
    pub windowed: Windowed,
    /// The file as it was read.
    pub json: Value,
}

/// The layers that have a sliding window, where there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Windowed {
    /// The layers from this index on.
    From(i64),
    /// One entry a layer: `true` for a layer with a window.
    Each(Vec<bool>),
}

impl DecoderConfig {
    /// How many tokens one sees at layer `index`, itself included; `None` for all.
    pub fn window(&self, index: i64) -> Option<i64> {
        let windowed = match &self.windowed {
            Windowed::From(first) => index >= *first,
            Windowed::Each(layers) => usize::try_from(index).ok().and_then(|i| layers.get(i)) == Some(&true),
        };
        self.sliding_window.filter(|_| windowed)
    }

    /// The fields that all families share, without biases and windows. Where the file does not say, there are `kv_heads`
    /// (null is as many as there are heads) and `positions`.
    pub(super) fn read(
        family: &'static Family,
        f: &Fields<'_>,
        kv_heads: Option<i64>,
        positions: i64,
    ) -> Result<Self> {
        let (hidden, heads) = (f.size("hidden_size")?, f.size("num_attention_heads")?);
        let field = "num_key_value_heads";
        let kv_heads = f.positive(field, f.or_if_absent(field, kv_heads)?.unwrap_or(heads))?;
        if heads.checked_rem(kv_heads) != Some(0) {
            let message = format!("{kv_heads} does not divide num_attention_heads {heads}");
            return Err(f.wrong(field, message));
        }
        let head_dim = f.or("head_dim", hidden.checked_div(heads).unwrap_or_default())?;
        if head_dim.checked_rem(2) != Some(0) {
            return Err(
                f.wrong("head_dim", format!("{head_dim} is odd: there are no rotary positions for it"))
            );
        }
        let head_dim = f.positive("head_dim", head_dim)?;
        Ok(Self {
            family,
            vocab_size: f.size("vocab_size")?,
            hidden_size: hidden,
            intermediate_size: f.size("intermediate_size")?,
            num_hidden_layers: f.size("num_hidden_layers")?,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim,
            rms_norm_eps: f.epsilon("rms_norm_eps", 1e-6)?,
            rope: RopeConfig::read(f, head_dim, positions)?,
            hidden_act: f.or("hidden_act", HiddenAct::Silu)?,
            tie_word_embeddings: f.or("tie_word_embeddings", false)?,
            qkv_bias: false,
            output_bias: false,
            mlp_bias: false,
            attention_dropout: f.dropout("attention_dropout", 0.0)?,
            sliding_window: None,
            windowed: Windowed::From(0),
            json: f.json.clone(),
        })
    }
}

impl DecoderConfig {
    /// With what the file says that does not count.
    pub(super) fn described(self, place: &str) -> Result<Described> {
        let warnings = RopeConfig::passed_over(&Fields::new(&self.json, place))?;
        Ok((Arc::new(self), warnings))
    }
}

/// A view of a decoder with its language-model head.
#[derive(Debug)]
pub struct Decoder {
    words: Layer,
    prompts: Vec<Box<dyn Prompt>>,
    layers: Stack<PreNorm>,
    norm: Layer,
    head: Layer,
    config: DecoderConfig,
}

impl Architecture for DecoderConfig {
    fn build(&self, scope: &Scope<'_>) -> Result<Box<dyn Model>> {
        Ok(Box::new(Decoder::new(scope, self)?))
    }

    fn dims(&self) -> Dims {
        let stack = Transformer {
            layers: self.num_hidden_layers,
            hidden: self.hidden_size,
            heads: self.num_attention_heads,
            kv_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
            word_embedding: WORDS.into(),
            vocab: self.vocab_size,
            ..Transformer::default()
        };
        self.family.dims(HEAD, stack)
    }

    fn untied(&self) -> Option<Box<dyn Architecture>> {
        self.tie_word_embeddings.then(|| Self { tie_word_embeddings: false, ..self.clone() }.into())
    }

    fn resized(&self, vocab_size: i64) -> Option<Box<dyn Architecture>> {
        Some(Self { vocab_size, ..self.clone() }.into())
    }

    fn json(&self) -> Option<Value> {
        Some(written(&self.json, self.family, self.tie_word_embeddings, self.vocab_size))
    }
}

impl HubModel for DecoderConfig {
    fn class(&self) -> &'static str {
        self.family.class
    }

    fn tied(&self) -> Option<[&'static str; 2]> {
        self.tie_word_embeddings.then_some(["lm_head.weight", WORDS])
    }

    /// Rotary tables are buffers of old files; models without a head are saved without the `model.` in front.
    fn rename(&self, name: &str) -> Option<String> {
        if name.ends_with("rotary_emb.inv_freq") {
            return None;
        }
        let bare = ["embed_tokens.", "layers.", "norm."].iter().any(|p| name.starts_with(p));
        Some(if bare { format!("model.{name}") } else { name.to_owned() })
    }
}

const WORDS: &str = "model.embed_tokens.weight";

impl Decoder {
    /// The view in `scope`.
    ///
    /// # Errors
    /// Parameters that are missing or of another shape.
    pub fn new(s: &Scope<'_>, c: &DecoderConfig) -> Result<Self> {
        let (model, d) = (s.at("model"), c.hidden_size);
        Ok(Self {
            words: model.embedding("embed_tokens", c.vocab_size, d)?,
            prompts: s.prompts()?,
            layers: Stack::new(
                (0..c.num_hidden_layers).map(|i| layer(&model.at("layers").layer(i), c, c.window(i))),
            )?,
            norm: model.rms_norm("norm", d, c.rms_norm_eps)?,
            head: head(s, c.tie_word_embeddings.then_some(WORDS), d, c.vocab_size)?,
            config: c.clone(),
        })
    }
}

impl Model for Decoder {
    fn forward(&self, batch: &Batch, pass: Pass<'_>) -> Result<Tensor> {
        let c = &self.config;
        batch.check_ids(c.vocab_size)?;
        let windows = (0..c.num_hidden_layers).map(|i| c.window(i));
        let stream = Stream::enter(batch, &self.words, &self.prompts, windows, pass)?;
        let rope = c.rope.at(&stream.positions, c.head_dim, stream.x.kind())?;
        let masks = stream.masks();
        let x = self.layers.forward(stream.x.shallow_clone(), pass, move |layer, x, pass| {
            layer.forward(x, Some(&rope), masks.pass(layer.attention.window, pass)?)
        })?;
        stream.leave(&self.norm.forward(&x, pass)?, &self.head, pass)
    }
}

fn layer(s: &Scope<'_>, c: &DecoderConfig, window: Option<i64>) -> Result<PreNorm> {
    let (d, f, eps) = (c.hidden_size, c.intermediate_size, c.rms_norm_eps);
    let (own, mlp) = (s.at("self_attn"), s.at("mlp"));
    let width = |heads: i64| heads.saturating_mul(c.head_dim);
    let (q, kv) = (width(c.num_attention_heads), width(c.num_key_value_heads));
    Ok(PreNorm {
        attention_block: s.block("self_attn", Role::Attention, d)?,
        attention: SelfAttention {
            projections: Projections::Separate {
                q: own.linear("q_proj", d, q, c.qkv_bias)?,
                k: own.linear("k_proj", d, kv, c.qkv_bias)?,
                v: own.linear("v_proj", d, kv, c.qkv_bias)?,
            },
            core: own.attention("", c.attention_dropout)?,
            output: own.linear("o_proj", q, d, c.output_bias)?,
            output_dropout: 0.0,
            heads: c.num_attention_heads,
            kv_heads: c.num_key_value_heads,
            head_dim: c.head_dim,
            window,
        },
        feed_forward_block: s.block("mlp", Role::FeedForward, d)?,
        feed_forward: FeedForward {
            gate: Some(mlp.linear("gate_proj", d, f, c.mlp_bias)?),
            up: mlp.linear("up_proj", d, f, c.mlp_bias)?,
            down: mlp.linear("down_proj", f, d, c.mlp_bias)?,
            act: c.hidden_act,
            dropout: 0.0,
        },
        attention_norm: s.rms_norm("input_layernorm", d, eps)?,
        feed_forward_norm: s.rms_norm("post_attention_layernorm", d, eps)?,
        whole: s.block("", Role::Layer, d)?,
    })
}
