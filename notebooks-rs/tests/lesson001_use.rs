//! Lesson 001, sections 1.1 and 4.1 to 6.3: against the recorded run of PyTorch 2.11 and the counts of PEFT 0.21.2
//! (`golden/seed001.json`), and against formulas. Bits are compared on the kind of processor that they come from.

mod common;

use anyhow::{Context, Result, ensure};
use common::pages::same_page;
use common::{alone, golden, number, recorded_kind, run, same_lines, sha};
use notebooks_rs::lesson001::{flow, prefix, prompt, ranking, selection};
use notebooks_rs::{Page, Setting};
use peft_core::commas;
use peft_plot::{Figure, Panel};
use serde_json::Value;
use tch::{Device, Tensor};

/// Rows of a page's table.
fn rows(page: &Page, table: usize) -> Result<&[Vec<String>]> {
    Ok(&page.tables().get(table).context("a table")?.rows)
}

fn same_rows<C: AsRef<str>, R: AsRef<[C]>>(found: &[Vec<String>], expected: &[R]) -> Result<()> {
    for (found, expected) in found.iter().zip(expected) {
        let expected: Vec<&str> = expected.as_ref().iter().map(AsRef::as_ref).collect();
        ensure!(*found == expected, "{found:?}\n{expected:?}");
    }
    ensure!(found.len() == expected.len(), "{} rows, {} expected", found.len(), expected.len());
    Ok(())
}

/// Whether the golden's `name` is the count of a table.
fn count(table: &Value, name: &str) -> Result<i64> {
    table[name].as_i64().with_context(|| format!("no count `{name}`"))
}

fn setting() -> Setting {
    Setting { seed: 19, device: Device::Cpu }
}

/// Whether tensors have the recorded bits.
fn same_bits(golden: &Value, tensors: &[(&str, &Tensor)]) -> Result<()> {
    for (name, t) in tensors {
        if recorded_kind() {
            ensure!(golden[name] == sha(t)?, "{name} has other bits");
        } else {
            ensure!(golden[name].is_string(), "{name}: {:?} is compared elsewhere", t.size());
        }
    }
    Ok(())
}

fn sizes(t: &Tensor) -> String {
    t.size().iter().map(i64::to_string).collect::<Vec<_>>().join(" ")
}

/// The panels of a page's only figure, whose name begins with the program's.
fn figure<'a>(page: &'a Page, name: &str) -> Result<&'a Figure> {
    let [picture] = page.pictures() else { anyhow::bail!("{} figures", page.pictures().len()) };
    ensure!(picture.name == name, "{}", picture.name);
    Ok(&picture.figure)
}

/// Our own words have these.
fn says(page: &Page, parts: &[&str]) -> Result<()> {
    let mistakes = page.mistaken().iter().map(|m| format!("{}: {}: {}", m.about, m.as_written, m.right));
    let text = mistakes.chain(page.to_see().iter().cloned()).collect::<Vec<_>>().join("\n");
    for part in parts {
        ensure!(text.contains(part), "no `{part}` in\n{text}");
    }
    Ok(())
}

