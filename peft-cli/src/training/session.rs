//! A run from its first step, or from where it was, to its end.

use crate::outcome::Outcome;
use crate::output::Output;
use crate::recipe::Settings;
use crate::source::Source;
use crate::training::finish::Finished;
use crate::training::order::Order;
use crate::training::place::{Mode, Place, RECIPE};
use crate::training::progress::{self, Progress, figure};
use crate::training::samples::Samples;
use crate::training::setup::{ADAPTER, Setup};
use crate::training::signals::Signals;
use crate::training::words::{self, sentence};
use crate::training::{data, finish};
use crate::watch::{self, Event, Log};
use anyhow::{Result, bail};
use peft_core::train::{self, Checkpoints, Newest, Run, Task};
use peft_core::{Error, Peft, device};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A run with all that looks after it.
pub struct Session<'a> {
    pub order: Order<'a>,
    pub output: &'a Output,
    pub place: Place,
    pub peft: Peft,
    pub model: PathBuf,
    pub run: Run,
    pub eval: Option<Box<dyn Task>>,
    pub about: data::About,
    pub progress: Progress,
    pub samples: Samples,
    pub warnings: Vec<String>,
    origin: Vec<Vec<usize>>,
    checkpoints: Checkpoints,
    log: Log,
    bar: watch::Progress,
    total: u64,
    /// The step of the newest checkpoint.
    saved: Option<u64>,
    begun: Instant,
}

/// What a run has come to, or why it has not.
pub type Ended = std::result::Result<Finished, Outcome>;

impl<'a> Session<'a> {
    /// Makes everything ready, up to where the run was.
    pub fn open(order: Order<'a>, dir: &Path, mode: Mode, output: &'a Output) -> Result<Self> {
        let settings = order.settings;
        let begun = Instant::now();
        let place = Place::open(dir, mode)?;
        place.check_merge(settings.method.entry, order.merge().as_deref(), mode)?;
        let checkpoints = Checkpoints::new(place.checkpoints());
        let model: Source = settings.model.parse()?;
        let inputs = data::inputs(settings, &model.model(output)?)?;
        let mut progress = Progress::new(inputs, order.recipe.clone(), settings.lr);
        let mut newest = None;
        if mode == Mode::Resume {
            let Newest { found, torn } = checkpoints.newest()?;
            place.check_begun(found.is_some(), torn.len())?;
            output.warn(torn.iter().map(|e| format!("{e}; it is passed over")));
            newest = found;
        }
        let mut changed = None;
        if let Some((step, checkpoint)) = &newest {
            let (old, lr) = (progress.after(checkpoint)?, settings.lr);
            if let Some(before) = old.lr.filter(|before| *before != lr) {
                changed = Some(format!("the learning rate is {lr} from step {step} on, and was {before}"));
            }
            progress = Progress { lr: Some(lr), ..old };
        }
        let Setup { peft, model, encoder, data, device, mut warnings, .. } =
            Setup::new(settings, order.seed, output)?;
        let data::Data { train, eval, about, origin, form, .. } = data;
        output.note(format!(
            "{} rows of {} tokens to train on, {} rows to evaluate on",
            about.rows, about.tokens, about.eval_rows
        ));
        let an_epoch = about.rows.div_ceil(settings.batch) as u64;
        let total = settings.stop.steps(an_epoch);
        warnings.extend(words::other_total(&peft, total)?);
        output.warn(&warnings);
        let recipe = train::Recipe {
            optim: settings.optim.clone(),
            lr: settings.lr,
            schedule: settings.schedule(total),
            clip: settings.clip,
            batch: settings.batch,
            micro_batch: settings.micro_batch,
            order: settings.order.into(),
            recompute: settings.recompute.and_then(NonZeroUsize::new),
            seed: order.seed,
        };
        let mut run = Run::new(&peft, &[ADAPTER], &recipe, train)?;
        if let Some((step, checkpoint)) = &newest {
            run.load(&checkpoint.path)?;
            output.note(format!("goes on after step {step}: {}", checkpoint.path.display()));
        }
        let saved = newest.map(|(step, _)| step);
        let samples = Samples::new(settings, &model, encoder, form, device)?;
        if mode == Mode::Overwrite {
            place.clear()?;
        }
        let path = place.dir.join(RECIPE);
        let text = order.own().text()?;
        peft_core::io::write_atomically(&path, |file| {
            std::io::Write::write_all(file, text.as_bytes())
                .map_err(|error| Error::File { path: path.clone(), error })
        })?;
        let (mut log, torn) = Log::open(&place.dir, saved)?;
        output.warn(torn);
        if let Some(text) = changed {
            output.note(&text);
            log.record(&Event::Note { step: run.steps(), text })?;
        }
        let bar = watch::Progress::new(output, run.steps(), total);
        Ok(Self {
            order,
            output,
            place,
            peft,
            model,
            run,
            eval,
            about,
            progress,
            samples,
            warnings,
            origin,
            checkpoints,
            log,
            bar,
            total,
            saved,
            begun,
        })
    }

