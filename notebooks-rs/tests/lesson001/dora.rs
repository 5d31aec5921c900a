//! 2.3: DoRA.

use super::*;
use notebooks_rs::lesson001::dora;

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
