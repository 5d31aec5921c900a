//! Lesson 001, sections 1.2 to 3.2, against the recorded run of PyTorch 2.11 (`golden/seed001.json`). Bits are compared
//! on the kind of processor that they come from.

mod common;

use anyhow::{Context, Result, ensure};
use common::pages::same_page;
use common::{alone, close, golden, number, recorded_kind, run, same_lines, sha};
use notebooks_rs::lesson001::{adapter, apply, dora, ia3, lora};
use notebooks_rs::{Page, Setting};
use peft_core::methods::LoraConfig;
use peft_core::{PREFIX, Pass, commas};
use peft_plot::Panel;
use serde_json::Value;
use tch::{Device, Tensor};

fn setting() -> Setting {
    Setting { seed: 19, device: Device::Cpu }
}

/// Whether tensors have the recorded bits; `names` are those of the golden.
fn same_bits(golden: &Value, tensors: &[(&str, &Tensor)]) -> Result<()> {
    if !recorded_kind() {
        eprintln!("not the recorded kind of processor: bits are not compared");
        return Ok(());
    }
    for (name, t) in tensors {
        ensure!(golden[name] == sha(t)?, "{name} has other bits");
    }
    Ok(())
}

fn value(golden: &Value, name: &str) -> Result<f64> {
    golden[name]["value"].as_f64().with_context(|| format!("no value `{name}`"))
}

/// Whether the page's tables are these, cell for cell; the cells of a row are parted by ` | `.
fn same_tables(page: &Page, expected: &[(&str, Vec<String>)]) -> Result<()> {
    for (table, (title, rows)) in page.tables().iter().zip(expected) {
        ensure!(table.title == *title, "the table is `{}`, expected `{title}`", table.title);
        let found: Vec<String> = table.rows.iter().map(|r| r.join(" | ")).collect();
        same_lines(&found, rows).context(table.title.clone())?;
    }
    ensure!(page.tables().len() == expected.len(), "{} tables", page.tables().len());
    Ok(())
}

fn rows(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|&l| l.to_owned()).collect()
}

/// The numbers of the list `name` among the facts.
fn numbers(page: &Page, name: &str) -> Result<Vec<f64>> {
    let list =
        page.facts().get(name).and_then(Value::as_array).with_context(|| format!("no list `{name}`"))?;
    list.iter().map(|v| v.as_f64().context("no number")).collect()
}

/// As small numbers are printed.
fn small(value: f64) -> String {
    if value == 0.0 { "0".into() } else { format!("{value:.1e}") }
}

/// Whether some mistake's two sides have these texts in them.
fn mistaken(page: &Page, as_written: &str, right: &str) -> Result<()> {
    let found = page.mistaken().iter().any(|m| m.as_written.contains(as_written) && m.right.contains(right));
    ensure!(found, "no mistake with `{as_written}` and `{right}` in {:#?}", page.mistaken());
    Ok(())
}

/// Whether the page's one figure has this name, titles, labels and finite numbers in every panel.
fn drawn(page: &Page, name: &str) -> Result<()> {
    let [picture] = page.pictures() else { anyhow::bail!("{} figures", page.pictures().len()) };
    ensure!(picture.name == name && !picture.figure.title.is_empty(), "{}", picture.name);
    for panel in picture.figure.rows.iter().flatten() {
        let (labels, numbers): (Vec<&String>, Vec<f64>) = match panel {
            Panel::Lines(l) => {
                let points = l.series.iter().flat_map(|s| &s.points).flat_map(|p| [p.0, p.1]);
                (vec![&l.title, &l.x.label, &l.y.label], points.collect())
            }
            Panel::Points(p) => {
                (vec![&p.title, &p.x.label, &p.y.label], p.points.iter().flat_map(|p| [p.x, p.y]).collect())
            }
            Panel::Bars(b) => {
                let values = b.groups.iter().flat_map(|g| g.values.iter().copied());
                (vec![&b.title, &b.x, &b.y.label], values.collect())
            }
            Panel::Heat(h) => (vec![&h.title], h.rows.iter().flatten().copied().collect()),
        };
        ensure!(labels.iter().all(|l| !l.is_empty()), "{name}: {labels:?}");
        ensure!(numbers.len() >= 4 && numbers.iter().all(|n| n.is_finite()), "{name}: {numbers:?}");
    }
    Ok(())
}

