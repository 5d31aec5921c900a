//! `PeftConfig`, `amend` and `export`: what a method from outside leaves on disk.

use crate::{batch, logits, shake, tiny};
use anyhow::{Context, Result, ensure};
use peft_core::methods::{Common, LoraConfig, PeftConfig};
use peft_core::seam::{Init, Method, MethodConfig, Outline, Prompt, Resolved};
use peft_core::{Error, Params, Pass, io};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use tch::Tensor;
use tests::{assert_bits, refused, serial};

/// A vector that is added to every word.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct MineConfig {
    size: i64,
    #[serde(flatten)]
    common: Common,
}

impl MethodConfig for MineConfig {
    fn resolve(mut self: Box<Self>, outline: &Outline) -> peft_core::Result<Resolved> {
        self.common.resolve("mine", outline)?;
        Ok(self.resolved(|_| Mine))
    }
}

impl PeftConfig for MineConfig {
    const TYPE: &'static str = "MINE";
}

impl AsRef<Common> for MineConfig {
    fn as_ref(&self) -> &Common {
        &self.common
    }
}

#[derive(Debug)]
struct Mine;

impl Method for Mine {
    fn name(&self) -> &'static str {
        "mine"
    }

    fn prompt(
        &self,
        dims: &peft_core::seam::Dims,
        _: Option<&Tensor>,
        params: &Params,
    ) -> peft_core::Result<Option<Box<dyn Prompt>>> {
        let v = params.get_or_init("v", &[dims.sizes()?.hidden, 1], Init::Normal { std: 1.0 })?;
        Ok(Some(Box::new(Shift(v))))
    }

    fn import(
        &self,
        _: &str,
        tensors: BTreeMap<String, Tensor>,
    ) -> peft_core::Result<BTreeMap<String, Tensor>> {
        let plain = |(name, t): (String, Tensor)| Ok((name.replace("mine.", ""), t.f_tr()?));
        tensors.into_iter().map(plain).collect()
    }

    /// Stored as a row, under another name.
    fn export(&self, params: &Params) -> peft_core::Result<BTreeMap<String, Tensor>> {
        let tensors = params.tensors().into_iter().map(|(name, t)| Ok((format!("mine.{name}"), t.f_tr()?)));
        tensors.collect()
    }

    /// What only the tensors say.
    fn amend(&self, params: &Params, file: &mut Map<String, Value>) -> peft_core::Result<()> {
        file.insert("tensors".to_owned(), params.len().into());
        Ok(())
    }
}

#[derive(Debug)]
struct Shift(Tensor);

impl Prompt for Shift {
    fn rewrite(
        &self,
        input: peft_core::seam::Input,
        _: Pass<'_>,
    ) -> peft_core::Result<peft_core::seam::Input> {
        Ok(peft_core::seam::Input { embeds: input.embeds.f_add(&self.0.f_view([-1])?)?, ..input })
    }
}

#[test]
fn export_says_what_is_written() -> Result<()> {
    let _serial = serial();
    let (mut peft, batch, dir) = (tiny()?, batch(), tempfile::tempdir()?);
    peft.add("mine", MineConfig { size: 3, ..MineConfig::default() })?;
    shake(peft.params("mine")?)?;
    peft.save("mine", dir.path())?;
    let config = io::read_json(dir.path().join(io::adapter::CONFIG))?;
    for (field, value) in [("peft_type", json!("MINE")), ("size", json!(3)), ("tensors", json!(1))] {
        ensure!(config[field] == value, "{field}: {config:#}");
    }
    let mut written = io::tensors::read(dir.path().join(io::adapter::TENSORS))?;
    ensure!(written.keys().eq(["mine.v"]), "{:?}", written.keys());
    let v = written.remove("mine.v").context("v")?;
    assert_bits("v", &v.tr(), &crate::get(peft.params("mine")?, "v"))?;

    // Without its reader, a method from outside is added with its tensors.
    refused(
        "loading",
        peft.load("again", dir.path()),
        &["adapter_config.json", "`MINE`", "LORA", "Peft::register"],
    )?;
    peft.add_with("again", Mine, [("v".to_owned(), v.tr())])?;
    assert_bits("again", &logits(&peft, &["again"], &batch)?, &logits(&peft, &["mine"], &batch)?)
}

