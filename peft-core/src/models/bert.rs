//! BERT for sequence classification. Devlin et al. 2019, <https://arxiv.org/abs/1810.04805>; names and numbers are
//! those of the Hub's `BertForSequenceClassification`.
//!
//! Per layer `x = LN(x + attention(x))`, `x = LN(x + W₂ act(W₁ x))`; logits from the pooled first position.

use super::activation::HiddenAct;
use super::attention::{Projections, SelfAttention};
use crate::attention::Softmax;
use crate::io::hub::HubModel;
use crate::layer::{Block, Layer, Pass};
use crate::model::{Batch, Dims, Input, Model, Prompt};
use crate::scope::Scope;
use crate::site::Role;
use crate::{Error, Init, Result};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};

/// `config.json`, as far as it changes a number.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct BertConfig {
    pub vocab_size: i64,
    pub hidden_size: i64,
    pub num_hidden_layers: i64,
    pub num_attention_heads: i64,
    pub intermediate_size: i64,
    pub max_position_embeddings: i64,
    pub type_vocab_size: i64,
    pub layer_norm_eps: f64,
    pub hidden_dropout_prob: f64,
    pub attention_probs_dropout_prob: f64,
    pub hidden_act: HiddenAct,
    #[serde(default)]
    pub classifier_dropout: Option<f64>,
    #[serde(default = "initializer_range")]
    pub initializer_range: f64,
    #[serde(default)]
    pub pad_token_id: i64,
    #[serde(default)]
    pub id2label: BTreeMap<String, Value>,
    /// Number of classes.
    #[serde(default)]
    pub num_labels: i64,
}

impl BertConfig {
    fn check(&self, place: &str) -> Result<()> {
        for (field, size) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
        ] {
            positive(place, field, size)?;
        }
        if self.num_labels < 0 {
            return Err(Error::config(place, "num_labels", format!("is {}", self.num_labels)));
        }
        if self.hidden_size.checked_rem(self.num_attention_heads) != Some(0) {
            let message = format!(
                "{} is not a multiple of num_attention_heads {}",
                self.hidden_size, self.num_attention_heads
            );
            return Err(Error::config(place, "hidden_size", message));
        }
        for (field, p) in [
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            ("attention_probs_dropout_prob", self.attention_probs_dropout_prob),
            ("classifier_dropout", self.classifier_dropout.unwrap_or_default()),
        ] {
            if !(0.0..1.0).contains(&p) {
                return Err(Error::config(place, field, format!("should be in [0, 1), is {p}")));
            }
        }
        Ok(())
    }
}

fn positive(place: &str, field: &str, value: i64) -> Result<()> {
    if value > 0 {
        return Ok(());
    }
    Err(Error::config(place, field, format!("should be a positive integer, is {value}")))
}

fn initializer_range() -> f64 {
    0.02
}

impl HubModel for Bert {
    const MODEL_TYPE: &'static str = "bert";

    fn config(json: &Value, place: &str, labels: Option<i64>) -> Result<BertConfig> {
        // What would change the numbers and is not here is refused by name.
        for (field, only) in
            [("position_embedding_type", Value::from("absolute")), ("is_decoder", Value::from(false))]
        {
            match json.get(field) {
                Some(value) if *value != only && !value.is_null() => {
                    return Err(Error::config(
                        place,
                        field,
                        format!("{value} is not supported, only {only} is"),
                    ));
                }
                _ => {}
            }
        }
        let mut c: BertConfig = serde_path_to_error::deserialize(json).map_err(|e| {
            // The path of a field that is missing is the whole file's; the message names the field then.
            let field = if e.path().iter().len() == 0 { "bert".into() } else { e.path().to_string() };
            Error::config(place, field, e.inner())
        })?;
        c.check(place)?;
        let stated = i64::try_from(c.id2label.len()).unwrap_or_default().max(c.num_labels);
        c.num_labels = labels.unwrap_or(if stated > 0 { stated } else { 2 });
        positive(place, "num_labels", c.num_labels)?;
        Ok(c)
    }

    /// Encoders are saved with and without the `bert.` in front; pre-training heads and position buffers are not ours.
    fn rename(name: &str) -> Option<String> {
        if name.starts_with("cls.") || name.ends_with("embeddings.position_ids") {
            return None;
        }
        let bare = ["embeddings.", "encoder.", "pooler."].iter().any(|p| name.starts_with(p));
        let name = if bare { format!("bert.{name}") } else { name.to_owned() };
        Some(name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias"))
    }

    fn fresh_head(c: &BertConfig) -> Result<Vec<(String, Tensor)>> {
        let weight =
            Init::Normal { std: c.initializer_range }.tensor(&[c.num_labels, c.hidden_size], Device::Cpu)?;
        let bias = Init::Zeros.tensor(&[c.num_labels], Device::Cpu)?;
        Ok(vec![("classifier.weight".into(), weight), ("classifier.bias".into(), bias)])
    }
}

/// A view of the model.
#[derive(Debug)]
pub struct Bert {
    words: Layer,
    prompts: Vec<Box<dyn Prompt>>,
    positions: Layer,
    types: Layer,
    norm: Layer,
    layers: Vec<BertLayer>,
    pooler: Layer,
    classifier: Layer,
    config: BertConfig,
}

impl Model for Bert {
    type Config = BertConfig;

