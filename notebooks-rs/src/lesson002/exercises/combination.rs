//! Exercise 5: LoRA and prompt tuning together.

use super::{FeedForward, task};
use crate::Page;
use crate::layers::{LayersConfig, LayersPeft};
use crate::lesson002::attention::{NAMES, SelfAttention, apply_lora};
use crate::lesson002::check::show;
use crate::lesson002::library::{Twin, alike, base, lora, lora_name, single};
use crate::lesson002::module::{Frozen, Module, Parameter, within};
use crate::lesson002::prompt::PromptTuning;
use crate::lesson002::tensors::Source;
use crate::lesson002::train::{ends, fit, shake};
use anyhow::Result;
use peft_core::Pass;
use peft_core::methods::PromptTuningConfig;
use peft_core::report::commas;
use peft_plot::{Axis, Figure, Lines, Panel, Series};
use tch::Tensor;

const WIDTH: i64 = 8;
const INNER: i64 = 32;
const HEADS: i64 = 2;
const RANK: i64 = 2;
const ALPHA: f64 = 4.0;
const PROMPT: i64 = 4;
const STEPS: i32 = 300;
const RATE: f64 = 0.02;

/// A transformer layer without norms behind a soft prompt:
///
/// ```text
/// H₀ = [P; X]                 [batch, n + length, d]
/// H₁ = H₀ + attention(H₀)
/// H₂ = H₁ + feed_forward(H₁)
/// Y  = H₂[:, n:]              [batch, length, d]      the words' places
/// ```
///
/// Backward: `dH₂ = [0; G]`, then each residual connection passes its gradient on twice, `dH₁ = dH₂ + ff.backward(dH₂)` and
/// `dH₀ = dH₁ + attention.backward(dH₁)`; the prompt cuts that in two. Both methods get their gradients on the way: none
/// knows of the other.
#[derive(Debug)]
pub struct Combined {
    prompt: Option<PromptTuning>,
    attention: SelfAttention,
    feed_forward: FeedForward,
}

impl Module for Combined {
    fn forward(&mut self, x: &Tensor) -> Result<Tensor> {
        let length = x.size3()?.1;
        let h = match &mut self.prompt {
            Some(prompt) => prompt.forward(x)?,
            None => x.shallow_clone(),
        };
        let h = h.f_add(&self.attention.forward(&h)?)?;
        let h = h.f_add(&self.feed_forward.forward(&h)?)?;
        Ok(h.f_narrow(1, h.size3()?.1 - length, length)?)
    }

    fn backward(&mut self, grad: &Tensor) -> Result<Tensor> {
        let n = self.prompt.as_ref().map_or(Ok(0), PromptTuning::length)?;
        let dh = grad.f_constant_pad_nd([0, 0, n, 0])?;
        let dh = dh.f_add(&self.feed_forward.backward(&dh)?)?;
        let dh = dh.f_add(&self.attention.backward(&dh)?)?;
        match &mut self.prompt {
            Some(prompt) => prompt.backward(&dh),
            None => Ok(dh),
        }
    }

    fn parameters(&self) -> Vec<(String, &Parameter)> {
        let prompt = self.prompt.iter().flat_map(|p| p.parameters());
        prompt.chain(within("lora", self.attention.parameters())).collect()
    }
}

/// The frozen weights of the layer: q, k, v, o, and the two of the feed-forward part.
struct Weights([Tensor; 4], [Tensor; 2]);

impl Weights {
    fn new(source: Source) -> Result<Self> {
        let draw = |out: i64, inp: i64| source.normal(&[out, inp], 1.0 / (inp as f64).sqrt());
        let square = || draw(WIDTH, WIDTH);
        Ok(Self([square()?, square()?, square()?, square()?], [draw(INNER, WIDTH)?, draw(WIDTH, INNER)?]))
    }

    /// The layer with a prompt, with LoRA on q and v, with both or with neither, as they start.
    fn with(&self, source: Source, prompt: bool, targets: &[&str]) -> Result<Combined> {
        let attention = self.0.each_ref().map(Tensor::shallow_clone);
        let [up, down] = self.1.each_ref().map(|w| Frozen { weight: w.shallow_clone(), bias: None });
        Ok(Combined {
            prompt: prompt.then(|| PromptTuning::new(source, WIDTH, PROMPT)).transpose()?,
            attention: SelfAttention::new(apply_lora(source, attention, RANK, ALPHA, targets)?, HEADS),
            feed_forward: FeedForward::new(up, down),
        })
    }

