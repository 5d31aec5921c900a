//! The model families against transformers and PEFT, what their `config.json` may say, and what is written of them.

use anyhow::{Context, Result, ensure};
use peft_core::hub;
use peft_core::hub::{Head, HubModel};
use peft_core::io;
use peft_core::io::tensors;
use peft_core::methods;
use peft_core::methods::LoraConfig;
use peft_core::models::{Bert, EncoderConfig, Gpt2, Llama, Mistral, Qwen2, Roberta, RopeType};
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
fn config<M: HubModel>(changes: &Value) -> Result<peft_core::Result<M::Config>> {
    let dir = edited(M::MODEL_TYPE, changes)?;
    Ok(hub::config::<M>(dir.path(), Head::Stored))
}

fn wrong<M: HubModel>(changes: Value, parts: &[&str]) -> Result<()> {
    refused(&changes.to_string(), config::<M>(&changes)?, &[parts, &["config.json"]].concat())?;
    Ok(())
}

#[test]
fn what_a_decoder_has_not_is_refused_by_name() -> Result<()> {
    for kind in ["longrope", "su", "mrope", "proportional"] {
        let rope = json!({ "rope_type": kind, "factor": 2.0 });
        wrong::<Llama>(
            json!({ "rope_parameters": rope }),
            &["rope_parameters", "rope_type", kind, "llama3"],
        )?;
        let rope = json!({ "type": kind, "factor": 2.0 });
        wrong::<Mistral>(json!({ "rope_scaling": rope }), &["rope_scaling", kind])?;
    }
    wrong::<Llama>(
        json!({ "rope_parameters": { "mrope_section": [1, 2] } }),
        &["rope_parameters", "mrope_section"],
    )?;
    wrong::<Llama>(json!({ "rope_parameters": { "rope_type": "linear" } }), &["factor", "missing"])?;
    wrong::<Llama>(json!({ "rope_scaling": { "type": "linear", "factor": 0.0 } }), &["factor", "above 0"])?;
    wrong::<Llama>(json!({ "partial_rotary_factor": 0.5 }), &["partial_rotary_factor", "0.5"])?;
    wrong::<Llama>(
        json!({ "rope_parameters": { "partial_rotary_factor": 0.5 } }),
        &["partial_rotary_factor"],
    )?;
    wrong::<Llama>(json!({ "rope_parameters": { "rope_theta": -1.0 } }), &["rope_theta", "-1"])?;
    wrong::<Llama>(json!({ "num_key_value_heads": 3 }), &["num_key_value_heads", "3", "4"])?;
    // A size that no memory holds is no reason to die.
    let dir = edited("mistral", &json!({ "num_hidden_layers": i64::MAX }))?;
    let opened = hub::open::<Mistral>(dir.path(), Device::Cpu, Head::Stored);
    refused("layers", opened, &["model.layers.2.", "no tensor"])?;
    wrong::<Llama>(json!({ "head_dim": 7 }), &["head_dim", "7", "odd"])?;
    wrong::<Llama>(json!({ "hidden_act": "mish" }), &["hidden_act", "mish"])?;
    wrong::<Mistral>(json!({ "sliding_window": 0 }), &["sliding_window", "0"])?;
    wrong::<Mistral>(json!({ "layer_types": ["full_attention", "full_attention"] }), &["layer_types"])?;
    wrong::<Qwen2>(json!({ "layer_types": ["full_attention"] }), &["layer_types", "1 layers of 2"])?;
    let mixed = ["full_attention", "chunked_attention"];
    wrong::<Qwen2>(json!({ "layer_types": mixed }), &["layer_types", "chunked_attention"])?;
    let mixed = ["full_attention", "sliding_attention"];
    wrong::<Qwen2>(json!({ "layer_types": mixed }), &["layer_types", "sliding_window"])?;
    wrong::<Llama>(json!({ "rms_norm_eps": -1.0 }), &["rms_norm_eps", "below 0", "-1"])?;
    wrong::<Llama>(
        json!({ "rms_norm_eps": { "__float__": "NaN" } }),
        &["rms_norm_eps: NaN", "no finite number"],
    )?;
    wrong::<Gpt2>(json!({ "layer_norm_epsilon": -1e-5 }), &["layer_norm_epsilon", "below 0"])?;
    wrong::<Gpt2>(json!({ "num_hidden_layers": 0 }), &["num_hidden_layers", "positive"])?;
    wrong::<Gpt2>(json!({ "n_layer": null }), &["n_layer", "missing"])?;
    wrong::<Gpt2>(json!({ "scale_attn_by_inverse_layer_idx": true }), &["scale_attn_by_inverse_layer_idx"])?;
    wrong::<Gpt2>(json!({ "n_head": 5 }), &["n_embd", "32", "5"])
}

