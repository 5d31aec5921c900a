//! Files of tensors: safetensors, read through a memory map and written atomically; and what `torch.save` wrote, read
//! without running any of it.

use crate::error::{Error, Result};
use crate::io::{pickle, write_atomically};
use crate::seam::phantom;
use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorInfo};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// All tensors of a file, on the CPU, in their own dtypes: of a PyTorch zip where the file's name ends in `.bin`, `.pt` or
/// `.pth`, and of safetensors under every other name. No code of a file is run; a PyTorch zip is of tensors and their
/// names and of nothing else.
///
/// # Errors
/// A file that is not what its name says, or has more in it than tensors (the error names it, and the command that converts
/// the file); a dtype that libtorch lacks.
pub fn read(path: impl AsRef<Path>) -> Result<BTreeMap<String, Tensor>> {
    let path = path.as_ref();
    let mut tensors = BTreeMap::new();
    read_each(path, |name, tensor| {
        tensors.insert(name, tensor);
        Ok(())
    })?;
    Ok(tensors)
}

/// As [`read`], one tensor after another: what `take` drops is not held.
pub fn read_each(path: impl AsRef<Path>, mut take: impl FnMut(String, Tensor) -> Result<()>) -> Result<()> {
    let path = path.as_ref();
    each(path, |name, _, _, tensor| take(name, tensor()?))
}

/// Names and shapes of a file's tensors, as phantoms: zeros that hold one value each.
pub fn phantoms(path: impl AsRef<Path>) -> Result<BTreeMap<String, Tensor>> {
    let mut tensors = BTreeMap::new();
    each(path.as_ref(), |name, shape, kind, _| {
        tensors.insert(name, phantom(shape, kind)?);
        Ok(())
    })?;
    Ok(tensors)
}

/// Names, shapes and dtypes; the last argument reads the tensor.
fn each(
    path: &Path,
    mut take: impl FnMut(String, &[i64], Kind, &dyn Fn() -> Result<Tensor>) -> Result<()>,
) -> Result<()> {
    let map = peft_sys::map_file(path).map_err(|e| Error::file(path, e))?;
    if pickle::is_named(path) {
        return pickle::each(path, &map, take);
    }
    let file = SafeTensors::deserialize(&map)
        .map_err(|e| Error::format(path, format!("not a safetensors file ({e}): {}", what_else(&map))))?;
    for (name, view) in file.iter() {
        let kind = kind(view.dtype()).ok_or_else(|| {
            Error::format(path, format!("tensor `{name}`: dtype {:?} is not supported", view.dtype()))
        })?;
        let shape: Vec<i64> = view.shape().iter().map(|d| i64::try_from(*d).unwrap_or(i64::MAX)).collect();
        take(name.to_owned(), &shape, kind, &|| Ok(Tensor::f_from_data_size(view.data(), &shape, kind)?))?;
    }
    Ok(())
}

/// What a file is instead, and what to do about it.
fn what_else(bytes: &[u8]) -> &'static str {
    if bytes.starts_with(b"PK") || bytes.starts_with(b"\x80\x02") {
        "this is a Python pickle; save it again with safetensors"
    } else if bytes.starts_with(b"version https://git-lfs") {
        "this is a pointer of Git LFS; fetch the file itself (git lfs pull)"
    } else {
        "it may be cut off; fetch or write it again"
    }
}

/// Writes tensors as Python's `safetensors.torch.save_file` does, metadata `{"format": "pt"}` included. Whole or not at
/// all, and over a file that is there.
///
/// # Errors
/// A dtype that safetensors lacks, and a file that cannot be written.
pub fn write(path: impl AsRef<Path>, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let path = path.as_ref();
    write_atomically(path, |file| put(path, file, tensors))
}

/// The bytes of such a file, one tensor after another: the largest of them is what is held beside the tensors. (The
/// crate's own functions write to a path, or into memory.)
pub(crate) fn put(path: &Path, file: &mut BufWriter<File>, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let mut all =
        tensors.iter().map(|(name, t)| Ok((dtype_of(name, t)?, name, t))).collect::<Result<Vec<_>>>()?;
    // The order of the format: by alignment, widest first, then by name.
    all.sort_by(|(left, l, _), (right, r, _)| right.cmp(left).then(l.cmp(r)));
    let mut end = 0usize;
    let infos = all.iter().map(|(dtype, name, t)| {
        let start = end;
        end = end.saturating_add(t.numel().saturating_mul(t.f_kind()?.elt_size_in_bytes()));
        let shape = t.size().into_iter().map(|d| usize::try_from(d).unwrap_or_default()).collect();
        Ok(((*name).clone(), TensorInfo { dtype: *dtype, shape, data_offsets: (start, end) }))
    });
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let header = Metadata::new(Some(format), infos.collect::<Result<_>>()?);
    let header = header.map_err(|e| Error::format(path, e))?;
    let mut header = serde_json::to_vec(&header).map_err(|e| Error::format(path, e))?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let failed = |e| Error::file(path, e);
    file.write_all(&(header.len() as u64).to_le_bytes()).map_err(failed)?;
    file.write_all(&header).map_err(failed)?;
    for (_, _, t) in all {
        file.write_all(&bytes(t)?).map_err(failed)?;
    }
    Ok(())
}

