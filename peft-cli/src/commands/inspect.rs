//! `peft inspect`.

use crate::common::{Fit, Given, adapter_name};
use crate::outcome::Outcome;
use crate::output::Output;
use crate::source::Source;
use anyhow::{Context, Result, bail};
use clap::Args;
use peft_core::estimate::human_bytes;
use peft_core::hub::{self, Head};
use peft_core::io::{adapter, read_json, tensors};
use peft_core::methods::catalogue::Entry;
use peft_core::report::commas;
use peft_core::seam::SiteKind;
use peft_core::tch::{Device, Kind, Tensor};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Says what a model, an adapter or a checkpoint is made of
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  peft inspect models/base\n  peft inspect runs/mine --base models/base    how much it \
                        changes, site by site\n  peft inspect runs/mine --json | jq .not_finite"
)]
pub struct Inspect {
    /// A model, an adapter or a checkpoint
    path: Source,
    /// The adapter's model, to compare with
    #[arg(long, value_name = "MODEL")]
    base: Option<Source>,
    #[command(flatten)]
    fit: Fit,
}

/// What there is of tensors.
#[derive(Debug, Default, Serialize)]
struct Tensors {
    count: usize,
    parameters: i64,
    bytes: i64,
    dtypes: BTreeMap<String, usize>,
    /// Names of tensors with values that are NaN or infinite.
    not_finite: Vec<String>,
}

impl Tensors {
    /// Takes one up; its norm.
    fn take(&mut self, name: &str, t: &Tensor) -> Result<Option<f64>> {
        let numel = i64::try_from(t.numel())?;
        self.count += 1;
        self.parameters = self.parameters.saturating_add(numel);
        self.bytes =
            self.bytes.saturating_add(numel.saturating_mul(i64::try_from(t.kind().elt_size_in_bytes())?));
        *self.dtypes.entry(format!("{:?}", t.kind()).to_lowercase()).or_default() += 1;
        if !matches!(t.kind(), Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16) {
            return Ok(None);
        }
        let norm = t.f_to_kind(Kind::Double)?.f_norm()?.f_double_value(&[])?;
        if !norm.is_finite() {
            self.not_finite.push(name.to_owned());
        }
        Ok(Some(norm))
    }

    fn text(&self) -> String {
        let dtypes: Vec<String> = self.dtypes.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
        let mut text = format!(
            "{} parameters in {} tensors ({}), {}",
            commas(self.parameters),
            self.count,
            dtypes.join(", "),
            human_bytes(self.bytes)
        );
        for name in &self.not_finite {
            let _ = write!(text, "\n  NaN or infinite: {name}");
        }
        text
    }
}

#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Found {
    Model {
        path: PathBuf,
        model_type: String,
        class: String,
        layers: Option<i64>,
        hidden: Option<i64>,
        sites: BTreeMap<String, usize>,
        classes: Vec<String>,
        tied: bool,
        made_by: Option<String>,
        #[serde(flatten)]
        tensors: Tensors,
    },
    Adapter {
        path: PathBuf,
        method: String,
        peft_type: String,
        base_model: Option<String>,
        made_by: Option<String>,
        task: Option<String>,
        classes: Vec<String>,
        /// Fields that are not as the method has them by default.
        set: Map<String, Value>,
        /// Norms of the tensors by the last part of their names: how many, mean and largest.
        norms: BTreeMap<String, Norms>,
        /// `‖ΔW‖/‖W‖` of the layers that it changes; with --base.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        changes: Vec<Change>,
        #[serde(flatten)]
        tensors: Tensors,
    },
    Checkpoint {
        path: PathBuf,
        manifest: Value,
    },
}

#[derive(Debug, Default, Serialize)]
struct Norms {
    count: usize,
    mean: f64,
    max: f64,
}

#[derive(Debug, Serialize)]
struct Change {
    name: String,
    relative: f64,
    /// `exp` of the entropy of the squared singular values' shares: how many directions there are.
    effective_rank: Option<f64>,
}

