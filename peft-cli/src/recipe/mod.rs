//! A recipe: everything that can be said of a training, as a TOML file or as flags, which go by the same names.
//!
//! [`Recipe`] is what somebody said, [`Settings`] what it comes to.

mod method;
mod settings;
mod template;
mod words;

pub use method::Method;
pub use settings::{Settings, Stop};
pub use template::{filled, template};
pub use words::{Dtype, Kind, Learn, Optimizer, Rows, Shape};

use crate::common::{Field, map};
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::Path;

/// What a recipe says; what it does not say has a default. Every field is a flag as well, which counts where both say
/// something.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[command(allow_negative_numbers = true)]
pub struct Recipe {
    /// Model: a directory, or an id of the Hub (owner/name, owner/name@revision)
    #[arg(long, value_name = "MODEL", help_heading = "What")]
    pub model: Option<String>,
    /// Data to train on: .jsonl, .json, .csv, .tsv, or one text a line
    #[arg(long, value_name = "FILE", help_heading = "What")]
    pub data: Option<String>,
    /// Directory of the run: the adapter, checkpoints, metrics, report
    #[arg(long, value_name = "DIR", help_heading = "What")]
    pub output: Option<String>,
    /// What is learned: causal (next tokens), classes, regression; what the model is for, unless it is said
    #[arg(long, help_heading = "What")]
    pub task: Option<Kind>,
    /// What the adapter's file calls its base; the model's id or path, unless it is said
    #[arg(long, value_name = "NAME", help_heading = "What")]
    pub base_name: Option<String>,

    /// Method by name (peft methods lists them) [default: lora]
    #[arg(long, value_name = "NAME", help_heading = "Method")]
    pub method: Option<String>,
    /// A PEFT adapter_config.json in place of a method's name
    #[arg(long, value_name = "FILE", help_heading = "Method")]
    pub adapter_config: Option<String>,
    /// Fields of the method: r, lora_alpha, target_modules, as adapter_config.json has them
    #[arg(skip)]
    pub set: Option<Map<String, Value>>,
    /// A field of the method: r=16, target_modules=q_proj,v_proj; may be repeated
    #[arg(long = "set", value_name = "FIELD=VALUE", help_heading = "Method")]
    #[serde(skip)]
    pub fields: Vec<Field>,

    /// Data to evaluate on
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub eval_data: Option<String>,
    /// Share of the training data that is held out to evaluate on, where there is no eval_data [default: 0]
    #[arg(long, value_name = "SHARE", help_heading = "Data")]
    pub eval_share: Option<f64>,
    /// Longest row in tokens, at most the model's; what is beyond is cut, and said [default: 1024]
    #[arg(long, alias = "max-length", value_name = "TOKENS", help_heading = "Data")]
    #[serde(alias = "max_length")]
    pub length: Option<i64>,
    /// Put several short texts into one row, which do not see each other [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, help_heading = "Data")]
    pub pack: Option<bool>,
    /// What of a chat is learned: answers, last (the last one), all [default: answers]
    #[arg(long, help_heading = "Data")]
    pub learn: Option<Learn>,
    /// Names of the classes, in the order of the head's outputs; those of the data in order, unless they are said
    #[arg(long, value_name = "NAME", value_delimiter = ',', help_heading = "Data")]
    pub labels: Option<Vec<String>>,
    /// Draw a new head for the classes, whatever head the model has [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, help_heading = "Data")]
    pub new_head: Option<bool>,

    /// Optimizer: adamw, lora_plus, lora_fa [default: adamw]
    #[arg(long, help_heading = "Optimizer")]
    pub optimizer: Option<Optimizer>,
    /// Learning rate at its peak; the middle of what is usual with the method, unless it is said
    #[arg(long, alias = "learning-rate", help_heading = "Optimizer")]
    #[serde(alias = "learning_rate")]
    pub lr: Option<f64>,
    /// Weight decay [default: 0]
    #[arg(long, value_name = "LAMBDA", help_heading = "Optimizer")]
    pub weight_decay: Option<f64>,
    /// How much of the mean of the gradients stays from step to step [default: 0.9]
    #[arg(long, help_heading = "Optimizer")]
    pub beta1: Option<f64>,
    /// How much of the mean of their squares stays [default: 0.999]
    #[arg(long, help_heading = "Optimizer")]
    pub beta2: Option<f64>,
    /// Added to the root of the mean of the squares; 1e-8, and 1e-6 for lora_fa, unless it is said
    #[arg(long, help_heading = "Optimizer")]
    pub eps: Option<f64>,
    /// How many times as fast as A the B of lora_plus learns; 16, unless it is said
    #[arg(long, value_name = "RATIO", help_heading = "Optimizer")]
    pub lora_plus_ratio: Option<f64>,
    /// Norm that gradients are scaled down to; 0 for never [default: 1]
    #[arg(long, value_name = "NORM", help_heading = "Optimizer")]
    pub clip: Option<f64>,

