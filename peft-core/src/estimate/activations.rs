//! What a training step holds for its own time: activations, the gradients that pass through them, the buffers of the loss.
//!
//! No formula of a family or a method says that; it is measured. A model of the same shapes, but of one layer and of two,
//! makes real steps on the CPU, with two rows and with three, and libtorch's allocator counts the bytes. What a step holds is
//! linear in layers and in rows, so four measurements give any number of them.
//!
//! Where such a step would take long, the model is made narrower and its rows shorter by the same factor, twice by different
//! ones. What is held is a product of two of width and length, or goes with one of them, or is constant and then nothing to
//! speak of; so it is of second degree in the factor, without a constant, and two factors give the whole. All parts grow
//! together: what is the peak in small is the peak in large. A model that cannot be made narrower has shorter rows alone,
//! of three lengths.

use crate::check;
use crate::error::{Error, Result};
use crate::estimate::probe::{Method, Phases, Probe, Shape, drawn, through};
use crate::estimate::smaller::{of_layers, of_width};
use crate::estimate::{Blueprint, Estimate, Setup, human_bytes};
use crate::peft::Peft;
use crate::run::Architecture;
use crate::seam::{MethodConfig, Params};
use peft_sys::{generator, memory};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use tch::{Device, Kind};

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

/// Multiplications and additions that a measured step may take: a second or so.
const WORK: i64 = 10_000_000_000;
/// Rows of that many tokens are measured in any case.
const SHORTEST: i64 = 32;
/// Parts of the width that are tried: one in so many, and twice that.
const PARTS: &[i64] = &[4, 8, 16, 32];

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
        let plans = self.plans(method, setup, shape.length, &[shape.batch])?;
        plans.into_iter().next().ok_or_else(|| Error::Input("no plan".into()))
    }

    /// As [`Blueprint::plan`], for several numbers of rows at the cost of one or two.
    ///
    /// # Errors
    /// As [`Blueprint::plan`].
    pub fn plans(
        &self,
        method: impl Fn() -> Result<Box<dyn MethodConfig>>,
        setup: &Setup,
        length: i64,
        batches: &[i64],
    ) -> Result<Vec<Plan>> {
        batches.iter().try_for_each(|batch| check::positive("plan", "batch", *batch))?;
        check::positive("plan", "length", length)?;
        let estimate = self.estimate(method()?, setup)?;
        if let Some(positions) = self.outline().dims.sizes()?.positions.filter(|most| *most < length) {
            let message = format!("is {length}, the model has positions for {positions}");
            return Err(Error::config("plan", "length", message));
        }
        let before = generator::state(Device::Cpu)?;
        let forecast = self.forecast(&method, setup, length, batches);
        generator::set_state(Device::Cpu, &before)?;
        let forecast = forecast?;
        let plan = |batch: &i64| {
            let measured = forecast.iter().find(|(rows, _)| rows == batch).map(|(_, phases)| *phases);
            let several = || {
                let few = forecast.iter().filter(|(rows, _)| *rows > 1);
                through(&few.map(|(rows, phases)| (*rows as f64, *phases)).collect::<Vec<_>>(), *batch as f64)
            };
            let phases = measured.unwrap_or_else(several);
            let activations = phases.iter().fold(0.0, |most: f64, bytes| most.max(*bytes)).ceil() as i64;
            Plan { estimate: estimate.clone(), activations }
        };
        Ok(batches.iter().map(plan).collect())
    }

    /// A model of this shape with random weights, N(0, 0.02²): to try out what it takes.
    pub fn drawn(&self, kind: Kind) -> Result<Peft> {
        let architecture = self.architecture();
        let shapes = Peft::of(Params::phantom("a drawn model"), architecture.clone())?.base().tensors();
        let tensors = shapes.into_iter().map(|(name, t)| Ok((name, drawn(&t.size(), kind)?)));
        let tensors = tensors.collect::<Result<BTreeMap<_, _>>>()?;
        Peft::of(Params::from_tensors("a drawn model", Device::Cpu, tensors)?, architecture)
    }

    /// What the whole model's step holds, for some numbers of rows from which others follow.
    fn forecast(
        &self,
        method: Method<'_>,
        setup: &Setup,
        length: i64,
        batches: &[i64],
    ) -> Result<Vec<(i64, Phases)>> {
        memory::install();
        // One row is another case than several: some of its tensors lie as they are needed.
        let mut rows: BTreeSet<i64> = batches.iter().copied().filter(|batch| *batch < 3).collect();
        if batches.iter().any(|batch| *batch > 2) {
            rows.extend([2, 3]);
        }
        let own = Measured { architecture: self.architecture(), method, setup, rows: &rows };
        if own.work(length)? <= WORK {
            return own.steps(&[length], length);
        }
        match own.narrow(length)? {
            Some(forecast) => Ok(forecast),
            None => own.short(length),
        }
    }
}

