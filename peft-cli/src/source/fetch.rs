//! From an id to a directory: out of the cache, and from the Hub what that lacks.

use super::cache::{Cache, is_commit};
use super::files::{Kind, is_index, shards};
use super::id::Id;
use super::remote::{Meta, Refusal, Remote};
use super::settings::Settings;
use super::transfer::Transfer;
use crate::output::Output;
use anyhow::{Context, Result, bail};
use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::path::PathBuf;

/// The branch that counts where none is named.
const MAIN: &str = "main";

/// The directory of a model or an adapter. A commit that is whole in the cache is used without a question; of a branch or a
/// tag the Hub says where it is now, and where it cannot be asked, what the cache has is used, with a warning.
pub fn fetch(id: &Id, kind: Kind, output: &Output) -> Result<PathBuf> {
    let settings = Settings::from_environment();
    let cache = Cache::new(&settings.cache, id.repo());
    let revision = id.revision().unwrap_or(MAIN);
    let cached = cache.commit(revision).map(|commit| cache.folder(&commit, id.folder()));
    let usable = cached.clone().filter(|dir| kind.missing(dir).is_empty());
    if let Some(variable) = settings.offline {
        return usable
            .with_context(|| lacking(&cache, kind, revision, cached, &format!("{variable} is set, and ")));
    }
    if let Some(dir) = cached.as_ref().filter(|dir| is_commit(revision) && kind.whole(dir)) {
        return Ok(dir.clone());
    }
    let remote = Remote::open(&settings)?;
    let (commit, names) = match (remote.list(id.repo(), revision), usable) {
        (Ok(found), _) => found,
        (Err(Refusal::Away(why)), Some(dir)) => {
            output.warn([format!("{why}; taking {} as it is in the cache, {}", id.repo(), dir.display())]);
            return Ok(dir);
        }
        (Err(Refusal::Away(why)), None) => bail!("{why}; {}", lacking(&cache, kind, revision, cached, "")),
        (Err(Refusal::No(why)), _) => return Err(why),
    };
    let job = Job { id, kind, commit: &commit, cache: &cache, remote: &remote, output };
    job.run(&names)?;
    cache.set_commit(revision, &commit)?;
    Ok(cache.folder(&commit, id.folder()))
}

/// What the cache lacks.
fn lacking(cache: &Cache, kind: Kind, revision: &str, cached: Option<PathBuf>, why: &str) -> String {
    let place = cache.place();
    match cached.filter(|dir| dir.exists()) {
        None => format!("{why}the cache has no revision `{revision}` of it ({})", place.display()),
        Some(dir) => format!("{why}the cache lacks {} in {}", kind.missing(&dir).join(", "), dir.display()),
    }
}

struct Job<'a> {
    id: &'a Id,
    kind: Kind,
    commit: &'a str,
    cache: &'a Cache,
    remote: &'a Remote,
    output: &'a Output,
}

impl Job<'_> {
    fn run(&self, names: &[String]) -> Result<()> {
        let folder = self.id.folder();
        let inside = |name| {
            if folder.is_empty() { Some(name) } else { str::strip_prefix(name, folder)?.strip_prefix('/') }
        };
        let names: Vec<&str> = names.iter().filter_map(|name| inside(name)).collect();
        let wanted = self.kind.wanted(&names)?;
        let (indices, plain): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|name| is_index(name));
        self.get(&indices)?;
        let mut all = plain;
        for index in &indices {
            let shards = shards(&self.cache.folder(self.commit, folder).join(index))?;
            if let Some(absent) = shards.iter().find(|shard| !names.contains(&shard.as_str())) {
                bail!("{index} lists {absent}, which the repository does not have");
            }
            all.extend(shards);
        }
        self.get(&all)
    }

    /// Fetches what the snapshot lacks of these files.
    fn get(&self, names: &[String]) -> Result<()> {
        let folder = self.id.folder();
        let full = |name: &String| if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        let snapshot = self.cache.snapshot(self.commit);
        let mut todo: Vec<(String, Meta)> = Vec::new();
        for name in names.iter().map(full).filter(|name| !snapshot.join(name).exists()) {
            let meta = self.remote.meta(self.id.repo(), self.commit, &name)?;
            if self.cache.blob(&meta.etag).exists() {
                self.cache.link(self.commit, &name, &meta.etag)?;
            } else {
                todo.push((name, meta));
            }
        }
        if todo.is_empty() {
            return Ok(());
        }
        let bytes = todo.iter().filter_map(|(_, meta)| meta.size).fold(0, u64::saturating_add);
        let files = if todo.len() == 1 { "1 file".into() } else { format!("{} files", todo.len()) };
        let place = self.cache.place().display();
        self.output.note(format_args!(
            "fetching {}: {files}, {}, into {place}",
            self.id.repo(),
            HumanBytes(bytes)
        ));
        let bar = self.bar(bytes);
        for (name, meta) in &todo {
            let _lock = self.cache.lock(&meta.etag, self.output)?;
            let blob = self.cache.blob(&meta.etag);
            if !blob.exists() {
                bar.set_message(name.clone());
                Transfer { remote: self.remote, repo: self.id.repo(), name, meta, bar: &bar }.run(&blob)?;
            }
            self.cache.link(self.commit, name, &meta.etag)?;
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn bar(&self, bytes: u64) -> ProgressBar {
        let target =
            if self.output.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let template = "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}";
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::with_draw_target(Some(bytes), target).with_style(style)
    }
}
