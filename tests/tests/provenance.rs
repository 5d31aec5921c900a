//! Adapters that know their base.

use anyhow::{Context, Result, ensure};
use peft_core::hub::{self, Head, Options};
use peft_core::io::{self, IfExists, adapter, tensors};
use peft_core::methods::LoraConfig;
use peft_core::provenance::{OtherBase, Provenance};
use peft_core::quant::Nf4Config;
use peft_core::{Peft, TaskType};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;
use tests::{copied, golden, refused, serial};

const Q: &str = "model.layers.0.self_attn.q_proj.weight";

fn open_as(dir: impl AsRef<Path>, options: impl Into<Options>) -> Result<Peft> {
    Ok(hub::open(dir, Device::Cpu, options)?.peft)
}

fn open(dir: impl AsRef<Path>) -> Result<Peft> {
    open_as(dir, Head::Stored)
}

fn cast(kind: Kind) -> Options {
    Options { kind: Some(kind), ..Head::Stored.into() }
}

fn packed(double_quant: bool) -> Options {
    Options { quantise: Some(Nf4Config { double_quant, ..Nf4Config::default() }), ..Head::Stored.into() }
}

fn lora() -> LoraConfig {
    LoraConfig::new(2).targets(["q_proj", "v_proj"])
}

/// An adapter for a base, saved with what that base is.
fn saved(mut peft: Peft, config: LoraConfig) -> Result<TempDir> {
    peft.add("a", config)?;
    let dir = tempfile::tempdir()?;
    let made = peft.provenance("a")?;
    peft.save_with_provenance("a", dir.path(), IfExists::Refuse, &made)?;
    Ok(dir)
}

/// A llama with tensors changed, or left out of one file and put into another.
fn changed(change: impl FnOnce(&mut BTreeMap<String, Tensor>) -> Result<()>) -> Result<TempDir> {
    let dir = copied(&golden("llama/base"))?;
    let path = dir.path().join("model.safetensors");
    let mut all = tensors::read(&path)?;
    change(&mut all)?;
    tensors::write(&path, &all)?;
    Ok(dir)
}

/// The tensor with one value changed, in its last bits.
fn nudged(name: &str) -> Result<TempDir> {
    changed(|all| {
        let t = all.get(name).context("no such tensor")?;
        let new = t.copy();
        let mut one = new.view([-1]).narrow(0, 5, 1);
        let _ = one.g_mul_scalar_(1.0 + 1e-6);
        ensure!(!new.equal(t), "nothing was changed");
        all.insert(name.to_owned(), new);
        Ok(())
    })
}

fn loaded(mut peft: Peft, dir: &Path) -> Result<Vec<String>> {
    Ok(peft.load("b", dir)?.iter().map(ToString::to_string).collect())
}

fn quiet(what: &str, peft: Peft, dir: &Path) -> Result<()> {
    let said = loaded(peft, dir).with_context(|| what.to_owned())?;
    ensure!(said.is_empty(), "{what}: {said:?}");
    Ok(())
}

fn warned(what: &str, peft: Peft, dir: &Path, parts: &[&str]) -> Result<()> {
    let said = loaded(peft, dir).with_context(|| what.to_owned())?;
    ensure!(said.len() == 1 && parts.iter().all(|p| said[0].contains(p)), "{what}: {said:?}");
    Ok(())
}

/// Catches a base that is taken for another one, or another one for it.
#[test]
fn an_adapter_is_for_its_base() -> Result<()> {
    let _serial = serial();
    let base = golden("llama/base");
    let dir = saved(open(&base)?, lora())?;
    quiet("the same", open(&base)?, dir.path())?;

    let sharded = changed(|_| Ok(()))?;
    let all = tensors::read(sharded.path().join("model.safetensors"))?;
    std::fs::remove_file(sharded.path().join("model.safetensors"))?;
    let mut map = serde_json::Map::new();
    for (i, name) in
        ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"].iter().enumerate()
    {
        let half = all
            .iter()
            .enumerate()
            .filter(|(k, _)| k % 2 == i)
            .map(|(_, (n, t))| (n.clone(), t.shallow_clone()));
        let half: BTreeMap<String, Tensor> = half.collect();
        map.extend(half.keys().map(|n| (n.clone(), Value::from(*name))));
        tensors::write(sharded.path().join(name), &half)?;
    }
    io::write_json(sharded.path().join("model.safetensors.index.json"), &json!({ "weight_map": map }))?;
    quiet("in shards", open(sharded.path())?, dir.path())?;

    let other = nudged("model.layers.0.mlp.up_proj.weight")?;
    quiet("another tensor where the adapter is not", open(other.path())?, dir.path())?;
    let other = nudged(Q)?;
    let parts = [adapter::PROVENANCE, "made for", "another base", "1 of", "other values", Q, "--force"];
    refused("one value in its last bits", open(other.path())?.load("b", dir.path()), &parts)?;

    let mut merged = open(&base)?;
    merged.load("a", golden("llama/lora"))?;
    refused("merged", merged.merged(&["a"])?.load("b", dir.path()), &["another base", Q])?;
    refused("of another kind", open(golden("gpt2/base"))?.load("b", dir.path()), &["are not there", Q])?;
    Ok(())
}

