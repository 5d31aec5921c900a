//! What a recipe comes to: every field with a value, checked as far as it can be without a model.

use crate::common::Bytes;
use crate::recipe::{Dtype, Kind, Learn, Method, Optimizer, Recipe, Rows, Shape};
use anyhow::{Context, Result, anyhow, bail, ensure};
use peft_core::device::{DeviceChoice, Threads};
use peft_core::tch;
use peft_core::train::{AdamConfig, LoraFa, LoraPlus, Optim, Schedule};
use std::path::PathBuf;
use std::time::Duration;

/// The settings of a training.
#[derive(Debug, Clone)]
pub struct Settings {
    pub model: String,
    pub data: PathBuf,
    pub output: PathBuf,
    pub task: Option<Kind>,
    pub base_name: Option<String>,
    pub method: Method,
    pub eval_data: Option<PathBuf>,
    pub eval_share: f64,
    pub length: i64,
    pub pack: bool,
    pub learn: Learn,
    pub labels: Option<Vec<String>>,
    pub new_head: bool,
    pub optim: Optim,
    pub lr: f64,
    pub clip: Option<f64>,
    shape: Shape,
    warmup: f64,
    pub stop: Stop,
    pub batch: usize,
    pub micro_batch: Option<usize>,
    pub order: Rows,
    pub seeds: Vec<u64>,
    pub eval_every: Option<u64>,
    pub eval_batch: usize,
    pub metric: String,
    pub patience: Option<u64>,
    pub samples: Vec<String>,
    pub save_every: u64,
    pub keep: usize,
    pub merge: Option<PathBuf>,
    pub dtype: Option<tch::Kind>,
    pub nf4: bool,
    pub recompute: Option<usize>,
    pub device: DeviceChoice,
    pub threads: Threads,
    pub memory_limit: Option<Bytes>,
    /// What was said, to tell it from what was not.
    pub said: Recipe,
}

/// When a training is at its end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stop {
    pub epochs: f64,
    pub max_steps: Option<u64>,
    pub max_time: Option<Duration>,
}

