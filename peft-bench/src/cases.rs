//! The methods of the benchmark, as data. A new one is one entry here.

use peft_core::Model;
use peft_core::methods::{
    BottleneckConfig, Common, FullConfig, HiddenPrefixConfig, LoraConfig, Method, PTuningConfig, Placement,
    PrefixTuningConfig, PromptInit, PromptTuningConfig, ZeroInitAttentionConfig,
};
use peft_core::models::{Bert, Tiny};
use peft_core::target::Names;

/// One method with its settings on the two tasks.
#[derive(Debug)]
pub struct Case {
    pub name: &'static str,
    /// What it is, in a few words.
    pub about: &'static str,
    /// Peak learning rate on the synthetic task, and on text.
    pub lr: (f64, f64),
    tiny: fn() -> Box<dyn Method>,
    bert: fn() -> Box<dyn Method>,
}

/// The adapter's name in every run.
pub const ADAPTER: &str = "bench";

/// A model of the benchmark, which knows its side of a case.
pub trait Subject: Model {
    /// The case's method, configured for this model.
    fn method(case: &Case) -> Box<dyn Method>;
}

impl Subject for Tiny {
    fn method(case: &Case) -> Box<dyn Method> {
        (case.tiny)()
    }
}

impl Subject for Bert {
    fn method(case: &Case) -> Box<dyn Method> {
        (case.bert)()
    }
}

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
    LoraConfig { r: 4, lora_alpha: 8.0, target_modules: Some(Names::list(["ff.0"])), ..Default::default() }
}

/// PEFT's default targets: query and value.
fn lora_bert() -> LoraConfig {
    LoraConfig { r: 8, lora_alpha: 16.0, common: head(), ..Default::default() }
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
