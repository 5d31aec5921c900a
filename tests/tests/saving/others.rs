//! Several who save and read, and what a killed save has left when others come.

use anyhow::{Context, Result, ensure};
use peft_core::io::adapter::Files;
use peft_core::io::{IfExists, adapter};
use std::fs;
use std::path::Path;
use tests::subject::Tiny;
use tests::subject::{Subject, lora};
use tests::{refused, serial};

const STAGING: &str = ".adapter_config.json.saving";

/// A directory with `old`, over which the save of `new` was killed half-way.
fn killed(old: &Path, new: &Path, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    for name in [adapter::CONFIG, adapter::TENSORS] {
        fs::copy(old.join(name), dir.join(name))?;
    }
    tests::kills::killed(new, dir)
}

fn same(a: &Path, b: &Path) -> Result<bool> {
    let read = |dir: &Path| {
        [adapter::CONFIG, adapter::TENSORS].map(|n| fs::read(dir.join(n)).with_context(|| n.to_owned()))
    };
    let ([a, b], [c, d]) = (read(a), read(b));
    Ok(a? == c? && b? == d?)
}

#[test]
fn whoever_comes_next_finishes_what_was_killed() -> Result<()> {
    let _serial = serial();
    let root = tempfile::tempdir()?;
    let at = |name: &str| root.path().join(name);
    lora(2, 3.0, 5)?.save("a", at("old"))?;
    lora(4, 3.0, 6)?.save("a", at("new"))?;
    let other = lora(8, 3.0, 7)?;

    killed(&at("old"), &at("new"), &at("load"))?;
    Tiny::base()?.load("a", at("load"))?;
    ensure!(same(&at("load"), &at("new"))?, "loaded, it is another one");

    // As one of several it would be passed over without its configuration.
    killed(&at("old"), &at("new"), &at("all/one"))?;
    ensure!(Tiny::base()?.load_all(at("all"))?.names == ["one"], "it was passed over");

    // Who may not overwrite it leaves it, and who may need not finish it first.
    killed(&at("old"), &at("new"), &at("save"))?;
    refused("over it", other.save("a", at("save")), &["an adapter is there already"])?;
    ensure!(at("save").join(STAGING).exists(), "refused, it is changed");
    other.save_with("a", at("save"), IfExists::Replace)?;
    other.save("a", at("other"))?;
    ensure!(same(&at("save"), &at("other"))?, "saved, it is another one");
    for name in ["load", "save", "all/one"] {
        ensure!(!at(name).join(STAGING).exists(), "{name}: the folder is left");
    }
    Ok(())
}

/// Python knows nothing of what waits. Its adapter is the newer one.
#[test]
fn what_others_have_saved_since_stays() -> Result<()> {
    let _serial = serial();
    let root = tempfile::tempdir()?;
    let at = |name: &str| root.path().join(name);
    for (name, r) in [("old", 2), ("new", 4), ("python", 8)] {
        lora(r, 3.0, 5)?.save("a", at(name))?;
    }
    killed(&at("old"), &at("new"), &at("dir"))?;
    for name in [adapter::CONFIG, adapter::TENSORS] {
        fs::copy(at("python").join(name), at("dir").join(name))?;
    }
    Tiny::base()?.load("a", at("dir"))?;
    ensure!(same(&at("dir"), &at("python"))?, "it is another one");
    Ok(())
}

/// Before it is whole a log says nothing, and what it says has to be about files of its own directory.
#[test]
fn a_log_that_is_none_is_passed_over() -> Result<()> {
    let _serial = serial();
    let root = tempfile::tempdir()?;
    let at = |name: &str| root.path().join(name);
    lora(2, 3.0, 5)?.save("a", at("old"))?;
    lora(4, 3.0, 6)?.save("a", at("new"))?;
    killed(&at("old"), &at("new"), &at("dir"))?;
    let log = at("dir").join(STAGING).join("log");
    let text = fs::read(&log)?;
    let elsewhere =
        format!("{{\"replaces\":true,\"files\":[\"{}\"],\"remove\":[\"../old\"]}}", adapter::TENSORS);
    let torn = (0..text.len()).map(|n| text[..n].to_vec());
    for bytes in torn.chain([elsewhere.into_bytes()]) {
        fs::write(&log, &bytes)?;
        refused("no adapter", Tiny::base()?.load("a", at("dir")), &[adapter::CONFIG])?;
    }
    ensure!(at("old").exists(), "what is elsewhere is gone");
    Ok(())
}

#[test]
fn what_cannot_be_finished_is_named() -> Result<()> {
    let _serial = serial();
    let root = tempfile::tempdir()?;
    let at = |name: &str| root.path().join(name);
    lora(2, 3.0, 5)?.save("a", at("old"))?;
    lora(4, 3.0, 6)?.save("a", at("new"))?;
    killed(&at("old"), &at("new"), &at("dir"))?;
    fs::remove_file(at("dir").join(adapter::TENSORS))?;
    fs::create_dir_all(at("dir").join(adapter::TENSORS))?;
    let parts = ["interrupted", adapter::TENSORS, "save it again"];
    refused("in the way", Tiny::base()?.load("a", at("dir")), &parts)?;
    fs::remove_dir(at("dir").join(adapter::TENSORS))?;
    Tiny::base()?.load("a", at("dir"))?;
    ensure!(same(&at("dir"), &at("new"))?, "it is another one");
    Ok(())
}

/// Three who save into one directory and one who reads: what is read is always one of the three.
#[test]
fn savers_wait_for_each_other_and_readers_see_one_of_them() -> Result<()> {
    let root = tempfile::tempdir()?;
    let (dir, adapters) = (root.path().join("dir"), {
        let _serial = serial();
        [2, 4, 8].map(|r: i64| lora(r, 1.5 * r as f64, r))
    });
    let adapters = adapters.into_iter().collect::<Result<Vec<_>>>()?;
    adapters[0].save("a", &dir)?;
    std::thread::scope(|s| {
        let savers: Vec<_> = adapters
            .iter()
            .map(|a| {
                let tensors = a.params("a").map(|p| p.tensors());
                let file = a.adapter_config("a");
                let dir = &dir;
                s.spawn(move || -> Result<()> {
                    let (tensors, config) = (tensors?, file?.context("no file")?);
                    let files = Files { config, tensors, classes: Vec::new(), provenance: None };
                    for _ in 0..15 {
                        adapter::write(dir, &files, IfExists::Replace)?;
                    }
                    Ok(())
                })
            })
            .collect();
        while savers.iter().any(|s| !s.is_finished()) {
            let (Files { config, tensors, .. }, _) = adapter::read(&dir)?;
            let sizes: Vec<_> = tensors.values().map(|t| t.size()).collect();
            let of_one = [2, 4, 8].into_iter().any(|r| {
                let alpha = config["lora_alpha"].as_f64() == Some(1.5 * f64::from(r));
                config["r"] == r && alpha && sizes.iter().all(|s| s.contains(&i64::from(r)))
            });
            ensure!(of_one, "{config} with {sizes:?}");
        }
        savers.into_iter().try_for_each(|s| s.join().unwrap_or_else(|_| Err(anyhow::anyhow!("panicked"))))
    })?;
    ensure!(fs::read_dir(&dir)?.count() == 2, "something is left");
    Ok(())
}
