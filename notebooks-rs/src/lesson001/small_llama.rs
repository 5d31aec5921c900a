//! A Llama of random weights, small enough for a second, and a text for it: counting up in steps of one, two or three.

use crate::Setting;
use anyhow::Result;
use peft_core::models::llama;
use peft_core::seam::Init;
use peft_core::train::{AdamConfig, Schedule, Trainer, next_token_loss};
use peft_core::{Batch, Model, Params, Pass, Peft};
use serde_json::json;
use tch::{Device, Kind, Tensor};

/// Sizes: of the vocabulary, of the stream, of the feed-forward's hidden units, of keys and values.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    pub vocab: i64,
    pub hidden: i64,
    pub ffn: i64,
    pub heads: i64,
    pub kv_heads: i64,
}

/// Layers of each.
pub const LAYERS: i64 = 2;

impl Sizes {
    /// Width of keys and values.
    pub fn kv(&self) -> i64 {
        self.hidden / self.heads * self.kv_heads
    }

    /// Draws a model: weights N(0, 1/in), embeddings N(0, 1), norms 1.
    pub fn draw(&self, device: Device) -> Result<Peft> {
        let params = Params::new("a small Llama", device);
        let draw = |name: &str, dims: &[i64], init: Init| -> Result<()> {
            Ok(params.insert(name, init.tensor(dims, device)?, false)?)
        };
        let linear = |name: &str, inp: i64, out: i64| {
            draw(&format!("{name}.weight"), &[out, inp], Init::Normal { std: 1.0 / (inp as f64).sqrt() })
        };
        let norm = |name: &str| draw(&format!("{name}.weight"), &[self.hidden], Init::Constant(1.0));
        draw("model.embed_tokens.weight", &[self.vocab, self.hidden], Init::Normal { std: 1.0 })?;
        let (d, f, kv) = (self.hidden, self.ffn, self.kv());
        for i in 0..LAYERS {
            let at = |leaf: &str| format!("model.layers.{i}.{leaf}");
            for (leaf, inp, out) in [("q_proj", d, d), ("k_proj", d, kv), ("v_proj", d, kv), ("o_proj", d, d)]
            {
                linear(&at(&format!("self_attn.{leaf}")), inp, out)?;
            }
            for (leaf, inp, out) in [("gate_proj", d, f), ("up_proj", d, f), ("down_proj", f, d)] {
                linear(&at(&format!("mlp.{leaf}")), inp, out)?;
            }
            norm(&at("input_layernorm"))?;
            norm(&at("post_attention_layernorm"))?;
        }
        norm("model.norm")?;
        linear("lm_head", d, self.vocab)?;
        let config = json!({
            "model_type": "llama", "vocab_size": self.vocab, "hidden_size": d, "intermediate_size": f,
            "num_hidden_layers": LAYERS, "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads, "tie_word_embeddings": false
        });
        Ok(Peft::new(params, llama::config(&config, "a small Llama")?)?)
    }

    /// `rows` lines of `length` tokens.
    pub fn text(&self, rows: i64, length: i64, setting: Setting) -> Result<Batch> {
        let ints = (Kind::Int64, Device::Cpu);
        let first = Tensor::f_randint(self.vocab, [rows, 1], ints)?;
        let step = Tensor::f_randint_low(1, 4, [rows, 1], ints)?;
        let ids = first.f_add(&step.f_mul(&Tensor::f_arange(length, ints)?)?)?.f_remainder(self.vocab)?;
        Ok(Batch::dense(ids.f_to(setting.device)?))
    }
}

/// The loss of the adapter `name` on a text.
pub fn loss(peft: &Peft, active: &[&str], text: &Batch) -> Result<f64> {
    let _guard = tch::no_grad_guard();
    let logits = peft.view(active)?.forward(text, Pass::eval())?;
    Ok(next_token_loss(&logits, text.ids()?)?.f_double_value(&[])?)
}

/// Trains an adapter; the loss before each step.
pub fn train(peft: &Peft, name: &str, text: &Batch, steps: u64, lr: f64) -> Result<Vec<f64>> {
    let mut trainer =
        Trainer::new(peft, &[name], AdamConfig::adam(), lr, Schedule::Cosine { warmup: 0, total: steps })?;
    let model = peft.view(&[name])?;
    let step = |_| {
        let loss = next_token_loss(&model.forward(text, Pass::train())?, text.ids()?)?;
        Ok(trainer.step(&loss)?.loss)
    };
    (0..steps).map(step).collect()
}
