//! What a killed save leaves: for each of its system calls, a save that is killed there, what others find in the
//! directory, what this crate loads from it, and whether the next save is as good as ever.

use crate::subject::Tiny;
use crate::trace::{Call, calls};
use crate::{golden, same_bits, serial, subject, subject::Subject};
use anyhow::{Context, Result, bail, ensure};
use peft_core::hub;
use peft_core::hub::Head;
use peft_core::io::{IfExists, adapter, tensors, write_json};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tch::{Device, Tensor};
use tempfile::TempDir;

/// What is saved, over what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scene {
    /// An adapter of another rank: a mixed pair would not fit.
    OtherRank,
    /// An adapter of the same rank with another alpha: a mixed pair would load, and be wrong.
    OtherAlpha,
    /// The first adapter in a directory that is not there.
    First,
    /// A model in one file over one in shards, with another tokenizer.
    Model,
    /// A single file.
    File,
    /// No save, but the load that finishes one which was killed between the files.
    Finish,
}

/// All of them.
pub const SCENES: [Scene; 6] =
    [Scene::OtherRank, Scene::OtherAlpha, Scene::First, Scene::Model, Scene::File, Scene::Finish];

/// What is in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    Nothing,
    Old,
    New,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Found::Nothing => "nothing",
            Found::Old => "old",
            Found::New => "new",
        })
    }
}

/// The outcome of a kill at the beginning of a call.
#[derive(Debug)]
pub struct Outcome {
    /// `None` for a kill after the last one.
    pub call: Option<Call>,
    /// What a reader finds that knows nothing of a save.
    pub others: Found,
    /// What this crate reads.
    pub loaded: Found,
}

/// Files by name.
type Files = BTreeMap<String, Vec<u8>>;

/// Old and new files, made once.
#[derive(Debug)]
pub struct Stage {
    scene: Scene,
    root: TempDir,
    /// Those that a directory has in the end.
    new: Files,
    old: Files,
}

const FILE: &str = "state.safetensors";

impl Scene {
    /// The file without which there is nothing to read.
    fn gate(self) -> &'static str {
        match self {
            Scene::Model => hub::CONFIG,
            Scene::File => FILE,
            _ => adapter::CONFIG,
        }
    }

    /// What the child does: saves what lies in `from` over `to`, in most scenes.
    pub fn work(self, from: &Path, to: &Path) -> Result<Box<dyn FnOnce() -> Result<()>>> {
        if self != Scene::Finish {
            return self.save(from, to);
        }
        let (mut peft, to) = (Tiny::base()?, to.to_owned());
        Ok(Box::new(move || Ok(peft.load("a", to).map(drop)?)))
    }

    /// Saves what lies in `from` over `to`, once it is called.
    fn save(self, from: &Path, to: &Path) -> Result<Box<dyn FnOnce() -> Result<()>>> {
        let (from, to) = (from.to_owned(), to.to_owned());
        Ok(match self {
            Scene::Model => {
                let peft = hub::open(&from, Device::Cpu, Head::Stored)?.peft;
                Box::new(move || Ok(hub::save_with(&peft, &to, Some(&from), IfExists::Replace)?))
            }
            Scene::File => {
                let all = tensors::read(from.join(FILE))?;
                Box::new(move || Ok(tensors::write(to.join(FILE), &all)?))
            }
            _ => {
                let mut peft = Tiny::base()?;
                peft.load("a", &from)?;
                Box::new(move || Ok(peft.save_with("a", &to, IfExists::Replace)?))
            }
        })
    }

    /// What this crate loads.
    fn load(self, dir: &Path) -> Result<BTreeMap<String, Tensor>> {
        Ok(match self {
            Scene::Model => hub::open(dir, Device::Cpu, Head::Stored)?.peft.base().tensors(),
            Scene::File => tensors::read(dir.join(FILE))?,
            _ => {
                let mut peft = Tiny::base()?;
                peft.load("a", dir)?;
                let logits = ("logits".to_owned(), subject::logits(&peft, &["a"])?);
                peft.params("a")?.tensors().into_iter().chain([logits]).collect()
            }
        })
    }
}

