//! What a training step holds for its own time: activations, the gradients that pass through them, the buffers of the loss.
//!
//! No formula of a family or a method says that; it is measured. A model of the same shapes, but of one layer and of two,
//! makes real steps on the CPU, with two rows and with three, and libtorch's allocator counts the bytes. What a step holds is
//! linear in layers and in rows, so four measurements give any number of them. Where a step of the whole length would take
//! long, three shorter ones give it, since what is held is of second degree in the length. All weights are views of one
//! buffer, as long as the largest of them: the model takes hardly any memory itself.

use crate::check;
use crate::error::{Error, Result};
use crate::estimate::{Blueprint, Estimate, Setup, Storage, human_bytes};
use crate::models::family;
use crate::peft::Peft;
use crate::run::{Architecture, Model};
use crate::seam::{Batch, MethodConfig, Params, Pass};
use crate::train::{Adam, AdamConfig, cross_entropy, next_token_loss};
use peft_sys::{generator, memory};
use std::collections::BTreeMap;
use std::fmt;
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

/// All that a training holds at its worst.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What is trained, and what is held between two steps.
    pub estimate: Estimate,
    /// What a step holds beside that.
    pub activations: i64,
}

impl Plan {
    /// The most bytes that tensors hold at any time.
    pub fn total(&self) -> i64 {
        self.estimate.memory.total().saturating_add(self.activations)
    }
}

impl fmt::Display for Plan {
    /// `3.87 GB base + 16.8 MB adapter + .. + 1.21 GB activations = 5.10 GB`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = self.estimate.memory.to_string();
        let parts = held.split(" = ").next().unwrap_or_default();
        write!(f, "{parts} + {} activations = {}", human_bytes(self.activations), human_bytes(self.total()))
    }
}

/// Multiplications and additions that a measured step may take: some seconds.
const WORK: i64 = 200_000_000_000;
/// The fields of `config.json` that say how many layers there are.
const LAYERS: &[&str] = &["num_hidden_layers", "n_layer"];
/// The name of the adapter that is measured.
const PROBE: &str = "probe";

impl Blueprint {
    /// What a method trains, what that holds between two steps, and what a step holds beside it, for full rows of text (of
    /// different length, padded) and Adam. `method` makes the configuration, as often as it is asked.
    ///
    /// The bytes are those of tensors on the CPU, where real steps are measured; on a GPU kernels and allocator differ. It takes
    /// a few seconds. libtorch's random numbers go on afterwards as if nothing had been drawn; counters of memory
    /// ([`device::peak_memory`](crate::device::peak_memory)) start anew.
    ///
    /// # Errors
    /// As [`Blueprint::estimate`]; a shape that the model has no positions for; a model without tokens, or without a form as
    /// `config.json`.
    pub fn plan(
        &self,
        method: impl Fn() -> Result<Box<dyn MethodConfig>>,
        setup: &Setup,
        shape: Shape,
    ) -> Result<Plan> {
        check::positive("plan", "batch", shape.batch)?;
        check::positive("plan", "length", shape.length)?;
        let estimate = self.estimate(method()?, setup)?;
        let sizes = self.outline().dims.sizes()?;
        if let Some(positions) = sizes.positions.filter(|positions| *positions < shape.length) {
            let message = format!("is {}, the model has positions for {positions}", shape.length);
            return Err(Error::config("plan", "length", message));
        }
        let before = generator::state(Device::Cpu)?;
        let bytes = self.forecast(&method, setup, shape, sizes.layers);
        generator::set_state(Device::Cpu, &before)?;
        let activations = bytes?.ceil() as i64;
        Ok(Plan { estimate, activations })
    }

    /// A model of this shape with random weights, N(0, 0.02²): to try out what it takes.
    pub fn drawn(&self, kind: Kind) -> Result<Peft> {
        let architecture = self.architecture();
        let shapes = Peft::of(Params::phantom("a drawn model"), architecture.clone())?.base().tensors();
        let tensors = shapes.into_iter().map(|(name, t)| Ok((name, drawn(&t.size(), kind)?)));
        let tensors = tensors.collect::<Result<BTreeMap<_, _>>>()?;
        Peft::of(Params::from_tensors("a drawn model", Device::Cpu, tensors)?, architecture)
    }

