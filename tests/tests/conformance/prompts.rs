//! Virtual tokens: how they start, encoders that are trained and not written, gates, generation.

use anyhow::{Context, Result, ensure};
use peft_core::Peft;
use peft_core::io::{IfExists, tensors, write_json};
use peft_core::methods::{
    AdaptionPromptConfig, Gate, PTuningConfig, PrefixTuningConfig, PromptInit, PromptTuningConfig,
    Reparameterization, ZeroInitAttentionConfig,
};
use peft_core::seam::MethodConfig;
use peft_core::train::{AdamConfig, Schedule, Trainer};
use serde_json::json;
use std::collections::BTreeMap;
use tch::{Kind, Tensor};
use tempfile::TempDir;
use tests::reference::{Formula, attention, tiny};
use tests::subject::{Bert, Llama, Tiny};
use tests::subject::{Subject, fresh_method, logits, loss, moved_method};
use tests::{assert_bits, assert_close, golden, parity, refused, relative_error, serial};

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

/// Logits, loss, gradients (of an encoder too), files and counts of Python PEFT.
#[test]
fn goldens_of_virtual_tokens() -> Result<()> {
    let _serial = serial();
    let wanted = |name: &str| ["prompt", "prefix", "ptuning"].iter().any(|part| name.contains(part));
    for (family, count) in [("llama", 7), ("gpt2", 5), ("bert", 4)] {
        let outcomes = parity::compare(&golden(family), &wanted)?;
        ensure!(outcomes.len() == count, "{family}: {} goldens", outcomes.len());
        for (folder, outcome) in outcomes {
            let errors = outcome.with_context(|| folder.display().to_string())?;
            ensure!(errors.most() <= 1e-5, "{family}: {errors:?}");
        }
    }
    Ok(())
}

/// What PEFT's fresh adapters hold after the same seed (`tests/python/make_starts.py`).
#[test]
fn fresh_adapters_have_pefts_numbers() -> Result<()> {
    let _serial = serial();
    let theirs = tensors::read(golden("llama/starts.safetensors"))?;
    let mlp = PTuningConfig { encoder_hidden_size: Some(24), ..p_tuning(Reparameterization::Mlp) };
    let lstm = PTuningConfig { encoder_hidden_size: Some(12), ..p_tuning(Reparameterization::Lstm) };
    let projected = PrefixTuningConfig { encoder_hidden_size: Some(24), ..prefix(true) };
    let methods: [(&str, Box<dyn MethodConfig>); 7] = [
        ("prompt", prompt(PromptInit::SampleVocab).into()),
        ("prompt_random", prompt(PromptInit::Random).into()),
        ("ptuning", mlp.into()),
        ("ptuning_lstm", lstm.into()),
        ("prefix", prefix(false).into()),
        ("prefix_proj", projected.into()),
        ("adaption_prompt", adaption().into()),
    ];
    let mut seen = 0;
    for (folder, method) in methods {
        let mut peft = Llama::base()?;
        tch::manual_seed(5);
        peft.add("a", method)?;
        for (name, t) in peft.params("a")?.tensors() {
            // A prompt that is its own encoder.
            let key = if name == "prompt_embeddings" { "encoder.embedding.weight" } else { &name };
            let expected =
                theirs.get(&format!("{folder}/{key}")).with_context(|| format!("{folder}: {name}"))?;
            assert_bits(&format!("{folder}: {name}"), &t.detach(), expected)?;
            seen += 1;
        }
    }
    ensure!(seen == theirs.len(), "{seen} of {} tensors were compared", theirs.len());
    Ok(())
}

/// Training steps of adapter `name`.
fn train(peft: &Peft, name: &str, steps: usize) -> Result<()> {
    let mut trainer = Trainer::new(peft, &[name], AdamConfig::default(), 1e-2, Schedule::Constant)?;
    for _ in 0..steps {
        trainer.step(&loss(peft, &[name])?)?;
    }
    Ok(())
}

