//! `peft plan`.

use super::recommend::blueprint;
use crate::common::{Bytes, Field, Machine, map, table};
use crate::outcome::Outcome;
use crate::output::Output;
use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use peft_core::estimate::{Blueprint, Optimizer, Plan as Planned, Setup, Shape, Storage, human_bytes};
use peft_core::methods::by_name;
use peft_core::methods::catalogue::Entry;
use peft_core::tch::Kind;
use serde::Serialize;
use serde_json::{Map, Value};
use std::fmt::Write;

/// Says what a training holds in memory, by part, from headers alone
#[derive(Debug, Args)]
#[command(
    after_help = "Weights are not read: models like it in small, of one and two layers, make a few steps on the \
                        CPU, and their memory tells that of the whole one. The bytes are those of tensors, to which a device adds \
                        some of its own.\n\nExamples:\n  peft plan models/SmolLM2 --batch 8 --length 512\n  peft plan \
                        models/SmolLM2 --method dora --set r=16 --set target_modules=all-linear --base bf16\n  peft plan 1B \
                        --fit 8GB --length 512"
)]
pub struct Plan {
    /// Model: a directory, or an id of the Hub (owner/name, owner/name@revision), of which config.json is enough; or a
    /// size: 7B, 350M
    model: String,
    /// Method by name (peft methods lists them)
    #[arg(long, value_name = "NAME", default_value = "lora")]
    method: String,
    /// A field of the method: r=16, target_modules=q_proj,v_proj; may be repeated
    #[arg(long = "set", value_name = "FIELD=VALUE")]
    set: Vec<Field>,
    /// Rows that are computed at once
    #[arg(long, value_name = "ROWS", default_value_t = 8, value_parser = clap::value_parser!(i64).range(1..))]
    batch: i64,
    /// Tokens of the longest row
    #[arg(long, value_name = "TOKENS", default_value_t = 256, value_parser = clap::value_parser!(i64).range(1..))]
    length: i64,
    /// How the base is held [default: f32; with --fit bf16 and nf4]
    #[arg(long, value_enum)]
    base: Option<Base>,
    /// Lists methods and batches that fit into this memory, 24GB or 16GiB
    #[arg(long, value_name = "MEMORY")]
    fit: Option<Bytes>,
    #[command(flatten)]
    machine: Machine,
}

/// How the base is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Base {
    /// 32 bits
    #[value(alias = "float32")]
    F32,
    /// 16 bits, with the range of 32
    #[value(alias = "bfloat16")]
    Bf16,
    /// 16 bits
    #[value(alias = "float16")]
    F16,
    /// 4 bits with double quantisation, the rest in bf16
    Nf4,
}

impl Base {
    fn setup(self) -> Setup {
        let base = match self {
            Base::F32 => Storage::Dense(Kind::Float),
            Base::Bf16 => Storage::Dense(Kind::BFloat16),
            Base::F16 => Storage::Dense(Kind::Half),
            Base::Nf4 => Storage::qlora(),
        };
        Setup { base, optimizer: Optimizer::Adam }
    }

    fn name(self) -> &'static str {
        match self {
            Base::F32 => "f32",
            Base::Bf16 => "bf16",
            Base::F16 => "f16",
            Base::Nf4 => "nf4",
        }
    }
}

/// What one training holds.
#[derive(Debug, Serialize)]
struct Held {
    method: String,
    base_dtype: &'static str,
    batch: i64,
    length: i64,
    trainable: i64,
    all: i64,
    base: i64,
    adapter: i64,
    gradients: i64,
    optimizer: i64,
    activations: i64,
    total: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    fits: Option<bool>,
}

impl Held {
    fn new(method: &str, base: Base, shape: Shape, plan: &Planned) -> Self {
        let (report, memory) = (&plan.estimate.report, plan.estimate.memory);
        Self {
            method: method.to_owned(),
            base_dtype: base.name(),
            batch: shape.batch,
            length: shape.length,
            trainable: report.trainable,
            all: report.all,
            base: memory.base,
            adapter: memory.adapter,
            gradients: memory.gradients,
            optimizer: memory.optimizer,
            activations: plan.activations,
            total: plan.total(),
            fits: None,
        }
    }

