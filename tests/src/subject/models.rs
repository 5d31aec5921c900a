//! The models, with their sizes in closed form and random inputs.

use super::{Sizes, Subject, Target};
use crate::golden;
use anyhow::Result;
use peft_core::hub;
use peft_core::methods::Common;
use peft_core::models::TinyConfig;
use peft_core::{Batch, NewRows, Peft, TaskType};
use tch::{Device, Kind, Tensor};

const fn target(name: &'static str, inp: i64, out: i64) -> Target {
    Target { name, inp, out }
}

/// Sizes of [`Tiny`].
pub const TINY: TinyConfig = TinyConfig { vocab: 50, hidden: 32, layers: 2, heads: 4, ffn: 48, classes: 3 };

const TINY_TARGETS: &[Target] =
    &[target("in_proj", 32, 96), target("out_proj", 32, 32), target("ff.2", 48, 32)];

/// The lessons' model.
#[derive(Debug)]
pub struct Tiny;

impl Subject for Tiny {
    const NAME: &'static str = "Tiny";

    fn base() -> Result<Peft> {
        tch::manual_seed(7);
        Ok(Peft::new(TINY.init(Device::Cpu)?, TINY)?)
    }

    fn sizes() -> Sizes {
        let (d, f, n) = (TINY.hidden, TINY.ffn, TINY.layers);
        let (norm, head) = (2 * d, TINY.classes * (d + 1));
        let layer = 3 * d * (d + 1) + d * (d + 1) + f * (d + 1) + d * (f + 1) + 2 * norm;
        Sizes {
            layers: n,
            hidden: d,
            heads: TINY.heads,
            keys: d,
            causal: false,
            all: TINY.vocab * d + n * layer + head,
            targets: TINY_TARGETS,
            words: target("embed", TINY.vocab, d),
            lm_head: None,
            tied: false,
            head: 0,
            whole: ("n2", n * norm),
            layer_params: layer,
            norms: (&["n1", "n2"], n * 2 * norm),
            biases: n * (3 * d + d + f + d + 2 * d) + TINY.classes,
            attention: "layers.0.attn",
            feed_forward: "layers.0.ff",
            layer: "layers.0",
            core: "layers.0.attn.core",
            last_core: "layers.1.attn.core",
        }
    }

    fn common() -> Common {
        Common::default()
    }

    fn batch() -> Result<(Batch, Tensor)> {
        let (ids, classes) = random(TINY.vocab, TINY.classes);
        Ok((Batch::dense(ids), classes))
    }
}

const BERT_TARGETS: &[Target] =
    &[target("query", 32, 32), target("value", 32, 32), target("intermediate.dense", 32, 64)];

/// A BERT.
#[derive(Debug)]
pub struct Bert;

impl Subject for Bert {
    const NAME: &'static str = "Bert";

    fn base() -> Result<Peft> {
        Ok(hub::open(golden("bert/base"), Device::Cpu, hub::Head::Stored)?.peft)
    }

    /// Those of the golden's `config.json`.
    fn sizes() -> Sizes {
        let (d, f, n, classes) = (32, 64, 2, 3);
        let (norm, head, pooler) = (2 * d, classes * (d + 1), d * (d + 1));
        let embeddings = (96 + 64 + 2) * d + norm;
        let layer = 4 * d * (d + 1) + norm + f * (d + 1) + d * (f + 1) + norm;
        Sizes {
            layers: n,
            hidden: d,
            heads: 4,
            keys: d,
            causal: false,
            all: embeddings + n * layer + pooler + head,
            targets: BERT_TARGETS,
            words: target("bert.embeddings.word_embeddings", 96, d),
            lm_head: None,
            tied: false,
            head,
            whole: ("pooler", pooler),
            layer_params: layer,
            norms: (&["LayerNorm"], (1 + 2 * n) * norm),
            biases: d + n * (4 * d + d + f + d + d) + d,
            attention: "bert.encoder.layer.0.attention",
            feed_forward: "bert.encoder.layer.0.ffn",
            layer: "bert.encoder.layer.0",
            core: "bert.encoder.layer.0.attention.self",
            last_core: "bert.encoder.layer.1.attention.self",
        }
    }

    fn common() -> Common {
        Common::classifier()
    }

    fn batch() -> Result<(Batch, Tensor)> {
        let (ids, classes) = random(96, 3);
        let mask = right_padded(&ids)?;
        Ok((Batch::masked(ids, mask), classes))
    }
}

const LLAMA_TARGETS: &[Target] =
    &[target("q_proj", 32, 32), target("v_proj", 32, 16), target("down_proj", 64, 32)];

/// A Llama.
#[derive(Debug)]
pub struct Llama;

impl Subject for Llama {
    const NAME: &'static str = "Llama";

    fn base() -> Result<Peft> {
        Ok(hub::open(golden("llama/base"), Device::Cpu, hub::Head::Stored)?.peft)
    }

    /// Those of the golden's `config.json`; the head is not tied.
    fn sizes() -> Sizes {
        let (d, f, n, keys, words) = (32, 64, 2, 16, 96 * 32);
        let layer = 2 * d * d + 2 * keys * d + 3 * f * d + 2 * d;
        Sizes {
            layers: n,
            hidden: d,
            heads: 4,
            keys,
            causal: true,
            all: 2 * words + n * layer + d,
            targets: LLAMA_TARGETS,
            words: target("model.embed_tokens", 96, d),
            lm_head: Some("lm_head"),
            tied: false,
            head: 0,
            whole: ("lm_head", words),
            layer_params: layer,
            norms: (&["input_layernorm", "post_attention_layernorm", "norm"], (2 * n + 1) * d),
            biases: 0,
            attention: "model.layers.0.self_attn",
            feed_forward: "model.layers.0.mlp",
            layer: "model.layers.0",
            core: "model.layers.0.self_attn",
            last_core: "model.layers.1.self_attn",
        }
    }