#[test]
fn memory_of_the_two_boxes() -> Result<()> {
    let _alone = alone();
    let golden = &golden("seed001")?["tables"];
    let memory = &golden["memory_7B"];
    let page = run("unified_memory")?;
    let gb = |name: &str| count(memory, name).map(|n| format!("{n}GB"));
    let lora = count(&golden["llama7b_recomputed"], "LoRA r=8 q,v")?;
    let lines = [
        "Full fine-tuning of 7B parameters".into(),
        "- Parameters: 7B".into(),
        format!("- FP16 memory: {}", gb("fp16_weights_GB")?),
        format!("- Optimizer states: {}", gb("adam_two_fp32_moments_GB")?),
        format!("- Gradients: {}", gb("fp16_gradients_GB")?),
        format!("- Total: {}", gb("total_GB")?),
        "LoRA (rank=8) over it".into(),
        format!("- Trainable parameters: {} (0.06%)", commas(lora)),
        format!("- Additional memory: {:.0}MB", 16.0 * lora as f64 / 1e6),
        format!("- Storage: 13.48GB original + {:.1}MB adapter", 4.0 * lora as f64 / 1e6),
    ];
    same_lines(page.lines(), &lines)?;

    let all = 6_738_415_616.0;
    // NF4: half a byte a weight, one a block of 64, four bytes for 256 blocks; embeddings, norms and head in 16 bits.
    let linear = 32.0 * (4.0 * 4096.0 * 4096.0 + 3.0 * 4096.0 * 11008.0);
    let packed = linear * (0.5 + 1.0 / 64.0 + 4.0 / (64.0 * 256.0)) + 2.0 * (all - linear);
    let row = |name: &str, weights: f64, adapter: f64| {
        let parts = [weights, 4.0 * adapter, 4.0 * adapter, 8.0 * adapter, weights + 16.0 * adapter];
        std::iter::once(name.to_owned()).chain(parts.map(|b| format!("{:.2}", b / 1e9))).collect::<Vec<_>>()
    };
    let full = |name: &str, n: f64| {
        let parts = [2.0 * n, 0.0, 2.0 * n, 8.0 * n, 12.0 * n];
        std::iter::once(name.to_owned()).chain(parts.map(|b| format!("{:.2}", b / 1e9))).collect::<Vec<_>>()
    };
    let r64 = count(&golden["llama7b_recomputed"], "LoRA r=64 all seven (setup_qlora targets)")? as f64;
    let expected = [
        full("full, 7B", 7e9),
        full("full, LLaMA-7B", all),
        row("LoRA r=8 at q, v", 2.0 * all, lora as f64),
        row("QLoRA r=8 at q, v", packed, lora as f64),
        row("QLoRA r=64 at all linear layers", packed, r64),
    ];
    same_rows(rows(&page, 0)?, &expected)?;

    // The small model: a vocabulary of the text's, width 64, 2 layers, feed-forward 128, tied.
    let [expected, held, peak] =
        ["small.expected", "small.held", "small.peak"].map(|name| number(&page, name));
    let (expected, held, peak) = (expected?, held?, peak?);
    ensure!(held >= expected && held < 1.005 * expected, "{held} bytes for {expected}");
    ensure!(peak > 2.0 * held, "{peak} at the peak, {held} otherwise");
    let adapter = 2.0 * 2.0 * 8.0 * (64.0 + 64.0);
    let base = expected - 16.0 * adapter;
    let layers = 2.0 * (4.0 * 64.0 * 64.0 + 3.0 * 64.0 * 128.0 + 2.0 * 64.0) + 64.0;
    let words = (base / 4.0 - layers) / 64.0;
    ensure!(words.fract() == 0.0 && words > 100.0, "{words} words");
    let parts = [base, 4.0 * adapter, 4.0 * adapter, 8.0 * adapter, expected, held, peak];
    let cells: Vec<String> =
        std::iter::once("LoRA r=8, f32".into()).chain(parts.map(|b| commas(b as i64))).collect();
    same_rows(rows(&page, 1)?, &[cells])?;
    let Panel::Bars(bars) = &figure(&page, "unified_memory_parts")?.rows[0][0] else {
        anyhow::bail!("no bars")
    };
    ensure!(bars.groups.len() == 4 && bars.categories.len() == 5 && bars.groups[3].values[0] == 56.0);
    says(&page, &["0.0622%", "0.1245%", "112 GB", "13.48 GB stay"])
}

#[test]
fn prefix_has_the_recorded_bits() -> Result<()> {
    let _alone = alone();
    let golden = &golden("seed001")?["sections"]["001.4.1.prefix"];
    let lesson = prefix::Lesson::new(setting())?;
    let own = lesson.peft.params("prefix")?.tensors();
    let at = |name: &str| own.get(&format!("encoder.{name}")).context(name.to_owned());
    let [keys, values] = lesson.as_written(3)?;
    same_bits(
        golden,
        &[
            ("init.prefix_embedding.weight", at("embedding.weight")?),
            ("init.prefix_mlp.0.weight", at("transform.0.weight")?),
            ("init.prefix_mlp.0.bias", at("transform.0.bias")?),
            ("init.prefix_mlp.2.weight", at("transform.2.weight")?),
            ("init.prefix_mlp.2.bias", at("transform.2.bias")?),
            ("keys", &keys),
            ("values", &values),
        ],
    )?;
    ensure!(golden["keys_shape"] == sizes(&keys) && golden["keys_shape"] == sizes(&values));
    ensure!(golden["trainable"] == lesson.peft.report(&["prefix"])?.trainable);
    let [right, _] = lesson.right(3)?;
    ensure!(sizes(&right) == "2 3 4 10 16" && right.transpose(2, 3).equal(&keys));
    Ok(())
}

