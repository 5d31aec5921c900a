//! One small transformer, pre-trained on one task, for every method to learn another.

use super::entries::{Entry, STEPS};
use crate::Setting;
use anyhow::{Context, Result};
use peft_core::methods::DiffPruningConfig;
use peft_core::models::TinyConfig;
use peft_core::quant::Nf4Config;
use peft_core::train::{AdamConfig, Optim, Schedule, Trainer, cross_entropy};
use peft_core::{Batch, Model, Pass, Peft, Report};
use tch::{Device, Kind, Tensor};

/// Rows of the data, and their length.
const ROWS: i64 = 128;
const LENGTH: i64 = 8;
const PRETRAINING: u64 = 60;
/// Gates of diff pruning, by the end of their names, move that much faster than the differences.
const GATES: &str = ".log_alpha";
const GATE_RATE: f64 = 25.0;

/// The data, the base, and the same base in 4 bits. A row's class is the one with the greatest sum of its tokens' scores;
/// the new task has half of its scores from the old one.
#[derive(Debug)]
pub struct Task {
    batch: Batch,
    classes: Tensor,
    dense: Peft,
    packed: Peft,
}

/// A method after its training.
#[derive(Debug)]
pub struct Fitted {
    pub report: Report,
    /// Before and after.
    pub losses: [f64; 2],
    pub merges: bool,
}

/// Diff pruning's second stage.
#[derive(Debug)]
pub struct Stage {
    pub kept: i64,
    pub loss: f64,
}

impl Task {
    pub fn new(setting: Setting) -> Result<Self> {
        tch::manual_seed(setting.seed);
        let config = TinyConfig::default();
        let on_cpu = (Kind::Float, Device::Cpu);
        let ids = Tensor::f_randint(config.vocab, [ROWS, LENGTH], (Kind::Int64, Device::Cpu))?;
        let scores = || Tensor::f_randn([config.vocab, config.classes], on_cpu);
        let (old, own) = (scores()?, scores()?);
        let classes = |scores: &Tensor| -> Result<Tensor> {
            let sums = Tensor::f_embedding(scores, &ids, -1, false, false)?.f_sum_dim_intlist(
                1,
                false,
                Kind::Float,
            )?;
            Ok(sums.f_argmax(1, false)?.f_to(setting.device)?)
        };
        let (before, after) = (classes(&old)?, classes(&old.f_add(&own)?)?);
        let batch = Batch::dense(ids.f_to(setting.device)?);
        let dense = pretrained(Peft::new(config.init(setting.device)?, config)?, &batch, &before)?;
        let packed = dense.quantised(&Nf4Config { double_quant: true, ..Nf4Config::default() })?;
        Ok(Self { batch, classes: after, dense, packed })
    }

    /// The base as it is, or in 4 bits.
    pub fn peft(&self, quantised: bool) -> &Peft {
        if quantised { &self.packed } else { &self.dense }
    }

    /// Parameters of the base.
    pub fn parameters(&self) -> i64 {
        self.dense.base().numels().values().sum()
    }

    /// The bytes of every tensor of both bases; 4-bit weights as what they stand for, which is a function of their bytes.
    pub fn bits(&self) -> Result<Vec<Vec<u8>>> {
        let mut all = Vec::new();
        for base in [self.dense.base(), self.packed.base()] {
            let packed = base.nf4s();
            let packed = packed.values().map(|w| Ok(w.dequantise()?)).collect::<Result<Vec<_>>>()?;
            for t in base.tensors().values().chain(&packed) {
                all.push(Vec::try_from(
                    t.f_to(Device::Cpu)?.f_contiguous()?.f_view_dtype(Kind::Uint8)?.f_view([-1])?,
                )?);
            }
        }
        Ok(all)
    }

    fn loss(&self, peft: &Peft, name: &str) -> Result<f64> {
        let _guard = tch::no_grad_guard();
        let logits = peft.view(&[name])?.forward(&self.batch, Pass::eval())?;
        Ok(cross_entropy(&logits, &self.classes)?.f_double_value(&[])?)
    }

