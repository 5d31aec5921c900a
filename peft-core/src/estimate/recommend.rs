//! Which method, over which base? A rule that says its reasons.

use crate::check;
use crate::error::{Error, Result};
use crate::estimate::memory::human_bytes;
use crate::estimate::{Blueprint, Estimate, Setup, Storage};
use crate::methods::{Common, FullConfig, Ia3Config, LoraConfig};
use crate::peft::report::commas;
use crate::seam::{MethodConfig, TaskType};
use std::fmt;
use tch::Kind;

/// What there is, and what it is for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Need {
    /// The device's memory.
    pub device_bytes: i64,
    /// Share of it that is kept for what [`Memory`](super::Memory) does not count, activations above all. A fifth is
    /// meant for short texts in small batches.
    pub reserve: f64,
    pub task: TaskType,
    /// Training examples.
    pub examples: i64,
}

impl Need {
    /// With a fifth in reserve.
    pub fn new(device_bytes: i64, task: TaskType, examples: i64) -> Self {
        Self { device_bytes, reserve: 0.2, task, examples }
    }

    fn check(&self) -> Result<()> {
        check::positive("estimate", "device_bytes", self.device_bytes)?;
        check::positive("estimate", "examples", self.examples)?;
        check::share("estimate", "reserve", self.reserve)
    }

    /// What model and training may hold.
    fn budget(&self) -> i64 {
        (self.device_bytes as f64 * (1.0 - self.reserve)) as i64
    }

    /// The task is to write text.
    fn generates(&self) -> bool {
        matches!(self.task, TaskType::CausalLm | TaskType::Seq2SeqLm)
    }
}

/// A method with the configuration to start from.
#[derive(Debug, Clone, PartialEq)]
pub enum Choice {
    Full(FullConfig),
    Lora(Box<LoraConfig>),
    Ia3(Ia3Config),
}

impl Choice {
    fn lora(config: LoraConfig) -> Self {
        Choice::Lora(Box::new(config))
    }

    /// In words: the method, and what is special about its configuration.
    pub fn name(&self) -> String {
        match self {
            Choice::Full(_) => "full fine-tuning".to_owned(),
            Choice::Ia3(_) => "(IA)³".to_owned(),
            Choice::Lora(config) => {
                let everywhere = config.targets.target_modules.is_some();
                let targets = if everywhere { "all linear layers" } else { "PEFT's default targets" };
                format!("LoRA, r = {}, at {targets}", config.r)
            }
        }
    }
}

impl From<Choice> for Box<dyn MethodConfig> {
    fn from(choice: Choice) -> Self {
        match choice {
            Choice::Full(config) => Box::new(config),
            Choice::Lora(config) => config,
            Choice::Ia3(config) => Box::new(config),
        }
    }
}

/// What [`recommend`] advises.
#[derive(Debug, Clone, PartialEq)]
pub struct Recommendation {
    pub choice: Choice,
    pub setup: Setup,
    pub estimate: Estimate,
    /// Bytes of the device that model and training leave: for activations. Negative where they do not fit.
    pub free: i64,
    /// Whether model and training stay out of the reserve. Where nothing does, the advice is what comes nearest.
    pub fits: bool,
    /// One sentence a decision.
    pub why: Vec<String>,
}

impl fmt::Display for Recommendation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, over {}", self.choice.name(), self.setup.base)?;
        writeln!(f, "{}", self.estimate)?;
        self.why.iter().try_for_each(|why| writeln!(f, "- {why}"))
    }
}

/// Fewer examples than that are few shots: (IA)³ was made for them.
const FEW: i64 = 100;
/// From here on a LoRA of more layers has something to learn from.
const SOME: i64 = 1_000;
/// From here on full fine-tuning learns more than a LoRA.
const MANY: i64 = 100_000;