impl Settings {
    /// # Errors
    /// A field that has to be said and is not; a value that it cannot have; two that cannot both be said. By name.
    pub fn of(recipe: &Recipe) -> Result<Self> {
        let r = recipe.clone();
        let needed = |name: &str, value: Option<String>| {
            value
                .filter(|v| !v.is_empty())
                .with_context(|| format!("{name}: is not said (in the recipe, or as --{name})"))
        };
        let method = Method::of(recipe)?;
        let lr = r.lr.unwrap_or_else(|| middle(method.entry.learning_rates));
        let positive = |name: &str, n: Option<u64>| match n {
            Some(0) => Err(anyhow!("{name}: is 0, expected a positive number")),
            other => Ok(other),
        };
        let share = |name: &str, x: f64| {
            ensure!((0.0..1.0).contains(&x), "{name}: is {x}, expected a share: 0 or more, and less than 1");
            Ok(x)
        };
        let epochs = r.epochs.unwrap_or(3.0);
        ensure!(
            epochs > 0.0 && epochs <= 1e6,
            "epochs: is {epochs}, expected a positive number, at most a million"
        );
        let seeds = r.seeds.unwrap_or_else(|| vec![0]);
        ensure!(!seeds.is_empty(), "seeds: there is none");
        let twice = seeds.iter().enumerate().find(|(at, seed)| seeds.iter().take(*at).any(|s| s == *seed));
        ensure!(twice.is_none(), "seeds: {} is there twice", twice.map_or(0, |(_, seed)| *seed));
        ensure!(
            r.eval_data.is_none() || r.eval_share.is_none(),
            "eval_data and eval_share: expected one of them"
        );
        ensure!(lr > 0.0, "lr: is {lr}, expected a positive number");
        let twice = |names: &Vec<String>| {
            let again = |(at, name)| names.iter().take(at).any(|n| n == name);
            names.iter().enumerate().find(|(at, name)| again((*at, *name))).map(|(_, name)| name.clone())
        };
        if let Some(name) = r.labels.as_ref().and_then(twice) {
            bail!("labels: `{name}` is there twice");
        }
        if r.eval_data.is_none() && r.eval_share.is_none() {
            let said = [
                ("eval_every", r.eval_every.is_some()),
                ("patience", r.patience.is_some()),
                ("metric", r.metric.is_some()),
                ("eval_batch", r.eval_batch.is_some()),
            ];
            if let Some((name, _)) = said.iter().find(|(_, said)| *said) {
                bail!("{name}: has no effect without eval_data or eval_share");
            }
        }
        ensure!(
            r.optimizer != Some(Optimizer::LoraPlus) || method.entry.peft_type == "LORA",
            "optimizer: lora_plus is for LoRA, and {} has no A and B",
            method.entry.title
        );
        let clip = r.clip.unwrap_or(1.0);
        ensure!(clip >= 0.0 && clip.is_finite(), "clip: is {clip}, expected 0 or a positive number");
        Ok(Self {
            model: needed("model", r.model.clone())?,
            data: needed("data", r.data.clone())?.into(),
            output: needed("output", r.output.clone())?.into(),
            task: r.task,
            base_name: r.base_name.clone(),
            eval_data: r.eval_data.clone().map(Into::into),
            eval_share: share("eval_share", r.eval_share.unwrap_or(0.0))?,
            length: r.length.unwrap_or(1024),
            new_head: r.new_head.unwrap_or(false),
            pack: r.pack.unwrap_or(false),
            learn: r.learn.unwrap_or(Learn::Answers),
            labels: r.labels.clone(),
            optim: optim(recipe)?,
            lr,
            clip: Some(clip).filter(|norm| *norm > 0.0),
            shape: r.schedule.unwrap_or(Shape::Linear),
            warmup: share("warmup", r.warmup.unwrap_or(0.05))?,
            stop: Stop {
                epochs,
                max_steps: positive("max_steps", r.max_steps)?,
                max_time: r.max_time.as_deref().map(time).transpose()?,
            },
            batch: positive("batch", Some(r.batch.unwrap_or(8) as u64))?.unwrap_or(8) as usize,
            micro_batch: positive("micro_batch", r.micro_batch.map(|n| n as u64))?.map(|n| n as usize),
            order: r.order.unwrap_or(Rows::Shuffled),
            seeds,
            eval_every: positive("eval_every", r.eval_every)?,
            eval_batch: positive("eval_batch", Some(r.eval_batch.unwrap_or(16) as u64))?.unwrap_or(16)
                as usize,
            metric: r.metric.clone().unwrap_or_else(|| "loss".into()),
            patience: positive("patience", r.patience)?,
            samples: r.samples.clone().unwrap_or_default(),
            save_every: positive("save_every", Some(r.save_every.unwrap_or(200)))?.unwrap_or(200),
            keep: positive("keep", Some(r.keep.unwrap_or(2) as u64))?.unwrap_or(2) as usize,
            merge: r.merge.clone().map(Into::into),
            dtype: r.dtype.unwrap_or(Dtype::Stored).kind(),
            nf4: r.nf4.unwrap_or(false),
            recompute: positive("recompute", r.recompute.map(|n| n as u64))?.map(|n| n as usize),
            device: r.device.as_deref().map_or(Ok(DeviceChoice::default()), str::parse)?,
            threads: r.threads.as_deref().map_or(Ok(Threads::default()), str::parse)?,
            memory_limit: r.memory_limit.as_deref().map(str::parse).transpose().context("memory_limit")?,
            method,
            said: recipe.clone(),
        })
    }

    /// Refuses what was said and has no effect on what is learned, and a metric that is not measured of it.
    pub fn check(&self, kind: Kind) -> Result<()> {
        let r = &self.said;
        let others = match kind {
            Kind::Causal => [("labels", r.labels.is_some()), ("new_head", r.new_head.is_some()), ("", false)],
            Kind::Classes => {
                [("pack", self.pack), ("learn", r.learn.is_some()), ("sample", r.samples.is_some())]
            }
            Kind::Regression => {
                [("labels", r.labels.is_some()), ("pack", self.pack), ("learn", r.learn.is_some())]
            }
        };
        if let Some((name, _)) = others.iter().find(|(_, said)| *said) {
            bail!("{name}: has no effect on {}", kind.learned());
        }
        let known = kind.metrics();
        let metric = self.metric.as_str();
        ensure!(
            known.contains(&metric),
            "metric: `{metric}` is not measured of {}; there are {}",
            kind.learned(),
            known.join(", ")
        );
        Ok(())
    }

