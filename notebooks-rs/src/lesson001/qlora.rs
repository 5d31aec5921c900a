//! 2.2 QLoRA: LoRA over a base in 4 bits, `y = x Ŵᵀ + s · B A x`, Ŵ = NF4(W). `setup_qlora` on a small Llama.

use super::quantised;
use super::small_llama::{Sizes, loss, train};
use crate::measure::{max_abs, row, small};
use crate::{Mistake, Page, Setting};
use anyhow::Result;
use peft_core::estimate::{Blueprint, Setup, Storage};
use peft_core::methods::LoraConfig;
use peft_core::quant::Nf4Config;
use peft_core::report::commas;
use peft_core::target::Targets;
use peft_core::{Batch, MergeOptions, Model, Params, Pass, Peft, Quantised};
use peft_plot::{Axis, BarGroup, Bars, Figure, Lines, Panel, Series};
use tch::{Kind, Tensor};

/// Heads of 64, all widths multiples of NF4's blocks of 64.
const SIZES: Sizes = Sizes { vocab: 256, hidden: 256, ffn: 704, heads: 4, kv_heads: 4 };
const STEPS: u64 = 30;
const LR: f64 = 2e-3;
/// Of LLaMA's size of that name.
const SEVEN_BILLION: i64 = 7_000_000_000;

/// The lesson's seven targets: every linear layer of a block.
pub const TARGETS: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// The lesson's `BitsAndBytesConfig`: NF4, double quantisation, products in bf16.
pub fn nf4() -> Nf4Config {
    Nf4Config { double_quant: true, compute: Kind::BFloat16, ..Nf4Config::default() }
}

/// The lesson's `LoraConfig`: rank 64, alpha twice that, a little dropout.
pub fn lora() -> LoraConfig {
    let targets = TARGETS.into();
    LoraConfig { r: 64, lora_alpha: 128.0, lora_dropout: 0.05, targets, ..LoraConfig::default() }
}

/// The number of all parameters as the lesson's `sum(p.numel() ..)` finds it: two 4-bit values are one byte, and a packed
/// weight has as many elements as bytes.
fn by_numel(trainable: i64, all: i64, packed: i64) -> (i64, f64) {
    let counted = all - packed / 2;
    (counted, 100.0 * trainable as f64 / counted as f64)
}

/// The same model with the base's numbers dense: every 4-bit weight formed once and for all.
fn dense(peft: &Peft) -> Result<Peft> {
    let mut tensors = peft.base().tensors();
    for (name, w) in peft.base().nf4s() {
        tensors.insert(name, w.dequantise()?);
    }
    Ok(peft.over(Params::from_tensors("the dense base", peft.base().device(), tensors)?)?)
}

fn logits(peft: &Peft, active: &[&str], text: &Batch) -> Result<Tensor> {
    let _guard = tch::no_grad_guard();
    Ok(peft.view(active)?.forward(text, Pass::eval())?)
}

/// How far the logits of the 4-bit base are from those of others.
fn compare(base: &Peft, text: &Batch, page: &mut Page) -> Result<()> {
    let in_bf16 = base.quantised(&nf4())?;
    let in_f32 = base.quantised(&Nf4Config { compute: Kind::Float, ..nf4() })?;
    let [full, bf16, f32, rounded] =
        [base, &in_bf16, &in_f32, &dense(&in_f32)?].map(|peft| logits(peft, &[], text));
    let (full, f32) = (full?, f32?);
    let off = [max_abs(&f32, &rounded?)?, max_abs(&f32, &bf16?)?, max_abs(&f32, &full)?];
    let size = full.f_abs()?.f_max()?.f_double_value(&[])?;
    let names = ["the same numbers in a dense base", "products in bf16", "the base before it was quantised"];
    let rows = names
        .iter()
        .zip(off)
        .map(|(name, off)| row([name, &small(off), &format!("{:.2}", 100.0 * off / size)]));
    page.table(
        "Logits of the 4-bit base with products in f32, against those of",
        ["model", "largest difference", "% of the largest logit"],
        rows.collect(),
    )?;
    page.fact("logits", vec![off[0], off[1], off[2], size]);
    Ok(())
}

