//! What is there stays unless it may be overwritten, and places to write to are tried without a trace.

use anyhow::{Context, Result, ensure};
use peft_core::Error;
use peft_core::hub;
use peft_core::hub::Head;
use peft_core::io::{IfExists, adapter};
use std::fs;
use std::path::Path;
use tch::Device;
use tests::subject::lora;
use tests::{golden, refused, serial};

/// Refused as being there, with what was there as it was.
fn kept<T>(what: &str, dir: &Path, result: peft_core::Result<T>, parts: &[&str]) -> Result<()> {
    let parts: Vec<&str> = parts.iter().chain(&["is there already", "--overwrite"]).copied().collect();
    let error = refused(what, result, &parts)?;
    ensure!(matches!(error, Error::Occupied { .. }), "{what}: {error:?}");
    let hidden = |e: &fs::DirEntry| e.file_name().to_string_lossy().starts_with('.');
    ensure!(!fs::read_dir(dir)?.flatten().any(|e| hidden(&e)), "{what}: something is left");
    Ok(())
}

#[test]
fn an_adapter_is_overwritten_when_that_is_said() -> Result<()> {
    let _serial = serial();
    let dir = tempfile::tempdir()?;
    let [one, two] = [lora(2, 3.0, 5)?, lora(4, 3.0, 6)?];
    one.save("a", dir.path())?;
    let before = fs::read(dir.path().join(adapter::TENSORS))?;
    kept("twice", dir.path(), two.save("a", dir.path()), &["an adapter", adapter::CONFIG])?;
    ensure!(fs::read(dir.path().join(adapter::TENSORS))? == before, "another adapter");
    two.save_with("a", dir.path(), IfExists::Replace)?;
    ensure!(fs::read(dir.path().join(adapter::TENSORS))? != before, "the old adapter");

    // Half of one is one.
    fs::remove_file(dir.path().join(adapter::CONFIG))?;
    kept("tensors", dir.path(), one.save("a", dir.path()), &["an adapter", adapter::TENSORS])?;
    fs::remove_file(dir.path().join(adapter::TENSORS))?;
    fs::write(dir.path().join("adapter_model.bin"), "PK")?;
    kept("a pickle", dir.path(), one.save("a", dir.path()), &["an adapter", "adapter_model.bin"])?;
    Ok(())
}

#[test]
fn of_several_adapters_all_are_written_or_none() -> Result<()> {
    let _serial = serial();
    let dir = tempfile::tempdir()?;
    let mut peft = lora(2, 3.0, 5)?;
    peft.copy("a", "b")?;
    peft.save("b", dir.path().join("b"))?;
    kept("the second", dir.path(), peft.save_all(dir.path()), &["b/adapter_config.json"])?;
    ensure!(!dir.path().join("a").join(adapter::CONFIG).exists(), "the first is written");
    peft.save_all_with(dir.path(), IfExists::Replace)?;
    ensure!(dir.path().join("a").join(adapter::CONFIG).exists(), "the first is not written");
    Ok(())
}

#[test]
fn what_is_no_directory_is_said_to_be_none() -> Result<()> {
    let _serial = serial();
    let dir = tempfile::tempdir()?;
    let place = dir.path().join("place");
    let peft = lora(2, 3.0, 5)?;
    fs::write(&place, "a file")?;
    refused("a file", peft.save("a", &place), &["place", "is no directory"])?;
    #[cfg(unix)]
    {
        fs::remove_file(&place)?;
        std::os::unix::fs::symlink("nowhere", &place)?;
        refused("a link", peft.save("a", &place), &["place", "is no directory"])?;
    }
    Ok(())
}

/// transformers opens a model that has an adapter beside it with the adapter in it.
#[test]
fn adapters_and_models_are_kept_apart() -> Result<()> {
    let _serial = serial();
    let dir = tempfile::tempdir()?;
    fs::copy(golden("bert/base").join(hub::CONFIG), dir.path().join(hub::CONFIG))?;
    kept("beside a model", dir.path(), lora(2, 3.0, 5)?.save("a", dir.path()), &["a model", hub::CONFIG])?;
    let dir = tempfile::tempdir()?;
    lora(2, 3.0, 5)?.save("a", dir.path())?;
    let base = hub::open(golden("bert/base"), Device::Cpu, Head::Stored)?.peft;
    kept(
        "beside an adapter",
        dir.path(),
        hub::save(&base, dir.path(), None),
        &["an adapter", adapter::CONFIG],
    )?;
    Ok(())
}

