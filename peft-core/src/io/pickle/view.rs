//! A tensor of a file: which bytes of which storage it is.

use crate::io::pickle::archive::Archive;
use crate::io::pickle::refusal::{Refusal, Refused, broken};
use tch::{Kind, Tensor};

/// A tensor has no more dimensions.
const DIMS: usize = 64;

/// The bytes of tensors: a file of the archive.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage<'a> {
    pub key: &'a str,
    pub kind: Kind,
    pub numel: i64,
}

/// A tensor: which values of a storage it has. They have been compared with the storage.
#[derive(Debug, Clone)]
pub(super) struct View {
    key: String,
    pub kind: Kind,
    pub shape: Vec<i64>,
    strides: Vec<i64>,
    /// The first value and, exclusively, the last one.
    range: (usize, usize),
}

impl View {
    /// The tensor of these values of a storage, all of which have to be there.
    pub fn of(stored: &Storage<'_>, offset: i64, shape: Vec<i64>, strides: Vec<i64>) -> Refused<Self> {
        let wrong = || {
            let Storage { key, numel, .. } = stored;
            let key: String = key.escape_debug().take(40).collect();
            let (shape, strides) =
                (shape.get(..DIMS).unwrap_or(&shape), strides.get(..DIMS).unwrap_or(&strides));
            let what = format!("a tensor of shape {shape:?}, strides {strides:?} and offset {offset}");
            Refusal::from(format!("makes {what} of the {numel} values in `data/{key}`"))
        };
        let numel = shape.iter().try_fold(1i64, |n, dim| n.checked_mul(*dim).filter(|n| *n >= 0));
        let numel = numel.filter(|n| *n <= stored.numel).ok_or_else(wrong)?;
        let negative = shape.iter().chain(&strides).any(|n| *n < 0) || offset < 0;
        if negative || shape.len() != strides.len() || shape.len() > DIMS {
            return Err(wrong());
        }
        // One past the last value: the offset and the last index of each dimension.
        let span = match numel {
            0 => Some(0),
            _ => shape.iter().zip(&strides).try_fold(1i64, |end, (dim, stride)| {
                end.checked_add(dim.checked_sub(1)?.checked_mul(*stride)?)
            }),
        };
        let end = span.and_then(|span| span.checked_add(offset)).filter(|end| *end <= stored.numel);
        let range = end.and_then(|end| Some((usize::try_from(offset).ok()?, usize::try_from(end).ok()?)));
        let range = range.ok_or_else(wrong)?;
        Ok(View { key: stored.key.to_owned(), kind: stored.kind, shape, strides, range })
    }

    /// How large the tensor is.
    pub fn bytes(&self) -> Option<usize> {
        let numel = self.shape.iter().try_fold(1i64, |n, dim| n.checked_mul(*dim))?;
        usize::try_from(numel).ok()?.checked_mul(self.kind.elt_size_in_bytes())
    }

    /// The tensor, in the order of its indices whatever the strides.
    pub fn read(&self, archive: &Archive<'_>) -> Refused<Tensor> {
        let torch = |e: tch::TchError| Refusal::from(crate::error::Error::from(e).to_string());
        let size = self.kind.elt_size_in_bytes();
        let (start, end) = (self.range.0.checked_mul(size), self.range.1.checked_mul(size));
        let bytes = archive.storage(&self.key)?;
        let bytes = start.zip(end).and_then(|(start, end)| bytes.get(start..end));
        let bytes = bytes.ok_or("is not in its storage")?;
        if self.kind == Kind::Bool && bytes.iter().any(|b| *b > 1) {
            return broken("has bytes that are neither true nor false");
        }
        if self.strides == contiguous(&self.shape) || bytes.is_empty() {
            return Tensor::f_from_data_size(bytes, &self.shape, self.kind).map_err(torch);
        }
        let numel = i64::try_from(bytes.len().checked_div(size).unwrap_or_default()).unwrap_or_default();
        let flat = Tensor::f_from_data_size(bytes, &[numel], self.kind).map_err(torch)?;
        flat.f_as_strided(&self.shape, &self.strides, None).and_then(|t| t.f_contiguous()).map_err(torch)
    }
}

/// The strides of a tensor without gaps.
fn contiguous(shape: &[i64]) -> Vec<i64> {
    let inner = |from: usize| shape.iter().skip(from).fold(1i64, |n, dim| n.saturating_mul(*dim));
    (1..=shape.len()).map(inner).collect()
}
