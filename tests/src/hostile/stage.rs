//! What is well, before it is changed.

use crate::golden;
use anyhow::{Context, Result, ensure};
use peft_core::io::{read_json, tensors, write_json};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tch::Tensor;

/// Folders to be copied: `llama` (a model with a tokenizer, a chat template and settings), `bert`, `sharded` (a Llama in two
/// files), `run` (a Llama's training of two steps, with checkpoints), and data.
#[derive(Debug)]
pub struct Stage {
    pub root: PathBuf,
}

/// Rows of chats: a message is learned in one epoch of one step.
const CHATS: &str = r#"{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]}
{"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
"#;
const CLASSES: &str = "{\"text\": \"the cat\", \"label\": \"a\"}\n{\"text\": \"a dog\", \"label\": \"b\"}\n{\"text\": \"it was\", \"label\": \"c\"}\n";
const TABLE: &str = "text,label\n\"the cat, sat\",a\na dog,b\nit was,c\n";

impl Stage {
    pub fn new(root: &Path) -> Result<Self> {
        let root = root.join("stage");
        llama(&root.join("llama"))?;
        bert(&root.join("bert"))?;
        sharded(&root.join("sharded"), &root.join("llama"))?;
        for (name, text) in [("chats.jsonl", CHATS), ("classes.jsonl", CLASSES), ("classes.csv", TABLE)] {
            fs::write(root.join(name), text)?;
        }
        fs::write(root.join("recipe.toml"), RECIPE)?;
        let stage = Self { root };
        let mut run: Vec<OsString> = ["peft", "train", "--quiet", "--output"].map(OsString::from).into();
        run.push(stage.root.join("run").into());
        run.extend(
            ["--save-every=1", "--max-steps=2", "--batch=1", "--set", "lora_dropout=0.5"].map(OsString::from),
        );
        for (flag, name) in [("--model", "bert"), ("--data", "classes.jsonl")] {
            run.push(flag.into());
            run.push(stage.root.join(name).into());
        }
        ensure!(peft_cli::main(run) == ExitCode::SUCCESS, "the training to be changed failed");
        Ok(stage)
    }
}

/// All fields of a recipe that cost no time.
const RECIPE: &str = "task = \"classes\"\nmethod = \"lora\"\nlength = 32\nlabels = [\"a\", \"b\", \"c\"]\noptimizer = \"adamw\"\n\
                      lr = 1e-3\nweight_decay = 0.01\nbeta1 = 0.9\nbeta2 = 0.99\neps = 1e-8\nclip = 1.0\n\
                      schedule = \"cosine\"\nwarmup = 0.1\nbatch = 2\nmicro_batch = 1\norder = \"by_length\"\n\
                      seeds = [3]\neval_share = 0.5\neval_every = 2\neval_batch = 4\nmetric = \"accuracy\"\n\
                      patience = 3\nsave_every = 5\nkeep = 2\ndtype = \"float32\"\nthreads = \"1\"\ndevice = \"cpu\"\n\
                      \n[set]\nr = 4\nlora_alpha = 8\nlora_dropout = 0.1\ntarget_modules = [\"query\", \"value\"]\n\
                      bias = \"none\"\nrank_pattern = { query = 2 }\n";

/// A Llama with a vocabulary for the chat template's tokenizer.
fn llama(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    let base = golden("llama/base");
    let all = tensors::read(base.join("model.safetensors"))?;
    let rows = Tensor::arange(260, (tch::Kind::Int64, tch::Device::Cpu)).remainder(96);
    let wider = all.into_iter().map(|(name, t)| match t.size().as_slice() {
        [96, _] => (name, t.index_select(0, &rows)),
        _ => (name, t),
    });
    tensors::write(dir.join("model.safetensors"), &wider.collect())?;
    let mut config = read_json(base.join("config.json"))?;
    config["vocab_size"] = 260.into();
    write_json(dir.join("config.json"), &config)?;
    write_json(
        dir.join("generation_config.json"),
        &serde_json::json!({
            "bos_token_id": 1, "eos_token_id": [2, 0], "pad_token_id": 0, "do_sample": true, "temperature": 0.7,
            "top_k": 20, "top_p": 0.9, "max_length": 60, "transformers_version": "5.23.0"
        }),
    )?;
    write_json(
        dir.join("special_tokens_map.json"),
        &serde_json::json!({ "eos_token": { "content": "<|im_end|>", "lstrip": false }, "pad_token": "<|endoftext|>" }),
    )?;
    for name in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
        fs::copy(golden("text/chatml").join(name), dir.join(name)).context("text/chatml")?;
    }
    Ok(())
}

fn bert(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    for from in ["bert/base/config.json", "bert/base/model.safetensors", "text/bert/tokenizer.json"] {
        let from = golden(from);
        fs::copy(&from, dir.join(from.file_name().context("a name")?))?;
    }
    Ok(())
}

/// The model in two files, with their index.
fn sharded(dir: &Path, model: &Path) -> Result<()> {
    copy(model, dir)?;
    fs::remove_file(dir.join("model.safetensors"))?;
    let all = tensors::read(model.join("model.safetensors"))?;
    let shard = |i: usize| format!("model-{:05}-of-00002.safetensors", i % 2 + 1);
    let mut map = serde_json::Map::new();
    let mut files = [std::collections::BTreeMap::new(), std::collections::BTreeMap::new()];
    for (i, (name, t)) in all.into_iter().enumerate() {
        map.insert(name.clone(), shard(i).into());
        files[i % 2].insert(name, t);
    }
    for (i, file) in files.iter().enumerate() {
        tensors::write(dir.join(shard(i)), file)?;
    }
    let index = serde_json::json!({ "metadata": { "total_size": 1 }, "weight_map": map });
    Ok(write_json(dir.join("model.safetensors.index.json"), &index)?)
}

/// A copy of a folder.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &to)?,
            false => fs::copy(entry.path(), to).map(|_| ())?,
        }
    }
    Ok(())
}
