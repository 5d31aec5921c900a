//! Bytes: of real models and adapters, dense and in 4 bits, and the sums that are usually quoted.

use super::counts::llama7b;
use super::{bytes, dense};
use anyhow::{Result, ensure};
use peft_core::estimate::{Blueprint, Memory, Optimizer, Setup, Storage};
use peft_core::methods::{FullConfig, LoraConfig};
use peft_core::quant::{Nf4, Nf4Config};
use tch::Kind;
use tests::subject::Subject;
use tests::subject::{Bert, Gpt2, Llama, Tiny};
use tests::table::Row;
use tests::{on_every_model, refused, serial};

/// Over a base in f32 and in bf16.
fn bytes_are_the_real_ones<M: Subject>(row: &Row) -> Result<()> {
    for kind in [Kind::Float, Kind::BFloat16] {
        let mut peft = M::base()?.to_kind(kind)?;
        let setup = dense(kind);
        let found = Blueprint::like(&peft)?.estimate(row.config.method(), &setup)?.memory;
        peft.add("a", row.config.method())?;
        let params = peft.params("a")?;
        let trained = bytes(params.trainable().iter().map(|(_, t)| t));
        let real = Memory {
            base: bytes(peft.base().tensors().values()),
            adapter: bytes(params.tensors().values()) + params.state_bytes(),
            gradients: trained,
            optimizer: 2 * trained,
        };
        ensure!(found == real, "{kind:?}: {found:?} for {real:?}");
    }
    Ok(())
}

#[test]
fn every_method_is_weighed_without_numbers() -> Result<()> {
    on_every_model!(bytes_are_the_real_ones)
}

#[test]
fn four_bits_are_those_that_a_quantised_model_holds() -> Result<()> {
    fn check<M: Subject>() -> Result<()> {
        let peft = M::base()?.to_kind(Kind::BFloat16)?;
        let blueprint = Blueprint::like(&peft)?;
        for double_quant in [false, true] {
            let config = Nf4Config { double_quant, ..Nf4Config::default() };
            let real = peft.quantised(&config)?;
            let packed: usize = real.base().nf4s().values().map(Nf4::bytes).sum();
            let expected = packed as i64 + bytes(real.base().tensors().values());
            let found = blueprint.weights(&Storage::Nf4 { config, rest: Kind::BFloat16 })?;
            ensure!(found == expected && packed > 0, "{}: {found} for {expected}", M::NAME);
        }
        Ok(())
    }
    let _serial = serial();
    check::<Tiny>()?;
    check::<Bert>()?;
    check::<Llama>()?;
    check::<Gpt2>()
}

/// Seven billion: 14 GB of weights, 14 of gradients, 56 of moments.
#[test]
fn the_usual_box_adds_up() -> Result<()> {
    let memory = Memory::in_place(7_000_000_000, Kind::Half, Optimizer::AdamF32)?;
    let parts = [memory.base, memory.gradients, memory.optimizer, memory.adapter, memory.total()];
    ensure!(parts == [14, 14, 56, 0, 84].map(|gb| gb * 1_000_000_000), "{parts:?}");
    let text = memory.to_string();
    ensure!(text == "14.00 GB base + 14.00 GB gradients + 56.00 GB optimizer = 84.00 GB", "{text}");
    let sgd = Memory::in_place(7_000_000_000, Kind::Half, Optimizer::Sgd)?;
    ensure!(sgd.total() == 28_000_000_000);
    for n in [0, -1] {
        refused("parameters", Memory::in_place(n, Kind::Half, Optimizer::Sgd), &["parameters", "positive"])?;
    }
    ensure!(Memory::in_place(i64::MAX, Kind::Half, Optimizer::AdamF32)?.total() == i64::MAX);
    Ok(())
}

#[test]
fn llama_7b_weighs_what_its_formulas_say() -> Result<()> {
    let (blueprint, _) = llama7b()?;
    let numel = blueprint.parameters();
    ensure!(blueprint.weights(&Storage::Dense(Kind::Half))? == 2 * numel);
    // Seven linear layers a layer in 4 bits and scales, the rest in 16.
    let (d, f, l) = (4096i64, 11008i64, 32i64);
    let (square, wide) = (d * d, d * f);
    let rest = 2 * (numel - l * (4 * square + 3 * wide));
    let one = |n: i64| n / 2 + 4 * (n / 64) + 64;
    let two = |n: i64| n / 2 + n / 64 + 4 * (n / 64 / 256) + 64 + 1024;
    let nf4 = |double_quant| Storage::Nf4 {
        config: Nf4Config { double_quant, ..Nf4Config::default() },
        rest: Kind::BFloat16,
    };
    ensure!(blueprint.weights(&nf4(false))? == rest + l * (4 * one(square) + 3 * one(wide)));
    ensure!(blueprint.weights(&nf4(true))? == rest + l * (4 * two(square) + 3 * two(wide)));

    let trained = 4_194_304;
    let lora = blueprint.estimate(LoraConfig::default(), &Setup::default())?;
    let expected =
        Memory { base: 2 * numel, adapter: 4 * trained, gradients: 4 * trained, optimizer: 8 * trained };
    ensure!(lora.memory == expected && lora.memory.overhead() == 16 * trained, "{lora}");
    let text = lora.to_string();
    let expected = "trainable params: 4,194,304 || all params: 6,742,609,920 || trainable%: 0.0622\n\
        13.48 GB base + 16.8 MB adapter + 16.8 MB gradients + 33.6 MB optimizer = 13.54 GB, activations not counted";
    ensure!(text == expected, "{text}");
    // A copy beside the base, in its dtype.
    let full = blueprint.estimate(FullConfig::default(), &Setup::default())?.memory;
    ensure!(
        [full.base, full.adapter, full.gradients, full.optimizer] == [2, 2, 2, 4].map(|b| b * numel),
        "{full}"
    );
    Ok(())
}
