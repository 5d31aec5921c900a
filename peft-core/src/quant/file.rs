//! 4-bit weights in a file, as bitsandbytes' `Linear4bit` stores them.
//!
//! | tensor | dtype, shape |
//! |---|---|
//! | `<weight>` | uint8 `[⌈n/2⌉, 1]`, or the same bytes as another dtype |
//! | `<weight>.absmax` | f32 `[⌈n/64⌉]`, or uint8 with double quantisation |
//! | `<weight>.quant_map` | f32 `[16]` |
//! | `<weight>.nested_absmax` | f32 `[⌈n/64/256⌉]`, with double quantisation |
//! | `<weight>.nested_quant_map` | f32 `[256]`, with double quantisation |
//! | `<weight>.quant_state.bitsandbytes__nf4` | uint8: JSON with the dtype and shape of the dense weight |

use crate::error::{Error, Result};
use crate::quant::config::{dtype, dtype_name};
use crate::quant::nf4::{BLOCK, NESTED_BLOCK, Nested, Nf4};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

const STATE: &str = ".quant_state.bitsandbytes__";

/// The JSON of `quant_state`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    quant_type: String,
    blocksize: i64,
    dtype: String,
    shape: Vec<i64>,
    nested_blocksize: Option<i64>,
    nested_dtype: Option<String>,
    nested_offset: Option<f64>,
}

/// Takes the 4-bit weights out of the tensors of a file; `place` is what errors call it.
///
/// # Errors
/// A part that is missing or has a wrong size or dtype, and other formats than NF4 in blocks of 64, by name.
pub fn take(
    place: &str,
    tensors: &mut BTreeMap<String, Tensor>,
    compute: Kind,
) -> Result<BTreeMap<String, Nf4>> {
    let states: Vec<String> = tensors.keys().filter(|name| name.contains(STATE)).cloned().collect();
    let mut found = BTreeMap::new();
    for state in states {
        let weight = state.split(STATE).next().unwrap_or_default().to_owned();
        let mut parts = Parts { place, weight: &weight, tensors };
        let nf4 = parts.read(&state, compute)?;
        found.insert(weight, nf4);
    }
    let orphan = tensors.keys().find_map(|name| {
        let weight = name.strip_suffix(".absmax").filter(|weight| tensors.contains_key(*weight))?;
        Some(format!("{weight}{STATE}nf4"))
    });
    match orphan {
        Some(name) => Err(missing(place, name, Vec::new())),
        None => Ok(found),
    }
}

fn missing(place: &str, name: String, expected: Vec<i64>) -> Error {
    let hint = ", a part of a weight in 4 bits".to_owned();
    Error::Missing { place: place.to_owned(), name, expected, hint }
}

struct Parts<'a> {
    place: &'a str,
    weight: &'a str,
    tensors: &'a mut BTreeMap<String, Tensor>,
}

