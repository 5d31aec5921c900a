//! Disks that are full, directories that cannot be written to, files that are missing or damaged.

use crate::random::Random;
use crate::reliability::Trial;
use crate::reliability::kills::at_line;
use crate::reliability::trial::{Ended, STEPS, whole};
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system in memory with little room.
#[derive(Debug)]
pub struct Room {
    dir: PathBuf,
}

impl Room {
    /// One of so many kilobytes, at a directory that is made. Where nothing can be mounted: why not.
    pub fn new(dir: PathBuf, kilobytes: usize) -> Result<Self> {
        fs::create_dir_all(&dir)?;
        mount(&["-t", "tmpfs", "-o", &format!("size={kilobytes}k"), "tmpfs"], &dir)?;
        Ok(Self { dir })
    }

    /// Takes all the room but so many kilobytes.
    fn fill(&self, but: usize) -> Result<()> {
        let path = self.dir.join("filler");
        let mut file = File::create(&path)?;
        while file.write_all(&[0; 4096]).is_ok() {}
        let length = file.metadata()?.len();
        Ok(file.set_len(length.saturating_sub(but as u64 * 1024))?)
    }

    fn empty(&self) -> Result<()> {
        Ok(fs::remove_file(self.dir.join("filler"))?)
    }

    fn read_only(&self, yes: bool) -> Result<()> {
        mount(&["-o", if yes { "remount,ro" } else { "remount,rw" }], &self.dir)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.dir).status();
    }
}

fn mount(arguments: &[&str], dir: &Path) -> Result<()> {
    let done = Command::new("mount").args(arguments).arg(dir).output().context("mount")?;
    ensure!(done.status.success(), "mount: {}", String::from_utf8_lossy(&done.stderr).trim());
    Ok(())
}

/// Trains to the middle of the run.
fn begin(trial: &Trial, out: &Path) -> Result<()> {
    let child = at_line(&mut trial.train(out, &[]), out, 9)?;
    kill(Pid::from_raw(child.id().try_into()?), Signal::SIGTERM)?;
    Trial::ended(&child.wait_with_output()?, 4, &[])?;
    ensure!(whole(out)? == 1, "there is no checkpoint");
    Ok(())
}

/// Goes on without trouble, to the end of an undisturbed training.
fn end(trial: &Trial, out: &Path, undisturbed: &Ended) -> Result<()> {
    ensure!(whole(out)? == 1, "there is no checkpoint any more");
    Trial::ended(&trial.train(out, &["--resume"]).output()?, 0, &[])?;
    Ended::read(out)?.check(undisturbed)
}

/// Goes on with a training where the disk has ever more room: it fails, with one line that names the file, or succeeds; the
/// checkpoint stays whole; and once there is room it goes on to what it would have been. How often it failed.
pub fn full(trial: &Trial, room: &Room, undisturbed: &Ended) -> Result<usize> {
    let mut failed = 0;
    for kilobytes in (0..64).step_by(4) {
        let out = room.dir.join("run");
        begin(trial, &out)?;
        room.fill(kilobytes)?;
        let done = trial.train(&out, &["--resume", "--quiet"]).output()?;
        if done.status.code() != Some(0) {
            failed += 1;
            Trial::ended(&done, 1, &["No space left on device", &out.display().to_string()])
                .with_context(|| format!("{kilobytes} KB"))?;
        }
        room.empty()?;
        end(trial, &out, undisturbed).with_context(|| format!("{kilobytes} KB"))?;
        fs::remove_dir_all(&out)?;
    }
    ensure!(failed > 0, "there was room for all");
    Ok(failed)
}

/// As [`full`], where a file cannot be longer than so much: a limit of the process, for which nobody has to be root.
pub fn limited(trial: &Trial, blocks: &[usize], undisturbed: &Ended) -> Result<usize> {
    let mut failed = 0;
    for n in blocks {
        let out = trial.path(&format!("limited-{n}"));
        begin(trial, &out)?;
        let inner = trial.train(&out, &["--resume", "--quiet"]);
        let mut command = Command::new("sh");
        // Blocks of 512 bytes; the signal that comes before the error is not wanted.
        command.args(["-c", &format!("trap '' XFSZ; ulimit -f {n}; exec \"$@\""), "sh"]);
        let done = command.arg(inner.get_program()).args(inner.get_args()).output()?;
        if done.status.code() != Some(0) {
            failed += 1;
            Trial::ended(&done, 1, &["File too large", &out.display().to_string()])
                .with_context(|| format!("{n} blocks"))?;
        }
        end(trial, &out, undisturbed).with_context(|| format!("{n} blocks"))?;
    }
    ensure!(failed > 0, "there was room for all");
    Ok(failed)
}

