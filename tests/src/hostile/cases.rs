//! The kinds of inputs, and how `peft` comes to open each.

use crate::golden;
use crate::hostile::stage::{Stage, copy};
use crate::hostile::{json, tensors, texts};
use crate::random::Random;
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// What is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Weights,
    Header,
    ModelConfig,
    Index,
    Tokenizer,
    TokenizerConfig,
    Template,
    GenerationConfig,
    AdapterWeights,
    AdapterHeader,
    AdapterConfig,
    Recipe,
    Chats,
    Rows,
    Table,
    CheckpointBytes,
    CheckpointState,
    CheckpointJson,
}

pub const KINDS: &[Kind] = &[
    Kind::Weights,
    Kind::Header,
    Kind::ModelConfig,
    Kind::ModelConfig,
    Kind::Index,
    Kind::Tokenizer,
    Kind::TokenizerConfig,
    Kind::Template,
    Kind::Template,
    Kind::GenerationConfig,
    Kind::AdapterWeights,
    Kind::AdapterHeader,
    Kind::AdapterConfig,
    Kind::AdapterConfig,
    Kind::Recipe,
    Kind::Recipe,
    Kind::Chats,
    Kind::Rows,
    Kind::Table,
    Kind::CheckpointBytes,
    Kind::CheckpointState,
    Kind::CheckpointJson,
];

/// Methods whose adapters are changed.
const ADAPTERS: &[&str] = &[
    "lora",
    "dora",
    "adalora",
    "ia3",
    "loha",
    "lokr",
    "oft",
    "vera",
    "prefix",
    "prompt",
    "ptuning",
    "ln_tuning",
    "lora_mts",
    "lora_pattern",
    "adaption_prompt",
    "x_trainable_tokens",
    "x_lora_embedding",
    "x_ptuning_lstm",
];

/// An input.
#[derive(Debug)]
pub struct Case {
    /// Of `peft`, its own name first.
    pub arguments: Vec<OsString>,
    /// What an error has to name.
    pub named: String,
}

impl Case {
    /// Makes an input in a new directory; unchanged, if it is not to be `hostile`.
    pub fn new(stage: &Stage, kind: Kind, random: &mut Random, dir: &Path, hostile: bool) -> Result<Self> {
        fs::create_dir_all(dir)?;
        match kind {
            Kind::Weights | Kind::Header | Kind::ModelConfig | Kind::Tokenizer => {
                let bert = random.below(2) == 0;
                let name = if bert { "bert" } else { "llama" };
                let model = dir.join("model");
                copy(&stage.root.join(name), &model)?;
                let file = match kind {
                    Kind::ModelConfig => "config.json",
                    Kind::Tokenizer => "tokenizer.json",
                    _ => "model.safetensors",
                };
                change(&model.join(file), kind, random, hostile)?;
                Ok(train(dir, &model, &stage.root.join(if bert { "classes.jsonl" } else { "chats.jsonl" })))
            }
            Kind::TokenizerConfig | Kind::Template => {
                let model = dir.join("model");
                copy(&stage.root.join("llama"), &model)?;
                let names = ["tokenizer_config.json", "tokenizer_config.json", "special_tokens_map.json"];
                let file = if kind == Kind::Template { "chat_template.jinja" } else { *random.of(&names) };
                if kind == Kind::TokenizerConfig && random.below(2) == 0 {
                    // The template within the settings.
                    fs::remove_file(model.join("chat_template.jinja"))?;
                    let path = model.join("tokenizer_config.json");
                    let mut config = peft_core::io::read_json(&path)?;
                    config["chat_template"] = texts::template(random).into();
                    peft_core::io::write_json(&path, &config)?;
                }
                change(&model.join(file), kind, random, hostile)?;
                Ok(train(dir, &model, &stage.root.join("chats.jsonl")))
            }
            Kind::Index | Kind::GenerationConfig => {
                let model = dir.join("model");
                let (from, file) = match kind {
                    Kind::Index => ("sharded", "model.safetensors.index.json"),
                    _ => ("llama", "generation_config.json"),
                };
                copy(&stage.root.join(from), &model)?;
                change(&model.join(file), kind, random, hostile)?;
                let named = dir.display().to_string();
                let model = model.into_os_string();
                Ok(Self {
                    arguments: words(&["generate", "--quiet", "--tokens=2"], [model, "Hi".into()]),
                    named,
                })
            }
            Kind::AdapterWeights | Kind::AdapterHeader | Kind::AdapterConfig => {
                let adapter = dir.join("adapter");
                let name = random.of(ADAPTERS);
                copy(&golden("llama").join(name), &adapter)?;
                let config = kind == Kind::AdapterConfig;
                let file = if config { "adapter_config.json" } else { "adapter_model.safetensors" };
                change(&adapter.join(file), kind, random, hostile)?;
                let (base, named) = (golden("llama/base"), adapter.display().to_string());
                let method =
                    peft_core::io::read_json(golden("llama").join(name).join("adapter_config.json"))?;
                let input = [
                    "PREFIX_TUNING",
                    "PROMPT_TUNING",
                    "P_TUNING",
                    "ADAPTION_PROMPT",
                    "MULTITASK_PROMPT_TUNING",
                ];
                let merge = random.below(2) == 0 && !input.iter().any(|kind| method["peft_type"] == *kind);
                let arguments = match merge {
                    true => {
                        words(&["merge", "--quiet"], [base.into(), adapter.into(), dir.join("out").into()])
                    }
                    false => words(
                        &["generate", "--quiet", "--tokens=2"],
                        [base.into(), "5 17 2".into(), "--adapter".into(), adapter.into()],
                    ),
                };
                Ok(Self { arguments, named })
            }
            Kind::Recipe => {
                let recipe = dir.join("recipe.toml");
                fs::copy(stage.root.join("recipe.toml"), &recipe)?;
                if hostile {
                    let text = fs::read_to_string(&recipe)?;
                    fs::write(&recipe, texts::recipe(&text, random))?;
                }
                let mut case = train(dir, &stage.root.join("bert"), &stage.root.join("classes.jsonl"));
                case.arguments.push(recipe.into());
                // A field of it.
                case.named = String::new();
                Ok(case)
            }
            Kind::Chats | Kind::Rows | Kind::Table => {
                let name = match kind {
                    Kind::Chats => "chats.jsonl",
                    Kind::Rows => "classes.jsonl",
                    _ => "classes.csv",
                };
                let array = kind != Kind::Table && random.below(4) == 0;
                let data = dir.join(if array { "data.json" } else { name });
                let text = fs::read(stage.root.join(name))?;
                fs::write(&data, if hostile { texts::rows(text, kind, array, random) } else { text })?;
                let model = stage.root.join(if kind == Kind::Chats { "llama" } else { "bert" });
                Ok(train(dir, &model, &data))
            }
            Kind::CheckpointBytes | Kind::CheckpointState | Kind::CheckpointJson => {
                let run = dir.join("run");
                copy(&stage.root.join("run"), &run)?;
                let checkpoint = run.join("checkpoints").join("checkpoint-2");
                let files: &[&str] = match kind {
                    Kind::CheckpointBytes => {
                        &["state.safetensors", "run.json", "progress.json", "manifest.json", "run.toml"]
                    }
                    Kind::CheckpointState => &["state.safetensors"],
                    _ => &["run.json", "progress.json", "manifest.json"],
                };
                let file = random.of(files);
                change(&checkpoint.join(file), kind, random, hostile)?;
                // Otherwise the checksums find it.
                if kind != Kind::CheckpointBytes && *file != "manifest.json" {
                    sign(&checkpoint)?;
                }
                let more = ["--resume", "--max-steps=3", "--output"].map(OsString::from);
                let arguments = words(&["train", "--quiet"], more.into_iter().chain([run.clone().into()]));
                Ok(Self { arguments, named: run.display().to_string() })
            }
        }
    }
}

