//! A test model, and an empty home to fetch it into.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

pub type Files = BTreeMap<String, Vec<u8>>;

pub const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/llama");

/// A test model as the Hub has it, with an adapter in a folder and files that nobody reads.
pub fn model() -> Files {
    let mut files = Files::new();
    for (from, to) in [("base", ""), ("lora", "last/")] {
        for entry in fs::read_dir(format!("{GOLDEN}/{from}")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            files.insert(format!("{to}{name}"), fs::read(&path).unwrap());
        }
    }
    for name in ["README.md", "pytorch_model.bin", "onnx/model.onnx", "training_args.bin"] {
        files.insert(name.into(), b"nobody reads this".to_vec());
    }
    files.insert("last/peft_rs.json".into(), b"{}".to_vec());
    files.insert("tokenizer.json".into(), br#"{"model": {}}"#.to_vec());
    files
}

pub struct Home {
    pub dir: TempDir,
}

impl Home {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn repo(&self) -> PathBuf {
        self.dir.path().join("hub/models--maker--tiny")
    }

    /// `peft fetch`.
    pub fn command(&self, endpoint: &str, arguments: &[&str]) -> Command {
        self.peft(endpoint, &[&["fetch"], arguments].concat())
    }

    pub fn peft(&self, endpoint: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_peft"));
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("HF_")
                || text.to_lowercase().ends_with("_proxy")
                || text == "TRANSFORMERS_OFFLINE"
            {
                command.env_remove(&name);
            }
        }
        command.current_dir(self.dir.path()).env("HF_HOME", self.dir.path()).env("HF_ENDPOINT", endpoint);
        command.args(arguments);
        command
    }

    pub fn fetch(&self, endpoint: &str, arguments: &[&str]) -> Output {
        self.command(endpoint, arguments).output().unwrap()
    }

    /// What is in `blobs`, without what is under way.
    pub fn blobs(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.repo().join("blobs")) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

#[track_caller]
pub fn directory(output: &Output) -> PathBuf {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(std::str::from_utf8(&output.stdout).unwrap().trim())
}

#[track_caller]
pub fn refused(output: &Output, words: &[&str]) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    let error = text.lines().last().unwrap_or_default();
    assert!(error.starts_with("error: "), "{text}");
    for word in words {
        assert!(error.contains(word), "`{word}` is missing: {error}");
    }
    text
}

#[track_caller]
pub fn equal(dir: &Path, name: &str, bytes: &[u8]) {
    assert!(fs::read(dir.join(name)).unwrap() == bytes, "{name} differs");
}