#[test]
fn what_an_encoder_has_not_is_refused_by_name() -> Result<()> {
    wrong::<Roberta>(json!({ "add_cross_attention": true }), &["add_cross_attention"])?;
    wrong::<Roberta>(json!({ "is_decoder": true }), &["is_decoder"])?;
    wrong::<Roberta>(json!({ "pad_token_id": 96 }), &["pad_token_id", "96"])?;
    wrong::<Roberta>(json!({ "position_embedding_type": "relative_key" }), &["position_embedding_type"])?;
    // As many classes as transformers counts, which the file's head has not.
    for (changes, asked) in
        [(json!({ "id2label": { "0": "a", "2": "b" } }), "[2, 32]"), (json!({ "num_labels": 5 }), "[5, 32]")]
    {
        let opened = hub::open::<Bert>(edited("bert", &changes)?.path(), Device::Cpu, Head::Stored);
        let parts = ["classifier.weight", asked, "[3, 32]", "id2label", "num_labels", "config.json"];
        refused(&changes.to_string(), opened, &parts)?;
    }
    wrong::<Bert>(json!({ "layer_norm_eps": -1.0 }), &["layer_norm_eps", "below 0"])?;
    wrong::<Bert>(json!({ "hidden_dropout_prob": 1.5 }), &["hidden_dropout_prob", "1.5"])
}

/// Fields that transformers leaves out have its defaults.
#[test]
fn missing_fields_have_transformers_defaults() -> Result<()> {
    let c =
        config::<Gpt2>(&json!({ "resid_pdrop": null, "attn_pdrop": null, "tie_word_embeddings": null }))??;
    ensure!((c.resid_pdrop, c.attn_pdrop, c.embd_pdrop) == (0.1, 0.1, 0.0) && c.tie_word_embeddings, "{c:?}");
    ensure!(c.n_inner == 128, "{c:?}");
    let c = config::<Roberta>(
        &json!({ "hidden_dropout_prob": null, "classifier_dropout": null, "pad_token_id": null }),
    )??;
    ensure!((c.hidden_dropout_prob, c.classifier_dropout, c.pad_token_id) == (0.1, 0.1, 1), "{c:?}");
    // 8 key heads do not divide 4.
    wrong::<Mistral>(json!({ "num_key_value_heads": null }), &["num_key_value_heads", "8"])?;
    let c = config::<Mistral>(&json!({ "sliding_window": null }))??;
    ensure!(c.window(0) == Some(4096) && c.window(1) == Some(4096), "{c:?}");
    let c = config::<Llama>(
        &json!({ "num_key_value_heads": null, "rope_parameters": null, "rope_theta": 77.0 }),
    )??;
    ensure!(c.num_key_value_heads == 4 && c.rope.theta == 77.0 && c.rope.kind == RopeType::Default, "{c:?}");
    let c = config::<Llama>(&json!({ "rope_parameters": null, "tie_word_embeddings": null }))??;
    ensure!(c.rope.theta == 10_000.0 && !c.tie_word_embeddings, "{c:?}");
    Ok(())
}

