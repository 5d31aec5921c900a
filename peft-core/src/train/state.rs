//! The state of a run as files.

use crate::error::{Error, Result};
use crate::io::{read_json, tensors};
use crate::peft::Adapted;
use crate::seam::Params;
use crate::train::Run;
use crate::train::checkpoint::{self, Checkpoint, File};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Tensor};

/// The tensors of a run's state.
const TENSORS: &str = "state.safetensors";
/// Its numbers.
const RUN: &str = "run.json";

/// What a run is at, and what it must be alike in to go on from there.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Position {
    adapters: Vec<String>,
    rows: usize,
    batch: usize,
    seed: u64,
    step: u64,
    epoch: u64,
    taken: usize,
    micro_batch: usize,
}

impl Run {
    fn position(&self) -> Position {
        Position {
            adapters: self.names.clone(),
            rows: self.cursor.rows(),
            batch: self.batch,
            seed: self.seed,
            step: self.steps(),
            epoch: self.cursor.epoch,
            taken: self.cursor.taken,
            micro_batch: self.micro_batch,
        }
    }

    /// Writes all that the run is at into a new directory, whole or not at all: the adapters as they are trained, what their
    /// methods keep, the optimizer, the place in the data and the random numbers; `more` files of the caller's; and a
    /// `manifest.json` with length and checksum of each.
    ///
    /// # Errors
    /// A place that cannot be written to; nothing is left there then.
    pub fn save(&self, dir: impl AsRef<Path>, more: &[(&str, &[u8])]) -> Result<()> {
        let path = dir.as_ref();
        let mut all = BTreeMap::new();
        for (at, adapted) in self.trainer.adapters.iter().enumerate() {
            let tensors = adapted.params.tensors().into_iter();
            all.extend(tensors.map(|(name, t)| (format!("adapter.{at}.tensor.{name}"), t.detach())));
            let running = adapted.params.all_running().into_iter();
            all.extend(running.map(|(name, t)| (format!("adapter.{at}.running.{name}"), t)));
        }
        all.extend(
            self.trainer.adam().state()?.into_iter().map(|(name, t)| (format!("optimizer.{name}"), t)),
        );
        let random = self.streams.tensors().into_iter();
        all.extend(random.map(|(name, t)| (format!("random.{name}"), t)));
        let position = serde_json::to_vec_pretty(&self.position()).map_err(|e| Error::format(path, e))?;
        let mut files: Vec<File<'_>> = vec![
            (TENSORS, Box::new(|path, file| tensors::put(path, file, &all))),
            (RUN, checkpoint::bytes(&position)),
        ];
        files.extend(more.iter().map(|(name, bytes)| (*name, checkpoint::bytes(bytes))));
        checkpoint::write(path, files)
    }

    /// Goes to where the run was that wrote this directory. This one has to be made alike: of the same adapters over the same
    /// base, with the same rows, batch and seed; the learning rate, its schedule and how many rows are computed at once may
    /// be others.
    ///
    /// # Errors
    /// Files that are missing, changed or cut off, by name; a run that is not alike, by field or tensor. This run is as it
    /// was then.
    pub fn load(&mut self, dir: impl AsRef<Path>) -> Result<()> {
        let dir = Checkpoint::open(dir)?.path;
        let path = dir.join(RUN);
        let found: Position =
            serde_json::from_value(read_json(&path)?).map_err(|e| Error::format(&path, e))?;
        self.check_alike(&found, &path)?;
        let path = dir.join(TENSORS);
        let mut tensors = tensors::read(&path)?;
        let mut part = |prefix: &str| -> BTreeMap<String, Tensor> {
            let own = |name: &String| name.strip_prefix(prefix).map(str::to_owned);
            let (mine, rest) = std::mem::take(&mut tensors)
                .into_iter()
                .partition::<BTreeMap<_, _>, _>(|(n, _)| own(n).is_some());
            tensors = rest;
            mine.into_iter().filter_map(|(name, t)| Some((own(&name)?, t))).collect()
        };
        let adapters = self.trainer.adapters.iter().enumerate().map(|(at, adapted)| {
            let tensors = part(&format!("adapter.{at}.tensor."));
            let running = part(&format!("adapter.{at}.running."));
            (adapted.clone(), tensors, running)
        });
        let adapters: Vec<_> = adapters.collect();
        let (optimizer, random) = (part("optimizer."), part("random."));
        if !tensors.is_empty() {
            let names = tensors.into_keys().collect();
            return Err(Error::Unread { place: path.display().to_string(), names });
        }
        // All is looked at before anything is changed.
        let place = path.display().to_string();
        for (adapted, tensors, _) in &adapters {
            check_tensors(adapted, tensors, &place)?;
        }
        let random = random.iter().map(|(name, t)| (name.as_str(), t.shallow_clone())).collect();
        let streams = self.streams.tensors();
        self.streams.restore(&random).map_err(|e| Error::In { path: path.clone(), error: Box::new(e) })?;
        if let Err(e) = self.trainer.optimizer().load_state(&optimizer) {
            self.streams.restore(&streams.into_iter().collect())?;
            return Err(Error::In { path, error: Box::new(e) });
        }
        for (adapted, tensors, running) in adapters {
            put(&adapted.params, tensors, running)?;
        }
        self.cursor.seek(found.epoch, found.taken)?;
        self.micro_batch = found.micro_batch.min(self.micro_batch);
        Ok(())
    }

    /// What the data's order and the adapters hang on must be the same.
    fn check_alike(&self, found: &Position, path: &Path) -> Result<()> {
        let own = self.position();
        let fields = [
            ("adapters", found.adapters.join(", "), own.adapters.join(", ")),
            ("rows", found.rows.to_string(), own.rows.to_string()),
            ("batch", found.batch.to_string(), own.batch.to_string()),
            ("seed", found.seed.to_string(), own.seed.to_string()),
        ];
        match fields.into_iter().find(|(_, found, own)| found != own) {
            None => Ok(()),
            Some((field, found, own)) => {
                let message = format!("is {found}, and of this run {own}: it is the state of another run");
                Err(Error::config(path.display(), field, message))
            }
        }
    }
}

