//! 2.1: LoRA.

use super::*;
use notebooks_rs::lesson001::{apply, lora};

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