#[test]
fn every_entry_of_the_classification_is_run() -> Result<()> {
    let _alone = alone();
    let page = run("unified_taxonomy")?;
    drawn(&page, "unified_taxonomy")?;
    // Width 32, feed-forward 128, two layers, rank 4, five virtual tokens.
    let (d, f, layers, r, n) = (32, 128, 2, 4, 5);
    let (add, low, select) = ("additive", "reparameterisation", "selective");
    let biases = layers * (3 * d + d + f + d + 2 * d) + 4;
    let entries = [
        (add, "Adapters", 2 * layers * (2 * d * r + r + d), "no | two products a block"),
        (add, "Prefix Tuning", layers * 2 * n * d, "no | keys and values a layer"),
        (add, "Prompt Tuning", n * d, "no | tokens before the words"),
        (add, "IA³", layers * (3 * d + f), "yes | nothing"),
        (low, "LoRA", layers * r * (d + f), "yes | nothing"),
        (low, "DoRA", layers * (r * (d + f) + f), "yes | nothing"),
        (low, "AdaLoRA", layers * 2 * r * (d + 1 + f), "yes | nothing"),
        (low, "QLoRA", layers * r * (d + f), "yes | dense weights"),
        (select, "BitFit", biases, "yes | nothing"),
        (select, "Diff Pruning", 2 * layers * (d * f + f), "yes | nothing"),
        (select, "Partial FT", 3 * d * d + d * d + 2 * d * f + f + 9 * d, "yes | nothing"),
    ];
    let mut lines = vec![format!("{:<20} {:<16} {:>10}", "Kind", "Method", "Trainable"), "-".repeat(48)];
    let mut table = Vec::new();
    for (kind, name, count, end) in entries {
        ensure!(number(&page, &format!("{name}.trainable"))? as i64 == count, "{name}: not {count}");
        let losses = numbers(&page, &format!("{name}.losses"))?;
        ensure!(losses[1] < losses[0] - 0.5, "{name} has not learned: {losses:?}");
        let percent = 100.0 * count as f64 / 28740.0;
        lines.push(format!("{kind:<20} {name:<16} {:>10}", commas(count)));
        let [first, last] = [losses[0], losses[1]];
        table.push(format!(
            "{kind} | {name} | {} | {percent:.2} | {first:.3} | {last:.3} | {end}",
            commas(count)
        ));
    }
    same_lines(page.lines(), &lines)?;
    same_tables(&page, &[("One base of 28,740 parameters, 40 steps of each method on a new task", table)])?;
    mistaken(&page, "1,280", "1,280")?;
    mistaken(&page, "3 of the 4", "7 of the 7")?;
    ensure!(number(&page, "merging")? == 8.0);
    Ok(())
}

#[test]
fn the_classification_leaves_its_base_alone_and_prunes() -> Result<()> {
    let _alone = alone();
    let page = run("unified_taxonomy")?;
    let tensors = number(&page, "base.tensors")?;
    // Twelve tensors a layer, the embedding, the head's two; dense and in 4 bits.
    ensure!(tensors == 2.0 * (2.0 * 12.0 + 3.0) && number(&page, "base.unchanged")? == tensors);
    let ranks = numbers(&page, "adalora")?;
    ensure!(
        ranks.len() == 2 && ranks.iter().sum::<f64>() == 8.0,
        "AdaLoRA left the ranks {ranks:?} of 8 and 8"
    );
    let gates = numbers(&page, "diff.gates")?;
    ensure!(
        gates[0] == 2.0 * (32.0 * 128.0 + 128.0) && gates[1] < 0.8 * gates[0] && gates[1] > 0.0,
        "{gates:?}"
    );
    let pruned = numbers(&page, "diff.pruned")?;
    let losses = numbers(&page, "Diff Pruning.losses")?;
    // Every open gate's difference is kept, and nothing else mattered.
    ensure!(pruned[0] == gates[1], "{pruned:?} {gates:?}");
    close("the second stage", pruned[1], losses[1])?;
    let seen = page.to_see().join(" ");
    for words in ["54 of 54 tensors", "16 singular values", "kept 8", &commas(gates[1] as i64)] {
        ensure!(seen.contains(words), "no `{words}` in {seen}");
    }
    Ok(())
}

