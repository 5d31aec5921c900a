//! P-tuning. Liu et al. 2021, <https://arxiv.org/abs/2103.10385>, section 3.2, as PEFT computes it.
//!
//! Prompt tuning whose `n` vectors are the output of a small network: `[f(e₁ … eₙ); E(x)]`. f is an MLP,
//! `W₃ relu(W₂ relu(W₁ e + b₁) + b₂) + b₃`, or a bidirectional LSTM with two linear layers above it,
//! `W₂ relu(W₁ LSTM(e) + b₁) + b₂`. The network is for training: its output is what is kept.

use crate::check;
use crate::error::{Error, Result};
use crate::methods::config::{Common, PeftConfig, WRAPPED_ONCE, fill};
use crate::methods::virtual_tokens::{
    EMBEDDINGS, Linear, SoftPrompt, Vectors, encoder_embedding, export, has_encoder,
};
use crate::seam::{Dims, Init, Method, MethodConfig, Outline, Params, Pass, Prompt, Resolved};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use tch::Tensor;

/// Configuration of P-tuning; field names and defaults are PEFT's (`PromptEncoderConfig` there).
///
/// With d = hidden, h = `encoder_hidden_size`:
///
/// | tensor | shape | name | start |
/// |---|---|---|---|
/// | e | `[num_virtual_tokens, d]` | `encoder.embedding.weight` | N(0, 1) |
/// | MLP: W₁, W₂, W₃ | `[h, d]`, `[h, h]`, `[d, h]` | `encoder.mlp_head.{0,2,4}.weight`, `.bias` | U(±1/√in) |
/// | LSTM | `[4h, d or 2h]`, `[4h, h]`, `[4h]` | `encoder.lstm_head.{weight,bias}_{ih,hh}_l<i>[_reverse]` | U(±1/√h) |
/// | its W₁, W₂ | `[2h, 2h]`, `[d, 2h]` | `encoder.mlp_head.{0,2}.weight`, `.bias` | U(±1/√in) |
/// | in the file: f(e) | `[num_virtual_tokens, d]` | `prompt_embeddings` | |
///
/// The file has f(e) alone, as PEFT's has. An adapter from a file trains it further as it is, like prompt tuning; to
/// keep the encoder, keep the tensors of [`Peft::params`](crate::peft::Peft::params) and hand them to
/// [`Peft::add_with`](crate::peft::Peft::add_with).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PTuningConfig {
    /// How many vectors the prompt has.
    pub num_virtual_tokens: i64,
    /// The network that the prompt is trained through.
    pub encoder_reparameterization_type: Reparameterization,
    /// Width of the encoder; `None` is the model's.
    pub encoder_hidden_size: Option<i64>,
    /// Layers of the LSTM. An MLP has always three, and this is 2 there.
    pub encoder_num_layers: i64,
    /// Dropout between the LSTM's layers.
    pub encoder_dropout: f64,
    /// Width of the model; `None` becomes the model's when the adapter is added.
    pub token_dim: Option<i64>,
    /// Layers of the model; `None` becomes the model's when the adapter is added.
    pub num_layers: Option<i64>,
    /// Attention heads of the model; `None` becomes the model's when the adapter is added.
    pub num_attention_heads: Option<i64>,
    /// The fields that every adapter has.
    #[serde(flatten)]
    pub common: Common,
}

/// The network that the prompt of P-tuning is trained through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs)]
pub enum Reparameterization {
    Mlp,
    Lstm,
}

impl Default for PTuningConfig {
    fn default() -> Self {
        Self {
            num_virtual_tokens: 20,
            encoder_reparameterization_type: Reparameterization::Mlp,
            encoder_hidden_size: None,
            encoder_num_layers: MLP_LAYERS,
            encoder_dropout: 0.0,
            token_dim: None,
            num_layers: None,
            num_attention_heads: None,
            common: Common::default(),
        }
    }
}

const NAME: &str = "P-tuning";

/// What PEFT's default says of an MLP.
const MLP_LAYERS: i64 = 2;

impl PeftConfig for PTuningConfig {
    const TYPE: &'static str = "P_TUNING";
    const DEFAULTS: &'static str = r#"{"num_transformer_submodules": 1}"#;
    const INERT: &'static str = r#"{"num_transformer_submodules": [null]}"#;
    const PREFIX: &'static str = WRAPPED_ONCE;
}

impl PTuningConfig {
    /// Fields that a fresh encoder would have no use for. A file may say anything: it has no encoder.
    fn check_used(&self) -> Result<()> {
        let (dropout, layers) = (self.encoder_dropout, self.encoder_num_layers);
        match self.encoder_reparameterization_type {
            Reparameterization::Mlp if layers != MLP_LAYERS => {
                let message = format!("is {layers}, and an MLP has always three layers: leave it at 2");
                Err(Error::config(NAME, "encoder_num_layers", message))
            }
            Reparameterization::Mlp if dropout != 0.0 => {
                Err(Error::config(NAME, "encoder_dropout", format!("is {dropout}, and an MLP drops nothing")))
            }
            Reparameterization::Lstm if dropout != 0.0 && layers < 2 => {
                let message = format!("is {dropout}, and acts between layers: the LSTM has one");
                Err(Error::config(NAME, "encoder_dropout", message))
            }
            _ => Ok(()),
        }
    }