impl Stage {
    /// Makes old and new.
    pub fn new(scene: Scene) -> Result<Self> {
        let _serial = serial();
        let root = tempfile::tempdir()?;
        let (old, new) = (root.path().join("old"), root.path().join("new"));
        match scene {
            Scene::OtherRank => subject::lora(2, 3.0, 5)?.save("a", &old)?,
            Scene::OtherAlpha | Scene::Finish => subject::lora(4, 3.0, 5)?.save("a", &old)?,
            Scene::First => {}
            Scene::Model => models(&old, &new)?,
            Scene::File => {
                tensors::write(old.join(FILE), &BTreeMap::from([("a".into(), Tensor::from(1i64))]))?
            }
        }
        match scene {
            Scene::Model => {}
            Scene::File => {
                let b = Tensor::from_slice(&[1.5f32, 2.5]);
                tensors::write(new.join(FILE), &BTreeMap::from([("b".into(), b)]))?;
            }
            _ => subject::lora(4, 7.0, 6)?.save("a", &new)?,
        }
        // What is saved of what was opened: `config.json` is completed.
        let saved = root.path().join("saved");
        scene.save(&new, &saved)?()?;
        if scene == Scene::Finish {
            killed(&root.path().join("new"), &old)?;
        }
        Ok(Self { scene, new: files(&saved)?, old: files(&old)?, root })
    }

    /// The calls of an undisturbed save by `kills`.
    pub fn calls(&self, kills: &Path) -> Result<Vec<Call>> {
        let dir = self.prepare()?;
        let calls = calls(&mut self.child(kills, dir.path()), None)?;
        ensure!(files(&self.place(dir.path()))? == self.new, "a save does not end in what is new");
        Ok(calls)
    }

    /// Kills a save at call `n`, and looks at what is left.
    pub fn kill(&self, kills: &Path, n: usize) -> Result<Outcome> {
        let dir = self.prepare()?;
        let place = self.place(dir.path());
        let seen = calls(&mut self.child(kills, dir.path()), Some(n))?;
        let call = seen.into_iter().nth(n);
        let check = || -> Result<(Found, Found)> {
            let _serial = serial();
            let others = self.others(&place)?;
            // The next save has more to do where nothing was loaded before.
            let again = tempfile::tempdir()?;
            write(&self.place(again.path()), &files(&place)?)?;
            let loaded = self.loaded(&place)?;
            for dir in [&place, &self.place(again.path())] {
                self.scene.save(&self.root.path().join("new"), dir)?()?;
                let is = files(dir)?;
                ensure!(is == self.new, "after the next save there is {:?}", is.keys());
            }
            Ok((others, loaded))
        };
        let (others, loaded) = check().with_context(|| format!("killed at {call:?}"))?;
        Ok(Outcome { call, others, loaded })
    }

    fn child(&self, kills: &Path, dir: &Path) -> Command {
        let mut command = Command::new(kills);
        command.args(["--child", &format!("{:?}", self.scene)]);
        command.arg(self.root.path().join("new")).arg(self.place(dir));
        command
    }

    fn place(&self, dir: &Path) -> PathBuf {
        dir.join("place")
    }

    fn prepare(&self) -> Result<TempDir> {
        let dir = tempfile::tempdir()?;
        if self.scene != Scene::First {
            write(&self.place(dir.path()), &self.old)?;
        }
        Ok(dir)
    }

    /// Whoever finds the configuration must find what belongs to it, and nothing of the other.
    fn others(&self, place: &Path) -> Result<Found> {
        let is = files(place)?;
        if !is.contains_key(self.scene.gate()) {
            return Ok(Found::Nothing);
        }
        let visible = is.into_iter().filter(|(name, _)| !name.starts_with('.')).collect::<Files>();
        if visible == self.old {
            return Ok(Found::Old);
        }
        ensure!(visible == self.new, "some of each: {:?}", visible.keys());
        Ok(Found::New)
    }

