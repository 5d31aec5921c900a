//! `peft fetch`.

use crate::outcome::Outcome;
use crate::output::Output;
use crate::source::{Kind, Source};
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;

/// Fetches a model or an adapter from the Hub, and prints its directory
///
/// What other commands take as a model or an adapter they fetch by themselves; this does nothing else, before a journey
/// without a network, say. The files are those that peft reads, in the cache that Python uses as well. What is there is not
/// fetched again, and what broke off is gone on with.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  peft fetch HuggingFaceTB/SmolLM2-135M
  peft fetch owner/model@v1.0                    a branch, a tag or a commit
  peft fetch --adapter owner/adapter/last        an adapter, in a folder of its repository

Environment, as in Python:
  HF_HOME, HF_HUB_CACHE   where the cache is (~/.cache/huggingface, and hub in it)
  HF_TOKEN                a token for what is private or gated; or the file token in HF_HOME
  HF_HUB_OFFLINE=1        ask nobody: what the cache has, or an error
  HF_ENDPOINT             another address, of a mirror")]
pub struct Fetch {
    /// The model: owner/name, owner/name@revision, owner/name/folder@revision
    #[arg(value_name = "MODEL")]
    source: Source,
    /// It is an adapter
    #[arg(long)]
    adapter: bool,
}

#[derive(Serialize)]
struct Fetched<'a> {
    name: &'a str,
    directory: PathBuf,
}

impl Fetch {
    pub fn run(&self, output: &Output) -> Result<Outcome> {
        let kind = if self.adapter { Kind::Adapter } else { Kind::Model };
        let fetched = Fetched { name: self.source.name(), directory: self.source.directory(kind, output)? };
        output.result(&fetched, |fetched| fetched.directory.display().to_string())?;
        Ok(Outcome::Done)
    }
}
