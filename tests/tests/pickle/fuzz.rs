//! Files that were changed at random: no panic, no read beyond the file, no more memory than the file is worth.

use crate::write::{file, unzip, with_program};
use anyhow::{Result, ensure};
use peft_core::io::tensors;
use peft_sys::memory;
use std::path::Path;
use tests::random::Random;
use tests::{golden, serial};

/// Writes and reads a file, whatever comes of it; how many tensors there were.
fn read(path: &Path, bytes: &[u8]) -> Result<Option<usize>> {
    std::fs::write(path, bytes)?;
    let before = memory::live();
    memory::reset_peak();
    let result = tensors::read(path);
    let held = memory::peak().saturating_sub(before);
    // Each tensor is padded to 64 bytes, and a strided one is made out of another.
    ensure!(held <= 40 * bytes.len() + 4096, "{held} bytes for a file of {}", bytes.len());
    if let Err(e) = &result {
        ensure!(e.to_string().starts_with(&path.display().to_string()), "{e}");
        ensure!(e.to_string().len() < 2000, "{e}");
    }
    Ok(result.ok().map(|all| all.len()))
}

/// Cut at each byte: of the program in a sound zip, and of the zip.
#[test]
fn cut_anywhere() -> Result<()> {
    let _serial = serial();
    memory::install();
    let (_dir, path) = file(&[])?;
    let whole = std::fs::read(golden("pickle/module.bin"))?;
    let files = unzip(&whole)?;
    let program = &files[0].1;
    ensure!(read(&path, &with_program(&files, program)?)? == Some(4), "the whole program");
    for length in 0..program.len() {
        let cut = with_program(&files, &program[..length])?;
        ensure!(read(&path, &cut)?.is_none(), "cut at {length}, and read");
    }
    ensure!(read(&path, &whole)? == Some(4), "the whole file");
    for length in 0..whole.len() {
        ensure!(read(&path, &whole[..length])?.is_none(), "cut at {length}, and read");
    }
    Ok(())
}

/// Programs with changes, behind sound checksums.
#[test]
fn changed_programs() -> Result<()> {
    let _serial = serial();
    memory::install();
    let (_dir, path) = file(&[])?;
    let (mut random, mut sound, total) = (Random::new(1), 0, 2500);
    let wholes = ["weights.bin", "module.bin", "protocol4.bin"];
    let wholes = wholes.iter().map(|f| unzip(&std::fs::read(golden("pickle").join(f))?));
    let wholes = wholes.collect::<Result<Vec<_>>>()?;
    for i in 0..total {
        let files = &wholes[i % wholes.len()];
        let mut program = files[0].1.clone();
        random.change(&mut program);
        sound += usize::from(read(&path, &with_program(files, &program)?)?.is_some());
    }
    // Most changes are found; some change nothing but a name.
    ensure!(sound > 0 && sound < total / 2, "{sound} of {total} were read");
    Ok(())
}

/// Files with changes, the zip's own fields included.
#[test]
fn changed_files() -> Result<()> {
    let _serial = serial();
    memory::install();
    let (_dir, path) = file(&[])?;
    let mut random = Random::new(2);
    let wholes = ["weights.bin", "protocol4.bin", "no_crc.bin", "legacy.bin", "script.bin", "checkpoint.bin"];
    let wholes =
        wholes.iter().map(|f| Ok(std::fs::read(golden("pickle").join(f))?)).collect::<Result<Vec<_>>>()?;
    for i in 0..2500 {
        let mut bytes = wholes[i % wholes.len()].clone();
        random.change(&mut bytes);
        read(&path, &bytes)?;
    }
    Ok(())
}
