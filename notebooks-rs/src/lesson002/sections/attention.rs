//! `apply_lora_to_attention`.

use crate::layers::LayersConfig;
use crate::lesson002::attention::{NAMES, SelfAttention, apply_lora};
use crate::lesson002::check::show;
use crate::lesson002::library::{Twin, alike, base, lora, lora_name, single};
use crate::lesson002::module::Module;
use crate::lesson002::tensors::{Source, largest, shape};
use crate::lesson002::train::shake;
use crate::{Mistake, Page, Setting};
use anyhow::Result;
use peft_core::Pass;
use peft_core::report::commas;
use tch::Tensor;

const WIDTH: i64 = 16;
const HEADS: i64 = 4;
const RANK: i64 = 2;
const ALPHA: f64 = 4.0;

fn attention(source: Source, weights: &[Tensor; 4], targets: &[&str]) -> Result<SelfAttention> {
    let handles = weights.each_ref().map(Tensor::shallow_clone);
    Ok(SelfAttention::new(apply_lora(source, handles, RANK, ALPHA, targets)?, HEADS))
}

pub fn section(setting: Setting, page: &mut Page) -> Result<()> {
    tch::manual_seed(setting.seed);
    let source = Source(setting.device);
    let std = 1.0 / (WIDTH as f64).sqrt();
    let draw = || source.normal(&[WIDTH, WIDTH], std);
    let weights = [draw()?, draw()?, draw()?, draw()?];
    let (x, grad) = (source.normal(&[2, 6, WIDTH], 1.0)?, source.normal(&[2, 6, WIDTH], 1.0)?);
    let targets = ["q", "v"];
    let mut adapted = attention(source, &weights, &targets)?;
    let plain = attention(source, &weights, &[])?.forward(&x)?;
    let change = largest(&adapted.forward(&x)?.f_sub(&plain)?)?;
    shake(&adapted, source, 0.1)?;
    let y = adapted.forward(&x)?;

    for name in NAMES {
        let own: i64 = adapted
            .parameters()
            .iter()
            .filter(|(p, _)| p.starts_with(&format!("{name}.")))
            .map(|(_, p)| p.count())
            .sum();
        let what = if own > 0 { format!("LoRA, {own} parameters") } else { "frozen".into() };
        page.line(format!("{name}: {} {what}", shape(&weights[0])))?;
    }
    page.line(format!(
        "Trainable: {} of {}",
        commas(adapted.count()),
        commas(4 * WIDTH * WIDTH + adapted.count())
    ))?;
    page.line(format!("Input shape: {}", shape(&x)))?;
    page.line(format!("Output shape: {}", shape(&y)))?;
    show(page, "SelfAttention", &mut adapted, &x, &grad)?;
    library_has_the_same(page, &weights, &mut adapted, [&x, &grad])?;
    let tell = |targets: &[&str]| match attention(source, &weights, targets) {
        Ok(attention) => format!("{} parameters", attention.count()),
        Err(error) => format!("an error: {error}"),
    };
    let known = tell(&targets);
    page.mistakes(&[
        Mistake::new(
            "A target that matches nothing goes unnoticed: `target_modules=['q_proj', 'v_proj']`",
            format!("everything stays frozen, {} parameters", as_written(&["q_proj", "v_proj"])),
            tell(&["q_proj", "v_proj"]),
        ),
        Mistake::new(
            "Frozen projections are bare arrays, the others objects: nobody can call `forward` on all four",
            format!("{} of {} have a forward pass", targets.len(), NAMES.len()),
            format!("all {} are modules; {known}", NAMES.len()),
        ),
        Mistake::new(
            "The default `target_modules=['q', 'v']` is one list for all calls (a mutable default)",
            "what one caller appends to it, the next one gets",
            "targets are an argument that is borrowed and cannot be changed",
        ),
    ])?;
    page.fact("start.change", change);
    page.what_to_see(&[
        format!("At the start LoRA changes the attention's output by {change}: B = 0."),
        "k has no LoRA, and yet the gradient goes through it: dx is the sum over q, k and v.".into(),
        "The gradient of q.A crosses the output projection, the values, the softmax and the keys.".into(),
    ])?;
    Ok(())
}

/// What the lesson's function trains: LoRA where a name is in the list, and no word about the others.
fn as_written(targets: &[&str]) -> i64 {
    2 * RANK * WIDTH * NAMES.iter().filter(|name| targets.contains(name)).count() as i64
}

/// The same attention of the library.
fn library_has_the_same(
    page: &mut Page,
    weights: &[Tensor; 4],
    ours: &mut SelfAttention,
    [x, grad]: [&Tensor; 2],
) -> Result<()> {
    let names = NAMES.iter().map(|name| format!("layers.0.self_attn.{name}_proj.weight"));
    let weights = names.zip(weights).map(|(name, w)| single(name, w)).collect::<Result<Vec<_>>>()?;
    let twin = Twin {
        title: "LoraConfig",
        base: base(LayersConfig::new(WIDTH, HEADS).attention(), weights)?,
        methods: vec![("", lora(RANK, ALPHA, &["q_proj", "v_proj"]))],
        more: Vec::new(),
        name: &|name| lora_name("layers.0.self_attn.*_proj", name),
        stored: &alike,
        forward: &|view, x| Ok(view.attention(0)?.forward(x, Pass::eval())?),
    };
    twin.agree(page, ours, x, grad)?;
    Ok(())
}
