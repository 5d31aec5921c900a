//! The data, the base and the five techniques, drawn in the lesson's order.

use crate::Setting;
use anyhow::Result;
use peft_core::methods::{
    BottleneckConfig, FullConfig, HiddenPrefixConfig, LoraConfig, Placement, PromptTuningConfig,
};
use peft_core::models::TinyConfig;
use peft_core::seam::PREFIX;
use peft_core::train::{AdamConfig, Schedule, Trainer, cross_entropy};
use peft_core::{Batch, Model, Params, Pass, Peft};
use tch::{Device, Kind, Tensor};

/// Sequence length, number of examples, and how many of them are trained on.
const SEQ: i64 = 10;
const N: i64 = 200;
pub(super) const TRAIN: i64 = 160;
/// Virtual tokens of prompt and prefix.
pub(super) const VIRTUAL: i64 = 5;
/// Rank of LoRA and width of the bottleneck.
pub(super) const R: i64 = 4;

/// A split of the data.
#[derive(Debug)]
pub struct Split {
    pub batch: Batch,
    pub classes: Tensor,
}

/// The lesson's state: data, the pre-trained base, and all techniques over it, drawn but not trained.
#[derive(Debug)]
pub struct Lesson {
    pub train: Split,
    pub test: Split,
    pub peft: Peft,
    /// Loss of every pre-training step.
    pub losses: Vec<f64>,
}

/// One technique with the lesson's training settings.
#[derive(Debug, Clone, Copy)]
pub struct Technique {
    /// The adapter's name in [`Lesson::peft`].
    pub key: &'static str,
    /// The lesson's name for it.
    pub title: &'static str,
    pub epochs: u64,
    pub lr: f64,
    attach: fn(&mut Peft) -> Result<()>,
}

/// In the lesson's order, which is the order of the draws.
pub const TECHNIQUES: [Technique; 5] = [
    Technique { key: "adapter", title: "Adapter", epochs: 80, lr: 3e-3, attach: attach_adapter },
    Technique { key: "lora", title: "LoRA", epochs: 80, lr: 3e-3, attach: attach_lora },
    Technique { key: "prompt", title: "Prompt Tuning", epochs: 100, lr: 1e-2, attach: attach_prompt },
    Technique { key: "prefix", title: "Prefix Tuning", epochs: 100, lr: 5e-3, attach: attach_prefix },
    Technique { key: "full", title: "Full Fine-Tune", epochs: 80, lr: 5e-4, attach: attach_full },
];

/// Pre-training of the base.
const EPOCHS: u64 = 60;
const LR: f64 = 1e-3;

/// A bottleneck of width 4 after each whole layer; its up-projection starts at zero.
fn attach_adapter(peft: &mut Peft) -> Result<()> {
    let config =
        BottleneckConfig { bottleneck_size: R, placement: vec![Placement::Layer], ..Default::default() };
    Ok(peft.add("adapter", config)?)
}

/// LoRA on the first feed-forward layer, alpha 8; the lesson draws A from N(0, 0.01²), PEFT would from U(±1/√in).
fn attach_lora(peft: &mut Peft) -> Result<()> {
    let TinyConfig { layers, hidden, ffn, .. } = TinyConfig::default();
    let mut tensors = Vec::new();
    for i in 0..layers {
        let at = format!("{PREFIX}layers.{i}.ff.0");
        tensors.push((format!("{at}.lora_A.weight"), hundredth(&[R, hidden])?));
        tensors.push((format!("{at}.lora_B.weight"), Tensor::f_zeros([ffn, R], CPU)?));
    }
    let targets = ["ff.0"].into();
    let config = LoraConfig { r: R, lora_alpha: 8.0, targets, ..Default::default() };
    Ok(peft.add_with("lora", config, tensors)?)
}

/// Five vectors before the embedded words.
fn attach_prompt(peft: &mut Peft) -> Result<()> {
    let config = PromptTuningConfig { num_virtual_tokens: VIRTUAL, ..Default::default() };
    let prompt = hundredth(&[VIRTUAL, TinyConfig::default().hidden])?;
    Ok(peft.add_with("prompt", config, [("prompt_embeddings".into(), prompt)])?)
}

