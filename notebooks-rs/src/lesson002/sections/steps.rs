//! How a gradient check depends on its step: the well-known V.

use crate::Page;
use crate::lesson002::check::{central, shifted};
use crate::lesson002::lora::LoraLinear;
use crate::lesson002::module::{Frozen, Module};
use crate::lesson002::tensors::{Source, norm, rows};
use crate::lesson002::{lora::LoraLayer, sections::lora};
use anyhow::{Context, Result};
use peft_plot::{Axis, Figure, Lines, Panel, Series};
use tch::{Kind, Tensor};

/// The mean over all rows of −log softmax(y)[target]. It bends, as real losses do: of `Σ G ⊙ y`, which is linear in
/// A and in B, central differences would have no error but rounding.
fn cross_entropy(y: &Tensor, target: &Tensor) -> Result<Tensor> {
    let nll = y.f_log_softmax(-1, None::<Kind>)?.f_mul(target)?.f_sum(None::<Kind>)?;
    Ok(nll.f_div_scalar(-(rows(y)?.size2()?.0 as f64))?)
}

/// Its gradient by hand: `(softmax(y) − target) / rows`.
fn slope(y: &Tensor, target: &Tensor) -> Result<Tensor> {
    Ok(y.f_softmax(-1, None::<Kind>)?.f_sub(target)?.f_div_scalar(rows(y)?.size2()?.0 as f64)?)
}

/// The layer of the section in another dtype.
fn example(source: Source, kind: Kind) -> Result<LoraLinear> {
    let LoraLinear { base, lora } = lora::example(source)?;
    let [a, b] = [&lora.a, &lora.b].map(|p| p.value.f_to_kind(kind));
    let base = Frozen { weight: base.weight.f_to_kind(kind)?, bias: None };
    Ok(LoraLinear { base, lora: LoraLayer::of(a?, b?, 4.0)? })
}

/// One way to differentiate, over all steps.
fn curve(source: Source, name: &str, kind: Kind, two_sided: bool) -> Result<Series> {
    let [x, grad] = lora::batch(source)?;
    let target = grad.f_argmax(-1, false)?.f_one_hot(5)?.f_to_kind(kind)?;
    let (mut layer, x) = (example(source, kind)?, x.f_to_kind(kind)?);
    let y = layer.forward(&x)?;
    let _ = layer.backward(&slope(&y, &target)?)?;
    let values: Vec<Tensor> = layer.parameters().iter().map(|(_, p)| p.value.shallow_clone()).collect();
    let hand: Vec<Tensor> = layer.parameters().iter().map(|(_, p)| p.grad.shallow_clone()).collect();
    let mut points = Vec::new();
    for half in 0..=30 {
        let h = 10f64.powf(-f64::from(half) / 2.0);
        let mut loss = || cross_entropy(&layer.forward(&x)?, &target);
        let (mut error, mut size) = (0.0, 0.0);
        for (value, hand) in values.iter().zip(&hand) {
            let found = if two_sided {
                central(value, h, &mut loss)?
            } else {
                shifted(value, h, &mut loss)?.f_sub(&loss()?)?.f_div_scalar(h)?
            };
            error += norm(&found.f_sub(hand)?)?.powi(2);
            size += norm(hand)?.powi(2);
        }
        points.push((h, (error / size).sqrt()));
    }
    Ok(Series { name: name.into(), points, markers: true, ..Series::default() })
}

/// Draws the curves, and says where the best step is.
pub fn figure(page: &mut Page, source: Source) -> Result<String> {
    let series = vec![
        curve(source, "one-sided, f64", Kind::Double, false)?,
        curve(source, "central, f64", Kind::Double, true)?,
        curve(source, "central, f32", Kind::Float, true)?,
    ];
    let mut found = Vec::new();
    for s in &series {
        let best = s.points.iter().min_by(|a, b| a.1.total_cmp(&b.1)).context("no point")?;
        page.fact(&format!("step.{}", s.name), vec![best.0, best.1]);
        page.fact(&format!("step.{}.errors", s.name), s.points.iter().map(|p| p.1).collect::<Vec<_>>());
        found.push(format!("{} {:.0e} (error {:.0e})", s.name, best.0, best.1));
    }
    let panel = Panel::Lines(Lines {
        title: "all of A and B, cross-entropy loss".into(),
        x: Axis { label: "step h of the finite difference".into(), log: true, range: None },
        y: Axis { label: "relative error of the finite difference".into(), log: true, range: None },
        series,
    });
    page.figure(
        "scratch_lora_steps",
        Figure {
            title: "Finite differences of a gradient by hand".into(),
            rows: vec![vec![panel]],
            note: Some(
                "To the right the curve of the loss limits the check (h or h²), to the left rounding (ε/h)."
                    .into(),
            ),
        },
    )?;
    Ok(format!(
        "A gradient check has a best step, between the loss's curve and rounding: {}.",
        found.join(", ")
    ))
}
