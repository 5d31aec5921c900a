//! Virtual tokens: how they start, encoders that are trained and not written, gates, generation.

use anyhow::{Context, Result, ensure};
use peft_core::attention::KvCache;
use peft_core::io::{hub::HubModel, tensors};
use peft_core::methods::{
    AdaptionPromptConfig, Gate, LoraConfig, PTuningConfig, PrefixTuningConfig, PromptInit, PromptTuningConfig,
    Reparameterization, ZeroInitAttentionConfig,
};
use peft_core::models::{Gpt2, Llama, Tiny};
use peft_core::train::{AdamConfig, Schedule, Trainer};
use peft_core::{Batch, Method, Model, Pass, Peft};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};
use tests::reference::{Formula, attention, tiny};
use tests::subject::{Subject, fresh_method, logits, loss, move_away, moved_method};
use tests::{assert_bits, assert_close, relative_error, serial};

type Tensors = BTreeMap<String, Tensor>;

const N: i64 = 4;

fn prompt(prompt_tuning_init: PromptInit) -> PromptTuningConfig {
    PromptTuningConfig { num_virtual_tokens: N, prompt_tuning_init, ..Default::default() }
}

fn p_tuning(encoder_reparameterization_type: Reparameterization) -> PTuningConfig {
    PTuningConfig { num_virtual_tokens: N, encoder_reparameterization_type, ..Default::default() }
}

fn prefix(prefix_projection: bool) -> PrefixTuningConfig {
    PrefixTuningConfig { num_virtual_tokens: N, prefix_projection, ..Default::default() }
}

fn adaption() -> AdaptionPromptConfig {
    AdaptionPromptConfig { adapter_len: N, adapter_layers: 2, ..Default::default() }
}

fn zero_init(gate: Gate) -> ZeroInitAttentionConfig {
    ZeroInitAttentionConfig { num_virtual_tokens: N, gate, ..Default::default() }
}

fn every_method() -> Vec<Box<dyn Method>> {
    vec![
        prompt(PromptInit::Random).into(),
        p_tuning(Reparameterization::Mlp).into(),
        p_tuning(Reparameterization::Lstm).into(),
        prefix(false).into(),
        prefix(true).into(),
        adaption().into(),
        zero_init(Gate::Tanh).into(),
        zero_init(Gate::Sigmoid).into(),
    ]
}

#[test]
fn tmp_starts() -> Result<()> {
    let _serial = serial();
    let theirs = tensors::read(std::path::Path::new("/tmp/init.safetensors"))?;
    let n5 = |mut c: PTuningConfig, h| { c.num_virtual_tokens = 5; c.encoder_hidden_size = Some(h); c };
    let methods: Vec<(&str, Box<dyn Method>)> = vec![
        ("prompt", PromptTuningConfig { num_virtual_tokens: 5, ..prompt(PromptInit::SampleVocab) }.into()),
        ("random", PromptTuningConfig { num_virtual_tokens: 5, ..prompt(PromptInit::Random) }.into()),
        ("mlp", n5(p_tuning(Reparameterization::Mlp), 24).into()),
        ("lstm", n5(p_tuning(Reparameterization::Lstm), 12).into()),
        ("prefix", prefix(false).into()),
        ("proj", PrefixTuningConfig { encoder_hidden_size: Some(24), ..prefix(true) }.into()),
        ("adaption", AdaptionPromptConfig { adapter_len: 5, ..adaption() }.into()),
    ];
    for (tag, method) in methods {
        let mut peft = Llama::base()?;
        tch::manual_seed(5);
        peft.add("a", method)?;
        for (name, t) in peft.params("a")?.tensors() {
            let key = if name == "prompt_embeddings" { "encoder.embedding.weight" } else { name.as_str() };
            let other = theirs.get(&format!("{tag}/{key}")).context(name.clone())?;
            println!("{tag} {name} {}", tests::same_bits(&t.detach(), other));
        }
    }
    Ok(())
}

/// A batch of whole rows, cut at the columns of `at`.
fn part(batch: &Batch, from: i64, to: i64) -> Batch {
    Batch {
        ids: batch.ids.slice(1, from, to, 1),
        mask: batch.mask.as_ref().map(|m| m.slice(1, 0, to, 1)),
    }
}

/// Catches a prompt that enters twice or is not seen by later tokens, and positions that go on from the wrong place.
fn generation<M: Subject>(active: &[&str], peft: &Peft<M>, what: &str) -> Result<()> {
    let _guard = tch::no_grad_guard();
    let (ids, _) = M::batch()?.0.ids.split_at(5, 1)?;
    Ok(())
}
