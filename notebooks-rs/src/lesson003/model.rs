//! Section 6: the code-review model, as the lesson has it and with attention.

use super::cells::{LAYERS, LORA, RANK, TARGETS, VOCAB, WIDTH, cell6, inputs};
use super::count::{count_parameters, print_parameter_stats};
use super::llama::{SINGLE, mebibytes};
use crate::layers::{Layers, LayersPeft};
use crate::{Mistake, Page, Setting};
use anyhow::Result;
use peft_core::report::commas;
use peft_core::train::{AdamConfig, Schedule, Trainer};
use peft_core::{Batch, Model, Pass};
use tch::{Kind, Tensor};

/// What the lesson trains: LoRA, and the layer norms, which it does not freeze.
pub const LESSON: [&str; 2] = [LORA, "norms"];

/// The lesson's forward, ids `[batch, length]` to logits `[batch, length, vocab]`. Of every layer it computes q, k and v,
/// throws them away, and goes on with `x = layer_norm1(x)`: no token sees another one.
pub fn as_written(model: &Layers, ids: &Tensor) -> Result<Tensor> {
    let pass = Pass::train();
    let mut x = model.forward(&Batch::dense(ids.shallow_clone()), pass)?;
    for i in 0..LAYERS {
        drop(model.attention(i as usize)?.heads(&x, pass)?);
        x = model.norm(&format!("layers.{i}.layer_norm1"))?.forward(&x, pass)?;
    }
    Ok(model.linear("output_proj")?.forward(&x, pass)?)
}

/// The same parts put together: `x = n2(x + attention(n1(x)))`.
pub fn with_attention(model: &Layers, ids: &Tensor) -> Result<Tensor> {
    let pass = Pass::train();
    let mut x = model.forward(&Batch::dense(ids.shallow_clone()), pass)?;
    for i in 0..LAYERS {
        let norm = |n: i64, x: &Tensor| -> Result<Tensor> {
            Ok(model.norm(&format!("layers.{i}.layer_norm{n}"))?.forward(x, pass)?)
        };
        let attended = model.attention(i as usize)?.forward(&norm(1, &x)?, pass)?;
        x = norm(2, &x.f_add(&attended)?)?;
    }
    Ok(model.linear("output_proj")?.forward(&x, pass)?)
}

/// The loss whose gradients are looked at: mean(logits²).
fn loss(logits: &Tensor) -> Result<Tensor> {
    Ok(logits.f_square()?.f_mean(None::<Kind>)?)
}

/// Of the named adapters' tensors: all, those that have a gradient, and those where it is not zero everywhere.
#[derive(Debug, Default)]
pub struct Gradients {
    pub all: Vec<String>,
    pub defined: Vec<String>,
    pub nonzero: Vec<String>,
}

impl Gradients {
    /// What there is after a backward pass.
    pub fn of(peft: &LayersPeft, active: &[&str]) -> Result<Self> {
        let mut found = Self::default();
        for (name, tensor) in peft.trainable(active)? {
            let grad = tensor.f_grad()?;
            if grad.defined() {
                found.defined.push(name.clone());
                if grad.f_any()?.f_int64_value(&[])? != 0 {
                    found.nonzero.push(name.clone());
                }
            }
            found.all.push(name);
        }
        Ok(found)
    }

    fn counts(&self) -> [usize; 3] {
        [self.all.len(), self.defined.len(), self.nonzero.len()]
    }
}

/// The lesson's model after its backward pass: logits, and which tensors got a gradient.
pub fn lesson_gradients(peft: &LayersPeft, ids: &Tensor) -> Result<(Tensor, Gradients)> {
    let logits = as_written(&peft.view(&LESSON)?, ids)?;
    loss(&logits)?.f_backward()?;
    Ok((logits, Gradients::of(peft, &LESSON)?))
}

/// With attention and LoRA alone: the gradients at the start, where B = 0 stops those of A, and one step later.
fn attention_gradients(peft: &LayersPeft, ids: &Tensor) -> Result<[Gradients; 2]> {
    let mut trainer = Trainer::new(peft, &[LORA], AdamConfig::adam(), 1e-3, Schedule::Constant)?;
    trainer.optimizer().zero_grad();
    let model = peft.view(&[LORA])?;
    trainer.step(&loss(&with_attention(&model, ids)?)?)?;
    let start = Gradients::of(peft, &[LORA])?;
    trainer.step(&loss(&with_attention(&model, ids)?)?)?;
    Ok([start, Gradients::of(peft, &[LORA])?])
}

/// The sum that the lesson divides by: words, 4 x 4 projections, the output layer.
const FULL: i64 = VOCAB * WIDTH + LAYERS * 4 * WIDTH * WIDTH + WIDTH * VOCAB;