    fn text(&self, model: &str, report: &str) -> String {
        let parts = [
            ("base", self.base),
            ("adapter", self.adapter),
            ("gradients", self.gradients),
            ("optimizer", self.optimizer),
            ("activations", self.activations),
            ("total", self.total),
        ];
        let (method, base, batch, length) = (&self.method, self.base_dtype, self.batch, self.length);
        let mut text =
            format!("{model}\n{report}\n{method} over {base}, {batch} rows of {length} tokens at once:");
        for (name, bytes) in parts {
            let _ = write!(text, "\n  {name:<12} {:>10}", human_bytes(bytes));
        }
        text
    }
}

/// What is tried for `--fit`: method, how it is called, fields.
const TRIED: &[(&str, &str, &str)] = &[
    ("full", "full fine-tuning", "{}"),
    ("lora", "LoRA, r = 16, all linear layers", r#"{"r": 16, "target_modules": "all-linear"}"#),
    ("lora", "LoRA, r = 8", "{}"),
    ("ia3", "(IA)³", "{}"),
];
/// The largest batch that is tried.
const MOST_ROWS: i64 = 256;

impl Plan {
    pub fn run(&self, output: &Output) -> Result<Outcome> {
        let model = blueprint(&self.model, output).with_context(|| format!("model `{}`", self.model))?;
        self.machine.threads.set(model.parameters());
        match self.fit {
            Some(memory) => self.fit(&model, memory, output)?,
            None => self.one(&model, output)?,
        }
        Ok(Outcome::Done)
    }

    fn one(&self, model: &Blueprint, output: &Output) -> Result<()> {
        let entry = Entry::named(&self.method)?;
        let fields = map(&self.set)?;
        let shape = Shape { batch: self.batch, length: self.length };
        let base = self.base.unwrap_or(Base::F32);
        let plan = model.plan(|| by_name(entry.name, fields.clone()), &base.setup(), shape)?;
        let held = Held::new(entry.name, base, shape, &plan);
        output.result(&held, |held| held.text(&model.to_string(), &plan.estimate.report.to_string()))
    }

    /// For each method and base, the largest batch of a power of two that fits.
    fn fit(&self, model: &Blueprint, memory: Bytes, output: &Output) -> Result<()> {
        ensure!(
            self.set.is_empty(),
            "--fit tries methods with their defaults, and --set does not go with it"
        );
        let mut rows = Vec::new();
        for (name, title, fields) in TRIED {
            let fields: Map<String, Value> = serde_json::from_str(fields)?;
            for base in self.base.map_or(vec![Base::Bf16, Base::Nf4], |base| vec![base]) {
                if *name == "full" && base == Base::Nf4 {
                    continue; // there is nothing that stays in 4 bits
                }
                output.note(format!("measuring {title} over {}", base.name()));
                let found = match self.largest(model, name, &fields, base, memory) {
                    Ok(found) => found,
                    Err(e) => {
                        output.note(format!("{title} is passed over: {e}"));
                        break;
                    }
                };
                rows.push(Held { method: (*title).to_owned(), ..found });
            }
        }
        ensure!(!rows.is_empty(), "no method could be planned");
        if output.json {
            return rows.iter().try_for_each(|row| output.result(row, |_| ""));
        }
        output.result(&(), |()| {
            let mut table = table(["method", "base", "rows at once", "trained", "activations", "total"], 2);
            for r in &rows {
                let batch = if r.fits == Some(true) { r.batch.to_string() } else { "does not fit".into() };
                let trained = peft_core::report::commas(r.trainable);
                let [activations, total] = [r.activations, r.total].map(human_bytes);
                table.add_row([&r.method, r.base_dtype, &batch, &trained, &activations, &total]);
            }
            let (memory, length) = (human_bytes(memory.0), self.length);
            format!("{model}\nIn {memory}, rows of {length} tokens:\n{table}\nThe largest batch of a power of two, up to {MOST_ROWS}.")
        })
    }

    fn largest(
        &self,
        model: &Blueprint,
        name: &str,
        fields: &Map<String, Value>,
        base: Base,
        memory: Bytes,
    ) -> Result<Held> {
        let batches: Vec<i64> =
            std::iter::successors(Some(1), |n| (*n < MOST_ROWS).then_some(n * 2)).collect();
        let plans = model.plans(|| by_name(name, fields.clone()), &base.setup(), self.length, &batches)?;
        let held = batches.iter().zip(&plans).map(|(batch, plan)| {
            let held = Held::new(name, base, Shape { batch: *batch, length: self.length }, plan);
            Held { fits: Some(held.total <= memory.0), ..held }
        });
        let mut all: Vec<Held> = held.collect();
        let fitting = all.iter().rposition(|held| held.fits == Some(true)).unwrap_or_default();
        Ok(all.swap_remove(fitting))
    }
}