/// Catches a dtype that makes another base of one, and one that hides another base.
#[test]
fn another_dtype_is_said_and_another_base_in_it_is_refused() -> Result<()> {
    let _serial = serial();
    let base = golden("llama/base");
    let other = changed(|all| {
        let q = all.get(Q).context("no q")?;
        all.insert(Q.into(), q * 1.1);
        Ok(())
    })?;
    for kind in [Kind::BFloat16, Kind::Half] {
        let what = format!("{kind:?}");
        let full = saved(open(&base)?, lora())?;
        warned(
            &what,
            open_as(&base, cast(kind))?,
            full.path(),
            &["the base is the adapter's", "were F32", Q],
        )?;
        refused(&what, open_as(other.path(), cast(kind))?.load("b", full.path()), &["other values", Q])?;
        let half = saved(open_as(&base, cast(kind))?, lora())?;
        quiet(&what, open_as(&base, cast(kind))?, half.path())?;
        warned(&what, open(&base)?, half.path(), &["the base is the adapter's", "are F32 here", Q])?;
        refused(&what, open(other.path())?.load("b", half.path()), &["other values", Q])?;
    }
    Ok(())
}

/// Catches codes that are compared with dense weights, and scales that are left out.
#[test]
fn a_base_in_4_bits_is_told_from_another() -> Result<()> {
    let _serial = serial();
    for (base, config) in [("llama/base", lora()), ("gpt2/base", LoraConfig::new(2).targets(["c_attn"]))] {
        let base = golden(base);
        let dense = saved(open(&base)?, config.clone())?;
        for double in [false, true] {
            let dir = saved(open_as(&base, packed(double))?, config.clone())?;
            quiet("the same", open_as(&base, packed(double))?, dir.path())?;
            warned(
                "dense",
                open(&base)?,
                dir.path(),
                &["the base is the adapter's", "are F32 here and were NF4"],
            )?;
            let parts = ["cannot be told", "were F32"];
            warned("from dense", open_as(&base, packed(double))?, dense.path(), &parts)?;
            let parts = ["cannot be told", "NF4_DOUBLE"];
            warned("the other form", open_as(&base, packed(!double))?, dir.path(), &parts)?;
        }
    }
    let dir = saved(open_as(golden("llama/base"), packed(false))?, lora())?;
    // All codes are the same: only the scales differ.
    let other = changed(|all| {
        let q = all.get(Q).context("no q")?;
        all.insert(Q.into(), q * 2.0);
        Ok(())
    })?;
    refused("scales", open_as(other.path(), packed(false))?.load("b", dir.path()), &["other values", Q])?;
    refused("scales, dense", open(other.path())?.load("b", dir.path()), &["other values", Q])?;
    Ok(())
}

/// Catches a way around that says nothing, and one that adds half of a folder.
#[test]
fn another_base_is_accepted_where_that_is_said() -> Result<()> {
    let _serial = serial();
    let dir = saved(open(golden("llama/base"))?, lora())?;
    let other = nudged(Q)?;
    let mut peft = open(other.path())?;
    refused("by itself", peft.load_all(dir.path()), &["another base"])?;
    ensure!(peft.names().is_empty(), "{:?}", peft.names());
    let loaded = peft.load_all_with(dir.path(), OtherBase::accept(true))?;
    ensure!(loaded.names == ["default"] && loaded.warnings.len() == 1, "{loaded:?}");
    ensure!(loaded.warnings[0].to_string().contains("another base: 1 of"), "{loaded:?}");
    let warnings = peft.load_with("b", dir.path(), OtherBase::Accept)?;
    ensure!(warnings == loaded.warnings, "{warnings:?}");
    Ok(())
}

/// Catches files that are no longer PEFT's, and a file that outlives its adapter.
#[test]
fn the_files_of_peft_stay_as_they_are() -> Result<()> {
    let _serial = serial();
    let mut peft = open(golden("llama/base"))?;
    peft.add("a", lora())?;
    let (plain, with) = (tempfile::tempdir()?, tempfile::tempdir()?);
    peft.save("a", plain.path())?;
    let made = peft.provenance("a")?.recipe(json!({ "lr": 1e-3 })).version("libtorch", "2.11.0");
    peft.save_with_provenance("a", with.path(), IfExists::Refuse, &made)?;
    for name in [adapter::CONFIG, adapter::TENSORS] {
        let [a, b] = [&plain, &with].map(|dir| std::fs::read(dir.path().join(name)));
        ensure!(a? == b?, "{name}");
    }
    let files = |dir: &TempDir| Ok::<_, std::io::Error>(std::fs::read_dir(dir.path())?.count());
    ensure!(files(&plain)? == 2 && files(&with)? == 3);
    ensure!(Provenance::read(plain.path())?.is_none());
    let back = Provenance::read(with.path())?.context("none")?;
    ensure!(back == made && back.recipe["lr"] == 1e-3 && back.versions["libtorch"] == "2.11.0", "{back:?}");
    let layers = peft.outline().sites.iter().filter(|s| s.name.ends_with("q_proj")).count();
    ensure!(back.base.model_type == "llama" && back.base.tensors.len() == 2 * layers, "{back:?}");
    // Neither a copy nor a plain save says what it was not told.
    peft.load("b", with.path())?;
    peft.save_with("b", with.path(), IfExists::Replace)?;
    ensure!(files(&with)? == 2 && Provenance::read(with.path())?.is_none(), "a stale file");
    Ok(())
}

