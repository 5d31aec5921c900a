//! GPT-2. Radford et al. 2019; names and numbers are those of the Hub's `GPT2LMHeadModel`.
//!
//! Per layer `x + attention(LN(x))`, `x + W₂ act(W₁ LN(x))`, with learned positions. The linear layers are `Conv1D`:
//! stored as `[in, out]`, q, k and v in one.

use crate::error::Result;
use crate::io::Fields;
use crate::models::activation::HiddenAct;
use crate::models::attention::{Projections, SelfAttention};
use crate::models::causal::{HEAD, Stream, head, written};
use crate::models::hub_model::{Family, HubModel};
use crate::models::pre_norm::{FeedForward, PreNorm};
use crate::run::{Architecture, Model, Scope};
use crate::seam::{Batch, Dims, Layer, Pass, Prompt, Role, Stack, TaskType, Transformer};
use serde_json::Value;
use std::sync::Arc;
use tch::Tensor;

/// GPT-2s of the Hub.
pub static FAMILY: Family = Family {
    model_type: "gpt2",
    class: "GPT2LMHeadModel",
    task: TaskType::CausalLm,
    describe: |json, place, _| Ok((Arc::new(config(json, place)?), Vec::new())),
};

/// `config.json`, as far as it changes a number.
#[derive(Debug, Clone, PartialEq)]
pub struct Gpt2Config {
    pub vocab_size: i64,
    pub n_embd: i64,
    pub n_layer: i64,
    pub n_head: i64,
    pub n_inner: i64,
    pub n_positions: i64,
    pub layer_norm_epsilon: f64,
    pub activation_function: HiddenAct,
    pub tie_word_embeddings: bool,
    pub resid_pdrop: f64,
    pub embd_pdrop: f64,
    pub attn_pdrop: f64,
    /// The file as it was read.
    pub json: Value,
}

/// Its `config.json`.
///
/// # Errors
/// A field that is missing or malformed, or that asks for something this crate does not have.
pub fn config(json: &Value, place: &str) -> Result<Gpt2Config> {
    let f = Fields::new(json, place);
    for (field, only) in [
        ("add_cross_attention", false),
        ("reorder_and_upcast_attn", false),
        ("scale_attn_by_inverse_layer_idx", false),
        ("scale_attn_weights", true),
    ] {
        f.only(field, only)?;
    }
    // Either name may be there, and the general one counts where both are, as in transformers.
    let size = |own: &str, general: &str| match f.get(general)? {
        Some(size) => f.positive(general, size),
        None => f.size(own),
    };
    let (n_embd, n_head) = (size("n_embd", "hidden_size")?, size("n_head", "num_attention_heads")?);
    if n_embd.checked_rem(n_head) != Some(0) {
        return Err(f.wrong("n_embd", format!("{n_embd} is not a multiple of n_head {n_head}")));
    }
    Ok(Gpt2Config {
        vocab_size: f.size("vocab_size")?,
        n_embd,
        n_layer: size("n_layer", "num_hidden_layers")?,
        n_head,
        n_inner: f.positive("n_inner", f.or("n_inner", n_embd.saturating_mul(4))?)?,
        n_positions: size("n_positions", "max_position_embeddings")?,
        layer_norm_epsilon: f.epsilon("layer_norm_epsilon", 1e-5)?,
        activation_function: f.or("activation_function", HiddenAct::GeluNew)?,
        tie_word_embeddings: f.or("tie_word_embeddings", true)?,
        resid_pdrop: f.dropout("resid_pdrop", 0.1)?,
        embd_pdrop: f.dropout("embd_pdrop", 0.1)?,
        attn_pdrop: f.dropout("attn_pdrop", 0.1)?,
        json: json.clone(),
    })
}

impl Architecture for Gpt2Config {
    fn build(&self, scope: &Scope<'_>) -> Result<Box<dyn Model>> {
        Ok(Box::new(Gpt2::new(scope, self)?))
    }

    fn dims(&self) -> Dims {
        let stack = Transformer {
            layers: self.n_layer,
            hidden: self.n_embd,
            heads: self.n_head,
            kv_heads: self.n_head,
            head_dim: self.head_dim(),
            word_embedding: WORDS.into(),
            vocab: self.vocab_size,
            positions: Some(self.n_positions),
            pad: None,
        };
        FAMILY.dims(HEAD, stack)
    }

    fn untied(&self) -> Option<Box<dyn Architecture>> {
        self.tie_word_embeddings.then(|| Self { tie_word_embeddings: false, ..self.clone() }.into())
    }

