//! 6: parameters, ranking, selection.

use super::*;

/// The lesson's table, every count as recorded and as PEFT counts it.
#[test]
fn parameters_of_llama_7b() -> Result<()> {
    let _alone = alone();
    let golden = &golden("seed001")?["tables"];
    let (recomputed, peft) = (&golden["llama7b_recomputed"], &golden["peft_0.21.2_counts_llama7b"]);
    let page = run("unified_parameters")?;
    let all = recomputed["dims"]["params"].as_i64().context("parameters")?;
    let adapters = 2 * 32 * (2 * 64 * 4096 + 64 + 4096);
    let counts = [
        ("LoRA (r=8)", count(recomputed, "LoRA r=8 q,v")?, Some("LoRA r=8 q,v")),
        ("LoRA (r=64)", count(recomputed, "LoRA r=64 q,v")?, Some("LoRA r=64 q,v")),
        (
            "QLoRA (r=64)",
            count(recomputed, "LoRA r=64 all seven (setup_qlora targets)")?,
            Some("setup_qlora r=64, seven targets"),
        ),
        (
            "Prefix Tuning",
            count(recomputed, "Prefix len 20, direct (setup_peft_training)")?,
            Some("prefix 20"),
        ),
        ("Prompt Tuning", count(recomputed, "Prompt 20 tokens")?, Some("prompt 20")),
        ("IA³", count(recomputed, "IA3 with l_ff of size d_ff")?, Some("IA3")),
        ("Adapters (64)", adapters, None),
    ];
    let mb = |bytes: f64| match bytes {
        b if b < 1e7 => format!("{:.1}MB", b / 1e6),
        b if b < 1e9 => format!("{:.0}MB", b / 1e6),
        b => format!("{:.2}GB", b / 1e9),
    };
    // What section 1.1 has for the weights in 4 bits.
    let linear = 32.0 * (4.0 * 4096.0 * 4096.0 + 3.0 * 4096.0 * 11008.0);
    let packed = linear * (0.5 + 1.0 / 64.0 + 4.0 / (64.0 * 256.0)) + 2.0 * (all as f64 - linear);
    let memory = |name: &str, n: i64| mb(16.0 * n as f64 + if name.starts_with('Q') { packed } else { 0.0 });
    let mut lines = vec![
        format!("{:<14} {:>14} {:>9} {:>9}", "Method", "Trainable", "of 6.738B", "Memory"),
        format!("{:<14} {:>14} {:>9} {:>9}", "Full FT", commas(all), "100%", mb(12.0 * all as f64)),
    ];
    let mut table = Vec::new();
    let claims = golden["document_table"].as_array().context("the lesson's table")?;
    for (i, (name, n, recorded)) in counts.into_iter().enumerate() {
        if let Some(recorded) = recorded {
            ensure!(peft[recorded] == n, "{name}: PEFT counts {}", peft[recorded]);
        }
        ensure!(number(&page, name)? == n as f64, "{name}");
        let percent = format!("{:.4}%", 100.0 * n as f64 / all as f64);
        lines.push(format!("{name:<14} {:>14} {percent:>9} {:>9}", commas(n), memory(name, n)));
        // The lesson's first row is full fine-tuning; it has none for adapters.
        let claim = claims.get(i + 1);
        ensure!(claim.is_none_or(|c| c[0] == name), "{claim:?}");
        let of = |column: usize| claim.and_then(|c| c[column].as_str()).unwrap_or("missing").to_owned();
        table.push(vec![name.to_owned(), of(1), commas(n), of(2), memory(name, n)]);
    }
    same_lines(page.lines(), &lines)?;
    let found: Vec<Vec<String>> = rows(&page, 0)?.iter().map(|row| row[..5].to_vec()).collect();
    same_rows(&found, &table)?;
    ensure!(rows(&page, 0)?.iter().all(|row| row.len() == 6 && !row[5].is_empty()), "a formula");
    let Panel::Bars(bars) = &figure(&page, "unified_parameters_counts")?.rows[0][0] else {
        anyhow::bail!("no bars")
    };
    let mut sorted: Vec<f64> = counts.iter().map(|(_, n, _)| *n as f64).collect();
    sorted.sort_by(f64::total_cmp);
    ensure!(bars.y.log && bars.groups[0].values == sorted, "{:?}", bars.groups);
    let own = commas(count(recomputed, "IA3 class of 3.2 (3*dim per layer)")?);
    says(&page, &[&own, "2,621,440 for 10", "factor of 1,952", "2.37%"])
}