    /// Takes the steps that are left, and writes what the run was for.
    pub fn train(mut self, signals: &Signals) -> Result<Ended> {
        if self.run.steps() == 0 {
            self.progress.due = self.eval.is_some();
            self.samples.before(&self.peft)?;
        }
        let mut stepped = false;
        let stopped_early = loop {
            let better = self.progress.due && self.evaluate(signals)?;
            let (due, step) = (self.progress.due, self.run.steps());
            if better || stepped && !due && step.is_multiple_of(self.settings().save_every) {
                self.save()?;
            }
            // A run that has stopped for want of a better evaluation has nothing left to do.
            let stops = self.settings().patience.is_some_and(|most| self.progress.worse >= most);
            if !due && (stops || step >= self.total) {
                break stops && step < self.total;
            }
            if let Some(why) = self.interrupted(signals) {
                self.save()?;
                self.bar.end();
                self.output.note(match step {
                    0 => format!("{why} before the first step of {}; --resume begins", self.total),
                    _ => {
                        format!("{why} at step {step} of {}; all is saved, and --resume goes on", self.total)
                    }
                });
                return Ok(Err(Outcome::Interrupted));
            }
            if let Some(outcome) = self.step()? {
                return Ok(Err(outcome));
            }
            stepped = true;
            self.progress.due = self.evaluates(self.run.steps());
        };
        self.save()?;
        self.bar.end();
        if stopped_early {
            self.output.note(format!("stopped at step {}: no better evaluation since", self.run.steps()));
        }
        finish::write(self, stopped_early).map(Ok)
    }

