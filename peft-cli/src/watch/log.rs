//! The metrics of a run as they come: `metrics.jsonl`, and TensorBoard's events beside it.

use crate::watch::Event;
use crate::watch::board::Board;
use anyhow::{Context, Result};
use peft_core::Warning;
use peft_core::io::write_atomically;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Name of the file with one event a line.
pub const FILE: &str = "metrics.jsonl";

/// Keeps the events of a run. A line is with the system as soon as it is recorded: a process that is killed loses none, and a
/// machine that stops none that was there at the last [`Log::sync`].
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    /// How long the file is with the last whole line.
    length: u64,
    board: Board,
}

impl Log {
    /// The log in the directory of a run that begins, in place of any that is there; or of one that goes on after the update
    /// `resume`: what was recorded of later ones is taken away, since they will be done again. What belongs to an update is
    /// therefore recorded before the checkpoint of it is written.
    ///
    /// Lines that are no events are taken away as well, and said, but for the last one: that is what a killed process was
    /// writing.
    ///
    /// # Errors
    /// A directory that cannot be written to.
    pub fn open(dir: &Path, resume: Option<u64>) -> Result<(Self, Vec<Warning>)> {
        let path = dir.join(FILE);
        let mut warnings = Vec::new();
        if resume.is_none() {
            Board::clear(dir)?;
        }
        std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        // The new file is written whole before it replaces the old one.
        write_atomically(&path, |out| {
            let Some(last) = resume else { return Ok(()) };
            warnings = lines(&path, |event, line| match event.step() <= last {
                true => writeln!(out, "{line}"),
                false => Ok(()),
            })
            .map_err(|error| peft_core::Error::File { path: path.clone(), error })?;
            Ok(())
        })?;
        let file = OpenOptions::new().append(true).open(&path).with_context(|| path.display().to_string())?;
        let length = file.metadata().with_context(|| path.display().to_string())?.len();
        let board = Board::begin(dir, resume.map_or(0, |step| step.saturating_add(1)))?;
        Ok((Self { path, file, length, board }, warnings))
    }

    /// Keeps an event.
    ///
    /// # Errors
    /// A disk that is full, for example. The file ends with the event before, then.
    pub fn record(&mut self, event: &Event) -> Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        if let Err(e) = self.file.write_all(&line) {
            // The next line would otherwise go on where this one broke off.
            let _ = self.file.set_len(self.length);
            return Err(e).with_context(|| self.path.display().to_string());
        }
        self.length += line.len() as u64;
        match event.scalars().as_slice() {
            [] => Ok(()),
            scalars => self.board.scalars(event.step(), scalars),
        }
    }

    /// What was recorded is on the disk when this comes back: to be called before a checkpoint is written.
    ///
    /// # Errors
    /// A disk that is full or broken.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().with_context(|| self.path.display().to_string())?;
        self.board.sync()
    }
}

/// The events of the run in a directory, in the order in which they happened, and what of the file are none; nothing where
/// there is no such file.
///
/// # Errors
/// A file that cannot be read.
pub fn events(dir: &Path) -> Result<(Vec<Event>, Vec<Warning>)> {
    let path = dir.join(FILE);
    let mut events = Vec::new();
    let warnings = lines(&path, |event, _| {
        events.push(event);
        Ok(())
    });
    let warnings = warnings.with_context(|| path.display().to_string())?;
    Ok((events, warnings))
}

/// Hands each event and its line to `each`; the lines that are none come back, but for a last one that was broken off.
fn lines(
    path: &Path,
    mut each: impl FnMut(Event, &str) -> std::io::Result<()>,
) -> std::io::Result<Vec<Warning>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut reader = BufReader::new(file);
    let (mut warnings, mut bytes) = (Vec::new(), Vec::new());
    for number in 1_u64.. {
        bytes.clear();
        reader.read_until(b'\n', &mut bytes)?;
        let Some(whole) = bytes.strip_suffix(b"\n") else { break };
        let read = std::str::from_utf8(whole).map_err(|e| e.to_string());
        let read =
            read.and_then(|line| Ok((serde_json::from_str::<Event>(line).map_err(|e| e.to_string())?, line)));
        match read {
            Ok((event, line)) => each(event, line)?,
            Err(e) => {
                let message = format!("is no event and is passed over: {e}");
                warnings.push(Warning::new(path.display(), format!("line {number}"), message));
            }
        }
    }
    Ok(warnings)
}
