//! Methods that learn vectors: scales of activations and of random projections, biases, singular values.

use super::{Row, Start};
use crate::subject::Sizes;
use peft_core::methods::{AdaLoraConfig, BeftConfig, Common, Ia3Config, VeraConfig};
use peft_core::target::Names;

const PROJECTIONS: [&str; 2] = ["base_model.vera_A", "base_model.vera_B"];

pub(super) fn rows(s: &Sizes, common: &Common) -> Vec<Row> {
    let names = Names::list(s.targets.iter().map(|t| t.name));
    // Parameters, from those of a target with that input and output.
    let count = |f: &dyn Fn(i64, i64) -> i64| {
        s.layers * s.targets.iter().map(|t| f(t.inp, t.out)).sum::<i64>() + s.head
    };
    let beft =
        BeftConfig { target_modules: Some(names.clone()), common: common.clone(), ..BeftConfig::default() };
    let ia3 = Ia3Config {
        targets: names.clone().into(),
        feedforward_modules: Some(Names::list::<&str>([])),
        common: common.clone(),
        ..Ia3Config::default()
    };
    let inputs =
        Ia3Config { feedforward_modules: Some(names.clone()), init_ia3_weights: false, ..ia3.clone() };
    let r = 12;
    let vera = VeraConfig {
        r,
        d_initial: 0.8,
        target_modules: Some(names.clone()),
        common: common.clone(),
        ..VeraConfig::default()
    };
    let redrawn =
        VeraConfig { save_projection: false, projection_prng_key: 7, init_weights: false, ..vera.clone() };
    let init_r = 4;
    let adalora = AdaLoraConfig {
        init_r,
        target_r: 2,
        tinit: 1,
        tfinal: 2,
        total_step: Some(6),
        lora_alpha: 10.0,
        lora_dropout: 0.1,
        targets: names.into(),
        common: common.clone(),
        ..AdaLoraConfig::default()
    };
    let values = count(&|inp, out| init_r * (inp + out + 1));
    // A scale of the output scales what a LoRA below it adds as well, and one of the input what a LoRA reads.
    let scaled = |name, config, count| Row { commutes: false, ..Row::new(name, config, count) };
    let mut rows = vec![
        scaled("(IA)³, outputs", ia3, count(&|_, out| out)),
        scaled("(IA)³, inputs, init false", inputs, count(&|inp, _| inp)).starts(Start::Other),
        Row {
            frozen: PROJECTIONS.map(str::to_owned).to_vec(),
            dropout: true,
            ..Row::new("VeRA", VeraConfig { vera_dropout: 0.1, ..vera }, count(&|_, out| out + r))
        },
        Row::new("VeRA, redrawn, init false", redrawn, count(&|_, out| out + r)).starts(Start::Other),
        // The rank of each layer is counted, and never trained.
        Row {
            dropout: true,
            more: values + s.layers * s.targets.len() as i64,
            ..Row::new("AdaLoRA", adalora, values)
        },
    ];
    // Elsewhere the base has no bias to merge it into.
    if s.biases > 0 {
        rows.push(Row::new("BEFT", beft, count(&|_, out| out)));
    }
    rows
}
