//! The methods of the benchmark, as data. A new one is one entry here.

use anyhow::{Context, Result};
use peft_core::methods::{
    AdaLoraConfig, BeftConfig, Bias, BitFitConfig, BottleneckConfig, Common, DiffPruningConfig, FullConfig,
    HiddenPrefixConfig, Ia3Config, InitLora, LnTuningConfig, LoHaConfig, LoKrConfig, LoraConfig, OftConfig,
    PTuningConfig, PartialConfig, Placement, PrefixTuningConfig, PromptInit, PromptTuningConfig, VeraConfig,
    ZeroInitAttentionConfig,
};
use peft_core::seam::MethodConfig;
use peft_core::target::{Names, Targets};

/// One method with its settings on the two tasks.
#[derive(Debug)]
pub struct Case {
    pub name: &'static str,
    /// What it is, in a few words.
    pub about: &'static str,
    /// Peak learning rate on the synthetic task, and on text.
    pub lr: (f64, f64),
    /// The method, configured for the small model of the synthetic task.
    pub tiny: fn() -> Box<dyn MethodConfig>,
    /// The method, configured for a BERT.
    pub bert: fn() -> Box<dyn MethodConfig>,
}

impl Case {
    /// The case of that name.
    ///
    /// # Errors
    /// If there is none; says which there are.
    pub fn find(name: &str) -> Result<&'static Self> {
        CASES.iter().find(|c| c.name == name).with_context(|| {
            let names: Vec<&str> = CASES.iter().map(|c| c.name).collect();
            format!("no method `{name}`; there are {}", names.join(", "))
        })
    }
}

/// The adapter's name in every run.
pub const ADAPTER: &str = "bench";

