//! One training step: backward, clip, schedule, update, with every way of going wrong reported.

use crate::check;
use crate::error::{Error, Result};
use crate::peft::{Adapted, Peft, penalty};
use crate::seam::Numerics;
use crate::train::lora_fa::Projection;
use crate::train::{Adam, AdamConfig, Group, Optim, Schedule};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tch::Tensor;

/// Trains the adapters that it is made for: an optimizer, a learning rate with its schedule, and what the adapters' methods
/// do at each step (terms of the loss, pruning).
///
/// ```
/// # use peft_core::{Batch, Pass, Peft, methods::LoraConfig, models::TinyConfig};
/// # use peft_core::tch::{Device, Kind, Tensor};
/// use peft_core::train::{LoraPlus, Schedule, Trainer, cross_entropy};
/// # fn main() -> peft_core::Result<()> {
/// # let config = TinyConfig::default();
/// # let mut peft = Peft::new(config.init(Device::Cpu)?, config)?;
/// # peft.add("mine", LoraConfig::new(8).targets(["ff.0"]))?;
/// # let (ids, classes) = (Tensor::f_ones([2, 5], (Kind::Int64, Device::Cpu))?, Tensor::f_from_slice(&[0i64, 3])?);
/// # let batch = Batch::dense(ids);
/// let schedule = Schedule::Linear { warmup: 1, total: 10 };
/// let mut trainer = Trainer::new(&peft, &["mine"], LoraPlus::new(16.0), 1e-3, schedule)?.clip(1.0);
/// let model = peft.view(&["mine"])?;
/// for _ in 0..10 {
///     trainer.step(&cross_entropy(&model.forward(&batch, Pass::train())?, &classes)?)?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Trainer {
    pub(super) adapters: Vec<Arc<Adapted>>,
    adam: Adam,
    projection: Option<Projection>,
    lr: f64,
    schedule: Schedule,
    max_grad_norm: Option<f64>,
}

/// What one step of a [`Trainer`] did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// The loss before the update, with what the adapters' methods add to it.
    pub loss: f64,
    /// Learning rate of the update.
    pub lr: f64,
    /// Norm of all gradients together, before clipping; only where clipping is on.
    pub grad_norm: Option<f64>,
    /// What the loss is the mean of, in rows or tokens: the weights of the parts, together. 1 of a step without parts.
    pub weight: f64,
    /// Parts that were passed over, since nothing in them counts.
    pub skipped: usize,
}

/// What the parts of a step come to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sum {
    pub loss: f64,
    pub weight: f64,
    pub skipped: usize,
}

impl Trainer {
    /// A trainer of the named adapters: of all that their methods train, but for what the optimizer freezes (A of a LoRA,
    /// for [`LoraFa`](super::LoraFa)). What an earlier trainer froze is trained again. `lr` is the learning rate at the
    /// schedule's peak.
    ///
    /// # Errors
    /// A name that is unknown or there twice; nothing to train; a learning rate or a constant that is negative or no
    /// number; a schedule that never reaches its peak; an optimizer that is not for these adapters.
    pub fn new(
        peft: &Peft,
        active: &[&str],
        optim: impl Into<Optim>,
        lr: f64,
        schedule: Schedule,
    ) -> Result<Self> {
        let (optim, adapters) = (optim.into(), peft.adapted(active)?);
        check(&optim.adam(), lr, schedule)?;
        adapters.iter().try_for_each(|adapted| adapted.train(|_| true))?;
        let projection = match &optim {
            Optim::LoraFa(fa) => Some(Projection::new(fa.product, &adapters)?),
            _ => None,
        };
        let mut groups = optim.groups(peft, active, lr)?;
        tell_apart(&mut groups, peft, active)?;
        let trainer = Self::of(groups, optim.adam(), peft.numerics(), lr, schedule)?;
        Ok(Self { adapters, projection, ..trainer })
    }

