//! A small training that is done over and over, and what must be the same each time.

use crate::golden;
use crate::random::Random;
use crate::reliability::PEFT;
use anyhow::{Context, Result, bail, ensure};
use peft_cli::watch::{Event, Step, events};
use peft_core::train::Checkpoints;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// A model, its data and a recipe: what `peft train` needs.
#[derive(Debug)]
pub struct Trial {
    root: TempDir,
    /// The program that is [`as_peft`](super::as_peft) if it is asked to.
    program: PathBuf,
}

/// What a training must end with whatever was done to it, to the byte.
#[derive(Debug, PartialEq)]
pub struct Ended {
    adapter: BTreeMap<String, Vec<u8>>,
    metrics: Vec<Event>,
}

/// The last step of a trial.
pub const STEPS: u64 = 24;

impl Trial {
    /// A trial of `family`, a folder of the goldens: `bert`, to be trained on classes, or `llama`, on next tokens. With dropout
    /// and accumulation; every second step is saved, every third evaluated.
    pub fn new(program: impl Into<PathBuf>, family: &str) -> Result<Self> {
        let trial = Self { root: tempfile::tempdir()?, program: program.into() };
        let model = trial.path("model");
        fs::create_dir(&model)?;
        for (from, name) in [("base", "config.json"), ("base", "model.safetensors")] {
            fs::copy(golden(family).join(from).join(name), model.join(name))?;
        }
        fs::copy(golden("text").join(family).join("tokenizer.json"), model.join("tokenizer.json"))?;
        for (name, rows, seed) in [("train.jsonl", 40, 1), ("eval.jsonl", 10, 2)] {
            fs::write(trial.path(name), texts(rows, family == "bert", seed))?;
        }
        let recipe = format!(
            "model = {model:?}\ndata = {:?}\neval_data = {:?}\noutput = {:?}\nmax_steps = {STEPS}\nepochs = 100\n\
             batch = 8\nmicro_batch = 3\nsave_every = 2\neval_every = 3\nlr = 1e-2\nmethod = \"lora\"\n\
             [set]\nr = 4\nlora_dropout = 0.1\n",
            trial.path("train.jsonl"),
            trial.path("eval.jsonl"),
            trial.path("run"),
        );
        fs::write(trial.recipe(), recipe)?;
        Ok(trial)
    }

    /// Something of the trial: `model`, `train.jsonl`, `eval.jsonl`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The recipe.
    pub fn recipe(&self) -> PathBuf {
        self.path("recipe.toml")
    }

    /// `peft train RECIPE --output OUT` with `more`, as a child that is not started yet.
    pub fn train(&self, out: &Path, more: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(PEFT).arg("train").arg(self.recipe()).arg("--output").arg(out).args(more);
        // One thread of many libraries is enough for a model of that size.
        command.env("OMP_NUM_THREADS", "1").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// Trains to the end, and what that ends with.
    pub fn undisturbed(&self, out: &Path) -> Result<Ended> {
        let done = self.train(out, &[]).output()?;
        ensure!(done.status.success(), "{}: {}", done.status, text(&done));
        Ended::read(out)
    }

    /// That the child ended with this code, and with one line of error that has all of `parts`, where any are given.
    pub fn ended(done: &Output, code: i32, parts: &[&str]) -> Result<String> {
        let text = text(done);
        ensure!(done.status.code() == Some(code), "{}, expected exit code {code}: {text}", done.status);
        if parts.is_empty() {
            return Ok(text);
        }
        let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("error: ")).collect();
        let [error] = errors.as_slice() else { bail!("expected one line of error: {text}") };
        ensure!(text.trim_end().ends_with(error), "the error is not the last line: {text}");
        match parts.iter().find(|part| !error.contains(**part)) {
            Some(part) => bail!("the error lacks `{part}`: {error}"),
            None => Ok((*error).to_owned()),
        }
    }
}

/// What a child has said.
fn text(done: &Output) -> String {
    String::from_utf8_lossy(&done.stderr).into_owned()
}

impl Ended {
    /// The adapter of a training, and what it has recorded of its steps, which must be there once each.
    pub fn read(dir: &Path) -> Result<Self> {
        let read = |name: &str| -> Result<(String, Vec<u8>)> {
            let path = dir.join(name);
            Ok((name.to_owned(), fs::read(&path).with_context(|| path.display().to_string())?))
        };
        let adapter = ["adapter_config.json", "adapter_model.safetensors"].map(read);
        let (events, warnings) = events(dir)?;
        ensure!(warnings.is_empty(), "{warnings:?}");
        let steps = events.iter().filter_map(|e| if let Event::Step(s) = e { Some(s.step) } else { None });
        let steps: Vec<u64> = steps.collect();
        ensure!(steps == (1..=STEPS).collect::<Vec<_>>(), "metrics.jsonl has steps {steps:?}");
        // How long it took, and how much memory, is not the same each time.
        let metrics = events.into_iter().map(|event| match event {
            Event::Step(step) => Event::Step(Step { seconds: 0.0, memory: None, ..step }),
            Event::Eval { step, epoch, loss, figures, .. } => {
                Event::Eval { step, epoch, loss, figures, seconds: 0.0 }
            }
            other => other,
        });
        Ok(Self { adapter: adapter.into_iter().collect::<Result<_>>()?, metrics: metrics.collect() })
    }

    /// That this is what an undisturbed training ends with.
    pub fn check(&self, undisturbed: &Self) -> Result<()> {
        for (name, bytes) in &undisturbed.adapter {
            ensure!(self.adapter.get(name) == Some(bytes), "{name} is not that of an undisturbed training");
        }
        let other = self.metrics.iter().zip(&undisturbed.metrics).find(|(a, b)| a != b);
        ensure!(self.metrics == undisturbed.metrics, "metrics.jsonl is another: {other:?}");
        Ok(())
    }
}

/// What is in a directory of a training at any moment: checkpoints that are whole, and of others no name that would be
/// taken for one. How many there are.
pub fn whole(out: &Path) -> Result<usize> {
    let newest = Checkpoints::new(out.join("checkpoints")).newest()?;
    ensure!(newest.torn.is_empty(), "{:?}", newest.torn);
    Ok(usize::from(newest.found.is_some()))
}

/// Rows of three to ten words, all different, with a class where that is asked for.
fn texts(rows: usize, classes: bool, seed: u64) -> String {
    let words =
        ["the", "cat", "dog", "sat", "ran", "on", "a", "mat", "far", "away", "red", "blue", "small", "big"];
    let mut random = Random::new(seed);
    let mut all = String::new();
    for _ in 0..rows {
        let row: Vec<&str> = (0..3 + random.below(8)).map(|_| *random.of(&words)).collect();
        let text = row.join(" ");
        let _ = match classes {
            true => writeln!(all, "{{\"text\": {text:?}, \"label\": \"{}\"}}", row.len() % 3),
            false => writeln!(all, "{{\"text\": {text:?}}}"),
        };
    }
    all
}