#[test]
fn lora_has_the_recorded_bits() -> Result<()> {
    let _alone = alone();
    let golden = &golden("seed001")?["sections"]["001.2.1.lora"];
    let mut t = lora::Trace::new(setting())?;
    let (base, merged) = (t.peft.base().tensors(), t.merged.base().tensors());
    let own = t.peft.params("lora")?.tensors();
    let leaf = |letter: &str| &own[&format!("{PREFIX}linear.lora_{letter}.weight")];
    same_bits(
        golden,
        &[
            ("init.linear.weight", &base["linear.weight"]),
            ("init.linear.bias", &base["linear.bias"]),
            ("init.lora.lora_A", leaf("A")),
            ("init.lora.lora_B", &leaf("B").zeros_like()),
            ("x", &t.x),
            ("y_init", &t.y_start),
            ("B", leaf("B")),
            ("y", &t.y),
            ("grad_A", &t.grads[0]),
            ("grad_B", &t.grads[1]),
            ("merged_weight", &merged["linear.weight"]),
            ("y_merged", &t.y_merged),
        ],
    )?;
    ensure!(t.y_start.equal(&t.y_base) && golden["identity_at_init"] == 1);
    ensure!(base.values().all(|t| !t.requires_grad() && !t.grad().defined()), "the base has a gradient");
    // Dropout is on the way through A alone: with B = 0 it changes nothing.
    t.peft.add("fresh", LoraConfig { lora_dropout: 0.5, ..lora::config(&["linear"]) })?;
    let y = t.peft.view(&["fresh"])?.linear("linear")?.forward(&t.x, Pass::train())?;
    ensure!(y.equal(&t.y_base), "dropout touches the base's own path");
    Ok(())
}

#[test]
fn lora_says_what_it_computes() -> Result<()> {
    let _alone = alone();
    let golden = golden("seed001")?;
    let (recorded, tables) =
        (&golden["sections"]["001.2.1.lora"], &golden["tables"]["lora_example_d4096_r8"]);
    let page = run("unified_lora")?;
    drawn(&page, "unified_lora")?;
    let off = number(&page, "merge_error")?;
    if recorded_kind() {
        close("merged", off, value(recorded, "max_abs_diff_merged")?)?;
    }
    ensure!(off < 2e-6, "merging is off by {off}");
    let merged = format!("Merged, largest difference: {off:.1e}");
    same_lines(
        page.lines(),
        &[
            "W shape: torch.Size([48, 64])  (d x k)",
            "A shape: torch.Size([8, 64])  (r x k)",
            "B shape: torch.Size([48, 8])  (d x r)",
            "Scaling alpha/r: 2",
            "LoRA trainable: 896 / 4,016  (22.31%)",
            "Identity at init: true",
            &merged,
        ],
    )?;
    ensure!(recorded["trainable"] == number(&page, "trainable")? as i64 && recorded["total"] == 4016);
    let twice = number(&page, "twice_error")?;
    close("twice", twice, value(recorded, "forward_after_merge_max_abs_err")?)?;
    mistaken(&page, &format!("{twice:.4}"), &format!("{off:.1e}"))?;
    mistaken(&page, "NameError", "U(±0.1250)")?;
    mistaken(&page, "16.7M", "16,777,216 = 16.8M")?;
    ensure!(tables["full"] == number(&page, "example.full")? as i64);
    ensure!(tables["lora"] == number(&page, "example.lora")? as i64 && tables["pct"] == 0.390625);

    let drop = ["eval", "once", "mean"].map(|n| number(&page, &format!("dropout.{n}")));
    let [eval, once, mean] = drop.map(|n| n.unwrap_or(f64::NAN));
    ensure!(eval == 0.0 && once > 1e-2 && mean < 0.05 * once, "{eval} {once} {mean}");
    let mut ranks = Vec::new();
    for r in [1, 2, 4, 8] {
        let (off, best) =
            (number(&page, &format!("rank.{r}.off"))?, number(&page, &format!("rank.{r}.best"))?);
        ensure!(off >= best - 1e-4 && off <= best + 0.01, "rank {r}: {off}, at best {best}");
        ensure!((r >= 4) == (best < 1e-6), "rank {r}: {best}");
        ranks.push(format!("r = {r} | {} | {off:.3} | {best:.3}", commas(r * (48 + 64))));
    }
    let Panel::Lines(learned) = &page.pictures()[0].figure.rows[0][1] else { anyhow::bail!("no curves") };
    for (series, r) in learned.series.iter().zip([1, 2, 4, 8]) {
        // From nothing of the change to what the table has.
        let (first, last) = series.points.first().zip(series.points.last()).context("no points")?;
        let off = number(&page, &format!("rank.{r}.off"))?;
        ensure!(series.points.len() == 301 && (first.1 - 1.0).abs() < 1e-6 && last.1 == off, "{r}: {last:?}");
    }
    same_tables(
        &page,
        &[
            (
                "LoRA at d = k = 4096, where W has 16,777,216 parameters",
                rows(&[
                    "r = 1 | 8,192 | 0.049",
                    "r = 8 | 65,536 | 0.391",
                    "r = 64 | 524,288 | 3.125",
                    "r = 256 | 2,097,152 | 12.500",
                    "r = 2048 | 16,777,216 | 100.000",
                    "r = 4096 | 33,554,432 | 200.000",
                ]),
            ),
            (
                "Dropout of 0.1 on the input of A: how far the output moves",
                vec![
                    "eval | 0".into(),
                    format!("train, once | {}", small(once)),
                    format!("train, mean of 4,000 | {}", small(mean)),
                ],
            ),
            (
                "apply_lora_to_model on two attentions and a head",
                rows(&[
                    "as it is | 8,580 | 8,580",
                    "the lesson's function, once | 10,628 | 6,404",
                    "the lesson's function, twice | 12,676 | 8,452",
                    "the library's LoRA | 10,628 | 2,048",
                ]),
            ),
            (
                "Which layers a target stands for",
                rows(&[
                    "q_proj | layers.0.q_proj, layers.0.kq_proj, q_proj_pool.dense | layers.0.q_proj",
                    "layers.1 | layers.10.o_proj | an error",
                    "0.o_proj | layers.0.o_proj, layers.10.o_proj | layers.0.o_proj",
                    "query | none | an error",
                ]),
            ),
            ("A change of rank 4, learned by LoRA in 300 steps: ‖ΔW − s B A‖ / ‖ΔW‖", ranks),
        ],
    )
}

