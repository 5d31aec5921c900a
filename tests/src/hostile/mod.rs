//! Files made to do harm, thousands of them: each is opened by `peft` itself, and must be refused with one line that names
//! it, or be harmless. No panic, no abort, no hang, no memory without end.
//!
//! The cases run in a worker, the same program as a child: it says on stderr which one it begins and how it ended, between
//! which there is what `peft` says. A worker that dies, or is silent for too long, has failed the case it was at; the next
//! worker begins with the one after it.

mod cases;
mod json;
mod stage;
mod tensors;
mod texts;
mod worker;

pub use worker::{WORKER, work};

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// What the cases came to.
#[derive(Debug, Default)]
pub struct Report {
    /// By kind of input: how many were refused, and how many did no harm.
    pub kinds: BTreeMap<String, (usize, usize)>,
    /// What is wrong, by the number of the case.
    pub faults: Vec<(usize, String)>,
    pub slowest: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.kinds.values().fold((0, 0), |all, (no, yes)| (all.0 + no, all.1 + yes));
        for (kind, (refused, harmless)) in &self.kinds {
            writeln!(f, "{kind:24} {refused:6} refused {harmless:6} harmless")?;
        }
        for (case, what) in &self.faults {
            writeln!(f, "FAULT case {case}: {what}")?;
        }
        write!(
            f,
            "{} refused, {} harmless, {} faults; the slowest took {:.1} s",
            all.0,
            all.1,
            self.faults.len(),
            self.slowest.as_secs_f64()
        )
    }
}

/// What a worker is at.
struct Running {
    case: usize,
    kind: String,
    /// What an error has to name.
    named: String,
    since: Instant,
    said: Vec<String>,
}

/// Runs the cases `first..last` of a seed, `limit` for each.
pub fn run(program: &Path, seed: u64, first: usize, last: usize, limit: Duration) -> Result<Report> {
    let mut report = Report::default();
    let mut next = first;
    while next < last {
        // Not too many by one process: what one leaves behind is not to hide the next one's faults.
        let until = last.min(next + 200);
        next = batch(program, seed, next, until, limit, &mut report)?;
    }
    Ok(report)
}

/// Runs cases in one worker; where to go on.
fn batch(
    program: &Path,
    seed: u64,
    first: usize,
    last: usize,
    limit: Duration,
    report: &mut Report,
) -> Result<usize> {
    let mut child = Command::new(program)
        .args([WORKER, &seed.to_string(), &first.to_string(), &last.to_string()])
        .env("OMP_NUM_THREADS", "1")
        .env("HF_HUB_OFFLINE", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let lines = lines(&mut child)?;
    let mut running: Option<Running> = None;
    let mut next = first;
    loop {
        // A worker starts, and makes what is changed, in less than a minute.
        let left =
            running.as_ref().map_or(Duration::from_secs(60), |r| limit.saturating_sub(r.since.elapsed()));
        match lines.recv_timeout(left) {
            Ok(line) => match Mark::of(&line) {
                Some(Mark::Begin { case, kind, named }) => {
                    next = case + 1;
                    running = Some(Running { case, kind, named, since: Instant::now(), said: Vec::new() });
                }
                Some(Mark::End { code, memory }) => {
                    if let Some(running) = running.take() {
                        report.add(running, code, memory);
                    }
                }
                None => running.iter_mut().for_each(|r| r.said.push(line.clone())),
            },
            Err(why) => {
                // Its own child, by its handle.
                let _ = child.kill();
                let status = child.wait()?;
                let Some(running) = running else {
                    return if next >= last {
                        Ok(last)
                    } else {
                        Err(anyhow::anyhow!("a worker ended: {status}"))
                    };
                };
                let how = match why {
                    RecvTimeoutError::Timeout => format!("is not done after {limit:?}"),
                    RecvTimeoutError::Disconnected => format!("ended the program: {status}"),
                };
                let said = running.said.join(" | ");
                report.faults.push((running.case, format!("{}: {how}: {said}", running.kind)));
                return Ok(next);
            }
        }
    }
}

fn lines(child: &mut Child) -> Result<Receiver<String>> {
    let stderr: ChildStderr = child.stderr.take().context("stderr")?;
    let (send, receive) = channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(stderr);
        let mut bytes = Vec::new();
        while reader.read_until(b'\n', &mut bytes).is_ok_and(|n| n > 0) {
            let line = String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned();
            if send.send(line).is_err() {
                return;
            }
            bytes.clear();
        }
    });
    Ok(receive)
}

