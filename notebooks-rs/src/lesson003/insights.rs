//! Section 7: the lesson's conclusions beside numbers, and its bubble chart.

use super::bubbles::{REDUCTIONS, as_written, honest};
use super::cells::{Cell2, LORA, WIDTH, inputs, lora};
use super::llama::{HALF, LLAMA_7B, SINGLE, gigabytes, mebibytes};
use super::lora::output;
use super::paper::{BASELINE_MILLIONS, BEST, BUBBLES, RESULTS};
use super::results::computed;
use crate::layers::LayersPeft;
use crate::measure::relative_change;
use crate::{Mistake, Page, Setting};
use anyhow::Result;
use peft_core::quant::{Nf4, Nf4Config};
use peft_core::report::commas;
use peft_core::seam::PREFIX;
use tch::{Device, Kind, Tensor};

/// "Parameter reduction" of an adapter of LLaMA-7B, in percent.
pub fn reduction(trained: i64) -> f64 {
    100.0 * (1.0 - trained as f64 / LLAMA_7B.params() as f64)
}

/// 7. Key Insights and Takeaways.
pub fn review_insights(setting: Setting, page: &mut Page) -> Result<()> {
    let base = LLAMA_7B.params();
    let [prefix, r8, r16] = computed();
    let checks = Checks::new(setting)?;
    page.fact("merged.relative_change", checks.merged);
    page.fact("swapped.relative_change", checks.swapped);
    page.fact("nf4.relative_change", checks.nf4);
    page.fact("nf4.bytes", checks.bytes);
    let relative = |i: usize| RESULTS[i].relative()[0];
    let claims = [
        (
            "LoRA r = 16 has 5.70 BLEU-4 on comments, the best of all models",
            format!(
                "it has {:.2}; yet the bubble chart puts full fine-tuning at {} and it at {}",
                BEST.comments, BUBBLES[0].performance, BUBBLES[1].performance
            ),
        ),
        (
            "LoRA trains 8.4M parameters, against 220M of baseline models",
            format!(
                "trained {}, but the model that runs has {}: {:.0} times the baseline",
                commas(r16),
                commas(base + r16),
                base as f64 / 1e6 / BASELINE_MILLIONS
            ),
        ),
        (
            "LoRA takes 16MB, against 850MB of full models",
            format!(
                "half precision {:.1} MB; the baseline in single precision {:.0} MB; its own base {:.0} MB",
                mebibytes(r16 * HALF),
                mebibytes((BASELINE_MILLIONS * 1e6) as i64 * SINGLE),
                mebibytes(base * HALF)
            ),
        ),
        ("Prefix-tuning is weaker, 5.16 BLEU-4", format!("it has {:.1} % of LoRA r = 16", relative(0))),
        ("Prefix-tuning is incompatible with classification", "it is not: review_results trains one".into()),
        (
            "r = 8 is more efficient and slightly worse",
            format!(
                "it has {:.0} % of the parameters and {:.1} % of the BLEU of r = 16",
                100.0 * r8 as f64 / r16 as f64,
                relative(1)
            ),
        ),
        (
            "Higher ranks approach full fine-tuning",
            format!(
                "r = {} has as many parameters as a weight {WIDTH} x {WIDTH}; quality at such ranks is not in the lesson",
                WIDTH / 2
            ),
        ),
        (
            "LoRA can be merged into the base",
            format!("yes: a merged layer of cell 2 differs by {:.0e}, relative", checks.merged),
        ),
        (
            "Adapters can be swapped",
            format!(
                "yes: two over one base, outputs differ by {:.2} %, the base by {}",
                100.0 * checks.swapped,
                checks.restored
            ),
        ),
        (
            "LoRA goes with a quantised base",
            format!(
                "yes, NF4: {:.1} % of the weight's bytes, output changed by {:.1} %",
                100.0 * checks.bytes / (SINGLE * WIDTH * WIDTH) as f64,
                100.0 * checks.nf4
            ),
        ),
        (
            "Learning rate 3e-4 (full fine-tuning 5e-5), weight decay 0.01",
            "settings; the lesson trains nothing".into(),
        ),
    ];
    page.table(
        "The lesson's conclusions",
        ["claim", "what the numbers say"],
        claims.into_iter().map(|(claim, number)| vec![claim.to_owned(), number]).collect(),
    )?;
    page.table(
        "The bubble chart: typed, and computed with one base (LLaMA-7B) and the paper's BLEU on comments",
        ["method", "reduction (%)", "computed", "performance (%)", "computed", "storage (MB)", "computed"],
        [r16, r8, prefix]
            .into_iter()
            .zip(&BUBBLES[1..])
            .zip(RESULTS.iter().rev())
            .map(|((n, bubble), quoted)| {
                vec![
                    quoted.method.to_owned(),
                    format!("{:.2}", bubble.reduction),
                    format!("{:.4}", reduction(n)),
                    format!("{:.0}", bubble.performance),
                    format!("{:.1}", quoted.relative()[0]),
                    format!("{:.1}", bubble.storage),
                    format!("{:.2}", mebibytes(n * HALF)),
                ]
            })
            .collect(),
    )?;
    page.figure("review_insights_bubbles", as_written())?;
    page.figure("review_insights_tradeoff", honest())?;
    let spread = BUBBLES[3].reduction - BUBBLES[1].reduction;
    page.mistakes(&[
        Mistake::new(
            "Relative performance is not from the paper's numbers",
            format!(
                "LoRA r = 8 at {} and prefix at {} of full fine-tuning's {}",
                BUBBLES[2].performance, BUBBLES[3].performance, BUBBLES[0].performance
            ),
            format!(
                "of r = 16: LoRA r = 8 {:.1} %, prefix {:.1} %; there is no BLEU of full fine-tuning",
                relative(1),
                relative(0)
            ),
        ),
        Mistake::new(
            "Efficiency and storage have different bases",
            format!(
                "reduction of a 7B model, storage {} MB of a {BASELINE_MILLIONS:.0}M model",
                BUBBLES[0].storage
            ),
            format!("a full copy of LLaMA-7B is {:.2} GB, as section 1 says", gigabytes(base * HALF)),
        ),
        Mistake::new(
            "The reduction for r = 8 is rounded the wrong way",
            format!("{}", BUBBLES[2].reduction),
            format!("{:.2}", reduction(r8)),
        ),
        Mistake::new(
            "Three of four bubbles are one",
            format!("{spread:.2} apart on an axis of {:.0}", REDUCTIONS.1 - REDUCTIONS.0),
            "trained share on a logarithmic axis (second figure)",
        ),
    ])?;
    page.what_to_see(&[
        format!(
            "What is trained differs by {:.1} times between prefix and LoRA r = 16; as a \"reduction\" that is {:.2} points.",
            r16 as f64 / prefix as f64,
            reduction(prefix) - reduction(r16)
        ),
        format!(
            "From the prefix to LoRA r = 8 it is {:+.2} BLEU with {:.1} times the parameters, from there to r = 16 {:+.2} \
             with {:.1} times.",
            RESULTS[1].comments - RESULTS[0].comments,
            r8 as f64 / prefix as f64,
            BEST.comments - RESULTS[1].comments,
            r16 as f64 / r8 as f64
        ),
    ])?;
    Ok(())
}