    fn resized(&self, vocab_size: i64) -> Option<Box<dyn Architecture>> {
        Some(Self { vocab_size, ..self.clone() }.into())
    }

    fn json(&self) -> Option<Value> {
        Some(written(&self.json, &FAMILY, self.tie_word_embeddings, self.vocab_size))
    }
}

impl HubModel for Gpt2Config {
    fn class(&self) -> &'static str {
        FAMILY.class
    }

    fn tied(&self) -> Option<[&'static str; 2]> {
        self.tie_word_embeddings.then_some(["lm_head.weight", WORDS])
    }

    /// Old files lack the `transformer.` in front and have the causal masks as buffers.
    fn rename(&self, name: &str) -> Option<String> {
        if name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias") {
            return None;
        }
        let bare = ["wte.", "wpe.", "h.", "ln_f."].iter().any(|p| name.starts_with(p));
        Some(if bare { format!("transformer.{name}") } else { name.to_owned() })
    }
}

impl Gpt2Config {
    fn head_dim(&self) -> i64 {
        self.n_embd.checked_div(self.n_head).unwrap_or_default()
    }
}

const WORDS: &str = "transformer.wte.weight";

/// A view of the model.
#[derive(Debug)]
pub struct Gpt2 {
    words: Layer,
    prompts: Vec<Box<dyn Prompt>>,
    positions: Layer,
    layers: Stack<PreNorm>,
    norm: Layer,
    head: Layer,
    config: Gpt2Config,
}

impl Gpt2 {
    /// The view in `scope`.
    ///
    /// # Errors
    /// Parameters that are missing or of another shape.
    pub fn new(s: &Scope<'_>, c: &Gpt2Config) -> Result<Self> {
        let (t, d) = (s.at("transformer"), c.n_embd);
        Ok(Self {
            words: t.embedding("wte", c.vocab_size, d)?,
            prompts: s.prompts()?,
            positions: t.embedding("wpe", c.n_positions, d)?,
            layers: Stack::new((0..c.n_layer).map(|i| layer(&t.at("h").layer(i), c)))?,
            norm: t.layer_norm("ln_f", d, c.layer_norm_epsilon)?,
            head: head(s, c.tie_word_embeddings.then_some(WORDS), d, c.vocab_size)?,
            config: c.clone(),
        })
    }
}

impl Model for Gpt2 {
    fn forward(&self, batch: &Batch, pass: Pass<'_>) -> Result<Tensor> {
        let c = &self.config;
        batch.check_ids(c.vocab_size)?;
        let stream = Stream::enter(batch, &self.words, &self.prompts, [None], pass)?;
        stream.check_positions(c.n_positions)?;
        let inner = stream.pass(None, pass)?;
        let x = stream.x.f_add(&self.positions.forward(&stream.positions, inner)?)?;
        let x = inner.dropped(x, c.embd_pdrop)?;
        let x = self.layers.forward(x, inner, |layer, x, pass| layer.forward(x, None, pass))?;
        stream.leave(&self.norm.forward(&x, inner)?, &self.head, pass)
    }
}

fn layer(s: &Scope<'_>, c: &Gpt2Config) -> Result<PreNorm> {
    let (d, eps) = (c.n_embd, c.layer_norm_epsilon);
    let (attn, mlp) = (s.at("attn"), s.at("mlp"));
    Ok(PreNorm {
        attention_norm: s.layer_norm("ln_1", d, eps)?,
        attention_block: s.block("attn", Role::Attention, d)?,
        attention: SelfAttention {
            projections: Projections::Fused(attn.conv1d("c_attn", d, d.saturating_mul(3))?),
            core: attn.attention("", c.attn_pdrop)?,
            output: attn.conv1d("c_proj", d, d)?,
            output_dropout: c.resid_pdrop,
            heads: c.n_head,
            kv_heads: c.n_head,
            head_dim: c.head_dim(),
            window: None,
        },
        feed_forward_norm: s.layer_norm("ln_2", d, eps)?,
        feed_forward_block: s.block("mlp", Role::FeedForward, d)?,
        feed_forward: FeedForward {
            gate: None,
            up: mlp.conv1d("c_fc", d, c.n_inner)?,
            down: mlp.conv1d("c_proj", c.n_inner, d)?,
            act: c.activation_function,
            dropout: c.resid_pdrop,
        },
        whole: s.block("", Role::Layer, d)?,
    })
}
