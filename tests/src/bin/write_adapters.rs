//! Writes adapters for Python: of every method that a family's goldens have, a fresh one with its parameters moved away
//! from their start, and our logits. `tests/python/check_adapters.py` loads them with PEFT.

use anyhow::{Context, Result};
use clap::Parser;
use peft_core::hub;
use peft_core::io;
use peft_core::io::tensors;
use peft_core::methods::from_json;
use peft_core::{Batch, Pass, Peft};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::Device;
use tests::parity::folder_name;
use tests::{golden, golden_tensors};

/// Writes OUT/family/method for every family and method of `tests/golden` and of DIRS, laid out as that is: the adapter,
/// and `logits.safetensors` with the batch. Prints one JSON object for each, with an `error` where it failed.
#[derive(Parser)]
struct Args {
    out: PathBuf,
    dirs: Vec<PathBuf>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    tch::set_num_threads(1);
    let mut dirs = folders(&golden(""), "base/config.json")?;
    dirs.extend(args.dirs);
    for dir in &dirs {
        family(dir, &args.out.join(folder_name(dir)))?;
    }
    Ok(())
}

/// The folders in `dir` that have a file of this name, sorted.
fn folders(dir: &Path, file: &str) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir)?.map(|e| Ok(e?.path())).collect::<std::io::Result<Vec<_>>>()?;
    let mut found: Vec<PathBuf> = entries.into_iter().filter(|p| p.join(file).exists()).collect();
    found.sort();
    Ok(found)
}

/// Those of the goldens of one family.
fn family(dir: &Path, out: &Path) -> Result<()> {
    let base = dir.join("base");
    let mut peft = hub::open(&base, Device::Cpu, hub::Head::Stored)?.peft;
    for (seed, folder) in (1..).zip(folders(dir, "adapter_config.json")?) {
        let name = folder_name(&folder);
        let out = out.join(&name);
        let error = write(&mut peft, seed, &folder, &out).err().map(|e| format!("{e:#}"));
        if peft.names().contains(&"a") {
            peft.delete("a")?;
        }
        println!("{}", json!({ "base": base, "method": name, "adapter": out, "error": error }));
    }
    Ok(())
}

/// Adds an adapter with the configuration of a golden one, and writes it to `out`.
fn write(peft: &mut Peft, seed: i64, from: &Path, out: &Path) -> Result<()> {
    let mut config = io::read_json(from.join("adapter_config.json"))?;
    if config["peft_type"] == "ADALORA" {
        config["rank_pattern"] = Value::Null; // the result of its training
    }
    tch::manual_seed(seed);
    peft.add("a", from_json(config, "the golden")?)?;
    for (name, t) in peft.trainable(&["a"])? {
        let t = t.detach();
        peft.params("a")?.assign(&name, &(&t + t.randn_like() * 0.1))?;
    }
    peft.save("a", out)?;
    let mut golden = golden_tensors(from)?;
    let mut take = |key: &str| golden.remove(key).with_context(|| format!("the golden has no `{key}`"));
    let (ids, mask) = (take("input_ids")?, take("attention_mask")?);
    let batch = Batch::masked(ids.copy(), mask.copy());
    let logits = peft.view(&["a"])?.forward(&batch, Pass::eval())?;
    let named = [("input_ids", ids), ("attention_mask", mask), ("logits", logits)];
    let named: BTreeMap<_, _> = named.into_iter().map(|(name, t)| (name.to_owned(), t)).collect();
    Ok(tensors::write(out.join("logits.safetensors"), &named)?)
}