    fn forecast(
        &self,
        method: &impl Fn() -> Result<Box<dyn MethodConfig>>,
        setup: &Setup,
        shape: Shape,
        layers: i64,
    ) -> Result<f64> {
        memory::install();
        // A method that names layers which a shorter model lacks is measured in the whole one.
        let short = [1, 2].map(|n| self.probe(n, method, setup));
        let mut probes = match short {
            [Ok(one), Ok(two)] if layers > 0 => vec![(1, one), (2, two)],
            _ => vec![(layers, self.probe(layers, method, setup)?)],
        };
        let mut work = 1i64;
        for (_, probe) in &probes {
            work = work.max(probe.parameters()?.saturating_mul(6));
        }
        let tokens = WORK.checked_div(work).unwrap_or(WORK);
        let longest = tokens.checked_div(3).unwrap_or_default().max(16);
        let lengths = if shape.length <= longest {
            vec![shape.length]
        } else {
            let part = |n: i64| longest.saturating_mul(n).checked_div(4).unwrap_or(1);
            vec![part(1), part(2), part(4)]
        };
        // One row is another case than several: some of its tensors lie as they are needed.
        let rows = if shape.batch < 3 { shape.batch..=shape.batch } else { 2..=3 };
        let mut by_length = Vec::new();
        for length in lengths {
            let mut by_layers = Vec::new();
            for (n, probe) in &mut probes {
                let mut by_rows = Vec::new();
                for batch in rows.clone() {
                    by_rows.push((batch as f64, probe.step(Shape { batch, length })?));
                }
                by_layers.push((*n as f64, through(&by_rows, shape.batch as f64)));
            }
            by_length.push((length as f64, through(&by_layers, layers as f64)));
        }
        Ok(through(&by_length, shape.length as f64).iter().fold(0.0, |most: f64, bytes| most.max(*bytes)))
    }

    /// The same model of `layers` layers, over numbers that mean nothing, with a fresh adapter.
    fn probe(
        &self,
        layers: i64,
        method: &impl Fn() -> Result<Box<dyn MethodConfig>>,
        setup: &Setup,
    ) -> Result<Probe> {
        let architecture = self.of_layers(layers)?;
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
        Probe::new(peft)
    }

    /// The architecture with another number of layers.
    fn of_layers(&self, layers: i64) -> Result<Arc<dyn Architecture>> {
        let own = self.architecture();
        let wrong =
            || Error::config(self.outline().dims.model(), "plan", "has no config.json to be made smaller");
        if own.dims().transformer.is_some_and(|sizes| sizes.layers == layers) {
            return Ok(own);
        }
        let mut json = own.json().ok_or_else(wrong)?;
        let fields = json.as_object_mut().ok_or_else(wrong)?;
        for field in LAYERS {
            if let Some(number) = fields.get_mut(*field) {
                *number = layers.into();
            }
        }
        Ok(family(&json, "plan")?.describe(&json, "plan", None)?.0)
    }
}

fn drawn(size: &[i64], kind: Kind) -> Result<Tensor> {
    Ok(Tensor::f_randn(size, (Kind::Float, Device::Cpu))?.f_mul_scalar(0.02)?.f_to_kind(kind)?)
}

/// The most bytes that a step holds in each of its phases, beside what is held between two steps: forward, loss, backward,
/// update. Which of them is worst may be another one in a larger model, so each is told by itself.
type Phases = [f64; 4];

/// A small model in training.
struct Probe {
    peft: Peft,
    model: Box<dyn Model>,
    adam: Adam,
    steps: u64,
    /// Bytes that the method keeps of its training, AdaLoRA's averages above all.
    kept: f64,
}

impl Probe {
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

    fn parameters(&self) -> Result<i64> {
        Ok(self.peft.report(&[])?.all)
    }

    /// The peaks of one training step.
    fn step(&mut self, shape: Shape) -> Result<Phases> {
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
fn through(points: &[(f64, Phases)], x: f64) -> Phases {
    let mut sum = Phases::default();
    for (at, phases) in points {
        let others = points.iter().filter(|(other, _)| other != at);
        let weight: f64 = others.map(|(other, _)| (x - other) / (at - other)).product();
        sum.iter_mut().zip(phases).for_each(|(sum, bytes)| *sum += weight * bytes);
    }
    sum
}