    fn common() -> Common {
        Common { task_type: Some(TaskType::CausalLm), ..Common::default() }
    }

    fn batch() -> Result<(Batch, Tensor)> {
        next_tokens(96)
    }
}

const GPT2_TARGETS: &[Target] =
    &[target("c_attn", 32, 96), target("c_fc", 32, 128), target("mlp.c_proj", 128, 32)];

/// A GPT-2.
#[derive(Debug)]
pub struct Gpt2;

impl Subject for Gpt2 {
    const NAME: &'static str = "Gpt2";

    fn base() -> Result<Peft> {
        Ok(hub::open(golden("gpt2/base"), Device::Cpu, hub::Head::Stored)?.peft)
    }

    /// Those of the golden's `config.json`; the head is tied to the word embedding.
    fn sizes() -> Sizes {
        let (d, f, n, norm) = (32, 128, 2, 2 * 32);
        let layer = 3 * d * (d + 1) + d * (d + 1) + f * (d + 1) + d * (f + 1) + 2 * norm;
        Sizes {
            layers: n,
            hidden: d,
            heads: 4,
            keys: d,
            causal: true,
            all: (96 + 64) * d + n * layer + norm,
            targets: GPT2_TARGETS,
            words: target("transformer.wte", 96, d),
            lm_head: Some("lm_head"),
            tied: true,
            head: 0,
            whole: ("ln_f", norm),
            layer_params: layer,
            norms: (&["ln_1", "ln_2", "ln_f"], (2 * n + 1) * norm),
            biases: n * (3 * d + d + f + d + 2 * d) + d,
            attention: "transformer.h.0.attn",
            feed_forward: "transformer.h.0.mlp",
            layer: "transformer.h.0",
            core: "transformer.h.0.attn",
            last_core: "transformer.h.1.attn",
        }
    }

    fn common() -> Common {
        Common { task_type: Some(TaskType::CausalLm), ..Common::default() }
    }

    fn batch() -> Result<(Batch, Tensor)> {
        next_tokens(96)
    }
}

/// Those that have a bias.
const QWEN2_TARGETS: &[Target] = &[target("q_proj", 32, 32), target("v_proj", 32, 16)];

/// The vocabulary that the model is resized to, from 96.
const RESIZED: i64 = 101;

/// A Qwen2 with a tied head and a vocabulary that was resized.
#[derive(Debug)]
pub struct Qwen2;

impl Subject for Qwen2 {
    const NAME: &'static str = "Qwen2";

    fn base() -> Result<Peft> {
        let peft = hub::open(golden("qwen2/base"), Device::Cpu, hub::Head::Stored)?.peft;
        tch::manual_seed(7);
        Ok(peft.resized(RESIZED, NewRows::Drawn)?)
    }

    /// Those of the golden's `config.json`, with a vocabulary of another size; the head is tied to the word embedding, whose
    /// names are those that PEFT treats apart.
    fn sizes() -> Sizes {
        let (d, f, n, keys, words) = (32, 64, 2, 16, RESIZED * 32);
        let biases = d + 2 * keys;
        let layer = 2 * d * d + 2 * keys * d + biases + 3 * f * d + 2 * d;
        Sizes {
            layers: n,
            hidden: d,
            heads: 4,
            keys,
            causal: true,
            all: words + n * layer + d,
            targets: QWEN2_TARGETS,
            words: target("model.embed_tokens", RESIZED, d),
            lm_head: Some("lm_head"),
            tied: true,
            head: 0,
            whole: ("input_layernorm", n * d),
            layer_params: layer,
            norms: (&["input_layernorm", "post_attention_layernorm", "norm"], (2 * n + 1) * d),
            biases: n * biases,
            attention: "model.layers.0.self_attn",
            feed_forward: "model.layers.0.mlp",
            layer: "model.layers.0",
            core: "model.layers.0.self_attn",
            last_core: "model.layers.1.self_attn",
        }
    }

    fn common() -> Common {
        Common { task_type: Some(TaskType::CausalLm), ..Common::default() }
    }

    fn batch() -> Result<(Batch, Tensor)> {
        next_tokens(RESIZED)
    }
}

/// Random tokens to predict, padded on the right.
fn next_tokens(vocab: i64) -> Result<(Batch, Tensor)> {
    let (ids, _) = random(vocab, 3);
    let mask = right_padded(&ids)?;
    let labels = ids.masked_fill(&mask.eq(0), -100);
    Ok((Batch::masked(ids, mask), labels))
}

/// The mask of rows of different length.
fn right_padded(ids: &Tensor) -> Result<Tensor> {
    let (rows, length) = ids.size2()?;
    let lengths = Tensor::from_slice(&[length, 3, length - 1, 1]).view([rows, 1]);
    let seen = Tensor::arange(length, (Kind::Int64, Device::Cpu)).unsqueeze(0).lt_tensor(&lengths);
    Ok(seen.to_kind(Kind::Int64))
}

fn random(vocab: i64, classes: i64) -> (Tensor, Tensor) {
    tch::manual_seed(11);
    let int = (Kind::Int64, Device::Cpu);
    (Tensor::randint(vocab, [4, 9], int), Tensor::randint(classes, [4], int))
}
