//! Section 4.1, prefix tuning: trained keys and values before the words' own, made by a small network.
//!
//! The lesson's class is the library's [`PrefixTuningConfig`] with `prefix_projection`: `P = W₂ tanh(W₁ e + b₁) + b₂`,
//! `e` `[prefix, hidden]`, `P` `[prefix, layers · 2 · heads · head_dim]`. Drawn in the same order, it has the same bits.

use super::attended::{Attended, largest};
use crate::layers::{LayersConfig, LayersPeft};
use crate::measure::small;
use crate::{Mistake, Page, Setting};
use anyhow::{Context, Result};
use peft_core::estimate::{Blueprint, Setup};
use peft_core::methods::PrefixTuningConfig;
use peft_core::report::commas;
use tch::{Device, Kind, Tensor};

/// Sizes of the recorded class, and rows of the recorded call.
const LAYERS: i64 = 2;
pub const HEADS: i64 = 4;
pub const HEAD_DIM: i64 = 16;
pub const HIDDEN: i64 = HEADS * HEAD_DIM;
pub const PREFIX: i64 = 10;
const BATCH: i64 = 3;
/// Words of the forward pass.
pub const WORDS: i64 = 16;

/// The lesson's class over as many layers of attention.
#[derive(Debug)]
pub struct Lesson {
    pub peft: LayersPeft,
}

impl Lesson {
    /// The base is drawn first, so that the prefix has the seed for itself.
    pub fn new(setting: Setting) -> Result<Self> {
        tch::manual_seed(setting.seed.wrapping_add(1));
        let attentions = (0..LAYERS).fold(LayersConfig::new(HIDDEN, HEADS), |c, _| c.attention());
        let mut peft = attentions.init(setting.device)?;
        tch::manual_seed(setting.seed);
        peft.add("prefix", projected(PREFIX, HIDDEN))?;
        Ok(Self { peft })
    }

    fn param(&self, name: &str) -> Result<Tensor> {
        let name = format!("encoder.{name}");
        self.peft.params("prefix")?.find(&name).with_context(|| format!("no parameter `{name}`"))
    }

    /// `P` as the lesson views it, `[prefix, layers, 2, heads, head_dim]`.
    pub fn table(&self) -> Result<Tensor> {
        let linear = |x: &Tensor, layer: &str| -> Result<Tensor> {
            let bias = self.param(&format!("{layer}.bias"))?;
            Ok(x.f_linear(&self.param(&format!("{layer}.weight"))?, Some(&bias))?)
        };
        let hidden = linear(&self.param("embedding.weight")?, "transform.0")?.f_tanh()?;
        Ok(linear(&hidden, "transform.2")?.f_view([PREFIX, LAYERS, 2, HEADS, HEAD_DIM])?)
    }

    /// The lesson's keys and values, `[layers, batch, prefix, heads, head_dim]`: its comment says heads before prefix.
    pub fn as_written(&self, batch: i64) -> Result<[Tensor; 2]> {
        pair(&self.table()?.f_permute([1, 2, 0, 3, 4])?, batch)
    }

    /// The axes that attention needs, `[layers, batch, heads, prefix, head_dim]`.
    pub fn right(&self, batch: i64) -> Result<[Tensor; 2]> {
        pair(&self.table()?.f_permute([1, 2, 3, 0, 4])?, batch)
    }
}

/// Keys and values for every row of a batch, of `[layers, 2, ..]`.
fn pair(table: &Tensor, batch: i64) -> Result<[Tensor; 2]> {
    let of = |i| -> Result<Tensor> {
        Ok(table.f_select(1, i)?.f_unsqueeze(1)?.f_expand([-1, batch, -1, -1, -1], false)?)
    };
    Ok([of(0)?, of(1)?])
}

fn projected(tokens: i64, width: i64) -> PrefixTuningConfig {
    PrefixTuningConfig {
        num_virtual_tokens: tokens,
        prefix_projection: true,
        encoder_hidden_size: Some(width),
        ..PrefixTuningConfig::default()
    }
}

/// Parameters of the lesson's class: its embedding is as wide as its network.
fn class(layers: i64, width: i64, prefix: i64, hidden: i64) -> i64 {
    let out = layers * 2 * width;
    prefix * hidden + (hidden * hidden + hidden) + (hidden * out + out)
}

fn shape(t: &Tensor) -> String {
    t.size().iter().map(i64::to_string).collect::<Vec<_>>().join(" ")
}

