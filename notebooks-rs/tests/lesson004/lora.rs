//! 1: the test of the layer.

use super::*;

#[test]
fn lora_has_the_recorded_bits() -> Result<()> {
    let _alone = alone();
    let golden = &golden("seed004")?["sections"]["004.lora"];
    let test = Test::new(Setting::default())?;
    let base = test.peft.base().tensors();
    let (a, b) = (test.at("lora", "lora_A.weight")?, test.at("lora", "lora_B.weight")?);
    let trace = Trace::new(Setting::default())?;
    let report = test.peft.report(&["lora"])?;
    ensure!(golden["trainable"] == report.trainable && golden["total"] == report.all, "{report}");
    ensure!(golden["identity_at_init"] == 1 && trace.y_start == trace.test.forward(&[], Pass::eval())?);
    ensure!(f64::try_from(trace.delta_start.abs().max())? == 0.0);
    close(
        "‖ΔW‖",
        f64::try_from(trace.delta.norm())?,
        golden["delta_w_norm"]["value"].as_f64().context("norm")?,
    )?;
    let rank = trace.delta.to_kind(Kind::Double).linalg_matrix_rank_atol_rtol_float(None, 1e-6, false);
    ensure!(golden["rank_of_delta_w"] == rank.int64_value(&[]));

    // As the class computes it, with the same draws: the branch is scaled last, and added to the base's output. The
    // library scales the thin product and adds in the matrix product, which may round differently.
    let again = Test::new(Setting::default())?;
    let branch = |x: Tensor| -> Result<Tensor> {
        let b = again.at("lora", "lora_B.weight")?;
        Ok(again.forward(&[], Pass::eval())? + x.matmul(&a.tr()).matmul(&b.tr()) * 2.0)
    };
    let start = branch(again.x.dropout(0.1, true))?;
    again.as_if_trained("lora", "original_layer.lora_B.weight")?;
    let written = [branch(again.x.dropout(0.1, true))?, branch(again.x.shallow_clone())?];
    for (written, library) in written.iter().zip([&trace.y_dropped[0], &trace.y]) {
        ensure!(written.allclose(library, 2e-5, 1e-6, false), "the library's LoRA differs");
    }
    if !recorded_kind() {
        eprintln!("not the recorded kind of processor: bits are not compared");
        return Ok(());
    }
    for (name, t) in [
        ("init.lora_A", &a),
        ("init.lora_B", &b),
        ("init.original_layer.weight", &base["original_layer.weight"]),
        ("init.original_layer.bias", &base["original_layer.bias"]),
        ("x", &test.x),
        ("y_train_mode", &start),
        ("y_train_mode", &trace.y_start),
        ("y_dropout_B_nonzero", &written[0]),
        ("y_eval_B_nonzero", &written[1]),
        ("delta_w", &trace.delta),
    ] {
        ensure!(golden[name] == sha(t)?, "{name} has other bits");
    }
    let norm = format!("{:08x}", f32::try_from(trace.delta.norm())?.to_bits());
    ensure!(golden["delta_w_norm"]["f32_hex"] == norm, "{norm}");
    Ok(())
}

#[test]
fn lora_says_what_it_computes() -> Result<()> {
    let _alone = alone();
    let (page, golden) = (run("depth_lora")?, golden("seed004")?);
    let math = &golden["math_examples"];
    close(
        "reduction",
        100.0 * number(&page, "reduction")?,
        math["reduction_as_printed_pct"].as_f64().context("pct")?,
    )?;
    let of_layer = math["reduction_vs_original_layer_pct"].as_f64().context("pct")?;
    close("of the layer", 100.0 * number(&page, "reduction_of_the_layer")?, of_layer)?;
    ensure!(number(&page, "identity")? == 0.0 && number(&page, "delta_rank")? == 16.0);
    ensure!(number(&page, "between_eval_passes")? == 0.0 && number(&page, "between_passes")? > 0.01);
    ensure!(number(&page, "scale_of_defaults")? == 8.0 && number(&page, "scale_of_the_test")? == 2.0);
    let titles: Vec<&str> = page.mistaken().iter().map(|m| m.about.as_str()).collect();
    ensure!(titles.len() == 4, "{titles:?}");
    for part in [
        "91.4% of layer",
        "90.6% of the layer",
        "scale by 8, its test, rank 16, by 2",
        "8/8 give 1",
        "0.0255",
    ] {
        said(&page, part)?;
    }
    said(&page, &format!("two passes differ by up to {:.3}", number(&page, "between_passes")?))?;
    said(&page, &format!("‖ΔW‖ is {:.4} and its rank 16", number(&page, "delta_norm")?))?;

    let [std, a, b, adam, sgd, loss] = ["std", "grad_a", "grad_b", "adam", "sgd", "loss"]
        .map(|key| numbers(&page, &format!("starts.{key}")));
    let [std, a, b, adam, sgd, loss] = [std?, a?, b?, adam?, sgd?, loss?];
    for (found, expected) in std.iter().zip([0.01, (3.0 * 512_f64).sqrt().recip(), 1.0 / 16.0]) {
        // The spread of 8,192 draws is known to about one in a hundred.
        ensure!((found / expected - 1.0).abs() < 0.03, "{found} for {expected}");
    }
    ensure!(a == [0.0; 3] && b.iter().all(|g| *g > 0.0));
    // Adam's first step of B does not depend on the gradient's size, SGD's does: σ once, and σ twice.
    for (found, power) in [(&adam, 1), (&sgd, 2)] {
        for i in [1, 2] {
            let ratio = (found[i] / found[0]) / (std[i] / std[0]).powi(power);
            ensure!((0.75..1.35).contains(&ratio), "{ratio}");
        }
    }
    let tiny = |v: f64| if v == 0.0 { "0".to_owned() } else { format!("{v:.2e}") };
    let names = ["N(0, 0.01²), the lesson's", "U(±1/√in), PEFT's", "N(0, 1/r²), PEFT's `gaussian`"];
    let row = |(i, name): (usize, &str)| {
        let cells =
            [format!("{:.4}", std[i]), tiny(a[i]), tiny(b[i]), tiny(adam[i]), tiny(sgd[i]), tiny(loss[i])];
        format!("{name} | {}", cells.join(" | "))
    };
    let title = "The first step from three starts of A, learning rate 0.001, and 60 steps of Adam";
    same_tables(&page, &[(title, names.into_iter().enumerate().map(row).collect())])?;
    said(&page, &format!("{:.1} times as far", adam[1] / adam[0]))?;
    said(&page, &format!("{:.1} times with SGD", sgd[1] / sgd[0]))?;
    let losses: Vec<Vec<f64>> = serde_json::from_value(page.facts()["starts.losses"].clone())?;
    ensure!(losses.iter().map(|l| l[l.len() - 1]).collect::<Vec<_>>() == loss && losses[0].len() == 60);
    same_curves(&page, "depth_lora_starts", 0, &losses)?;
    tested(&page, 512 * 16 + 16 * 256)?;
    figures(&page, &["depth_lora_starts"])
}
