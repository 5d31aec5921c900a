//! One file, from the Hub into the cache: goes on where an earlier try broke off, and is compared with its hash.

use super::remote::{Meta, Remote, said};
use anyhow::{Context, Result, anyhow, bail};
use indicatif::ProgressBar;
use reqwest::StatusCode;
use reqwest::blocking::Response;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

/// Tries in a row that bring no byte.
const TRIES: u32 = 5;

/// The file that is fetched: what errors call it, and where its bytes go.
pub struct Transfer<'a> {
    pub remote: &'a Remote,
    pub repo: &'a str,
    pub name: &'a str,
    pub meta: &'a Meta,
    pub bar: &'a ProgressBar,
}

impl Transfer<'_> {
    /// Fetches the file to `blob`, by way of `<blob>.incomplete`, which stays if this fails on the way.
    ///
    /// # Errors
    /// A Hub that says no, or breaks off again and again; a disk that is full; content of another size or hash, which is
    /// removed.
    pub fn run(&self, blob: &Path) -> Result<()> {
        let mut partial = Partial::open(blob)?;
        let resumed = partial.length > 0;
        self.bar.inc(partial.length);
        self.receive(&mut partial)?;
        if let Err(e) = self.compare(&partial) {
            // What was there before may be anybody's.
            if !resumed {
                return Err(partial.discard(e));
            }
            self.bar.set_position(self.bar.position().saturating_sub(partial.length));
            partial.restart()?;
            self.receive(&mut partial)?;
            if let Err(e) = self.compare(&partial) {
                return Err(partial.discard(e));
            }
        }
        partial.file.sync_all().with_context(|| partial.place())?;
        fs::rename(&partial.path, blob).with_context(|| blob.display().to_string())
    }

    fn receive(&self, partial: &mut Partial) -> Result<()> {
        let mut idle = 0_u32;
        let mut why = String::new();
        while self.meta.size.is_none_or(|size| partial.length < size) {
            if idle >= TRIES {
                bail!(
                    "{}: broke off {TRIES} times ({why}); what has come is kept, and the next run goes on there",
                    self.name
                );
            }
            if idle > 0 {
                sleep(Duration::from_millis(100) * (1 << idle));
            }
            let before = partial.length;
            match self.remote.bytes(self.meta, partial.length) {
                Err(e) => why = said(&e),
                Ok(answer) => match self.pour(answer, partial)? {
                    None if self.meta.size.is_none() => return Ok(()),
                    None => why = "the answer is shorter than the file".into(),
                    Some(broken) => why = broken,
                },
            }
            idle = if partial.length > before { 0 } else { idle.saturating_add(1) };
        }
        Ok(())
    }

    /// Takes what one answer brings; says why it ended early.
    fn pour(&self, mut answer: Response, partial: &mut Partial) -> Result<Option<String>> {
        match answer.status() {
            StatusCode::PARTIAL_CONTENT if starts(&answer) == Some(partial.length) => {}
            StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE
                if partial.length > 0 =>
            {
                // A server that cannot go on in the middle.
                self.bar.set_position(self.bar.position().saturating_sub(partial.length));
                partial.restart()?;
                if answer.status() != StatusCode::OK {
                    return Ok(Some(format!("the server answers {} where it should go on", answer.status())));
                }
            }
            StatusCode::OK => {}
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                return Ok(Some(format!("the server answers {status}")));
            }
            _ => return Err(self.remote.turned_down(self.repo, self.name, &answer)),
        }
        let mut buffer = vec![0; 1 << 16];
        loop {
            let bytes = match answer.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(n) => buffer.get(..n).unwrap_or_default(),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Ok(Some(said(&e))),
            };
            partial.take(bytes).with_context(|| format!("{}: what has come is kept", self.name))?;
            self.bar.inc(bytes.len() as u64);
        }
    }

    fn compare(&self, partial: &Partial) -> Result<()> {
        if let Some(size) = self.meta.size.filter(|size| *size != partial.length) {
            bail!("{} has {} bytes and should have {size}", self.name, partial.length);
        }
        let etag = &self.meta.etag;
        if etag.len() != 64 || !etag.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(()); // small files are named by git
        }
        let found = format!("{:x}", partial.hash.clone().finalize());
        if found != etag.to_lowercase() {
            bail!("{} has the sha256 {found} and should have {etag}", self.name);
        }
        Ok(())
    }
}

/// Where a partial answer starts: `Content-Range: bytes 17-99/100`.
fn starts(answer: &Response) -> Option<u64> {
    let range = answer.headers().get("content-range")?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

/// The bytes that are there so far, and their hash.
struct Partial {
    path: PathBuf,
    file: File,
    length: u64,
    hash: Sha256,
}

impl Partial {
    fn open(blob: &Path) -> Result<Self> {
        super::cache::make_parent(blob)?;
        let path = PathBuf::from(format!("{}.incomplete", blob.display()));
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let mut partial = Self {
            file: file.with_context(|| path.display().to_string())?,
            path,
            length: 0,
            hash: Sha256::new(),
        };
        partial.length =
            std::io::copy(&mut partial.file, &mut partial.hash).with_context(|| partial.place())?;
        Ok(partial)
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn take(&mut self, bytes: &[u8]) -> Result<()> {
        if let Err(e) = self.file.write_all(bytes) {
            // A part of them may be there, and is not in the hash.
            let _ = self.file.set_len(self.length);
            let full = matches!(
                e.kind(),
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
            );
            let hint = if full { "; make room, or set HF_HOME to a larger disk" } else { "" };
            bail!("{}: {e}{hint}", self.place());
        }
        self.hash.update(bytes);
        self.length = self.length.saturating_add(bytes.len() as u64);
        Ok(())
    }

    fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).with_context(|| self.place())?;
        self.file.seek(SeekFrom::Start(0)).with_context(|| self.place())?;
        self.length = 0;
        self.hash = Sha256::new();
        Ok(())
    }

    fn discard(&self, why: anyhow::Error) -> anyhow::Error {
        match fs::remove_file(&self.path) {
            Ok(()) => anyhow!("{why}: it is removed; the Hub or the way there is broken, try again"),
            Err(e) => anyhow!("{why}: remove {} ({e})", self.place()),
        }
    }
}
