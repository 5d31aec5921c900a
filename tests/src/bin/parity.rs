//! Compares adapters and goldens written by Python PEFT with what this workspace computes.

use anyhow::Result;
use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use std::path::PathBuf;
use std::process::ExitCode;
use tests::parity::{Errors, Outcome, compare, folder_name, others};

/// Worst relative errors against Python PEFT, method by method.
///
/// Each DIR is a family as the golden generator lays it out: `base` with a Hub model, and beside it one folder a method
/// with adapter_config.json, adapter_model.safetensors and golden.safetensors. Exits with 1 when an error is over the
/// tolerance, or a method cannot be compared.
#[derive(Parser)]
struct Args {
    /// Families to compare.
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
    /// Largest relative error that passes.
    #[arg(long, default_value_t = 1e-5)]
    tol: f64,
    /// Print one JSON object a method instead of a table.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    tch::set_num_threads(1);
    let mut failed = 0;
    for dir in &args.dirs {
        let outcomes = compare(dir, &|_| true)?;
        failed += outcomes.iter().filter(|(_, o)| !passes(o, args.tol)).count();
        match args.json {
            true => print_json(&outcomes, args.tol)?,
            false => print_table(&folder_name(dir), &outcomes, args.tol),
        }
    }
    for dir in &args.dirs {
        for name in others(dir)? {
            eprintln!("{}/{name}: no adapter to load; `cargo test -p tests` compares it", dir.display());
        }
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn passes(outcome: &Result<Errors>, tol: f64) -> bool {
    outcome.as_ref().is_ok_and(|e| e.most() <= tol)
}

fn print_json(outcomes: &[Outcome], tol: f64) -> Result<()> {
    for (dir, outcome) in outcomes {
        let mut line = match outcome {
            Ok(e) => serde_json::to_value(e)?,
            Err(e) => serde_json::json!({ "method": folder_name(dir), "error": format!("{e:#}") }),
        };
        line["dir"] = dir.display().to_string().into();
        line["ok"] = passes(outcome, tol).into();
        println!("{line}");
    }
    Ok(())
}

fn print_table(family: &str, outcomes: &[Outcome], tol: f64) {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header([family, "base", "start", "logits", "merged", "loss", "gradients", ""]);
    for (dir, outcome) in outcomes {
        let number = |e: f64| format!("{e:.1e}");
        let optional = |e: Option<f64>| e.map_or("-".into(), number);
        let verdict = if passes(outcome, tol) { "ok" } else { "FAILED" };
        match outcome {
            Ok(e) => {
                let (merged, loss, gradients) = (optional(e.merged), optional(e.loss), optional(e.gradients));
                let row = [
                    number(e.base),
                    optional(e.start),
                    number(e.logits),
                    merged,
                    loss,
                    gradients,
                    verdict.into(),
                ];
                table.add_row([e.method.clone()].into_iter().chain(row));
            }
            Err(_) => drop(table.add_row([&folder_name(dir), "", "", "", "", "", "", verdict])),
        }
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
    for (dir, outcome) in outcomes {
        match outcome {
            Err(e) => println!("{}: {e:#}", folder_name(dir)),
            Ok(e) if e.most().is_nan() || e.most() > tol => {
                println!("{}: worst gradient: {}", e.method, e.worst);
            }
            Ok(_) => {}
        }
    }
}
