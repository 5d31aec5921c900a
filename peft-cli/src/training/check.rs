//! What can be known of a training before it begins, and what its first steps show.

use crate::output::Output;
use crate::recipe::{Kind, Settings};
use crate::training::forecast::forecast;
use crate::training::setup::{ADAPTER, Setup};
use crate::training::words::other_total;
use anyhow::{Result, anyhow};
use peft_core::estimate::human_bytes;
use peft_core::hub;
use peft_core::methods::catalogue::Merges;
use peft_core::tch::{self, Device, Tensor};
use peft_core::train::{Recipe, Run, Schedule};
use peft_core::{Params, Peft};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

/// Something that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    pub what: &'static str,
    pub state: State,
    pub said: String,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Ok,
    /// It may be meant.
    Warning,
    /// The training would fail, or would not do what it is for.
    Fault,
}

/// Steps in which every trained tensor has to have moved: A of a LoRA stands still until B has left 0.
const STEPS: usize = 4;

/// Looks at everything; a step that cannot be taken is a fault, and ends it.
pub fn check(settings: &Settings, output: &Output) -> Vec<Finding> {
    let mut found = vec![rate(settings)];
    found.extend(places(settings));
    if let Err(e) = looked(settings, output, &mut found) {
        found.push(Finding { what: "training", state: State::Fault, said: format!("{e:#}") });
    }
    found
}

fn looked(settings: &Settings, output: &Output, found: &mut Vec<Finding>) -> Result<()> {
    let mut say = |what, state, said: String| found.push(Finding { what, state, said });
    let seed = settings.seeds.first().copied().unwrap_or_default();
    let Setup { peft, model, encoder, data, kind, device, warnings } = Setup::new(settings, seed, output)?;
    let status = peft.status()?;
    let places = status.adapters.first().map_or(0, |adapter| adapter.places);
    let report = peft.report(&[ADAPTER])?;
    let share = report.percent();
    say(
        "targets",
        State::Ok,
        format!(
            "{places} places; {} of {} parameters are trained, {share:.4} %",
            report.trainable, report.all
        ),
    );
    say("dtype", State::Ok, dtypes(&peft));
    if let Some(said) = tied(settings, &model)? {
        say("tied weights", State::Warning, said);
    }
    let about = data.about.clone();
    let most = encoder.longest();
    say(
        "data",
        State::Ok,
        format!(
            "{} rows of {} tokens, the longest has {} of at most {most}; {} rows to evaluate on",
            about.rows, about.tokens, about.longest, about.eval_rows
        ),
    );
    for warning in warnings {
        say("read", State::Warning, warning);
    }
    if let Some(said) = one_class(&peft)?.filter(|_| kind == Kind::Classes) {
        say("classes", State::Fault, said);
    }
    match forecast(&peft, settings, &about) {
        Ok(Some(plan)) => {
            let (needed, free) = (plan.total(), free_memory(device));
            let state = if free.is_some_and(|free| needed > free) { State::Warning } else { State::Ok };
            let free = free.map_or("unknown".into(), human_bytes);
            say("memory", state, format!("{plan}; free is {free}"));
        }
        Ok(None) => say("memory", State::Ok, "is not forecast for layers that are computed again".into()),
        Err(e) => say("memory", State::Warning, format!("could not be forecast: {e:#}")),
    }
    let an_epoch = about.rows.div_ceil(settings.batch) as u64;
    if let Some(said) = other_total(&peft, settings.stop.steps(an_epoch))? {
        say("steps", State::Warning, said);
    }
    for (what, state, said) in steps(settings, &peft, data.train, seed)? {
        say(what, state, said);
    }
    Ok(())
}

/// The learning rate, beside what is usual with the method.
fn rate(settings: &Settings) -> Finding {
    let (lr, entry) = (settings.lr, settings.method.entry);
    let usual = entry.usual_learning_rates();
    let range = format!("{:e} to {:e}", usual.start(), usual.end());
    let (state, said) = match usual.contains(&lr) {
        true => (State::Ok, format!("{lr:e}, of {range} that are usual with {}", entry.title)),
        false => (State::Warning, format!("is {lr:e}, and {range} are usual with {}", entry.title)),
    };
    Finding { what: "learning rate", state, said }
}

/// The places that are written to, as far as that is seen without writing.
fn places(settings: &Settings) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut say = |what, state, said: String| found.push(Finding { what, state, said });
    let something = |dir: &Path| std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some());
    let dir = &settings.output;
    if dir.is_file() {
        say("output", State::Fault, format!("{}: is a file", dir.display()));
    } else if something(dir) {
        let said = "holds something: a new run is refused there, --resume goes on with one, --overwrite takes it away";
        say("output", State::Warning, format!("{}: {said}", dir.display()));
    }
    if let Some(out) = &settings.merge {
        let entry = settings.method.entry;
        if entry.merges == Merges::No {
            let said = format!("{} is no change of weights, and cannot be folded in", entry.title);
            say("merge", State::Fault, said);
        } else if something(out) {
            say("merge", State::Warning, format!("{}: holds something", out.display()));
        }
    }
    found
}