/// An encoder's file has its output alone. That can be trained further, and so can the encoder, if its own tensors were
/// kept: the second half of training is then the same to the last bit.
#[test]
fn encoders_are_for_training() -> Result<()> {
    let _serial = serial();
    let lstm = p_tuning(Reparameterization::Lstm);
    let methods: [Box<dyn MethodConfig>; 3] =
        [p_tuning(Reparameterization::Mlp).into(), lstm.into(), prefix(true).into()];
    for method in methods {
        let peft = fresh_method::<Bert>(method)?;
        train(&peft, "a", 2)?;
        let (dir, kept) = (tempfile::tempdir()?, tempfile::tempdir()?);
        peft.save("a", dir.path())?;
        let written = tensors::read(dir.path().join("adapter_model.safetensors"))?;
        ensure!(written.keys().eq(["prompt_embeddings"]), "the file has {:?}", written.keys());

        let mut other = Bert::base()?;
        other.load("b", dir.path())?;
        let before = logits(&other, &["b"])?;
        ensure!(other.trainable(&["b"])?.len() == 1, "the output of the encoder is trained as it is");
        train(&other, "b", 2)?;
        ensure!(relative_error(&logits(&other, &["b"])?, &before)? > 1e-4, "training changed nothing");

        let file = kept.path().join("encoder.safetensors");
        tensors::write(&file, &peft.params("a")?.tensors())?;
        let config = peft_core::io::read_json(dir.path().join("adapter_config.json"))?;
        other.add_with("c", peft_core::methods::from_json(config, "the file")?, tensors::read(&file)?)?;
        let (mut whole, mut resumed) = (vec![], vec![]);
        for _ in 0..2 {
            train(&peft, "a", 1)?;
            train(&other, "c", 1)?;
            whole.push(logits(&peft, &["a"])?);
            resumed.push(logits(&other, &["c"])?);
        }
        for (whole, resumed) in whole.iter().zip(&resumed) {
            assert_bits("resumed", resumed, whole)?;
        }
    }
    Ok(())
}