/// 2.2 QLoRA (Quantized LoRA).
pub fn run(setting: Setting, page: &mut Page) -> Result<()> {
    tch::manual_seed(setting.seed);
    let base = SIZES.draw(setting.device)?;
    let text = SIZES.text(8, 16, setting)?;
    let mut peft = base.quantised(&nf4())?;
    tch::manual_seed(setting.seed + 1);
    peft.add("qlora", lora())?;

    let packed: i64 = peft.base().nf4s().values().map(|w| w.numel()).sum();
    let report = peft.report(&["qlora"])?;
    let (counted, percent) = by_numel(report.trainable, report.all, packed);
    let trainable = commas(report.trainable);
    page.line(format!("Trainable: {trainable} / {} ({percent:.2}%)", commas(counted)))?;
    page.fact("counts", vec![report.trainable, report.all, packed, counted]);

    quantised::errors(&base, page)?;
    let sizes = quantised::bytes(&base, &Blueprint::about(SEVEN_BILLION)?, page)?;
    compare(&base, &text, page)?;

    let qlora = train(&peft, "qlora", &text, STEPS, LR)?;
    // The same draws over the dense base.
    let mut beside = base.to_kind(Kind::Float)?;
    tch::manual_seed(setting.seed + 1);
    beside.add("lora", lora())?;
    let dense = train(&beside, "lora", &text, STEPS, LR)?;
    let ends = [loss(&peft, &["qlora"], &text)?, loss(&beside, &["lora"], &text)?];
    let at = |losses: &[f64]| losses.first().copied().unwrap_or(f64::NAN);
    let rows = [("QLoRA, NF4 base", at(&qlora), ends[0]), ("LoRA, dense f32 base", at(&dense), ends[1])];
    page.table(
        &format!("{STEPS} steps on a text that counts"),
        ["model", "loss before", "loss after"],
        rows.map(|(name, first, last)| row([&name, &format!("{first:.4}"), &format!("{last:.4}")])).to_vec(),
    )?;
    page.fact("fit", vec![at(&qlora), ends[0], at(&dense), ends[1]]);

    let options = MergeOptions { quantised: Quantised::Requantise, ..MergeOptions::default() };
    let adapted = logits(&peft, &["qlora"], &text)?;
    let merged = [peft.merged(&["qlora"])?, peft.merged_with(&["qlora"], &options)?.peft];
    let [exact, lossy] = merged.each_ref().map(|m| max_abs(&logits(m, &[], &text)?, &adapted));
    let (exact, lossy) = (exact?, lossy?);
    page.fact("merged", vec![exact, lossy]);

    let at_7b = mistakes(page, &report, packed)?;
    page.figure("unified_qlora", figure(&sizes, &qlora, &dense))?;
    page.what_to_see(&[
        report.to_string(),
        format!(
            "The base is never trained and never dense as a whole: each product forms its weight and forgets it. At 7B that \
             is {:.2} GB for {:.2}; the adapter is {at_7b} parameters in f32 on top.",
            sizes[3] as f64 / 1e9,
            sizes[1] as f64 / 1e9
        ),
        "Rounding to 4 bits is an error of the base alone. LoRA is trained over the rounded base, so that it can make up \
         for it: the losses end close to each other."
            .into(),
        format!(
            "Merged into dense weights the logits move by {}, bf16's rounding; quantised again they move by {}.",
            small(exact),
            small(lossy)
        ),
    ])?;
    Ok(())
}

/// What is mistaken, here and at 7 billion; the number of parameters there.
fn mistakes(page: &mut Page, report: &peft_core::Report, packed: i64) -> Result<String> {
    let llama = Blueprint::about(SEVEN_BILLION)?;
    let setup = Setup { base: Storage::qlora(), ..Setup::default() };
    let large = llama.estimate(lora(), &setup)?.report;
    let two = llama.estimate(LoraConfig { targets: Targets::default(), ..lora() }, &setup)?.report.trainable;
    let dims = &llama.outline().dims;
    let linears = llama.parameters()
        - 2 * dims.sizes()?.vocab * dims.sizes()?.hidden
        - (2 * dims.sizes()?.layers + 1) * dims.sizes()?.hidden;
    let (counted, percent) = by_numel(report.trainable, report.all, packed);
    let (counted_7b, percent_7b) = by_numel(large.trainable, large.all, linears);
    let of_base = 100.0 * large.trainable as f64 / llama.parameters() as f64;
    page.fact("llama7b", vec![large.trainable, large.all, linears, counted_7b, two]);
    page.mistakes(&[
        Mistake::new(
            "`sum(p.numel() ..)` over a base in 4 bits counts bytes, two values each",
            format!(
                "{} parameters, {percent:.2} % of them trainable; at 7B {}, {percent_7b:.2} %",
                commas(counted),
                commas(counted_7b)
            ),
            format!(
                "{}, {:.2} %; at 7B {}, {:.2} %: PEFT's own count puts the halves back, and so does the library's",
                commas(report.all),
                report.percent(),
                commas(large.all),
                large.percent()
            ),
        ),
        Mistake::new(
            "QLoRA at rank 64 trains ~30M parameters, the lesson's table says",
            format!("~30M would be q and v alone: {}", commas(two)),
            format!("its own seven targets have {}, {of_base:.2} % of the base", commas(large.trainable)),
        ),
    ])?;
    Ok(commas(large.trainable))
}

fn figure(sizes: &[i64; 4], qlora: &[f64], dense: &[f64]) -> Figure {
    let bars = Bars {
        title: "Weights of LLaMA-7B".into(),
        categories: quantised::FORMATS.map(str::to_owned).to_vec(),
        x: "format".into(),
        y: Axis { label: "weights (GB)".into(), ..Axis::default() },
        groups: vec![BarGroup {
            name: "base".into(),
            values: sizes.iter().map(|b| *b as f64 / 1e9).collect(),
            labels: Some(sizes.iter().map(|b| format!("{:.2}", *b as f64 / 1e9)).collect()),
            ..BarGroup::default()
        }],
    };
    let series = |name: &str, losses: &[f64]| Series {
        name: name.into(),
        points: losses.iter().enumerate().map(|(i, l)| (i as f64, *l)).collect(),
        ..Series::default()
    };
    let losses = Lines {
        title: "A small Llama learns to count".into(),
        x: Axis { label: "step".into(), ..Axis::default() },
        y: Axis { label: "loss (nats)".into(), ..Axis::default() },
        series: vec![series("QLoRA, NF4 base", qlora), series("LoRA, dense base", dense)],
    };
    Figure {
        title: format!(
            "QLoRA: {:.0}% of bf16's memory, the same learning",
            100.0 * sizes[3] as f64 / sizes[1].max(1) as f64
        ),
        rows: vec![vec![Panel::Bars(bars), Panel::Lines(losses)]],
        note: Some(
            "Embeddings, norms and the head stay dense, in f32 in the first bar and in bf16 in the others."
                .into(),
        ),
    }
}