    fn dims(c: &BertConfig) -> Dims {
        Dims {
            model_type: "bert".into(),
            layers: c.num_hidden_layers,
            hidden: c.hidden_size,
            heads: c.num_attention_heads,
            kv_heads: c.num_attention_heads,
            head_dim: c.hidden_size.checked_div(c.num_attention_heads).unwrap_or_default(),
            word_embedding: "bert.embeddings.word_embeddings.weight".into(),
            vocab: c.vocab_size,
            head: "classifier".into(),
            causal: false,
        }
    }

    fn new(s: &Scope<'_>, c: &BertConfig) -> Result<Self> {
        let (bert, d) = (s.at("bert"), c.hidden_size);
        let (embeddings, stack) = (bert.at("embeddings"), bert.at("encoder").at("layer"));
        Ok(Self {
            words: embeddings.embedding("word_embeddings", c.vocab_size, d)?,
            prompts: s.prompts()?,
            positions: embeddings.embedding("position_embeddings", c.max_position_embeddings, d)?,
            types: embeddings.embedding("token_type_embeddings", c.type_vocab_size, d)?,
            norm: embeddings.layer_norm("LayerNorm", d, c.layer_norm_eps)?,
            layers: (0..c.num_hidden_layers)
                .map(|i| BertLayer::new(&stack.layer(i), c))
                .collect::<Result<_>>()?,
            pooler: bert.at("pooler").linear("dense", d, d, true)?,
            classifier: s.linear("classifier", d, c.num_labels, true)?,
            config: c.clone(),
        })
    }

    fn forward(&self, batch: &Batch, pass: Pass<'_>) -> Result<Tensor> {
        batch.check_ids(self.config.vocab_size)?;
        let c = &self.config;
        batch.check_mask(0)?;
        let embeds = self.words.forward(&batch.ids, pass)?;
        let mask = batch.additive_mask(embeds.kind())?;
        let input = Input { embeds, mask, position: 0, virtual_tokens: 0 };
        let input = self.prompts.iter().try_fold(input, |input, p| p.rewrite(input, pass))?;
        let pass = Pass { mask: input.mask.as_ref(), ..pass };

        let mut x = self.embed(&input, pass)?;
        for layer in &self.layers {
            x = layer.forward(&x, pass)?;
        }
        let pooled = self.pooler.forward(&x.f_select(1, 0)?, pass)?.f_tanh()?;
        let dropout = c.classifier_dropout.unwrap_or(c.hidden_dropout_prob);
        self.classifier.forward(&pass.dropped(pooled, dropout)?, pass)
    }
}

impl Bert {
    /// Words + positions + the first token type, normed: `[batch, t, d]`.
    fn embed(&self, input: &Input, pass: Pass<'_>) -> Result<Tensor> {
        let length = input.embeds.size3()?.1;
        let (start, end) = (input.position, input.position.saturating_add(length));
        let most = self.config.max_position_embeddings;
        if end > most {
            let text =
                format!("{length} tokens from position {start} on do not fit the model's {most} positions");
            return Err(Error::Input(text));
        }
        let index = (Kind::Int64, input.embeds.device());
        let positions = self.positions.forward(&Tensor::f_arange_start(start, end, index)?, pass)?;
        let types = self.types.forward(&Tensor::f_zeros([1], index)?, pass)?;
        let x = input.embeds.f_add(&types)?.f_add(&positions)?;
        pass.dropped(self.norm.forward(&x, pass)?, self.config.hidden_dropout_prob)
    }
}

#[derive(Debug)]
struct BertLayer {
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

impl BertLayer {
    fn new(s: &Scope<'_>, c: &BertConfig) -> Result<Self> {
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
                heads: c.num_attention_heads,
                kv_heads: c.num_attention_heads,
                head_dim: Bert::dims(c).head_dim,
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
            let a = self.attention_block.around(x, pass, &|x, pass| {
                pass.dropped(self.attention.forward(x, None, pass)?, self.dropout)
            })?;
            let x = self.attention_norm.forward(&a.f_add(x)?, pass)?;
            let f = self.ffn_block.around(&x, pass, &|x, pass| {
                let h = self.act.apply(&self.intermediate.forward(x, pass)?)?;
                pass.dropped(self.output.forward(&h, pass)?, self.dropout)
            })?;
            self.output_norm.forward(&f.f_add(&x)?, pass)
        })
    }
}
