//! The fields that everyone sets, as methods: `LoraConfig::new(8).targets(["q_proj", "v_proj"])`.

use super::*;
use crate::seam::dims::TaskType;
use crate::target::Names;

/// `new`, of the one number that says how much is trained; everything else is the default.
macro_rules! sized {
    ($($Config:ident: $size:ident, $what:literal;)*) => {$(
        impl $Config {
            #[doc = concat!("With ", $what, ", and PEFT's defaults otherwise.")]
            pub fn new($size: i64) -> Self {
                Self { $size, ..Self::default() }
            }
        }
    )*};
}

/// `targets`, for a field at the given path.
macro_rules! targeted {
    ($($Config:ident: $($path:ident).+;)*) => {$(
        impl $Config {
            /// The same at these modules, instead of at PEFT's default for the model type: a list of names, each of which
            /// stands for every module whose path ends in it; or one string, a regular expression for whole paths.
            /// `"all-linear"` is every linear layer but the head.
            #[must_use]
            pub fn targets(mut self, modules: impl Into<Names>) -> Self {
                self.$($path).+ = Some(modules.into());
                self
            }
        }
    )*};
}

/// `task`, which all have.
macro_rules! tasked {
    ($($Config:ident)*) => {$(
        impl $Config {
            /// The same for this task, which is written to the file. With a classifier's, its head is trained as well.
            #[must_use]
            pub fn task(mut self, task: TaskType) -> Self {
                self.common.task_type = Some(task);
                self
            }
        }
    )*};
}

sized! {
    LoraConfig: r, "rank `r`";
    LoHaConfig: r, "rank `r`";
    LoKrConfig: r, "rank `r`";
    VeraConfig: r, "rank `r`";
    OftConfig: oft_block_size, "blocks of that size";
    BottleneckConfig: bottleneck_size, "a bottleneck of that width";
    PromptTuningConfig: num_virtual_tokens, "so many virtual tokens";
    PTuningConfig: num_virtual_tokens, "so many virtual tokens";
    PrefixTuningConfig: num_virtual_tokens, "so many virtual tokens";
    ZeroInitAttentionConfig: num_virtual_tokens, "so many virtual tokens";
    HiddenPrefixConfig: num_virtual_tokens, "so many virtual tokens";
}

targeted! {
    LoraConfig: targets.target_modules;
    LoHaConfig: targets.target_modules;
    LoKrConfig: targets.target_modules;
    OftConfig: targets.target_modules;
    AdaLoraConfig: targets.target_modules;
    DiffPruningConfig: targets.target_modules;
    Ia3Config: targets.target_modules;
    LnTuningConfig: targets.target_modules;
    BitFitConfig: targets.target_modules;
    BeftConfig: target_modules;
    VeraConfig: target_modules;
    TrainableTokensConfig: target_modules;
}

tasked! {
    LoraConfig LoHaConfig LoKrConfig OftConfig TrainableTokensConfig DiffPruningConfig BottleneckConfig
    PromptTuningConfig PTuningConfig PrefixTuningConfig AdaptionPromptConfig ZeroInitAttentionConfig
    HiddenPrefixConfig FullConfig PartialConfig BitFitConfig LnTuningConfig Ia3Config BeftConfig VeraConfig
    AdaLoraConfig
}
