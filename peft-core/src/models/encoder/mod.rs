//! The encoder of the BERT family with a classifier. Devlin et al. 2019, <https://arxiv.org/abs/1810.04805>.
//!
//! Per layer `x = LN(x + attention(x))`, `x = LN(x + W₂ act(W₁ x))`; logits `W₄ tanh(W₃ x₀)` of the first position. A
//! family is an [`EncoderFamily`]: what its positions are, and how its head is called.

mod config;

pub use config::{EncoderConfig, EncoderFamily, Positions};

use crate::error::{Error, Result};
use crate::models::activation::HiddenAct;
use crate::models::attention::{Projections, SelfAttention};
use crate::run::{Model, Scope};
use crate::seam::{Batch, Block, Input, Layer, Pass, Prompt, Role, Stack};
use tch::{Kind, Tensor};

/// A view of an encoder with its classifier.
#[derive(Debug)]
pub struct Encoder {
    words: Layer,
    prompts: Vec<Box<dyn Prompt>>,
    positions: Layer,
    types: Layer,
    norm: Layer,
    layers: Stack<EncoderLayer>,
    dense: Layer,
    out: Layer,
    config: EncoderConfig,
}

impl Encoder {
    /// The view in `scope`.
    ///
    /// # Errors
    /// Parameters that are missing or of another shape.
    pub fn new(s: &Scope<'_>, c: &EncoderConfig) -> Result<Self> {
        let (encoder, d, [dense, out]) = (s.at(c.family.hub.model_type), c.hidden_size, c.family.head);
        let (embeddings, stack) = (encoder.at("embeddings"), encoder.at("encoder").at("layer"));
        Ok(Self {
            words: embeddings.embedding("word_embeddings", c.vocab_size, d)?,
            prompts: s.prompts()?,
            positions: embeddings.embedding("position_embeddings", c.max_position_embeddings, d)?,
            types: embeddings.embedding("token_type_embeddings", c.type_vocab_size, d)?,
            norm: embeddings.layer_norm("LayerNorm", d, c.layer_norm_eps)?,
            layers: Stack::new((0..c.num_hidden_layers).map(|i| EncoderLayer::new(&stack.layer(i), c)))?,
            dense: s.linear(dense, d, d, true)?,
            out: s.linear(out, d, c.num_labels, true)?,
            config: c.clone(),
        })
    }

    /// Words + positions + token types, normed: `[batch, t, d]`.
    fn embed(&self, batch: &Batch, input: &Input, pass: Pass<'_>) -> Result<Tensor> {
        let c = &self.config;
        let length = input.embeds.size3()?.1;
        let start = c.first_position().saturating_add(input.position);
        let most = c.max_position_embeddings;
        if start.saturating_add(length) > most {
            let text =
                format!("{length} tokens from position {start} on do not fit the model's {most} positions");
            return Err(Error::Input(text));
        }
        let positions = self.positions.forward(&positions(c, batch.ids()?, input)?, pass)?;
        let types = self.types.forward(&types(batch, input)?, pass)?;
        let x = input.embeds.f_add(&types)?.f_add(&positions)?;
        pass.dropped(self.norm.forward(&x, pass)?, c.hidden_dropout_prob)
    }
}

impl Model for Encoder {
    fn forward(&self, batch: &Batch, pass: Pass<'_>) -> Result<Tensor> {
        let c = &self.config;
        batch.check_ids(c.vocab_size)?;
        batch.check_mask(0)?;
        batch.check_unpacked()?;
        batch.check_token_types(c.type_vocab_size)?;
        let embeds = self.words.forward(batch.ids()?, pass)?;
        let mask = batch.additive_mask(embeds.kind())?;
        let input = Input { embeds, mask, position: 0, virtual_tokens: 0 };
        let input = self.prompts.iter().try_fold(input, |input, p| p.rewrite(input, pass))?;
        let pass = Pass { mask: input.mask.as_ref(), ..pass };

        let x = self.embed(batch, &input, pass)?;
        let mut x = self.layers.forward(x, pass, |layer, x, pass| layer.forward(x, pass))?.f_select(1, 0)?;
        if c.family.drops_first {
            x = pass.dropped(x, c.classifier_dropout)?;
        }
        let x = self.dense.forward(&x, pass)?.f_tanh()?;
        self.out.forward(&pass.dropped(x, c.classifier_dropout)?, pass)
    }
}

/// Position of each row of `input`, `[batch or 1, t]`.
fn positions(c: &EncoderConfig, ids: &Tensor, input: &Input) -> Result<Tensor> {
    if c.family.positions == Positions::All || input.virtual_tokens > 0 {
        let start = c.first_position().saturating_add(input.position);
        let end = start.saturating_add(input.embeds.size3()?.1);
        return Ok(Tensor::f_arange_start(start, end, (Kind::Int64, input.embeds.device()))?);
    }
    let words = ids.f_ne(c.pad_token_id)?.f_to_kind(Kind::Int64)?;
    let count = words.f_cumsum(1, Kind::Int64)?.f_add_scalar(input.position)?;
    Ok(count.f_mul(&words)?.f_add_scalar(c.pad_token_id)?)
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
    fn new(s: &Scope<'_>, c: &EncoderConfig) -> Result<Self> {
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
                core: own.attention("", c.attention_probs_dropout_prob)?,
                output: attention.at("output").linear("dense", d, d, true)?,
                output_dropout: c.hidden_dropout_prob,
                heads: c.num_attention_heads,
                kv_heads: c.num_attention_heads,
                head_dim: c.head_dim(),
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
