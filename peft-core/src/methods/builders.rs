//! The fields that everyone sets, as methods: `LoraConfig::new(8).targets(["q_proj", "v_proj"])`.

use super::*;
use crate::target::Names;

/// `new`, of the one number that says how much is trained; everything else is the default.
macro_rules! sized {
    ($($Config:ident: $size:ident, $what:literal;)*) => {$(
        impl $Config {
            #[doc = concat!("With ", $what, "; everything else has its default.")]
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

/// `task`, and the fields that every adapter has, for the configurations of the table.
macro_rules! tasked {
    ($($Config:ident)*) => {$(
        impl $Config {
            /// The same for this task, which is written to the file. With a classifier's its head is trained as well: what
            /// is called `classifier` or `score`, as on the Hub. A head by another name is for `modules_to_save`.
            #[must_use]
            pub fn task(mut self, task: $crate::seam::TaskType) -> Self {
                self.common.task_type = Some(task);
                self
            }
        }

        impl AsRef<Common> for $Config {
            fn as_ref(&self) -> &Common {
                &self.common
            }
        }
    )*};
}
pub(super) use tasked;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seam::TaskType;
    use crate::target::{Layers, Targets};

    #[test]
    fn what_everyone_sets_is_set() {
        let common = Common { task_type: Some(TaskType::CausalLm), ..Common::default() };
        let targets =
            Targets { target_modules: Some(Names::list(["q_proj", "v_proj"])), ..Targets::default() };
        assert_eq!(
            LoraConfig::new(4).targets(["q_proj", "v_proj"]).task(TaskType::CausalLm),
            LoraConfig { r: 4, targets, common, ..LoraConfig::default() }
        );
        let all = LoHaConfig::new(4).targets("all-linear");
        assert!(all.targets.target_modules.is_some_and(|names| names.is_all_linear()));
        let owned: Vec<String> = vec!["key".into()];
        assert_eq!(BeftConfig::default().targets(owned).target_modules, Some(Names::list(["key"])));
        let only = LoraConfig { layers: [1, 3].into(), ..LoraConfig::new(4) };
        assert_ne!(only.layers, Layers::default());
        let ada = AdaLoraConfig::new(8, 100);
        assert_eq!((ada.target_r, ada.init_r, ada.total_step), (8, 12, Some(100)));
    }

    /// The flattened parts are in the file as fields of its own, whatever they are set to.
    #[test]
    fn parts_are_flat_in_the_file() {
        let config = LoraConfig { layers: [1].into(), ..LoraConfig::new(4).targets(["q_proj"]) };
        let json = to_json(&config).unwrap();
        for (field, value) in [
            ("target_modules", serde_json::json!(["q_proj"])),
            ("exclude_modules", serde_json::Value::Null),
            ("layers_to_transform", serde_json::json!([1])),
            ("layers_pattern", serde_json::Value::Null),
        ] {
            assert_eq!(json.get(field), Some(&value), "{field}");
        }
        assert!(json.get("targets").is_none() && json.get("layers").is_none());
    }
}
