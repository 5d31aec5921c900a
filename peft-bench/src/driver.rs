//! Runs the cases one after the other, each in a worker process, and collects what they say.

use crate::cases::{CASES, Case};
use crate::cli::Options;
use crate::record::{Data, Figures, Job, Message, Record, Work, versions};
use crate::table;
use crate::text::Source;
use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

/// One run as it ended.
#[derive(Debug)]
pub struct Run {
    pub method: &'static str,
    pub seed: i64,
    pub result: std::result::Result<Figures, String>,
}

/// The whole benchmark; `false` when a run failed.
pub fn run(options: &Options) -> Result<bool> {
    let cases = options.cases()?;
    if options.list {
        writeln!(std::io::stdout(), "{}", table::list(CASES))?;
        return Ok(true);
    }
    let seeds = options.seeds()?;
    check(options)?;
    let mut json = options.json.as_deref().map(open_json).transpose()?;
    let bases = tempfile::tempdir()?;
    let (mut runs, mut told) = (Vec::new(), BTreeSet::new());
    for seed in seeds {
        let data = match (&options.model, &options.train, &options.test) {
            (Some(model), Some(train), Some(test)) => Ok(Data::Text {
                model: model.clone(),
                train: train.clone(),
                test: test.clone(),
                epochs: options.epochs,
                new_head: options.new_head,
            }),
            _ => {
                let base = bases.path().join(format!("{seed}.safetensors"));
                let job = job(options, seed, Work::Pretrain { base: base.clone() });
                worker(&job, &format!("seed {seed}: base"), &mut told).map(|_| Data::Synthetic { base })
            }
        };
        for case in &cases {
            let result = data.clone().and_then(|data| one(options, seed, case, data, &mut told));
            let run = Run { method: case.name, seed, result };
            if let Some(file) = &mut json {
                write_record(file, options, &run)?;
            }
            runs.push(run);
        }
    }
    writeln!(std::io::stdout(), "{}", table::results(&cases, &runs))?;
    let failed = runs.iter().filter(|r| r.result.is_err()).count();
    if failed > 0 {
        eprintln!("{failed} of {} runs failed", runs.len());
    }
    Ok(failed == 0)
}

/// What would be wrong with every run is said once, before the first.
fn check(options: &Options) -> Result<()> {
    if options.steps == Some(0) || options.batch == Some(0) {
        bail!("--steps and --batch must be positive");
    }
    for path in [&options.model, &options.train, &options.test].into_iter().flatten() {
        if !path.exists() {
            bail!("{}: no such file or directory", path.display());
        }
    }
    if let (Some(model), Some(train), Some(test)) = (&options.model, &options.train, &options.test) {
        Source { model, train, test, epochs: options.epochs, new_head: options.new_head }.check()?;
    }
    options.device.open()?;
    Ok(())
}

fn job(options: &Options, seed: i64, work: Work) -> Job {
    Job { seed, device: options.device.to_string(), threads: options.threads, work }
}

fn one(
    options: &Options,
    seed: i64,
    case: &Case,
    data: Data,
    told: &mut BTreeSet<String>,
) -> std::result::Result<Figures, String> {
    let (steps, batch, lr) = (options.steps, options.batch, options.lr);
    let work = Work::Case { method: case.name.to_owned(), data, steps, batch, lr };
    let figures = worker(&job(options, seed, work), &format!("seed {seed}: {}", case.name), told)?;
    figures.ok_or_else(|| "ended without figures".into())
}

/// Runs one job to its end. Notes go to standard error, each once; the error is one line.
fn worker(
    job: &Job,
    title: &str,
    told: &mut BTreeSet<String>,
) -> std::result::Result<Option<Figures>, String> {
    let program = std::env::current_exe().map_err(|e| format!("finding this program: {e}"))?;
    let mut command = Command::new(program);
    command.arg("--worker");
    supervise(command, job, title, told)
}

