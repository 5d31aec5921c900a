//! Section 5: the paper's results, and what can be said of them.

use super::classifier::Classifier;
use super::llama::{HALF, LLAMA_7B, gigabytes, mebibytes};
use super::paper::{BEST, RESULTS};
use crate::{Mistake, Page, Setting};
use anyhow::Result;
use peft_core::report::commas;
use peft_plot::{Axis, BarGroup, Bars, Figure, Panel};

/// Tokens and layers of LLaMA-Adapter's prefix in LLaMA-7B.
const PREFIX: (i64, i64) = (10, 30);

/// Parameters of the three methods in LLaMA-7B, in the order of [`RESULTS`].
pub const fn computed() -> [i64; 3] {
    [LLAMA_7B.prefix(PREFIX.0, PREFIX.1), LLAMA_7B.lora(8), LLAMA_7B.lora(16)]
}

/// 5. Comparing LoRA vs Prefix-tuning for Code Review.
pub fn review_results(setting: Setting, page: &mut Page) -> Result<()> {
    page.table(
        "The paper's results, as the lesson quotes them, and in percent of LoRA r = 16",
        ["method", "comments (BLEU-4)", "% of r=16", "refinement (BLEU-4)", "% of r=16"],
        RESULTS
            .iter()
            .map(|q| {
                let [comments, refinement] = q.relative();
                vec![
                    q.method.into(),
                    format!("{:.2}", q.comments),
                    format!("{comments:.1}"),
                    format!("{:.2}", q.refinement),
                    format!("{refinement:.1}"),
                ]
            })
            .collect(),
    )?;
    page.table(
        &format!("Where its sizes come from: LLaMA-7B, LoRA at q and v, {} prefix tokens in {} layers; half precision", PREFIX.0, PREFIX.1),
        ["method", "lesson (M)", "computed", "% of the model", "lesson (MB)", "computed (2^20 bytes)"],
        RESULTS
            .iter()
            .zip(computed())
            .map(|(q, n)| {
                vec![
                    q.method.into(),
                    format!("{:.1}", q.millions),
                    commas(n),
                    format!("{:.4}", 100.0 * n as f64 / LLAMA_7B.params() as f64),
                    format!("{:.1}", q.megabytes),
                    format!("{:.2}", mebibytes(n * HALF)),
                ]
            })
            .collect(),
    )?;
    page.figure("review_results_bars", figure())?;
    panels(page)?;
    let classifier = Classifier::train(setting, page)?;
    page.fact("classifier.right", classifier.right.to_vec());
    page.fact("classifier.losses", classifier.losses.clone());
    let [prefix, _, r16] = computed();
    page.mistakes(&[
        Mistake::new(
            "\"Choose prefix-tuning for simple classification\"; section 7: \"incompatible with classification\"",
            "two claims that exclude each other",
            classifier.learned(),
        ),
        Mistake::new(
            "Refinement is drawn at a tenth of its value, beside comments",
            format!("{:.2} beside {:.2}: two scales on one axis", BEST.refinement / 10.0, BEST.comments),
            format!("an axis each: {:.2} and {:.2} BLEU-4", BEST.refinement, BEST.comments),
        ),
        Mistake::new(
            "LoRA is compared with a much smaller prefix",
            format!("r = 16 has {:.1} times the prefix's parameters", r16 as f64 / prefix as f64),
            format!(
                "at the prefix's size LoRA would have r = {:.1}, which nobody measured",
                prefix as f64 / LLAMA_7B.lora(1) as f64
            ),
        ),
    ])?;
    let [comments, refinement] = RESULTS[0].relative();
    page.what_to_see(&[
        format!(
            "Prefix tuning has {comments:.1} % of LoRA's BLEU on comments, {refinement:.1} % on refinement."
        ),
        format!(
            "Twice the rank, r = 16 for 8, is {:+.2} BLEU on comments, {:+.1} %.",
            BEST.comments - RESULTS[1].comments,
            100.0 * (BEST.comments / RESULTS[1].comments - 1.0)
        ),
        "No figure here has an error bar: the lesson has one number for each method and task.".into(),
    ])?;
    Ok(())
}