    /// The same parts in the library.
    fn library(&self) -> Result<LayersPeft> {
        let config = LayersConfig::new(WIDTH, HEADS).words(1).attention();
        let config = config.linear("up", WIDTH, INNER, false).linear("down", INNER, WIDTH, false);
        let mut tensors = vec![single("embed.weight", &self.0[0].f_narrow(0, 0, 1)?)?];
        for (name, w) in NAMES.iter().zip(&self.0) {
            tensors.push(single(format!("layers.0.self_attn.{name}_proj.weight"), w)?);
        }
        for (name, w) in ["up.weight", "down.weight"].into_iter().zip(&self.1) {
            tensors.push(single(name, w)?);
        }
        base(config, tensors)
    }
}

pub(super) fn solve(page: &mut Page, source: Source) -> Result<String> {
    task(page, 5, "LoRA and prompt tuning together, on a transformer layer")?;
    let weights = Weights::new(source)?;
    let (x, grad) = (source.normal(&[2, 3, WIDTH], 1.0)?, source.normal(&[2, 3, WIDTH], 1.0)?);
    // The task is to do as the same layer does with another prompt and another LoRA.
    let mut teacher = weights.with(source, true, &["q", "v"])?;
    shake(&teacher, source, 0.5)?;
    let words = source.normal(&[16, 6, WIDTH], 1.0)?;
    let target = teacher.forward(&words)?;
    let mut series = Vec::new();
    for (name, prompt, targets) in [
        ("prompt alone", true, [].as_slice()),
        ("LoRA alone", false, &["q", "v"]),
        ("LoRA and prompt", true, &["q", "v"]),
    ] {
        let mut student = weights.with(source, prompt, targets)?;
        let losses = fit(&mut student, &words, &target, STEPS, RATE)?;
        let [first, last] = ends(&losses)?;
        page.line(format!(
            "{name}: {} parameters, loss {first:.4} to {last:.6} in {STEPS} steps",
            commas(student.count())
        ))?;
        page.fact(&format!("combination.{name}"), losses.clone());
        let points = losses.iter().enumerate().map(|(step, loss)| (step as f64, *loss)).collect();
        series.push(Series { name: name.into(), points, ..Series::default() });
    }
    let ends: Vec<f64> = series.iter().filter_map(|s| s.points.last()).map(|p| p.1).collect();
    let better = ends[0].min(ends[1]) / ends[2];
    page.fact("combination.better", better);
    show(page, "Combined", &mut teacher, &x, &grad)?;
    library_has_the_same(page, weights.library()?, &mut teacher, [&x, &grad])?;
    let panel = Panel::Lines(Lines {
        title: String::new(),
        x: Axis { label: "step".into(), ..Axis::default() },
        y: Axis { label: "mean squared error".into(), log: true, range: None },
        series,
    });
    page.figure(
        "scratch_exercises_combination",
        Figure {
            title: "Learning another prompt and another LoRA".into(),
            rows: vec![vec![panel]],
            note: Some("One transformer layer, gradients by hand, Adam.".into()),
        },
    )?;
    Ok(format!(
        "5: nothing is needed to combine the two but the chain rule. After {STEPS} steps each alone has a \
         loss at least {better:.0} times that of both."
    ))
}

/// Both adapters of the library over the same layer.
fn library_has_the_same(
    page: &mut Page,
    base: LayersPeft,
    ours: &mut Combined,
    [x, grad]: [&Tensor; 2],
) -> Result<()> {
    let config = PromptTuningConfig { num_virtual_tokens: PROMPT, ..PromptTuningConfig::default() };
    let length = x.size3()?.1;
    let twin = Twin {
        title: "PromptTuningConfig and LoraConfig",
        base,
        methods: vec![("prompt", config.into()), ("lora", lora(RANK, ALPHA, &["q_proj", "v_proj"]))],
        more: Vec::new(),
        name: &|name| match name {
            "prompt" => "prompt_embeddings".into(),
            lora => lora_name("layers.0.self_attn.*_proj", lora),
        },
        stored: &alike,
        forward: &|view, x| {
            let pass = Pass::eval();
            let h = view.prompted(x.shallow_clone(), pass)?;
            let h = h.f_add(&view.attention(0)?.forward(&h, pass)?)?;
            let inner = view.linear("up")?.forward(&h, pass)?.f_relu()?;
            let h = h.f_add(&view.linear("down")?.forward(&inner, pass)?)?;
            Ok(h.f_narrow(1, PROMPT, length)?)
        },
    };
    twin.agree(page, ours, x, grad)?;
    Ok(())
}