/// Every method, the largest first. On text the classification head is trained beside each of them; on the synthetic
/// task it is frozen in all but full fine-tuning, as in the lesson.
#[rustfmt::skip]
pub const CASES: &[Case] = &[
    Case {
        name: "full", about: "full fine-tuning", lr: (5e-3, 3e-4),
        tiny: || FullConfig::default().into(),
        bert: || FullConfig::default().into(),
    },
    Case {
        name: "partial", about: "the last layer of the model", lr: (5e-3, 3e-4),
        tiny: || partial(Common::default()).into(),
        bert: || partial(head()).into(),
    },
    Case {
        name: "lora", about: "LoRA, r = 4 or 8, alpha = 2r", lr: (2e-2, 2e-3),
        tiny: || lora_tiny().into(),
        bert: || lora_bert().into(),
    },
    Case {
        name: "rslora", about: "rank-stabilised LoRA", lr: (2e-2, 2e-3),
        tiny: || LoraConfig { use_rslora: true, ..lora_tiny() }.into(),
        bert: || LoraConfig { use_rslora: true, ..lora_bert() }.into(),
    },
    Case {
        name: "adalora", about: "AdaLoRA, rank 6 or 12 pruned to 4 or 8", lr: (2e-2, 2e-3),
        tiny: || AdaLoraConfig { targets: ["ff.0"].into(), ..adalora(4, 600, Common::default()) }.into(),
        bert: || adalora(8, 189, head()).into(),
    },
    Case {
        name: "loha", about: "LoHa, Hadamard product of two", lr: (4e-2, 4e-3),
        tiny: || LoHaConfig { r: 2, alpha: 4.0, targets: ff(), ..Default::default() }.into(),
        bert: || LoHaConfig { r: 4, alpha: 8.0, common: head(), ..Default::default() }.into(),
    },
    Case {
        name: "lokr", about: "LoKr, Kronecker product", lr: (1e-1, 1e-2),
        tiny: || LoKrConfig { r: 4, alpha: 8.0, targets: ff(), ..Default::default() }.into(),
        bert: || LoKrConfig { r: 8, alpha: 16.0, common: head(), ..Default::default() }.into(),
    },
    Case {
        name: "oft", about: "OFT, inputs turned in blocks", lr: (5e-2, 5e-3),
        tiny: || OftConfig { oft_block_size: 8, targets: ff(), ..Default::default() }.into(),
        bert: || OftConfig { oft_block_size: 32, common: head(), ..Default::default() }.into(),
    },
    Case {
        name: "diff-pruning", about: "gated differences of all weights of some layers", lr: (2e-2, 2e-3),
        tiny: || DiffPruningConfig { targets: ff(), ..Default::default() }.into(),
        bert: || DiffPruningConfig { targets: attention(), common: head(), ..Default::default() }.into(),
    },
    Case {
        name: "dora", about: "LoRA with a trained magnitude", lr: (2e-2, 2e-3),
        tiny: || LoraConfig { use_dora: true, ..lora_tiny() }.into(),
        bert: || LoraConfig { use_dora: true, ..lora_bert() }.into(),
    },
    Case {
        name: "pissa", about: "LoRA from the principal directions of W", lr: (5e-3, 5e-4),
        tiny: || LoraConfig { init_lora_weights: InitLora::Pissa, ..lora_tiny() }.into(),
        bert: || LoraConfig { init_lora_weights: InitLora::Pissa, ..lora_bert() }.into(),
    },
    Case {
        name: "olora", about: "LoRA from an orthogonal basis of W", lr: (5e-3, 5e-4),
        tiny: || LoraConfig { init_lora_weights: InitLora::Olora, ..lora_tiny() }.into(),
        bert: || LoraConfig { init_lora_weights: InitLora::Olora, ..lora_bert() }.into(),
    },
    Case {
        name: "lora-bias", about: "LoRA and all biases of the base", lr: (2e-2, 2e-3),
        tiny: || LoraConfig { bias: Bias::All, ..lora_tiny() }.into(),
        bert: || LoraConfig { bias: Bias::All, ..lora_bert() }.into(),
    },
    Case {
        name: "adapter", about: "bottleneck after each layer", lr: (2e-2, 2e-3),
        tiny: || bottleneck_tiny(&[Placement::Layer]).into(),
        bert: || bottleneck_bert(&[Placement::Layer]).into(),
    },
    Case {
        name: "houlsby", about: "bottlenecks after attention and feed-forward", lr: (2e-2, 2e-3),
        tiny: || bottleneck_tiny(&[Placement::Attention, Placement::FeedForward]).into(),
        bert: || bottleneck_bert(&[Placement::Attention, Placement::FeedForward]).into(),
    },
    Case {
        name: "parallel", about: "bottleneck beside feed-forward", lr: (2e-2, 2e-3),
        tiny: || BottleneckConfig { is_parallel: true, ..bottleneck_tiny(&[Placement::FeedForward]) }.into(),
        bert: || BottleneckConfig { is_parallel: true, ..bottleneck_bert(&[Placement::FeedForward]) }.into(),
    },
    Case {
        name: "bitfit", about: "biases", lr: (2e-2, 3e-3),
        tiny: || BitFitConfig::default().into(),
        bert: || BitFitConfig { common: head(), ..Default::default() }.into(),
    },
    Case {
        name: "ln-tuning", about: "norms", lr: (2e-2, 3e-3),
        tiny: || LnTuningConfig { targets: ["n1", "n2"].into(), ..Default::default() }.into(),
        bert: || ln_tuning_bert().into(),
    },
    Case {
        name: "vera", about: "VeRA: vectors around frozen random matrices", lr: (5e-2, 1e-2),
        tiny: || VeraConfig { r: 64, target_modules: Some(Names::list(["ff.0"])), ..Default::default() }.into(),
        bert: || VeraConfig { common: head(), ..Default::default() }.into(),
    },
    Case {
        name: "ia3", about: "(IA)³: scales of activations", lr: (5e-2, 1e-2),
        tiny: || ia3_tiny().into(),
        bert: || Ia3Config { common: head(), ..Default::default() }.into(),
    },
    Case {
        name: "beft", about: "biases of value projections", lr: (2e-2, 1e-2),
        tiny: || BeftConfig { target_modules: Some(Names::list(["in_proj"])), ..Default::default() }.into(),
        bert: || BeftConfig { common: head(), ..Default::default() }.into(),
    },
    Case {
        name: "prefix", about: "prefix tuning: keys and values", lr: (2e-1, 2e-2),
        tiny: || PrefixTuningConfig { num_virtual_tokens: 5, ..Default::default() }.into(),
        bert: || PrefixTuningConfig { num_virtual_tokens: 10, common: head(), ..Default::default() }.into(),
    },
    Case {
        name: "hidden-prefix", about: "prefix of hidden states, as lessons have it", lr: (1e-1, 2e-2),
        tiny: || HiddenPrefixConfig { num_virtual_tokens: 5, ..Default::default() }.into(),
        bert: || HiddenPrefixConfig { num_virtual_tokens: 10, common: head() }.into(),
    },
    Case {
        name: "prompt", about: "prompt tuning, from the vocabulary", lr: (2e-1, 2e-2),
        tiny: || prompt(5, Common::default()).into(),
        bert: || prompt(10, head()).into(),
    },
    Case {
        name: "p-tuning", about: "a prompt trained through an MLP", lr: (1e-2, 1e-3),
        tiny: || PTuningConfig { num_virtual_tokens: 5, ..Default::default() }.into(),
        bert: || PTuningConfig { num_virtual_tokens: 10, common: head(), ..Default::default() }.into(),
    },
    Case {
        name: "zero-init", about: "LLaMA-Adapter: a prompt beside the words, behind tanh(g)", lr: (1e-1, 1e-2),
        tiny: || ZeroInitAttentionConfig { num_virtual_tokens: 5, ..Default::default() }.into(),
        bert: || ZeroInitAttentionConfig { num_virtual_tokens: 10, common: head(), ..Default::default() }.into(),
    },
];