    pub fn settings(&self) -> &'a Settings {
        self.order.settings
    }

    pub fn seed(&self) -> u64 {
        self.order.seed
    }

    fn interrupted(&self, signals: &Signals) -> Option<&'static str> {
        if signals.asked() {
            return Some("stopped by a signal");
        }
        let most = self.order.settings.stop.max_time?;
        (self.begun.elapsed() >= most).then_some("stopped by max_time")
    }

    /// One step, recorded; an outcome where there is no going on.
    fn step(&mut self) -> Result<Option<Outcome>> {
        let begun = Instant::now();
        let device = self.peft.base().device();
        device::reset_peak_memory(device)?;
        let step = match self.run.step() {
            Ok(step) => step,
            Err(error @ Error::NonFinite { .. }) => {
                self.bar.end();
                self.output.error(words::located(
                    &error,
                    &self.origin,
                    self.settings(),
                    self.saved.map(|step| self.checkpoints.path(step)),
                ));
                return Ok(Some(Outcome::Diverged));
            }
            Err(error) => {
                self.bar.end();
                bail!(words::located(
                    &error,
                    &self.origin,
                    self.settings(),
                    self.saved.map(|step| self.checkpoints.path(step))
                ))
            }
        };
        let seconds = begun.elapsed().as_secs_f64();
        let peak = device::peak_memory(device)?;
        self.progress.memory = self.progress.memory.max(peak);
        self.progress.seconds += seconds;
        self.progress.tokens += step.tokens as u64;
        if let Some(rows) = step.reduced {
            self.note(format!(
                "memory ran out: {rows} rows are computed at once from now on, of the same batch"
            ))?;
        }
        if step.skipped > 0 {
            self.note(format!(
                "{} parts of the batch were passed over: no label of theirs counts",
                step.skipped
            ))?;
        }
        let event = watch::Step {
            step: step.number,
            epoch: step.epoch,
            loss: step.loss,
            lr: step.lr,
            grad_norm: step.grad_norm,
            tokens: step.tokens as u64,
            learned: step.learned as u64,
            seconds,
            memory: u64::try_from(self.progress.memory).ok(),
        };
        self.bar.step(&event);
        self.log.record(&Event::Step(event))?;
        Ok(None)
    }

    fn note(&mut self, text: String) -> Result<()> {
        self.bar.aside(|| self.output.note(&text));
        self.log.record(&Event::Note { step: self.run.steps(), text })
    }

    /// Whether there is an evaluation behind this step.
    fn evaluates(&self, step: u64) -> bool {
        let every = self.order.settings.eval_every.unwrap_or(self.run.steps_per_epoch());
        self.eval.is_some() && (step.is_multiple_of(every) || step == self.total)
    }

    /// Evaluates and records it; whether it is the best so far. Where a signal comes before it is done, it is still due.
    fn evaluate(&mut self, signals: &Signals) -> Result<bool> {
        let Some(eval) = &self.eval else { return Ok(false) };
        let begun = Instant::now();
        let (bar, all) = (&self.bar, eval.rows());
        let found = self.run.evaluate_while(eval.as_ref(), self.order.settings.eval_batch, &mut |done| {
            bar.passing(format_args!("evaluating {done}/{all}"));
            !signals.asked()
        })?;
        let Some(evaluation) = found else { return Ok(false) };
        self.progress.due = false;
        let (value, more) = figure(&evaluation, &self.order.settings.metric)?;
        let (step, seconds) = (self.run.steps(), begun.elapsed().as_secs_f64());
        self.progress.seconds += seconds;
        self.bar.aside(|| self.output.note(format!("step {step}: {}", sentence(&evaluation))));
        let figures = evaluation.metrics.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        let epoch = self.run.epoch();
        self.log.record(&Event::Eval { step, epoch, loss: evaluation.loss, figures, seconds })?;
        // Before the first step there is nothing to keep.
        Ok(step > 0 && self.progress.judge(step, value, more))
    }

    /// Saves a checkpoint, unless there is one of this step.
    fn save(&mut self) -> Result<()> {
        let step = self.run.steps();
        if self.saved == Some(step) || step == 0 {
            return Ok(());
        }
        self.log.sync()?;
        let progress = serde_json::to_vec_pretty(&self.progress)?;
        let recipe = self.order.own().text()?;
        self.checkpoints
            .save(&self.run, &[(progress::FILE, progress.as_slice()), (RECIPE, recipe.as_bytes())])?;
        self.saved = Some(step);
        let best: Vec<u64> = self.progress.best.iter().map(|best| best.step).collect();
        Ok(self.checkpoints.prune(self.order.settings.keep, &best)?)
    }

    /// Goes back to the best evaluation, if there is one and it is not the last.
    pub fn best(&mut self) -> Result<()> {
        match self.progress.best {
            Some(best) if best.step != self.run.steps() => {
                self.output.note(format!(
                    "the adapter is that of step {}, the best: {} {:.4}",
                    best.step, self.order.settings.metric, best.value
                ));
                if let Err(e) = self.run.load(self.checkpoints.path(best.step)) {
                    self.output
                        .warn([format!("{e}; the adapter is that of the last step, {}", self.run.steps())]);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub fn record(&mut self, event: &Event) -> Result<()> {
        self.log.record(event)
    }
}