/// Places that cannot be written to are said by name, before anything is trained.
pub fn unwritable(trial: &Trial, room: Option<&Room>, undisturbed: &Ended) -> Result<()> {
    let file = trial.path("train.jsonl");
    for (out, part) in [
        (PathBuf::from("/proc/peft-run"), "/proc/peft-run"),
        (file.clone(), "is a file, expected a directory"),
        (file.join("run"), "Not a directory"),
    ] {
        let done = trial.train(&out, &[]).output()?;
        Trial::ended(&done, 1, &[part, &out.display().to_string()])?;
    }
    let Some(room) = room else { return Ok(()) };
    let out = room.dir.join("run");
    begin(trial, &out)?;
    room.read_only(true)?;
    for arguments in [&["--resume"][..], &[], &["--overwrite"]] {
        let done = trial.train(&out, arguments).output()?;
        Trial::ended(&done, 1, &["Read-only file system", &out.display().to_string()])?;
    }
    room.read_only(false)?;
    end(trial, &out, undisturbed)?;
    Ok(fs::remove_dir_all(&out)?)
}

/// What a training cannot do without is said by name when it is not there.
pub fn missing(trial: &Trial) -> Result<()> {
    let out = trial.path("missing");
    for name in
        ["model/config.json", "model/model.safetensors", "model/tokenizer.json", "train.jsonl", "eval.jsonl"]
    {
        let (path, aside) = (trial.path(name), trial.path("aside"));
        fs::rename(&path, &aside)?;
        let done = trial.train(&out, &["--overwrite"]).output()?;
        fs::rename(&aside, &path)?;
        let file = path.file_name().and_then(|n| n.to_str()).context("a name")?;
        let dir = path.parent().context("a directory")?.display().to_string();
        Trial::ended(&done, 1, &[file, &dir]).with_context(|| name.to_owned())?;
    }
    let done = trial.train(&trial.path("nothing"), &["--model", "/nowhere/model"]).output()?;
    Trial::ended(&done, 1, &["/nowhere/model"])?;
    Ok(())
}

/// Each file of the newest checkpoint is taken away, cut off or changed by a bit: that is said, with its name, the checkpoint
/// is passed over, and the end is that of an undisturbed training. How many there were.
pub fn files(trial: &Trial, seed: u64, undisturbed: &Ended) -> Result<usize> {
    let (out, mut random, mut count) = (trial.path("files"), Random::new(seed), 0);
    begin(trial, &out)?;
    let all = trial.path("files-kept");
    copy(&out, &all)?;
    let newest =
        peft_core::train::Checkpoints::new(all.join("checkpoints")).newest()?.found.context("none")?.1;
    ensure!(fs::read_dir(all.join("checkpoints"))?.count() >= 2, "there is none to go back to");
    for entry in fs::read_dir(&newest.path)? {
        let entry = entry?;
        let bytes = fs::read(entry.path())?;
        for way in ["missing", "cut", "changed"] {
            fs::remove_dir_all(&out)?;
            copy(&all, &out)?;
            let path = out.join(entry.path().strip_prefix(&all)?);
            let mut damaged = bytes.clone();
            match way {
                "missing" => fs::remove_file(&path)?,
                "cut" => damaged.truncate(random.below(bytes.len())),
                _ => {
                    let at = random.below(bytes.len());
                    damaged[at] ^= 1 << random.below(8);
                }
            }
            if way != "missing" {
                fs::write(&path, &damaged)?;
            }
            let what = || format!("{} {way}", path.display());
            let said =
                Trial::ended(&trial.train(&out, &["--resume"]).output()?, 0, &[]).with_context(what)?;
            let name = entry.file_name().into_string().map_err(|_| anyhow::anyhow!("a name"))?;
            let warned = said.lines().any(|line| {
                line.starts_with("warning: ") && line.contains(&name) && line.contains("passed over")
            });
            // A changed manifest may still be of the same meaning: white space.
            let unseen = name == "manifest.json" && way == "changed";
            if !(warned || unseen) {
                bail!("{}: nothing is said of it: {said}", what());
            }
            Ended::read(&out)?.check(undisturbed).with_context(what)?;
            count += 1;
        }
    }
    ensure!(count >= 3 * 5 && STEPS > 12);
    Ok(count)
}

/// A copy of a directory.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &to)?,
            false => fs::copy(entry.path(), to).map(|_| ())?,
        }
    }
    Ok(())
}