/// Five hidden states before the words at every layer's attention.
fn attach_prefix(peft: &mut Peft) -> Result<()> {
    let config = HiddenPrefixConfig { num_virtual_tokens: VIRTUAL, ..Default::default() };
    let hidden = TinyConfig::default().hidden;
    let draw = |i| Ok((format!("{PREFIX}layers.{i}.attn.prefix"), hundredth(&[VIRTUAL, hidden])?));
    let tensors = (0..TinyConfig::default().layers).map(draw).collect::<Result<Vec<_>>>()?;
    Ok(peft.add_with("prefix", config, tensors)?)
}

/// Everything trained; draws nothing.
fn attach_full(peft: &mut Peft) -> Result<()> {
    Ok(peft.add("full", FullConfig::default())?)
}

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

/// `torch.randn(dims) * 0.01`.
fn hundredth(dims: &[i64]) -> Result<Tensor> {
    Ok(Tensor::f_randn(dims, CPU)?.f_mul_scalar(0.01)?)
}

impl Lesson {
    /// Draws the data and the model, pre-trains it, and draws every technique. Training draws nothing, so a section
    /// finds its numbers without the training of the sections before it.
    pub fn new(setting: Setting) -> Result<Self> {
        tch::manual_seed(setting.seed);
        let config = TinyConfig::default();
        let index = (Kind::Int64, Device::Cpu);
        let x = Tensor::f_randint(config.vocab, [N, SEQ], index)?.f_to(setting.device)?;
        let y = Tensor::f_randint(config.classes, [N], index)?.f_to(setting.device)?;
        let part = |from: i64, count: i64| -> Result<Split> {
            Ok(Split {
                batch: Batch::dense(x.f_narrow(0, from, count)?),
                classes: y.f_narrow(0, from, count)?,
            })
        };
        let (train, test) = (part(0, TRAIN)?, part(TRAIN, N - TRAIN)?);
        let base = config.init(setting.device)?;
        let mut lesson = Self { train, test, peft: Peft::new(base, config)?, losses: Vec::new() };
        lesson.pretrain()?;
        for technique in &TECHNIQUES {
            (technique.attach)(&mut lesson.peft)?;
        }
        Ok(lesson)
    }

    fn pretrain(&mut self) -> Result<()> {
        let base: &Params = self.peft.base();
        base.set_trainable(|_| true)?;
        let trainer = Trainer::for_base(&self.peft, AdamConfig::adam(), LR, Schedule::Constant)?;
        self.losses = self.run(&self.peft.view(&[])?, trainer, EPOCHS)?;
        Ok(base.freeze()?)
    }

    /// Trains one technique on the whole training split at once, as the lesson does; the loss of every step.
    pub fn fit(&self, technique: &Technique) -> Result<Vec<f64>> {
        let (adam, schedule) = (AdamConfig::adam(), Schedule::Constant);
        let trainer = Trainer::new(&self.peft, &[technique.key], adam, technique.lr, schedule)?;
        self.run(&self.peft.view(&[technique.key])?, trainer, technique.epochs)
    }

    fn run(&self, model: &dyn Model, mut trainer: Trainer, epochs: u64) -> Result<Vec<f64>> {
        let step = |_| {
            let logits = model.forward(&self.train.batch, Pass::train())?;
            Ok(trainer.step(&cross_entropy(&logits, &self.train.classes)?)?.loss)
        };
        (0..epochs).map(step).collect()
    }

    /// How many of a split the model gets right, and how many there are.
    pub fn correct(&self, active: &[&str], split: &Split) -> Result<(i64, i64)> {
        let _guard = tch::no_grad_guard();
        let logits = self.peft.view(active)?.forward(&split.batch, Pass::eval())?;
        let right = logits.f_argmax(1, false)?.f_eq_tensor(&split.classes)?.f_sum(Kind::Int64)?;
        Ok((right.f_int64_value(&[])?, split.classes.size1()?))
    }

    /// Accuracy on the test split, in percent.
    pub fn accuracy(&self, active: &[&str]) -> Result<f64> {
        let (right, all) = self.correct(active, &self.test)?;
        Ok(100.0 * right as f64 / all as f64)
    }
}
