//! Names, copies, folders of several adapters, the table of what there is.

use anyhow::{Result, ensure};
use peft_core::Peft;
use peft_core::methods::{LoraConfig, PrefixTuningConfig};
use tests::subject::{Llama, Tiny};
use tests::subject::{Subject, logits, move_away};
use tests::{assert_bits, golden, refused, serial};

fn two() -> Result<Peft> {
    let mut peft = Tiny::base()?;
    peft.add("a", LoraConfig { r: 4, targets: ["ff.0"].into(), ..Default::default() })?;
    peft.add("default", PrefixTuningConfig { num_virtual_tokens: 2, ..Default::default() })?;
    move_away(peft.params("a")?, 3)?;
    Ok(peft)
}

#[test]
fn a_copy_is_equal_and_independent() -> Result<()> {
    let _serial = serial();
    let mut peft = two()?;
    peft.copy("a", "b")?;
    let before = logits(&peft, &["a"])?;
    assert_bits("copy", &logits(&peft, &["b"])?, &before)?;
    move_away(peft.params("b")?, 4)?;
    assert_bits("the original", &logits(&peft, &["a"])?, &before)?;
    ensure!(!logits(&peft, &["b"])?.equal(&before), "the copy did not move");
    peft.rename("a", "z")?;
    ensure!(peft.names() == ["b", "default", "z"], "{:?}", peft.names());
    assert_bits("renamed", &logits(&peft, &["z"])?, &before)?;
    refused("taken", peft.rename("z", "b"), &["`b` exists already"])?;
    refused("unknown", peft.rename("a", "c"), &["`a`", "`z`"])?;
    refused("taken", peft.copy("z", "b"), &["`b` exists already"])?;
    refused("unknown", peft.copy("a", "c"), &["`a`"])?;
    Ok(())
}

#[test]
fn folders_of_several_adapters_are_read_as_peft_writes_them() -> Result<()> {
    let _serial = serial();
    let peft = two()?;
    let dir = tempfile::tempdir()?;
    peft.save_all(dir.path())?;
    ensure!(
        dir.path().join("adapter_config.json").exists() && dir.path().join("a/adapter_config.json").exists()
    );
    let mut again = Tiny::base()?;
    ensure!(again.load_all(dir.path())?.names == ["default", "a"], "{:?}", again.names());
    for name in ["a", "default"] {
        assert_bits(name, &logits(&again, &[name])?, &logits(&peft, &[name])?)?;
    }
    // All or nothing: the sub-folder's name is taken.
    again.delete("default")?;
    refused("taken", again.load_all(dir.path()), &["`a` exists already"])?;
    ensure!(again.names() == ["a"], "{:?}", again.names());
    let empty = tempfile::tempdir()?;
    refused("empty", again.load_all(empty.path()), &["adapter_config.json"])?;
    refused("none", again.load_all(empty.path().join("none")), &["none"])?;
    again.rename("a", "../a")?;
    refused("a path", again.save_all(empty.path()), &["`../a`"])?;
    ensure!(std::fs::read_dir(empty.path())?.next().is_none(), "something was written");
    Ok(())
}

#[test]
fn the_golden_of_two_adapters_loads_whole() -> Result<()> {
    let _serial = serial();
    let mut peft = Llama::base()?;
    ensure!(peft.load_all(golden("llama/x_multi_adapter"))?.names == ["a", "b"], "{:?}", peft.names());
    Ok(())
}

#[test]
fn the_status_says_what_there_is() -> Result<()> {
    let _serial = serial();
    let peft = two()?;
    let status = peft.status()?;
    ensure!(status.base_params == Tiny::sizes().all, "{status:?}");
    let [a, prefix] = status.adapters.as_slice() else { anyhow::bail!("{status:?}") };
    ensure!((a.name.as_str(), a.peft_type.as_deref(), a.places) == ("a", Some("LORA"), 2), "{a:?}");
    ensure!(a.params == 2 * 4 * (32 + 48) && a.trainable == a.params && a.dtypes == ["float32"], "{a:?}");
    ensure!(prefix.peft_type.as_deref() == Some("PREFIX_TUNING"), "{prefix:?}");
    let table = status.to_string();
    ensure!(table.contains("LORA") && table.contains("640") && table.contains("prefix tuning"), "{table}");
    Ok(())
}
