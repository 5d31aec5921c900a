//! Adam (Kingma & Ba 2015, <https://arxiv.org/abs/1412.6980>) and AdamW (Loshchilov & Hutter 2019,
//! <https://arxiv.org/abs/1711.05101>), as PyTorch computes them. tch's own cannot save their state.
//!
//! With gradient g at step t: `m ← β₁ m + (1−β₁) g`, `v ← β₂ v + (1−β₂) g²`,
//! `p ← p − lr · (m/(1−β₁ᵗ)) / (√(v/(1−β₂ᵗ)) + ε)`; weight decay λ is `p ← (1 − lr λ) p` before that (AdamW), or
//! `g ← g + λ p` (Adam), or follows it (transformers' AdamW). Parameters come in groups with rates of their own.

use crate::check;
use crate::error::{Error, Result};
use crate::seam::{Numerics, Params};
use peft_sys::AdamStep;
use std::collections::{BTreeMap, BTreeSet};
use tch::{Device, Tensor};

const NAME: &str = "Adam";

/// The constants of Adam and AdamW, all but the learning rate; the defaults are those of `torch.optim.AdamW`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamConfig {
    /// β₁: how much of the mean of the gradients stays from step to step; in `[0, 1)`.
    pub beta1: f64,
    /// β₂: how much of the mean of their squares stays.
    pub beta2: f64,
    /// ε, added to the root of the mean of the squares, which may be 0.
    pub eps: f64,
    /// λ: what share of the weights goes a step, times the learning rate.
    pub weight_decay: f64,
    /// How the weights decay.
    pub decay: Decay,
}

/// How weight decay λ makes the weights smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decay {
    /// Through the gradient, `g ← g + λ p`: Adam.
    Gradient,
    /// Before the step, `p ← (1 − lr λ) p`: AdamW.
    Before,
    /// After the step, by the same factor, and ε stands beside the uncorrected √v: the AdamW that transformers had.
    After,
}

impl Default for AdamConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, decay: Decay::Before }
    }
}

impl AdamConfig {
    /// The constants of `torch.optim.Adam`: no weight decay.
    pub fn adam() -> Self {
        Self { weight_decay: 0.0, decay: Decay::Gradient, ..Self::default() }
    }

    /// All of `params` in one group, at the step's learning rate.
    pub(super) fn group(&self, params: Vec<(String, Tensor)>) -> Group {
        Group { params, rate: 1.0, weight_decay: self.weight_decay }
    }

    /// Refuses what PyTorch refuses, and what is no number.
    pub(super) fn check(&self) -> Result<()> {
        for (field, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            check::share(NAME, field, beta)?;
        }
        check::not_negative(NAME, "eps", self.eps)?;
        check::not_negative(NAME, "weight_decay", self.weight_decay)
    }
}

/// Tensors that share a learning rate and a weight decay.
#[derive(Debug)]
pub struct Group {
    /// The tensors, with the names that the optimizer's state has for them.
    pub params: Vec<(String, Tensor)>,
    /// Learning rate, in multiples of the step's.
    pub rate: f64,
    /// λ of these tensors.
    pub weight_decay: f64,
}

/// A [`Group`], of which the optimizer holds the parameters.
#[derive(Debug, Clone, Copy)]
struct Rates {
    count: usize,
    rate: f64,
    weight_decay: f64,
}

/// Adam, or AdamW: the tensors that it trains, and its state, which is two moments a tensor and the number of steps.
#[derive(Debug)]
pub struct Adam {
    names: Vec<String>,
    params: Vec<Tensor>,
    m: Vec<Tensor>,
    v: Vec<Tensor>,
    step: i64,
    groups: Vec<Rates>,
    config: AdamConfig,
    numerics: Numerics,
}

impl Adam {
    /// An optimizer of the given tensors, which must be trainable, all with the learning rate of the step.
    ///
    /// # Errors
    /// When there are none: then nothing would be trained. Two of one name; constants that are out of range, by name.
    pub fn new(params: Vec<(String, Tensor)>, config: AdamConfig, numerics: Numerics) -> Result<Self> {
        Self::grouped(vec![config.group(params)], config, numerics)
    }

