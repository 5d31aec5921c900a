//! What every program does alike: help, JSON, a reader that leaves, an interrupt, the table of contents.

mod common;

use anyhow::{Context, Result, ensure};
use common::program;
use notebooks_rs::DOCUMENTS;
use serde_json::Value;
use std::io::Read;
use std::process::{Command, Stdio};

#[test]
fn the_list_has_every_section() -> Result<()> {
    for args in [vec![], vec!["--list"]] {
        let out = program("notebooks-rs")?.args(args).output()?;
        let text = String::from_utf8(out.stdout)?;
        for s in DOCUMENTS.iter().flat_map(|d| d.sections) {
            ensure!(text.contains(s.name), "{} is not in\n{text}", s.name);
        }
    }
    let out = program("notebooks-rs")?.args(["--list", "--json"]).output()?;
    let json: Value = serde_json::from_slice(&out.stdout)?;
    let lessons = json.as_array().context("a list")?;
    ensure!(lessons.len() == DOCUMENTS.len() && lessons[0]["sections"][2]["program"] == "lora");
    Ok(())
}

#[test]
fn help_names_the_lesson_and_the_options() -> Result<()> {
    let out = program("lora")?.arg("--help").output()?;
    let text = String::from_utf8(out.stdout)?;
    ensure!(out.status.success() && text.starts_with("Lesson 000, 2.3 LoRA — Low-Rank Adaptation"), "{text}");
    for word in ["--seed", "[default: 0, the lesson's]", "--device", "--plots", "--json"] {
        ensure!(text.contains(word), "no {word} in\n{text}");
    }
    Ok(())
}

#[test]
fn a_wrong_device_is_one_line() -> Result<()> {
    let out = program("lora")?.args(["--device", "gpu"]).output()?;
    let text = String::from_utf8(out.stderr)?;
    ensure!(!out.status.success() && text.contains("gpu") && !text.contains("panicked"), "{text}");
    Ok(())
}

#[test]
fn a_reader_that_leaves_ends_it_quietly() -> Result<()> {
    let mut child = program("lora")?.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    drop(child.stdout.take());
    let out = child.wait_with_output()?;
    ensure!(
        out.status.success() && out.stderr.is_empty(),
        "{:?} {}",
        out.status,
        String::from_utf8_lossy(&out.stderr)
    );
    Ok(())
}

/// A shell has what it starts in the background ignore interrupts, and its programs inherit that.
#[cfg(unix)]
fn interrupts_are_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|l| l.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 2 != 0)
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_it_quietly() -> Result<()> {
    use std::os::unix::process::ExitStatusExt;
    if interrupts_are_ignored() {
        return Ok(());
    }
    let mut child = program("depth_rank")?.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // Its first byte says that it is at work; it has seconds to go then.
    child.stdout.as_mut().context("stdout")?.read_exact(&mut [0])?;
    ensure!(Command::new("kill").args(["-INT", &child.id().to_string()]).status()?.success());
    let out = child.wait_with_output()?;
    ensure!(out.status.signal() == Some(2) && out.stderr.is_empty(), "{:?}", out.status);
    Ok(())
}

#[test]
fn pictures_need_a_directory_before_anything_runs() -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    let out = program("lora")?.arg("--plots").arg(file.path()).output()?;
    let text = String::from_utf8(out.stderr)?;
    ensure!(!out.status.success() && out.stdout.is_empty(), "it ran");
    ensure!(text.contains("is a file; pictures need a directory"), "{text}");
    Ok(())
}
