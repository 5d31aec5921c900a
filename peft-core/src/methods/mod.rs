//! The methods, one file each. A new one is its file and one line in the table below.

mod accumulate;
mod builders;
pub mod catalogue;
mod config;
mod copies;
mod lycoris;
mod ranks;
pub(crate) mod read;
mod tokens;
mod virtual_tokens;
pub use catalogue::{by_name, catalogue};
pub use config::{Common, PeftConfig, to_json};
pub use read::from_json;

/// The table: `module::Config` for each method that has a file form. Its `peft_type` is [`PeftConfig::TYPE`].
macro_rules! methods {
    ($($module:ident :: $Config:ident),* $(,)?) => {
        $(mod $module; pub use $module::*;)*
        builders::tasked! { $($Config)* }
        /// Every `peft_type` that can be read, with its reader.
        pub(crate) const TABLE: &[read::Row] = &[$(read::row::<$module::$Config>()),*];
    };
}

methods! {
    lora::LoraConfig,
    loha::LoHaConfig,
    lokr::LoKrConfig,
    oft::OftConfig,
    trainable_tokens::TrainableTokensConfig,
    diff_pruning::DiffPruningConfig,
    bottleneck::BottleneckConfig,
    prompt_tuning::PromptTuningConfig,
    p_tuning::PTuningConfig,
    prefix_tuning::PrefixTuningConfig,
    adaption_prompt::AdaptionPromptConfig,
    zero_init_attention::ZeroInitAttentionConfig,
    hidden_prefix::HiddenPrefixConfig,
    full::FullConfig,
    partial::PartialConfig,
    bitfit::BitFitConfig,
    ln_tuning::LnTuningConfig,
    ia3::Ia3Config,
    beft::BeftConfig,
    vera::VeraConfig,
    adalora::AdaLoraConfig,
}