#[test]
fn a_base_is_not_overwritten_by_what_came_of_it() -> Result<()> {
    let root = tempfile::tempdir()?;
    let dir = root.path().join("base");
    fs::create_dir(&dir)?;
    for name in [hub::CONFIG, "model.safetensors"] {
        fs::copy(golden("bert/base").join(name), dir.join(name))?;
    }
    fs::write(dir.join("tokenizer.json"), "{\"own\": 1}")?;
    let base = hub::open(&dir, Device::Cpu, Head::Stored)?.peft;
    let mut ways = vec![dir.clone(), dir.join("..").join("base")];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&dir, root.path().join("link"))?;
        ways.push(root.path().join("link"));
    }
    let before = fs::read(dir.join(hub::CONFIG))?;
    for way in &ways {
        kept("the base", &dir, hub::save(&base, way, Some(&dir)), &["a model", hub::CONFIG])?;
        kept("the base", &dir, hub::writable(way, IfExists::Refuse), &["a model"])?;
        ensure!(fs::read(dir.join(hub::CONFIG))? == before, "another model");
        // Said so, it is; its own tokenizer is where it belongs.
        hub::save_with(&base, way, Some(&dir), IfExists::Replace)?;
        ensure!(fs::read(dir.join("tokenizer.json"))? == b"{\"own\": 1}", "the tokenizer");
        fs::write(dir.join(hub::CONFIG), &before)?;
    }
    // What makes a model, without a configuration.
    fs::remove_file(dir.join(hub::CONFIG))?;
    kept("weights", &dir, hub::save(&base, &dir, None), &["a model", "model.safetensors"])?;
    Ok(())
}

#[test]
fn other_files_are_not_overwritten_either() -> Result<()> {
    let root = tempfile::tempdir()?;
    let (source, dir) = (root.path().join("source"), root.path().join("dir"));
    for (dir, text) in [(&source, "{}"), (&dir, "{\"mine\": 1}")] {
        fs::create_dir(dir)?;
        fs::write(dir.join("tokenizer.json"), text)?;
    }
    let base = hub::open(golden("bert/base"), Device::Cpu, Head::Stored)?.peft;
    kept(
        "a tokenizer",
        &dir,
        hub::save(&base, &dir, Some(&source)),
        &["dir/tokenizer.json", "another file"],
    )?;
    ensure!(fs::read_dir(&dir)?.count() == 1, "something was written");
    // Without a source nothing is in the way.
    hub::save(&base, &dir, None)?;
    ensure!(fs::read(dir.join("tokenizer.json"))? == b"{\"mine\": 1}", "the tokenizer");
    Ok(())
}

#[test]
fn places_are_tried_without_a_trace() -> Result<()> {
    let root = tempfile::tempdir()?;
    let dir = root.path().join("new/below");
    adapter::writable(&dir, IfExists::Refuse)?;
    hub::writable(&dir, IfExists::Refuse)?;
    ensure!(fs::read_dir(&dir)?.count() == 0, "something is left");
    let file = root.path().join("file");
    fs::write(&file, "")?;
    for dir in [&file, &file.join("below")] {
        let name = dir.to_str().context("a path")?;
        refused("a file", adapter::writable(dir, IfExists::Replace), &[name])?;
        refused("a file", hub::writable(dir, IfExists::Replace), &[name])?;
    }
    Ok(())
}

/// An adapter and a model in one directory are one to transformers: that is refused even where replacing is asked for; and
/// what is replaced leaves no weights of an older form behind.
#[test]
fn an_adapter_and_a_model_are_not_mixed() -> Result<()> {
    let root = tempfile::tempdir()?;
    let (model, adapter) = (root.path().join("model"), root.path().join("adapter"));
    let mut peft = hub::open(golden("bert/base"), Device::Cpu, Head::Stored)?.peft;
    peft.load("a", golden("bert/lora"))?;
    hub::save(&peft, &model, None)?;
    peft.save("a", &adapter)?;
    for if_exists in [IfExists::Refuse, IfExists::Replace] {
        let parts = ["a model", hub::CONFIG];
        refused("into a model", peft.save_with("a", &model, if_exists), &parts)?;
        let parts = ["an adapter", "adapter_config.json"];
        refused("into an adapter", hub::save_with(&peft, &adapter, None, if_exists), &parts)?;
    }
    let old = ["pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-00001-of-00002.bin"];
    for name in old {
        fs::write(model.join(name), "{}")?;
    }
    fs::write(adapter.join("adapter_model.bin"), "old")?;
    hub::save_with(&peft, &model, None, IfExists::Replace)?;
    peft.save_with("a", &adapter, IfExists::Replace)?;
    for path in old.map(|name| model.join(name)).iter().chain([&adapter.join("adapter_model.bin")]) {
        ensure!(!path.exists(), "{} is left", path.display());
    }
    // What somebody else has put there is said.
    fs::copy(adapter.join("adapter_config.json"), model.join("adapter_config.json"))?;
    let opened = hub::open(&model, Device::Cpu, Head::Stored)?;
    ensure!(
        opened.warnings.iter().any(|w| w.to_string().contains("is not applied")),
        "{:?}",
        opened.warnings
    );
    Ok(())
}
