//! The model families against transformers and PEFT, what their `config.json` may say, and what is written of them.

use anyhow::{Context, Result, ensure};
use peft_core::hub;
use peft_core::hub::Head;
use peft_core::io;
use peft_core::io::tensors;
use peft_core::methods;
use peft_core::methods::LoraConfig;
use peft_core::models::{RopeType, gpt2, llama, mistral, qwen2, roberta};
use peft_core::{Batch, Error, Model, Params, Pass, Peft};
use serde_json::{Value, json};
use std::path::Path;
use tch::{Device, Kind, Tensor};
use tests::{assert_bits, assert_close, edited, golden, parity, refused, serial};

/// f32, relative to the largest value of the tensor.
const TOL: f64 = 1e-5;

/// Base and LoRA: logits, merged logits, loss, gradients, files, counts.
#[test]
fn lora_is_pefts() -> Result<()> {
    let _serial = serial();
    for family in ["llama", "mistral", "qwen2", "gpt2", "bert", "roberta"] {
        let outcomes = parity::compare(&golden(family), &|method| method == "lora")?;
        ensure!(outcomes.len() == 1, "{family}: {} goldens", outcomes.len());
        for (_, outcome) in outcomes {
            let errors = outcome.with_context(|| family.to_owned())?;
            ensure!(errors.most() <= TOL, "{family}: {errors:?}");
        }
    }
    Ok(())
}

/// The configuration of a golden base with changes.
fn read<C>(
    family: &str,
    config: impl Fn(&Value, &str) -> peft_core::Result<C>,
    changes: &Value,
) -> Result<C> {
    let dir = edited(family, changes)?;
    Ok(config(&io::read_json(dir.path().join("config.json"))?, "config.json")?)
}

fn wrong(family: &str, changes: Value, parts: &[&str]) -> Result<()> {
    let dir = edited(family, &changes)?;
    let found = hub::architecture(dir.path(), Head::Stored);
    refused(&changes.to_string(), found, &[parts, &["config.json"]].concat())?;
    Ok(())
}

#[test]
fn what_a_decoder_has_not_is_refused_by_name() -> Result<()> {
    for kind in ["longrope", "su", "mrope", "proportional"] {
        let rope = json!({ "rope_type": kind, "factor": 2.0 });
        wrong(
            "llama",
            json!({ "rope_parameters": rope }),
            &["rope_parameters", "rope_type", kind, "llama3"],
        )?;
        let rope = json!({ "type": kind, "factor": 2.0 });
        wrong("mistral", json!({ "rope_scaling": rope }), &["rope_scaling", kind])?;
    }
    wrong(
        "llama",
        json!({ "rope_parameters": { "mrope_section": [1, 2] } }),
        &["rope_parameters", "mrope_section"],
    )?;
    wrong("llama", json!({ "rope_parameters": { "rope_type": "linear" } }), &["factor", "missing"])?;
    wrong("llama", json!({ "rope_scaling": { "type": "linear", "factor": 0.0 } }), &["factor", "above 0"])?;
    wrong("llama", json!({ "partial_rotary_factor": 0.5 }), &["partial_rotary_factor", "0.5"])?;
    wrong(
        "llama",
        json!({ "rope_parameters": { "partial_rotary_factor": 0.5 } }),
        &["partial_rotary_factor"],
    )?;
    wrong("llama", json!({ "rope_parameters": { "rope_theta": -1.0 } }), &["rope_theta", "-1"])?;
    wrong("llama", json!({ "num_key_value_heads": 3 }), &["num_key_value_heads", "3", "4"])?;
    // A size that no memory holds is no reason to die.
    let dir = edited("mistral", &json!({ "num_hidden_layers": i64::MAX }))?;
    let opened = hub::open(dir.path(), Device::Cpu, Head::Stored);
    refused("layers", opened, &["model.layers.2.", "no tensor"])?;
    wrong("llama", json!({ "head_dim": 7 }), &["head_dim", "7", "odd"])?;
    wrong("llama", json!({ "hidden_act": "mish" }), &["hidden_act", "mish"])?;
    wrong("mistral", json!({ "sliding_window": 0 }), &["sliding_window", "0"])?;
    wrong("mistral", json!({ "layer_types": ["full_attention", "full_attention"] }), &["layer_types"])?;
    wrong("qwen2", json!({ "layer_types": ["full_attention"] }), &["layer_types", "1 layers of 2"])?;
    let mixed = ["full_attention", "chunked_attention"];
    wrong("qwen2", json!({ "layer_types": mixed }), &["layer_types", "chunked_attention"])?;
    let mixed = ["full_attention", "sliding_attention"];
    wrong("qwen2", json!({ "layer_types": mixed }), &["layer_types", "sliding_window"])?;
    wrong("llama", json!({ "rms_norm_eps": -1.0 }), &["rms_norm_eps", "below 0", "-1"])?;
    wrong(
        "llama",
        json!({ "rms_norm_eps": { "__float__": "NaN" } }),
        &["rms_norm_eps: NaN", "no finite number"],
    )?;
    wrong("gpt2", json!({ "layer_norm_epsilon": -1e-5 }), &["layer_norm_epsilon", "below 0"])?;
    wrong("gpt2", json!({ "num_hidden_layers": 0 }), &["num_hidden_layers", "positive"])?;
    wrong("gpt2", json!({ "n_layer": null }), &["n_layer", "missing"])?;
    wrong("gpt2", json!({ "scale_attn_by_inverse_layer_idx": true }), &["scale_attn_by_inverse_layer_idx"])?;
    wrong("gpt2", json!({ "n_head": 5 }), &["n_embd", "32", "5"])
}

