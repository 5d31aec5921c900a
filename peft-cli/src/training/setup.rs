//! From settings to a model with a fresh adapter and its data.

use crate::output::Output;
use crate::recipe::{Kind, Settings};
use crate::source::Source;
use crate::training::data::{Data, Read};
use anyhow::{Result, bail, ensure};
use peft_core::hub::{self, Head, Options};
use peft_core::io::read_json;
use peft_core::quant::Nf4Config;
use peft_core::tch::{self, Device};
use peft_core::text::{Limits, TextEncoder};
use peft_core::{Peft, TaskType, device};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What the adapter is called in the model; PEFT's name for one that has none.
pub const ADAPTER: &str = "default";

/// All that a training needs.
#[derive(Debug)]
pub struct Setup {
    pub peft: Peft,
    pub model: PathBuf,
    pub encoder: TextEncoder,
    pub data: Data,
    pub kind: Kind,
    pub device: Device,
    /// What was read and passed over, and what else should be said before it is trained.
    pub warnings: Vec<String>,
}

/// What a model is for, where the recipe does not say it.
pub fn kind(settings: &Settings, causal: bool) -> Result<Kind> {
    match (settings.task, causal) {
        (None, true) | (Some(Kind::Causal), true) => Ok(Kind::Causal),
        (None, false) => Ok(Kind::Classes),
        (Some(Kind::Causal), false) => {
            bail!("task: causal, and the model is none of next tokens; it is for classes or regression")
        }
        (Some(_), true) => {
            bail!("task: is for an encoder (BERT, RoBERTa), and the model is one of next tokens")
        }
        (Some(kind), false) => Ok(kind),
    }
}

impl Setup {
    /// Opens, reads and draws all of it. What takes no time comes first.
    pub fn new(settings: &Settings, seed: u64, output: &Output) -> Result<Self> {
        let device = settings.device.open()?;
        match settings.memory_limit {
            Some(limit) => device::limit_memory(limit.0),
            None => device::count_memory(),
        }
        let source: Source = settings.model.parse()?;
        let model = source.model(output)?;
        let causal = hub::architecture(&model, Head::Stored)?.dims().causal();
        let kind = kind(settings, causal)?;
        settings.check(kind)?;
        let own = stored_labels(&model)?;
        let read = Read::new(settings, kind, &own)?;
        let head = match (kind, read.labels()) {
            (_, Some(labels)) => Options::named(labels),
            (Kind::Regression, None) => Options::from(Head::Classes(1)),
            (_, None) => Head::Stored.into(),
        };
        let fresh = head.head.classes().filter(|_| settings.new_head).map(Head::Fresh);
        let head = Options { head: fresh.unwrap_or(head.head), ..head };
        let quantise = settings.nf4.then(Nf4Config::default);
        let options = Options { kind: settings.dtype, quantise, ..head };
        tch::manual_seed(i64::from_ne_bytes(seed.to_ne_bytes())); // a fresh head is drawn as well
        let hub::Opened { mut peft, warnings, fresh, .. } = hub::open(&model, device, options)?;
        let mut warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        if let Some(labels) =
            read.labels().filter(|labels| fresh.is_empty() && *labels != own && !unnamed(&own))
        {
            warnings.push(format!(
                "the model's head is for {}; its outputs are called {} from now on, in this order (labels says another, \
                 new_head draws a new head)",
                own.join(", "),
                labels.join(", ")
            ));
        }
        if !fresh.is_empty() {
            output.note(format!("the head is new: {}", fresh.join(", ")));
        }
        settings.threads.set(peft.report(&[])?.all);

        let task = if kind == Kind::Causal { TaskType::CausalLm } else { TaskType::SeqCls };
        let base = settings.base_name.clone().unwrap_or_else(|| source.name().to_owned());
        peft.add(ADAPTER, settings.method.config(task, &base, source.revision())?)?;
        output.note(peft.report(&[ADAPTER])?);

        let limits = Limits::of(&peft.outline().dims, &model)?;
        let trained = trained_length(&model)?;
        let longest = match settings.said.length {
            Some(said) => said,
            None => settings.length.min(trained.unwrap_or(i64::MAX)),
        };
        if let Some(most) = trained.filter(|most| longest > *most) {
            warnings.push(format!(
                "length: {longest} is more than the {most} tokens that the model was trained with"
            ));
        }
        ensure!(longest > 1, "length: is {longest}, expected 2 tokens or more");
        let encoder = TextEncoder::open(&model, limits.within(longest, virtual_tokens(&peft)?))?;
        ensure!(
            !settings.pack || virtual_tokens(&peft)? == 0,
            "pack: {} puts virtual tokens before a row, and each text needs its own",
            settings.method.entry.title
        );
        let data = read.encode(settings, &model, &encoder)?;
        warnings.extend(data.warnings.iter().map(ToString::to_string));
        let about = &data.about;
        let cut =
            [("train", about.truncated, about.rows), ("evaluate", about.eval_truncated, about.eval_rows)];
        for (what, cut, rows) in cut.into_iter().filter(|(_, cut, _)| *cut > 0 && kind != Kind::Causal) {
            let most = encoder.longest();
            warnings.push(format!("{cut} of {rows} rows to {what} on are longer than {most} tokens: cut"));
        }
        Ok(Self { peft, model, encoder, data, kind, device, warnings })
    }
}

/// Rows that the adapter puts before the words'.
fn virtual_tokens(peft: &Peft) -> Result<i64> {
    let config = peft.adapter_config(ADAPTER)?;
    Ok(config.and_then(|json| json.get("num_virtual_tokens")?.as_i64()).unwrap_or(0))
}

/// A whole number in a model's `config.json`.
fn trained_length(model: &Path) -> Result<Option<i64>> {
    let config = read_json(model.join(hub::CONFIG))?;
    let names = ["max_position_embeddings", "n_positions"];
    Ok(names.iter().find_map(|name| config.get(name)?.as_i64()).filter(|n| *n > 1))
}

/// The names of the classes of a model's own head, in their order.
fn stored_labels(model: &Path) -> Result<Vec<String>> {
    let config = read_json(model.join(hub::CONFIG))?;
    let names = config.get("id2label").and_then(|names| names.as_object()).cloned().unwrap_or_default();
    let by_number: BTreeMap<i64, String> =
        names.iter().filter_map(|(n, name)| Some((n.parse().ok()?, name.as_str()?.to_owned()))).collect();
    Ok(by_number.into_values().collect())
}

/// Whether these are the names that transformers gives where nobody has.
fn unnamed(labels: &[String]) -> bool {
    labels.iter().all(|label| label.starts_with("LABEL_"))
}
