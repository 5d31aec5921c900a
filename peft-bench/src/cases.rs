//! The methods of the benchmark, as data. A new one is one entry here.

use anyhow::Result;
use peft_core::methods::{
    BottleneckConfig, Common, FullConfig, HiddenPrefixConfig, LoraConfig, Placement, PrefixTuningConfig,
    PromptInit, PromptTuningConfig,
};
use peft_core::models::Bert;
use peft_core::models::Tiny;
use peft_core::target::Names;
use peft_core::{Model, Peft};

/// One method with its settings on the two tasks.
#[derive(Debug)]
pub struct Case {
    pub name: &'static str,
    /// What it is, in a few words.
    pub about: &'static str,
    /// Peak learning rate on the synthetic task, and on text.
    pub lr: (f64, f64),
    tiny: fn(&mut Peft<Tiny>) -> peft_core::Result<()>,
    bert: fn(&mut Peft<Bert>) -> peft_core::Result<()>,
}

/// The adapter's name in every run.
pub const ADAPTER: &str = "bench";

/// A model of the benchmark, which knows its side of a case.
pub trait Subject: Model {
    /// Adds the case's adapter.
    fn attach(peft: &mut Peft<Self>, case: &Case) -> Result<()>;
}

impl Subject for Tiny {
    fn attach(peft: &mut Peft<Self>, case: &Case) -> Result<()> {
        Ok((case.tiny)(peft)?)
    }
}

impl Subject for Bert {
    fn attach(peft: &mut Peft<Self>, case: &Case) -> Result<()> {
        Ok((case.bert)(peft)?)
    }
}

/// One entry: the same configuration for both models, but for what is particular to each.
macro_rules! case {
    ($name:literal, $about:literal, $lr:expr, tiny: $tiny:expr, bert: $bert:expr) => {
        Case {
            name: $name,
            about: $about,
            lr: $lr,
            tiny: |p| p.add(ADAPTER, $tiny),
            bert: |p| p.add(ADAPTER, $bert),
        }
    };
}

/// Every method, the largest first. On text the classification head is trained beside each of them; on the synthetic
/// task it is frozen in all but full fine-tuning, as in the lesson.
pub const CASES: &[Case] = &[
    case!("full", "full fine-tuning", (5e-3, 3e-4), tiny: FullConfig::default(), bert: FullConfig::default()),
    case!("lora", "LoRA, r = 4 or 8, alpha = 2r", (2e-2, 2e-3),
        tiny: LoraConfig { r: 4, lora_alpha: 8.0, target_modules: Some(Names::list(["ff.0"])), ..Default::default() },
        bert: LoraConfig { r: 8, lora_alpha: 16.0, common: head(), ..Default::default() }),
    case!("rslora", "rank-stabilised LoRA", (2e-2, 1e-3),
        tiny: LoraConfig { use_rslora: true, r: 4, lora_alpha: 8.0, target_modules: Some(Names::list(["ff.0"])),
            ..Default::default() },
        bert: LoraConfig { use_rslora: true, r: 8, lora_alpha: 16.0, common: head(), ..Default::default() }),
    case!("adapter", "bottleneck after each layer", (2e-2, 2e-3),
        tiny: BottleneckConfig { bottleneck_size: 4, placement: vec![Placement::Layer], ..Default::default() },
        bert: BottleneckConfig { bottleneck_size: 16, placement: vec![Placement::Layer], common: head(),
            ..Default::default() }),
    case!("houlsby", "bottlenecks after attention and feed-forward", (2e-2, 2e-3),
        tiny: BottleneckConfig { bottleneck_size: 4, ..Default::default() },
        bert: BottleneckConfig { bottleneck_size: 16, common: head(), ..Default::default() }),
    case!("parallel", "bottleneck beside feed-forward", (2e-2, 2e-3),
        tiny: BottleneckConfig { bottleneck_size: 4, placement: vec![Placement::FeedForward], is_parallel: true,
            ..Default::default() },
        bert: BottleneckConfig { bottleneck_size: 16, placement: vec![Placement::FeedForward], is_parallel: true,
            common: head(), ..Default::default() }),
    case!("prefix", "prefix tuning: keys and values", (2e-1, 2e-2),
        tiny: PrefixTuningConfig { num_virtual_tokens: 5, ..Default::default() },
        bert: PrefixTuningConfig { num_virtual_tokens: 10, common: head(), ..Default::default() }),
    case!("hidden-prefix", "prefix of hidden states, as lessons have it", (1e-1, 2e-2),
        tiny: HiddenPrefixConfig { num_virtual_tokens: 5, ..Default::default() },
        bert: HiddenPrefixConfig { num_virtual_tokens: 10, common: head(), ..Default::default() }),
    case!("prompt", "prompt tuning, from the vocabulary", (2e-1, 2e-2),
        tiny: prompt(5, Common::default()),
        bert: prompt(10, head())),
];

fn head() -> Common {
    Common::classifier()
}

fn prompt(n: i64, common: Common) -> PromptTuningConfig {
    let prompt_tuning_init = PromptInit::SampleVocab;
    PromptTuningConfig { num_virtual_tokens: n, prompt_tuning_init, common, ..Default::default() }
}