#[test]
fn what_an_encoder_has_not_is_refused_by_name() -> Result<()> {
    wrong("roberta", json!({ "add_cross_attention": true }), &["add_cross_attention"])?;
    wrong("roberta", json!({ "is_decoder": true }), &["is_decoder"])?;
    wrong("roberta", json!({ "pad_token_id": 96 }), &["pad_token_id", "96"])?;
    wrong("roberta", json!({ "position_embedding_type": "relative_key" }), &["position_embedding_type"])?;
    // As many classes as transformers counts, which the file's head has not.
    for (changes, asked) in
        [(json!({ "id2label": { "0": "a", "2": "b" } }), "[2, 32]"), (json!({ "num_labels": 5 }), "[5, 32]")]
    {
        let opened = hub::open(edited("bert", &changes)?.path(), Device::Cpu, Head::Stored);
        let parts = ["classifier.weight", asked, "[3, 32]", "id2label", "num_labels", "config.json"];
        refused(&changes.to_string(), opened, &parts)?;
    }
    wrong("bert", json!({ "layer_norm_eps": -1.0 }), &["layer_norm_eps", "below 0"])?;
    wrong("bert", json!({ "hidden_dropout_prob": 1.5 }), &["hidden_dropout_prob", "1.5"])
}

/// Fields that transformers leaves out have its defaults.
#[test]
fn missing_fields_have_transformers_defaults() -> Result<()> {
    let c = read(
        "gpt2",
        gpt2::config,
        &json!({ "resid_pdrop": null, "attn_pdrop": null, "tie_word_embeddings": null }),
    )?;
    ensure!((c.resid_pdrop, c.attn_pdrop, c.embd_pdrop) == (0.1, 0.1, 0.0) && c.tie_word_embeddings, "{c:?}");
    ensure!(c.n_inner == 128, "{c:?}");
    let c = read(
        "roberta",
        |json, place| roberta::config(json, place, None),
        &json!({ "hidden_dropout_prob": null, "classifier_dropout": null, "pad_token_id": null }),
    )?;
    ensure!((c.hidden_dropout_prob, c.classifier_dropout, c.pad_token_id) == (0.1, 0.1, 1), "{c:?}");
    // 8 key heads do not divide 4.
    wrong("mistral", json!({ "num_key_value_heads": null }), &["num_key_value_heads", "8"])?;
    let c = read("mistral", mistral::config, &json!({ "sliding_window": null }))?;
    ensure!(c.window(0) == Some(4096) && c.window(1) == Some(4096), "{c:?}");
    let c = read(
        "llama",
        llama::config,
        &json!({ "num_key_value_heads": null, "rope_parameters": null, "rope_theta": 77.0 }),
    )?;
    ensure!(c.num_key_value_heads == 4 && c.rope.theta == 77.0 && c.rope.kind == RopeType::Default, "{c:?}");
    let c = read("llama", llama::config, &json!({ "rope_parameters": null, "tie_word_embeddings": null }))?;
    ensure!(c.rope.theta == 10_000.0 && !c.tie_word_embeddings, "{c:?}");
    Ok(())
}

