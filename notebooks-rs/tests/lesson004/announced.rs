//! DoRA and adapters in the same test.

use super::*;

/// The lines of a method in the lesson's test.
fn layer_lines(title: &str, trained: i64, reduction: &str, last: &str) -> Vec<String> {
    vec![
        format!("🔧 Creating a test linear layer and its {title} version..."),
        "Original layer parameters: 131,328".into(),
        format!("{title} trainable parameters: {}", commas(trained)),
        format!("{title} total parameters: {}", commas(131_328 + trained)),
        format!("Parameter reduction: {reduction}%"),
        "Input shape: torch.Size([32, 512])".into(),
        "Output shape: torch.Size([32, 256])".into(),
        format!("Initial {last} norm: 0.000000 (should be ~0)"),
    ]
}

#[test]
fn dora_in_the_lessons_test() -> Result<()> {
    let _alone = alone();
    let page = run("depth_dora")?;
    same_lines(page.lines(), &layer_lines("DoRA", 16 * (512 + 256) + 256, "91.3", "ΔW"))?;
    ensure!(number(&page, "identity")? == 0.0 && number(&page, "magnitude_error")? < 1e-6);
    let (error, scale) = (number(&page, "library_error")?, number(&page, "library_scale")?);
    ensure!(error < 1e-5 * scale.max(0.01) && number(&page, "merge_error")? < 1e-5, "{error}");
    let [delta, rank, length, angle] = ["delta", "rank", "length", "angle"].map(|key| numbers(&page, key));
    let (delta, rank, length, angle) = (delta?, rank?, length?, angle?);
    ensure!(rank == [16.0, 256.0, 256.0]);
    // The same direction in both; lengths only where m says so.
    ensure!((angle[0] - angle[1]).abs() < 1e-6 && angle[2] < 1e-5 && angle[0] > 1.0, "{angle:?}");
    ensure!(length[0] > 1e-3 && length[1] < 1e-6 && (length[2] - 0.1).abs() < 1e-6, "{length:?}");
    let names =
        ["LoRA: W + s B A", "DoRA: the same A and B, m as it starts", "DoRA: B = 0, m a tenth longer"];
    let row = |(i, name): (usize, &str)| {
        format!("{name} | {:.4} | {} | {} | {:.2}°", delta[i], rank[i], percent(length[i]), angle[i])
    };
    let rows = names.into_iter().enumerate().map(row).collect();
    same_tables(&page, &[("What becomes of W's rows (B from N(0, 0.02²))", rows)])?;
    said(&page, "256 more parameters than LoRA")?;
    said(&page, &format!("turn the rows by {:.2}° in both", angle[1]))?;
    said(&page, &format!("{} off in LoRA, {} in DoRA", percent(length[0]), percent(length[1])))?;
    said(&page, "10.0% and 0.00°")?;
    said(&page, "ΔW of DoRA has rank 256, not r = 16")?;
    let values: Vec<Vec<f64>> = serde_json::from_value(page.facts()["singular_values"].clone())?;
    let curves: Vec<Vec<f64>> =
        values.iter().zip(&rank).map(|(v, r)| v.iter().take(*r as usize).copied().collect()).collect();
    same_curves(&page, "depth_dora_singular_values", 0, &curves)?;
    tested(&page, 16 * (512 + 256) + 256)?;
    figures(&page, &["depth_dora_singular_values"])
}

#[test]
fn adapter_in_the_lessons_test() -> Result<()> {
    let _alone = alone();
    let page = run("depth_adapter")?;
    let trained = |r: i64| 2 * 256 * r + r + 256;
    same_lines(page.lines(), &layer_lines("Adapter", trained(16), "93.9", "change of the output"))?;
    ensure!(number(&page, "identity")? == 0.0);
    ensure!(number(&page, "lora.rank")? == 16.0 && number(&page, "adapter.rank")? == 16.0);
    // One is a matrix, the other is not.
    ensure!(number(&page, "lora.bend")? < 1e-5 && number(&page, "adapter.bend")? > 0.05);
    let pair = |key: &str| -> Result<[f64; 2]> {
        Ok([number(&page, &format!("lora.{key}"))?, number(&page, &format!("adapter.{key}"))?])
    };
    let two = |[a, b]: [f64; 2], f: &dyn Fn(f64) -> String| format!("{} | {}", f(a), f(b));
    let changes = vec![
        format!("trained (of the layer) | 12,288 (9.4%) | {} (6.4%)", commas(trained(16))),
        format!("change of 32 outputs, ‖y − y₀‖ | {}", two(pair("change")?, &|v| format!("{v:.4}"))),
        format!("directions of that change | {}", two(pair("rank")?, &|v| v.to_string())),
        format!("half-way against half the sum | {}", two(pair("bend")?, &|v| format!("{v:.1e}"))),
    ];
    let counts = [1, 2, 4, 8, 16, 32, 64, 128]
        .map(|r: i64| [r, 768 * r, 768 * r + 256, trained(r)].map(commas).join(" | "));
    same_tables(
        &page,
        &[
            ("As if trained: B and U from N(0, 0.02²)", changes),
            ("Trained parameters at this layer", counts.to_vec()),
        ],
    )?;
    said(&page, "takes 8,464 parameters and not 12,288")?;
    said(&page, &format!("it is {} off half the sum", percent(number(&page, "adapter.bend")?)))?;
    said(&page, "bottleneck adapter at `after` cannot be merged")?;
    let widths = [1, 2, 4, 8, 16, 32, 64, 128];
    let counts =
        [widths.map(|r: i64| 768 * r), widths.map(|r| 768 * r + 256), widths.map(trained), [131_328; 8]];
    let counts = counts.map(|all| all.map(|n| n as f64).to_vec());
    for (name, expected) in ["counts.LoRA", "counts.DoRA", "counts.adapter"].into_iter().zip(&counts) {
        ensure!(numbers(&page, name)? == *expected, "{name}");
    }
    same_curves(&page, "depth_adapter_counts", 0, &counts)?;
    tested(&page, trained(16))?;
    let refusal = page.facts()["refusal"].as_str().context("a refusal")?;
    said(&page, &format!("\"{refusal}\""))?;
    figures(&page, &["depth_adapter_counts"])
}