/// `attribute_map` of transformers: the general names are read, and count where both are there.
#[test]
fn gpt2s_sizes_by_either_name() -> Result<()> {
    let both = json!({ "num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16 });
    let c = config::<Gpt2>(&both)??;
    ensure!((c.n_layer, c.n_head, c.n_embd, c.n_positions) == (1, 2, 16, 64), "{c:?}");
    let general = json!({
        "n_layer": null, "n_head": null, "n_embd": null, "n_positions": null,
        "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "max_position_embeddings": 64
    });
    let dir = edited("gpt2", &general)?;
    assert_bits(
        "general names",
        &logits::<Gpt2>(dir.path(), &batch())?,
        &logits::<Gpt2>(&golden("gpt2/base"), &batch())?,
    )
}

#[test]
fn qwen2_windows_by_every_rule() -> Result<()> {
    let windows = |changes: Value| -> Result<[Option<i64>; 2]> {
        let c = config::<Qwen2>(&changes)??;
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

fn logits<M: HubModel>(dir: &Path, batch: &Batch) -> Result<Tensor> {
    let peft = hub::open::<M>(dir, Device::Cpu, Head::Stored)?.peft;
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
    let run = |changes: &Value| logits::<Llama>(edited("llama", changes)?.path(), &batch());
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
    let model = hub::open::<Roberta>(&golden("roberta/base"), Device::Cpu, Head::Stored)?.peft.view(&[])?;
    let row = Tensor::from_slice(&[5i64, 40, 7, 90, 2]);
    let pads = Tensor::from_slice(&[1i64, 1, 1]);
    let own = model.forward(&Batch::dense(row.unsqueeze(0)), Pass::eval())?;
    let padded = Tensor::cat(&[&row, &pads], 0).unsqueeze(0);
    let mask = padded.ne(1).to_kind(Kind::Int64);
    let batch = Batch { ids: padded, mask: Some(mask), token_types: None };
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
    let opened = hub::open::<Roberta>(
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
    let json = io::read_json(&out.path().join("config.json"))?;
    ensure!(json["architectures"] == json!(["RobertaForSequenceClassification"]), "{json}");
    ensure!(json["id2label"]["4"] == "LABEL_4" && json["label2id"]["LABEL_4"] == 4, "{json}");
    ensure!(json["dtype"] == "bfloat16", "{json}");
    assert_bits("saved", &self::logits::<Roberta>(out.path(), &batch())?, &logits)
}

/// Files of tied models with a head of their own.
fn second_head<M: HubModel>(family: &str, words: &str) -> Result<()> {
    let dir = edited(family, &json!({}))?;
    let path = dir.path().join("model.safetensors");
    let mut all = tensors::read(&path)?;
    let plain = logits::<M>(dir.path(), &batch())?;
    let embedding = all[words].copy();
    all.insert("lm_head.weight".into(), embedding.copy());
    tensors::write(&path, &all)?;
    let opened = hub::open::<M>(dir.path(), Device::Cpu, Head::Stored)?;
    ensure!(opened.unused == ["lm_head.weight"], "{:?}", opened.unused);
    assert_bits("the same head again", &logits::<M>(dir.path(), &batch())?, &plain)?;

    all.insert("lm_head.weight".into(), &embedding + 1.0);
    tensors::write(&path, &all)?;
    let parts = ["lm_head.weight", words, "tie_word_embeddings", "model.safetensors"];
    refused("another head", hub::open::<M>(dir.path(), Device::Cpu, Head::Stored), &parts)?;
    let untied = M::untied(opened.peft.config());
    let own = Params::from_tensors("two heads", Device::Cpu, all.iter().map(|(n, t)| (n.clone(), t.copy())))?;
    let own = Peft::<M>::new(own, untied)?.view(&[])?.forward(&batch(), Pass::eval())?;
    ensure!(!own.allclose(&plain, 1e-3, 1e-3, false), "the head is not used");
    // Nor is a store with one too many taken.
    let both = Params::from_tensors("two heads", Device::Cpu, all)?;
    let error = refused("a store", Peft::<M>::new(both, opened.peft.config().clone()), &["lm_head.weight"])?;
    ensure!(matches!(error, Error::Unread { .. }), "{error:?}");
    Ok(())
}

#[test]
fn a_tied_head_is_never_another_one_in_silence() -> Result<()> {
    let _serial = serial();
    second_head::<Gpt2>("gpt2", "transformer.wte.weight")?;
    second_head::<Qwen2>("qwen2", "model.embed_tokens.weight")
}

#[test]
fn an_untied_model_needs_its_head() -> Result<()> {
    let dir = edited("qwen2", &json!({ "tie_word_embeddings": false }))?;
    let opened = hub::open::<Qwen2>(dir.path(), Device::Cpu, Head::Stored);
    refused("no head", opened, &["lm_head.weight", "[96, 32]"])?;
    Ok(())
}

/// What is saved is what was there: logits, names, and a configuration that differs where it has to.
fn saved<M: HubModel>(family: &str) -> Result<()> {
    let mut peft = hub::open::<M>(&golden(family).join("base"), Device::Cpu, Head::Stored)?.peft;
    let random = json!({ "peft_type": "LORA", "init_lora_weights": false });
    peft.add("lora", methods::from_json(random, "a test")?)?;
    let merged = peft.merged(&["lora"])?;
    let out = tempfile::tempdir()?;
    hub::save(&merged, out.path(), None)?;
    let expected = merged.view(&[])?.forward(&batch(), Pass::eval())?;
    assert_bits("logits", &logits::<M>(out.path(), &batch())?, &expected)?;
    let names = |dir: &Path| -> Result<Vec<String>> {
        Ok(tensors::read(&dir.join("model.safetensors"))?.into_keys().collect())
    };
    ensure!(names(out.path())? == names(&golden(family).join("base"))?, "other tensors");
    let config = |dir: &Path| io::read_json(&dir.join("config.json"));
    let (ours, theirs) = (config(out.path())?, config(&golden(family).join("base"))?);
    ensure!(ours == theirs, "{ours:#}\nexpected\n{theirs:#}");
    Ok(())
}

#[test]
fn a_saved_base_is_read_again() -> Result<()> {
    let _serial = serial();
    saved::<Llama>("llama")?;
    saved::<Mistral>("mistral")?;
    saved::<Qwen2>("qwen2")?;
    saved::<Gpt2>("gpt2")?;
    saved::<Bert>("bert")?;
    saved::<Roberta>("roberta")
}

/// A trained copy of a tied head: the merge gives the model a head of its own, and its files say so.
#[test]
fn a_merge_that_unties_the_head_is_saved_untied() -> Result<()> {
    let _serial = serial();
    let mut peft = hub::open::<Qwen2>(&golden("qwen2/base"), Device::Cpu, Head::Stored)?.peft;
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
    ensure!(io::read_json(&out.path().join("config.json"))?["tie_word_embeddings"] == false, "still tied");
    let expected = peft.view(&["lora"])?.forward(&batch(), Pass::eval())?;
    assert_close("logits", &logits::<Qwen2>(out.path(), &batch())?, &expected, TOL)
}

#[test]
fn a_dtype_is_chosen_at_opening() -> Result<()> {
    let _serial = serial();
    let open = |kind| {
        hub::open::<Llama>(&golden("llama/base"), Device::Cpu, hub::Options { kind, ..Head::Stored.into() })
    };
    let half = open(Some(Kind::BFloat16))?.peft;
    ensure!(half.base().tensors().values().all(|t| t.kind() == Kind::BFloat16), "not all");
    let single = open(None)?.peft;
    let run = |peft: &Peft<Llama>| peft.view(&[])?.forward(&batch(), Pass::eval());
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
    let labels = |head| -> Result<Vec<String>> {
        let EncoderConfig { labels, .. } = hub::config::<Bert>(dir.path(), head)?;
        Ok(labels)
    };
    ensure!(
        labels(Head::Stored)? == ["no", "maybe", "yes"] && labels(Head::Classes(3))? == labels(Head::Stored)?,
        "names"
    );
    ensure!(labels(Head::Fresh(2))?.is_empty(), "names of other classes");
    let out = tempfile::tempdir()?;
    hub::save(&hub::open::<Bert>(dir.path(), Device::Cpu, Head::Stored)?.peft, out.path(), None)?;
    let json = io::read_json(&out.path().join("config.json"))?;
    ensure!(json["id2label"] == names["id2label"] && json["label2id"] == names["label2id"], "{json}");
    Ok(())
}
