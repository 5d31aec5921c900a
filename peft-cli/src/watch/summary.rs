//! What a report says of a training beside its curves.

use crate::watch::{Event, Step};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a training was, and how it ended: what `report.html` says beside the curves.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// Over all: "LoRA on SmolLM2-135M-Instruct".
    pub title: String,
    /// How it ended, in a sentence: "Finished after 120 updates (3 epochs)."
    pub outcome: String,
    /// What was trained on what, by name: base, method, data, seed.
    pub facts: Vec<Fact>,
    /// The recipe, as TOML.
    pub recipe: String,
    /// Parameters that are trained.
    pub trainable: u64,
    /// All parameters, the base's and the adapter's.
    pub all: u64,
    /// The trained tensors, layers taken together.
    pub tensors: Vec<Tensors>,
    /// Memory by part, as it was forecast and as it was measured.
    pub memory: Vec<Memory>,
    /// What it ran on: versions, device, threads.
    pub environment: Vec<Fact>,
    /// What was read and passed over, and what else was warned of.
    pub warnings: Vec<String>,
}

/// A name and what it stands for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    pub name: String,
    pub value: String,
}

impl Fact {
    /// From both.
    pub fn new(name: impl ToString, value: impl ToString) -> Self {
        Self { name: name.to_string(), value: value.to_string() }
    }
}

/// Trained tensors that are alike but for their layer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tensors {
    /// With `*` for the layer's number.
    pub name: String,
    /// How many there are.
    pub count: u64,
    pub shape: Vec<i64>,
    /// Parameters of all of them.
    pub parameters: u64,
}

/// A part of the memory, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// "base", "adapter", "gradients", "optimizer", "activations", "all".
    pub part: String,
    pub predicted: Option<u64>,
    pub measured: Option<u64>,
}

/// One training of a report: most have one, several seeds have as many.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Run {
    /// What tells it from the others: "seed 1". Said only where there are several.
    pub name: String,
    pub events: Vec<Event>,
}

impl Run {
    /// The updates.
    pub fn steps(&self) -> impl DoubleEndedIterator<Item = &Step> {
        self.events.iter().filter_map(|e| if let Event::Step(step) = e { Some(step) } else { None })
    }

    /// The evaluations: update, loss, what else was measured.
    pub fn evals(&self) -> impl DoubleEndedIterator<Item = (u64, f64, &BTreeMap<String, f64>)> {
        self.events.iter().filter_map(|e| match e {
            Event::Eval { step, loss, figures, .. } => Some((*step, *loss, figures)),
            _ => None,
        })
    }

    /// The evaluation with the least loss.
    pub fn best(&self) -> Option<(u64, f64, &BTreeMap<String, f64>)> {
        self.evals().filter(|(_, loss, _)| loss.is_finite()).min_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// All tokens, and all seconds of the updates.
    pub fn work(&self) -> (u64, f64) {
        self.steps()
            .fold((0, 0.0), |(tokens, seconds), s| (tokens.saturating_add(s.tokens), seconds + s.seconds))
    }

    /// What the model made of each prompt at first, and at last: the model without the adapter, or the first sample.
    pub fn samples(&self) -> Vec<Sample> {
        let mut found: Vec<Sample> = Vec::new();
        for event in &self.events {
            let Event::Sample { step, prompt, before, text } = event else { continue };
            match found.iter_mut().find(|s| &s.prompt == prompt) {
                Some(sample) => {
                    sample.before = sample.before.take().or_else(|| before.clone());
                    (sample.step, sample.after) = (*step, Some(text.clone()));
                }
                None => {
                    let (prompt, step) = (prompt.clone(), *step);
                    let untrained = step == 0 && before.is_none();
                    let [before, after] = match untrained {
                        true => [Some(text.clone()), None],
                        false => [before.clone(), Some(text.clone())],
                    };
                    found.push(Sample { run: None, prompt, before, after, step });
                }
            }
        }
        found
    }
}

/// What a model made of a prompt.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Sample {
    /// The run's name, where there are several.
    pub run: Option<String>,
    pub prompt: String,
    pub before: Option<String>,
    pub after: Option<String>,
    /// After which update it made `after`.
    pub step: u64,
}
