//! From settings to a model with a fresh adapter and its data.

use crate::output::Output;
use crate::recipe::{Kind, Settings};
use crate::source::Source;
use crate::training::data::{Data, Read};
use anyhow::{Result, bail, ensure};
use peft_core::hub::{self, Head, Options};
use peft_core::quant::Nf4Config;
use peft_core::tch::{self, Device};
use peft_core::text::{Limits, TextEncoder};
use peft_core::{Peft, TaskType, device};
use std::path::PathBuf;

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
        let read = Read::new(settings, kind)?;
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
        if !fresh.is_empty() {
            output.note(format!("the head is new: {}", fresh.join(", ")));
        }
        settings.threads.set(peft.report(&[])?.all);

        let task = if kind == Kind::Causal { TaskType::CausalLm } else { TaskType::SeqCls };
        let base = settings.base_name.clone().unwrap_or_else(|| source.name().to_owned());
        peft.add(ADAPTER, settings.method.config(task, &base, source.revision())?)?;
        output.note(peft.report(&[ADAPTER])?);

        let limits = Limits::of(&peft.outline().dims, &model)?;
        let longest = settings.length;
        ensure!(longest > 1, "length: is {longest}, expected 2 tokens or more");
        let encoder = TextEncoder::open(&model, limits.within(longest, virtual_tokens(&peft)?))?;
        let data = read.encode(settings, &model, &encoder)?;
        warnings.extend(data.warnings.iter().map(ToString::to_string));
        if data.about.truncated > 0 && kind != Kind::Causal {
            let (cut, rows, most) = (data.about.truncated, data.about.rows, encoder.longest());
            warnings.push(format!(
                "{}: {cut} of {rows} rows are longer than {most} tokens: cut",
                settings.data.display()
            ));
        }
        Ok(Self { peft, model, encoder, data, kind, device, warnings })
    }
}

/// Rows that the adapter puts before the words'.
fn virtual_tokens(peft: &Peft) -> Result<i64> {
    let config = peft.adapter_config(ADAPTER)?;
    Ok(config.and_then(|json| json.get("num_virtual_tokens")?.as_i64()).unwrap_or(0))
}