#[test]
fn lora_in_a_model_as_recorded() -> Result<()> {
    let _alone = alone();
    let golden = &golden("seed001")?["sections"];
    let mut peft = apply::net(setting())?;
    peft.add("lora", lora::config(&apply::TARGETS))?;
    let recorded = golden["001.2.1.apply"].as_object().context("apply")?;
    let found = apply::tensors(&peft)?;
    let names: Vec<&str> = recorded.keys().filter_map(|k| k.strip_prefix("init.")).collect();
    ensure!(names.len() == found.len() && names.iter().all(|n| found.contains_key(*n)), "{names:?}");
    for (name, t) in &found {
        same_bits(&golden["001.2.1.apply"], &[(&format!("init.{name}"), t)])?;
    }
    let page = run("unified_lora")?;
    ensure!(page.facts()["apply.wrapped"] == golden["001.2.1.apply"]["wrapped"]);
    for (ours, theirs) in [("before", "before"), ("once", "after_once"), ("twice", "after_twice")] {
        let theirs = &golden[format!("001.2.1.apply.{theirs}")];
        ensure!(theirs["total"] == page.facts()[&format!("apply.{ours}.all")], "{ours}");
        ensure!(theirs["trainable"] == page.facts()[&format!("apply.{ours}.trainable")], "{ours}");
    }
    mistaken(&page, "6,404 of 10,628", "2,048 of 10,628")?;
    mistaken(&page, "12,676 parameters, 8,452", "`lora` exists already")?;
    mistaken(&page, "0 layers get a LoRA, and 8,580", "`query` in target_modules matches nothing")
}

#[test]
fn adapter_has_the_recorded_bits() -> Result<()> {
    let _alone = alone();
    let golden = &golden("seed001")?["sections"]["001.3.1.adapter"];
    let start = adapter::Start::new(setting())?;
    let own = start.peft.params("adapter")?.tensors();
    let at = |leaf: &str| &own[&format!("{PREFIX}block.adapter_{leaf}")];
    same_bits(
        golden,
        &[
            ("init.down_proj.weight", at("down.weight")),
            ("init.down_proj.bias", at("down.bias")),
            ("init.up_proj.weight", at("up.weight")),
            ("init.up_proj.bias", at("up.bias")),
            ("x", &start.x),
            ("y", &start.y),
        ],
    )
}

