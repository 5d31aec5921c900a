//! Methods on the input and on attention's keys and values.

use super::{Row, Start};
use crate::subject::Sizes;
use peft_core::methods::{Common, HiddenPrefixConfig, PrefixTuningConfig, PromptInit, PromptTuningConfig};

pub(super) fn rows(s: &Sizes, common: &Common) -> Vec<Row> {
    let (d, layers, head) = (s.hidden, s.layers, s.head);
    let prompt = |name, init| {
        let config = PromptTuningConfig {
            num_virtual_tokens: 5,
            prompt_tuning_init: init,
            common: common.clone(),
            ..Default::default()
        };
        Row::new(name, config, 5 * d + head).refused("prompt tuning", "the input").starts(Start::Other)
    };
    let prefix =
        PrefixTuningConfig { num_virtual_tokens: 4, common: common.clone(), ..PrefixTuningConfig::default() };
    let hidden = HiddenPrefixConfig { num_virtual_tokens: 3, common: common.clone() };
    vec![
        prompt("prompt", PromptInit::Random),
        prompt("prompt, sampled words", PromptInit::SampleVocab),
        // Keys and values of every layer: heads · (d / heads) = d wide each.
        Row::new("prefix", prefix, 4 * 2 * layers * d + head)
            .refused("prefix tuning", "the input")
            .starts(Start::Other),
        Row::new("hidden-state prefix", hidden, layers * 3 * d + head)
            .refused("hidden-state prefix", s.attention)
            .starts(Start::Other),
    ]
}