/// As in lesson 000: the first feed-forward layer.
fn lora_tiny() -> LoraConfig {
    LoraConfig { r: 4, lora_alpha: 8.0, targets: ff(), ..Default::default() }
}

fn ff() -> Targets {
    ["ff.0"].into()
}

/// PEFT's default targets for BERT, where a method has none.
fn attention() -> Targets {
    ["query", "value"].into()
}

/// PEFT's default targets: query and value.
fn lora_bert() -> LoraConfig {
    LoraConfig { r: 8, lora_alpha: 16.0, common: head(), ..Default::default() }
}

/// Pruned from a tenth to two thirds of the task's default number of steps.
fn adalora(target_r: i64, steps: u64, common: Common) -> AdaLoraConfig {
    AdaLoraConfig {
        target_r,
        init_r: target_r * 3 / 2,
        lora_alpha: 2.0 * target_r as f64,
        tinit: steps / 10,
        tfinal: steps / 3,
        delta_t: 10,
        total_step: Some(steps),
        common,
        ..Default::default()
    }
}

fn partial(common: Common) -> PartialConfig {
    PartialConfig { last_layers: Some(1), common, ..Default::default() }
}

fn ln_tuning_bert() -> LnTuningConfig {
    let targets = ["LayerNorm"].into();
    LnTuningConfig { targets, common: head() }
}

fn ia3_tiny() -> Ia3Config {
    Ia3Config {
        targets: ["in_proj", "ff.2"].into(),
        feedforward_modules: Some(Names::list(["ff.2"])),
        ..Default::default()
    }
}

fn bottleneck_tiny(placement: &[Placement]) -> BottleneckConfig {
    BottleneckConfig { bottleneck_size: 4, placement: placement.to_vec(), ..Default::default() }
}

fn bottleneck_bert(placement: &[Placement]) -> BottleneckConfig {
    BottleneckConfig {
        bottleneck_size: 16,
        placement: placement.to_vec(),
        common: head(),
        ..Default::default()
    }
}

fn prompt(n: i64, common: Common) -> PromptTuningConfig {
    let prompt_tuning_init = PromptInit::SampleVocab;
    PromptTuningConfig { num_virtual_tokens: n, prompt_tuning_init, common, ..Default::default() }
}

/// The classification head is trained as well.
fn head() -> Common {
    Common::classifier()
}