    /// A trainer of the base itself, of those of its parameters that were made trainable
    /// ([`Params::set_trainable`](crate::Params::set_trainable)): for a base that is yet to be pre-trained.
    ///
    /// # Errors
    /// As [`Trainer::new`].
    pub fn for_base(peft: &Peft, adam: AdamConfig, lr: f64, schedule: Schedule) -> Result<Self> {
        check(&adam, lr, schedule)?;
        Self::of(vec![adam.group(peft.base().trainable())], adam, peft.numerics(), lr, schedule)
    }

    fn of(
        groups: Vec<Group>,
        adam: AdamConfig,
        numerics: Numerics,
        lr: f64,
        schedule: Schedule,
    ) -> Result<Self> {
        let adam = Adam::grouped(groups, adam, numerics)?;
        Ok(Self { adapters: Vec::new(), adam, projection: None, lr, schedule, max_grad_norm: None })
    }

    /// Scales the gradients down whenever their norm exceeds `max_norm`, as `clip_grad_norm_` does. A `max_norm` that is not
    /// above 0 is refused by the first step.
    #[must_use]
    pub fn clip(self, max_norm: f64) -> Self {
        Self { max_grad_norm: Some(max_norm), ..self }
    }

    /// How many steps were taken, those of a state that was loaded included.
    pub fn steps(&self) -> u64 {
        self.adam.steps()
    }

    /// The optimizer, to save its state and to load it; the schedule goes on where the state was. Tensors that several of
    /// the adapters have by one name are told apart by the adapter's: `mine.base_model.model...`.
    pub fn optimizer(&mut self) -> &mut Adam {
        &mut self.adam
    }

    /// As [`Trainer::optimizer`], to be looked at.
    pub fn adam(&self) -> &Adam {
        &self.adam
    }

    /// One update: adds to `loss` what the adapters' methods ask for, differentiates, clips, updates, and tells the methods
    /// that the step is done.
    ///
    /// # Errors
    /// [`Error::NonFinite`] when the loss or the gradients' norm is not a number; nothing is updated then.
    pub fn step(&mut self, loss: &Tensor) -> Result<StepReport> {
        self.start()?;
        let penalised = self.penalty()?.map(|p| loss.f_add(&p)).transpose()?;
        let loss = self.differentiate(penalised.as_ref().unwrap_or(loss), 1.0)?;
        self.update(Sum { loss, weight: 1.0, skipped: 0 })
    }

    /// One update from the parts of a batch that is too large to be computed at once: gradient accumulation. Each part is
    /// its mean loss and its weight, how many rows or tokens that is the mean of; the step's loss is their weighted mean,
    /// as of the whole batch at once, and what the adapters' methods add counts once. A part is differentiated, and what it
    /// holds let go, before the next is asked for. A part of weight 0 is passed over, and counted in the report.
    ///
    /// # Errors
    /// As [`Trainer::step`], and what a part says; no part, weights that are negative or no number, and
    /// [`Error::Masked`] where no part has any weight.
    pub fn step_accumulated<E: From<Error>>(
        &mut self,
        parts: impl IntoIterator<Item = std::result::Result<(Tensor, f64), E>>,
    ) -> std::result::Result<StepReport, E> {
        let sum = self.accumulate(parts)?;
        Ok(self.update(sum)?)
    }

    /// What the adapters' methods add to the loss, if anything.
    fn penalty(&self) -> Result<Option<Tensor>> {
        penalty(self.adapters.iter().map(|a| (a.resolved.method.as_ref(), &a.params)))
    }

    /// Forgets the gradients of the step before.
    fn start(&mut self) -> Result<()> {
        self.max_grad_norm.map_or(Ok(()), |max| check::above_zero("trainer", "max_grad_norm", max))?;
        self.adam.zero_grad();
        Ok(())
    }