    /// How the learning rate goes on behind the warm-up: linear, cosine, constant [default: linear]
    #[arg(long, help_heading = "Schedule")]
    pub schedule: Option<Shape>,
    /// Share of the steps in which the learning rate rises [default: 0.05]
    #[arg(long, value_name = "SHARE", help_heading = "Schedule")]
    pub warmup: Option<f64>,
    /// Passes over the data [default: 3]
    #[arg(long, help_heading = "Schedule")]
    pub epochs: Option<f64>,
    /// Steps at most; the schedule ends there as well
    #[arg(long, value_name = "STEPS", help_heading = "Schedule")]
    pub max_steps: Option<u64>,
    /// Time at most, as 90s, 30m, 2h; then all is saved, and --resume goes on
    #[arg(long, value_name = "TIME", help_heading = "Schedule")]
    pub max_time: Option<String>,

    /// Rows a step [default: 8]
    #[arg(long, alias = "batch-size", value_name = "ROWS", help_heading = "Batches")]
    #[serde(alias = "batch_size")]
    pub batch: Option<usize>,
    /// Rows that are computed at once; the gradients of a batch's parts add up. All of the batch, unless it is said
    #[arg(long, value_name = "ROWS", help_heading = "Batches")]
    pub micro_batch: Option<usize>,
    /// Order of the rows: shuffled, by_length (shuffled, with little padding), as_is [default: shuffled]
    #[arg(long, help_heading = "Batches")]
    pub order: Option<Rows>,
    /// Seeds of initial values, order and dropout; several are so many runs, each in a folder seed-N [default: 0]
    #[arg(long, value_name = "SEED", value_delimiter = ',', help_heading = "Batches")]
    pub seeds: Option<Vec<u64>>,

    /// Evaluate every so many steps; once an epoch, unless it is said
    #[arg(long, value_name = "STEPS", help_heading = "Evaluation")]
    pub eval_every: Option<u64>,
    /// Rows at once in an evaluation [default: 16]
    #[arg(long, value_name = "ROWS", help_heading = "Evaluation")]
    pub eval_batch: Option<usize>,
    /// What says which model is best: loss, perplexity, token_accuracy, accuracy, macro_f1, mse, mae, pearson [default: loss]
    #[arg(long, help_heading = "Evaluation")]
    pub metric: Option<String>,
    /// Stop after so many evaluations without a better one
    #[arg(long, value_name = "TIMES", help_heading = "Evaluation")]
    pub patience: Option<u64>,
    /// Prompts whose answers are shown, before and after; may be repeated
    #[arg(long = "sample", alias = "samples", value_name = "PROMPT", help_heading = "Evaluation")]
    pub samples: Option<Vec<String>>,

    /// Save a checkpoint every so many steps [default: 200]
    #[arg(long, value_name = "STEPS", help_heading = "Saving")]
    pub save_every: Option<u64>,
    /// How many checkpoints are kept, the best one not counted [default: 2]
    #[arg(long, value_name = "N", help_heading = "Saving")]
    pub keep: Option<usize>,
    /// Also write the model with the adapter folded in
    #[arg(long, value_name = "DIR", help_heading = "Saving")]
    pub merge: Option<String>,

    /// Dtype of the base: stored (as its file has it), float32, bfloat16, float16 [default: stored]
    #[arg(long, help_heading = "Machine")]
    pub dtype: Option<Dtype>,
    /// Keep the base's linear layers in 4 bits (QLoRA) [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, help_heading = "Machine")]
    pub nf4: Option<bool>,
    /// Compute so many layers again for the gradients, instead of keeping what they hold: less memory, more time
    #[arg(long, value_name = "LAYERS", help_heading = "Machine")]
    pub recompute: Option<usize>,
    /// Device: cpu, cuda, cuda:N, auto [default: cpu]
    #[arg(long, help_heading = "Machine")]
    pub device: Option<String>,
    /// CPU threads: a number, or auto [default: auto]
    #[arg(long, help_heading = "Machine")]
    pub threads: Option<String>,
    /// Refuse tensors beyond this much of the CPU's memory, as 8GB: a smaller part of the batch is computed at once then
    #[arg(long, value_name = "BYTES", help_heading = "Machine")]
    pub memory_limit: Option<String>,
}