fn words(first: &[&str], rest: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let first = ["peft"].iter().chain(first).map(OsString::from);
    first.chain(rest).collect()
}

/// One step of training in `dir`, whose name an error has to have.
fn train(dir: &Path, model: &Path, data: &Path) -> Case {
    let first = ["train", "--quiet", "--max-steps=1", "--save-every=9", "--epochs=1", "--length=64"];
    let mut arguments = words(&first, []);
    for (flag, path) in [("--model", model), ("--data", data), ("--output", &dir.join("run"))] {
        arguments.extend([OsString::from(flag), path.into()]);
    }
    Case { arguments, named: dir.display().to_string() }
}

fn change(path: &PathBuf, kind: Kind, random: &mut Random, hostile: bool) -> Result<()> {
    if !hostile {
        return Ok(());
    }
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    let changed = match kind {
        Kind::Header | Kind::AdapterHeader => tensors::header(&bytes, random)?,
        Kind::Weights | Kind::AdapterWeights => tensors::changed(bytes, random),
        Kind::CheckpointState if random.below(2) == 0 => tensors::header(&bytes, random)?,
        Kind::CheckpointState => tensors::changed(bytes, random),
        Kind::CheckpointBytes => raw(bytes, random),
        Kind::Template => texts::template(random).into_bytes(),
        _ => json::changed(bytes, random),
    };
    Ok(fs::write(path, changed)?)
}

/// Bytes that are cut off or changed.
pub fn raw(mut bytes: Vec<u8>, random: &mut Random) -> Vec<u8> {
    match random.below(3) {
        0 => bytes.truncate(random.below(bytes.len())),
        _ => random.change(&mut bytes),
    }
    bytes
}

/// Puts the right lengths and checksums into a checkpoint's manifest.
fn sign(checkpoint: &Path) -> Result<()> {
    let path = checkpoint.join("manifest.json");
    let mut manifest = peft_core::io::read_json(&path)?;
    let files = manifest["files"].as_object_mut().context("files")?;
    for (name, entry) in files {
        let bytes = fs::read(checkpoint.join(name))?;
        let hash: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        *entry = serde_json::json!({ "bytes": bytes.len(), "sha256": hash });
    }
    Ok(peft_core::io::write_json(&path, &manifest)?)
}