#[test]
fn ranking_is_measured() -> Result<()> {
    let _alone = alone();
    let page = run("unified_ranking")?;
    ensure!(golden("seed001")?["tables"]["ranking_line"] == ranking::CLAIM);
    same_lines(page.lines(), &[ranking::CLAIM])?;
    let names = ["Full FT", "LoRA", "QLoRA", "Adapters", "Prefix", "Prompt"];
    let mut all = Vec::new();
    for (row, name) in rows(&page, 0)?.iter().zip(names) {
        let right = number(&page, &format!("{name}.right"))?;
        let p = right / 480.0;
        let (percent, error) = (100.0 * p, 100.0 * (p * (1.0 - p) / 480.0).sqrt());
        let trainable = commas(number(&page, &format!("{name}.trainable"))? as i64);
        ensure!(
            row[0] == name
                && row[1] == trainable
                && row[2].parse::<f64>()? > 0.0
                && row[3..] == [format!("{right} of 480"), format!("{percent:.1} ± {error:.1}%")],
            "{row:?}"
        );
        all.push((name, percent, error));
    }
    ensure!(all.len() == 6);
    // Far apart on this task, whatever the processor.
    ensure!(all[0].1 > all[3].1 && all[1].1 > all[4].1 && all[3].1 > 100.0 / 8.0, "{all:?}");
    let order = ranking::order(all.clone());
    ensure!(page.facts()["order"] == order);
    let Panel::Points(panel) = &figure(&page, "unified_ranking_accuracy")?.rows[0][0] else {
        anyhow::bail!("no points")
    };
    ensure!(panel.points.len() == 6);
    for (point, (name, percent, error)) in panel.points.iter().zip(&all) {
        let off = point.error.map_or(f64::NAN, |e| (e - error).abs());
        ensure!(point.label == *name && (point.y - percent).abs() < 1e-9 && off < 1e-9, "{point:?}");
    }
    says(&page, &[&order, "12.5%", "120 updates of 16 rows"])
}

#[test]
fn neighbours_within_two_errors_are_alike() -> Result<()> {
    let order = ranking::order(vec![("a", 50.0, 1.0), ("b", 60.0, 1.0), ("c", 48.0, 1.0)]);
    ensure!(order == "b > a ≈ c", "{order}");
    Ok(())
}

#[test]
fn selection_on_the_recorded_calls() -> Result<()> {
    let _alone = alone();
    let golden = golden("seed001")?;
    let calls = golden["sections"]["001.6.3.recommend"].as_object().context("calls")?;
    let page = run("unified_selection")?;
    let lines =
        calls.iter().map(|(call, answer)| Ok(format!("{call}: {}", answer.as_str().context("a string")?)));
    same_lines(page.lines(), &lines.collect::<Result<Vec<_>>>()?)?;
    let table = rows(&page, 0)?;
    ensure!(table.len() == calls.len() && table.len() == selection::CASES.len());
    for (row, (case, answer)) in table.iter().zip(selection::CASES.into_iter().zip(calls.values())) {
        let (billions, gpu, task, examples) = case;
        let r = selection::advice(case)?;
        let gb = |bytes: i64| bytes as f64 / 1e9;
        let (holds, free) = (gb(r.estimate.memory.total()), gb(r.free));
        ensure!(row[0] == format!("{billions}B on {gpu} GB, {task}, {examples}") && *answer == row[1]);
        ensure!(r.fits == (holds <= 0.8 * gpu) && r.fits, "{row:?}");
        ensure!(
            (holds + free - gpu).abs() < 1e-6 && row[4..] == [format!("{holds:.1}"), format!("{free:.1}")]
        );
        // In 16 bits where two bytes a parameter and the adapter leave a fifth.
        let dense = 2.0 * billions <= 0.8 * gpu;
        ensure!(row[3] == if dense { "16 bits" } else { "4 bits" }, "{row:?}");
        let rank = if task == "generation" && examples >= 1000 { "r = 16" } else { "r = 8" };
        ensure!(row[2].contains(rank), "{row:?}");
    }
    ensure!(figure(&page, "unified_selection_memory")?.rows.len() == 1);
    says(
        &page,
        &[
            "14 of 14 GB and leave 0",
            "31.48 GB too much",
            "3.9 GB in 4 bits and 13.5 in 16",
            "16.8 MB a task",
            "5 of 12 cases",
        ],
    )
}
