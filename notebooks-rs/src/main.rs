//! The table of contents: every lesson, every section, and the program that runs it.

use clap::Parser;
use notebooks_rs::page::{Table, grid};
use notebooks_rs::{DOCUMENTS, Document};
use peft_core::program::exit;
use std::io::Write;
use std::process::ExitCode;

/// Five lessons on parameter-efficient fine-tuning; each section is a program of its own, `--bin NAME`
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// Show all lessons and sections (this is what happens without options, too)
    #[arg(long)]
    list: bool,

    /// Print the list as JSON
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    exit(list(&Options::parse()).map(|()| true))
}

fn list(options: &Options) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    if options.json {
        let lessons: Vec<_> = DOCUMENTS.iter().map(|d| json(d)).collect();
        writeln!(out, "{}", serde_json::Value::from(lessons))?;
        return Ok(());
    }
    for d in DOCUMENTS {
        let row =
            |s: &notebooks_rs::Section| [s.number, s.name, s.title, s.about].map(str::to_owned).to_vec();
        let columns = ["", "program", "section", "what it shows"].map(str::to_owned).to_vec();
        let table = Table { title: String::new(), columns, rows: d.sections.iter().map(row).collect() };
        writeln!(out, "Lesson {}: {}\n{}\n", d.number, d.title, grid(&table))?;
    }
    writeln!(
        out,
        "Run one with: cargo run --release -p notebooks-rs --bin NAME -- [--plots DIR] [--json] [--help]"
    )?;
    Ok(())
}

fn json(d: &Document) -> serde_json::Value {
    let sections = d.sections.iter().map(|s| {
        serde_json::json!({
            "program": s.name, "number": s.number, "title": s.title, "about": s.about, "seed": s.seed,
        })
    });
    serde_json::json!({ "lesson": d.number, "title": d.title, "sections": sections.collect::<Vec<_>>() })
}
