//! Adapter and prompt.

use super::*;

#[test]
fn adapter_has_the_recorded_numbers() -> Result<()> {
    let _alone = alone();
    let page = run("scratch_adapter")?;
    let lines = [
        "Adapter parameters: 36",
        "Bottleneck dimension: 3",
        "Gradients computed: W_down=(6, 3), W_up=(3, 6)",
    ];
    same_lines(page.lines(), &lines)?;
    recorded(
        &page,
        &golden("seed002")?["adapter"],
        &[
            ["y", "x + relu(Z) U, Z = x D", "(2, 3, 6)"],
            ["W_down_grad", "xᵀ (G Uᵀ ⊙ [Z > 0])", "(6, 3)"],
            ["W_up_grad", "relu(Z)ᵀ G", "(3, 6)"],
            ["grad_x", "G + (G Uᵀ ⊙ [Z > 0]) Dᵀ", "(2, 3, 6)"],
        ],
    )?;
    ensure!(page.tables().len() == 3, "{:?}", titles(&page));
    let hand = [("W_down", "(6, 3)"), ("W_up", "(3, 6)")];
    right(&page, "Adapter", "", "", &hand, "(2, 3, 6)")?;
    // The library stores both the other way round.
    let rows = [("y", "(2, 3, 6)"), ("dx", "(2, 3, 6)"), ("dW_down", "(3, 6)"), ("dW_up", "(6, 3)")];
    errors(&page, "BottleneckConfig", &rows, &[SINGLE])?;

    let start = fact(&page, "start")?;
    let found = mistaken(&page);
    ensure!((0.005..0.02).contains(&start[0]) && start[1] == 0.0, "{start:?}");
    ensure!(found.len() == 2 && found[0][0].contains(&format!("{:.3} %", 100.0 * start[0])));
    ensure!(found[0][1].starts_with("0 %"));
    let ramp = |shape: &[i64], abc| CPU.ramp(shape, abc);
    let (down, up) = (ramp(&[6, 3], [0.8, 0.2, 0.6])?, ramp(&[3, 6], [0.6, 0.5, 0.6])?);
    let (x, other) = (ramp(&[2, 3, 6], [0.53, 0.4, 1.0])?, ramp(&[2, 3, 6], [0.29, 0.8, 1.0])?);
    let grad = ramp(&[2, 3, 6], [0.37, 0.6, 1.0])?;
    let loss = |x: &Tensor| sum((x + x.matmul(&down).relu().matmul(&up)) * &grad);
    let last = norms(&["W_down", "W_up"], &[&down, &up], &|| Ok(loss(&other)))?;
    let both = norms(&["W_down", "W_up"], &[&down, &up], &|| Ok(loss(&x) + loss(&other)))?;
    ensure!(
        found[1]
            == [
                format!("after two batches, the second one's alone: {last}"),
                format!("the sum of both: {both}")
            ]
    );

    let off = x.matmul(&down).le(0.0).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
    ensure!(number(&page, "off")? == off);
    let [residual, units, biases] = page.to_see() else { anyhow::bail!("{:?}", page.to_see()) };
    let own =
        CPU.ramp(&[2, 3, 6], [0.37, 0.6, 1.0])?.view([-1]) - Tensor::from_slice(&fact(&page, "grad_x")?);
    ensure!(residual.contains(&format!("‖G‖ = {:.4}", norm(&grad)?)), "{residual}");
    ensure!(residual.contains(&format!("‖dx − G‖ = {:.4}", norm(&own)?)), "{residual}");
    ensure!(units.starts_with(&format!("{:.0} %", 100.0 * off)), "{units}");
    ensure!(biases.contains(&format!("{} more parameters", 3 + 6)), "{biases}");
    Ok(())
}

#[test]
fn prompt_has_the_recorded_numbers() -> Result<()> {
    let _alone = alone();
    let page = run("scratch_prompt")?;
    let lines = [
        "Original sequence length: 3",
        "With soft prompt: 7",
        "Prompt parameters: 24",
        "Gradients computed: prompt=(4, 6)",
    ];
    same_lines(page.lines(), &lines)?;
    let golden = &golden("seed002")?["prompt"];
    recorded(
        &page,
        golden,
        &[
            ["y", "[P; x]", "(2, 7, 6)"],
            ["prompt_grad", "Σ_batch G[:, :n]", "(4, 6)"],
            ["grad_x", "G[:, n:]", "(2, 3, 6)"],
        ],
    )?;
    ensure!(golden["y_shape"] == serde_json::json!([2, 7, 6]));
    ensure!(table(&page, "Forward and backward of closed-form numbers")?.rows[0][2] == "(2, 7, 6)");
    let (p, x) = (CPU.ramp(&[4, 6], [0.45, 0.15, 1.0])?, CPU.ramp(&[2, 3, 6], [0.53, 0.4, 1.0])?);
    let y = Tensor::cat(&[p.unsqueeze(0).expand([2, 4, 6], false), x], 1);
    ensure!(fact(&page, "y")? == Vec::<f64>::try_from(y.view([-1]))?);
    ensure!(page.tables().len() == 3, "{:?}", titles(&page));
    right(&page, "PromptTuning", "PromptTuningConfig", "(2, 7, 6)", &[("prompt", "(4, 6)")], "(2, 3, 6)")?;

    let [grad, other] = [[0.37, 0.6, 1.0], [0.29, 0.8, 1.0]].map(|abc| CPU.ramp(&[2, 7, 6], abc));
    let of = |grad: &Tensor| grad.narrow(1, 0, 4).sum_dim_intlist([0i64].as_slice(), false, Kind::Double);
    let (grad, other) = (of(&grad?), of(&other?));
    let line = |t: &Tensor| Ok::<_, anyhow::Error>(format!("‖dprompt‖ = {:.4}", norm(t)?));
    let expected = [
        format!("after two batches, the second one's alone: {}", line(&other)?),
        format!("the sum of both: {}", line(&(grad + other))?),
    ];
    ensure!(mistaken(&page) == [expected.each_ref().map(String::as_str)], "{expected:?}");
    ensure!(number(&page, "rows.difference")? < AUTOGRAD);
    let start = fact(&page, "start")?;
    ensure!(start[0] < 0.2 && (start[1] / start[2] - 1.0).abs() < 0.1, "{start:?}");
    ensure!(page.to_see().len() == 2 && page.to_see()[1].contains(&format!("a word {:.2}", start[2])));
    Ok(())
}
