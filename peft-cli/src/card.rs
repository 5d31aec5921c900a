//! The model card beside an adapter: `README.md` with a head that the Hub reads, as Hugging Face PEFT writes it.

use crate::watch::summary::Fact;
use anyhow::{Context, Result};
use peft_core::TaskType;
use peft_core::io::write_atomically;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;

/// Name of the card in an adapter's directory.
pub const FILE: &str = "README.md";

/// The last line of a card as this program wrote it, with the hash of all that is above: one that was edited since is its
/// author's, and is not replaced.
const MARK: &str = "<!-- written by peft-rs, sha256 ";

/// What a model card says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Card {
    /// `base_model_name_or_path` of the adapter.
    pub base: String,
    /// `peft_type` of the adapter: `LORA`.
    pub peft_type: String,
    /// `task_type` of the adapter.
    pub task: Option<TaskType>,
    /// Names of a classifier's classes, in the order of its logits.
    pub classes: Vec<String>,
    /// Parameters that were trained.
    pub trainable: u64,
    /// All parameters, the base's and the adapter's.
    pub all: u64,
    /// How it was trained, by name: data, updates, learning rate, seed.
    pub training: Vec<Fact>,
    /// What was measured on rows that it was not trained on.
    pub evaluation: Vec<Fact>,
    /// Programs and libraries with their versions.
    pub versions: Vec<Fact>,
}

/// What became of a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It is there now.
    New,
    /// Another one is there that somebody wrote or edited; it stays as it is.
    Kept,
}

impl Card {
    /// Writes the card into the adapter's directory, unless one is there that somebody else wrote or has edited.
    ///
    /// # Errors
    /// A file that cannot be read, or a place that cannot be written to.
    pub fn write(&self, dir: &Path) -> Result<Written> {
        let path = dir.join(FILE);
        match fs::read_to_string(&path) {
            Ok(old) if !is_own(&old) => return Ok(Written::Kept),
            // Not text, so not from here.
            Err(e) if e.kind() == ErrorKind::InvalidData => return Ok(Written::Kept),
            Err(e) if e.kind() != ErrorKind::NotFound => {
                return Err(e).with_context(|| path.display().to_string());
            }
            _ => {}
        }
        let text = self.text();
        write_atomically(&path, |out| {
            out.write_all(text.as_bytes())
                .map_err(|error| peft_core::Error::File { path: path.clone(), error })
        })?;
        Ok(Written::New)
    }

    /// The card.
    pub fn text(&self) -> String {
        let parts = [self.head(), self.introduction(), self.usage(), self.figures()];
        let text = parts.concat();
        let mark = hash(&text);
        format!("{text}\n{MARK}{mark} -->\n")
    }

    /// What the Hub reads: the fields of PEFT's cards, in its order. A path of one computer is no model of the Hub, which
    /// refuses cards that name one: it is left out here.
    fn head(&self) -> String {
        let mut head = String::from("---\n");
        let mut tags = Vec::new();
        if is_id(&self.base) {
            head += &format!("base_model: {}\n", yaml(&self.base));
            tags.push(format!("base_model:adapter:{}", self.base));
        }
        if self.peft_type == "LORA" {
            tags.push("lora".into());
        }
        tags.push("transformers".into());
        head += "library_name: peft\n";
        match self.task {
            Some(TaskType::CausalLm) => head += "pipeline_tag: text-generation\n",
            Some(TaskType::SeqCls) => head += "pipeline_tag: text-classification\n",
            _ => {}
        }
        tags.sort();
        head += "tags:\n";
        tags.iter().for_each(|tag| head += &format!("- {tag}\n"));
        head + "---\n\n"
    }

    fn introduction(&self) -> String {
        let base = match is_id(&self.base) {
            true => format!("[{0}](https://huggingface.co/{0})", self.base),
            false => code(&self.base),
        };
        let percent = 100.0 * self.trainable as f64 / self.all.max(1) as f64;
        let (trainable, all) = (commas(self.trainable), commas(self.all));
        let name = self.base.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let mut text = format!(
            "# {} adapter for {}\n\nA {} adapter for {base}. {trainable} of {all} parameters were trained ({percent:.4} %).\n",
            self.peft_type,
            plain(name),
            self.peft_type
        );
        if !self.classes.is_empty() {
            let named = self.classes.iter().enumerate().map(|(i, name)| format!("{i} {}", code(name)));
            text += &format!("\nClasses: {}.\n", named.collect::<Vec<_>>().join(", "));
        }
        text
    }