    fn loaded(&self, place: &Path) -> Result<Found> {
        let found = match self.scene.load(place) {
            Ok(found) => found,
            Err(_) if self.scene == Scene::First && !place.join(adapter::CONFIG).exists() => {
                return Ok(Found::Nothing);
            }
            Err(e) => return Err(e),
        };
        let equals = |dir: &str| -> Result<bool> {
            let dir = self.root.path().join(dir);
            // Opening it would finish it.
            if !dir.exists() || (self.scene == Scene::Finish && dir.ends_with("old")) {
                return Ok(false);
            }
            let expected = self.scene.load(&dir)?;
            Ok(expected.len() == found.len()
                && expected.iter().all(|(name, t)| found.get(name).is_some_and(|f| same_bits(f, t))))
        };
        match (equals("old")?, equals("new")?) {
            (true, false) => Ok(Found::Old),
            (false, true) => Ok(Found::New),
            (old, new) => bail!("what is loaded is old: {old}, new: {new}"),
        }
    }
}

/// Makes of a directory with an adapter what a save of the one in `new` leaves that is killed right after it has moved the
/// old configuration aside.
pub fn killed(new: &Path, dir: &Path) -> Result<()> {
    let staging = dir.join(format!(".{}.saving", adapter::CONFIG));
    fs::create_dir(&staging)?;
    fs::rename(dir.join(adapter::CONFIG), staging.join(format!("{}.old", adapter::CONFIG)))?;
    for name in [adapter::CONFIG, adapter::TENSORS] {
        fs::copy(new.join(name), staging.join(format!("{name}.new")))?;
    }
    let log = json!({ "replaces": true, "files": [adapter::TENSORS], "remove": [] });
    Ok(fs::write(staging.join("log"), log.to_string())?)
}

/// A model in two shards with a word list, and another one with a tokenizer.
fn models(old: &Path, new: &Path) -> Result<()> {
    let base = golden("bert/base");
    for dir in [old, new] {
        fs::create_dir_all(dir)?;
        fs::copy(base.join(hub::CONFIG), dir.join(hub::CONFIG))?;
    }
    let all = tensors::read(base.join("model.safetensors"))?;
    let doubled = all.iter().map(|(name, t)| (name.clone(), t * 2)).collect();
    tensors::write(new.join("model.safetensors"), &doubled)?;
    fs::write(new.join("tokenizer.json"), "{}")?;
    fs::write(old.join("vocab.txt"), "[PAD]\n")?;
    let shard = |i: usize| format!("model-{i:05}-of-00002.safetensors");
    let mut map = serde_json::Map::new();
    let (mut one, mut two) = (BTreeMap::new(), BTreeMap::new());
    for (i, (name, t)) in all.into_iter().enumerate() {
        map.insert(name.clone(), shard(i % 2 + 1).into());
        if i % 2 == 0 {
            one.insert(name, t)
        } else {
            two.insert(name, t)
        };
    }
    tensors::write(old.join(shard(1)), &one)?;
    tensors::write(old.join(shard(2)), &two)?;
    Ok(write_json(old.join("model.safetensors.index.json"), &json!({ "weight_map": map }))?)
}

/// The files of [`files`], on disk.
fn write(dir: &Path, files: &Files) -> Result<()> {
    fs::create_dir_all(dir)?;
    for (name, bytes) in files {
        let path = dir.join(name);
        if name.ends_with('/') { fs::create_dir_all(path)? } else { fs::write(path, bytes)? }
    }
    Ok(())
}

/// Every file below a directory, by its path there; a folder too, if it is empty.
fn files(dir: &Path) -> Result<Files> {
    let mut all = Files::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).context("a name")?.to_owned();
        if path.is_dir() {
            all.insert(format!("{name}/"), vec![]);
            all.extend(files(&path)?.into_iter().map(|(below, bytes)| (format!("{name}/{below}"), bytes)));
        } else {
            all.insert(name, fs::read(&path)?);
        }
    }
    Ok(all)
}
