//! Methods on the input and on attention's keys and values.

use super::{Row, Start};
use crate::subject::Sizes;
use peft_core::methods::{
    AdaptionPromptConfig, Common, Gate, HiddenPrefixConfig, PTuningConfig, PrefixInit, PrefixTuningConfig,
    PromptInit, PromptTuningConfig, Reparameterization, ZeroInitAttentionConfig,
};

pub(super) fn rows(s: &Sizes, common: &Common) -> Vec<Row> {
    [prompts(s, common), prefixes(s, common), gated(s, common)].into_iter().flatten().collect()
}

/// Vectors before the words.
fn prompts(s: &Sizes, common: &Common) -> Vec<Row> {
    let (d, head, n, h) = (s.hidden, s.head, 5, 8);
    let prompt = |name, init| {
        let config = PromptTuningConfig {
            num_virtual_tokens: n,
            prompt_tuning_init: init,
            common: common.clone(),
            ..Default::default()
        };
        Row::new(name, config, n * d + head).refused("prompt tuning", "the input").starts(Start::Other)
    };
    let encoder = PTuningConfig {
        num_virtual_tokens: n,
        encoder_hidden_size: Some(h),
        common: common.clone(),
        ..Default::default()
    };
    let p_tuning = |name, config: PTuningConfig, count| {
        Row::new(name, config, n * d + count + head)
            .refused("P-tuning", "the input")
            .starts(Start::Other)
            .encoded()
    };
    let lstm = PTuningConfig {
        encoder_reparameterization_type: Reparameterization::Lstm,
        encoder_num_layers: 1,
        ..encoder.clone()
    };
    // A direction of a layer has four gates with two biases; above the LSTM are two linear layers.
    let layer = |inp: i64| 2 * 4 * h * (inp + h + 2);
    let above = 2 * h * (2 * h + 1) + d * (2 * h + 1);
    vec![
        prompt("prompt", PromptInit::Random),
        prompt("prompt, sampled words", PromptInit::SampleVocab),
        p_tuning("P-tuning", encoder.clone(), h * (d + 1) + h * (h + 1) + d * (h + 1)),
        p_tuning("P-tuning, LSTM", lstm.clone(), layer(d) + above),
        Row {
            dropout: true,
            ..p_tuning(
                "P-tuning, LSTM of two layers",
                PTuningConfig { encoder_num_layers: 2, encoder_dropout: 0.4, ..lstm },
                layer(d) + layer(2 * h) + above,
            )
        },
    ]
}

/// Keys and values, or hidden states, before those of the words.
fn prefixes(s: &Sizes, common: &Common) -> Vec<Row> {
    let (w, head, h) = (s.keys, s.head, 7);
    let all = 2 * s.layers * w;
    let prefix =
        |n| PrefixTuningConfig { num_virtual_tokens: n, common: common.clone(), ..Default::default() };
    let row = |name, config: PrefixTuningConfig, count| {
        Row::new(name, config, count + head).refused("prefix tuning", "the input").starts(Start::Other)
    };
    let projected = PrefixTuningConfig { prefix_projection: true, encoder_hidden_size: Some(h), ..prefix(4) };
    let hidden = HiddenPrefixConfig { num_virtual_tokens: 3, common: common.clone() };
    let mut rows = vec![
        row("prefix", prefix(4), 4 * all),
        // Keys of 0 are keys all the same.
        row(
            "prefix of zeros",
            PrefixTuningConfig { init_weights: Some(PrefixInit::Zero), ..prefix(8) },
            8 * all,
        ),
        row("prefix, projected", projected, 4 * w + h * (w + 1) + all * (h + 1)).encoded(),
    ];
    // Its vectors have no positions to be at in a causal model, which refuses it.
    if !s.causal {
        let row = Row::new("hidden-state prefix", hidden, s.layers * 3 * s.hidden + head);
        rows.push(row.refused("hidden-state prefix", s.attention).starts(Start::Other));
    }
    rows
}

/// Vectors beside the words of an attention, behind a gate.
fn gated(s: &Sizes, common: &Common) -> Vec<Row> {
    let (n, one) = (6, 6 * s.hidden + 1);
    let (_, target) = s.core.rsplit_once('.').unwrap_or_default();
    let adaption = |layers| AdaptionPromptConfig {
        target_modules: Some(target.to_owned()),
        adapter_len: n,
        adapter_layers: layers,
        common: common.clone(),
    };
    let gated = |gate| ZeroInitAttentionConfig { num_virtual_tokens: n, gate, common: common.clone() };
    let count = s.layers * one + s.head;
    vec![
        Row::new("adaption prompt", adaption(s.layers), count).refused("adaption prompt", s.core),
        Row::new("adaption prompt, last layer", adaption(1), one + s.head)
            .refused("adaption prompt", s.last_core),
        Row::new("zero-init attention", gated(Gate::Tanh), count).refused("zero-init attention", s.core),
        Row::new("zero-init attention, sigmoid", gated(Gate::Sigmoid), count)
            .refused("zero-init attention", s.core)
            .starts(Start::Other),
    ]
}