impl Recipe {
    /// Reads a recipe.
    ///
    /// # Errors
    /// A file that is not there or no TOML; a field that is unknown or has a value that it cannot have. With the line.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    /// As [`Recipe::read`], of its text.
    pub fn parse(text: &str) -> Result<Self> {
        toml::from_str(text).map_err(|e| {
            let line = e.span().map(|span| 1 + text.bytes().take(span.start).filter(|b| *b == b'\n').count());
            let message = e.message().lines().next().unwrap_or_default();
            let close =
                unknown(message).and_then(|field| closest(field).map(|c| format!("; did you mean `{c}`?")));
            let message = message.split(", expected one of").next().unwrap_or(message);
            anyhow!("line {}: {message}{}", line.unwrap_or(1), close.unwrap_or_default())
        })
    }

    /// What this recipe says, where `flags` say nothing else.
    ///
    /// # Errors
    /// A number that is none; a field of the method that is set twice.
    pub fn with(self, flags: Self) -> Result<Self> {
        self.check_numbers()?;
        flags.check_numbers()?;
        let set = map(&flags.fields)?;
        let Value::Object(mut all) = serde_json::to_value(self)? else { return Ok(flags) };
        if let Value::Object(flags) = serde_json::to_value(flags)? {
            all.extend(flags.into_iter().filter(|(_, value)| !value.is_null()));
        }
        if !set.is_empty() {
            match all.get_mut("set") {
                Some(Value::Object(fields)) => fields.extend(set),
                _ => drop(all.insert("set".into(), set.into())),
            }
        }
        Ok(serde_json::from_value(Value::Object(all))?)
    }

    /// TOML and the command line have NaN and infinity; nothing here has a use for them.
    fn check_numbers(&self) -> Result<()> {
        let all = [
            ("eval_share", self.eval_share),
            ("lr", self.lr),
            ("weight_decay", self.weight_decay),
            ("beta1", self.beta1),
            ("beta2", self.beta2),
            ("eps", self.eps),
            ("lora_plus_ratio", self.lora_plus_ratio),
            ("clip", self.clip),
            ("warmup", self.warmup),
            ("epochs", self.epochs),
        ];
        match all.into_iter().find(|(_, x)| x.is_some_and(|x| !x.is_finite())) {
            Some((name, x)) => bail!("{name}: is {}, expected a number", x.unwrap_or(f64::NAN)),
            None => Ok(()),
        }
    }

    /// The recipe's text.
    pub fn text(&self) -> Result<String> {
        Ok(toml::to_string(self)?)
    }

    /// The names of its fields, as its file has them.
    pub fn names() -> Vec<String> {
        match serde_json::to_value(Self::default()) {
            Ok(Value::Object(fields)) => fields.keys().cloned().collect(),
            _ => Vec::new(),
        }
    }
}

/// The field that a message of the parser calls unknown.
fn unknown(message: &str) -> Option<&str> {
    message.strip_prefix("unknown field `")?.split('`').next()
}

fn closest(field: &str) -> Option<String> {
    let near = Recipe::names().into_iter().map(|name| (strsim::damerau_levenshtein(field, &name), name));
    near.min().filter(|(distance, name)| *distance * 2 <= name.len()).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_and_fields_add_up() {
        let file =
            Recipe::parse("model = \"a\"\nlr = 1\nepochs = 2\n[set]\nr = 8\nlora_alpha = 16\n").unwrap();
        let flags = Recipe { lr: Some(0.5), fields: vec!["r=4".parse().unwrap()], ..Recipe::default() };
        let both = file.with(flags).unwrap();
        assert_eq!((both.lr, both.epochs, both.model.as_deref()), (Some(0.5), Some(2.0), Some("a")));
        assert_eq!(serde_json::to_string(&both.set).unwrap(), r#"{"r":4,"lora_alpha":16}"#);
        assert_eq!(Recipe::parse(&both.text().unwrap()).unwrap(), both);
    }

    /// Catches a field of a fraction that is not looked at.
    #[test]
    fn no_number_is_nan() {
        for name in Recipe::names() {
            let Ok(recipe) = Recipe::parse(&format!("{name} = nan")) else { continue };
            let error = Recipe::default().with(recipe).expect_err(&name).to_string();
            assert!(error.starts_with(&format!("{name}: is NaN")), "{error}");
        }
    }

    #[test]
    fn wrong_recipes_say_where() {
        for (text, parts) in [
            ("model = \"a\"\nlearning_rat = 1", &["line 2", "learning_rat"][..]),
            ("eval_evry = 1", &["line 1", "did you mean `eval_every`"]),
            ("lr = \"much\"", &["line 1", "string"]),
            ("batch = -1", &["line 1", "-1"]),
            ("optimizer = \"sgd\"", &["line 1", "sgd"]),
            ("a = = 1", &["line 1"]),
        ] {
            let error = format!("{:#}", Recipe::parse(text).unwrap_err());
            assert!(parts.iter().all(|p| error.contains(p)) && error.lines().count() == 1, "{text}: {error}");
        }
    }
}
