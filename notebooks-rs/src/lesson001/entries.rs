//! The lesson's box of methods: what each entry is in the library.

use peft_core::methods::{
    AdaLoraConfig, BitFitConfig, BottleneckConfig, DiffPruningConfig, Ia3Config, LoraConfig, PartialConfig,
    PrefixTuningConfig, PromptTuningConfig,
};
use peft_core::seam::MethodConfig;
use peft_core::target::{Names, Targets};

/// Steps of each method.
pub const STEPS: u64 = 40;
/// Rank of the low-rank methods and width of the bottleneck; virtual tokens.
pub const R: i64 = 4;
const VIRTUAL: i64 = 5;

/// An entry of the box.
#[derive(Debug)]
pub struct Entry {
    pub kind: &'static str,
    pub name: &'static str,
    /// Learning rate.
    pub lr: f64,
    /// Over a base in 4 bits.
    pub quantised: bool,
    /// What stays in the path of every token where it cannot be merged.
    pub stays: &'static str,
    make: fn() -> Box<dyn MethodConfig>,
}

impl Entry {
    const fn new(
        kind: &'static str,
        name: &'static str,
        lr: f64,
        make: fn() -> Box<dyn MethodConfig>,
    ) -> Self {
        Self { kind, name, lr, quantised: false, stays: "", make }
    }

    const fn quantised(self) -> Self {
        Self { quantised: true, ..self }
    }

    const fn stays(self, stays: &'static str) -> Self {
        Self { stays, ..self }
    }

    /// The method with its settings.
    pub fn method(&self) -> Box<dyn MethodConfig> {
        (self.make)()
    }
}

pub const ADDITIVE: &str = "additive";
pub const REPARAMETERISED: &str = "reparameterisation";
pub const SELECTIVE: &str = "selective";

/// The lesson's box, column by column.
pub const ENTRIES: [Entry; 11] = [
    Entry::new(ADDITIVE, "Adapters", 2e-2, adapters).stays("two products a block"),
    Entry::new(ADDITIVE, "Prefix Tuning", 1e-1, prefix).stays("keys and values a layer"),
    Entry::new(ADDITIVE, "Prompt Tuning", 1e-1, prompt).stays("tokens before the words"),
    Entry::new(ADDITIVE, "IA³", 5e-2, ia3),
    Entry::new(REPARAMETERISED, "LoRA", 2e-2, lora),
    Entry::new(REPARAMETERISED, "DoRA", 2e-2, dora),
    Entry::new(REPARAMETERISED, "AdaLoRA", 5e-2, adalora),
    Entry::new(REPARAMETERISED, "QLoRA", 2e-2, lora).quantised(),
    Entry::new(SELECTIVE, "BitFit", 2e-2, bitfit),
    Entry::new(SELECTIVE, "Diff Pruning", 1e-2, diff_pruning),
    Entry::new(SELECTIVE, "Partial FT", 5e-3, partial),
];

/// The feed-forward's first layer, in both layers of the model.
fn target() -> Targets {
    ["ff.0"].into()
}

/// After attention and after feed-forward.
fn adapters() -> Box<dyn MethodConfig> {
    BottleneckConfig { bottleneck_size: R, ..BottleneckConfig::default() }.into()
}

fn prefix() -> Box<dyn MethodConfig> {
    PrefixTuningConfig { num_virtual_tokens: VIRTUAL, ..PrefixTuningConfig::default() }.into()
}

fn prompt() -> Box<dyn MethodConfig> {
    PromptTuningConfig { num_virtual_tokens: VIRTUAL, ..PromptTuningConfig::default() }.into()
}

/// Keys and values; this model has them in one matrix with the queries, which are scaled as well.
fn ia3() -> Box<dyn MethodConfig> {
    let targets = ["in_proj", "ff.2"].into();
    let feedforward_modules = Some(Names::list(["ff.2"]));
    Ia3Config { targets, feedforward_modules, ..Ia3Config::default() }.into()
}

fn low_rank(use_dora: bool) -> Box<dyn MethodConfig> {
    LoraConfig { r: R, lora_alpha: 2.0 * R as f64, use_dora, targets: target(), ..LoraConfig::default() }
        .into()
}

fn lora() -> Box<dyn MethodConfig> {
    low_rank(false)
}

fn dora() -> Box<dyn MethodConfig> {
    low_rank(true)
}

/// Twice the rank at the start, and half of it pruned away from step 5 to step 30.
fn adalora() -> Box<dyn MethodConfig> {
    AdaLoraConfig {
        init_r: 2 * R,
        target_r: R,
        lora_alpha: 4.0 * R as f64,
        targets: target(),
        tinit: 5,
        tfinal: 10,
        delta_t: 5,
        total_step: Some(STEPS),
        ..AdaLoraConfig::default()
    }
    .into()
}

fn bitfit() -> Box<dyn MethodConfig> {
    BitFitConfig::default().into()
}

fn diff_pruning() -> Box<dyn MethodConfig> {
    DiffPruningConfig { sparsity_penalty: 5e-4, targets: target(), ..DiffPruningConfig::default() }.into()
}

fn partial() -> Box<dyn MethodConfig> {
    PartialConfig { last_layers: Some(1), ..PartialConfig::default() }.into()
}
