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
    let mut rows = vec![
        prompt("prompt", PromptInit::Random),
        prompt("prompt, sampled words", PromptInit::SampleVocab),
        Row::new("prefix", prefix, 4 * 2 * layers * s.keys + head)
            .refused("prefix tuning", "the input")
            .starts(Start::Other),
    ];
    // Its vectors have no positions to be at in a causal model, which refuses it.
    if !s.causal {
        let row = Row::new("hidden-state prefix", hidden, layers * 3 * d + head);
        rows.push(row.refused("hidden-state prefix", s.attention).starts(Start::Other));
    }
    rows
}