/// The two panels of text in the lesson's figure, claim by claim.
fn panels(page: &mut Page) -> Result<()> {
    let [prefix, r8, r16] = computed();
    let base = LLAMA_7B.params();
    let share = |n: i64| format!("share {:.2} % of {}", 100.0 * n as f64 / base as f64, commas(base));
    let memory =
        |n: i64| format!("adapter {:.4} GB, model {:.2} GB", gigabytes(n * HALF), gigabytes(base * HALF));
    let none = || "the lesson has no number".to_owned();
    let rows = |claims: &[(&str, String)]| -> Vec<Vec<String>> {
        claims.iter().map(|(claim, number)| vec![(*claim).to_owned(), number.clone()]).collect()
    };
    page.table(
        "Why LoRA Outperforms Prefix-tuning: the lesson's claims",
        ["claim", "what the numbers say"],
        rows(&[
            (
                "Better approximation: weights are changed, not attention alone",
                format!(
                    "BLEU on comments {:+.1} %, with {:.1} times the parameters",
                    100.0 * (BEST.comments / RESULTS[0].comments - 1.0),
                    r16 as f64 / prefix as f64
                ),
            ),
            ("Task alignment: precise tokens, fine patterns", none()),
            (
                "Flexibility: more rank, more performance",
                format!(
                    "BLEU {:+.2} and {:+.2} for {} more parameters",
                    BEST.comments - RESULTS[1].comments,
                    BEST.refinement - RESULTS[1].refinement,
                    commas(r16 - r8)
                ),
            ),
            ("Training stability: zero-init may be unstable", none()),
        ]),
    )?;
    page.table(
        "Practical Considerations: the lesson's claims",
        ["claim", "what the numbers say"],
        rows(&[
            (
                "LoRA for the best performance",
                format!("highest BLEU, {:.2} and {:.2}", BEST.comments, BEST.refinement),
            ),
            ("LoRA with moderate GPU memory", memory(r16)),
            ("LoRA for many tasks", format!("a task takes {:.1} MB (2^20 bytes)", mebibytes(r16 * HALF))),
            ("Prefix with extremely limited memory", format!("{}: nothing is gained", memory(prefix))),
            (
                "Prefix for minimal storage",
                format!("a task takes {:.2} MB (2^20 bytes)", mebibytes(prefix * HALF)),
            ),
            ("Prefix for simple classification", "against section 7; see below".into()),
            ("Recommended: LoRA r = 16, under 1 % of the parameters", share(r16)),
        ]),
    )?;
    Ok(())
}

/// The lesson's two bar charts, and two that compare like with like.
fn figure() -> Figure {
    let bars = |title: &str, y: &str, groups: Vec<BarGroup>| {
        Panel::Bars(Bars {
            title: title.into(),
            categories: RESULTS.iter().map(|q| q.method.to_owned()).collect(),
            x: "Method".into(),
            y: Axis { label: y.into(), ..Default::default() },
            groups,
        })
    };
    let group = |name: &str, of: &dyn Fn(usize) -> f64, decimals: usize| {
        let values: Vec<f64> = (0..RESULTS.len()).map(of).collect();
        let labels = values.iter().map(|v| format!("{v:.decimals$}")).collect();
        BarGroup { name: name.into(), values, labels: Some(labels), ..Default::default() }
    };
    Figure {
        title: "LoRA and prefix-tuning for code review (numbers quoted from the paper)".into(),
        rows: vec![
            vec![
                bars(
                    "Task Performance Comparison",
                    "BLEU-4 Score",
                    vec![
                        group("Comment Gen", &|i| RESULTS[i].comments, 2),
                        group("Code Refine (/10)", &|i| RESULTS[i].refinement / 10.0, 2),
                    ],
                ),
                bars(
                    "Parameter Efficiency",
                    "Trainable Parameters (Millions)",
                    vec![group("trainable", &|i| RESULTS[i].millions, 1)],
                ),
            ],
            vec![
                bars(
                    "The same, relative to LoRA (r=16)",
                    "BLEU-4 (% of LoRA r=16)",
                    vec![
                        group("comments", &|i| RESULTS[i].relative()[0], 1),
                        group("refinement", &|i| RESULTS[i].relative()[1], 1),
                    ],
                ),
                bars(
                    "Storage of an adapter",
                    "storage (MB)",
                    vec![group("storage", &|i| RESULTS[i].megabytes, 1)],
                ),
            ],
        ],
        note: Some(
            "Upper row: the lesson's charts. Lower row: the same data frame, compared like with like.".into(),
        ),
    }
}