    /// An optimizer of groups of tensors, each with a learning rate and a weight decay of its own; that of the configuration
    /// does not count.
    ///
    /// # Errors
    /// As [`Adam::new`]; a rate or a weight decay of a group that is negative or no number.
    pub fn grouped(groups: Vec<Group>, config: AdamConfig, numerics: Numerics) -> Result<Self> {
        config.check()?;
        for group in &groups {
            check::not_negative("group", "rate", group.rate)?;
            check::not_negative("group", "weight_decay", group.weight_decay)?;
        }
        let rates = groups.iter().map(|g| Rates {
            count: g.params.len(),
            rate: g.rate,
            weight_decay: g.weight_decay,
        });
        let rates = rates.collect();
        let (names, params): (Vec<_>, Vec<_>) = groups.into_iter().flat_map(|g| g.params).unzip();
        if params.is_empty() {
            return Err(Error::Input("there is nothing to train: no tensor requires a gradient".into()));
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = names.iter().find(|name| !seen.insert(*name)) {
            return Err(Error::Exists {
                place: "the optimizer's tensors".into(),
                name: String::clone(twice),
            });
        }
        let zeros = || params.iter().map(|p| Ok(p.f_detach()?.f_zeros_like()?)).collect::<Result<Vec<_>>>();
        let (m, v) = (zeros()?, zeros()?);
        Ok(Self { names, params, m, v, step: 0, groups: rates, config, numerics })
    }

    /// How many steps were taken, those of a state that was loaded included.
    pub fn steps(&self) -> u64 {
        u64::try_from(self.step).unwrap_or_default()
    }

    /// The gradients of the tensors that have one, in their order.
    pub fn grads(&self) -> Result<Vec<Tensor>> {
        let all = self.params.iter().map(|p| Ok(p.f_grad()?)).collect::<Result<Vec<_>>>()?;
        Ok(all.into_iter().filter(Tensor::defined).collect())
    }

    /// Forgets all gradients, as is due before each step.
    pub fn zero_grad(&mut self) {
        for p in &mut self.params {
            p.zero_grad();
        }
    }

    /// One update with learning rate `lr`. Parameters without a gradient stay as they are.
    ///
    /// # Errors
    /// A learning rate that is negative or no number; nothing is updated then.
    pub fn step(&mut self, lr: f64) -> Result<()> {
        check::not_negative(NAME, "lr", lr)?;
        self.step = self.step.saturating_add(1);
        let mut all = self.params.iter().zip(&self.m).zip(&self.v);
        for group in &self.groups {
            let [mut params, mut grads, mut ms, mut vs] = [const { Vec::<Tensor>::new() }; 4];
            for ((p, m), v) in all.by_ref().take(group.count) {
                let grad = p.f_grad()?;
                if grad.defined() {
                    params.push(p.shallow_clone());
                    grads.push(grad);
                    ms.push(m.shallow_clone());
                    vs.push(v.shallow_clone());
                }
            }
            let constants = self.constants(lr * group.rate, group.weight_decay);
            peft_sys::adam_step(&params, &grads, &ms, &vs, &constants)?;
            if self.config.decay == Decay::After && group.weight_decay > 0.0 {
                peft_sys::scale(&params, 1.0 - constants.lr * group.weight_decay)?;
            }
        }
        Ok(())
    }

    fn constants(&self, lr: f64, weight_decay: f64) -> AdamStep {
        let c = self.config;
        let after = c.decay == Decay::After;
        // ε beside √v is ε/√(1−β₂ᵗ) beside the corrected one.
        let eps = if after { c.eps / (1.0 - c.beta2.powf(self.step as f64)).sqrt() } else { c.eps };
        AdamStep {
            step: self.step,
            lr,
            beta1: c.beta1,
            beta2: c.beta2,
            eps,
            weight_decay: if after { 0.0 } else { weight_decay },
            decoupled: c.decay == Decay::Before,
            fused: self.numerics == Numerics::Fast,
        }
    }

    /// The optimizer's state as named tensors, to be written to a file: `step`, and `m.<name>` and `v.<name>` for each parameter.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut state = BTreeMap::from([("step".to_owned(), Tensor::f_from_slice(&[self.step])?)]);
        for ((name, m), v) in self.names.iter().zip(&self.m).zip(&self.v) {
            state.insert(format!("m.{name}"), m.f_detach_copy()?);
            state.insert(format!("v.{name}"), v.f_detach_copy()?);
        }
        Ok(state)
    }

