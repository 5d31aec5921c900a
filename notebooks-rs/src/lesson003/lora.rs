//! Section 2: LoRA beside one frozen layer.

use super::cells::{Cell2, LAYER, LORA, WIDTH, inputs, lora};
use super::count::{count_parameters, print_parameter_stats};
use crate::layers::LayersPeft;
use crate::measure::max_abs;
use crate::{Mistake, Page, Setting};
use anyhow::{Context, Result};
use peft_core::report::commas;
use peft_core::seam::PREFIX;
use peft_core::{Pass, Report};
use peft_plot::{Axis, BarGroup, Bars, Figure, Panel};
use tch::{Device, Kind, Tensor};

/// `r (d + k)`: parameters of A `[r, k]` and B `[d, r]`.
const fn cost(r: i64) -> i64 {
    r * (WIDTH + WIDTH)
}

/// The adapter's factor `A` `[r, in]` or `B` `[out, r]`.
fn factor(peft: &LayersPeft, letter: char) -> Result<Tensor> {
    let name = format!("{PREFIX}{LAYER}.lora_{letter}.weight");
    peft.params(LORA)?.find(&name).with_context(|| format!("no {name}"))
}

/// The layer's output for x, with its LoRA, if it has one.
pub fn output(peft: &LayersPeft, x: &Tensor) -> Result<Tensor> {
    let _guard = tch::no_grad_guard();
    let active = if peft.names().contains(&LORA) { vec![LORA] } else { vec![] };
    Ok(peft.view(&active)?.linear(LAYER)?.forward(x, Pass::eval())?)
}

/// The lesson's forward by hand: `x Wᵀ + s · x Aᵀ Bᵀ`, in its names `lora_down` is A and `lora_up` is B.
fn by_hand(peft: &LayersPeft, x: &Tensor) -> Result<Tensor> {
    let _guard = tch::no_grad_guard();
    let w = peft.base().find(&format!("{LAYER}.weight")).context("no weight")?;
    let (a, b) = (factor(peft, 'A')?, factor(peft, 'B')?);
    let update = x.f_matmul(&a.f_tr()?)?.f_matmul(&b.f_tr()?)?;
    Ok(x.f_matmul(&w.f_tr()?)?.f_add(&update.f_mul_scalar(lora(a.size2()?.0, &[]).scaling())?)?)
}

/// 2. Low-Rank Adaptation (LoRA) - Mathematical Foundation.
pub fn review_lora(setting: Setting, page: &mut Page) -> Result<()> {
    let cell = Cell2::draw(setting)?;
    let full = count_parameters(&cell.full, &["full"])?;
    let (r8, r16) = (count_parameters(&cell.r8, &[LORA])?, count_parameters(&cell.r16, &[LORA])?);
    page.line("Parameter Comparison:")?;
    print_parameter_stats(page, &full, "Full Linear Layer")?;
    print_parameter_stats(page, &r8, "LoRA (r=8)")?;
    print_parameter_stats(page, &r16, "LoRA (r=16)")?;
    page.figure("review_lora_parameters", bars())?;

    page.table(
        &format!("Parameters of LoRA by rank, for a weight of {WIDTH} x {WIDTH}"),
        ["rank r", "r (d + k)", "% of d k", "scale alpha/r"],
        [1, 2, 4, 8, 16, 64, 384, 768]
            .into_iter()
            .map(|r| {
                let share = 100.0 * cost(r) as f64 / (WIDTH * WIDTH) as f64;
                vec![
                    r.to_string(),
                    commas(cost(r)),
                    format!("{share:.2}"),
                    format!("{:.4}", lora(r, &[]).scaling()),
                ]
            })
            .collect(),
    )?;
    page.mistakes(&mistakes(&cell, &full, &r8)?)?;
    let (x, _) = inputs(setting)?;
    let start = max_abs(&output(&cell.r8, &x)?, &frozen_output(&cell.r8, &x)?)?;
    page.fact("start.max_abs", start);
    let [hand, merged, scale] = equivalence(&cell.r8, &x)?;
    page.fact("by_hand.max_abs", hand);
    page.fact("merged.max_abs", merged);
    page.what_to_see(&[
        format!("B starts at zero, so the untrained layer is the frozen one: max |change| = {start}."),
        format!(
            "Once B is not zero, the lesson's formula and the library's layer differ by {hand:.0e} where outputs reach \
             {scale:.0}, and the merged weight W + s B A by {merged:.0e}: rounding."
        ),
        format!(
            "The break-even rank is d k / (d + k) = {}: above it B A has more parameters than W.",
            WIDTH * WIDTH / (WIDTH + WIDTH)
        ),
        format!(
            "alpha stays at 16, so r = 8 is scaled by {} and r = 16 by {}: changing the rank alone changes the step.",
            lora(8, &[]).scaling(),
            lora(16, &[]).scaling()
        ),
    ])?;
    Ok(())
}