/// What a worker says of itself, between what `peft` says.
pub(super) enum Mark {
    Begin { case: usize, kind: String, named: String },
    End { code: u8, memory: usize },
}

impl Mark {
    const SIGN: &str = "\u{1}";

    fn of(line: &str) -> Option<Self> {
        let parts: Vec<&str> = line.strip_prefix(Self::SIGN)?.split(Self::SIGN).collect();
        match parts.as_slice() {
            ["begin", case, kind, named] => Some(Self::Begin {
                case: case.parse().ok()?,
                kind: (*kind).to_owned(),
                named: (*named).to_owned(),
            }),
            ["end", code, memory] => {
                Some(Self::End { code: code.parse().ok()?, memory: memory.parse().ok()? })
            }
            _ => None,
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = Self::SIGN;
        match self {
            Self::Begin { case, kind, named } => {
                write!(f, "{sign}begin{sign}{case}{sign}{kind}{sign}{named}")
            }
            Self::End { code, memory } => write!(f, "{sign}end{sign}{code}{sign}{memory}"),
        }
    }
}

/// In the paths of what is not changed.
const STAGE: &str = "/stage/";
/// A size that a file asks for and the machine has not got: of no file, but of the process.
const MEMORY_OUT: &str = "out of memory: ";
/// The longest message that is still one to be read.
const LONGEST: usize = 3000;
/// The most bytes of tensors for inputs of some hundred kilobytes.
const MEMORY: usize = 64 << 20;

impl Report {
    fn add(&mut self, running: Running, code: u8, memory: usize) {
        let took = running.since.elapsed();
        self.slowest = self.slowest.max(took);
        let counts = self.kinds.entry(running.kind.clone()).or_default();
        // 5 is a loss that is not finite: a flipped bit made a weight so.
        let refused = code != 0;
        if refused {
            counts.0 += 1
        } else {
            counts.1 += 1
        }
        if let Some(fault) = fault(&running, code, memory) {
            self.faults.push((running.case, format!("{}: {fault}", running.kind)));
        }
    }
}

fn fault(running: &Running, code: u8, memory: usize) -> Option<String> {
    let said = running.said.join(" | ");
    if ![0, 1, 3, 5].contains(&code) {
        return Some(format!("exit code {code}: {said}"));
    }
    if memory > MEMORY {
        return Some(format!("{memory} bytes of tensors: {said}"));
    }
    if let Some(line) = running.said.iter().find(|l| !l.starts_with("error: ") && !l.starts_with("warning: "))
    {
        return Some(format!("a line that is no error and no warning: {line:?} of: {said}"));
    }
    if let Some(line) = running.said.iter().find(|l| l.len() > LONGEST || l.chars().any(char::is_control)) {
        return Some(format!(
            "a line too long or with control characters: {:?}",
            line.get(..300).unwrap_or(line)
        ));
    }
    let errors: Vec<&String> = running.said.iter().filter(|line| line.starts_with("error: ")).collect();
    match (code, errors.as_slice()) {
        (0, []) => None,
        (0, _) => Some(format!("errors, and exit code 0: {said}")),
        // A harmless input may not go with another file, which is named then: rows without the head's classes.
        (_, [error]) if [&running.named, STAGE, MEMORY_OUT].iter().any(|name| error.contains(*name)) => None,
        (_, [error]) => Some(format!("the error does not name `{}`: {error}", running.named)),
        (_, _) => Some(format!("{} errors: {said}", errors.len())),
    }
}
