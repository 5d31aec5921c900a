//! The conformance table: one row a method variant. Every law runs over every row, on every model.

use crate::subject::Sizes;
use peft_core::methods::{
    Activation, BottleneckConfig, BottleneckInit, Common, FullConfig, HiddenPrefixConfig, InitLora,
    LoraConfig, Placement, PrefixTuningConfig, PromptInit, PromptTuningConfig, Scaling,
};
use peft_core::target::Names;
use peft_core::{Model, Peft, Result};
use tch::Tensor;

macro_rules! configs {
    ($($Variant:ident($Config:ty)),* $(,)?) => {
        /// The configuration of any method of the table.
        #[derive(Debug, Clone)]
        pub enum Config { $($Variant($Config)),* }

        impl Config {
            /// As [`Peft::add`].
            pub fn add<M: Model>(self, peft: &mut Peft<M>, name: &str) -> Result<()> {
                match self { $(Config::$Variant(c) => peft.add(name, c)),* }
            }

            /// As [`Peft::add_with`].
            pub fn add_with<M: Model>(
                self, peft: &mut Peft<M>, name: &str, tensors: impl IntoIterator<Item = (String, Tensor)>,
            ) -> Result<()> {
                match self { $(Config::$Variant(c) => peft.add_with(name, c, tensors)),* }
            }

            /// The fields that every method has.
            pub fn common(&mut self) -> &mut Common {
                match self { $(Config::$Variant(c) => &mut c.common),* }
            }
        }
    };
}

configs! {
    Lora(LoraConfig),
    Bottleneck(BottleneckConfig),
    Prompt(PromptTuningConfig),
    Prefix(PrefixTuningConfig),
    HiddenPrefix(HiddenPrefixConfig),
    Full(FullConfig),
}

/// What the model with a fresh adapter computes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Start {
    /// What it computes without, to the last bit.
    Same,
    /// The same up to this relative error, but not the same.
    Near(f64),
    /// Something else.
    Other,
}

/// Whether the adapter folds into the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    Folds,
    /// The refusal names the method and the site.
    Refused(&'static str, &'static str),
}

/// One method variant on one model.
#[derive(Debug, Clone)]
pub struct Row {
    pub name: &'static str,
    pub config: Config,
    pub start: Start,
    pub merge: Merge,
    /// Trained parameters, in closed form.
    pub count: i64,
    /// Whether the method itself drops anything in training.
    pub dropout: bool,
}

impl Row {
    /// Whether the method's copies stand for the base's parameters instead of adding to them.
    pub fn replaces(&self) -> bool {
        matches!(self.config, Config::Full(_))
    }
}

/// The rows for a model of these sizes, trained for a task.
pub fn rows(s: &Sizes, common: &Common) -> Vec<Row> {
    let (d, layers, head) = (s.hidden, s.layers, s.head);
    let lora = LoraConfig {
        r: 4,
        lora_alpha: 10.0,
        lora_dropout: 0.1,
        target_modules: Some(Names::list(s.targets.iter().map(|t| t.name))),
        common: common.clone(),
        ..LoraConfig::default()
    };
    let lora_count = |r: i64| layers * s.targets.iter().map(|t| r * (t.inp + t.out)).sum::<i64>() + head;
    let lora_row = |name, start, config: LoraConfig| {
        let count = lora_count(config.r);
        Row { name, config: Config::Lora(config), start, merge: Merge::Folds, count, dropout: true }
    };

    let size = 6;
    let bottleneck = BottleneckConfig { bottleneck_size: size, common: common.clone(), ..Default::default() };
    // Down and up, with biases, at every block; `more` is what a block has beside them.
    let bottleneck_count =
        |blocks: i64, more: i64| layers * blocks * (size * (d + 1) + d * (size + 1) + more) + head;
    let bottleneck_row = |name, start, site, count, config| {
        let merge = Merge::Refused("bottleneck adapter", site);
        Row { name, config: Config::Bottleneck(config), start, merge, count, dropout: false }
    };

    let prompt = |init| PromptTuningConfig {
        num_virtual_tokens: 5,
        prompt_tuning_init: init,
        common: common.clone(),
        ..Default::default()
    };
    let prefix =
        PrefixTuningConfig { num_virtual_tokens: 4, common: common.clone(), ..PrefixTuningConfig::default() };
    let input_row = |name, config, method, site, count| {
        let merge = Merge::Refused(method, site);
        Row { name, config, start: Start::Other, merge, count, dropout: false }
    };
    let (whole, whole_count) = s.whole;

    vec![
        lora_row("LoRA", Start::Same, lora.clone()),
        lora_row(
            "LoRA, gaussian",
            Start::Same,
            LoraConfig { r: 3, init_lora_weights: InitLora::Named("gaussian".into()), ..lora.clone() },
        ),
        lora_row("rsLoRA", Start::Same, LoraConfig { use_rslora: true, lora_alpha: 3.0, ..lora.clone() }),
        lora_row(
            "LoRA, init false",
            Start::Other,
            LoraConfig { r: 2, init_lora_weights: InitLora::Flag(false), ..lora.clone() },
        ),
        Row {
            count: lora_count(4) + whole_count,
            ..lora_row("LoRA, modules_to_save", Start::Same, {
                let common = Common { modules_to_save: Some(vec![whole.into()]), ..common.clone() };
                LoraConfig { common, ..lora.clone() }
            })
        },
        bottleneck_row(
            "bottleneck",
            Start::Same,
            s.attention,
            bottleneck_count(2, 0),
            BottleneckConfig { scaling: Scaling::Fixed(1.5), ..bottleneck.clone() },
        ),
        bottleneck_row(
            "bottleneck after the layer",
            Start::Same,
            s.layer,
            bottleneck_count(1, 0),
            BottleneckConfig {
                placement: vec![Placement::Layer],
                non_linearity: Activation::Relu,
                ..bottleneck.clone()
            },
        ),
        bottleneck_row(
            "bottleneck, parallel, learned scale",
            Start::Same,
            s.feed_forward,
            bottleneck_count(1, 1),
            BottleneckConfig {
                placement: vec![Placement::FeedForward],
                non_linearity: Activation::Silu,
                is_parallel: true,
                scaling: Scaling::Named("learned".into()),
                ..bottleneck.clone()
            },
        ),
        bottleneck_row(
            "bottleneck, near identity",
            Start::Near(3e-2),
            s.attention,
            bottleneck_count(2, 0),
            BottleneckConfig {
                init_weights: BottleneckInit::NearIdentity,
                non_linearity: Activation::Tanh,
                ..bottleneck
            },
        ),
        input_row(
            "prompt",
            Config::Prompt(prompt(PromptInit::Random)),
            "prompt tuning",
            "the input",
            5 * d + head,
        ),
        input_row(
            "prompt, sampled words",
            Config::Prompt(prompt(PromptInit::SampleVocab)),
            "prompt tuning",
            "the input",
            5 * d + head,
        ),
        // Keys and values of every layer: heads · (d / heads) = d wide each.
        input_row("prefix", Config::Prefix(prefix), "prefix tuning", "the input", 4 * 2 * layers * d + head),
        input_row(
            "hidden-state prefix",
            Config::HiddenPrefix(HiddenPrefixConfig { num_virtual_tokens: 3, common: common.clone() }),
            "hidden-state prefix",
            s.attention,
            layers * 3 * d + head,
        ),
        Row {
            name: "full fine-tuning",
            config: Config::Full(FullConfig { common: common.clone() }),
            start: Start::Same,
            merge: Merge::Folds,
            count: s.all,
            dropout: false,
        },
    ]
}
