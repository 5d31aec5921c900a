//! `peft methods`.

use crate::common::table;
use crate::outcome::Outcome;
use crate::output::Output;
use anyhow::Result;
use clap::Args;
use peft_core::estimate::{Blueprint, Setup};
use peft_core::methods::catalogue::{Entry, Merges, catalogue};
use peft_core::report::commas;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::fmt::Write;

/// Lists the methods, and when to use which
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  peft methods          all of them, a line each\n  peft methods dora     its formula, its \
                        fields and their defaults\n  peft methods --json | jq -r 'select(.merges == \"yes\") | .name'"
)]
pub struct Methods {
    /// One method, by its name or its peft_type
    name: Option<String>,
}

impl Methods {
    pub fn run(&self, output: &Output) -> Result<Outcome> {
        let shapes = Shapes::new()?;
        match &self.name {
            Some(name) => {
                let all = Described::new(Entry::named(name)?, &shapes, true)?;
                output.result(&all, Described::text)?;
            }
            None => {
                let all =
                    catalogue().map(|e| Described::new(e, &shapes, false)).collect::<Result<Vec<_>>>()?;
                if output.json {
                    all.iter().try_for_each(|d| output.result(d, |_| ""))?;
                } else {
                    output.result(&(), |()| overview(&all))?;
                }
            }
        }
        Ok(Outcome::Done)
    }
}

/// Two models that shares of what is trained are said of.
struct Shapes {
    decoder: Blueprint,
    encoder: Blueprint,
}

impl Shapes {
    fn new() -> Result<Self> {
        let bert = json!({
            "model_type": "bert", "vocab_size": 30522, "hidden_size": 768, "intermediate_size": 3072,
            "num_hidden_layers": 12, "num_attention_heads": 12, "max_position_embeddings": 512, "type_vocab_size": 2
        });
        Ok(Self { decoder: Blueprint::about(7_000_000_000)?, encoder: Blueprint::read(&bert, "BERT base")? })
    }
}

/// A method, and what it trains.
#[derive(Debug, Serialize)]
struct Described {
    #[serde(flatten)]
    entry: &'static Entry,
    /// The model that `trained` and `share` are of.
    model: &'static str,
    trained: i64,
    percent: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<Map<String, Value>>,
}

impl Described {
    fn new(entry: &'static Entry, shapes: &Shapes, fields: bool) -> Result<Self> {
        let estimate = |model: &Blueprint| {
            let config = peft_core::methods::by_name(entry.name, entry.example()?)?;
            model.estimate(config, &Setup::default())
        };
        // What a Llama has no place for is said of an encoder.
        let (model, estimate) = match estimate(&shapes.decoder) {
            Ok(estimate) => ("Llama 7B", estimate),
            Err(_) => ("BERT base", estimate(&shapes.encoder)?),
        };
        let fields = fields.then(|| entry.fields()).transpose()?;
        Ok(Self {
            entry,
            model,
            trained: estimate.report.trainable,
            percent: estimate.report.percent(),
            fields,
        })
    }

    fn share(&self) -> String {
        format!("{:.3} %{}", self.percent, if self.model == "Llama 7B" { "" } else { " (BERT)" })
    }

    fn text(&self) -> String {
        let e = self.entry;
        let [low, high] = [e.learning_rates.0, e.learning_rates.1].map(|rate| format!("{rate:e}"));
        let mut text = format!("{} ({}), peft_type {}\n", e.title, e.name, e.peft_type);
        let mut line = |what: &str, value: &str| {
            if !value.is_empty() {
                let _ = writeln!(text, "  {what:<14} {value}");
            }
        };
        line("take it when", e.take_it_when);
        line("formula", e.formula);
        line("acts at", e.acts);
        line("merges", merges(e.merges));
        line(
            "trains",
            &format!("{} parameters of {}, {:.4} %", commas(self.trained), self.model, self.percent),
        );
        line("learning rate", &format!("{low} to {high}, with Adam"));
        line("read by", e.read_by);
        line("paper", e.paper);
        line("needs", if e.needs == "{}" { "" } else { e.needs });
        text.push_str("  fields, for --set field=value:\n");
        for (field, value) in self.fields.iter().flatten() {
            if !matches!(field.as_str(), "peft_type" | "peft_version" | "inference_mode") {
                let _ = writeln!(text, "    {field} = {value}");
            }
        }
        text.trim_end().to_owned()
    }
}

fn merges(merges: Merges) -> &'static str {
    match merges {
        Merges::Yes => "yes",
        Merges::WithBias => "where layers have biases",
        Merges::No => "no",
    }
}

fn overview(all: &[Described]) -> String {
    let mut table = table(["name", "peft_type", "merges", "trains", "take it when"], usize::MAX);
    for d in all {
        let merges = if d.entry.merges == Merges::Yes { "yes" } else { "no" };
        let merges = if d.entry.merges == Merges::WithBias { "with biases" } else { merges };
        table.add_row([d.entry.name, d.entry.peft_type, merges, &d.share(), d.entry.take_it_when]);
    }
    table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    format!("{table}\nShares are of Llama 7B with the defaults. `peft methods NAME` says more of one.")
}