/// A model whose steps are measured.
struct Measured<'a> {
    architecture: Arc<dyn Architecture>,
    method: Method<'a>,
    setup: &'a Setup,
    rows: &'a BTreeSet<i64>,
}

impl Measured<'_> {
    /// Multiplications and additions of the longest step that is measured.
    fn work(&self, length: i64) -> Result<i64> {
        let two = of_layers(&self.architecture, 2).unwrap_or_else(|_| self.architecture.clone());
        let parameters = Blueprint::shared(two)?.parameters();
        let rows = self.rows.last().copied().unwrap_or(1);
        Ok([6, rows, length].into_iter().fold(parameters, i64::saturating_mul))
    }

    /// What the steps of all layers hold, for each number of rows, for rows of a length, from steps of these lengths.
    fn steps(&self, lengths: &[i64], length: i64) -> Result<Vec<(i64, Phases)>> {
        let layers = self.architecture.dims().sizes()?.layers;
        let probe = |n| Probe::of(of_layers(&self.architecture, n)?, self.method, self.setup);
        // A method that names layers which a shorter model lacks is measured in the whole one.
        let mut probes = match [1, 2].map(probe) {
            [Ok(one), Ok(two)] if layers > 0 => vec![(1, one), (2, two)],
            _ => vec![(layers, probe(layers)?)],
        };
        let mut held = Vec::new();
        for batch in self.rows {
            let mut by_length = Vec::new();
            for short in lengths {
                let mut by_layers = Vec::new();
                for (n, probe) in &mut probes {
                    by_layers.push((*n as f64, probe.step(Shape { batch: *batch, length: *short })?));
                }
                by_length.push((*short as f64, through(&by_layers, layers as f64)));
            }
            held.push((*batch, through(&by_length, length as f64)));
        }
        Ok(held)
    }

    /// From two models of less width, with rows that are as much shorter. `None` where there are no such models, or the
    /// method cannot be had in them.
    fn narrow(&self, length: i64) -> Result<Option<Vec<(i64, Phases)>>> {
        for whole in PARTS {
            let part =
                |n: i64| Some(Measured { architecture: of_width(&self.architecture, n, *whole)?, ..*self });
            let (Some(small), Some(large)) = (part(1), part(2)) else { continue };
            // Tokens of the smaller one.
            let short = length.unsigned_abs().div_ceil(whole.unsigned_abs()) as i64;
            let twice = short.saturating_mul(2);
            if short < 2 || large.work(twice)? > WORK {
                continue;
            }
            let (Ok(small), Ok(large)) = (small.steps(&[short], short), large.steps(&[twice], twice)) else {
                return Ok(None);
            };
            let x = 1.0 / *whole as f64;
            let cut = length as f64 / (short.saturating_mul(*whole)) as f64;
            let held = small.iter().zip(&large).map(|((rows, small), (_, large))| {
                let phases = through(&[(0.0, Phases::default()), (x, *small), (2.0 * x, *large)], 1.0);
                (*rows, phases.map(|bytes| bytes * cut))
            });
            return Ok(Some(held.collect()));
        }
        Ok(None)
    }

    /// From rows of three smaller lengths.
    fn short(&self, length: i64) -> Result<Vec<(i64, Phases)>> {
        let token = self.work(1)?.max(1);
        let longest = WORK.checked_div(token).unwrap_or(WORK).max(SHORTEST);
        let part = |n: i64| longest.saturating_mul(n).checked_div(4).unwrap_or(1);
        if length <= longest {
            self.steps(&[length], length)
        } else {
            self.steps(&[part(1), part(2), part(4)], length)
        }
    }
}