#[test]
fn adapter_says_what_it_computes() -> Result<()> {
    let _alone = alone();
    let golden = &golden("seed001")?["sections"]["001.3.1.adapter"];
    let page = run("unified_adapter")?;
    drawn(&page, "unified_adapter")?;
    ensure!(golden["total"] == 1096 && golden["trainable"] == number(&page, "parameters")? as i64);
    close("deviation", number(&page, "deviation")?, value(golden, "max_abs_deviation_from_identity")?)?;
    same_lines(
        page.lines(),
        &[
            "Adapter parameters: 1,096",
            "down_proj shape: torch.Size([8, 64])",
            "up_proj shape: torch.Size([64, 8])",
            "Input shape: torch.Size([4, 10, 64])",
            "Output shape: torch.Size([4, 10, 64])",
            "Largest change at init: 4.05e-5",
        ],
    )?;
    mistaken(&page, "4.05e-5", "moves by 0,")?;
    let (starts, grads) = (numbers(&page, "starts")?, numbers(&page, "gradients")?);
    // Ten times the deviation of both weights is a hundred times that of the product, up to gelu's curvature.
    ensure!((starts[2] / starts[1] - 100.0).abs() < 1.0 && (starts[1] / starts[0] - 100.0).abs() < 10.0);
    let zero = numbers(&page, "zero")?;
    ensure!(zero[0] == 0.0 && zero[1] == 0.0 && zero[2] > 0.0, "{zero:?}");
    let names = ["0.0001", "0.001", "0.01", "0.02", "0.1"].map(|std| format!("D, U ~ N(0, {std}²)"));
    let mut at_start: Vec<String> = names
        .iter()
        .zip(&starts)
        .zip(grads.chunks(2))
        .map(|((name, off), g)| format!("{name} | {} | {} | {}", small(*off), small(g[0]), small(g[1])))
        .collect();
    at_start.push(format!("D ~ N(0, 0.02²), U = 0 | 0 | 0 | {}", small(zero[2])));
    let moves = numbers(&page, "placed")?;
    ensure!(moves.chunks(2).all(|m| m[0] > 0.0 && m[1] == 0.0), "{moves:?}");
    // One adapter of width 8 at width 32: 2 · 8 · 32 + 8 + 32 parameters.
    let one = 2 * 8 * 32 + 8 + 32;
    let placed = [
        ("the diagram: after attention, after feed-forward", "layers.*.attn, layers.*.ff", 4),
        ("after feed-forward alone", "layers.*.ff", 2),
        ("after the layer, its residual and norm", "layers.*", 2),
        ("beside feed-forward", "layers.*.ff", 2),
    ];
    let placed = placed.iter().zip(moves.chunks(2)).map(|((name, blocks, n), m)| {
        format!("{name} | {blocks} | {n} | {} | {} | 0", commas(n * one), small(m[0]))
    });
    same_tables(
        &page,
        &[
            ("How an adapter starts", at_start),
            (
                "Adapters of width 8 in a transformer of two layers, and how far the logits move at the start",
                placed.collect(),
            ),
        ],
    )?;
    ensure!(number(&page, "llama7b")? as i64 == 64 * (2 * 4096 * 64 + 64 + 4096));
    Ok(())
}