/// A method and a base for `model`.
///
/// The method depends on examples and task, the first row that applies:
///
/// | examples | task | method | because |
/// |---|---|---|---|
/// | ≥ 100,000 | any | full fine-tuning over f32, if that fits | LoRA learns less from much data: Biderman et al. 2024, <https://arxiv.org/abs/2405.09673> |
/// | ≥ 1,000 | generation | LoRA of rank 16 at all linear layers | the layers matter, the rank hardly does: Dettmers et al. 2023, <https://arxiv.org/abs/2305.14314>, section 4 |
/// | ≥ 100 | any | LoRA of rank 8 at PEFT's default targets, attention layers | enough there: Hu et al. 2021, <https://arxiv.org/abs/2106.09685>, section 7 |
/// | < 100 | any | (IA)³ | made for few shots: Liu et al. 2022, <https://arxiv.org/abs/2205.05638> |
///
/// The base is in bf16, if model and training then stay out of the reserve; otherwise in 4 bits with double quantisation,
/// as QLoRA has it; and if that does not fit, any LoRA becomes the one of rank 8. Where that does not fit either, it is
/// what the recommendation says, with `fits: false`.
///
/// # Errors
/// A number of [`Need`] that is out of range; writing text with a model that is not causal; a model for whose `model_type` PEFT has no default targets.
pub fn recommend(model: &Blueprint, need: &Need) -> Result<Recommendation> {
    need.check()?;
    let dims = &model.outline().dims;
    if need.generates() && !dims.causal() {
        let model = dims.model();
        let message =
            format!("{model} is no causal model, and writes no text: classification is a task for it");
        return Err(Error::config("estimate", "task", message));
    }
    let (common, examples) =
        (Common { task_type: Some(need.task), ..Common::default() }, commas(need.examples));
    let mut why = Vec::new();
    if need.examples >= MANY {
        let setup = Setup { base: Storage::Dense(Kind::Float), ..Setup::default() };
        let full = Choice::Full(FullConfig { common: common.clone() });
        let tried = Attempt::new(model, need, full, setup)?;
        if tried.fits() {
            why.push(format!("{examples} examples: full fine-tuning learns more from so many than a LoRA"));
            why.push("in 32 bits, because small updates are lost in 16".to_owned());
            return Ok(tried.with(why));
        }
        why.push(format!(
            "{examples} examples would be enough for full fine-tuning, but that holds {tried} of {}",
            human_bytes(need.device_bytes)
        ));
    }
    let small = || {
        Choice::lora(LoraConfig { r: 8, lora_alpha: 16.0, common: common.clone(), ..LoraConfig::default() })
    };
    let choice = if need.examples < FEW {
        why.push(format!("{examples} examples are few: (IA)³ trains the least, and was made for that"));
        Choice::Ia3(Ia3Config { common: common.clone(), ..Ia3Config::default() })
    } else if need.examples >= SOME && need.generates() {
        why.push("for writing text a LoRA should be at all linear layers; its rank matters less".to_owned());
        let (targets, common) = ("all-linear".into(), common.clone());
        Choice::lora(LoraConfig { r: 16, lora_alpha: 32.0, targets, common, ..LoraConfig::default() })
    } else {
        why.push(format!("{examples} examples: a LoRA of the attention's layers, of small rank, is enough"));
        small()
    };

    let [budget, device] = [need.budget(), need.device_bytes].map(human_bytes);
    let dense = Attempt::new(model, need, choice.clone(), Setup::default())?;
    if dense.fits() {
        why.push(format!("over a base in 16 bits it holds {dense}, within {budget} of {device}"));
        return Ok(dense.with(why));
    }
    why.push(format!("over a base in 16 bits it holds {dense}, beyond {budget} of {device}"));
    let four_bits = || Setup { base: Storage::qlora(), ..Setup::default() };
    let mut packed = Attempt::new(model, need, choice, four_bits())?;
    if !packed.fits() && need.examples >= FEW {
        let smaller = Attempt::new(model, need, small(), four_bits())?;
        if smaller.choice != packed.choice {
            why.push(format!("over a base in 4 bits still {packed}: a smaller LoRA has to do"));
            packed = smaller;
        }
    }
    why.push(match packed.fits() {
        true => format!("over a base in 4 bits {packed}, which leaves {}", human_bytes(packed.free())),
        false => {
            let lacks = packed.estimate.memory.total().saturating_sub(need.budget());
            format!("over a base in 4 bits still {packed}: {} too much", human_bytes(lacks))
        }
    });
    Ok(packed.with(why))
}

/// A choice, and whether it fits.
struct Attempt<'a> {
    choice: Choice,
    setup: Setup,
    estimate: Estimate,
    need: &'a Need,
}

impl fmt::Display for Attempt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&human_bytes(self.estimate.memory.total()))
    }
}

impl<'a> Attempt<'a> {
    fn new(model: &Blueprint, need: &'a Need, choice: Choice, setup: Setup) -> Result<Self> {
        let estimate = model.estimate(choice.clone(), &setup)?;
        Ok(Self { choice, setup, estimate, need })
    }

    fn fits(&self) -> bool {
        self.estimate.memory.total() <= self.need.budget()
    }

    fn free(&self) -> i64 {
        self.need.device_bytes.saturating_sub(self.estimate.memory.total())
    }

    fn with(self, why: Vec<String>) -> Recommendation {
        let (free, fits) = (self.free(), self.fits());
        let Self { choice, setup, estimate, .. } = self;
        Recommendation { choice, setup, estimate, free, fits, why }
    }
}
