//! The bubble chart of section 7, as the lesson has it and from one base.

use super::llama::{HALF, LLAMA_7B, mebibytes};
use super::paper::{BUBBLES, Bubble, Quoted, RESULTS};
use super::results::computed;
use peft_plot::{Axis, Figure, Panel, Point, Points};

/// The lesson's axis of reductions.
pub const REDUCTIONS: (f64, f64) = (-5.0, 105.0);

/// The lesson's chart.
pub fn as_written() -> Figure {
    let point = |b: &Bubble| Point {
        label: b.method.into(),
        x: b.reduction,
        y: b.performance,
        area: b.storage,
        error: None,
    };
    Figure {
        title: "PEFT Methods: Performance vs Efficiency Trade-off (the lesson's)".into(),
        rows: vec![vec![Panel::Points(Points {
            title: "(Bubble size = Storage in MB)".into(),
            x: Axis { label: "Parameter Reduction (%)".into(), range: Some(REDUCTIONS), log: false },
            y: Axis { label: "Relative Performance (%)".into(), range: Some((80.0, 105.0)), log: false },
            points: BUBBLES.iter().map(point).collect(),
            area: Some("storage (MB)".into()),
        })]],
        note: Some("Paper Recommendation: LoRA with r=16 for best performance-efficiency balance".into()),
    }
}

/// The same from the paper's BLEU and one base.
pub fn honest() -> Figure {
    let base = LLAMA_7B.params() as f64;
    let point = |(n, quoted): (i64, &Quoted)| Point {
        label: quoted.method.into(),
        x: 100.0 * n as f64 / base,
        y: quoted.relative()[0],
        area: mebibytes(n * HALF),
        error: None,
    };
    Figure {
        title: "Performance and trained share, one base".into(),
        rows: vec![vec![Panel::Points(Points {
            title: "LLaMA-7B; BLEU-4 on review comments as quoted from the paper".into(),
            x: Axis {
                label: "trained parameters (% of the model)".into(),
                log: true,
                range: Some((0.01, 0.3)),
            },
            y: Axis { label: "BLEU-4 (% of LoRA r=16)".into(), log: false, range: Some((88.0, 102.0)) },
            points: computed().into_iter().zip(&RESULTS).map(point).collect(),
            area: Some("storage (MB of 2²⁰ bytes)".into()),
        })]],
        note: Some("There is no BLEU of full fine-tuning of this model, so it has no bubble.".into()),
    }
}
