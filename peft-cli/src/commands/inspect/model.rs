//! A model: its configuration and its files.

use super::tensors::{Lines, Tensors, metadata, said};
use crate::output::Output;
use anyhow::{Context, Result};
use peft_core::estimate::Blueprint;
use peft_core::hub::{self, Head};
use peft_core::io::{read_json, tensors};
use peft_core::seam::SiteKind;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Debug, Serialize)]
pub(super) struct Model {
    path: PathBuf,
    model_type: String,
    class: String,
    layers: Option<i64>,
    hidden: Option<i64>,
    sites: BTreeMap<String, usize>,
    classes: Vec<String>,
    tied: bool,
    made_by: Option<String>,
    /// What the safetensors files say of themselves.
    metadata: BTreeMap<String, String>,
    #[serde(flatten)]
    pub(super) tensors: Tensors,
}

impl Model {
    pub(super) fn read(dir: &Path, output: &Output) -> Result<Self> {
        let architecture = hub::architecture(dir, Head::Stored)?;
        let dims = architecture.dims();
        let json = read_json(dir.join(hub::CONFIG))?;
        // The sites are those of the configuration; the tensors are those of the files.
        let blueprint = Blueprint::open(dir)?;
        let mut sites = BTreeMap::<String, usize>::new();
        for site in &blueprint.outline().sites {
            if !matches!(site.kind, SiteKind::Block(_)) {
                *sites.entry(site.kind.to_string()).or_default() += 1;
            }
        }
        let (mut all, mut unused, mut about) = (Tensors::default(), Vec::new(), BTreeMap::new());
        for file in weights(dir)? {
            tensors::read_each(&file, |name, t| {
                if architecture.rename(&name).is_none() {
                    unused.push(name.clone());
                }
                all.take(&name, &t).map(drop).map_err(|e| peft_core::Error::Input(format!("{name}: {e}")))
            })?;
            about.extend(metadata(&file)?);
        }
        let foreign =
            |name: &String| format!("{}: {name}: belongs to something else, and is not read", dir.display());
        output.warn(unused.iter().map(foreign));
        let text = |field: &str| json.get(field).and_then(Value::as_str).map(str::to_owned);
        Ok(Self {
            path: dir.to_owned(),
            model_type: dims.model_type.clone(),
            class: architecture.class().to_owned(),
            layers: dims.transformer.as_ref().map(|t| t.layers),
            hidden: dims.transformer.as_ref().map(|t| t.hidden),
            classes: dims.classes.clone(),
            tied: architecture.tied().is_some(),
            made_by: text("transformers_version").map(|version| format!("transformers {version}")),
            metadata: about,
            sites,
            tensors: all,
        })
    }

    pub(super) fn text(&self) -> String {
        let mut lines = Lines::default();
        lines.add("type", &format!("{}, {}", self.model_type, self.class));
        if let (Some(layers), Some(hidden)) = (self.layers, self.hidden) {
            lines.add("size", &format!("{layers} layers of width {hidden}"));
        }
        let sites: Vec<String> = self.sites.iter().map(|(kind, n)| format!("{n} x {kind}")).collect();
        lines.add("sites", &sites.join(", "));
        lines.add("classes", &self.classes.join(", "));
        lines.add("head", if self.tied { "tied to the word embedding" } else { "its own" });
        lines.add("made by", self.made_by.as_deref().unwrap_or_default());
        lines.add("metadata", &said(&self.metadata));
        lines.add("weights", &self.tensors.text());
        lines.under(&format!("{}: a model", self.path.display()))
    }
}

/// The files of a model's weights.
fn weights(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        files.push(entry?.path());
    }
    let of = |end: &str| {
        let named =
            |path: &&PathBuf| path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.ends_with(end));
        let mut found: Vec<PathBuf> = files.iter().filter(named).cloned().collect();
        found.sort();
        found
    };
    let safe = of(".safetensors");
    Ok(if safe.is_empty() { of(".bin") } else { safe })
}
