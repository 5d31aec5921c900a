//! Events as TensorBoard reads them: a file of records, each the bytes of a small protocol-buffer message between two
//! checksums.

use anyhow::{Context, Result};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Where in a run's directory the files are: what `tensorboard --logdir` is to be given.
pub const DIRECTORY: &str = "tensorboard";
/// How each file's name begins; a number of seconds follows, by which TensorBoard sorts them.
const PREFIX: &str = "events.out.tfevents.";

/// One file of events, for one process.
#[derive(Debug)]
pub(super) struct Board {
    path: PathBuf,
    file: File,
}

impl Board {
    /// Begins a file. What older files say of updates from `first` on counts no more, since those are done again: the
    /// record that TensorFlow writes for a session that starts says so.
    pub fn begin(run: &Path, first: u64) -> Result<Self> {
        let dir = run.join(DIRECTORY);
        let cannot = || format!("{}: cannot be written to", dir.display());
        fs::create_dir_all(&dir).with_context(cannot)?;
        let older = files(&dir).with_context(cannot)?.into_iter().map(|(seconds, _)| seconds).max();
        // Two processes in one second would be in no order.
        let seconds = (now() as u64).max(older.map_or(0, |s| s.saturating_add(1)));
        let path = dir.join(format!("{PREFIX}{seconds:010}.peft"));
        let file = File::create_new(&path).with_context(|| path.display().to_string())?;
        let mut board = Self { path, file };
        board.record(|event| event.bytes(3, b"brain.Event:2"))?;
        board.record(|event| event.number(2, first).bytes(7, &Message::default().number(1, 1).0))?;
        Ok(board)
    }

    /// Takes away the files of a run that is replaced.
    pub fn clear(run: &Path) -> Result<()> {
        let dir = run.join(DIRECTORY);
        for (_, path) in files(&dir).with_context(|| dir.display().to_string())? {
            fs::remove_file(&path).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }

    /// What was measured at a step.
    pub fn scalars(&mut self, step: u64, scalars: &[(String, f64)]) -> Result<()> {
        let mut summary = Message::default();
        for (tag, value) in scalars {
            let one = Message::default().bytes(1, tag.as_bytes()).float(2, *value as f32);
            summary = summary.bytes(1, &one.0);
        }
        self.record(|event| event.number(2, step).bytes(5, &summary.0))
    }

    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().with_context(|| self.path.display().to_string())
    }

    /// An event: the time, and what `fill` adds.
    fn record(&mut self, fill: impl FnOnce(Message) -> Message) -> Result<()> {
        let event = fill(Message::default().double(1, now())).0;
        let length = (event.len() as u64).to_le_bytes();
        let parts = [&length[..], &checksum(&length), &event, &checksum(&event)];
        self.file.write_all(&parts.concat()).with_context(|| self.path.display().to_string())
    }
}

/// The files of events that there are, each with its seconds.
fn files(dir: &Path) -> std::io::Result<Vec<(u64, PathBuf)>> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let seconds = name.to_str().and_then(|n| n.strip_prefix(PREFIX)).and_then(|n| n.split('.').next());
        if let Some(seconds) = seconds.and_then(|s| s.parse().ok()) {
            found.push((seconds, dir.join(name)));
        }
    }
    Ok(found)
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// CRC-32C, turned and moved so that the checksum of bytes that hold checksums is a good one as well.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// A protocol-buffer message as far as events need it: each field is its number and kind, then its value.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn number(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    fn double(mut self, field: u64, value: f64) -> Self {
        self.varint(field << 3 | 1);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
        self
    }

    fn float(mut self, field: u64, value: f32) -> Self {
        self.varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Seven bits a byte, the lowest first; the eighth says that another follows.
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}