/// Catches a head that was drawn, or what the adapter's own file has, among what the base is known by.
#[test]
fn what_the_adapter_has_itself_is_not_the_bases() -> Result<()> {
    let _serial = serial();
    let names = ["cold", "tepid", "warm"];
    let config = LoraConfig::new(2).targets(["query"]).task(TaskType::SeqCls);
    tch::manual_seed(1);
    let dir = saved(open_as(golden("bert/base"), Options::named(names))?, config)?;
    let made = Provenance::read(dir.path())?.context("none")?;
    ensure!(made.base.tensors.keys().all(|name| name.contains("query")), "{:?}", made.base.tensors.keys());
    ensure!(made.base.tensors.keys().any(|name| name.ends_with("bias")), "biases of adapted layers");
    Ok(())
}

/// Catches a method that is known by nothing of its base.
#[test]
fn every_method_knows_its_base() -> Result<()> {
    let _serial = serial();
    for family in ["llama", "gpt2", "bert"] {
        let base = golden(family).join("base");
        for entry in std::fs::read_dir(golden(family))? {
            let from = entry?.path();
            if !from.join(adapter::CONFIG).exists() {
                continue;
            }
            let what = from.display().to_string();
            let mut peft = open(&base)?;
            if peft.load("a", &from).is_err() {
                continue; // it is for a head of its own
            }
            let made = peft.provenance("a")?;
            ensure!(!made.base.tensors.is_empty(), "{what}");
            let dir = tempfile::tempdir()?;
            peft.save_with_provenance("a", dir.path(), IfExists::Refuse, &made)?;
            let said = open(&base)?.load("a", dir.path())?;
            ensure!(said.iter().all(|w| !w.place.ends_with(adapter::PROVENANCE)), "{what}: {said:?}");
        }
    }
    Ok(())
}

/// Catches a damaged file that is taken for another base, or for none.
#[test]
fn a_damaged_file_is_said() -> Result<()> {
    let _serial = serial();
    let dir = saved(open(golden("llama/base"))?, lora())?;
    let path = dir.path().join(adapter::PROVENANCE);
    let whole = io::read_json(&path)?;
    let with = |pointer: &str, value: Value| -> Result<Value> {
        let mut json = whole.clone();
        *json.pointer_mut(pointer).context("no such place")? = value;
        Ok(json)
    };
    for (what, json, parts) in [
        ("version", with("/format", json!(2))?, ["format", "is 2"]),
        ("no version", with("/format", json!("x"))?, ["format", "is none"]),
        (
            "a hash",
            with(&format!("/base/tensors/{Q}/sha256"), json!("0000000000000000"))?,
            ["fingerprint", "damaged"],
        ),
        ("a type", with("/base/tensors", json!([1]))?, ["base.tensors", "map"]),
        ("a shape", with(&format!("/base/tensors/{Q}/shape"), json!(["x"]))?, ["base.tensors", "shape"]),
    ] {
        io::write_json(&path, &json)?;
        let parts = [adapter::PROVENANCE, parts[0], parts[1]];
        refused(what, open(golden("llama/base"))?.load("b", dir.path()), &parts)?;
        refused(what, Provenance::read(dir.path()), &parts)?;
        let said = open(golden("llama/base"))?.load_with("b", dir.path(), OtherBase::Accept)?;
        ensure!(said.len() == 1 && said[0].message.contains("is not compared"), "{what}: {said:?}");
    }
    std::fs::write(&path, "[]")?;
    refused(
        "a list",
        open(golden("llama/base"))?.load("b", dir.path()),
        &[adapter::PROVENANCE, "expected an object"],
    )?;
    Ok(())
}

/// Catches a tokenizer that is another one in silence.
#[test]
fn the_tokenizer_is_known() -> Result<()> {
    let _serial = serial();
    let dir = copied(&golden("llama/base"))?;
    let file = dir.path().join("tokenizer.json");
    let mut peft = open(dir.path())?;
    peft.add("a", lora())?;
    ensure!(peft.provenance("a")?.tokenizer_of(dir.path())?.tokenizer.is_none(), "none is there");
    std::fs::write(&file, "{}")?;
    let made = peft.provenance("a")?.tokenizer_of(dir.path())?;
    let expected = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"; // of "{}"
    ensure!(made.tokenizer.as_deref() == Some(expected), "{made:?}");
    ensure!(made.check_tokenizer(dir.path())?.is_none());
    std::fs::write(&file, "{ }")?;
    let said = made.check_tokenizer(dir.path())?.context("not said")?.to_string();
    ensure!(said.contains("tokenizer.json") && said.contains("another one"), "{said}");
    Ok(())
}
