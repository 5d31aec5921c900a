//! A job in a process of its own, and both ends of the pipe to it: job in, messages out, one JSON object a line.

use crate::job::Say;
use crate::record::{Job, Message, Outcome};
use anyhow::{Context, Result};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

/// The argument with which a program starts itself as a worker.
const ARGUMENT: &str = "--worker";

/// Whether a program that is running asks whether it is to be a worker.
static ASKS: AtomicBool = AtomicBool::new(false);

/// Whether this process is to be a worker. A program whose sweeps have workers asks first of all, and calls [`main`].
pub fn asked() -> bool {
    ASKS.store(true, Ordering::Relaxed);
    std::env::args_os().nth(1).is_some_and(|argument| argument == ARGUMENT)
}

/// Whether this program, started again, would be a worker.
pub(crate) fn possible() -> bool {
    ASKS.load(Ordering::Relaxed)
}

/// The worker: runs the job on standard input. A failure is a message; the other end decides what becomes of it.
pub fn main() -> Result<bool> {
    let job: Job = serde_json::from_reader(std::io::stdin()).context("reading the job")?;
    peft_sys::memory::install();
    let last = match job.run(&mut say) {
        Ok(outcome) => Message::Ended(outcome),
        Err(e) => Message::Failed(format!("{e:#}")),
    };
    say(last)?;
    Ok(true)
}

fn say(message: Message) -> Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, &message)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

/// The other end: runs one job in a worker that is this program once more. The error is one line.
pub fn run(job: &Job, said: Say<'_>) -> std::result::Result<Outcome, String> {
    let program = std::env::current_exe().map_err(|e| format!("finding this program: {e}"))?;
    let mut command = Command::new(program);
    command.arg(ARGUMENT);
    supervise(command, job, said)
}

fn supervise(mut command: Command, job: &Job, said: Say<'_>) -> std::result::Result<Outcome, String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| format!("starting a worker: {e}"))?;
    let words = child.stderr.take().map(|mut stderr| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        })
    });
    if let Some(mut stdin) = child.stdin.take() {
        // A worker that dies at once breaks the pipe; how it ended says more.
        let _ = serde_json::to_writer(&mut stdin, job);
    }
    let last = listen(&mut child, said);
    if last.is_err() {
        // Nobody wants to hear of it any more.
        let _ = child.kill();
    }
    let status = child.wait().map_err(|e| format!("waiting for a worker: {e}"))?;
    let words = words.and_then(|w| w.join().ok()).unwrap_or_default();
    match last.map_err(|e| format!("{e:#}"))? {
        Some(Message::Ended(outcome)) if status.success() => Ok(outcome),
        Some(Message::Failed(why)) => Err(why),
        _ => Err(crash(status, &words)),
    }
}

/// Passes on what the worker says; returns its last word.
fn listen(child: &mut Child, said: Say<'_>) -> Result<Option<Message>> {
    let mut last = None;
    for line in child.stdout.take().map(|out| BufReader::new(out).lines()).into_iter().flatten() {
        let Ok(line) = line else { break };
        match serde_json::from_str(&line) {
            Ok(word @ (Message::Ended(_) | Message::Failed(_))) => last = Some(word),
            Ok(message) => said(message)?,
            Err(_) => said(Message::Note(line))?,
        }
    }
    Ok(last)
}

/// How a worker ended that did not say so itself.
fn crash(status: ExitStatus, words: &str) -> String {
    let last =
        words.lines().rev().find(|l| !l.trim().is_empty()).map(|l| format!(": {l}")).unwrap_or_default();
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        let hint = if signal == 9 { " (killed; out of memory?)" } else { "" };
        return format!("crashed with signal {signal}{hint}{last}");
    }
    format!("crashed, {status}{last}")
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::record::{Base, Work};
    use anyhow::bail;
    use peft_core::device::Threads;

    fn shell(script: &str, said: Say<'_>) -> std::result::Result<Outcome, String> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let work = Work::Pretrain { base: "unused".into(), steps: 1 };
        supervise(command, &Job { seed: 0, device: "cpu".into(), threads: Threads::default(), work }, said)
    }

    #[test]
    fn a_crash_is_a_row_that_says_so() {
        let shell = |script: &str| shell(script, &mut |_| Ok(()));
        assert_eq!(shell("kill -9 $$").unwrap_err(), "crashed with signal 9 (killed; out of memory?)");
        assert_eq!(shell("kill -6 $$").unwrap_err(), "crashed with signal 6");
        let text = shell("echo 'terminate called' >&2; exit 3").unwrap_err();
        assert!(text.contains('3') && text.ends_with("terminate called"), "{text}");
        assert_eq!(shell(r#"echo '{"Failed":"the loss is NaN"}'"#).unwrap_err(), "the loss is NaN");
        // Words without a good end count for nothing.
        let base = Base { parameters: 1, own: 0.5, unadapted: 0.25 };
        let ended = serde_json::to_string(&Message::Ended(Outcome::Pretrained(base))).unwrap();
        assert!(shell(&format!("echo '{ended}'; kill -9 $$")).is_err());
        assert_eq!(shell(&format!("echo '{ended}'")), Ok(Outcome::Pretrained(base)));
    }

    #[test]
    fn a_worker_that_nobody_hears_is_ended() {
        let mut heard = Vec::new();
        let result = shell(r#"echo '{"Progress":[1,2]}'; echo odd; exec sleep 1000"#, &mut |message| {
            heard.push(format!("{message:?}"));
            if heard.len() == 2 { bail!("enough") } else { Ok(()) }
        });
        assert_eq!(result.unwrap_err(), "enough");
        assert_eq!(heard, ["Progress(1, 2)", r#"Note("odd")"#]);
    }
}
