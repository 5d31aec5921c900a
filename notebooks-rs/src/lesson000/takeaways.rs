//! Section 2.7.

use super::sections::{count, start};
use super::setup::TECHNIQUES;
use crate::{Mistake, Page, Setting};
use anyhow::Result;
use peft_core::Error;
use peft_core::estimate::{Blueprint, Setup};
use peft_core::methods::{BottleneckConfig, LoraConfig, PrefixTuningConfig, PromptTuningConfig};
use peft_core::report::commas;
use peft_core::seam::MethodConfig;

/// What the lesson says of a technique, and how it is used on a model of 7 billion parameters.
struct Claim {
    key: &'static str,
    /// The table at the top of the lesson.
    idea: &'static str,
    /// The table at its end.
    share: &'static str,
    /// The upper bound of that, in percent.
    bound: f64,
    large: fn() -> Box<dyn MethodConfig>,
}

/// Settings at 7 billion: width of the bottlenecks, rank of the LoRA, virtual tokens.
const WIDTH: i64 = 64;
const RANK: i64 = 8;
const TOKENS: i64 = 20;

const CLAIMS: [Claim; 4] = [
    Claim {
        key: "adapter",
        idea: "Bottleneck modules inserted after each layer",
        share: "~5–10%",
        bound: 10.0,
        large: || {
            BottleneckConfig { bottleneck_size: WIDTH, reduction_factor: None, ..BottleneckConfig::houlsby() }
                .into()
        },
    },
    Claim {
        key: "lora",
        idea: "Low-rank matrix pairs injected into weights",
        share: "<1%",
        bound: 1.0,
        large: || LoraConfig { r: RANK, ..Default::default() }.into(),
    },
    Claim {
        key: "prompt",
        idea: "Learnable vectors prepended to input",
        share: "<0.1%",
        bound: 0.1,
        large: || PromptTuningConfig { num_virtual_tokens: TOKENS, ..Default::default() }.into(),
    },
    Claim {
        key: "prefix",
        idea: "Trainable vectors at every transformer layer",
        share: "<0.5%",
        bound: 0.5,
        large: || PrefixTuningConfig { num_virtual_tokens: TOKENS, ..Default::default() }.into(),
    },
];

/// 2.7 Key Takeaways.
pub fn takeaways(setting: Setting, page: &mut Page) -> Result<()> {
    let lesson = start(setting, page)?;
    let base = lesson.peft.report(&[])?.all;
    let large = Blueprint::about(7_000_000_000)?;
    let (mut rows, mut mistakes) = (Vec::new(), Vec::new());
    for claim in &CLAIMS {
        let title = TECHNIQUES.iter().find(|t| t.key == claim.key).map_or(claim.key, |t| t.title);
        let trained = lesson.peft.report(&[claim.key])?.trainable;
        let here = 100.0 * trained as f64 / base as f64;
        let there = large.estimate((claim.large)(), &Setup::default())?.report;
        let there_percent = 100.0 * there.trainable as f64 / large.parameters() as f64;
        let merges = match lesson.peft.merged(&[claim.key]) {
            Ok(_) => true,
            Err(Error::NotMergeable { .. }) => false,
            Err(e) => return Err(e.into()),
        };
        page.fact(&format!("{}.percent", claim.key), here);
        page.fact(&format!("{}.percent_7b", claim.key), there_percent);
        page.fact(&format!("{}.trainable_7b", claim.key), there.trainable);
        page.fact(&format!("{}.merges", claim.key), merges);
        rows.push(vec![
            title.into(),
            claim.idea.into(),
            claim.share.into(),
            format!("{here:.2}%"),
            format!("{there_percent:.4}%"),
            if merges { "yes" } else { "no" }.into(),
        ]);
        if here > claim.bound || (claim.key == "adapter" && here < 5.0) {
            mistakes.push(Mistake::new(
                format!("{title}: {}", claim.share),
                format!("{here:.2}% in this very lesson ({} of {})", commas(trained), commas(base)),
                format!(
                    "a share is of a base: {there_percent:.4}% of a LLaMA of {} parameters",
                    commas(large.parameters())
                ),
            ));
        }
    }
    let columns = ["method", "core idea", "the lesson says", "of this base", "of LLaMA-7B", "merges into W"];
    page.table("Trained parameters, as the lesson has them and as they are", columns, rows)?;
    page.mistakes(&mistakes)?;
    let wide = count(&lesson, LoraConfig { r: 1, ..lora_here() })?;
    page.fact("lora.rank_1", wide);
    page.what_to_see(&[
        format!(
            "The base is tiny, so every share is large: a LoRA of rank 1 at the same place has {} parameters, {:.2}%.",
            commas(wide),
            100.0 * wide as f64 / base as f64
        ),
        format!(
            "At 7B: two bottlenecks of {WIDTH} a layer; LoRA of rank {RANK} at query and value; {TOKENS} virtual tokens. \
             Only LoRA is a change of weights, so it alone costs nothing after merging."
        ),
        "All four leave the base as it is: one base in memory serves many tasks (`peft-bench --bin mixed`).".into(),
    ])?;
    Ok(())
}

/// LoRA where the lesson has it.
fn lora_here() -> LoraConfig {
    LoraConfig::default().targets(["ff.0"])
}