    /// Programs that open the adapter in this directory.
    fn usage(&self) -> String {
        let (model, extra) = match self.task {
            Some(TaskType::SeqCls) if !self.classes.is_empty() => {
                ("AutoModelForSequenceClassification", format!(", num_labels={}", self.classes.len()))
            }
            Some(TaskType::SeqCls) => ("AutoModelForSequenceClassification", String::new()),
            Some(TaskType::CausalLm) => ("AutoModelForCausalLM", String::new()),
            _ => ("AutoModel", String::new()),
        };
        // A string of JSON is one of Python and, with what `{:?}` writes, of Rust.
        let python = serde_json::Value::from(self.base.as_str());
        let options = match self.task {
            Some(TaskType::SeqCls) if !self.classes.is_empty() => {
                "hub::Options::named(io::adapter::classes(\"path/of/this/adapter\")?)"
            }
            _ => "hub::Head::Stored",
        };
        format!(
            "\n## How to use it\n\nIn Python, with PEFT:\n\n```python\nfrom peft import PeftModel\nfrom transformers import \
             {model}\n\nbase = {model}.from_pretrained({python}{extra})\nmodel = PeftModel.from_pretrained(base, \
             \"path/of/this/adapter\")\n```\n\nIn Rust, with peft-rs:\n\n```rust\nlet opened = \
             hub::open(\"path/of/the/base\", Device::Cpu, {options})?;\nlet mut peft = \
             opened.peft;\npeft.load(\"mine\", \"path/of/this/adapter\")?;\nlet model = peft.view(&[\"mine\"])?;\n```\n"
        )
    }

    fn figures(&self) -> String {
        let list = |title: &str, facts: &[Fact]| match facts {
            [] => String::new(),
            facts => {
                let lines: String =
                    facts.iter().map(|f| format!("- {}: {}\n", plain(&f.name), plain(&f.value))).collect();
                format!("\n## {title}\n\n{lines}")
            }
        };
        let mut text = list("Training procedure", &self.training) + &list("Evaluation", &self.evaluation);
        if !self.versions.is_empty() {
            text += "\n### Framework versions\n\n";
            self.versions.iter().for_each(|v| text += &format!("- {} {}\n", plain(&v.name), plain(&v.value)));
        }
        text
    }
}

/// Whether a card is as this program wrote it.
fn is_own(card: &str) -> bool {
    let Some((text, mark)) = card.rsplit_once(&format!("\n{MARK}")) else { return false };
    mark.trim_end() == format!("{} -->", hash(text))
}

fn hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(8).map(|b| format!("{b:02x}")).collect()
}

/// Whether a name is one of the Hub's: `name` or `owner/name` of letters, digits, `-`, `_` and `.`. A path has a root, a dot
/// or more parts; a single name that is a directory here is a path as well.
fn is_id(name: &str) -> bool {
    let part = |p: &str| {
        p.starts_with(|c: char| c.is_ascii_alphanumeric())
            && p.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    let parts: Vec<&str> = name.split('/').collect();
    (1..=2).contains(&parts.len()) && parts.iter().all(|p| part(p)) && !Path::new(name).exists()
}

/// A name that YAML would take for a number or a truth value is a string in quotes.
fn yaml(name: &str) -> String {
    let words = ["true", "false", "yes", "no", "on", "off", "y", "n", "null"];
    let other = name.starts_with(|c: char| c.is_ascii_digit()) && !name.contains('/');
    match other || words.contains(&name.to_lowercase().as_str()) {
        true => format!("\"{name}\""),
        false => name.to_owned(),
    }
}

/// Text in which Markdown finds nothing of its own.
fn plain(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            c if c.is_control() => out.push(' '),
            '\\' | '`' | '*' | '[' | ']' | '<' | '>' | '|' | '#' | '&' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out
}

/// Text as code: between more backticks than it has in a row.
fn code(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    match text.starts_with('`') || text.ends_with('`') {
        true => format!("{fence} {text} {fence}"),
        false => format!("{fence}{text}{fence}"),
    }
}

fn commas(n: u64) -> String {
    i64::try_from(n).map_or_else(|_| n.to_string(), peft_core::report::commas)
}
