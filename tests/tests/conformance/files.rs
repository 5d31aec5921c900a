//! What is written, read back and refused.

use anyhow::{Context, Result, bail, ensure};
use peft_core::io::tensors;
use peft_core::seam::MethodConfig;
use peft_core::{Batch, Error, Params, Pass, Peft};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use tch::{Device, Tensor};
use tempfile::TempDir;
use tests::on_every_model;
use tests::subject::{Bert, Gpt2, Llama, Tiny};
use tests::subject::{Subject, logits, moved};
use tests::table::{Row, rows};
use tests::{assert_bits, refused, serial};

const CONFIG: &str = "adapter_config.json";
const TENSORS: &str = "adapter_model.safetensors";

/// The moved adapter of the row, and a directory that it was saved in.
fn saved<M: Subject>(row: &Row) -> Result<(Peft, TempDir)> {
    let (peft, dir) = (moved::<M>(&row.config)?, tempfile::tempdir()?);
    peft.save("a", dir.path())?;
    Ok((peft, dir))
}

/// Catches a field that changes numbers and is not written (a scale, an activation), a tensor that is not, and a
/// second save that writes anything else than the first.
fn round_trip<M: Subject>(row: &Row) -> Result<()> {
    let (peft, dir) = saved::<M>(row)?;
    let mut other = M::base()?;
    other.load("b", dir.path())?;
    assert_bits("loaded logits", &logits(&other, &["b"])?, &logits(&peft, &["a"])?)?;
    let same = other.report(&["b"])? == peft.report(&["a"])?;
    ensure!(same == row.stored, "the report is {}", other.report(&["b"])?);
    let again = tempfile::tempdir()?;
    other.save("b", again.path())?;
    for file in [CONFIG, TENSORS] {
        let read = |dir: &TempDir| std::fs::read(dir.path().join(file));
        ensure!(read(&dir)? == read(&again)?, "{file} has other bytes after load and save");
    }
    Ok(())
}

#[test]
fn save_load_save_keeps_every_bit() -> Result<()> {
    on_every_model!(round_trip)
}

/// Set for the child process: the directory that the parent prepared.
const CHILD: &str = "PEFT_TESTS_FRESH_PROCESS";

/// For every row: the adapter, the batch and the logits.
fn prepare<M: Subject>(root: &Path) -> Result<usize> {
    let root = root.join(M::NAME);
    let (batch, _) = M::batch()?;
    let mut inputs = BTreeMap::from([("ids".to_owned(), batch.ids()?.shallow_clone())]);
    inputs.extend(batch.mask.map(|m| ("mask".to_owned(), m)));
    tensors::write(root.join("inputs.safetensors"), &inputs)?;
    tensors::write(root.join("base.safetensors"), &M::base()?.base().tensors())?;
    let rows = rows(&M::sizes(), &M::common());
    for (i, row) in (0..).zip(&rows) {
        let (peft, dir) = (moved::<M>(&row.config)?, root.join(format!("{i}")));
        peft.save("a", &dir)?;
        let logits = peft.view(&["a"])?.forward(&M::batch()?.0, Pass::eval())?.detach();
        tensors::write(dir.join("logits"), &BTreeMap::from([("logits".into(), logits)]))?;
    }
    Ok(rows.len())
}

fn compare<M: Subject>(root: &Path) -> Result<()> {
    let root = root.join(M::NAME);
    let mut inputs = tensors::read(root.join("inputs.safetensors"))?;
    let batch = Batch { mask: inputs.remove("mask"), ..Batch::dense(inputs.remove("ids").context("ids")?) };
    let model = M::base()?;
    for (i, row) in (0..).zip(rows(&M::sizes(), &M::common())) {
        let base = Params::from_tensors("base", Device::Cpu, tensors::read(root.join("base.safetensors"))?)?;
        let (mut peft, dir) = (model.over(base)?, root.join(format!("{i}")));
        peft.load("a", &dir)?;
        let found = peft.view(&["a"])?.forward(&batch, Pass::eval())?;
        let expected = &tensors::read(dir.join("logits"))?["logits"];
        assert_bits(&format!("{} · {}", M::NAME, row.name), &found.detach(), expected)?;
        println!("equal: {} · {}", M::NAME, row.name);
    }
    Ok(())
}

/// The child's half of the law below; alone it does nothing.
#[test]
fn in_the_fresh_process() -> Result<()> {
    let Ok(root) = std::env::var(CHILD) else { return Ok(()) };
    let _serial = serial();
    compare::<Tiny>(Path::new(&root))?;
    compare::<Bert>(Path::new(&root))?;
    compare::<Llama>(Path::new(&root))?;
    compare::<Gpt2>(Path::new(&root))
}

/// Catches everything that lives in the process and not in the files.
#[test]
fn a_fresh_process_has_the_same_logits() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let rows = {
        let _serial = serial();
        let classifiers = prepare::<Tiny>(dir.path())? + prepare::<Bert>(dir.path())?;
        classifiers + prepare::<Llama>(dir.path())? + prepare::<Gpt2>(dir.path())?
    };
    let mut child = Command::new(std::env::current_exe()?);
    child.args(["--exact", "files::in_the_fresh_process", "--nocapture"]).env(CHILD, dir.path());
    let output = child.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    ensure!(text.matches("equal: ").count() == rows, "the child compared too few rows of {rows}:\n{text}");
    Ok(())
}

