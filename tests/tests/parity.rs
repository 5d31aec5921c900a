//! Numbers of Python PEFT 0.21.2 (`tests/golden`): logits, merged logits, loss, every gradient, files.

use anyhow::{Context, Result, ensure};
use peft_core::io::hub;
use peft_core::models::Bert;
use peft_core::train::cross_entropy;
use peft_core::{Batch, Model, Pass, Peft};
use serde_json::Value;
use std::path::Path;
use tch::{Device, Tensor};
use tests::{assert_close, golden, golden_tensors};

/// f32, relative to the largest value of the tensor.
const TOL: f64 = 1e-5;

fn base() -> Result<Peft<Bert>> {
    Ok(hub::open::<Bert>(&golden("bert/base"), Device::Cpu, hub::Head::Stored)?.peft)
}

fn check(method: &str, mergeable: bool) -> Result<()> {
    let dir = golden("bert").join(method);
    let g = golden_tensors(&dir)?;
    let batch = Batch { ids: g["input_ids"].copy(), mask: Some(g["attention_mask"].copy()) };
    let mut peft = base()?;
    assert_close("base logits", &peft.view(&[])?.forward(&batch, Pass::eval())?, &g["logits_base"], TOL)?;

    peft.load("golden", &dir)?;
    let view = peft.view(&["golden"])?;
    let logits = view.forward(&batch, Pass::train())?;
    assert_close("logits", &logits, &g["logits"], TOL)?;
    let loss = cross_entropy(&logits, &g["labels"])?;
    assert_close("loss", &loss.view([1]), &g["loss"], TOL)?;
    loss.backward();
    for (name, p) in peft.trainable(&["golden"])? {
        let expected =
            g.get(&format!("grad.{name}")).with_context(|| format!("no golden gradient of {name}"))?;
        assert_close(&format!("gradient of {name}"), &p.grad(), expected, TOL)?;
    }
    // PEFT stores the gradient of a prompt a second time, under its encoder.
    let gradients = g.keys().filter(|k| k.starts_with("grad.") && !k.starts_with("grad.encoder.")).count();
    ensure!(gradients == peft.trainable(&["golden"])?.len(), "{gradients} golden gradients");

    if mergeable {
        let merged = peft.merged(&["golden"])?;
        let logits = merged.view(&[])?.forward(&batch, Pass::eval())?;
        assert_close("merged logits", &logits, &g["logits_merged"], TOL)?;
    } else {
        let text = peft.merged(&["golden"]).err().context("merged")?.to_string();
        ensure!(text.contains("cannot be merged"), "{text}");
    }
    let meta = peft_core::io::read_json(&dir.join("meta.json"))?;
    ensure!(peft.report(&["golden"])?.to_string() == meta["print_trainable_parameters"], "{meta}");
    files(&peft, &dir)
}

/// What is written equals what was read, field by field and byte by byte.
fn files(peft: &Peft<Bert>, dir: &Path) -> Result<()> {
    let out = tempfile::tempdir()?;
    peft.save("golden", out.path())?;
    let read = |d: &Path, name| peft_core::io::read_json(&d.join(name));
    let set = |mut v: Value| {
        // These are sets in PEFT's memory: written in any order, and with duplicates at every save.
        for field in ["target_modules", "modules_to_save"] {
            if let Some(list) = v[field].as_array_mut() {
                list.sort_by_key(Value::to_string);
                list.dedup();
            }
        }
        v
    };
    let (ours, theirs) =
        (set(read(out.path(), "adapter_config.json")?), set(read(dir, "adapter_config.json")?));
    ensure!(ours == theirs, "config\n{ours:#}\nexpected\n{theirs:#}");
    let tensors = |d: &Path| peft_core::io::tensors::read(&d.join("adapter_model.safetensors"));
    let (ours, theirs) = (tensors(out.path())?, tensors(dir)?);
    ensure!(ours.keys().eq(theirs.keys()), "names");
    for (name, t) in &theirs {
        ensure!(ours[name].equal(t), "{name}");
    }
    Ok(())
}

#[test]
fn bert_lora() -> Result<()> {
    check("lora", true)
}

#[test]
fn bert_rslora() -> Result<()> {
    check("rslora", true)
}

#[test]
fn bert_lora_all_linear() -> Result<()> {
    check("lora_all_linear", true)
}

#[test]
fn bert_lora_modules_to_save() -> Result<()> {
    check("lora_mts", true)
}

#[test]
fn bert_prompt_tuning() -> Result<()> {
    check("prompt", false)
}

#[test]
fn bert_prefix_tuning() -> Result<()> {
    check("prefix", false)
}

#[test]
fn all_linear_finds_what_peft_finds() -> Result<()> {
    let dir = golden("bert/lora_all_linear");
    let mut peft = base()?;
    let config = peft_core::methods::LoraConfig {
        r: 2,
        lora_alpha: 4.0,
        target_modules: Some(peft_core::target::Names::Pattern("all-linear".into())),
        common: peft_core::methods::Common::classifier(),
        ..Default::default()
    };
    peft.add("mine", config)?;
    let theirs = peft_core::io::tensors::read(&dir.join("adapter_model.safetensors"))?;
    let ours: Vec<String> = peft.params("mine")?.tensors().into_keys().collect();
    ensure!(ours.iter().eq(theirs.keys()), "{ours:?}");
    Ok(())
}

#[test]
fn a_padded_row_is_what_it_is_alone() -> Result<()> {
    let g = golden_tensors(&golden("bert/lora"))?;
    let mut peft = base()?;
    peft.load("golden", golden("bert/lora"))?;
    let view = peft.view(&["golden"])?;
    let (ids, mask): (&Tensor, &Tensor) = (&g["input_ids"], &g["attention_mask"]);
    let together = view.forward(&Batch { ids: ids.copy(), mask: Some(mask.copy()) }, Pass::eval())?;
    for row in 0..ids.size()[0] {
        let length = mask.get(row).sum(tch::Kind::Int64).int64_value(&[]);
        let alone = Batch::dense(ids.get(row).narrow(0, 0, length).unsqueeze(0));
        assert_close("row", &view.forward(&alone, Pass::eval())?, &together.narrow(0, row, 1), TOL)?;
    }
    Ok(())
}
