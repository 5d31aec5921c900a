//! A small model in training, whose memory is counted.
//!
//! All weights are views of one buffer, as long as the largest of them: the model takes hardly any memory itself.

use crate::error::Result;
use crate::estimate::{Setup, Storage};
use crate::peft::Peft;
use crate::run::{Architecture, Model};
use crate::seam::{Batch, MethodConfig, Params, Pass};
use crate::train::{Adam, AdamConfig, cross_entropy, next_token_loss};
use peft_sys::memory;
use std::collections::BTreeMap;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// What is computed at once in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Rows; of a batch that is computed in parts, those of a part.
    pub batch: i64,
    /// Tokens of the longest row.
    pub length: i64,
}

/// The name of the adapter that is measured.
const PROBE: &str = "probe";

/// What makes a method's configuration, as often as it is asked.
pub(super) type Method<'a> = &'a dyn Fn() -> Result<Box<dyn MethodConfig>>;

/// Random numbers, N(0, 0.02²).
pub(super) fn drawn(size: &[i64], kind: Kind) -> Result<Tensor> {
    Ok(Tensor::f_randn(size, (Kind::Float, Device::Cpu))?.f_mul_scalar(0.02)?.f_to_kind(kind)?)
}

/// The most bytes that a step holds in each of its phases, beside what is held between two steps: forward, loss, backward,
/// update. Which of them is worst may be another one in a larger model, so each is told by itself.
pub(super) type Phases = [f64; 4];

/// A small model in training.
pub(super) struct Probe {
    peft: Peft,
    model: Box<dyn Model>,
    adam: Adam,
    steps: u64,
    /// Bytes that the method keeps of its training, AdaLoRA's averages above all.
    kept: f64,
}

impl Probe {
    /// The model over numbers that mean nothing, with a fresh adapter.
    pub(super) fn of(architecture: Arc<dyn Architecture>, method: Method<'_>, setup: &Setup) -> Result<Self> {
        let shapes = Peft::of(Params::phantom(PROBE), architecture.clone())?.base().tensors();
        let kind = setup.base.dense();
        let most = shapes.values().map(|t| t.size().iter().product::<i64>()).max().unwrap_or_default();
        let buffer = drawn(&[most], kind)?;
        let tensors = shapes.into_iter().map(|(name, t)| {
            let size = t.size();
            Ok((name, buffer.f_narrow(0, 0, size.iter().product())?.f_view(size.as_slice())?))
        });
        let tensors = tensors.collect::<Result<BTreeMap<_, _>>>()?;
        let mut peft = Peft::of(Params::from_tensors(PROBE, Device::Cpu, tensors)?, architecture)?;
        if let Storage::Nf4 { config, .. } = &setup.base {
            peft = peft.quantised(config)?;
        }
        peft.add(PROBE, method()?)?;
        Self::new(peft)
    }

    /// After its first step, which makes the gradients.
    fn new(peft: Peft) -> Result<Self> {
        let trained = peft.trainable(&[PROBE])?;
        let bytes =
            |t: &Tensor| t.size().iter().product::<i64>() as f64 * t.kind().elt_size_in_bytes() as f64;
        // Of a parameter there are a gradient and two moments.
        let expected: f64 = trained.iter().map(|(_, t)| 3.0 * bytes(t)).sum();
        let before = memory::live() as f64;
        let adam = Adam::new(trained, AdamConfig::default(), peft.numerics())?;
        let model = peft.view(&[PROBE])?;
        let mut probe = Self { peft, model, adam, steps: 0, kept: 0.0 };
        probe.step(Shape { batch: 1, length: 4 })?;
        probe.kept = (memory::live() as f64 - before - expected).max(0.0);
        Ok(probe)
    }

    /// The peaks of one training step.
    pub(super) fn step(&mut self, shape: Shape) -> Result<Phases> {
        let Self { peft, model, adam, steps, kept } = self;
        let (batch, labels) = batch(peft, shape)?;
        adam.zero_grad();
        let held = memory::live() as f64 - *kept;
        let peak = || memory::peak() as f64 - held;
        memory::reset_peak();
        let logits = model.forward(&batch, Pass::train())?;
        let forward = peak();
        memory::reset_peak();
        let causal = peft.outline().dims.causal();
        let loss = if causal { next_token_loss(&logits, &labels)? } else { cross_entropy(&logits, &labels)? };
        let penalty = peft.penalty(&[PROBE])?;
        let loss = penalty.map_or(Ok(loss.shallow_clone()), |penalty| loss.f_add(&penalty))?;
        let lost = peak();
        drop(logits); // as a run does
        memory::reset_peak();
        loss.f_backward()?;
        let backward = peak();
        memory::reset_peak();
        adam.step(0.0)?;
        *steps = steps.saturating_add(1);
        peft.after_step(&[PROBE], *steps)?;
        Ok([forward, lost, backward, peak()])
    }
}

/// Rows of that length, the last token of each of which is padding, as rows of different length have it.
fn batch(peft: &Peft, shape: Shape) -> Result<(Batch, Tensor)> {
    let Shape { batch, length } = shape;
    let options = (Kind::Int64, Device::Cpu);
    let dims = &peft.outline().dims;
    let vocab = dims.sizes()?.vocab;
    let ids = Tensor::f_randint(vocab.max(1), [batch, length], options)?;
    let ids = match dims.sizes()?.pad {
        Some(pad) => ids.f_masked_fill(&ids.f_eq(pad)?, i64::from(pad == 0))?,
        None => ids,
    };
    if length < 2 {
        let labels = if dims.causal() { ids.shallow_clone() } else { Tensor::f_zeros([batch], options)? };
        return Ok((Batch::dense(ids), labels));
    }
    let words = Tensor::f_ones([batch, length.saturating_sub(1)], options)?;
    let mask = Tensor::f_cat(&[words, Tensor::f_zeros([batch, 1], options)?], 1)?;
    let batch_of = Batch::masked(ids, mask);
    let labels =
        if dims.causal() { batch_of.next_token_labels()? } else { Tensor::f_zeros([batch], options)? };
    Ok((batch_of, labels))
}

/// The polynomial through these points, phase by phase, at `x`: Lagrange's.
pub(super) fn through(points: &[(f64, Phases)], x: f64) -> Phases {
    let mut sum = Phases::default();
    for (at, phases) in points {
        let others = points.iter().filter(|(other, _)| other != at);
        let weight: f64 = others.map(|(other, _)| (x - other) / (at - other)).product();
        sum.iter_mut().zip(phases).for_each(|(sum, bytes)| *sum += weight * bytes);
    }
    sum
}