fn dtypes(peft: &Peft) -> String {
    let mut kinds: BTreeMap<String, i64> = BTreeMap::new();
    for (name, numel) in peft.base().numels() {
        let kind = match peft.base().find(&name) {
            Some(t) => format!("{:?}", t.kind()),
            None => "NF4".into(),
        };
        *kinds.entry(kind).or_default() += numel;
    }
    let base: Vec<String> = kinds.iter().map(|(kind, n)| format!("{n} parameters of {kind}")).collect();
    format!("the base has {}; adapters are trained in Float", base.join(", "))
}

/// What an adapter of tied weights means, if it is one.
fn tied(settings: &Settings, model: &Path) -> Result<Option<String>> {
    let Some([head, words]) = hub::architecture(model, hub::Head::Stored)?.tied() else { return Ok(None) };
    let config = format!("{:?}", settings.method.fields());
    let named = ["lm_head", "embed_tokens", "wte"].iter().any(|name| config.contains(name));
    let said = format!(
        "`{head}` is `{words}`, and the method is given one of them: what it learns there concerns both; see \
         ensure_weight_tying"
    );
    Ok(named.then_some(said))
}

/// A head that has nothing to tell apart.
fn one_class(peft: &Peft) -> Result<Option<String>> {
    let classes = peft.classes(&[ADAPTER])?;
    Ok((classes.len() == 1)
        .then(|| format!("there is one alone, `{}`: nothing to tell apart", classes.concat())))
}

/// Bytes that are free on the device.
fn free_memory(device: Device) -> Option<i64> {
    match device {
        Device::Cuda(number) => {
            peft_core::device::cuda_device(number).ok().and_then(|d| i64::try_from(d.memory).ok())
        }
        _ => {
            let text = std::fs::read_to_string("/proc/meminfo").ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
            line.trim().strip_suffix("kB")?.trim().parse::<i64>().ok()?.checked_mul(1024)
        }
    }
}

/// Takes real steps, at the peak of the learning rate: what is trained has to move, and nothing else may.
fn steps(
    settings: &Settings,
    peft: &Peft,
    train: Box<dyn peft_core::train::Task>,
    seed: u64,
) -> Result<Vec<(&'static str, State, String)>> {
    let recipe = Recipe {
        optim: settings.optim.clone(),
        lr: settings.lr,
        schedule: Schedule::Constant,
        clip: settings.clip,
        batch: settings.batch,
        micro_batch: settings.micro_batch,
        order: settings.order.into(),
        recompute: settings.recompute.and_then(std::num::NonZeroUsize::new),
        seed,
    };
    let mut run = Run::new(peft, &[ADAPTER], &recipe, train)?;
    let trained: BTreeMap<String, Tensor> =
        peft.trainable(&[ADAPTER])?.into_iter().map(|(name, t)| (name, t.detach().copy())).collect();
    let adapter = peft.params(ADAPTER)?;
    let (base, frozen) =
        (fingerprint(peft.base(), |_| true)?, fingerprint(adapter, |name| !trained.contains_key(name))?);
    let mut found = Vec::new();
    let begun = Instant::now();
    let mut losses = Vec::new();
    let mut still: Vec<String> = trained.keys().cloned().collect();
    while losses.len() < STEPS && !still.is_empty() {
        let step = run.step()?;
        if let Some(rows) = step.reduced {
            found.push(("memory", State::Warning, format!("ran out: {rows} rows at once are what fits")));
        }
        losses.push(step.loss);
        let now = adapter.tensors();
        still.retain(|name| now.get(name).zip(trained.get(name)).is_some_and(|(now, was)| now.equal(was)));
    }
    let seconds = begun.elapsed().as_secs_f64() / losses.len().max(1) as f64;
    let total = settings.stop.steps(run.steps_per_epoch());
    let first = losses.first().copied().ok_or_else(|| anyhow!("no step was taken"))?;
    let time = format!("{seconds:.2} s a step, about {:.0} min for {total}", seconds * total as f64 / 60.0);
    found.push(("first step", State::Ok, format!("loss {first:.4}; {time}")));
    found.push(match still.as_slice() {
        [] => ("what is trained", State::Ok, format!("all {} tensors move", trained.len())),
        [first, ..] => {
            let said = format!(
                "{} of {} tensors do not move in {} steps, `{first}` among them",
                still.len(),
                trained.len(),
                losses.len()
            );
            ("what is trained", State::Fault, said)
        }
    });
    let moved = base != fingerprint(peft.base(), |_| true)?
        || frozen != fingerprint(adapter, |name| !trained.contains_key(name))?;
    found.push(match moved {
        false => ("what is frozen", State::Ok, "nothing of it moves".into()),
        true => ("what is frozen", State::Fault, "some of it was changed by a step".into()),
    });
    Ok(found)
}

/// Numbers that are others when a tensor is: its sum and its norm, to the bit.
fn fingerprint(params: &Params, of: impl Fn(&str) -> bool) -> Result<BTreeMap<String, [u64; 2]>> {
    let _guard = tch::no_grad_guard();
    let tensors = params.tensors().into_iter().filter(|(name, _)| of(name));
    tensors
        .map(|(name, t)| {
            let t = t.f_to_kind(tch::Kind::Double)?;
            let sum = t.f_sum(tch::Kind::Double)?.f_double_value(&[])?;
            let norm = t.f_norm()?.f_double_value(&[])?;
            Ok((name, [sum.to_bits(), norm.to_bits()]))
        })
        .collect()
}
