//! Does one job: pre-trains a base, or trains and tests one case.

use crate::cases::{ADAPTER, Case};
use crate::record::{Data, Figures, Job, Message, Outcome, Work};
use crate::results::median;
use crate::synthetic::{Synthetic, pretrain};
use crate::task::Task;
use crate::text::Text;
use anyhow::Result;
use peft_core::device::{DeviceChoice, peak_memory, reset_peak_memory, synchronize};
use peft_core::train::{Trainer, cross_entropy};
use peft_core::{Error, Pass, Peft};
use std::time::Instant;
use tch::{Device, Kind, Tensor};

/// Parts that the curve of a run's losses has.
const PARTS: usize = 50;

/// Who hears of progress and notes; an error from it ends the job.
pub type Say<'a> = &'a mut dyn FnMut(Message) -> Result<()>;

impl Job {
    /// Runs the job in this process, which gets the job's number of threads (of `auto`, one on the synthetic task). libtorch has one generator a process:
    /// one job at a time.
    ///
    /// # Errors
    /// What is wrong with the job, and a run that diverges.
    pub fn run(&self, say: Say<'_>) -> Result<Outcome> {
        let device = self.device.parse::<DeviceChoice>()?.open()?;
        let text = matches!(self.work, Work::Case { data: Data::Text(_), .. });
        if !text {
            self.threads.set(0);
        }
        let (case, data, steps, batch, lr) = match &self.work {
            Work::Pretrain { base, steps } => {
                let (peft, figures) =
                    pretrain(self.seed, device, *steps, |step, _| progress(step + 1, *steps, say))?;
                peft_core::io::tensors::write(base, &peft.base().tensors())?;
                let (seed, own) = (self.seed, 100.0 * figures.own);
                say(Message::Note(format!("base of seed {seed}: {own:.1} % on its own tasks")))?;
                return Ok(Outcome::Pretrained(figures));
            }
            Work::Case { method, data, steps, batch, lr } => (Case::find(method)?, data, *steps, *batch, *lr),
        };
        let figures = match data {
            Data::Synthetic { base } => {
                let task = Synthetic::open(base.as_deref(), self.seed, device, case, batch)?;
                let lr = lr.unwrap_or_else(|| task.lr(case));
                train(task, device, steps, lr, say)?
            }
            Data::Text(source) => {
                let note = |text| say(Message::Note(text));
                let mut task = Text::open(source, self.seed, device, case, batch, note)?;
                self.threads.set(task.peft().report(&[])?.all);
                let lr = lr.unwrap_or_else(|| task.lr(case));
                train(task, device, steps, lr, say)?
            }
        };
        Ok(Outcome::Trained(Box::new(figures)))
    }
}

/// About fifty messages a run.
fn progress(step: u64, total: u64, say: Say<'_>) -> Result<()> {
    if step.is_multiple_of(total.div_ceil(PARTS as u64)) || step == total {
        say(Message::Progress(step, total))
    } else {
        Ok(())
    }
}

/// Trains the case of a task, and tests it.
fn train<T: Task>(mut task: T, device: Device, steps: Option<u64>, lr: f64, say: Say<'_>) -> Result<Figures> {
    let total = steps.unwrap_or_else(|| task.steps());
    let (adam, schedule) = (task.adam(), task.schedule(total));
    let mut trainer = Trainer::new(task.peft(), &[ADAPTER], adam, lr, schedule)?;
    let model = task.peft().view(&[ADAPTER])?;
    reset_peak_memory(device)?;
    let (mut times, mut losses, mut tokens) = (Vec::new(), Vec::new(), 0);
    for step in 1..=total {
        let start = Instant::now();
        let (batch, y, real) = task.next()?;
        let loss = cross_entropy(&model.forward(&batch, Pass::train())?, &y)?;
        let report = trainer.step(&loss)?;
        synchronize(device)?;
        times.push(start.elapsed().as_secs_f64());
        losses.push(report.loss);
        tokens += real;
        progress(step, total, say)?;
    }
    let peak_bytes = peak_memory(device)?;
    let test = task.test()?;
    let logits = |peft: &Peft, active: &[&str]| -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        let view = peft.view(active)?;
        let all = test
            .iter()
            .map(|(batch, _)| Ok(view.forward(batch, Pass::eval())?))
            .collect::<Result<Vec<_>>>()?;
        Ok(Tensor::f_cat(&all, 0)?)
    };
    let peft = task.peft();
    let adapted = logits(peft, &[ADAPTER])?;
    let classes = Tensor::f_cat(&test.iter().map(|(_, y)| y).collect::<Vec<_>>(), 0)?;
    let right = adapted.f_argmax(1, false)?.f_eq_tensor(&classes)?.f_to_kind(Kind::Double)?;
    let merge_error = match peft.merged(&[ADAPTER]) {
        Ok(merged) => {
            let merged = logits(&merged, &[])?;
            let worst = f64::try_from(adapted.f_sub(&merged)?.f_abs()?.f_max()?)?;
            Some(worst / f64::try_from(adapted.f_abs()?.f_max()?)?)
        }
        Err(Error::NotMergeable { .. }) => None,
        Err(e) => return Err(e.into()),
    };
    let report = peft.report(&[ADAPTER])?;
    let last = &losses[losses.len() - losses.len().div_ceil(10).min(losses.len())..];
    Ok(Figures {
        trainable: report.trainable,
        all: report.all,
        steps: total,
        step_ms: 1e3 * median(&mut times.clone()),
        tokens_per_s: tokens as f64 / times.iter().sum::<f64>().max(f64::MIN_POSITIVE),
        peak_bytes,
        file_bytes: file_size(peft)?,
        train_loss: mean(last),
        losses: curve(&losses),
        test_accuracy: f64::try_from(right.f_mean(None::<Kind>)?)?,
        merge_error,
        config: peft.adapter_config(ADAPTER)?.unwrap_or_default(),
        lr,
    })
}

/// Size of the adapter's tensors on disk.
fn file_size(peft: &Peft) -> Result<u64> {
    let dir = tempfile::tempdir()?;
    peft.save(ADAPTER, dir.path())?;
    Ok(std::fs::metadata(dir.path().join(peft_core::io::adapter::TENSORS))?.len())
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The mean of each part, and the step that it ends with, counted from one.
fn curve(losses: &[f64]) -> Vec<(u64, f64)> {
    let parts = losses.len().min(PARTS);
    let end = |part: usize| part * losses.len() / parts;
    (0..parts).map(|part| (end(part + 1) as u64, mean(&losses[end(part)..end(part + 1)]))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_has_every_loss_in_one_part() {
        assert_eq!(curve(&[]), []);
        assert_eq!(curve(&[3.0, 1.0]), [(1, 3.0), (2, 1.0)]);
        let losses: Vec<f64> = (0..125).map(f64::from).collect();
        let found = curve(&losses);
        assert_eq!(found.len(), PARTS);
        // Parts of two steps and three in turn.
        assert_eq!(found[..3], [(2, 0.5), (5, 3.0), (7, 5.5)]);
        assert_eq!(found.last(), Some(&(125, 123.0)));
    }
}
