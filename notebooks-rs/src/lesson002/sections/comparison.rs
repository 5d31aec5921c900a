//! `compare_peft_methods`.

use crate::lesson002::compare::{Row, Sizes, compare, lines};
use crate::{Mistake, Page, Setting};
use anyhow::{Context, Result};
use peft_core::estimate::{Blueprint, Setup};
use peft_core::methods::{BottleneckConfig, LoraConfig, PrefixTuningConfig, PromptTuningConfig};
use peft_core::report::commas;
use peft_core::seam::MethodConfig;
use peft_plot::{Axis, BarGroup, Bars, Figure, Panel};

/// The library's configurations for the rows of the table, but the first: it trains everything.
fn methods(s: &Sizes) -> [Box<dyn MethodConfig>; 4] {
    [
        LoraConfig { r: s.lora_rank, targets: ["q_proj", "v_proj"].into(), ..LoraConfig::default() }.into(),
        BottleneckConfig { bottleneck_size: s.adapter_bottleneck, ..BottleneckConfig::default() }.into(),
        PrefixTuningConfig { num_virtual_tokens: s.prefix_length, ..PrefixTuningConfig::default() }.into(),
        PromptTuningConfig { num_virtual_tokens: s.prompt_length, ..PromptTuningConfig::default() }.into(),
    ]
}

pub fn section(_: Setting, page: &mut Page) -> Result<()> {
    let sizes = Sizes::default();
    let rows = compare(&sizes);
    for line in lines(&rows) {
        page.line(line)?;
    }
    let llama = Blueprint::about(7_000_000_000)?;
    let all = llama.parameters();
    let mut counted = vec![all];
    for method in methods(&sizes) {
        counted.push(llama.estimate(method, &Setup::default())?.report.trainable);
    }
    page.fact("llama.parameters", all);
    page.fact("llama.trainable", counted.clone());
    let of = |count: i64, whole: i64| 100.0 * count as f64 / whole as f64;
    let table = rows.iter().zip(&counted).map(|(row, library)| {
        vec![
            row.name.to_owned(),
            commas(row.params),
            format!("{:.4}%", 100.0 * row.ratio),
            format!("{:.4}%", of(row.params, all)),
            commas(*library),
            format!("{:.4}%", of(*library, all)),
        ]
    });
    page.table(
        &format!("Of LLaMA-7B, {} parameters", commas(all)),
        [
            "method",
            "by the formulas",
            "of the attention",
            "of the model",
            "counted in the model",
            "of the model",
        ],
        table.collect(),
    )?;
    figure(page, &rows, all)?;

    let wide = Sizes { d_model: 2 * sizes.d_model, ..sizes };
    let [full, lora, adapters, ..] = &rows;
    let renamed = rows.iter().filter(|r| r.name != r.key);
    let (names, keys): (Vec<_>, Vec<_>) = renamed.map(|r| (r.name, r.key)).unzip();
    let biases = counted.get(2).context("adapters")? - adapters.params;
    page.mistakes(&[
        Mistake::new(
            "\"7B model scale\": the ratios are of the attention matrices alone",
            format!("LoRA {:.4}% of {}", 100.0 * lora.ratio, commas(full.params)),
            format!("LoRA {:.4}% of {}", of(lora.params, all), commas(all)),
        ),
        Mistake::new(
            "\"full_fine_tuning\" is not full: embeddings, feed-forward parts, norms and the head are left \
             out",
            format!("{} parameters", commas(full.params)),
            format!("{}, {:.2} times as many", commas(all), all as f64 / full.params as f64),
        ),
        Mistake::new(
            "The printed names are not the keys of the dictionary that the function returns",
            format!("printed: {}; keys: {}", names.join(", "), keys.join(", ")),
            "one `Row` has both".to_owned(),
        ),
    ])?;
    page.what_to_see(&[
        format!(
            "Adapters as they are used have biases, which the formula leaves out: {} more, {:.2} % of \
             theirs.",
            commas(biases),
            of(biases, adapters.params)
        ),
        format!(
            "What is trained grows like the width, the model like its square: at width {}, LoRA's {:.4}% \
             of the attention become {:.4}%.",
            commas(wide.d_model),
            100.0 * lora.ratio,
            100.0 * compare(&wide)[1].ratio
        ),
        format!(
            "A LoRA of rank r has {} r parameters here: it would have as many as the adapters at r = {}.",
            commas(lora.params / sizes.lora_rank),
            adapters.params / (lora.params / sizes.lora_rank)
        ),
    ])?;
    Ok(())
}

/// Shares by both denominators.
fn figure(page: &mut Page, rows: &[Row], all: i64) -> Result<()> {
    let group = |name: &str, whole: i64| {
        let values: Vec<f64> = rows.iter().map(|r| 100.0 * r.params as f64 / whole as f64).collect();
        let labels = values.iter().map(|v| format!("{v:.*}", if *v < 10.0 { 4 } else { 1 })).collect();
        BarGroup { name: name.into(), values, errors: None, labels: Some(labels) }
    };
    let attention = rows.first().context("no row")?.params;
    let bars = Bars {
        title: String::new(),
        categories: rows.iter().map(|r| r.name.to_owned()).collect(),
        x: "method".into(),
        y: Axis { label: "trained share (percent)".into(), log: true, range: None },
        groups: vec![
            group(&format!("of the attention, {}", commas(attention)), attention),
            group(&format!("of the model, {}", commas(all)), all),
        ],
    };
    page.figure(
        "scratch_comparison_shares",
        Figure {
            title: "Trained parameters at the scale of 7B".into(),
            rows: vec![vec![Panel::Bars(bars)]],
            note: Some(
                "\"Full\" fine-tuning is of the attention matrices alone in the lesson's count.".into(),
            ),
        },
    )?;
    Ok(())
}