#[test]
fn qlora_says_what_it_computes() -> Result<()> {
    let _alone = alone();
    let golden = &golden("seed001")?["tables"];
    let page = run("unified_qlora")?;
    drawn(&page, "unified_qlora")?;
    let (d, f, vocab, r) = (256i64, 704i64, 256i64, 64i64);
    let packed = 2 * (4 * d * d + 3 * d * f);
    let trainable = 2 * r * (4 * 2 * d + 3 * (d + f));
    let base = packed + 2 * vocab * d + 5 * d;
    let counted = trainable + base - packed / 2;
    let counts = [trainable, trainable + base, packed, counted].map(|n| n as f64);
    ensure!(numbers(&page, "counts")? == counts, "{counts:?}");
    let percent = 100.0 * trainable as f64 / counted as f64;
    same_lines(
        page.lines(),
        &[format!("Trainable: {} / {} ({percent:.2}%)", commas(trainable), commas(counted))],
    )?;

    let at_7b = numbers(&page, "llama7b")?;
    let all = 6_738_415_616i64;
    ensure!(golden["peft_0.21.2_counts_llama7b"]["setup_qlora r=64, seven targets"] == at_7b[0] as i64);
    ensure!(golden["llama7b_recomputed"]["LoRA r=64 q,v"] == at_7b[4] as i64);
    let linears = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008);
    ensure!(at_7b[1] as i64 == all + 159_907_840 && at_7b[2] as i64 == linears, "{at_7b:?}");
    ensure!(at_7b[3] as i64 == at_7b[1] as i64 - linears / 2);
    mistaken(&page, &commas(counted), &commas(trainable + base))?;
    mistaken(&page, &format!("{}, 4.37 %", commas(at_7b[3] as i64)), "6,898,323,456, 2.32 %")?;
    mistaken(&page, "33,554,432", "159,907,840, 2.37 % of the base")?;

    let e = numbers(&page, "errors")?;
    ensure!(e[0] < 0.1 && e[0] < e[4] && (e[2] - e[0]).abs() < 1e-3, "NF4 should be closest: {e:?}");
    let ways = ["NF4", "NF4, double quantisation", "evenly spaced, by hand"];
    let rounding =
        ways.iter().zip(e.chunks(2)).map(|(way, e)| format!("{way} | {:.2} | {:.4}", 100.0 * e[0], e[1]));
    // Codes, code book and scales; with double quantisation the scales' bytes, their scales and their code book.
    let rest = 2 * (base - packed);
    let of = |n: i64, double: bool| {
        let blocks = n / 64;
        n / 2 + 64 + if double { blocks + 4 * blocks.div_euclid(256).max(1) + 1024 } else { 4 * blocks }
    };
    let shapes = [d * d, d * d, d * d, d * d, d * f, d * f, d * f];
    let nf4 = |double| rest + 2 * shapes.iter().map(|n| of(*n, double)).sum::<i64>();
    let (here, there) = (numbers(&page, "bytes")?, numbers(&page, "bytes.llama7b")?);
    ensure!(here == [4 * base, 2 * base, nf4(false), nf4(true)].map(|n| n as f64), "{here:?}");
    ensure!(
        there[..2] == [4 * all, 2 * all].map(|n| n as f64)
            && there[3] < there[2]
            && there[2] < there[1] / 3.0
    );
    let formats = ["f32", "bf16", "NF4", "NF4, double"];
    let bytes = formats.iter().zip(&here).zip(&there).map(|((format, here), there)| {
        let bits = 8.0 * there / all as f64;
        format!("{format} | {} | {:.2} | {bits:.2}", commas(*here as i64), there / 1e9)
    });
    let l = numbers(&page, "logits")?;
    ensure!(l[0] == 0.0 && l[1] > 0.0 && l[1] < 0.02 * l[3] && l[2] > l[1], "{l:?}");
    let others = ["the same numbers in a dense base", "products in bf16", "the base before it was quantised"];
    let logits = others
        .iter()
        .zip(&l)
        .map(|(name, off)| format!("{name} | {} | {:.2}", small(*off), 100.0 * off / l[3]));
    let fit = numbers(&page, "fit")?;
    ensure!(fit[1] < 0.1 * fit[0] && fit[3] < 0.1 * fit[2], "{fit:?}");
    let merged = numbers(&page, "merged")?;
    ensure!(merged[0] < 0.2 * merged[1], "requantising should cost more than bf16: {merged:?}");
    same_tables(
        &page,
        &[
            ("Rounding 14 weight matrices to 4 bits, in blocks of 64", rounding.collect()),
            ("Weights of the base", bytes.collect()),
            ("Logits of the 4-bit base with products in f32, against those of", logits.collect()),
            (
                "30 steps on a text that counts",
                vec![
                    format!("QLoRA, NF4 base | {:.4} | {:.4}", fit[0], fit[1]),
                    format!("LoRA, dense f32 base | {:.4} | {:.4}", fit[2], fit[3]),
                ],
            ),
        ],
    )
}

#[test]
fn dora_has_the_recorded_bits() -> Result<()> {
    let _alone = alone();
    let golden = &golden("seed001")?["sections"]["001.2.3.dora"];
    let t = dora::Trace::new(setting())?;
    let by_hand = &t.by_hand;
    let ones = Tensor::ones_like(&by_hand.m);
    same_bits(
        golden,
        &[
            ("init.lora_A", &by_hand.a),
            ("init.lora_B", &by_hand.b.zeros_like()),
            ("init.magnitude", &ones),
            ("x", &t.x),
            ("W", &by_hand.w),
            ("y_init_as_written", &t.y_ones),
            ("row_norm", &t.norms),
            ("y_init_magnitude_is_row_norm", &t.y_norms),
            ("y_B_nonzero", &t.y),
            ("grad_A", &t.grads[0][0]),
            ("grad_B", &t.grads[0][1]),
            ("grad_m", &t.grads[0][2]),
        ],
    )
}

