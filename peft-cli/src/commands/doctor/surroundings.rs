//! What a process finds around it: an allocator, the Hub's cache, other processes.

use super::{Finding, State};
use crate::source::Settings;
use peft_core::device;
use std::env;
use std::fs;
use std::path::PathBuf;

pub(super) fn allocator() -> Finding {
    let others = ["libjemalloc", "libtcmalloc", "libtcmalloc_minimal", "libmimalloc"];
    let ours = others.into_iter().find_map(device::loaded);
    let mut is = ours.map_or_else(|| "the C library's".into(), |path: PathBuf| path.display().to_string());
    for name in ["MALLOC_ARENA_MAX", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"] {
        if let Ok(value) = env::var(name) {
            is = format!("{is}, {name}={value}");
        }
    }
    Finding::ok("allocator", is)
}

pub(super) fn hub() -> Vec<Finding> {
    let settings = Settings::from_environment();
    let cache = &settings.cache;
    let there = cache.ancestors().find(|dir| dir.exists());
    let writable = there.is_some_and(|dir| {
        let probe = dir.join(format!(".peft-doctor-{}", std::process::id()));
        fs::File::create_new(&probe).and_then(|_| fs::remove_file(&probe)).is_ok()
    });
    let models = fs::read_dir(cache).map_or(0, |entries| {
        entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("models--")).count()
    });
    let is = format!("{}, {models} models", cache.display());
    let place = if writable {
        Finding::ok("Hub's cache", is)
    } else {
        Finding::with(
            State::Wrong,
            "Hub's cache",
            is,
            "it cannot be written to: set HF_HOME to a place that can",
        )
    };
    let asked = match (settings.offline, &settings.endpoint) {
        (Some(variable), _) => Finding::with(
            State::Absent,
            "Hub",
            format!("not asked: {variable} is set"),
            format!("unset {variable} to fetch"),
        ),
        (None, Some(endpoint)) => Finding::ok("Hub", format!("at {endpoint} (HF_ENDPOINT)")),
        (None, None) => Finding::ok("Hub", "at its own address"),
    };
    let token = match settings.token {
        Some(token) => Finding::ok("Hub's token", format!("from {}", token.from)),
        None => Finding::with(State::Absent, "Hub's token", "none", "for private and gated models: HF_TOKEN"),
    };
    vec![place, asked, token]
}

/// Several processes that train together find each other by these variables: all of them or none.
pub(super) fn ranks() -> Option<Finding> {
    const NAMES: [&str; 4] = ["RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"];
    let values = NAMES.map(|name| env::var(name).ok());
    if values.iter().all(Option::is_none) {
        return None;
    }
    let said = |(name, value): (&&str, &Option<String>)| Some(format!("{name}={}", value.as_ref()?));
    let is = NAMES.iter().zip(&values).filter_map(said).collect::<Vec<_>>().join(" ");
    let absent: Vec<_> =
        NAMES.iter().zip(&values).filter_map(|(name, v)| v.is_none().then_some(*name)).collect();
    let number = |value: &Option<String>| value.as_ref()?.parse::<u64>().ok();
    let [rank, size, ..] = &values;
    let fix = match (number(rank), number(size)) {
        _ if !absent.is_empty() => format!("set {} too, or none of them", absent.join(" and ")),
        (Some(rank), Some(size)) if rank < size => return Some(Finding::ok("ranks", is)),
        _ => "RANK is a number from 0 to WORLD_SIZE - 1".into(),
    };
    Some(Finding::with(State::Wrong, "ranks", is, fix))
}
