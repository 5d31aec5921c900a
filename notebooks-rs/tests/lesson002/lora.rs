//! LoRA, and the check of gradients itself.

use super::*;

#[test]
fn lora_has_the_recorded_numbers() -> Result<()> {
    let _alone = alone();
    let page = run("scratch_lora")?;
    let golden = &golden("seed002")?["lora"];
    same_lines(
        page.lines(),
        &[
            "LoRALayer: A (2, 6), B (5, 2), scaling 2",
            "LoRALinear: frozen W (5, 6), 22 parameters",
            "Input shape: (2, 3, 6)",
            "Output shape: (2, 3, 5)",
            "Gradients computed: A=(2, 6), B=(5, 2)",
        ],
    )?;
    recorded(
        &page,
        golden,
        &[
            ["y", "x Wᵀ + H Bᵀ, H = s x Aᵀ", "(2, 3, 5)"],
            ["A_grad", "(s G B)ᵀ x", "(2, 6)"],
            ["B_grad", "Gᵀ H", "(5, 2)"],
            ["grad_x", "G W + s G B A", "(2, 3, 6)"],
            ["merged", "W + s B A", "(5, 6)"],
        ],
    )?;
    ensure!(page.tables().len() == 3, "{:?}", titles(&page));
    right(&page, "LoRALinear", "LoraConfig", "(2, 3, 5)", &[("A", "(2, 6)"), ("B", "(5, 2)")], "(2, 3, 6)")?;
    ensure!(number(&page, "LoraConfig.merged")? < SINGLE);
    ensure!(number(&page, "merge.error")? < 1e-14);
    ensure!(number(&page, "start.change")? == 0.0);
    let start = fact(&page, "start.gradients")?;
    ensure!(start[0] == 0.0 && start[1] > 0.0, "{start:?}");
    ensure!(
        page.to_see()[1].contains(&format!("{:.1e}", number(&page, "merge.error")?))
            || number(&page, "merge.error")? == 0.0
    );
    ensure!(page.to_see().len() == 4 && page.to_see()[0].contains(&format!("‖dB‖ = {:.4}", start[1])));
    Ok(())
}

#[test]
fn lora_mistakes_are_shown_by_numbers() -> Result<()> {
    let _alone = alone();
    let page = run("scratch_lora")?;
    let mut layer = example(CPU)?;
    let [x, grad] = batch(CPU)?;
    let other = CPU.ramp(&[2, 3, 6], [0.29, 0.8, 1.0])?;
    let (w, a, b) =
        (&layer.base.weight, layer.lora.a.value.shallow_clone(), layer.lora.b.value.shallow_clone());
    let loss =
        |x: &Tensor| sum((x.linear(w, None::<&Tensor>) + x.matmul(&a.tr()).matmul(&b.tr()) * 2.0) * &grad);
    let last = norms(&["A", "B"], &[&a, &b], &|| Ok(loss(&other)))?;
    let both = norms(&["A", "B"], &[&a, &b], &|| Ok(loss(&x) + loss(&other)))?;
    let found = mistaken(&page);
    ensure!(found.len() == 3 && last != both);
    ensure!(
        found[0]
            == [
                format!("after two batches, the second one's alone: {last}"),
                format!("the sum of both: {both}")
            ]
    );
    // 6 rows, r = 2: 6 products of 6·2 with 6 or 5 columns, and 2 more.
    let (wide, narrow) = (6 * 6 * 2, 6 * 2 * 5);
    let once = 3 * wide + 3 * narrow;
    let lesson = once + wide + narrow;
    ensure!(found[1][0].starts_with(&format!("{lesson} ")) && found[1][1].starts_with(&format!("{once},")));
    ensure!(found[2] == ["forward, merge", "forward, merged, backward to (2, 3, 6), count 22"]);
    ensure!(layer.forward(&x)?.size() == [2, 3, 5]);
    Ok(())
}

/// A gradient check has its V: the best step of central differences is near ε^(1/3), of one-sided ones near ε^(1/2).
#[test]
fn the_best_step_is_between_curve_and_rounding() -> Result<()> {
    let _alone = alone();
    let page = run("scratch_lora")?;
    let [picture] = page.pictures() else { anyhow::bail!("{} pictures", page.pictures().len()) };
    let Panel::Lines(lines) = &picture.figure.rows[0][0] else { anyhow::bail!("no lines") };
    ensure!(picture.name == "scratch_lora_steps" && lines.series.len() == 3 && lines.x.log && lines.y.log);
    let names = ["one-sided, f64", "central, f64", "central, f32"];
    let curves = names.map(|name| fact(&page, &format!("step.{name}.errors")));
    same_curves(&page, "scratch_lora_steps", 0, &curves.into_iter().collect::<Result<Vec<_>>>()?)?;
    let expected = [
        ("one-sided, f64", 1e-9, 1e-6, 1e-6),
        ("central, f64", 1e-6, 1e-3, 1e-9),
        ("central, f32", 1e-3, 1e-1, 1e-3),
    ];
    for (series, (name, low, high, error)) in lines.series.iter().zip(expected) {
        let best = series.points.iter().min_by(|a, b| a.1.total_cmp(&b.1)).context("no point")?;
        ensure!(series.name == name && series.points.len() == 31);
        ensure!((low..high).contains(&best.0) && best.1 < error, "{name}: {best:?}");
        let ends = [series.points[0].1, series.points[30].1];
        ensure!(ends.iter().all(|e| *e > 100.0 * best.1), "{name}: {ends:?} for {best:?}");
        ensure!(fact(&page, &format!("step.{name}"))? == [best.0, best.1]);
        ensure!(page.to_see()[3].contains(&format!("{name} {:.0e} (error {:.0e})", best.0, best.1)));
    }
    Ok(())
}

/// A layer whose backward pass forgets the scale of A: the check has to say so.
#[derive(Debug)]
struct Wrong(notebooks_rs::lesson002::lora::LoraLinear);

impl Module for Wrong {
    fn forward(&mut self, x: &Tensor) -> Result<Tensor> {
        self.0.forward(x)
    }

    fn backward(&mut self, grad: &Tensor) -> Result<Tensor> {
        let dx = self.0.backward(grad)?;
        let a = &self.0.lora.a;
        a.accumulate(&a.grad.f_mul_scalar(-0.5)?)?;
        Ok(dx)
    }

    fn parameters(&self) -> Vec<(String, &Parameter)> {
        self.0.parameters()
    }
}

#[test]
fn a_wrong_gradient_is_found() -> Result<()> {
    let _alone = alone();
    let [x, grad] = batch(CPU)?;
    let found = check(&mut Wrong(example(CPU)?), &x, &grad)?;
    for (gradient, of) in found.iter().zip(["A", "B", "x"]) {
        let wrong = [gradient.autograd > 0.4, gradient.differences > 0.4];
        ensure!(gradient.of == of && wrong == [of == "A"; 2], "{gradient:?}");
    }
    ensure!(found.len() == 3 && STEP == 1e-5);
    Ok(())
}

/// Without a forward pass there is nothing to go back through.
#[test]
fn backward_comes_after_forward() -> Result<()> {
    let _alone = alone();
    let [_, grad] = batch(CPU)?;
    let error = example(CPU)?.backward(&grad).err().context("no error")?;
    ensure!(error.to_string() == "the backward pass comes after a forward pass", "{error}");
    Ok(())
}