/// `attribute_map` of transformers: the general names are read, and count where both are there.
#[test]
fn gpt2s_sizes_by_either_name() -> Result<()> {
    let _serial = serial();
    let both = json!({ "num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16 });
    let c = read("gpt2", gpt2::config, &both)?;
    ensure!((c.n_layer, c.n_head, c.n_embd, c.n_positions) == (1, 2, 16, 64), "{c:?}");
    let general = json!({
        "n_layer": null, "n_head": null, "n_embd": null, "n_positions": null,
        "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "max_position_embeddings": 64
    });
    let dir = edited("gpt2", &general)?;
    assert_bits("general names", &logits(dir.path(), &batch())?, &logits(&golden("gpt2/base"), &batch())?)
}

#[test]
fn qwen2_windows_by_every_rule() -> Result<()> {
    let windows = |changes: Value| -> Result<[Option<i64>; 2]> {
        let c = read("qwen2", qwen2::config, &changes)?;
        Ok([c.window(0), c.window(1)])
    };
    let off = json!({ "layer_types": null, "sliding_window": 7, "max_window_layers": 0 });
    ensure!(windows(off)? == [None, None], "use_sliding_window is off");
    let on = |from: i64| json!({ "use_sliding_window": true, "sliding_window": 7, "max_window_layers": from, "layer_types": null });
    ensure!(windows(on(0))? == [Some(7), Some(7)] && windows(on(1))? == [None, Some(7)], "max_window_layers");
    ensure!(windows(on(28))? == [None, None], "beyond the layers");
    let each = json!({
        "use_sliding_window": true, "sliding_window": 7, "max_window_layers": 0,
        "layer_types": ["sliding_attention", "full_attention"]
    });
    ensure!(windows(each)? == [Some(7), None], "layer_types");
    Ok(())
}

fn logits(dir: &Path, batch: &Batch) -> Result<Tensor> {
    let peft = hub::open(dir, Device::Cpu, Head::Stored)?.peft;
    Ok(peft.view(&[])?.forward(batch, Pass::eval())?)
}

fn batch() -> Batch {
    tch::manual_seed(5);
    Batch::dense(Tensor::randint_low(3, 96, [3, 9], (Kind::Int64, Device::Cpu)))
}

/// The same model, as transformers 4 and 5 write its `config.json`.
#[test]
fn both_forms_of_rotary_fields() -> Result<()> {
    let _serial = serial();
    let five = json!({ "rope_parameters": { "rope_theta": 500.0, "rope_type": "linear", "factor": 4.0 }, "dtype": "float32" });
    let four = json!({
        "rope_parameters": null, "rope_theta": 500.0, "rope_scaling": { "type": "linear", "factor": 4.0 },
        "dtype": null, "torch_dtype": "float32"
    });
    let run = |changes: &Value| logits(edited("llama", changes)?.path(), &batch());
    assert_bits("linear", &run(&four)?, &run(&five)?)?;
    let plain = run(&json!({}))?;
    ensure!(!run(&five)?.equal(&plain), "scaling changes nothing");
    // A wavelength of llama3 is kept, divided or in between: far from the original length all are divided.
    let rope = |original: i64| {
        json!({ "rope_parameters": {
            "rope_theta": 500.0, "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": original
        } })
    };
    assert_close("all divided", &run(&rope(1))?, &run(&five)?, TOL)?;
    let theta = json!({ "rope_parameters": { "rope_theta": 500.0 } });
    assert_close("none divided", &run(&rope(1_000_000_000))?, &run(&theta)?, TOL)
}

/// A row of RoBERTa counts its own words, wherever its padding is.
#[test]
fn roberta_counts_words_and_not_padding() -> Result<()> {
    let _serial = serial();
    let model = hub::open(golden("roberta/base"), Device::Cpu, Head::Stored)?.peft.view(&[])?;
    let row = Tensor::from_slice(&[5i64, 40, 7, 90, 2]);
    let pads = Tensor::from_slice(&[1i64, 1, 1]);
    let own = model.forward(&Batch::dense(row.unsqueeze(0)), Pass::eval())?;
    let padded = Tensor::cat(&[&row, &pads], 0).unsqueeze(0);
    let mask = padded.ne(1).to_kind(Kind::Int64);
    let batch = Batch::masked(padded, mask);
    assert_close("padded", &model.forward(&batch, Pass::eval())?, &own, TOL)?;
    // 64 positions, the first two of which are not for words.
    let long = |n: i64| Batch::dense(Tensor::full([1, n], 5, (Kind::Int64, Device::Cpu)));
    drop(model.forward(&long(62), Pass::eval())?);
    refused("63 tokens", model.forward(&long(63), Pass::eval()), &["63 tokens", "64 positions"])?;
    Ok(())
}

/// An encoder as RoBERTa is published: a language-model head, no classifier.
#[test]
fn roberta_gets_a_fresh_head() -> Result<()> {
    let _serial = serial();
    let dir = edited("roberta", &json!({ "architectures": ["RobertaForMaskedLM"] }))?;
    let path = dir.path().join("model.safetensors");
    let mut all = tensors::read(&path)?;
    all.retain(|name, _| !name.starts_with("classifier."));
    all.insert("lm_head.bias".into(), Tensor::zeros([96], (Kind::Float, Device::Cpu)));
    tensors::write(&path, &all)?;
    let opened = hub::open(
        dir.path(),
        Device::Cpu,
        hub::Options { kind: Some(Kind::BFloat16), ..Head::Classes(5).into() },
    )?;
    ensure!(
        opened.unused == ["lm_head.bias"] && opened.fresh.len() == 4,
        "{:?} {:?}",
        opened.unused,
        opened.fresh
    );
    let logits = opened.peft.view(&[])?.forward(&batch(), Pass::eval())?;
    ensure!(logits.size() == [3, 5] && logits.kind() == Kind::BFloat16, "{logits:?}");

    let out = tempfile::tempdir()?;
    hub::save(&opened.peft, out.path(), None)?;
    let json = io::read_json(out.path().join("config.json"))?;
    ensure!(json["architectures"] == json!(["RobertaForSequenceClassification"]), "{json}");
    ensure!(json["id2label"]["4"] == "LABEL_4" && json["label2id"]["LABEL_4"] == 4, "{json}");
    ensure!(json["dtype"] == "bfloat16", "{json}");
    assert_bits("saved", &self::logits(out.path(), &batch())?, &logits)
}

/// Files of tied models with a head of their own.
fn second_head(family: &str, words: &str) -> Result<()> {
    let dir = edited(family, &json!({}))?;
    let path = dir.path().join("model.safetensors");
    let mut all = tensors::read(&path)?;
    let plain = logits(dir.path(), &batch())?;
    let embedding = all[words].copy();
    all.insert("lm_head.weight".into(), embedding.copy());
    tensors::write(&path, &all)?;
    let opened = hub::open(dir.path(), Device::Cpu, Head::Stored)?;
    ensure!(opened.unused == ["lm_head.weight"], "{:?}", opened.unused);
    assert_bits("the same head again", &logits(dir.path(), &batch())?, &plain)?;

    all.insert("lm_head.weight".into(), &embedding + 1.0);
    tensors::write(&path, &all)?;
    let parts = ["lm_head.weight", words, "tie_word_embeddings", "model.safetensors"];
    refused("another head", hub::open(dir.path(), Device::Cpu, Head::Stored), &parts)?;
    let untied = opened.peft.architecture().untied().context("it is tied")?;
    let own = Params::from_tensors("two heads", Device::Cpu, all.iter().map(|(n, t)| (n.clone(), t.copy())))?;
    let own = Peft::new(own, untied)?.view(&[])?.forward(&batch(), Pass::eval())?;
    ensure!(!own.allclose(&plain, 1e-3, 1e-3, false), "the head is not used");
    // Nor is a store with one too many taken.
    let both = Params::from_tensors("two heads", Device::Cpu, all)?;
    let error = refused("a store", opened.peft.over(both), &["lm_head.weight"])?;
    ensure!(matches!(error, Error::Unread { .. }), "{error:?}");
    Ok(())
}

#[test]
fn a_tied_head_is_never_another_one_in_silence() -> Result<()> {
    let _serial = serial();
    second_head("gpt2", "transformer.wte.weight")?;
    second_head("qwen2", "model.embed_tokens.weight")
}

#[test]
fn an_untied_model_needs_its_head() -> Result<()> {
    let dir = edited("qwen2", &json!({ "tie_word_embeddings": false }))?;
    let opened = hub::open(dir.path(), Device::Cpu, Head::Stored);
    refused("no head", opened, &["lm_head.weight", "[96, 32]"])?;
    Ok(())
}

/// What is saved is what was there: logits, names, and a configuration that differs where it has to.
fn saved(family: &str) -> Result<()> {
    let mut peft = hub::open(golden(family).join("base"), Device::Cpu, Head::Stored)?.peft;
    let random = json!({ "peft_type": "LORA", "init_lora_weights": false });
    peft.add("lora", methods::from_json(random, "a test")?)?;
    let merged = peft.merged(&["lora"])?;
    let out = tempfile::tempdir()?;
    hub::save(&merged, out.path(), None)?;
    let expected = merged.view(&[])?.forward(&batch(), Pass::eval())?;
    assert_bits("logits", &logits(out.path(), &batch())?, &expected)?;
    let names = |dir: &Path| -> Result<Vec<String>> {
        Ok(tensors::read(dir.join("model.safetensors"))?.into_keys().collect())
    };
    ensure!(names(out.path())? == names(&golden(family).join("base"))?, "other tensors");
    let config = |dir: &Path| io::read_json(dir.join("config.json"));
    let (ours, theirs) = (config(out.path())?, config(&golden(family).join("base"))?);
    ensure!(ours == theirs, "{ours:#}\nexpected\n{theirs:#}");
    Ok(())
}

#[test]
fn a_saved_base_is_read_again() -> Result<()> {
    let _serial = serial();
    saved("llama")?;
    saved("mistral")?;
    saved("qwen2")?;
    saved("gpt2")?;
    saved("bert")?;
    saved("roberta")
}

/// A trained copy of a tied head: the merge gives the model a head of its own, and its files say so.
#[test]
fn a_merge_that_unties_the_head_is_saved_untied() -> Result<()> {
    let _serial = serial();
    let mut peft = hub::open(golden("qwen2/base"), Device::Cpu, Head::Stored)?.peft;
    let lora = json!({ "peft_type": "LORA", "init_lora_weights": false, "modules_to_save": ["lm_head"] });
    peft.add("lora", methods::from_json(lora, "a test")?)?;
    let (name, head) =
        peft.trainable(&["lora"])?.into_iter().find(|(n, _)| n.contains("lm_head")).context("head")?;
    peft.params("lora")?.assign(&name, &tch::no_grad(|| &head + 0.5))?;
    let out = tempfile::tempdir()?;
    let source = edited("qwen2", &json!({}))?;
    std::fs::write(source.path().join("tokenizer.json"), "{}")?;
    hub::save(&peft.merged(&["lora"])?, out.path(), Some(source.path()))?;
    ensure!(std::fs::read(out.path().join("tokenizer.json"))? == b"{}", "no tokenizer");
    ensure!(!out.path().join("generation_config.json").exists(), "made up");
    ensure!(io::read_json(out.path().join("config.json"))?["tie_word_embeddings"] == false, "still tied");
    let expected = peft.view(&["lora"])?.forward(&batch(), Pass::eval())?;
    assert_close("logits", &logits(out.path(), &batch())?, &expected, TOL)
}

#[test]
fn a_dtype_is_chosen_at_opening() -> Result<()> {
    let _serial = serial();
    let open =
        |kind| hub::open(golden("llama/base"), Device::Cpu, hub::Options { kind, ..Head::Stored.into() });
    let half = open(Some(Kind::BFloat16))?.peft;
    ensure!(half.base().tensors().values().all(|t| t.kind() == Kind::BFloat16), "not all");
    let single = open(None)?.peft;
    let run = |peft: &Peft| peft.view(&[])?.forward(&batch(), Pass::eval());
    assert_close("logits", &run(&half)?, &run(&single)?, 0.05)?;
    let mut half = half;
    half.add("lora", LoraConfig::default())?;
    ensure!(half.trainable(&["lora"])?.iter().all(|(_, t)| t.kind() == Kind::Float), "adapters are f32");
    refused("integers", open(Some(Kind::Int64)), &["floats", "Int64"])?;
    Ok(())
}

/// Names of classes go through.
#[test]
fn classes_keep_their_names() -> Result<()> {
    let names = json!({ "id2label": { "0": "no", "1": "maybe", "2": "yes" }, "label2id": { "no": 0, "maybe": 1, "yes": 2 } });
    let dir = edited("bert", &names)?;
    let labels = |classes| -> Result<Vec<String>> { Ok(tests::bert_config(dir.path(), classes)?.labels) };
    ensure!(labels(None)? == ["no", "maybe", "yes"] && labels(Some(3))? == labels(None)?, "names");
    ensure!(labels(Some(2))?.is_empty(), "names of other classes");
    let out = tempfile::tempdir()?;
    hub::save(&hub::open(dir.path(), Device::Cpu, Head::Stored)?.peft, out.path(), None)?;
    let json = io::read_json(out.path().join("config.json"))?;
    ensure!(json["id2label"] == names["id2label"] && json["label2id"] == names["label2id"], "{json}");
    Ok(())
}