/// Loads the adapter with its tensors changed by `edit`: that has to fail with these parts in the message, and must
/// leave nothing behind.
fn load_edited(
    peft: &mut Peft,
    dir: &Path,
    edit: impl FnOnce(&mut BTreeMap<String, Tensor>),
    parts: &[&str],
) -> Result<Error> {
    let file = dir.join(TENSORS);
    let (whole, mut tensors) = (std::fs::read(&file)?, tensors::read(&file)?);
    edit(&mut tensors);
    tensors::write(&file, &tensors)?;
    let place = file.display().to_string();
    let error = refused("loading", peft.load("b", dir), &[parts, &[place.as_str()]].concat())?;
    ensure!(peft.names() == ["a"], "an adapter was added although loading failed");
    std::fs::write(&file, whole)?;
    Ok(error)
}

/// Up to four tensors of the file, spread over it: every write waits for the disk.
fn some_of(dir: &Path) -> Result<Vec<(String, Tensor)>> {
    let tensors = tensors::read(dir.join(TENSORS))?;
    let step = tensors.len().div_ceil(4);
    Ok(tensors.into_iter().step_by(step).collect())
}

/// Catches a load that broadcasts (a row into a matrix, a number into a vector), and one that reads a part.
fn wrong_shape<M: Subject>(row: &Row) -> Result<()> {
    let (mut peft, dir) = saved::<M>(row)?;
    for (name, t) in some_of(dir.path())? {
        for wrong in [t.get(0), Tensor::cat(&[&t, &t], 0)] {
            let (found, expected) = (format!("{:?}", wrong.size()), format!("{:?}", t.size()));
            let edit = |all: &mut BTreeMap<String, Tensor>| drop(all.insert(name.clone(), wrong));
            let error = load_edited(&mut peft, dir.path(), edit, &[&name, &found, &expected])?;
            ensure!(matches!(error, Error::Shape { .. }), "{name}: {error:?}");
        }
    }
    peft.load("b", dir.path())?;
    assert_bits("the file as it was", &logits(&peft, &["b"])?, &logits(&peft, &["a"])?)
}

#[test]
fn a_wrong_shape_is_refused() -> Result<()> {
    on_every_model!(wrong_shape)
}

/// Catches a fresh start in place of a tensor that the file lacks, and a tensor that nobody reads.
fn wrong_names<M: Subject>(row: &Row) -> Result<()> {
    let (mut peft, dir) = saved::<M>(row)?;
    for (name, t) in some_of(dir.path())? {
        // PEFT can leave the frozen weight of an embedding out: it is the base's then.
        if name.ends_with(".base_layer.weight") && !row.frozen.is_empty() {
            continue;
        }
        let shape = format!("{:?}", t.size());
        let remove = |all: &mut BTreeMap<String, Tensor>| drop(all.remove(&name));
        let error = load_edited(&mut peft, dir.path(), remove, &[&name, &shape])?;
        ensure!(matches!(error, Error::Missing { .. }), "without {name}: {error:?}");
        let other = format!("{name}.more");
        let add = |all: &mut BTreeMap<String, Tensor>| drop(all.insert(other.clone(), t));
        let error = load_edited(&mut peft, dir.path(), add, &[&other])?;
        ensure!(matches!(error, Error::Unread { .. }), "with {other}: {error:?}");
    }
    Ok(())
}

#[test]
fn a_missing_or_superfluous_tensor_is_refused() -> Result<()> {
    on_every_model!(wrong_names)
}

/// Catches a pattern that matches nothing and is dropped in silence, alone or beside others that match.
fn typo<M: Subject>(row: &Row) -> Result<()> {
    let refuse = |method: Box<dyn MethodConfig>, field: &str, typo: &str, more: &[&str]| -> Result<()> {
        let mut peft = M::base()?;
        let typo = format!("`{typo}`");
        let parts = [&[field, &typo, "matches nothing"], more].concat();
        let error = refused(field, peft.add("a", method), &parts)?;
        ensure!(matches!(error, Error::NoTarget { .. }) && peft.names().is_empty(), "{field}: {error:?}");
        Ok(())
    };
    let config = &row.config;
    let (whole, last) = (M::sizes().whole.0, M::sizes().targets.last().context("no targets")?.name);
    let wrong = format!("{whole}s");
    if config.json()?.get("modules_to_save").is_some() {
        let names = json!([whole, wrong]);
        refuse(config.with("modules_to_save", names)?, "modules_to_save", &wrong, &[])?;
    }
    let Some(Value::Array(targets)) = config.json()?.get("target_modules").cloned() else { return Ok(()) };

    let wrong = format!("{last}s");
    let suggestion = format!("did you mean `{last}`");
    let names = [targets, vec![wrong.as_str().into()]].concat();
    refuse(config.with("target_modules", names)?, "target_modules", &wrong, &[&suggestion])?;
    if config.json()?.get("exclude_modules").is_none() {
        return Ok(());
    }
    let method = config.with("exclude_modules", json!([last, wrong]))?;
    refuse(method, "exclude_modules", &wrong, &[&suggestion])
}

#[test]
fn a_typo_in_a_target_is_refused() -> Result<()> {
    on_every_model!(typo)
}

/// Catches a config that loses the field which tells two variants apart.
#[test]
fn every_row_has_its_own_config() -> Result<()> {
    let _serial = serial();
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for row in rows(&Tiny::sizes(), &Tiny::common()) {
        let (_, dir) = saved::<Tiny>(&row)?;
        let text = std::fs::read_to_string(dir.path().join(CONFIG))?;
        if let Some(other) = seen.insert(text, row.name) {
            bail!("{} and {other} write the same {CONFIG}", row.name);
        }
    }
    Ok(())
}