    fn encoder(&self, params: &Params) -> Result<Encoder> {
        self.check_used()?;
        let (n, d) = (self.num_virtual_tokens, self.token_dim.unwrap_or_default());
        let h = self.encoder_hidden_size.unwrap_or(d);
        let wide = h.saturating_mul(2);
        let linear = |i: i64, sizes| Linear::new(params, &format!("mlp_head.{i}"), sizes, false);
        let embedding = encoder_embedding(params, n, d)?;
        Ok(match self.encoder_reparameterization_type {
            Reparameterization::Mlp => Encoder {
                embedding,
                lstm: None,
                head: vec![linear(0, (d, h))?, linear(2, (h, h))?, linear(4, (h, d))?],
            },
            Reparameterization::Lstm => {
                let lstm = Lstm::new(params, (d, h), self.encoder_num_layers, self.encoder_dropout)?;
                Encoder {
                    embedding,
                    lstm: Some(lstm),
                    head: vec![linear(0, (wide, wide))?, linear(2, (wide, d))?],
                }
            }
        })
    }
}

impl MethodConfig for PTuningConfig {
    fn resolve(mut self: Box<Self>, outline: &Outline) -> Result<Resolved> {
        check::positive(NAME, "num_virtual_tokens", self.num_virtual_tokens)?;
        fill(NAME, "token_dim", &mut self.token_dim, outline.dims.sizes()?.hidden)?;
        fill(NAME, "num_layers", &mut self.num_layers, outline.dims.sizes()?.layers)?;
        fill(NAME, "num_attention_heads", &mut self.num_attention_heads, outline.dims.sizes()?.heads)?;
        let hidden = *self.encoder_hidden_size.get_or_insert(outline.dims.sizes()?.hidden);
        check::positive(NAME, "encoder_hidden_size", hidden)?;
        check::positive(NAME, "encoder_num_layers", self.encoder_num_layers)?;
        check::share(NAME, "encoder_dropout", self.encoder_dropout)?;
        self.common.resolve(NAME, outline)?;
        Ok(self.resolved(PTuningMethod))
    }
}

/// P-tuning in one model.
#[derive(Debug)]
struct PTuningMethod(Arc<PTuningConfig>);

impl Method for PTuningMethod {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prompt(&self, dims: &Dims, _: Option<&Tensor>, params: &Params) -> Result<Option<Box<dyn Prompt>>> {
        let n = self.0.num_virtual_tokens;
        let tokens: Box<dyn Vectors> = match has_encoder(params) {
            true => Box::new(self.0.encoder(params)?),
            false => Box::new(params.get(EMBEDDINGS, &[n, dims.sizes()?.hidden])?),
        };
        Ok(Some(Box::new(SoftPrompt { n, tokens })))
    }

    fn export(&self, params: &Params) -> Result<BTreeMap<String, Tensor>> {
        export(params, || Ok(self.0.encoder(params)?.vectors(1, Pass::eval())?.f_squeeze_dim(0)?))
    }
}

/// The network, and its input `[n, d]`.
#[derive(Debug)]
struct Encoder {
    embedding: Tensor,
    lstm: Option<Lstm>,
    head: Vec<Linear>,
}

impl Vectors for Encoder {
    fn vectors(&self, batch: i64, pass: Pass<'_>) -> Result<Tensor> {
        let mut x = self.embedding.f_unsqueeze(0)?;
        if let Some(lstm) = &self.lstm {
            x = lstm.forward(&x, batch, pass)?;
        }
        for (i, layer) in self.head.iter().enumerate() {
            x = layer.forward(&if i == 0 { x } else { x.f_relu()? })?;
        }
        Ok(x)
    }
}

/// A bidirectional LSTM.
#[derive(Debug)]
struct Lstm {
    /// Input and hidden weights and biases, of each layer forward and backward.
    weights: Vec<Tensor>,
    hidden: i64,
    layers: i64,
    dropout: f64,
}

impl Lstm {
    fn new(params: &Params, (d, h): (i64, i64), layers: i64, dropout: f64) -> Result<Self> {
        let gates = h.saturating_mul(4);
        let init = Init::Uniform { bound: 1.0 / (h as f64).sqrt() };
        let mut weights = Vec::new();
        for layer in 0..layers {
            let inp = if layer == 0 { d } else { h.saturating_mul(2) };
            for direction in ["", "_reverse"] {
                for (leaf, dims) in [
                    ("weight_ih", &[gates, inp][..]),
                    ("weight_hh", &[gates, h]),
                    ("bias_ih", &[gates]),
                    ("bias_hh", &[gates]),
                ] {
                    let name = format!("encoder.lstm_head.{leaf}_l{layer}{direction}");
                    weights.push(params.get_or_init(&name, dims, init)?);
                }
            }
        }
        Ok(Self { weights, hidden: h, layers, dropout })
    }

    /// `[1, n, d]` to `[1, n, 2h]`, or `[batch, n, 2h]` where every row drops something else.
    fn forward(&self, x: &Tensor, batch: i64, pass: Pass<'_>) -> Result<Tensor> {
        let rows = if pass.train && self.dropout > 0.0 { batch } else { 1 };
        let x = x.f_expand([rows, -1, -1], false)?;
        let states = [self.layers.saturating_mul(2), rows, self.hidden];
        let zeros = Tensor::f_zeros(states, (x.kind(), x.device()))?;
        let dropout = if pass.train { self.dropout } else { 0.0 };
        // cuDNN has gradients in training mode alone; without dropout, that mode changes no number.
        let (biases, train, bidirectional, batch_first) = (true, true, true, true);
        let start = [zeros.shallow_clone(), zeros];
        let w = &self.weights;
        let (y, _, _) =
            x.f_lstm(&start, w, biases, self.layers, dropout, train, bidirectional, batch_first)?;
        Ok(y)
    }
}
