//! What serving several adapters costs: a batch whose rows have an adapter each, against the same batch without any.

use anyhow::{Context, Result};
use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use peft_bench::mixed::{Job, Measured, Shape, measure};
use peft_core::device::Threads;
use std::io::Write;
use std::process::ExitCode;

/// Times a batch with an adapter for each row, merged, one for all, and row by row, against the base.
///
/// A Llama of random weights; LoRA on every linear layer of its blocks. Each round runs every way once, one after the other,
/// so that a noisy machine disturbs them alike; what is printed is the median of the rounds' ratios to the base. Times
/// are the thread's CPU time where the system has it, else those of the wall clock. `all logits` computes the logits of
/// every token, as training and scoring do, `last logits` those of the last position, as generation does for a prompt,
/// and `decode` one more token of every row, with a cache.
#[derive(Debug, Parser)]
struct Options {
    /// Adapters, one a row of the batch
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(i64).range(1..))]
    rows: i64,
    /// Rank of the adapters
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(i64).range(1..))]
    rank: i64,
    /// Tokens a row
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(i64).range(1..))]
    tokens: i64,
    /// Rounds
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Tokens decoded in a round
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(i64).range(1..))]
    steps: i64,
    /// Width of the model
    #[arg(long, default_value_t = 768, value_parser = clap::value_parser!(i64).range(1..))]
    hidden: i64,
    /// Layers of the model
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(i64).range(1..))]
    layers: i64,
    /// Heads of its attention, into which the width is divided
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(i64).range(1..))]
    heads: i64,
    /// Heads of its keys and values, each for as many of the others
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(i64).range(1..))]
    kv_heads: i64,
    /// Width of the feed-forward part
    #[arg(long, default_value_t = 2048, value_parser = clap::value_parser!(i64).range(1..))]
    ffn: i64,
    /// Words of its vocabulary
    #[arg(long, default_value_t = 32000, value_parser = clap::value_parser!(i64).range(1..))]
    vocab: i64,
    #[arg(long, default_value_t = Threads::ONE, help = Threads::HELP)]
    threads: Threads,
    /// Seed of weights, adapters and tokens
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    seed: i64,
    /// Print one JSON object a measurement instead of a table
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    peft_core::program::exit(run(&Options::parse()).map(|()| true))
}

fn run(o: &Options) -> Result<()> {
    tch::manual_seed(o.seed);
    let job = Job {
        shape: Shape {
            hidden: o.hidden,
            layers: o.layers,
            heads: o.heads,
            kv_heads: o.kv_heads,
            ffn: o.ffn,
            vocab: o.vocab,
        },
        rows: o.rows,
        rank: o.rank,
        tokens: o.tokens,
        rounds: o.rounds,
        threads: o.threads,
        steps: o.steps,
    };
    let measured = measure(&job)?;
    if o.json {
        for m in &measured {
            writeln!(std::io::stdout(), "{}", serde_json::to_string(m)?)?;
        }
        return Ok(());
    }
    print_table(&measured)
}

fn print_table(measured: &[Measured]) -> Result<()> {
    let first = measured.first().context("nothing was measured")?;
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["relative to the base", "all logits", "last logits", "decode"]);
    let ways = measured.iter().filter(|m| m.what == first.what);
    for way in ways.map(|m| m.way) {
        let cells = measured.iter().filter(|m| m.way == way).map(|m| match m.way == first.way {
            true => format!("{:.1} ms", m.ms),
            false => format!("{:.3}", m.ratio),
        });
        table.add_row([way.to_owned()].into_iter().chain(cells));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    Ok(writeln!(std::io::stdout(), "{table}")?)
}