#[test]
fn dora_says_what_it_computes() -> Result<()> {
    let _alone = alone();
    let golden = &golden("seed001")?["sections"]["001.2.3.dora"];
    let page = run("unified_dora")?;
    drawn(&page, "unified_dora")?;
    let fact = |name: &str| number(&page, name);
    ensure!(golden["trainable"] == fact("trainable")? as i64);
    for (ours, theirs) in
        [("norm_min", "row_norm_min"), ("norm_max", "row_norm_max"), ("ones", "init_max_abs_err_as_written")]
    {
        close(ours, fact(ours)?, value(golden, theirs)?)?;
    }
    let off = fact("norms")?;
    if recorded_kind() {
        close("norms", off, value(golden, "init_max_abs_err_corrected")?)?;
    }
    ensure!(off < 1e-6 && fact("library")? == 0.0 && fact("library_off_hand")? < 1e-6, "{off}");
    let start = format!("Magnitude = row norm: max |y - x W'| at init {off:.1e}");
    same_lines(
        page.lines(),
        &[
            "DoRA parameters: 944  (LoRA and 48 magnitudes)",
            "Row norms of W: 0.5105 to 0.6622",
            "Magnitude = 1: max |y - x W'| at init 1.1054",
            &start,
            "The library's DoRA: at init 0",
        ],
    )?;
    let g = numbers(&page, "gradients")?;
    ensure!(g[1] > 0.1 && g[3] > 0.1 && g[5] < 1e-5, "the norm has no gradient as written: {g:?}");
    ensure!([7, 9, 11].iter().all(|&i| g[i] < 1e-5), "the library's is not the detached one: {g:?}");
    let names = ["as written: through the norm", "by hand, the norm detached", "the library's"];
    let gradients = names.iter().zip(g.chunks(6)).map(|(name, g)| {
        let cells: Vec<String> = g.chunks(2).map(|p| format!("{:.4} | {}", p[0], small(p[1]))).collect();
        format!("{name} | {}", cells.join(" | "))
    });
    let mut fitted = Vec::new();
    let [lora, dora, ones] = ["LoRA", "DoRA", "DoRA, m = 1 at the start"]
        .map(|name| numbers(&page, &format!("fit.{name}")).map(|n| (name, n)));
    let (lora, dora, ones) = (lora?, dora?, ones?);
    for ((name, n), count) in [&lora, &dora, &ones].into_iter().zip([2 * 112, 2 * 112 + 48, 2 * 112 + 48]) {
        fitted.push(format!("{name} | {count} | {:.3} | {:.3} | {:.4} | {:.4}", n[0], n[1], n[2], n[3]));
    }
    close("LoRA starts at the base", lora.1[0], 1.0)?;
    close("DoRA starts at the base", dora.1[0], 1.0)?;
    ensure!(ones.1[0] > 2.0 && dora.1[1] < 0.01 && lora.1[1] > 0.2, "{lora:?} {dora:?} {ones:?}");
    let goal = numbers(&page, "fit.goal")?;
    let panels = &page.pictures()[0].figure.rows[0];
    let [Panel::Lines(losses), Panel::Lines(paths)] = &panels[..] else { anyhow::bail!("{panels:?}") };
    for ((curve, path), (name, n)) in losses.series.iter().zip(&paths.series).zip([&lora, &dora, &ones]) {
        let ends = [curve.points.first(), curve.points.last(), path.points.last()].map(|p| p.copied());
        ensure!(curve.points.len() == 301 && curve.name == *name && path.name == *name, "{name}");
        ensure!(ends == [(0.0, n[0]), (300.0, n[1]), (n[2], n[3])].map(Some), "{name}: {ends:?}");
    }
    ensure!(paths.series[3].points == [(goal[0], goal[1])], "{:?}", paths.series[3]);
    fitted.push(format!("the goal |  |  |  | {:.4} | {:.4}", goal[0], goal[1]));
    mistaken(&page, "1.1054", &format!("{off:.1e}"))?;
    mistaken(&page, &format!("‖∂L/∂A‖ = {:.4}", g[0]), &format!("{:.4} and {:.4}", g[12], g[14]))?;
    mistaken(&page, &format!("{:.4}", fact("bias")?), "keeps its bias")?;
    mistaken(&page, "NameError", "944")?;
    same_tables(
        &page,
        &[
            ("Gradients of one loss, and their distance from the library's", gradients.collect()),
            ("Rows to be turned and made longer or shorter, 300 steps at rank 2", fitted),
        ],
    )
}

