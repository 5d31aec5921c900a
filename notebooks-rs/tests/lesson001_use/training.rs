//! 5: from a configuration to a merged model.

use super::*;

#[test]
fn training_from_configuration_to_merged_model() -> Result<()> {
    let _alone = alone();
    let page = run("unified_training")?;
    // Rank 16 at four projections of two layers of width 64; 20 tokens of 2 · 2 layers; 20 tokens.
    let counts = [("lora", 2 * 4 * 16 * (64 + 64)), ("prefix", 20 * 2 * 2 * 64), ("prompt", 20 * 64)];
    let base = number(&page, "base.parameters")? as i64;
    let lines = counts.map(|(name, n)| {
        let percent = 100.0 * n as f64 / (base + n) as f64;
        format!(
            "{name:<6} trainable params: {} || all params: {} || trainable%: {percent:.4}",
            commas(n),
            commas(base + n)
        )
    });
    same_lines(page.lines(), &lines)?;

    let losses = |name: &str| -> Result<Vec<f64>> {
        let list = page.facts()[name].as_array().context("losses")?;
        list.iter().map(|l| l.as_f64().context("a loss")).collect()
    };
    let mean = |l: &[f64]| l.iter().sum::<f64>() / l.len() as f64;
    let mut expected = Vec::new();
    let mut falls = Vec::new();
    for ((name, rate), (_, n)) in flow::METHODS.into_iter().zip(counts) {
        for (what, rate) in [("lessons", flow::LESSONS.lr), ("suited", rate)] {
            let losses = losses(&format!("{name}.{what}.losses"))?;
            ensure!(losses.len() == 120, "{} updates", losses.len());
            let (first, last) = (mean(&losses[..10]), mean(&losses[110..]));
            let right = number(&page, &format!("{name}.{what}.right"))?;
            let cells = [
                name.to_owned(),
                rate.to_string(),
                format!("{first:.2}"),
                format!("{last:.2}"),
                format!("{right} of 480"),
            ];
            expected.push(cells);
            falls.push(first - last);
        }
        ensure!(number(&page, &format!("{name}.reloaded"))? == 0.0, "{name}: other logits from the file");
        let bytes = number(&page, &format!("{name}.bytes"))?;
        ensure!(bytes > 4.0 * n as f64 && bytes < 4.0 * n as f64 + 4000.0, "{name}: {bytes} bytes for {n}");
    }
    same_rows(rows(&page, 0)?, &expected)?;
    let [lora, lora_suited, prefix, prefix_suited, prompt, prompt_suited] = falls[..] else {
        anyhow::bail!("{falls:?}")
    };
    ensure!(lora > 1.0 && lora_suited > 1.0, "{falls:?}");
    ensure!(prefix < 1.0 && prefix_suited > 1.0 && prompt < 1.0 && prompt_suited > 1.0, "{falls:?}");

    let files = rows(&page, 1)?;
    ensure!(files.len() == 3 && files.iter().all(|row| row[1] == "3" && row[3] == "0"), "{files:?}");
    let merged = number(&page, "lora.merged")?;
    ensure!(merged > 0.0 && merged < 1e-4, "merged logits differ by {merged}");
    ensure!(
        files[1][4].contains("cannot be merged") && files[2][4].contains("cannot be merged"),
        "{files:?}"
    );
    let Panel::Lines(lines) = &figure(&page, "unified_training_losses")?.rows[0][1] else {
        anyhow::bail!("no curves")
    };
    ensure!(lines.series.len() == 3);
    let panels = &figure(&page, "unified_training_losses")?.rows[0];
    for (panel, what) in panels.iter().zip(["lessons", "suited"]) {
        let Panel::Lines(panel) = panel else { anyhow::bail!("no curves") };
        for (series, (name, _)) in panel.series.iter().zip(counts) {
            let losses = losses(&format!("{name}.{what}.losses"))?;
            let ten = (1u32..).zip(losses.chunks(10)).map(|(i, ten)| (f64::from(10 * i), mean(ten)));
            ensure!(series.name == name && series.points == ten.collect::<Vec<_>>(), "{series:?}");
        }
    }
    // The second mistake has the last column of the table, once for each rate.
    let ends = |from: usize| {
        let each = counts
            .iter()
            .zip(expected[from..].iter().step_by(2))
            .map(|((n, _), row)| format!("{n} {}", row[3]));
        each.collect::<Vec<_>>().join(", ")
    };
    let rates = &page.mistaken()[1];
    ensure!(rates.as_written.ends_with(&ends(0)) && rates.right.ends_with(&ends(1)), "{rates:?}");
    says(&page, &["no method `adapters`; there are lora, prefix, prompt", "cannot be stacked", "120 updates"])
}

#[test]
fn a_method_without_a_name_is_an_error() -> Result<()> {
    for (name, known) in [("lora", true), ("prefix", true), ("prompt", true), ("ia3", false), ("", false)] {
        ensure!(flow::method(name, "model".as_ref()).is_ok() == known, "`{name}`");
    }
    Ok(())
}
