//! `PeftConfig`, `amend` and `export`: what a method from outside leaves on disk.

use crate::{batch, logits, shake, tiny};
use anyhow::{Context, Result, ensure};
use peft_core::methods::{Common, PeftConfig};
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

    fn common(&self) -> &Common {
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
        let v = params.get_or_init("v", &[dims.hidden, 1], Init::Normal { std: 1.0 })?;
        Ok(Some(Box::new(Shift(v))))
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
    fn name(&self) -> &'static str {
        "mine"
    }

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
    let config = io::read_json(&dir.path().join(io::adapter::CONFIG))?;
    for (field, value) in [("peft_type", json!("MINE")), ("size", json!(3)), ("tensors", json!(1))] {
        ensure!(config[field] == value, "{field}: {config:#}");
    }
    let mut written = io::tensors::read(&dir.path().join(io::adapter::TENSORS))?;
    ensure!(written.keys().eq(["mine.v"]), "{:?}", written.keys());
    let v = written.remove("mine.v").context("v")?;
    assert_bits("v", &v.tr(), &crate::get(peft.params("mine")?, "v"))?;

    // Only this crate's methods are found by their `peft_type`; one from outside is added with its tensors.
    refused("loading", peft.load("again", dir.path()), &["adapter_config.json", "`MINE`", "LORA"])?;
    peft.add_with("again", Mine, [("v".to_owned(), v.tr())])?;
    assert_bits("again", &logits(&peft, &["again"], &batch)?, &logits(&peft, &["mine"], &batch)?)
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