impl Parts<'_> {
    fn read(&mut self, state_name: &str, compute: Kind) -> Result<Nf4> {
        let wrong = |place: &str, field: &str, message: String| {
            Err(Error::config(place, format!("{state_name}: {field}"), message))
        };
        let bytes = self.tensors.remove(state_name).map(|t| Vec::<u8>::try_from(t.f_view([-1])?));
        let bytes = bytes.transpose()?.unwrap_or_default();
        // An object first: serde would take an array for the fields in their order.
        let fields = serde_json::from_slice::<Map<String, Value>>(&bytes);
        let state: State = match fields.and_then(|fields| serde_json::from_value(fields.into())) {
            Ok(state) => state,
            Err(e) => return wrong(self.place, "JSON", e.to_string()),
        };
        if state.quant_type != "nf4" {
            let message = format!("`{}` is not supported, only `nf4` is", state.quant_type);
            return wrong(self.place, "quant_type", message);
        }
        if state.blocksize != BLOCK {
            let message = format!("{} is not supported, only {BLOCK} is", state.blocksize);
            return wrong(self.place, "blocksize", message);
        }
        let Some(kind) = dtype(&state.dtype) else {
            let message = format!("`{}` is not float32, bfloat16 or float16", state.dtype);
            return wrong(self.place, "dtype", message);
        };
        let &[out, inp] = state.shape.as_slice() else {
            return wrong(self.place, "shape", format!("{:?} is not [out, in]", state.shape));
        };
        let (Some(n), true) = (out.checked_mul(inp), out > 0 && inp > 0) else {
            return wrong(self.place, "shape", format!("{:?} cannot be", state.shape));
        };
        let blocks = parts_of(n, BLOCK);
        let nested = match (state.nested_blocksize, state.nested_dtype.as_deref(), state.nested_offset) {
            (None, None, None) => None,
            (Some(NESTED_BLOCK), Some("float32"), Some(offset)) => Some(Nested {
                absmax: self.part(".nested_absmax", Kind::Float, parts_of(blocks, NESTED_BLOCK))?,
                map: self.part(".nested_quant_map", Kind::Float, 256)?,
                // An f32, written with the digits of an f64: what a parser makes of them may be off by the last one.
                offset: f64::from(offset as f32),
            }),
            other => {
                let message =
                    format!("{other:?} is not supported, only blocks of {NESTED_BLOCK} in float32 are");
                return wrong(self.place, "nested_blocksize, nested_dtype, nested_offset", message);
            }
        };
        let scales = if nested.is_some() { Kind::Uint8 } else { Kind::Float };
        Ok(Nf4 {
            absmax: self.part(".absmax", scales, blocks)?,
            map: self.part(".quant_map", Kind::Float, 16)?,
            codes: self.part("", Kind::Uint8, parts_of(n, 2))?.f_view([-1, 1])?,
            nested,
            shape: [out, inp],
            kind,
            compute,
        })
    }

    /// A part with so many values.
    fn part(&mut self, suffix: &str, kind: Kind, numel: i64) -> Result<Tensor> {
        let (name, place) = (format!("{}{suffix}", self.weight), self.place);
        let Some(tensor) = self.tensors.remove(&name) else { return Err(missing(place, name, vec![numel])) };
        // `bnb_4bit_quant_storage`: the bytes of the codes under another dtype.
        let tensor = if suffix.is_empty() && tensor.kind() != kind {
            tensor.f_contiguous()?.f_view([-1])?.f_view_dtype(kind)?
        } else {
            tensor.f_contiguous()?.f_view([-1])?
        };
        if tensor.kind() != kind {
            let message = format!("has dtype {:?}, expected {kind:?}", tensor.kind());
            return Err(Error::config(place, name, message));
        }
        let (expected, found) = (vec![numel], tensor.size());
        if expected != found {
            let hint = ", as a part of a weight in 4 bits".to_owned();
            return Err(Error::Shape { place: place.to_owned(), name, expected, found, hint });
        }
        Ok(tensor)
    }
}

fn parts_of(n: i64, size: i64) -> i64 {
    n.checked_add(size.saturating_sub(1)).and_then(|n| n.checked_div(size)).unwrap_or(i64::MAX)
}

/// Puts a weight's parts among the tensors of a file.
pub fn put(name: &str, w: &Nf4, tensors: &mut BTreeMap<String, Tensor>) -> Result<()> {
    let [out, inp] = w.shape;
    let mut state = format!(
        r#"{{"quant_type": "nf4", "blocksize": {BLOCK}, "dtype": "{}", "shape": [{out}, {inp}]"#,
        dtype_name(w.kind)
    );
    let mut add = |suffix: &str, t: &Tensor| tensors.insert(format!("{name}{suffix}"), t.shallow_clone());
    add("", &w.codes);
    add(".absmax", &w.absmax);
    add(".quant_map", &w.map);
    if let Some(nested) = &w.nested {
        add(".nested_absmax", &nested.absmax);
        add(".nested_quant_map", &nested.map);
        let offset = nested.offset;
        state.push_str(&format!(
            r#", "nested_blocksize": {NESTED_BLOCK}, "nested_dtype": "float32", "nested_offset": {offset:?}"#
        ));
    }
    state.push('}');
    add(&format!("{STATE}nf4"), &Tensor::f_from_slice(state.as_bytes())?);
    Ok(())
}
