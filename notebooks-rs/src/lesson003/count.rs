//! Section 1: the helpers that count, and what one copy of a model for each task costs.

use super::cells::{Cell2, LORA};
use super::llama::{HALF, LLAMA_7B, SINGLE, gigabytes};
use crate::{Mistake, Page, Setting};
use anyhow::Result;
use peft_core::report::commas;
use peft_core::{Peft, Report};
use peft_plot::{Axis, Figure, Lines, Panel, Series};

/// The lesson's `count_parameters`: all parameters and the trainable ones, with the named adapters.
pub fn count_parameters(peft: &Peft, active: &[&str]) -> Result<Report> {
    Ok(peft.report(active)?)
}

/// The lesson's `print_parameter_stats`, line by line.
pub fn print_parameter_stats(page: &mut Page, counted: &Report, name: &str) -> Result<()> {
    page.line("")?;
    page.line(format!("{name}:"))?;
    page.line(format!("Total parameters: {}", commas(counted.all)))?;
    page.line(format!("Trainable parameters: {}", commas(counted.trainable)))?;
    page.line(format!("Trainable percentage: {:.2}%", counted.percent()))?;
    Ok(())
}

/// 1. Understanding PEFT: Why Do We Need It?
pub fn review_parameters(setting: Setting, page: &mut Page) -> Result<()> {
    let cell = Cell2::draw(setting)?;
    for (name, peft, active) in [
        ("Linear layer, trained", &cell.full, vec!["full"]),
        ("Linear layer, frozen", &cell.full, vec![]),
        ("Frozen layer with LoRA (r=8)", &cell.r8, vec![LORA]),
    ] {
        print_parameter_stats(page, &count_parameters(peft, &active)?, name)?;
    }
    let (base, lora) = (LLAMA_7B.params(), LLAMA_7B.lora(16));
    page.fact("llama.params", base);
    page.fact("llama.lora", lora);
    let (copy, adapter) = (gigabytes(base * HALF), gigabytes(lora * HALF));
    let tasks = [1, 2, 5, 10, 20];
    let stored = |n: i64| (copy * n as f64, copy + adapter * n as f64);
    page.table(
        "LLaMA-7B in half precision: what has to be stored for so many tasks, in GB",
        ["tasks", "a copy each", "one base, LoRA r = 16 each", "copies / adapters"],
        tasks
            .iter()
            .map(|&n| {
                let (copies, adapters) = stored(n);
                vec![
                    n.to_string(),
                    format!("{copies:.2}"),
                    format!("{adapters:.2}"),
                    format!("{:.2}", copies / adapters),
                ]
            })
            .collect(),
    )?;
    let series = |name: &str, of: &dyn Fn(i64) -> f64| Series {
        name: name.into(),
        points: tasks.iter().map(|&n| (n as f64, of(n))).collect(),
        markers: true,
        ..Default::default()
    };
    page.figure(
        "review_parameters_storage",
        Figure {
            title: "Storage for many tasks".into(),
            rows: vec![vec![Panel::Lines(Lines {
                title: "LLaMA-7B, half precision".into(),
                x: Axis { label: "tasks".into(), ..Default::default() },
                y: Axis { label: "stored (GB)".into(), ..Default::default() },
                series: vec![
                    series("a copy for each task", &|n| stored(n).0),
                    series("one base and a LoRA (r=16) for each task", &|n| stored(n).1),
                ],
            })]],
            note: Some("Numbers of parameters times 2 bytes.".into()),
        },
    )?;
    page.mistakes(&[Mistake::new(
        "\"each fine-tuned model needs ~13GB\" is its size in half precision; training it needs more",
        format!("{} parameters x {HALF} bytes = {copy:.2} GB to store", commas(base)),
        format!(
            "{:.0} GB to train: weights, gradients and Adam's two averages, x {SINGLE} bytes; with LoRA r = 16 over a \
             half-precision base {:.1} GB",
            gigabytes(4 * base * SINGLE),
            copy + gigabytes(4 * lora * SINGLE),
        ),
    )])?;
    page.what_to_see(&[
        "A parameter counts as trainable if it has requires_grad: the lesson's two helpers are this library's `report`."
            .into(),
        format!(
            "A layer by itself gains little: LoRA r = 8 trains {:.2} % here, but {:.3} % of a 7B model at q and v, where \
             the share in one weight is 2 r / d and most weights have none.",
            count_parameters(&cell.r8, &[LORA])?.percent(),
            100.0 * LLAMA_7B.lora(8) as f64 / base as f64,
        ),
        format!(
            "A LoRA of r = 16 is {} parameters, {:.1} MB a task: {:.0} of them weigh as much as one copy of the model.",
            commas(lora),
            1e3 * adapter,
            copy / adapter,
        ),
    ])?;
    Ok(())
}