/// A tokenizer of the words w0 ... w59 with [CLS] and [SEP] around them; the id of word i is i + 3.
fn tokenizer() -> Result<TempDir> {
    let mut vocab = serde_json::Map::new();
    for (id, word) in ["[UNK]", "[CLS]", "[SEP]"]
        .iter()
        .map(|w| (*w).to_owned())
        .chain((0..60).map(|i| format!("w{i}")))
        .enumerate()
    {
        vocab.insert(word, id.into());
    }
    let token = |id: &str| json!({ "SpecialToken": { "id": id, "type_id": 0 } });
    let words = json!({ "Sequence": { "id": "A", "type_id": 0 } });
    let special = |id: &str, n: i64| json!({ "id": id, "ids": [n], "tokens": [id] });
    let dir = tempfile::tempdir()?;
    let all = json!({
        "version": "1.0", "added_tokens": [], "normalizer": null, "decoder": null,
        "pre_tokenizer": { "type": "Whitespace" },
        // A file's own limits do not apply.
        "truncation": { "direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0 },
        "padding": null,
        "post_processor": {
            "type": "TemplateProcessing", "single": [token("[CLS]"), words, token("[SEP]")], "pair": [],
            "special_tokens": { "[CLS]": special("[CLS]", 1), "[SEP]": special("[SEP]", 2) },
        },
        "model": { "type": "WordLevel", "unk_token": "[UNK]", "vocab": vocab },
    });
    write_json(dir.path().join("tokenizer.json"), &all)?;
    Ok(dir)
}

/// The text's tokens with the special ones, cut or repeated; and no tokenizer any more once there is a file.
#[test]
fn a_prompt_starts_from_a_text() -> Result<()> {
    let _serial = serial();
    let dir = tokenizer()?;
    let place = dir.path().display().to_string();
    let config = |n, text: &str| PromptTuningConfig {
        num_virtual_tokens: n,
        prompt_tuning_init_text: Some(text.into()),
        tokenizer_name_or_path: Some(place.clone()),
        ..prompt(PromptInit::Text)
    };
    let file = tempfile::tempdir()?;
    for (n, text, ids) in [
        (7, "w7 w0", &[1, 10, 3, 2, 1, 10, 3][..]),
        (4, "w7 w0", &[1, 10, 3, 2]),
        (3, "w7 w0 w8", &[1, 10, 3]),
        (2, "other", &[1, 0]),
    ] {
        let peft = fresh_method::<Bert>(config(n, text).into())?;
        let words = &peft.base().tensors()["bert.embeddings.word_embeddings.weight"];
        let found = peft.params("a")?.tensors()["prompt_embeddings"].detach();
        assert_bits(text, &found, &words.index_select(0, &Tensor::from_slice(ids)))?;
        peft.save_with("a", file.path(), IfExists::Replace)?;
    }
    let (mut other, expected) = (Bert::base()?, config(2, "other"));
    drop(dir);
    other.load("b", file.path())?;
    let json = peft_core::io::read_json(file.path().join("adapter_config.json"))?;
    for (field, value) in [
        ("prompt_tuning_init", "TEXT"),
        ("prompt_tuning_init_text", "other"),
        ("tokenizer_name_or_path", &place),
    ] {
        ensure!(json[field] == value, "{field} is {} in the file", json[field]);
    }
    refused(
        "without the tokenizer",
        other.add("c", expected),
        &["prompt tuning", "tokenizer_name_or_path", "tokenizer.json", &place],
    )?;
    Ok(())
}

/// What a gate does with attention to the prompt.
#[derive(Clone, Copy)]
enum ByHand {
    /// `A + f(g) · softmax(Q P_kᵀ/√d) P_v`, with f as named.
    Apart(fn(&Tensor) -> Tensor),
    /// `softmax([σ(g) · Q P_kᵀ; Q Kᵀ]/√d) [P_v; V]`.
    Together,
}

struct Gated {
    tensors: Tensors,
    /// Of the prompt and of the gate.
    names: [&'static str; 2],
    by_hand: ByHand,
    /// The first layer that has it.
    from: i64,
}

impl Formula for Gated {
    fn attention(&self, layer: i64, heads: [Tensor; 3], project: &dyn Fn(&Tensor) -> [Tensor; 3]) -> Tensor {
        let [q, k, v] = heads;
        if layer < self.from {
            return attention(&q, &k, &v);
        }
        let [prompt, gate] =
            self.names.map(|n| &self.tensors[&format!("base_model.model.layers.{layer}.attn.core.{n}")]);
        let [_, prompt_k, prompt_v] = project(&prompt.view([1, -1, prompt.size()[prompt.dim() - 1]]));
        match self.by_hand {
            ByHand::Apart(f) => attention(&q, &k, &v) + attention(&q, &prompt_k, &prompt_v) * f(gate),
            ByHand::Together => {
                let root = (q.size()[3] as f64).sqrt();
                let scores = |k: &Tensor| q.matmul(&k.transpose(-2, -1)) / root;
                let own = scores(&prompt_k) * gate.sigmoid();
                let weights = Tensor::cat(&[own, scores(&k)], -1).softmax(-1, None::<Kind>);
                let batch = v.size()[0];
                weights.matmul(&Tensor::cat(&[prompt_v.expand([batch, -1, -1, -1], false), v], 2))
            }
        }
    }
}

#[test]
fn gates_do_what_their_formulas_say() -> Result<()> {
    let _serial = serial();
    let core = Some("core".to_owned());
    let adaption = AdaptionPromptConfig { target_modules: core, ..adaption() };
    let last = AdaptionPromptConfig { adapter_layers: 1, ..adaption.clone() };
    let ours = ["zero_init_prompt", "zero_init_gate"];
    let pefts = ["adaption_prompt", "adaption_gate"];
    let cases: [(&str, Box<dyn MethodConfig>, _, _, _); 4] = [
        ("tanh", zero_init(Gate::Tanh).into(), ours, ByHand::Apart(Tensor::tanh), 0),
        ("sigmoid", zero_init(Gate::Sigmoid).into(), ours, ByHand::Together, 0),
        ("adaption prompt", adaption.into(), pefts, ByHand::Apart(Tensor::shallow_clone), 0),
        ("adaption prompt, last layer", last.into(), pefts, ByHand::Apart(Tensor::shallow_clone), 1),
    ];
    for (what, method, names, by_hand, from) in cases {
        let peft = moved_method::<Tiny>(method)?;
        let formula = Gated { tensors: peft.params("a")?.tensors(), names, by_hand, from };
        let ids = Tiny::batch()?.0.ids()?.shallow_clone();
        let expected = tiny(&peft.base().tensors(), &tests::subject::TINY, &ids, &formula).detach();
        assert_close(what, &logits(&peft, &["a"])?, &expected, 1e-5)?;
        let effect = relative_error(&expected, &logits(&peft, &[])?)?;
        ensure!(effect > 1e-2, "{what}: the adapter does nearly nothing ({effect:.1e})");
    }
    Ok(())
}

/// With a sigmoid on the scores no value of the gate is the model's own attention; with tanh 0 is.
#[test]
fn a_sigmoid_gate_is_never_closed() -> Result<()> {
    let _serial = serial();
    for (gate, value, closed) in
        [(Gate::Tanh, 0.0f32, true), (Gate::Sigmoid, 0.0, false), (Gate::Sigmoid, -100.0, false)]
    {
        let peft = fresh_method::<Tiny>(zero_init(gate).into())?;
        for name in peft.params("a")?.tensors().into_keys().filter(|n| n.ends_with("gate")) {
            peft.params("a")?.assign(&name, &Tensor::from_slice(&[value]))?;
        }
        let effect = relative_error(&logits(&peft, &["a"])?, &logits(&peft, &[])?)?;
        ensure!((effect == 0.0) == closed, "{gate:?} at {value}: the logits move by {effect:.1e}");
        ensure!(closed || effect > 1e-2, "{gate:?} at {value}: the logits move by {effect:.1e} alone");
    }
    Ok(())
}
