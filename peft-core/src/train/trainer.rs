//! One training step: backward, clip, schedule, update, with every way of going wrong reported.

use crate::error::{Error, Result};
use crate::peft::Peft;
use crate::train::optimizer::not_negative;
use crate::train::{Adam, AdamConfig, Group, LoraFa, Schedule};
use tch::Tensor;

/// An optimizer with its schedule.
#[derive(Debug)]
pub struct Trainer {
    adam: Adam,
    lr: f64,
    schedule: Schedule,
    max_grad_norm: Option<f64>,
    lora_fa: Option<LoraFa>,
}

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Loss before the update.
    pub loss: f64,
    /// Learning rate of the update.
    pub lr: f64,
    /// Norm of all gradients together, before clipping; only where clipping is on.
    pub grad_norm: Option<f64>,
}

impl Trainer {
    /// Over the given tensors, at peak learning rate `lr`.
    ///
    /// # Errors
    /// No tensor; a learning rate or a constant that is negative or no number; a schedule that never reaches its peak.
    pub fn new(
        params: Vec<(String, Tensor)>,
        config: AdamConfig,
        lr: f64,
        schedule: Schedule,
    ) -> Result<Self> {
        Self::grouped(
            vec![Group { params, rate: 1.0, weight_decay: config.weight_decay }],
            config,
            lr,
            schedule,
        )
    }

    /// Over groups with rates of their own ([`super::LoraPlus::groups`]); `lr` is what their rates multiply.
    pub fn grouped(groups: Vec<Group>, config: AdamConfig, lr: f64, schedule: Schedule) -> Result<Self> {
        not_negative("trainer", "lr", lr)?;
        schedule.check()?;
        let adam = Adam::grouped(groups, config)?;
        Ok(Self { adam, lr, schedule, max_grad_norm: None, lora_fa: None })
    }

    /// Over the trainable tensors of the named adapters.
    pub fn for_adapters(
        peft: &Peft,
        active: &[&str],
        config: AdamConfig,
        lr: f64,
        schedule: Schedule,
    ) -> Result<Self> {
        Self::new(peft.trainable(active)?, config, lr, schedule)
    }

    /// Scales the gradients down whenever their norm exceeds `max_norm`, as `clip_grad_norm_` does. One that is not above
    /// 0 is refused by the first step.
    #[must_use]
    pub fn clip(self, max_norm: f64) -> Self {
        Self { max_grad_norm: Some(max_norm), ..self }
    }

    /// Projects the gradients of LoRA's factors before every update, as LoRA-FA does. Make it before the trainer: what
    /// it freezes is not trained.
    #[must_use]
    pub fn lora_fa(self, lora_fa: LoraFa) -> Self {
        Self { lora_fa: Some(lora_fa), ..self }
    }

    /// Number of steps taken.
    pub fn steps(&self) -> u64 {
        self.adam.steps()
    }

    /// The optimizer, to save its state and to load it; the schedule goes on where the state was.
    pub fn optimizer(&mut self) -> &mut Adam {
        &mut self.adam
    }

    /// Differentiates `loss` and updates.
    ///
    /// # Errors
    /// [`Error::NonFinite`] when the loss or the gradients' norm is not a number; nothing is updated then.
    pub fn step(&mut self, loss: &Tensor) -> Result<StepReport> {
        self.start()?;
        let loss = self.differentiate(loss, 1.0)?;
        self.update(loss)
    }

    /// As [`Trainer::step`] for adapters: adds their penalties to the loss and tells them that the step is done.
    pub fn step_adapters(&mut self, peft: &Peft, active: &[&str], loss: &Tensor) -> Result<StepReport> {
        let penalised = peft.penalty(active)?.map(|p| loss.f_add(&p)).transpose()?;
        let report = self.step(penalised.as_ref().unwrap_or(loss))?;
        peft.after_step(active, self.adam.steps())?;
        Ok(report)
    }