/// 4.1 Prefix Tuning.
pub fn run(setting: Setting, page: &mut Page) -> Result<()> {
    let _guard = tch::no_grad_guard();
    let lesson = Lesson::new(setting)?;
    let attended = Attended::new(&lesson, setting)?;
    let trainable = lesson.peft.report(&["prefix"])?.trainable;
    let (written, right) = (lesson.as_written(BATCH)?, lesson.right(BATCH)?);
    page.line(format!("Prefix parameters: {}", commas(trainable)))?;
    page.line(format!("Prefix keys: {}", shape(&written[0])))?;
    page.line(format!("Prefix values: {}", shape(&written[1])))?;
    page.fact("trainable", trainable);

    let llama = super::llama()?;
    let setup = Setup::default();
    let count = |config| -> Result<i64> { Ok(llama.estimate(config, &setup)?.report.trainable) };
    sizes(&llama, count, page)?;

    let (share, change) = (attended.share()?, attended.change()?);
    for (name, fact) in [("share", share), ("change", change), ("error", attended.error)] {
        page.fact(name, fact);
    }
    page.figure("unified_prefix_attention", attended.figure(share)?)?;
    page.mistakes(&mistakes(&lesson, &attended, &right[0])?)?;
    page.what_to_see(&[
        format!(
            "Every row of attention is a softmax over {PREFIX} prefix keys and {WORDS} words, so the untrained prefix takes \
             {:.1}% of it and changes the layer's output by {:.0}%. A LoRA changes nothing at the start.",
            100.0 * share,
            100.0 * change
        ),
        format!(
            "The library's forward pass and softmax(Q [P_k; K]ᵀ/√d) [P_v; V] by hand differ by {}.",
            small(attended.error)
        ),
        "The network is there for training alone: what it computes is saved, and the network is thrown away.".into(),
        "A prefix is no change of weights: it cannot be merged, and its keys stay in the cache of every request.".into(),
    ])?;
    Ok(())
}

/// What a prefix costs in LLaMA-7B, with the network and without.
fn sizes(
    llama: &Blueprint,
    count: impl Fn(PrefixTuningConfig) -> Result<i64>,
    page: &mut Page,
) -> Result<()> {
    let d = llama.outline().dims.sizes()?;
    let width = d.kv_heads * d.head_dim;
    let direct = |n| PrefixTuningConfig { num_virtual_tokens: n, ..PrefixTuningConfig::default() };
    let stored = count(direct(PREFIX))?;
    let rows = [
        ("the lesson's class, defaults: 10 tokens, network of 512", class(d.layers, width, 10, 512)),
        ("the same with 20 tokens", class(d.layers, width, 20, 512)),
        ("PEFT's projection of 512: its embedding is as wide as the keys", count(projected(PREFIX, 512))?),
        ("PEFT's projection by default: as wide as the keys", count(projected(PREFIX, width))?),
        ("no network: what is stored in any case", stored),
    ];
    let share = |n: i64| 100.0 * n as f64 / llama.parameters() as f64;
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|(what, n)| vec![(*what).to_owned(), commas(*n), format!("{:.2}%", share(*n))])
        .collect();
    page.fact("llama7b.class", class(d.layers, width, 10, 512));
    page.fact("llama7b.class20", class(d.layers, width, 20, 512));
    page.fact("llama7b.stored", stored);
    page.table("Trained in LLaMA-7B", ["prefix of 10 tokens", "parameters", "of the model"], rows)?;
    Ok(())
}

fn mistakes(lesson: &Lesson, attended: &Attended, right: &Tensor) -> Result<Vec<Mistake>> {
    let written = &lesson.as_written(BATCH)?[0];
    let words = Tensor::f_zeros([BATCH, HEADS, WORDS, HEAD_DIM], (Kind::Float, right.device()))?;
    let joined = |prefix: &Tensor| match prefix.f_get(0).and_then(|first| Tensor::f_cat(&[&first, &words], 2))
    {
        Ok(keys) => format!("before the words' a layer has {}", shape(&keys)),
        Err(_) => format!("a layer's cannot stand before the words' {}", shape(&words)),
    };
    let embedding = lesson.param("embedding.weight")?;
    let index = |device| -> Result<String> {
        let index = Tensor::f_arange(PREFIX, (Kind::Int64, device))?;
        let found = Tensor::f_embedding(&embedding, &index, -1, false, false);
        let at = format!("index on {:?}, embedding on {:?}", index.device(), embedding.device());
        Ok(format!("{at}: {}", if found.is_ok() { "works" } else { "fails" }))
    };
    Ok(vec![
        Mistake::new(
            "The comment says (layers, batch, heads, prefix, head_dim), the code permutes to (.., prefix, heads, ..)",
            format!("keys {}; {}", shape(written), joined(written)),
            format!("keys {}; {}", shape(right), joined(right)),
        ),
        Mistake::new(
            "The diagram's softmax has no 1/√d",
            format!(
                "the largest weight over the {} keys is {:.2}",
                PREFIX + WORDS,
                largest(&attended.unscaled)?
            ),
            format!(
                "{:.2}: scores of vectors of {HEAD_DIM} are divided by √{HEAD_DIM}",
                largest(&attended.prefixed)?
            ),
        ),
        Mistake::new(
            "prefix_idx is made on the CPU, wherever the model is (`--device cuda` shows it)",
            index(Device::Cpu)?,
            index(embedding.device())?,
        ),
    ])
}