    /// Adds the method to its base and trains it.
    pub fn fit(&mut self, entry: &Entry) -> Result<Fitted> {
        let peft = if entry.quantised { &mut self.packed } else { &mut self.dense };
        peft.add(entry.name, entry.method())?;
        let peft = self.peft(entry.quantised);
        let first = self.loss(peft, entry.name)?;
        let mut trainer = trainer(peft, entry)?;
        let model = peft.view(&[entry.name])?;
        for _ in 0..STEPS {
            let logits = model.forward(&self.batch, Pass::train())?;
            trainer.step(&cross_entropy(&logits, &self.classes)?)?;
        }
        Ok(Fitted {
            report: peft.report(&[entry.name])?,
            losses: [first, self.loss(peft, entry.name)?],
            merges: peft.merged(&[entry.name]).is_ok(),
        })
    }

    /// Diff pruning's second stage: the differences behind open gates, and no others.
    pub fn second_stage(&mut self) -> Result<Stage> {
        let [all, open] = open_gates(&self.dense, "Diff Pruning")?;
        let params = self.dense.params("Diff Pruning")?;
        let json = self.dense.adapter_config("Diff Pruning")?.context("diff pruning has a file form")?;
        let config: DiffPruningConfig = serde_json::from_value(json)?;
        let (config, tensors) = config.prune(params, open as f64 / all as f64)?;
        self.dense.add_with("pruned", config, tensors)?;
        Ok(Stage { kept: self.dense.report(&["pruned"])?.trainable, loss: self.loss(&self.dense, "pruned")? })
    }
}

fn pretrained(peft: Peft, batch: &Batch, classes: &Tensor) -> Result<Peft> {
    let base = peft.base();
    base.set_trainable(|_| true)?;
    let schedule = Schedule::Cosine { warmup: 0, total: PRETRAINING };
    let mut trainer = Trainer::for_base(&peft, AdamConfig::adam(), 5e-3, schedule)?;
    let model = peft.view(&[])?;
    for _ in 0..PRETRAINING {
        trainer.step(&cross_entropy(&model.forward(batch, Pass::train())?, classes)?)?;
    }
    base.freeze()?;
    Ok(peft)
}

/// Adam over the method's tensors; gates have a rate of their own.
fn trainer(peft: &Peft, entry: &Entry) -> Result<Trainer> {
    let adam = AdamConfig::adam();
    let gated = peft.trainable(&[entry.name])?.iter().any(|(name, _)| name.ends_with(GATES));
    let optim = match gated {
        true => Optim::Rates { adam, rates: vec![(GATES.into(), GATE_RATE)] },
        false => adam.into(),
    };
    Ok(Trainer::new(peft, &[entry.name], optim, entry.lr, Schedule::Cosine { warmup: 0, total: STEPS })?)
}

/// The ranks that AdaLoRA left, layer by layer, from the tensors that would be written.
pub fn ranks(peft: &Peft, name: &str) -> Result<Vec<i64>> {
    let written = peft.method(name)?.export(peft.params(name)?)?;
    let values = written.iter().filter(|(name, _)| name.ends_with("lora_E"));
    values.map(|(_, e)| Ok(e.size2()?.0)).collect()
}

/// Gates of diff pruning: all of them, and those that let something through when nothing is drawn, `log α > 0`.
pub fn open_gates(peft: &Peft, name: &str) -> Result<[i64; 2]> {
    let tensors = peft.params(name)?.tensors();
    let mut gates = [0, 0];
    for (_, log_alpha) in tensors.iter().filter(|(name, _)| name.ends_with(GATES)) {
        gates[0] += log_alpha.numel() as i64;
        gates[1] += log_alpha.f_gt(0.0)?.f_sum(Kind::Int64)?.f_int64_value(&[])?;
    }
    Ok(gates)
}
