//! Files of safetensors: bytes that are changed, and headers that lie.

use crate::hostile::cases::raw;
use crate::hostile::json;
use crate::random::Random;
use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Changes bytes, half of them in the header.
pub fn changed(mut bytes: Vec<u8>, random: &mut Random) -> Vec<u8> {
    let header = bytes.first_chunk().map_or(0, |n| u64::from_le_bytes(*n) as usize + 8).min(bytes.len());
    if random.below(2) == 0 {
        return raw(bytes, random);
    }
    let mut rest = bytes.split_off(header);
    random.change(&mut bytes);
    bytes.append(&mut rest);
    bytes
}

/// A header that says what is not so.
pub fn header(bytes: &[u8], random: &mut Random) -> Result<Vec<u8>> {
    let length = u64::from_le_bytes(*bytes.first_chunk().context("a length")?) as usize;
    let text = bytes.get(8..8 + length).context("a header")?;
    let data = bytes.get(8 + length..).context("data")?;
    let mut all: Value = serde_json::from_slice(text)?;
    let fields = all.as_object_mut().context("an object")?;
    let names: Vec<String> = fields.keys().filter(|name| *name != "__metadata__").cloned().collect();
    let name = random.of(&names).clone();
    let end = data.len() as u64;
    let entry = fields.get_mut(&name).context("an entry")?;
    let from = entry["data_offsets"][0].as_u64().unwrap_or(0);
    match random.below(16) {
        0 => entry["data_offsets"] = json!([from, end + 1 + random.below(1 << 40) as u64]),
        1 => entry["data_offsets"] = json!([end, from]),
        2 => entry["data_offsets"] = json!([u64::MAX - 3, u64::MAX]),
        3 => entry["data_offsets"] = json!([0, entry["data_offsets"][1]]),
        4 => entry["data_offsets"] = json::value(random),
        5 => entry["shape"] = json!([1u64 << 32, 1u64 << 32]),
        6 => entry["shape"] = json!([u64::MAX]),
        7 => entry["shape"] = json!([1u64 << 62, 0]),
        8 => entry["shape"] = json!(vec![1; 70]),
        9 => entry["shape"] = json::value(random),
        10 => {
            entry["dtype"] =
                (*random.of(&["F64", "I8", "BF16", "BOOL", "F8_E4M3", "U64", "f32", "Q4", ""])).into()
        }
        11 => drop(fields.remove(&name)),
        12 => {
            let same = fields.get(&name).cloned().context("an entry")?;
            fields.insert("x\u{0}\u{1b}[31m".into(), same);
        }
        13 => drop(fields.insert("__metadata__".into(), json::value(random))),
        14 => {
            for n in 0..2000 {
                fields
                    .insert(format!("t{n}"), json!({ "dtype": "F32", "shape": [0], "data_offsets": [0, 0] }));
            }
        }
        _ => json::at_random(&mut all, random),
    }
    let text = match random.below(12) {
        0 => vec![b'['; 100_000],
        1 => format!("{{\"{name}\":{},{}", all[&name], &all.to_string()[1..]).into_bytes(),
        _ => all.to_string().into_bytes(),
    };
    let length = match random.below(10) {
        0 => *random.of(&[0, 1, u64::MAX, u64::MAX - 7, 1 << 40, bytes.len() as u64, i64::MAX as u64]),
        _ => text.len() as u64,
    };
    let data = if random.below(10) == 0 { &data[..random.below(data.len())] } else { data };
    Ok([&length.to_le_bytes()[..], &text, data].concat())
}