fn dtype_of(name: &str, t: &Tensor) -> Result<Dtype> {
    let kind = t.f_kind()?;
    dtype(kind).ok_or_else(|| Error::Input(format!("tensor `{name}`: cannot write dtype {kind:?}")))
}

/// What a file has of a tensor, wherever that is.
pub(crate) fn bytes(t: &Tensor) -> Result<Vec<u8>> {
    let t = t.f_detach()?.f_to(Device::Cpu)?.f_contiguous()?;
    let numel = t.numel();
    let mut bytes = vec![0u8; numel.saturating_mul(t.f_kind()?.elt_size_in_bytes())];
    t.f_copy_data_u8(&mut bytes, numel)?;
    Ok(bytes)
}

/// The dtypes that both sides have.
const DTYPES: &[(Dtype, Kind)] = &[
    (Dtype::F32, Kind::Float),
    (Dtype::F64, Kind::Double),
    (Dtype::F16, Kind::Half),
    (Dtype::BF16, Kind::BFloat16),
    (Dtype::I64, Kind::Int64),
    (Dtype::I32, Kind::Int),
    (Dtype::I16, Kind::Int16),
    (Dtype::I8, Kind::Int8),
    (Dtype::U8, Kind::Uint8),
    (Dtype::BOOL, Kind::Bool),
];

fn kind(dtype: Dtype) -> Option<Kind> {
    DTYPES.iter().find(|(d, _)| *d == dtype).map(|(_, k)| *k)
}

/// What safetensors call a dtype.
pub(crate) fn dtype(kind: Kind) -> Option<Dtype> {
    DTYPES.iter().find(|(_, k)| *k == kind).map(|(d, _)| *d)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_keeps_bytes_dtypes_and_shapes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        let x = Tensor::randn([3, 5], (Kind::Float, Device::Cpu));
        let kinds =
            [Kind::Float, Kind::BFloat16, Kind::Half, Kind::Double, Kind::Int64, Kind::Uint8, Kind::Bool];
        let mut all: BTreeMap<String, Tensor> =
            kinds.iter().map(|k| (format!("{k:?}"), x.to_kind(*k))).collect();
        all.insert("transposed".into(), x.tr());
        all.insert("empty".into(), Tensor::zeros([0, 4], (Kind::Float, Device::Cpu)));
        write(&path, &all).unwrap();
        let back = read(&path).unwrap();
        assert_eq!(back.len(), all.len());
        for (name, t) in &all {
            assert_eq!((back[name].size(), back[name].kind()), (t.size(), t.kind()), "{name}");
            assert!(back[name].equal(t), "{name}");
        }
        let first = std::fs::read(&path).unwrap();
        write(&path, &back).unwrap();
        assert_eq!(first, std::fs::read(&path).unwrap());
    }

    /// Python's bytes, which the crate writes too: header, order, padding.
    #[test]
    fn the_bytes_are_the_crates() {
        use safetensors::tensor::TensorView;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        let all: BTreeMap<String, Tensor> = DTYPES
            .iter()
            .flat_map(|(_, kind)| [(3, *kind), (0, *kind)])
            .map(|(n, kind)| {
                (
                    format!("\"{kind:?}\"/\u{e9} {n}"),
                    Tensor::randn([n, 5], (Kind::Float, Device::Cpu)).to_kind(kind),
                )
            })
            .collect();
        for all in [all, BTreeMap::new()] {
            write(&path, &all).unwrap();
            let data: Vec<_> = all.values().map(|t| bytes(t).unwrap()).collect();
            let views = all.iter().zip(&data).map(|((name, t), data)| {
                let shape = t.size().iter().map(|d| *d as usize).collect();
                (name, TensorView::new(dtype(t.kind()).unwrap(), shape, data).unwrap())
            });
            let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
            let expected = safetensors::serialize(views, Some(metadata)).unwrap();
            assert!(std::fs::read(&path).unwrap() == expected);
        }
    }

    #[test]
    fn other_files_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pytorch_model.bin");
        std::fs::write(&path, b"PK\x03\x04 and so on, long enough").unwrap();
        let text = read(&path).unwrap_err().to_string();
        assert!(text.contains("pytorch_model.bin") && text.contains("pickle"), "{text}");
        let text = read(dir.path().join("none")).unwrap_err().to_string();
        assert!(text.contains("none"), "{text}");
    }
}
