//! One run, in a process of its own: reads a job from standard input, writes messages to standard output.

use crate::cases::{ADAPTER, CASES};
use crate::record::{Data, Figures, Job, Message, Work};
use crate::synthetic::{Synthetic, pretrain, pretrain_steps};
use crate::task::Task;
use crate::text::{Source, Text};
use anyhow::{Context, Result};
use peft_core::train::{Trainer, cross_entropy};
use peft_core::{DeviceChoice, Error, Model, Pass, Peft, peak_memory, reset_peak_memory, synchronize};
use std::io::Write;
use std::time::Instant;
use tch::{Device, Kind, Tensor};

fn say(message: &Message) -> Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, message)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

/// Runs the job on standard input. A failure is a message; it is the driver that decides what becomes of it.
pub fn main() -> Result<bool> {
    let job: Job = serde_json::from_reader(std::io::stdin()).context("reading the job")?;
    let device = job.device.parse::<DeviceChoice>()?.open()?;
    peft_sys::memory::install();
    let small = matches!(job.work, Work::Pretrain { .. } | Work::Case { data: Data::Synthetic { .. }, .. });
    match job.threads {
        Some(threads) => tch::set_num_threads(threads.max(1)),
        None if small => tch::set_num_threads(1),
        None => {}
    }
    if let Err(e) = run(&job, device) {
        say(&Message::Failed(format!("{e:#}")))?;
    }
    Ok(true)
}

fn run(job: &Job, device: Device) -> Result<()> {
    let (method, data, steps, batch, lr) = match &job.work {
        Work::Pretrain { base } => {
            let total = pretrain_steps();
            let (peft, accuracy) = pretrain(job.seed, device, total, |step, _| progress(step + 1, total))?;
            peft_core::io::tensors::write(base, &peft.base().tensors())?;
            say(&Message::Note(format!(
                "base of seed {}: {:.1} % on its own tasks",
                job.seed,
                100.0 * accuracy
            )))?;
            return say(&Message::Pretrained);
        }
        Work::Case { method, data, steps, batch, lr } => (method, data, *steps, *batch, *lr),
    };
    let case = CASES.iter().find(|c| c.name == method).with_context(|| format!("no method `{method}`"))?;
    let figures = match data {
        Data::Synthetic { base } => {
            let task = Synthetic::open(base, job.seed, device, case, batch)?;
            let lr = lr.unwrap_or_else(|| task.lr(case));
            figures(task, device, steps, lr)?
        }
        Data::Text { model, train, test, epochs, new_head } => {
            let source = Source { model, train, test, epochs: *epochs, new_head: *new_head };
            let task = Text::open(source, job.seed, device, case, batch, |text| say(&Message::Note(text)))?;
            let lr = lr.unwrap_or_else(|| task.lr(case));
            figures(task, device, steps, lr)?
        }
    };
    say(&Message::Done(Box::new(figures)))
}

/// About fifty messages a run.
fn progress(step: u64, total: u64) -> Result<()> {
    if step.is_multiple_of(total.div_ceil(50)) || step == total {
        say(&Message::Progress(step, total))
    } else {
        Ok(())
    }
}

fn figures<T: Task>(mut task: T, device: Device, steps: Option<u64>, lr: f64) -> Result<Figures> {
    let total = steps.unwrap_or_else(|| task.steps());
    let (adam, schedule) = (task.adam(), task.schedule(total));
    let mut trainer = Trainer::for_adapters(task.peft(), &[ADAPTER], adam, lr, schedule)?;
    let model = task.peft().view(&[ADAPTER])?;
    reset_peak_memory(device)?;
    let (mut times, mut losses, mut tokens) = (Vec::new(), Vec::new(), 0);
    for step in 1..=total {
        let start = Instant::now();
        let (batch, y, real) = task.next()?;
        let loss = cross_entropy(&model.forward(&batch, Pass::train())?, &y)?;
        let report = trainer.step_adapters(task.peft(), &[ADAPTER], &loss)?;
        synchronize(device)?;
        times.push(start.elapsed().as_secs_f64());
        losses.push(report.loss);
        tokens += real;
        progress(step, total)?;
    }
    let peak_bytes = peak_memory(device)?;
    let test = task.test()?;
    let logits = |peft: &Peft<T::M>, active: &[&str]| -> Result<Tensor> {
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
        train_loss: last.iter().sum::<f64>() / last.len().max(1) as f64,
        test_accuracy: f64::try_from(right.f_mean(None::<Kind>)?)?,
        merge_error,
        config: peft.method(ADAPTER)?.config(peft.params(ADAPTER)?)?.unwrap_or_default(),
        lr,
    })
}

/// Size of the adapter's tensors on disk.
fn file_size<M: Model>(peft: &Peft<M>) -> Result<u64> {
    let dir = tempfile::tempdir()?;
    peft.save(ADAPTER, dir.path())?;
    Ok(std::fs::metadata(dir.path().join(peft_core::io::adapter::TENSORS))?.len())
}

/// The middle value; 0 of none.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}
