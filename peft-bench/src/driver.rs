//! The benchmark as its command line asks for it: a sweep with progress bars, JSON lines and a table.

use crate::cases::CASES;
use crate::cli::Options;
use crate::figures;
use crate::record::{Figures, Message, Outcome, Record, versions};
use crate::sweep::{On, Place, Planned, Sweep};
use crate::synthetic::PRETRAIN_STEPS;
use crate::table;
use crate::text::Source;
use anyhow::{Context, Result, bail, ensure};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

/// The whole benchmark; `false` when a run failed.
pub fn run(options: &Options) -> Result<bool> {
    let cases = options.cases()?;
    if options.list {
        writeln!(std::io::stdout(), "{}", table::list(CASES))?;
        return Ok(true);
    }
    let sweep = sweep(options)?;
    let mut json = options.json.as_deref().map(open_json).transpose()?;
    let mut screen = Screen::default();
    let results = sweep.run(Place::Workers(options.jobs), |planned, message| {
        screen.show(planned, message);
        let (Some(method), Some(file)) = (planned.method, &mut json) else { return Ok(()) };
        match message {
            Message::Ended(Outcome::Trained(figures)) => {
                write_record(file, options, method, planned.seed, Ok(figures))
            }
            Message::Failed(why) => write_record(file, options, method, planned.seed, Err(why)),
            _ => Ok(()),
        }
    })?;
    writeln!(std::io::stdout(), "{}", table::results(&cases, &results.runs))?;
    if let Some(dir) = &options.plots {
        let summaries = results.summaries();
        ensure!(!summaries.is_empty(), "--plots: no run ended well");
        for (name, figure) in [
            ("accuracy", figures::accuracy(&summaries, results.unadapted())),
            ("losses", figures::losses(&summaries)),
        ] {
            for file in figure.save(dir, name)? {
                writeln!(std::io::stdout(), "{}", file.display())?;
            }
        }
    }
    let failed = results.runs.iter().filter(|r| r.result.is_err()).count();
    if failed > 0 {
        eprintln!("{failed} of {} runs failed", results.runs.len());
    }
    Ok(failed == 0)
}

/// What was asked for. What would be wrong with every run is said once, before the first.
fn sweep(options: &Options) -> Result<Sweep> {
    if options.steps == Some(0) || options.batch == Some(0) || options.jobs == 0 {
        bail!("--steps, --batch and --jobs must be positive");
    }
    for path in [&options.model, &options.train, &options.test].into_iter().flatten() {
        if !path.exists() {
            bail!("{}: no such file or directory", path.display());
        }
    }
    let on = match (options.model.clone(), options.train.clone(), options.test.clone()) {
        (Some(model), Some(train), Some(test)) => {
            let source = Source { model, train, test, epochs: options.epochs, new_head: options.new_head };
            source.check()?;
            On::Text(source)
        }
        _ => On::Synthetic { pretrain_steps: PRETRAIN_STEPS, scratch: false },
    };
    options.device.open()?;
    if let Some(dir) = &options.plots {
        peft_plot::make_directory(dir)?;
    }
    Ok(Sweep {
        cases: options.cases()?,
        seeds: options.seeds()?,
        on,
        device: options.device.to_string(),
        threads: options.threads,
        steps: options.steps,
        batch: options.batch,
        lr: options.lr,
    })
}

/// Standard error: a bar for each job that runs, if that is a terminal, and notes, each once.
#[derive(Default)]
struct Screen {
    bars: MultiProgress,
    running: BTreeMap<usize, ProgressBar>,
    told: BTreeSet<String>,
}

impl Screen {
    fn show(&mut self, planned: &Planned, message: &Message) {
        match message {
            Message::Progress(done, of) => {
                let start = || self.bars.add(progress_bar(&planned.title(), *of));
                self.running.entry(planned.index).or_insert_with(start).set_position(*done);
            }
            Message::Note(text) => {
                if self.told.insert(text.clone()) {
                    self.bars.suspend(|| eprintln!("note: {text}"));
                }
            }
            Message::Ended(_) | Message::Failed(_) => {
                if let Some(bar) = self.running.remove(&planned.index) {
                    bar.finish_and_clear();
                }
            }
        }
    }
}

fn progress_bar(title: &str, steps: u64) -> ProgressBar {
    let bar = ProgressBar::new(steps).with_message(title.to_owned());
    match ProgressStyle::with_template("{msg:28} {bar:30} {pos}/{len} steps, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn open_json(path: &Path) -> Result<File> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    }
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .with_context(|| format!("opening {}", path.display()))
}

fn write_record(
    file: &mut File,
    options: &Options,
    method: &str,
    seed: i64,
    result: std::result::Result<&Figures, &str>,
) -> Result<()> {
    let name = if options.model.is_some() { "text" } else { "synthetic" };
    let task = serde_json::json!({
        "name": name, "model": options.model, "train": options.train, "test": options.test, "epochs": options.epochs,
        "batch": options.batch, "threads": options.threads, "jobs": options.jobs,
    });
    let record = Record {
        method,
        seed,
        device: &options.device.to_string(),
        task: &task,
        versions: versions(),
        figures: result.ok(),
        error: result.err(),
    };
    let mut line = serde_json::to_vec(&record)?;
    line.push(b'\n');
    // One write a line: a reader never sees half of one.
    file.write_all(&line).and_then(|()| file.sync_data()).context("writing the JSON line")
}
