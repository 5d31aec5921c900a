//! A training of many steps in this process, whose memory must not grow.

use crate::reliability::Trial;
use anyhow::{Context, Result, ensure};
use peft_sys::memory;
use std::fmt;
use std::fs;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Memory over a training, as it was sampled.
#[derive(Debug)]
pub struct Soak {
    pub steps: u64,
    samples: Vec<Sample>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    /// Steps that were recorded.
    step: f64,
    /// Bytes of the process.
    resident: f64,
    /// Bytes of tensors.
    tensors: f64,
}

/// By how much the last half may grow: 1 MB.
pub const GROWTH: f64 = 1e6;

impl Soak {
    /// Trains so many steps by `peft`, with evaluations and checkpoints, and looks at its memory meanwhile.
    pub fn new(trial: &Trial, steps: u64) -> Result<Self> {
        let out = trial.path("soak");
        let flags = [
            ("--max-steps", steps),
            ("--epochs", steps),
            ("--save-every", (steps / 40).max(1)),
            ("--eval-every", (steps / 80).max(1)),
        ];
        let mut arguments =
            vec!["peft".into(), "train".into(), "--quiet".into(), trial.recipe().into_os_string()];
        arguments.extend(["--output".into(), out.clone().into_os_string()]);
        arguments.extend(flags.map(|(flag, n)| format!("{flag}={n}").into()));
        memory::install();
        let done = AtomicBool::new(false);
        let (code, samples) = thread::scope(|scope| {
            let sampler = scope.spawn(|| {
                let mut samples = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    // The file has a line a step, of lengths that are much the same.
                    let length = fs::metadata(out.join("metrics.jsonl")).map_or(0, |m| m.len());
                    if let (true, Some(resident)) = (length > 0, resident()) {
                        samples.push(Sample {
                            step: length as f64,
                            resident,
                            tensors: memory::live() as f64,
                        });
                    }
                    thread::sleep(Duration::from_millis(10));
                }
                samples
            });
            let code = peft_cli::main(arguments);
            done.store(true, Ordering::Relaxed);
            (code, sampler.join())
        });
        ensure!(code == ExitCode::SUCCESS, "the training failed");
        let mut samples: Vec<Sample> = samples.ok().context("the sampler")?;
        // What comes behind the last step is no training any more.
        let end = samples.last().context("no sample")?.step;
        samples.iter_mut().for_each(|s| s.step *= steps as f64 / end);
        samples.retain(|s| s.step < steps as f64 * 0.999);
        ensure!(samples.len() >= 40, "only {} samples: too few steps", samples.len());
        Ok(Self { steps, samples })
    }

    /// What the last half of the steps grew by: the mean of its last fifth beyond that of its first.
    fn growth(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        let between = |from: f64, to: f64| {
            let within = |s: &&Sample| (from..to).contains(&(s.step / self.steps as f64));
            let all: Vec<f64> = self.samples.iter().filter(within).map(&of).collect();
            all.iter().sum::<f64>() / all.len().max(1) as f64
        };
        between(0.9, 1.0) - between(0.5, 0.6)
    }

    /// Bytes a thousand steps, by least squares over the last half.
    fn slope(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        let half: Vec<&Sample> = self.samples.iter().filter(|s| s.step > self.steps as f64 / 2.0).collect();
        let n = half.len().max(1) as f64;
        let mean = |f: &dyn Fn(&Sample) -> f64| half.iter().map(|s| f(s)).sum::<f64>() / n;
        let (x, y) = (mean(&|s| s.step), mean(&|s| of(s)));
        let over = half.iter().map(|s| (s.step - x) * (of(s) - y)).sum::<f64>();
        over / half.iter().map(|s| (s.step - x).powi(2)).sum::<f64>().max(1.0) * 1000.0
    }

    /// That memory is flat.
    pub fn check(&self) -> Result<()> {
        for (what, growth) in
            [("the process", self.growth(|s| s.resident)), ("its tensors", self.growth(|s| s.tensors))]
        {
            ensure!(growth < GROWTH, "{what} grew by {growth:.0} bytes in the last half: {self}");
        }
        Ok(())
    }
}

/// What is looked at of a sample.
type Figure = fn(&Sample) -> f64;

impl fmt::Display for Soak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} steps, {} samples", self.steps, self.samples.len())?;
        let parts: [(&str, Figure); 2] = [("process", |s| s.resident), ("tensors", |s| s.tensors)];
        for (what, of) in parts {
            let most = self.samples.iter().map(of).fold(0.0, f64::max);
            let (growth, slope) = (self.growth(of), self.slope(of));
            write!(
                f,
                "; {what}: at most {:.1} MB, the last half grew by {growth:.0} bytes, {slope:.0} bytes a thousand steps",
                most / 1e6
            )?;
        }
        Ok(())
    }
}

/// Bytes of the process that are in memory.
fn resident() -> Option<f64> {
    let all = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: f64 = all.split(' ').nth(1)?.parse().ok()?;
    Some(pages * 4096.0)
}