    /// The learning rate's course over so many steps.
    pub fn schedule(&self, total: u64) -> Schedule {
        // One step at least is at the peak.
        let warmup = ((self.warmup * total as f64).round() as u64).min(total.saturating_sub(1));
        match self.shape {
            Shape::Linear => Schedule::Linear { warmup, total },
            Shape::Cosine => Schedule::Cosine { warmup, total },
            Shape::Constant => Schedule::Rising { warmup },
        }
    }
}

impl Stop {
    /// The last step, for epochs of so many steps.
    pub fn steps(&self, an_epoch: u64) -> u64 {
        // 1.1 epochs of 50 steps are 55, and not what is rounded up of 55.00000000000001.
        let all = ((self.epochs * an_epoch as f64 - 1e-6).ceil() as u64).max(1);
        self.max_steps.map_or(all, |most| most.min(all))
    }
}

fn optim(r: &Recipe) -> Result<Optim> {
    let optimizer = r.optimizer.unwrap_or(Optimizer::Adamw);
    ensure!(
        r.lora_plus_ratio.is_none() || optimizer == Optimizer::LoraPlus,
        "lora_plus_ratio: is for the optimizer lora_plus"
    );
    let over = |adam: AdamConfig| AdamConfig {
        weight_decay: r.weight_decay.unwrap_or(adam.weight_decay),
        beta1: r.beta1.unwrap_or(adam.beta1),
        beta2: r.beta2.unwrap_or(adam.beta2),
        eps: r.eps.unwrap_or(adam.eps),
        ..adam
    };
    Ok(match optimizer {
        Optimizer::Adamw => over(AdamConfig { weight_decay: 0.0, ..AdamConfig::default() }).into(),
        Optimizer::LoraPlus => {
            let plus = LoraPlus::new(r.lora_plus_ratio.unwrap_or(16.0));
            LoraPlus { adam: over(plus.adam), ..plus }.into()
        }
        Optimizer::LoraFa => {
            let fa = LoraFa::default();
            LoraFa { adam: over(fa.adam), ..fa }.into()
        }
    })
}

/// The middle of a range of rates, as they are compared: by their ratio. With one digit.
fn middle((low, high): (f64, f64)) -> f64 {
    let middle = (low * high).sqrt();
    let unit = 10f64.powf(middle.log10().floor());
    let rounded = (middle / unit).round() * unit;
    format!("{rounded:.1e}").parse().unwrap_or(rounded)
}

/// `90s`, `30m`, `2h`.
fn time(text: &str) -> Result<Duration> {
    let wrong = || anyhow!("max_time: is `{text}`, expected a time like 90s, 30m, 2h");
    let units = [("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86400.0)];
    let found = units.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)));
    let (number, unit) = found.ok_or_else(wrong)?;
    let seconds = number.trim().parse::<f64>().map_err(|_| wrong())? * unit;
    Duration::try_from_secs_f64(seconds).ok().filter(|d| !d.is_zero()).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Settings> {
        Settings::of(&Recipe::parse(&format!("model=\"m\"\ndata=\"d\"\noutput=\"o\"\n{text}"))?)
    }

    #[test]
    fn what_cannot_be_is_said_by_name() {
        for (text, part) in [
            ("batch = 0", "batch: is 0"),
            ("epochs = -1", "epochs: is -1"),
            ("warmup = 1.5", "warmup: is 1.5"),
            ("seeds = [1, 1]", "seeds: 1 is there twice"),
            ("max_time = \"soon\"", "max_time: is `soon`"),
            ("method = \"lorra\"", "did you mean"),
            ("[set]\nrank = 8", "lora: rank"),
            ("lora_plus_ratio = 4.0", "lora_plus_ratio: is for"),
            ("device = \"gpu\"", "gpu: expected cpu"),
        ] {
            let error = format!("{:#}", of(text).unwrap_err());
            assert!(error.contains(part), "{text}: {error}");
        }
        let error = Settings::of(&Recipe::default()).unwrap_err().to_string();
        assert!(error.contains("--model"), "{error}");
    }

    #[test]
    fn the_last_step() {
        let stop = |text: &str| of(text).unwrap().stop.steps(10);
        assert_eq!([stop(""), stop("epochs = 0.25"), stop("max_steps = 7")], [30, 3, 7]);
        assert_eq!(of("max_time = \"1.5h\"").unwrap().stop.max_time, Some(Duration::from_secs(5400)));
    }

    #[test]
    fn rates_without_a_word() {
        assert_eq!(middle((1e-5, 5e-3)), 2e-4);
        assert_eq!(middle((1e-6, 1e-4)), 1e-5);
    }
}