/// What the lesson says of LoRA in practice, tried on the layers of cell 2.
#[derive(Debug)]
struct Checks {
    /// Relative change of the output by merging.
    merged: f64,
    /// Relative difference between two adapters over one base, and of the base before and after.
    swapped: f64,
    restored: f64,
    /// Relative change of the output with the base in 4 bits, and that base's bytes.
    nf4: f64,
    bytes: f64,
}

impl Checks {
    fn new(setting: Setting) -> Result<Self> {
        let mut peft = Cell2::draw(setting)?.r16;
        let (x, _) = inputs(setting)?;
        peft.add("other", lora(16, &["linear"]))?;
        for name in [LORA, "other"] {
            trained(&peft, name)?;
        }
        let _guard = tch::no_grad_guard();
        let of = |peft: &LayersPeft, active: &[&str]| -> Result<Tensor> {
            Ok(peft.view(active)?.linear("linear")?.forward(&x, peft_core::Pass::eval())?)
        };
        let plain = of(&peft, &[])?;
        let (one, other) = (output(&peft, &x)?, of(&peft, &["other"])?);
        let packed = peft.quantised(&Nf4Config::default())?;
        let bytes: usize = packed.base().nf4s().values().map(Nf4::bytes).sum();
        Ok(Self {
            merged: relative_change(&of(&peft.merged(&[LORA])?, &[])?, &one)?,
            swapped: relative_change(&other, &one)?,
            restored: relative_change(&of(&peft, &[])?, &plain)?,
            nf4: relative_change(&of(&packed, &[])?, &plain)?,
            bytes: bytes as f64,
        })
    }
}

/// Stands for training: B from N(0, 0.02²).
fn trained(peft: &LayersPeft, name: &str) -> Result<()> {
    let b = Tensor::f_randn([WIDTH, 16], (Kind::Float, Device::Cpu))?.f_mul_scalar(0.02)?;
    let b = b.f_to(peft.base().device())?;
    Ok(peft.params(name)?.assign(&format!("{PREFIX}linear.lora_B.weight"), &b)?)
}
