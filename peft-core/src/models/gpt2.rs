//! GPT-2. Radford et al. 2019; names and numbers are those of the Hub's `GPT2LMHeadModel`.
//!
//! Per layer `x + attention(LN(x))`, `x + W₂ act(W₁ LN(x))`, with learned positions. The linear layers are `Conv1D`:
//! stored as `[in, out]`, q, k and v in one.

use crate::error::Result;
use crate::hub::HubModel;
use crate::io::fields::{Fields, patched};
use crate::models::activation::HiddenAct;
use crate::models::attention::{Projections, SelfAttention};
use crate::models::causal::Stream;
use crate::run::model::Model;
use crate::run::scope::Scope;
use crate::seam::attention::Softmax;
use crate::seam::batch::{Batch, Prompt};
use crate::seam::dims::Dims;
use crate::seam::layer::{Block, Layer};
use crate::seam::pass::Pass;
use crate::seam::site::Role;
use serde_json::Value;
use tch::Tensor;

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

/// A view of the model.
#[derive(Debug)]
pub struct Gpt2 {
    words: Layer,
    prompts: Vec<Box<dyn Prompt>>,
    positions: Layer,
    layers: Vec<Gpt2Layer>,
    norm: Layer,
    head: Layer,
    config: Gpt2Config,
}

impl Model for Gpt2 {
    type Config = Gpt2Config;

    fn dims(c: &Gpt2Config) -> Dims {
        Dims {
            model_type: "gpt2".into(),
            layers: c.n_layer,
            hidden: c.n_embd,
            heads: c.n_head,
            kv_heads: c.n_head,
            head_dim: c.n_embd.checked_div(c.n_head).unwrap_or_default(),
            word_embedding: "transformer.wte.weight".into(),
            vocab: c.vocab_size,
            positions: Some(c.n_positions),
            head: "lm_head".into(),
            causal: true,
        }
    }

    fn new(s: &Scope<'_>, c: &Gpt2Config) -> Result<Self> {
        let (t, d) = (s.at("transformer"), c.n_embd);
        Ok(Self {
            words: t.embedding("wte", c.vocab_size, d)?,
            prompts: s.prompts()?,
            positions: t.embedding("wpe", c.n_positions, d)?,
            layers: (0..c.n_layer).map(|i| Gpt2Layer::new(&t.at("h").layer(i), c)).collect::<Result<_>>()?,
            norm: t.layer_norm("ln_f", d, c.layer_norm_epsilon)?,
            head: match c.tie_word_embeddings {
                true => s.tied_linear("lm_head", "transformer.wte.weight", d, c.vocab_size)?,
                false => s.linear("lm_head", d, c.vocab_size, false)?,
            },
            config: c.clone(),
        })
    }

    fn forward(&self, batch: &Batch, pass: Pass<'_>) -> Result<Tensor> {
        let c = &self.config;
        batch.check_ids(c.vocab_size)?;
        let stream = Stream::enter(batch, &self.words, &self.prompts, [None], pass)?;
        stream.check_positions(c.n_positions)?;
        let inner = stream.pass(None, pass)?;
        let x = stream.x.f_add(&self.positions.forward(&stream.positions, inner)?)?;
        let mut x = inner.dropped(x, c.embd_pdrop)?;
        for layer in &self.layers {
            x = layer.forward(&x, inner)?;
        }
        stream.leave(&self.norm.forward(&x, inner)?, &self.head, pass)
    }

    fn untied(config: &Gpt2Config) -> Gpt2Config {
        Gpt2Config { tie_word_embeddings: false, ..config.clone() }
    }

    fn resized(config: &Gpt2Config, vocab_size: i64) -> Option<Gpt2Config> {
        Some(Gpt2Config { vocab_size, ..config.clone() })
    }
}

#[derive(Debug)]
struct Gpt2Layer {
    whole: Block,
    ln_1: Layer,
    attention_block: Block,
    attention: SelfAttention,
    ln_2: Layer,
    mlp_block: Block,
    c_fc: Layer,
    c_proj: Layer,
    act: HiddenAct,
    dropout: f64,
}

impl Gpt2Layer {
    fn new(s: &Scope<'_>, c: &Gpt2Config) -> Result<Self> {
        let (d, eps) = (c.n_embd, c.layer_norm_epsilon);
        let (attn, mlp) = (s.at("attn"), s.at("mlp"));
        let dims = Gpt2::dims(c);
        Ok(Self {
            ln_1: s.layer_norm("ln_1", d, eps)?,
            attention_block: s.block("attn", Role::Attention, d)?,
            attention: SelfAttention {
                projections: Projections::Packed(attn.conv1d("c_attn", d, d.saturating_mul(3))?),
                core: attn.attention("", Softmax::Fused, c.attn_pdrop)?,
                output: attn.conv1d("c_proj", d, d)?,
                output_dropout: c.resid_pdrop,
                heads: dims.heads,
                kv_heads: dims.kv_heads,
                head_dim: dims.head_dim,
                window: None,
            },
            ln_2: s.layer_norm("ln_2", d, eps)?,
            mlp_block: s.block("mlp", Role::FeedForward, d)?,
            c_fc: mlp.conv1d("c_fc", d, c.n_inner)?,
            c_proj: mlp.conv1d("c_proj", c.n_inner, d)?,
            whole: s.block("", Role::Layer, d)?,
            act: c.activation_function,
            dropout: c.resid_pdrop,
        })
    }

    fn forward(&self, x: &Tensor, pass: Pass<'_>) -> Result<Tensor> {
        self.whole.around(x, pass, &|x, pass| {
            let h = self.ln_1.forward(x, pass)?;
            let a =
                self.attention_block.around(&h, pass, &|h, pass| self.attention.forward(h, None, pass))?;
            let x = x.f_add(&a)?;
            let h = self.ln_2.forward(&x, pass)?;
            let f = self.mlp_block.around(&h, pass, &|h, pass| {
                let h = self.act.apply(&self.c_fc.forward(h, pass)?)?;
                pass.dropped(self.c_proj.forward(&h, pass)?, self.dropout)
            })?;
            Ok(x.f_add(&f)?)
        })
    }
}

impl HubModel for Gpt2 {
    const MODEL_TYPE: &'static str = "gpt2";
    const ARCHITECTURE: &'static str = "GPT2LMHeadModel";

    fn config(json: &Value, place: &str, _labels: Option<i64>) -> Result<Gpt2Config> {
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

    fn json(c: &Gpt2Config) -> Value {
        let tied = ("tie_word_embeddings", c.tie_word_embeddings.into());
        let vocab = ("vocab_size", c.vocab_size.into());
        patched(&c.json, [("architectures", vec![Self::ARCHITECTURE].into()), tied, vocab])
    }

    fn tied(c: &Gpt2Config) -> Option<[&'static str; 2]> {
        c.tie_word_embeddings.then_some(["lm_head.weight", "transformer.wte.weight"])
    }

    /// Old files lack the `transformer.` in front and have the causal masks as buffers.
    fn rename(name: &str) -> Option<String> {
        if name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias") {
            return None;
        }
        let bare = ["wte.", "wpe.", "h.", "ln_f."].iter().any(|p| name.starts_with(p));
        Some(if bare { format!("transformer.{name}") } else { name.to_owned() })
    }

    fn fresh_head(_: &Gpt2Config) -> Result<Vec<(String, Tensor)>> {
        Ok(Vec::new())
    }
}