/// 6. Implementing PEFT for Code Review Task.
pub fn review_model(setting: Setting, page: &mut Page) -> Result<()> {
    let peft = cell6(setting)?;
    let (_, ids) = inputs(setting)?;
    let lesson = count_parameters(&peft, &LESSON)?;
    print_parameter_stats(page, &lesson, "Code Review Model with LoRA")?;
    let savings = 100.0 * (1.0 - lesson.trainable as f64 / FULL as f64);
    page.line("")?;
    page.line(format!("Memory Savings: {savings:.1}%"))?;
    page.line(format!("Storage per task: {:.1} MB (float32)", mebibytes(lesson.trainable * SINGLE)))?;

    let lora = count_parameters(&peft, &[LORA])?;
    let base = count_parameters(&peft, &[])?.all;
    let head = RANK * (WIDTH + VOCAB);
    let norms = lesson.trainable - lora.trainable;
    page.fact("full_model_params", FULL);
    page.fact("base_params", base);
    page.fact("lora_params", lesson.trainable);
    page.fact("breakdown", vec![lora.trainable - head, norms, head]);
    page.fact("savings", savings);
    page.fact("storage", mebibytes(lesson.trainable * SINGLE));
    let row = |name: &str, n: i64| {
        vec![name.into(), commas(n), format!("{:.2}", 100.0 * n as f64 / lesson.trainable as f64)]
    };
    page.table(
        "What the lesson counts as LoRA",
        ["part", "parameters", "% of trained"],
        vec![
            row(&format!("LoRA at q, k, v and o of {LAYERS} layers"), lora.trainable - head),
            row("LoRA at the output layer", head),
            row("layer norms (not LoRA)", norms),
            row("all that is trained", lesson.trainable),
        ],
    )?;

    let (_, written) = lesson_gradients(&peft, &ids)?;
    let [start, later] = attention_gradients(&peft, &ids)?;
    let gradients =
        [("as written", &written), ("with attention, start", &start), ("with attention, 1 step", &later)];
    page.table(
        "Which trained tensors get a gradient",
        ["forward", "tensors", "have one", "not zero everywhere"],
        gradients
            .iter()
            .map(|(name, g)| {
                std::iter::once((*name).to_owned()).chain(g.counts().map(|n| n.to_string())).collect()
            })
            .collect(),
    )?;
    for (name, g) in ["written", "start", "later"].into_iter().zip([&written, &start, &later]) {
        page.fact(&format!("gradients.{name}"), g.counts().map(|n| n as u64).to_vec());
    }
    let one = 100.0 * (1.0 - lora.trainable as f64 / base as f64);
    page.fact("savings.one_inventory", one);
    // Weights and gradients and Adam's two averages of what is trained; the frozen weights alone of what is not.
    let training = |frozen: i64, trained: i64| mebibytes(SINGLE * (frozen + 4 * trained));
    let (full, adapted) = (training(0, base), training(base, lora.trainable));
    page.fact("training.full", full);
    page.fact("training.lora", adapted);
    let idle = written.all.len() - written.defined.len();
    page.mistakes(&[
        Mistake::new(
            "The forward throws q, k and v away and never uses self_attn_o and layer_norm2",
            format!("{idle} of {} trained tensors get no gradient, all LoRA in the layers among them", written.all.len()),
            format!("with attention {} of {} do", start.defined.len(), start.all.len()),
        ),
        Mistake::new(
            "Layer norms are counted as LoRA",
            format!("{} trained, {:.2} %", commas(lesson.trainable), lesson.percent()),
            format!("{} of LoRA; norms frozen as the rest: {lora}", commas(lora.trainable)),
        ),
        Mistake::new(
            "\"Memory savings\" is a ratio of parameters, of two inventories: norms above, none below",
            format!("1 - {} / {} = {savings:.3} %", commas(lesson.trainable), commas(FULL)),
            format!(
                "parameters, one inventory: 1 - {} / {} = {one:.3} %; memory in training, frozen base included: {adapted:.0} \
                 instead of {full:.0} MB (2^20 bytes), {:.1} % less",
                commas(lora.trainable),
                commas(base),
                100.0 * (1.0 - adapted / full)
            ),
        ),
        Mistake::new(
            "\"Still <1% of full parameters\" (section 5)",
            format!("{:.2} % here", lesson.percent()),
            format!(
                "it holds where the model is large: the share of LoRA in one weight d x d is 2 r / d, {:.2} % for d = {WIDTH}, \
                 {:.2} % for 4096",
                200.0 * RANK as f64 / WIDTH as f64,
                200.0 * RANK as f64 / 4096.0
            ),
        ),
    ])?;
    page.what_to_see(&[
        format!(
            "{:.0} % of the LoRA parameters are at the output layer, because it is {} wide.",
            100.0 * head as f64 / lora.trainable as f64,
            commas(VOCAB)
        ),
        format!(
            "A gradient can be there and be zero: at the start B = 0 stops what would reach A, so {} of {} tensors move \
             first; after one step it is {}.",
            start.nonzero.len(),
            start.all.len(),
            later.nonzero.len()
        ),
        format!("LoRA is put on {}.", TARGETS.join(", ")),
    ])?;
    Ok(())
}