fn supervise(
    mut command: Command,
    job: &Job,
    title: &str,
    told: &mut BTreeSet<String>,
) -> std::result::Result<Option<Figures>, String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| format!("starting a worker: {e}"))?;
    let words = child.stderr.take().map(|mut stderr| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        })
    });
    if let Some(mut stdin) = child.stdin.take() {
        // A worker that dies at once breaks the pipe; how it ended says more.
        let _ = serde_json::to_writer(&mut stdin, job);
    }
    let bar = progress_bar(title);
    let mut last = None;
    for line in child.stdout.take().map(|out| BufReader::new(out).lines()).into_iter().flatten() {
        let Ok(line) = line else { break };
        match serde_json::from_str(&line) {
            Ok(Message::Progress(done, of)) => {
                bar.set_length(of);
                bar.set_position(done);
            }
            Ok(Message::Note(text)) => {
                if told.insert(text.clone()) {
                    bar.suspend(|| eprintln!("note: {text}"));
                }
            }
            Ok(message) => last = Some(message),
            Err(_) => bar.suspend(|| eprintln!("{line}")),
        }
    }
    let status = child.wait().map_err(|e| format!("waiting for a worker: {e}"))?;
    let words = words.and_then(|w| w.join().ok()).unwrap_or_default();
    bar.finish_and_clear();
    match last {
        Some(Message::Done(figures)) if status.success() => Ok(Some(*figures)),
        Some(Message::Pretrained) if status.success() => Ok(None),
        Some(Message::Failed(why)) => Err(why),
        _ => Err(crash(status, &words)),
    }
}

/// How a worker ended that did not say so itself.
fn crash(status: ExitStatus, words: &str) -> String {
    let last =
        words.lines().rev().find(|l| !l.trim().is_empty()).map(|l| format!(": {l}")).unwrap_or_default();
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        let hint = if signal == 9 { " (killed; out of memory?)" } else { "" };
        return format!("crashed with signal {signal}{hint}{last}");
    }
    format!("crashed, {status}{last}")
}

/// A bar on standard error, if that is a terminal.
fn progress_bar(title: &str) -> ProgressBar {
    let bar = ProgressBar::new(0).with_message(title.to_owned());
    if let Ok(style) = ProgressStyle::with_template("{msg:28} {bar:30} {pos}/{len} steps, {eta} left") {
        bar.set_style(style);
    }
    bar
}

fn open_json(path: &Path) -> Result<std::fs::File> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    }
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .with_context(|| format!("opening {}", path.display()))
}

fn write_record(file: &mut std::fs::File, options: &Options, run: &Run) -> Result<()> {
    let name = if options.model.is_some() { "text" } else { "synthetic" };
    let task = serde_json::json!({
        "name": name, "model": options.model, "train": options.train, "test": options.test, "epochs": options.epochs,
        "batch": options.batch, "threads": options.threads,
    });
    let record = Record {
        method: run.method,
        seed: run.seed,
        device: &options.device.to_string(),
        task: &task,
        versions: versions(),
        figures: run.result.as_ref().ok(),
        error: run.result.as_ref().err().map(String::as_str),
    };
    let mut line = serde_json::to_vec(&record)?;
    line.push(b'\n');
    // One write a line: a reader never sees half of one.
    file.write_all(&line).context("writing the JSON line")
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn job() -> Job {
        let work = Work::Pretrain { base: "unused".into() };
        Job { seed: 0, device: "cpu".into(), threads: None, work }
    }

    fn shell(script: &str) -> std::result::Result<Option<Figures>, String> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        supervise(command, &job(), "test", &mut BTreeSet::new())
    }

    #[test]
    fn a_crash_is_a_row_that_says_so() {
        assert_eq!(shell("kill -9 $$").unwrap_err(), "crashed with signal 9 (killed; out of memory?)");
        assert_eq!(shell("kill -6 $$").unwrap_err(), "crashed with signal 6");
        let text = shell("echo 'terminate called' >&2; exit 3").unwrap_err();
        assert!(text.contains('3') && text.ends_with("terminate called"), "{text}");
        assert_eq!(shell(r#"echo '{"Failed":"the loss is NaN"}'"#).unwrap_err(), "the loss is NaN");
        // Words without a good end count for nothing.
        assert!(shell(r#"echo '"Pretrained"'; kill -9 $$"#).is_err());
        assert_eq!(shell(r#"echo '"Pretrained"'"#), Ok(None));
    }
}