impl Inspect {
    pub fn run(&self, output: &Output) -> Result<Outcome> {
        // Of a repository it is not known what it has until it is asked for.
        let dir = self.path.adapter(output).or_else(|_| self.path.model(output))?;
        let found = if adapter::exists(&dir).unwrap_or_default() {
            self.adapter(&dir, output)?
        } else if dir.join("manifest.json").exists() {
            Found::Checkpoint { manifest: read_json(dir.join("manifest.json"))?, path: dir }
        } else if dir.join(hub::CONFIG).exists() {
            model(&dir, output)?
        } else {
            bail!("{}: there is no adapter, no model and no checkpoint", dir.display());
        };
        let bad = match &found {
            Found::Model { tensors, .. } | Found::Adapter { tensors, .. } => !tensors.not_finite.is_empty(),
            Found::Checkpoint { .. } => false,
        };
        output.result(&found, Found::text)?;
        Ok(if bad { Outcome::Faults } else { Outcome::Done })
    }

    fn adapter(&self, dir: &Path, output: &Output) -> Result<Found> {
        let (files, _) = adapter::read(dir)?;
        let fields = files.config.as_object().cloned().unwrap_or_default();
        let text = |field: &str| fields.get(field).and_then(Value::as_str).map(str::to_owned);
        let (mut all, mut norms) = (Tensors::default(), BTreeMap::<String, Norms>::new());
        for (name, t) in &files.tensors {
            let Some(norm) = all.take(name, t)? else { continue };
            let leaf = name.strip_suffix(".weight").unwrap_or(name).rsplit('.').next().unwrap_or(name);
            let n = norms.entry(leaf.to_owned()).or_default();
            n.count += 1;
            n.mean += norm;
            n.max = n.max.max(norm);
        }
        norms.values_mut().for_each(|n| n.mean /= n.count.max(1) as f64);
        let entry = Entry::of(&fields);
        let defaults = entry.map(Entry::fields).transpose()?.unwrap_or_default();
        let set = fields.iter().filter(|(field, value)| {
            let other = defaults.get(*field).is_some_and(|default| {
                default != *value && (default.as_f64().is_none() || default.as_f64() != value.as_f64())
            });
            other && *field != "base_model_name_or_path" && *field != "task_type"
        });
        let changes = self.base.as_ref().map(|base| self.changes(base, dir, output)).transpose()?;
        Ok(Found::Adapter {
            path: dir.to_owned(),
            method: entry.map_or("unknown", |e| e.title).to_owned(),
            peft_type: text("peft_type").unwrap_or_default(),
            base_model: text("base_model_name_or_path"),
            made_by: text("peft_version")
                .map(|version| format!("PEFT {version}, or a program that writes its files")),
            task: text("task_type"),
            set: set.map(|(f, v)| (f.clone(), v.clone())).collect(),
            classes: files.classes,
            norms,
            changes: changes.unwrap_or_default(),
            tensors: all,
        })
    }

    /// What the adapter makes of the base's weights.
    fn changes(&self, base: &Source, dir: &Path, output: &Output) -> Result<Vec<Change>> {
        let name = adapter_name(&self.path, dir)?;
        let given = Given { name: Some(name.clone()), source: self.path.clone() };
        let (opened, name) = crate::common::open_for(base, &given, self.fit, Device::Cpu, output)?;
        let merged = match opened.peft.merged(&[&name]) {
            Ok(merged) => merged,
            Err(e) => {
                output.note(format!("what it changes cannot be said in weights: {e}"));
                return Ok(Vec::new());
            }
        };
        let after = merged.base().tensors();
        let mut changes = Vec::new();
        for (name, before) in opened.peft.base().tensors() {
            let Some(after) = after.get(&name) else { continue };
            let delta = after.f_to_kind(Kind::Float)?.f_sub(&before.f_to_kind(Kind::Float)?)?;
            let norm = |t: &Tensor| {
                Ok::<f64, anyhow::Error>(t.f_to_kind(Kind::Float)?.f_norm()?.f_double_value(&[])?)
            };
            let changed = norm(&delta)?;
            if changed == 0.0 {
                continue;
            }
            let effective_rank = (delta.dim() == 2).then(|| effective_rank(&delta)).transpose()?;
            changes.push(Change {
                relative: changed / norm(&before)?.max(f64::MIN_POSITIVE),
                name,
                effective_rank,
            });
        }
        Ok(changes)
    }
}

fn effective_rank(delta: &Tensor) -> Result<f64> {
    // Directions of the smaller side are enough, and cheaper.
    let (out, inp) = delta.size2()?;
    let gram = if out <= inp { delta.f_matmul(&delta.f_tr()?)? } else { delta.f_tr()?.f_matmul(delta)? };
    let energy = gram.f_to_kind(Kind::Double)?.f_linalg_eigvalsh("L")?.f_clamp_min(0.0)?;
    let shares = energy.f_div(&energy.f_sum(Kind::Double)?)?;
    let entropy = shares.f_xlogy(&shares)?.f_sum(Kind::Double)?.f_double_value(&[])?;
    Ok((-entropy).exp())
}

