//! Zips and pickles put together by hand, also such as no Python would write.

use anyhow::{Result, ensure};
use rawzip::{CompressionMethod, ZipArchiveWriter};
use std::io::Write;
use std::path::PathBuf;
use tempfile::TempDir;

/// A zip of these files.
pub fn zip(files: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut archive = ZipArchiveWriter::new(&mut bytes);
    for (name, content) in files {
        let (mut entry, config) =
            archive.new_file(name).compression_method(CompressionMethod::STORE).start()?;
        let mut writer = config.wrap(&mut entry);
        writer.write_all(content)?;
        let (_, descriptor) = writer.finish()?;
        entry.finish(descriptor)?;
    }
    archive.finish()?;
    Ok(bytes)
}

/// A file of weights with this program, and one storage of 6 floats.
pub fn weights(program: &[u8]) -> Result<Vec<u8>> {
    let storage: Vec<u8> = (0..6u8).flat_map(|i| f32::from(i).to_le_bytes()).collect();
    zip(&[("a/data.pkl", program), ("a/byteorder", b"little"), ("a/data/0", &storage), ("a/version", b"3\n")])
}

/// A file on disk, with its folder.
pub fn file(bytes: &[u8]) -> Result<(TempDir, PathBuf)> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("pytorch_model.bin");
    std::fs::write(&path, bytes)?;
    Ok((dir, path))
}

/// The files of a zip that Python wrote, the program first.
pub fn unzip(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>> {
    let archive = rawzip::ZipArchive::from_slice(bytes)?;
    let (mut files, mut entries) = (Vec::new(), archive.entries());
    while let Some(entry) = entries.next_entry()? {
        let name = String::from_utf8(entry.file_path().as_bytes().to_vec())?;
        files.push((name, archive.get_entry(entry.wayfinder())?.data().to_vec()));
    }
    ensure!(files.first().is_some_and(|(name, _)| name.ends_with("/data.pkl")), "the program is elsewhere");
    Ok(files)
}

/// A zip that Python wrote with another program.
pub fn with_program(files: &[(String, Vec<u8>)], program: &[u8]) -> Result<Vec<u8>> {
    let others = files.iter().skip(1).map(|(name, content)| (name.as_str(), content.as_slice()));
    let first = files.first().map(|(name, _)| (name.as_str(), program));
    zip(&first.into_iter().chain(others).collect::<Vec<_>>())
}

/// A text.
pub fn text(s: &str) -> Vec<u8> {
    [b"\x8c", &[u8::try_from(s.len()).unwrap_or(u8::MAX)], s.as_bytes()].concat()
}

/// A number of 64 bits.
pub fn int(n: i64) -> Vec<u8> {
    [b"\x8a\x08", &n.to_le_bytes()[..]].concat()
}

/// A name of Python's.
pub fn global(module: &str, name: &str) -> Vec<u8> {
    format!("c{module}\n{name}\n").into_bytes()
}

/// The values of storage 0, as Python writes it, of `numel` floats.
pub fn storage(kind: &str, key: &str, numel: i64) -> Vec<u8> {
    [
        b"(".to_vec(),
        text("storage"),
        global("torch", kind),
        text(key),
        text("cpu"),
        int(numel),
        b"tQ".to_vec(),
    ]
    .concat()
}

/// A tensor of such a storage.
pub fn tensor(storage: Vec<u8>, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    let tuple = |numbers: &[i64]| {
        let numbers: Vec<u8> = numbers.iter().flat_map(|n| int(*n)).collect();
        [b"(", &numbers[..], b"t"].concat()
    };
    let rebuild = global("torch._utils", "_rebuild_tensor_v2");
    let hooks = [global("collections", "OrderedDict"), b")R".to_vec()].concat();
    [
        rebuild,
        b"(".to_vec(),
        storage,
        int(offset),
        tuple(shape),
        tuple(strides),
        b"\x89".to_vec(),
        hooks,
        b"tR".to_vec(),
    ]
    .concat()
}

/// A program that ends with a dictionary of these values.
pub fn dict(items: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let items: Vec<u8> =
        items.iter().flat_map(|(name, value)| [text(name), value.clone()].concat()).collect();
    [b"\x80\x02}(", &items[..], b"u."].concat()
}