/// Saved, loaded alone, with others, copied, over a merged base, and saved again: the same bits and the same file.
#[test]
fn files_of_a_registered_method_are_read() -> Result<()> {
    let _serial = serial();
    let (mut peft, batch, dir) = (tiny()?, batch(), tempfile::tempdir()?);
    peft.add("mine", MineConfig { size: 3, ..MineConfig::default() })?;
    peft.add("lora", LoraConfig::new(2).targets(["ff.0"]))?;
    shake(peft.params("mine")?)?;
    peft.save_all(dir.path())?;
    let expected = logits(&peft, &["mine"], &batch)?;

    let mut other = peft.merged(&[])?; // the same base
    refused("before", other.load_all(dir.path()), &["`MINE`"])?;
    other.register::<MineConfig>()?;
    let twice = refused("twice", other.register::<MineConfig>(), &["MINE"])?;
    ensure!(matches!(twice, Error::Exists { .. }), "{twice:?}");
    refused("this crate's", other.register::<Lora>(), &["LORA"])?;
    ensure!(other.load_all(dir.path())?.names == ["lora", "mine"], "{:?}", other.names());
    other.copy("mine", "copy")?;
    let mut merged = other.merged(&[])?;
    merged.load("loaded", dir.path().join("mine"))?;
    for (peft, name) in [(&other, "mine"), (&other, "copy"), (&merged, "loaded")] {
        assert_bits(name, &logits(peft, &[name], &batch)?, &expected)?;
    }
    merged.save("loaded", dir.path().join("again"))?;
    for file in [io::adapter::CONFIG, io::adapter::TENSORS] {
        let read = |name: &str| std::fs::read(dir.path().join(name).join(file));
        ensure!(read("mine")? == read("again")?, "{file} has other bytes");
    }

    // Its fields are checked as those of any file.
    let mut config = io::read_json(dir.path().join("mine").join(io::adapter::CONFIG))?;
    config["size"] = json!("three");
    io::write_json(dir.path().join("mine").join(io::adapter::CONFIG), &config)?;
    refused("a wrong field", other.load("wrong", dir.path().join("mine")), &["size", "\"three\""])?;
    Ok(())
}

/// The last vector of all that were trained, beside one that has no use any more.
#[derive(Debug)]
struct Left;

impl Method for Left {
    fn name(&self) -> &'static str {
        "left"
    }

    fn prompt(
        &self,
        dims: &peft_core::seam::Dims,
        words: Option<&Tensor>,
        params: &Params,
    ) -> peft_core::Result<Option<Box<dyn Prompt>>> {
        Mine.prompt(dims, words, params)
    }

    fn inert(&self, name: &str) -> bool {
        name == "old"
    }
}

/// Kept, of whole numbers even, and not trained; a tensor that is not said to be inert is an error.
#[test]
fn what_is_inert_is_kept() -> Result<()> {
    let _serial = serial();
    let mut peft = tiny()?;
    let v = Tensor::ones([crate::TINY.hidden, 1], (tch::Kind::Float, tch::Device::Cpu));
    let with = |name: &str| [("v".to_owned(), v.copy()), (name.to_owned(), Tensor::from_slice(&[3i64]))];
    peft.add_with("left", Left, with("old"))?;
    ensure!(peft.params("left")?.tensors().keys().eq(["old", "v"]), "{:?}", peft.params("left")?);
    ensure!(peft.trainable(&["left"])?.len() == 1, "it is trained");
    let floats = [("v".to_owned(), v.copy()), ("other".to_owned(), v.copy())];
    let error = refused("another", peft.add_with("other", Left, floats), &["`other`", "nothing reads"])?;
    ensure!(matches!(error, Error::Unread { .. }), "{error:?}");
    Ok(())
}

/// A configuration from outside under a name that is taken.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Lora(Common);

impl MethodConfig for Lora {
    fn resolve(self: Box<Self>, _: &Outline) -> peft_core::Result<Resolved> {
        Ok(Mine.into())
    }
}

impl PeftConfig for Lora {
    const TYPE: &'static str = "LORA";
}

impl AsRef<Common> for Lora {
    fn as_ref(&self) -> &Common {
        &self.0
    }
}

#[test]
fn a_method_without_a_config_is_not_saved() -> Result<()> {
    let _serial = serial();
    let (mut peft, dir) = (tiny()?, tempfile::tempdir()?);
    peft.add("mine", Mine)?;
    let error =
        refused("saving", peft.save("mine", dir.path()), &["mine", "adapter_config.json", "no file form"])?;
    ensure!(matches!(error, Error::Config { .. }), "{error:?}");
    ensure!(std::fs::read_dir(dir.path())?.next().is_none(), "something was written all the same");
    Ok(())
}
