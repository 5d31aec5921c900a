//! JSON that is broken, or is JSON and no sense.

use crate::hostile::cases::raw;
use crate::random::Random;
use serde_json::{Map, Value, json};

/// Values that nobody expects.
pub fn value(random: &mut Random) -> Value {
    match random.below(22) {
        0 => Value::Null,
        1 => true.into(),
        2 => 0.into(),
        3 => (-1).into(),
        4 => i64::MAX.into(),
        5 => i64::MIN.into(),
        6 => u64::MAX.into(),
        7 => 1e308.into(),
        8 => 1e-320.into(),
        9 => 0.5.into(),
        10 => "".into(),
        11 => "x".repeat(1 << 16).into(),
        12 => "../../../etc/passwd".into(),
        13 => "\u{1b}[2J\n\u{0}".into(),
        14 => json!([]),
        15 => json!({}),
        16 => json!([[[[[1]]]]]),
        17 => json!({ "": { "": null } }),
        18 => (1i64 << 40).into(),
        19 => (1i64 << 31).into(),
        20 => json!([0, -1, 1i64 << 62]),
        _ => "((((a+)+)+)+)+$".into(),
    }
}

/// A file of JSON, changed.
pub fn changed(bytes: Vec<u8>, random: &mut Random) -> Vec<u8> {
    let parsed: Option<Value> = serde_json::from_slice(&bytes).ok();
    match (random.below(12), parsed) {
        (0..=6, Some(mut all)) => {
            for _ in 0..=random.below(2) {
                at_random(&mut all, random);
            }
            serde_json::to_vec(&all).unwrap_or(bytes)
        }
        (7, _) => whole(random),
        (8, Some(Value::Object(all))) => twice(&all, random),
        _ => raw(bytes, random),
    }
}

/// Files in which nothing is as it should be.
fn whole(random: &mut Random) -> Vec<u8> {
    match random.below(8) {
        0 => Vec::new(),
        1 => b"\xef\xbb\xbf{}".to_vec(),
        2 => vec![b'['; 200_000],
        3 => "{\"a\":".repeat(100_000).into_bytes(),
        4 => b"\xff\xfe{\x00}\x00".to_vec(),
        5 => format!("{{\"a\": {}}}", "9".repeat(100_000)).into_bytes(),
        6 => vec![0; 4096],
        _ => serde_json::to_vec(&value(random)).unwrap_or_default(),
    }
}

/// A key that is there twice.
fn twice(all: &Map<String, Value>, random: &mut Random) -> Vec<u8> {
    let mut entries: Vec<String> = all.iter().map(|(name, v)| format!("{}:{v}", json!(name))).collect();
    let at = random.below(entries.len());
    if let Some(name) = all.keys().nth(at) {
        entries.push(format!("{}:{}", json!(name), value(random)));
    }
    format!("{{{}}}", entries.join(",")).into_bytes()
}

/// Changes something, at any depth.
pub fn at_random(all: &mut Value, random: &mut Random) {
    let deeper = random.below(3) > 0;
    match all {
        Value::Object(fields) if !fields.is_empty() => {
            let at = random.below(fields.len());
            let Some(name) = fields.keys().nth(at).cloned() else { return };
            match fields.get_mut(&name) {
                Some(inner) if deeper && (inner.is_object() || inner.is_array()) => at_random(inner, random),
                _ => match random.below(5) {
                    0 => drop(fields.remove(&name)),
                    1 => drop(fields.insert(format!("{name}_"), value(random))),
                    _ => drop(fields.insert(name, value(random))),
                },
            }
        }
        Value::Array(items) if !items.is_empty() => {
            let at = random.below(items.len());
            match &mut items[at] {
                inner if deeper && (inner.is_object() || inner.is_array()) => at_random(inner, random),
                _ if random.below(4) == 0 => drop(items.remove(at)),
                item => *item = value(random),
            }
        }
        other => *other = value(random),
    }
}