#[test]
fn ia3_starts_as_recorded() -> Result<()> {
    let _alone = alone();
    let golden = &golden("seed001")?["sections"]["001.3.2.ia3"];
    let class = ia3::class(Device::Cpu)?;
    let own = class.params("ia3")?.tensors();
    ensure!(own.len() == 3 && golden["total"] == class.report(&["ia3"])?.trainable);
    for (name, site) in [("l_k", "key"), ("l_v", "value"), ("l_ff", "ffn")] {
        // Ones have the same bits on every processor.
        let l = &own[&format!("{PREFIX}{site}.ia3_l")];
        ensure!(golden[format!("init.{name}")] == sha(l)?, "{name}");
    }
    Ok(())
}

#[test]
fn ia3_says_what_it_computes() -> Result<()> {
    let _alone = alone();
    let tables = &golden("seed001")?["tables"]["llama7b_recomputed"];
    let page = run("unified_ia3")?;
    drawn(&page, "unified_ia3")?;
    let losses = numbers(&page, "losses")?;
    ensure!(losses[1] < losses[0] - 0.5, "{losses:?}");
    let loss = format!("Loss: {:.4} before, {:.4} after 80 steps", losses[0], losses[1]);
    same_lines(
        page.lines(),
        &[
            "IA3 parameters: 192",
            "l_k shape: torch.Size([64])",
            "l_v shape: torch.Size([64])",
            "l_ff shape: torch.Size([64])",
            "Identity at init: true",
            &loss,
        ],
    )?;
    ensure!(tables["IA3 class of 3.2 (3*dim per layer)"] == number(&page, "llama7b.class")? as i64);
    ensure!(tables["IA3 with l_ff of size d_ff"] == number(&page, "llama7b")? as i64);
    let merged = numbers(&page, "merged")?;
    ensure!(merged[0] < 1e-5 * merged[1], "merging moves the logits: {merged:?}");
    mistaken(&page, "tensor a (176) must match the size of tensor b (64)", "32 keys, 32 values, 176 hidden")?;
    mistaken(&page, "393,216", "614,400 = 0.0091 %")?;
    mistaken(&page, "64 values", "176 values")?;
    let Panel::Lines(scales) = &page.pictures()[0].figure.rows[0][0] else { anyhow::bail!("no curves") };
    let row = |vector: &str, at: &str, width: i64, leaf: &str| -> Result<String> {
        let ends = numbers(&page, leaf)?;
        let curve = scales.series.iter().find(|s| s.name.starts_with(vector)).context("a curve")?;
        let ys: Vec<f64> = curve.points.iter().map(|p| p.1).collect();
        ensure!(ys.len() as i64 == 2 * width && ys.is_sorted(), "{leaf}: {} values", ys.len());
        ensure!(ys[0] == ends[0] && ys.last() == ends.last() && curve.points[0].0 == 0.0, "{leaf}: {ends:?}");
        ensure!(ends[0] < 1.0 && ends[1] > 1.0, "{leaf} neither inhibits nor amplifies: {ends:?}");
        Ok(format!(
            "{vector} | model.layers.*.{at} | {width} | {} | {:.3} | {:.3}",
            2 * width,
            ends[0],
            ends[1]
        ))
    };
    same_tables(
        &page,
        &[(
            "(IA)³ in a Llama of 2 layers, 80 steps",
            vec![
                row("l_k", "self_attn.k_proj", 32, "k_proj")?,
                row("l_v", "self_attn.v_proj", 32, "v_proj")?,
                row("l_ff", "mlp.down_proj", 176, "down_proj")?,
                "all |  |  | 480 |  | ".into(),
                "the lesson's class |  | 64 | 384 |  | ".into(),
            ],
        )],
    )
}

#[test]
fn every_word_and_number_beside_the_lines_of_methods() -> Result<()> {
    let _alone = alone();
    for name in [
        "unified_taxonomy",
        "unified_lora",
        "unified_adapter",
        "unified_qlora",
        "unified_dora",
        "unified_ia3",
    ] {
        let page = run(name)?;
        same_page(name, &page)?;
    }
    Ok(())
}
