//! The zip: a folder with `data.pkl` and `data/0`, `data/1`, .., which are the bytes of the tensors, uncompressed.

use crate::io::pickle::refusal::{Refused, broken, foreign};
use rawzip::{CompressionMethod, ZipArchive};
use std::cell::Cell;
use std::collections::BTreeMap;

/// Names that PyTorch writes beside the bytes of tensors.
const BESIDE: &[&str] =
    &["data.pkl", "byteorder", "version", ".format_version", ".storage_alignment", ".data/serialization_id"];

/// How a file starts that torch before 1.6 wrote: a pickle of a number that it knows its files by.
const LEGACY: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

/// The files of an archive, by their names in its folder.
pub(super) struct Archive<'a> {
    folder: String,
    records: BTreeMap<String, Record<'a>>,
}

/// A file of the archive.
struct Record<'a> {
    bytes: &'a [u8],
    crc: u32,
    checked: Cell<bool>,
}

impl<'a> Archive<'a> {
    /// Finds the files. What is not of a file of weights is an error.
    pub fn open(file: &'a [u8]) -> Refused<Self> {
        if !file.starts_with(b"PK\x03\x04") {
            return what_else(file);
        }
        let cut = |e: rawzip::Error| {
            format!(
                "is a zip (a pickle and its tensors) that is cut off or broken ({e}): fetch or write it again"
            )
        };
        let zip = ZipArchive::from_slice(file).map_err(cut)?;
        let mut archive = Self { folder: String::new(), records: BTreeMap::new() };
        let mut entries = zip.entries();
        while let Some(entry) = entries.next_entry().map_err(cut)? {
            if entry.is_dir() {
                continue;
            }
            let plain =
                entry.compression_method() == CompressionMethod::STORE && !entry.flags().is_encrypted();
            let (start, end) = zip.get_entry(entry.wayfinder()).map_err(cut)?.compressed_data_range();
            let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
            let bytes = range
                .and_then(|(start, end)| file.get(start..end))
                .filter(|bytes| plain && u64::try_from(bytes.len()) == Ok(entry.uncompressed_size_hint()));
            let record = bytes.map(|bytes| Record { bytes, crc: entry.crc32(), checked: Cell::new(false) });
            archive.add(&String::from_utf8_lossy(entry.file_path().as_bytes()), record)?;
        }
        if archive.records.contains_key("byteorder") && archive.read("byteorder")? != b"little" {
            return foreign("has its numbers in another byte order than `little`");
        }
        Ok(archive)
    }

    /// Adds a file, which has no record where it is not stored as it is.
    fn add(&mut self, path: &str, record: Option<Record<'a>>) -> Refused<()> {
        let shown = path.escape_debug();
        let (folder, name) = path.split_once('/').unwrap_or(("", path));
        if name == "constants.pkl" || name.starts_with("code/") {
            return broken(
                "is TorchScript, a program and no file of weights: save the state_dict() of torch.jit.load(..)",
            );
        }
        if !BESIDE.contains(&name) && storage(name).is_none() {
            return foreign(format!("has a file `{shown}` in it, which is none of a pickle of weights"));
        }
        if !self.records.is_empty() && self.folder != folder {
            let (one, two) = (self.folder.escape_debug(), folder.escape_debug());
            return foreign(format!("has two folders in it, `{one}` and `{two}`"));
        }
        let Some(record) = record else {
            return foreign(format!(
                "has `{shown}` compressed or encrypted in it, which torch.save does not do"
            ));
        };
        self.folder = folder.to_owned();
        match self.records.insert(name.to_owned(), record) {
            None => Ok(()),
            Some(_) => foreign(format!("has two files `{shown}` in it")),
        }
    }

    /// The name in the archive, with the folder.
    pub fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.folder.escape_debug())
    }

    /// The program.
    pub fn pickle(&self) -> Refused<&'a [u8]> {
        self.read("data.pkl")
    }

    /// The size in bytes of the storage with that key, which is not read.
    pub fn size(&self, key: &str) -> Option<usize> {
        self.records.get(&format!("data/{key}")).map(|r| r.bytes.len())
    }

    /// The bytes of the storage with that key.
    pub fn storage(&self, key: &str) -> Refused<&'a [u8]> {
        self.read(&format!("data/{key}"))
    }

    /// The bytes of a file, whose checksum is compared once. A checksum of 0 is one that was not made
    /// (`torch.serialization.set_crc32_options`).
    fn read(&self, name: &str) -> Refused<&'a [u8]> {
        let place = || self.name(name);
        let missing = || format!("has no `{}` in it: it is no pickle of weights, or a broken one", place());
        let record = self.records.get(name).ok_or_else(missing)?;
        if !record.checked.get() && record.crc != 0 && crc32fast::hash(record.bytes) != record.crc {
            return broken(format!("`{}` in it has another checksum: fetch or write it again", place()));
        }
        record.checked.set(true);
        Ok(record.bytes)
    }
}

/// The key of a storage.
fn storage(name: &str) -> Option<&str> {
    name.strip_prefix("data/").filter(|key| !key.is_empty() && key.bytes().all(|b| b.is_ascii_digit()))
}

/// Says what a file is instead of a zip.
fn what_else<T>(file: &[u8]) -> Refused<T> {
    if file.starts_with(LEGACY) {
        foreign(
            "is a pickle of torch before 1.6 (or of `_use_new_zipfile_serialization=False`), which is no zip",
        )
    } else if file.starts_with(b"\x80") {
        foreign("is another pickle than the zip that torch.save writes")
    } else if file.starts_with(b"version https://git-lfs") {
        broken("is a pointer of Git LFS; fetch the file itself (git lfs pull)")
    } else if safetensors::SafeTensors::read_metadata(file).is_ok() {
        broken("is safetensors and no pickle, which its name says: name it *.safetensors")
    } else {
        broken("is not a zip of a pickle and its tensors, as torch.save writes it: fetch or write it again")
    }
}
