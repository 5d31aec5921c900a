//! Modes, links, full disks.

use anyhow::{Context, Result, ensure};
use peft_core::hub;
use peft_core::hub::Head;
use peft_core::io::{IfExists, adapter, tensors};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tch::{Device, Tensor};
use tests::subject::lora;
use tests::{golden, refused, serial};

fn mode(path: &Path) -> Result<u32> {
    Ok(fs::metadata(path).with_context(|| path.display().to_string())?.permissions().mode() & 0o777)
}

/// Saves in a process of its own, in a shell that has run `prelude`.
fn save_after(prelude: &str, scene: &str, from: &Path, to: &Path) -> Result<Output> {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{prelude}; exec \"$0\" --child \"$@\"")]).arg(env!("CARGO_BIN_EXE_kills"));
    shell.arg(scene).args([from, to]);
    let mut child = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("no stdin")?.write_all(b"\n")?;
    Ok(child.wait_with_output()?)
}

#[test]
fn files_and_directories_have_the_umasks_mode() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let from = dir.path().join("from");
    {
        let _serial = serial();
        lora(4, 3.0, 5)?.save("a", &from)?;
    }
    for (umask, file, folder) in [("022", 0o644, 0o755), ("027", 0o640, 0o750), ("002", 0o664, 0o775)] {
        let to = dir.path().join(umask).join("below");
        // A second time, over files that others must not read: the umask's again.
        for _ in 0..2 {
            let output = save_after(&format!("umask {umask}"), "OtherRank", &from, &to)?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            for name in [adapter::CONFIG, adapter::TENSORS] {
                ensure!(mode(&to.join(name))? == file, "umask {umask}, {name}: {:o}", mode(&to.join(name))?);
                fs::set_permissions(to.join(name), fs::Permissions::from_mode(0o600))?;
            }
            for dir in [to.as_path(), to.parent().context("below")?] {
                ensure!(mode(dir)? == folder, "umask {umask}, directory: {:o}", mode(dir)?);
            }
            ensure!(fs::read_dir(&to)?.count() == 2, "something is left");
        }
    }
    Ok(())
}

/// A limit on the size of files is met in the middle of the tensors, as the end of a disk would be.
#[test]
fn where_a_file_does_not_fit_the_old_stays() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (new, to) = (dir.path().join("new"), dir.path().join("to"));
    {
        let _serial = serial();
        lora(8, 3.0, 5)?.save("a", &new)?;
        lora(2, 3.0, 6)?.save("a", &to)?;
    }
    let before = [adapter::CONFIG, adapter::TENSORS].map(|name| fs::read(to.join(name)).ok());
    let output = save_after("trap '' XFSZ; ulimit -f 2", "OtherRank", &new, &to)?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && text.contains("to/adapter_model.safetensors: "), "{text}");
    let after = [adapter::CONFIG, adapter::TENSORS].map(|name| fs::read(to.join(name)).ok());
    ensure!(before == after, "the old is another one");
    ensure!(fs::read_dir(&to)?.count() == 2, "something is left");
    Ok(())
}

/// The Hub's cache has models as links to files by their digests.
#[test]
fn links_are_replaced_and_what_they_lead_to_stays() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (cache, snapshot) = (dir.path().join("blobs"), dir.path().join("snapshot"));
    fs::create_dir_all(&cache)?;
    fs::create_dir_all(&snapshot)?;
    for name in [hub::CONFIG, "model.safetensors"] {
        fs::copy(golden("bert/base").join(name), cache.join(name))?;
        symlink(cache.join(name), snapshot.join(name))?;
    }
    let peft = hub::open(&snapshot, Device::Cpu, Head::Stored)?.peft;
    hub::save_with(&peft, &snapshot, None, IfExists::Replace)?;
    for name in [hub::CONFIG, "model.safetensors"] {
        ensure!(!snapshot.join(name).is_symlink(), "{name} is still a link");
        ensure!(
            fs::read(cache.join(name))? == fs::read(golden("bert/base").join(name))?,
            "{name} in the cache"
        );
    }
    let file = dir.path().join("file");
    symlink(cache.join(hub::CONFIG), &file)?;
    tensors::write(&file, &BTreeMap::from([("a".into(), Tensor::from(1i64))]))?;
    ensure!(!file.is_symlink() && fs::read(cache.join(hub::CONFIG))?.starts_with(b"{"), "through the link");
    Ok(())
}

#[test]
fn what_cannot_be_placed_is_named_and_costs_nothing() -> Result<()> {
    let _serial = serial();
    let dir = tempfile::tempdir()?;
    let peft = lora(2, 3.0, 5)?;
    peft.save("a", dir.path())?;
    fs::remove_file(dir.path().join(adapter::TENSORS))?;
    fs::create_dir(dir.path().join(adapter::TENSORS))?;
    let save = peft.save_with("a", dir.path(), IfExists::Replace);
    refused("a directory in the way", save, &[adapter::TENSORS, "directory"])?;
    ensure!(
        fs::read_dir(dir.path())?.count() == 2 && dir.path().join(adapter::CONFIG).exists(),
        "the old is gone"
    );
    Ok(())
}