    /// Takes up a state that [`Adam::state`] gave.
    ///
    /// # Errors
    /// A name that is missing or superfluous, or a wrong shape; the state is unchanged then.
    pub fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        let device = self.params.first().map_or(Device::Cpu, Tensor::device);
        let tensors = state.iter().map(|(name, t)| (name.clone(), t.shallow_clone()));
        let state = Params::from_tensors("optimizer state", device, tensors)?;
        let step = state.get("step", &[1])?.f_int64_value(&[0])?;
        let both = |prefix: &str| -> Result<Vec<Tensor>> {
            let each = self.names.iter().zip(&self.params);
            each.map(|(n, p)| state.get(&format!("{prefix}.{n}"), &p.size())).collect()
        };
        let (m, v) = (both("m")?, both("v")?);
        let names = state.unread();
        if !names.is_empty() {
            return Err(Error::Unread { place: state.label().to_owned(), names });
        }
        let _guard = tch::no_grad_guard();
        for (own, saved) in self.m.iter_mut().zip(&m).chain(self.v.iter_mut().zip(&v)) {
            own.f_copy_(saved)?;
        }
        self.step = step;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    fn run(
        config: AdamConfig,
        numerics: Numerics,
        steps: usize,
        from: Option<(&BTreeMap<String, Tensor>, &Tensor)>,
    ) -> (Adam, Tensor) {
        let w = match from {
            Some((_, w)) => w.detach().copy(),
            None => Tensor::linspace(-1, 1, 12, (Kind::Float, Device::Cpu)).view([3, 4]),
        };
        let w = w.set_requires_grad(true);
        let mut adam = Adam::new(vec![("w".into(), w.shallow_clone())], config, numerics).unwrap();
        if let Some((state, _)) = from {
            adam.load_state(state).unwrap();
        }
        for _ in 0..steps {
            adam.zero_grad();
            ((&w * 1.7 - 0.3).tanh() * &w).sum(Kind::Float).backward();
            adam.step(0.05).unwrap();
        }
        (adam, w)
    }

    #[test]
    fn fused_and_exact_agree() {
        for config in [
            AdamConfig::default(),
            AdamConfig::adam(),
            AdamConfig { decay: Decay::Gradient, ..AdamConfig::default() },
            AdamConfig { decay: Decay::After, ..AdamConfig::default() },
        ] {
            let (_, a) = run(config, Numerics::Fast, 40, None);
            let (_, b) = run(config, Numerics::Exact, 40, None);
            assert!((&a - &b).abs().max().double_value(&[]) < 1e-5);
            assert!(
                (&a - run(config, Numerics::Fast, 0, None).1).abs().max().double_value(&[]) > 1e-1,
                "it moved"
            );
        }
    }

    #[test]
    fn a_saved_state_resumes_bit_for_bit() {
        let run = |steps, from: Option<(&BTreeMap<String, Tensor>, &Tensor)>| {
            run(AdamConfig::default(), Numerics::Fast, steps, from)
        };
        let (_, straight) = run(9, None);
        let (half, w) = run(4, None);
        let (_, resumed) = run(5, Some((&half.state().unwrap(), &w)));
        assert!(straight.equal(&resumed));
        let (mut other, _) = run(1, None);
        let mut wrong = half.state().unwrap();
        wrong.insert("m.x".into(), Tensor::zeros([1], (Kind::Float, Device::Cpu)));
        assert!(other.load_state(&wrong).unwrap_err().to_string().contains("`m.x`"));
    }
}
