//! "Running the Demo", and the lesson's summary.

use super::prefix;
use crate::lesson002::adapter::{Adapter, Bottleneck};
use crate::lesson002::compare::{Sizes, compare, lines};
use crate::lesson002::lora::{LoraLayer, LoraLinear};
use crate::lesson002::module::{Frozen, Module};
use crate::lesson002::prefix::PrefixTuning;
use crate::lesson002::prompt::PromptTuning;
use crate::lesson002::tensors::{Source, shape};
use crate::{Mistake, Page, Setting};
use anyhow::Result;
use peft_core::report::commas;
use tch::Tensor;

const WIDTH: i64 = 256;

pub fn section(setting: Setting, page: &mut Page) -> Result<()> {
    tch::manual_seed(setting.seed);
    let source = Source(setting.device);
    let x = source.normal(&[2, 16, WIDTH], 1.0)?;

    page.line("=".repeat(60))?;
    page.line("Stage 9: Fine-tuning & Parameter-Efficient Methods")?;
    page.line("=".repeat(60))?;
    heading(page, "1. LoRA (Low-Rank Adaptation)")?;
    let base = Frozen { weight: source.normal(&[WIDTH, WIDTH], 1.0)?, bias: None };
    let full = base.weight.numel() as i64;
    let mut lora = LoraLinear { base, lora: LoraLayer::new(source, [WIDTH, WIDTH], 8, 16.0)? };
    let y = lora.forward(&x)?;
    let _ = lora.backward(&y.f_ones_like()?)?;
    let LoraLayer { a, b, .. } = &lora.lora;
    page.line(format!("Original weight shape: {}", shape(&lora.base.weight)))?;
    page.line(format!("LoRA A shape: {}", shape(&a.value)))?;
    page.line(format!("LoRA B shape: {}", shape(&b.value)))?;
    page.line(format!("LoRA parameters: {}", commas(lora.count())))?;
    page.line(format!("Full parameters: {}", commas(full)))?;
    let remaining = 100.0 * lora.count() as f64 / full as f64;
    page.line(format!("Compression: {remaining:.2}%"))?;
    page.line(format!("Input shape: {}", shape(&x)))?;
    page.line(format!("Output shape: {}", shape(&y)))?;
    page.line(format!("Gradients computed: A={}, B={}", shape(&a.grad), shape(&b.grad)))?;

    heading(page, "2. Adapter Layers")?;
    let adapter = Adapter(Bottleneck::new(source, WIDTH, 64)?);
    page.line(format!("Adapter parameters: {}", commas(adapter.count())))?;
    page.line(format!("Bottleneck dimension: {}", adapter.0.size()?))?;

    heading(page, "3. Prompt Tuning")?;
    let mut prompt = PromptTuning::new(source, WIDTH, 20)?;
    page.line(format!("Original sequence length: {}", x.size3()?.1))?;
    page.line(format!("With soft prompt: {}", prompt.forward(&x)?.size3()?.1))?;
    page.line(format!("Prompt parameters: {}", commas(prompt.count())))?;

    heading(page, "4. PEFT Method Comparison (7B model scale)")?;
    for line in lines(&compare(&Sizes::default())) {
        page.line(line)?;
    }

    let pattern = summary(page, source, [Box::new(lora), Box::new(adapter), Box::new(prompt)], &x)?;
    page.mistakes(&[
        pattern,
        Mistake::new(
            "\"Compression\" is what remains",
            format!("Compression: {remaining:.2}%"),
            format!(
                "{remaining:.2}% remain: compressed {:.0} times, by {:.2}%",
                100.0 / remaining,
                100.0 - remaining
            ),
        ),
    ])?;
    page.fact("remaining", remaining);
    page.what_to_see(&[
        "No line of the output depends on the seed: it is all shapes and counts. The numbers of forward \
         and backward are in the programs of the four methods."
            .into(),
    ])?;
    Ok(())
}

fn heading(page: &mut Page, text: &str) -> Result<()> {
    page.line(text)?;
    Ok(page.line("-".repeat(40))?)
}

/// What the lesson's class can do, as its listing has it, and what ours does when it is called.
fn summary(page: &mut Page, source: Source, modules: [Box<dyn Module>; 3], x: &Tensor) -> Result<Mistake> {
    let [lora, adapter, prompt] = modules;
    let layer = LoraLayer::new(source, [WIDTH, WIDTH], 8, 16.0)?;
    let weights = prefix::weights(source)?;
    let [heads, d] = [prefix::HEADS, prefix::WIDTH / prefix::HEADS];
    let behind = PrefixTuning::new(source, prefix::layers(&weights), prefix::PREFIX_LENGTH, [heads, d])?;
    let narrow = source.normal(&[2, 5, prefix::WIDTH], 1.0)?;
    let mut rows = Vec::new();
    let all: [(&str, &str, Box<dyn Module>, &Tensor); 5] = [
        ("LoRALayer", "forward, backward, merge, count", Box::new(layer), x),
        ("LoRALinear", "forward, merge", lora, x),
        ("Adapter", "forward, backward, count", adapter, x),
        ("PrefixTuning", "get_prefix, count", Box::new(behind), &narrow),
        ("PromptTuning", "forward, backward, count", prompt, x),
    ];
    for (name, lesson, mut module, x) in all {
        let y = module.forward(x)?;
        let dx = module.backward(&y.f_ones_like()?)?;
        let trained: Vec<String> =
            module.parameters().iter().map(|(name, p)| format!("{name} {}", shape(&p.grad))).collect();
        rows.push(vec![
            name.to_owned(),
            lesson.to_owned(),
            format!("{} to {}", shape(x), shape(&y)),
            format!("{}; {}", shape(&dx), trained.join(", ")),
            commas(module.count()),
        ]);
    }
    let pattern = ["forward", "backward", "count"];
    let follows = |row: &&Vec<String>| {
        let has = row.get(1).map(String::as_str).unwrap_or_default();
        pattern.iter().all(|p| has.split(", ").any(|h| h == *p))
    };
    let mistake = Mistake::new(
        format!("\"All implementations follow the same pattern\": {}", pattern.join(", ")),
        format!("{} of {} classes have all three", rows.iter().filter(follows).count(), rows.len()),
        format!("all {} are a `Module`; their gradients and counts above come from calling them", rows.len()),
    );
    page.table(
        "What each class has",
        ["class", "in the lesson", "forward", "backward: gradients of x and of", "count"],
        rows,
    )?;
    Ok(mistake)
}