    /// The weighted mean of the parts' losses with what the methods add, and its gradients in place of those there were.
    /// Nothing is updated.
    pub(super) fn accumulate<E: From<Error>>(
        &mut self,
        parts: impl IntoIterator<Item = std::result::Result<(Tensor, f64), E>>,
    ) -> std::result::Result<Sum, E> {
        self.start()?;
        let mut sum = Sum { loss: 0.0, weight: 0.0, skipped: 0 };
        for part in parts {
            let (loss, weight) = part?;
            if !(weight >= 0.0 && weight.is_finite()) {
                let message = format!("a part of weight {weight}, expected 0 or a positive number");
                return Err(Error::Input(message).into());
            }
            if weight == 0.0 {
                sum.skipped = sum.skipped.saturating_add(1);
                continue;
            }
            sum.loss += weight * self.differentiate(&loss, weight)?;
            sum.weight += weight;
        }
        if sum.weight == 0.0 {
            return Err(match sum.skipped {
                0 => Error::Input("gradient accumulation without a part".into()),
                _ => Error::Masked { rows: Vec::new() },
            }
            .into());
        }
        peft_sys::scale(&self.adam.grads()?, 1.0 / sum.weight).map_err(Error::from)?;
        sum.loss /= sum.weight;
        if let Some(penalty) = self.penalty()? {
            sum.loss += self.differentiate(&penalty, 1.0)?;
        }
        Ok(sum)
    }

    /// Adds the gradients of `weight · loss` to those there are; the loss.
    fn differentiate(&self, loss: &Tensor, weight: f64) -> Result<f64> {
        let value = loss.f_double_value(&[])?;
        if !value.is_finite() {
            let step = self.adam.steps().saturating_add(1);
            return Err(Error::NonFinite { what: "the loss", value, step, rows: Vec::new() });
        }
        if !loss.requires_grad() {
            let message = "the loss has no gradient: it was computed without what is trained (by a view of other adapters, \
                           say), or where gradients are off";
            return Err(Error::Input(message.into()));
        }
        match weight == 1.0 {
            true => loss.f_backward()?,
            false => loss.f_mul_scalar(weight)?.f_backward()?,
        }
        Ok(value)
    }

    /// Updates with the gradients there are, and tells the methods.
    pub(super) fn update(&mut self, sum: Sum) -> Result<StepReport> {
        let done = self.adam.steps();
        let grad_norm =
            self.max_grad_norm.map(|max| self.clip_grads(max, done.saturating_add(1))).transpose()?;
        if let Some(projection) = &self.projection {
            projection.apply()?;
        }
        let lr = self.lr * self.schedule.factor(done);
        self.adam.step(lr)?;
        let step = self.adam.steps();
        self.adapters.iter().try_for_each(|a| a.resolved.method.after_step(&a.params, step))?;
        let Sum { loss, weight, skipped } = sum;
        Ok(StepReport { loss, lr, grad_norm, weight, skipped })
    }

    fn clip_grads(&self, max: f64, step: u64) -> Result<f64> {
        let grads = self.adam.grads()?;
        let norm = peft_sys::grad_norm(&grads)?;
        if !norm.is_finite() {
            return Err(Error::NonFinite {
                what: "the gradients' norm",
                value: norm,
                step,
                rows: Vec::new(),
            });
        }
        let factor = max / (norm + 1e-6);
        if factor < 1.0 {
            peft_sys::scale(&grads, factor)?;
        }
        Ok(norm)
    }
}

/// Puts the adapter's name before names of tensors that several adapters have: the optimizer's state goes by them.
fn tell_apart(groups: &mut [Group], peft: &Peft, active: &[&str]) -> Result<()> {
    let mut owners: BTreeMap<String, VecDeque<&str>> = BTreeMap::new();
    for adapter in active {
        for (name, _) in peft.trainable(&[*adapter])? {
            owners.entry(name).or_default().push_back(adapter);
        }
    }
    owners.retain(|_, all| all.len() > 1);
    for (name, _) in groups.iter_mut().flat_map(|group| &mut group.params) {
        if let Some(adapter) = owners.get_mut(name).and_then(VecDeque::pop_front) {
            *name = format!("{adapter}.{name}"); // a group has them in the adapters' order
        }
    }
    Ok(())
}

/// What can be said of a training before anything is frozen for it.
fn check(adam: &AdamConfig, lr: f64, schedule: Schedule) -> Result<()> {
    check::not_negative("trainer", "lr", lr)?;
    schedule.check()?;
    adam.check()
}