    /// One update from the parts of a batch that is too large to be computed at once: gradient accumulation. Each part is
    /// its mean loss and its weight, how many rows or tokens that is the mean of; the step's loss is their weighted mean,
    /// as of the whole batch at once. A part is differentiated, and what it holds let go, before the next is asked for.
    ///
    /// # Errors
    /// As [`Trainer::step`], and what a part says; no part, and weights that are not positive.
    pub fn step_accumulated<E: From<Error>>(
        &mut self,
        parts: impl IntoIterator<Item = std::result::Result<(Tensor, f64), E>>,
    ) -> std::result::Result<StepReport, E> {
        let loss = self.accumulate(parts)?;
        Ok(self.update(loss)?)
    }

    /// As [`Trainer::step_accumulated`] for adapters; their penalties count once a step, whatever the parts.
    pub fn step_adapters_accumulated<E: From<Error>>(
        &mut self,
        peft: &Peft,
        active: &[&str],
        parts: impl IntoIterator<Item = std::result::Result<(Tensor, f64), E>>,
    ) -> std::result::Result<StepReport, E> {
        let mut loss = self.accumulate(parts)?;
        if let Some(penalty) = peft.penalty(active)? {
            loss += self.differentiate(&penalty, 1.0)?;
        }
        let report = self.update(loss)?;
        peft.after_step(active, self.adam.steps())?;
        Ok(report)
    }

    /// Forgets the gradients of the step before.
    fn start(&mut self) -> Result<()> {
        if let Some(max) = self.max_grad_norm.filter(|max| !(*max > 0.0 && max.is_finite())) {
            let message = format!("should be a positive number, is {max}");
            return Err(Error::config("trainer", "max_grad_norm", message));
        }
        self.adam.zero_grad();
        Ok(())
    }

    /// The weighted mean of the parts' losses, and its gradients in place of those there were.
    fn accumulate<E: From<Error>>(
        &mut self,
        parts: impl IntoIterator<Item = std::result::Result<(Tensor, f64), E>>,
    ) -> std::result::Result<f64, E> {
        self.start()?;
        let (mut sum, mut weights) = (0.0, 0.0);
        for part in parts {
            let (loss, weight) = part?;
            if !(weight > 0.0 && weight.is_finite()) {
                let message = format!(
                    "a part of weight {weight}, expected a positive number: a part of which nothing counts, all its \
                     labels −100, is to be left out"
                );
                return Err(Error::Input(message).into());
            }
            sum += weight * self.differentiate(&loss, weight)?;
            weights += weight;
        }
        if weights == 0.0 {
            return Err(Error::Input("gradient accumulation without a part".into()).into());
        }
        peft_sys::scale(&self.adam.grads()?, 1.0 / weights).map_err(Error::from)?;
        Ok(sum / weights)
    }

    /// Adds the gradients of `weight · loss` to those there are; the loss.
    fn differentiate(&self, loss: &Tensor, weight: f64) -> Result<f64> {
        let value = loss.f_double_value(&[])?;
        if !value.is_finite() {
            let step = self.adam.steps().saturating_add(1);
            return Err(Error::NonFinite { what: "the loss", value, step });
        }
        match weight == 1.0 {
            true => loss.f_backward()?,
            false => loss.f_mul_scalar(weight)?.f_backward()?,
        }
        Ok(value)
    }

    /// Updates with the gradients there are.
    fn update(&mut self, loss: f64) -> Result<StepReport> {
        let done = self.adam.steps();
        let grad_norm =
            self.max_grad_norm.map(|max| self.clip_grads(max, done.saturating_add(1))).transpose()?;
        if let Some(lora_fa) = &self.lora_fa {
            lora_fa.project()?;
        }
        let lr = self.lr * self.schedule.factor(done);
        self.adam.step(lr)?;
        Ok(StepReport { loss, lr, grad_norm })
    }

    fn clip_grads(&self, max: f64, step: u64) -> Result<f64> {
        let grads = self.adam.grads()?;
        let norm = peft_sys::grad_norm(&grads)?;
        if !norm.is_finite() {
            return Err(Error::NonFinite { what: "the gradients' norm", value: norm, step });
        }
        let factor = max / (norm + 1e-6);
        if factor < 1.0 {
            peft_sys::scale(&grads, factor)?;
        }
        Ok(norm)
    }
}