/// That a file has just the tensors of an adapter, in their shapes and dtypes.
fn check_tensors(adapted: &Adapted, found: &BTreeMap<String, Tensor>, place: &str) -> Result<()> {
    let own = adapted.params.tensors();
    let superfluous: Vec<String> = found.keys().filter(|name| !own.contains_key(*name)).cloned().collect();
    if !superfluous.is_empty() {
        return Err(Error::Unread { place: place.to_owned(), names: superfluous });
    }
    for (name, t) in own {
        let (expected, place) = (t.size(), place.to_owned());
        let Some(tensor) = found.get(&name) else {
            return Err(Error::Missing { place, name, expected, hint: String::new() });
        };
        if tensor.size() != expected {
            let found = tensor.size();
            return Err(Error::Shape { place, name, expected, found, hint: String::new() });
        }
        if tensor.kind() != t.kind() {
            let message = format!("has dtype {:?}, and in this run {:?}", tensor.kind(), t.kind());
            return Err(Error::config(place, name, message));
        }
    }
    Ok(())
}

/// Gives an adapter its values and what its method keeps.
fn put(params: &Params, tensors: BTreeMap<String, Tensor>, running: BTreeMap<String, Tensor>) -> Result<()> {
    for (name, t) in &tensors {
        params.assign(name, t)?;
    }
    params.all_running().keys().for_each(|name| params.remove_running(name));
    for (name, t) in running {
        params.set_running(&name, on(&t, params.device())?);
    }
    Ok(())
}

fn on(t: &Tensor, device: Device) -> Result<Tensor> {
    Ok(t.f_to(device)?)
}