fn model(dir: &Path, output: &Output) -> Result<Found> {
    let architecture = hub::architecture(dir, Head::Stored)?;
    let dims = architecture.dims();
    let json = read_json(dir.join(hub::CONFIG))?;
    // The sites are those of the configuration; the tensors are those of the files.
    let blueprint = peft_core::estimate::Blueprint::open(dir)?;
    let mut sites = BTreeMap::<String, usize>::new();
    for site in &blueprint.outline().sites {
        if !matches!(site.kind, SiteKind::Block(_)) {
            *sites.entry(site.kind.to_string()).or_default() += 1;
        }
    }
    let (mut all, mut unused) = (Tensors::default(), Vec::new());
    let files = weights(dir)?;
    for file in files {
        tensors::read_each(&file, |name, t| {
            if architecture.rename(&name).is_none() {
                unused.push(name.clone());
            }
            all.take(&name, &t).map(drop).map_err(|e| peft_core::Error::Input(format!("{name}: {e}")))
        })?;
    }
    output.warn(
        unused
            .iter()
            .map(|name| format!("{}: {name}: belongs to something else, and is not read", dir.display())),
    );
    let text = |field: &str| json.get(field).and_then(Value::as_str).map(str::to_owned);
    Ok(Found::Model {
        path: dir.to_owned(),
        model_type: dims.model_type.clone(),
        class: architecture.class().to_owned(),
        layers: dims.transformer.as_ref().map(|t| t.layers),
        hidden: dims.transformer.as_ref().map(|t| t.hidden),
        classes: dims.classes.clone(),
        tied: architecture.tied().is_some(),
        made_by: text("transformers_version").map(|version| format!("transformers {version}")),
        sites,
        tensors: all,
    })
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

impl Found {
    fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |what: &str, value: &str| {
            if !value.is_empty() {
                let _ = write!(text, "\n  {what:<10} {value}");
            }
        };
        let head = match self {
            Found::Model {
                path,
                model_type,
                class,
                layers,
                hidden,
                sites,
                classes,
                tied,
                made_by,
                tensors,
            } => {
                line("type", &format!("{model_type}, {class}"));
                if let (Some(layers), Some(hidden)) = (layers, hidden) {
                    line("size", &format!("{layers} layers of width {hidden}"));
                }
                let sites: Vec<String> = sites.iter().map(|(kind, n)| format!("{n} x {kind}")).collect();
                line("sites", &sites.join(", "));
                line("classes", &classes.join(", "));
                line("head", if *tied { "tied to the word embedding" } else { "its own" });
                line("made by", made_by.as_deref().unwrap_or_default());
                line("weights", &tensors.text());
                format!("{}: a model", path.display())
            }
            Found::Adapter {
                path,
                method,
                peft_type,
                base_model,
                made_by,
                task,
                classes,
                set,
                norms,
                changes,
                tensors,
            } => {
                line("method", &format!("{method} ({peft_type})"));
                line("base", base_model.as_deref().unwrap_or("not said"));
                line("task", task.as_deref().unwrap_or_default());
                line("classes", &classes.join(", "));
                line("made by", made_by.as_deref().unwrap_or_default());
                let set: Vec<String> = set.iter().map(|(f, v)| format!("{f} = {v}")).collect();
                line("set", &set.join(", "));
                line("weights", &tensors.text());
                for (leaf, n) in norms {
                    line(
                        "norm",
                        &format!(
                            "{leaf}: {} tensors, {:.4} on average, {:.4} at most",
                            n.count, n.mean, n.max
                        ),
                    );
                }
                for change in changes {
                    let rank =
                        change.effective_rank.map(|r| format!(", effective rank {r:.1}")).unwrap_or_default();
                    line("changes", &format!("{} by {:.3} %{rank}", change.name, 100.0 * change.relative));
                }
                format!("{}: an adapter", path.display())
            }
            Found::Checkpoint { path, manifest } => {
                for (name, file) in manifest.get("files").and_then(Value::as_object).into_iter().flatten() {
                    let bytes = file.get("bytes").and_then(Value::as_i64).unwrap_or_default();
                    line("file", &format!("{name}, {}", human_bytes(bytes)));
                }
                format!("{}: a checkpoint", path.display())
            }
        };
        format!("{head}{text}")
    }
}