fn frozen_output(peft: &LayersPeft, x: &Tensor) -> Result<Tensor> {
    let _guard = tch::no_grad_guard();
    Ok(peft.view(&[])?.linear(LAYER)?.forward(x, Pass::eval())?)
}

/// With B from N(0, 0.02²): how far the formula by hand and the merged weight are from the library's layer, and the
/// largest output.
fn equivalence(peft: &LayersPeft, x: &Tensor) -> Result<[f64; 3]> {
    let drawn = Tensor::f_randn([WIDTH, 8], (Kind::Float, Device::Cpu))?.f_mul_scalar(0.02)?;
    peft.params(LORA)?
        .assign(&format!("{PREFIX}{LAYER}.lora_B.weight"), &drawn.f_to(peft.base().device())?)?;
    let y = output(peft, x)?;
    let merged = peft.merged(&[LORA])?;
    Ok([
        max_abs(&by_hand(peft, x)?, &y)?,
        max_abs(&output(&merged, x)?, &y)?,
        y.f_abs()?.f_max()?.f_double_value(&[])?,
    ])
}

fn mistakes(cell: &Cell2, full: &Report, r8: &Report) -> Result<Vec<Mistake>> {
    let (down, up) = (factor(&cell.r8, 'A')?, factor(&cell.r8, 'B')?);
    let product = down.f_matmul(&up)?.size();
    let weight = r8.all - r8.trainable;
    Ok(vec![
        Mistake::new(
            "The text's names and the code's are swapped; a square weight hides it",
            format!(
                "text: W_down W_up with W_down d x r; the code's lora_down is {:?}, its lora_up {:?}, and their product in \
                 the text's order {product:?}",
                down.size(),
                up.size()
            ),
            format!(
                "W + s B A with B = lora_up, which starts at zero, and A = lora_down: {:?}",
                up.f_matmul(&down)?.size()
            ),
        ),
        Mistake::new(
            "The full layer has a bias that the LoRA layer lacks",
            format!("{} beside {} frozen: not the same layer", commas(full.all), commas(weight)),
            format!("{} without the bias of {}", commas(full.all - WIDTH), commas(WIDTH)),
        ),
        Mistake::new(
            "One LoRA has three shares, by what it is divided by",
            format!(
                "printed {:.2} % (of W, A and B), in the figure {:.1} % (of W)",
                r8.percent(),
                100.0 * r8.trainable as f64 / weight as f64
            ),
            format!(
                "say of what: {:.3} % of W, A and B; {:.3} % of W; {:.3} % of W and its bias",
                r8.percent(),
                100.0 * r8.trainable as f64 / weight as f64,
                100.0 * r8.trainable as f64 / full.all as f64
            ),
        ),
    ])
}

/// The lesson's bars.
fn bars() -> Figure {
    let whole = WIDTH * WIDTH;
    let models = [("Full Fine-tuning", whole), ("LoRA (r=16)", cost(16)), ("LoRA (r=8)", cost(8))];
    let label = |n: i64| format!("{}\n({:.1}%)", commas(n), 100.0 * n as f64 / whole as f64);
    Figure {
        title: "LoRA Parameter Efficiency".into(),
        rows: vec![vec![Panel::Bars(Bars {
            title: format!("One weight of {WIDTH} × {WIDTH}"),
            categories: models.iter().map(|m| m.0.to_owned()).collect(),
            x: "Method".into(),
            y: Axis { label: "Number of Trainable Parameters".into(), ..Default::default() },
            groups: vec![BarGroup {
                name: "trainable".into(),
                values: models.iter().map(|m| m.1 as f64).collect(),
                labels: Some(models.iter().map(|m| label(m.1)).collect()),
                ..Default::default()
            }],
        })]],
        note: None,
    }
}