#[test]
fn prefix_says_what_it_computes() -> Result<()> {
    let _alone = alone();
    let golden = golden("seed001")?;
    let recorded = &golden["sections"]["001.4.1.prefix"];
    let page = run("unified_prefix")?;
    let shape = recorded["keys_shape"].as_str().context("a shape")?;
    let count = |name: &str| count(recorded, name);
    same_lines(
        page.lines(),
        &[
            format!("Prefix parameters: {}", commas(count("trainable")?)),
            format!("Prefix keys: {shape}"),
            format!("Prefix values: {shape}"),
        ],
    )?;
    let all = 6_738_415_616i64;
    let direct =
        golden["tables"]["llama7b_recomputed"]["Prefix len 10, direct"].as_i64().context("direct")?;
    let (d, out) = (4096, 32 * 2 * 4096);
    let projected = |h: i64| 10 * d + (d * h + h) + (h * out + out);
    let counts = [
        count("params_llama7b_default")?,
        count("params_llama7b_len20")?,
        projected(512),
        projected(d),
        direct,
    ];
    for (row, n) in rows(&page, 0)?.iter().zip(counts) {
        let percent = format!("{:.2}%", 100.0 * n as f64 / all as f64);
        ensure!(row[1..] == [commas(n), percent], "{row:?}, expected {n}");
    }
    ensure!(rows(&page, 0)?.len() == counts.len());

    ensure!(number(&page, "error")? < 1e-6);
    let share = number(&page, "share")?;
    ensure!((0.3..0.5).contains(&share), "{share}");
    let figure = figure(&page, "unified_prefix_attention")?;
    for (panel, from) in figure.rows[0].iter().zip([10, 0]) {
        let Panel::Heat(heat) = panel else { anyhow::bail!("no heat map") };
        ensure!(heat.rows.len() == 16 && heat.divider.as_ref().is_some_and(|d| d.0 == 10));
        for weights in &heat.rows {
            let sum: f64 = weights.iter().sum();
            ensure!(weights.len() == 26 && (sum - 1.0).abs() < 1e-6, "a softmax sums to {sum}");
            ensure!(weights[..from].iter().all(|w| *w == 0.0) && weights[from..].iter().all(|w| *w > 0.0));
        }
    }
    let percent = format!("{:.1}% of it", 100.0 * share);
    let change = format!("by {:.0}%", 100.0 * number(&page, "change")?);
    says(&page, &[&percent, &change, "2 3 10 4 16", "2 3 4 10 16", "cannot stand", "3 4 26 16"])
}

#[test]
fn prompt_has_the_recorded_bits() -> Result<()> {
    let _alone = alone();
    let golden = &golden("seed001")?["sections"]["001.4.2.prompt"];
    let lesson = prompt::Lesson::new(setting())?;
    let normal = &lesson.peft.params("normal")?.tensors()["prompt_embeddings"];
    same_bits(
        golden,
        &[("init.prompt_embeddings", normal), ("y", &lesson.y), ("from_vocab", &lesson.from_vocab)],
    )?;
    ensure!(golden["y_shape"] == sizes(&lesson.y));
    let page = run("unified_prompt")?;
    same_lines(
        page.lines(),
        &[
            format!("Prompt parameters: {}", commas(count(golden, "trainable")?)),
            "Input shape: [3, 7, 64]".to_owned(),
            "Output shape: [3, 27, 64]".to_owned(),
        ],
    )
}

/// How prompts start: drawn ones are no words, the others are.
#[test]
fn prompts_start_as_words_or_not() -> Result<()> {
    let _alone = alone();
    let page = run("unified_prompt")?;
    let table = rows(&page, 0)?;
    ensure!(table.len() == 5);
    // √64 times the deviation of what is drawn.
    for (row, (name, words, norm)) in table.iter().zip([
        ("normal", 0, 0.16),
        ("vocab", 20, 8.0),
        ("random", 0, 8.0),
        ("sampled", 20, 8.0),
        ("text", 20, 8.0),
    ]) {
        ensure!(number(&page, &format!("{name}.words"))? == f64::from(words), "{row:?}");
        let found = number(&page, &format!("{name}.norm"))?;
        ensure!((found / norm - 1.0).abs() < 0.1, "{row:?}: {found}");
        ensure!(row[1..] == [format!("{words} of 20"), format!("{found:.2}")], "{row:?}");
    }
    let tokens = common::strings(&page.facts()["text.tokens"])?;
    ensure!(tokens.len() == 7 && tokens[1] == "the" && tokens[6] == ":", "{tokens:?}");
    says(&page, &[&tokens.join(" "), "embed.weight", "7 words become 27"])
}

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

#[test]
fn every_word_and_number_beside_the_lines_of_use() -> Result<()> {
    let _alone = alone();
    for name in [
        "unified_memory",
        "unified_prefix",
        "unified_prompt",
        "unified_training",
        "unified_parameters",
        "unified_ranking",
        "unified_selection",
    ] {
        let page = run(name)?;
        same_page(name, &page)?;
    }
    Ok(())
}
