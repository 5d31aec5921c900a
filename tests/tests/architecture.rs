//! The library's dependencies run one way, as ARCHITECTURE.md says they do.

use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The rooms of `peft-core/src` from the lowest up: what stands between backquotes after these words.
fn order() -> Result<Vec<String>> {
    let page = std::fs::read_to_string(root().join("ARCHITECTURE.md"))?;
    let (_, after) = page.split_once("Dependencies run one way:").context("no order of dependencies")?;
    let line = after.split('`').nth(1).context("no order in backquotes")?;
    Ok(line.split('<').map(|room| room.trim().to_owned()).collect())
}

/// Every source file by its module's path, without comments and tests.
fn sources() -> Result<BTreeMap<String, String>> {
    fn visit(dir: &Path, path: &str, all: &mut BTreeMap<String, String>) -> Result<()> {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?.path();
            let stem = entry.file_stem().and_then(|s| s.to_str()).context("a name")?;
            let inner = if path.is_empty() { stem.to_owned() } else { format!("{path}::{stem}") };
            if entry.is_dir() {
                visit(&entry, &inner, all)?;
            } else {
                let text = std::fs::read_to_string(&entry)?;
                let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
                let code = code.lines().map(|line| line.split("//").next().unwrap_or_default());
                let name = if stem == "mod" { path.to_owned() } else { inner };
                all.insert(name, code.collect::<Vec<_>>().join("\n"));
            }
        }
        Ok(())
    }
    let mut all = BTreeMap::new();
    visit(&root().join("peft-core/src"), "", &mut all)?;
    all.remove("lib"); // the front door shows what is in the rooms
    Ok(all)
}

/// What follows every `crate::` in the code, trees of names taken apart: `a::{b, c}` is `a::b` and `a::c`.
fn imports(code: &str) -> Vec<String> {
    fn names(prefix: &str, tree: &str, all: &mut Vec<String>) -> usize {
        let end = tree.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(tree.len());
        let path = format!("{prefix}{}", &tree[..end]);
        if !path.ends_with("::") || !tree[end..].starts_with('{') {
            all.push(path);
            return end;
        }
        let mut at = end + 1;
        while !tree[at..].starts_with('}') {
            let step = names(&path, &tree[at..], all);
            at += if step == 0 { 1 } else { step };
        }
        at + 1
    }
    let mut all = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        names("", &code[at + "crate::".len()..], &mut all);
    }
    all.retain(|path| !path.is_empty() && !path.ends_with("::"));
    all
}

/// The file that a path is in: the longest part of it that is a module, or where that module has the name from.
fn file(path: &str, sources: &BTreeMap<String, String>) -> Option<String> {
    let ends = path.match_indices("::").map(|(at, _)| at).chain([path.len()]);
    let module = ends.map(|end| &path[..end]).filter(|module| sources.contains_key(*module)).last()?;
    let name = path[module.len()..].trim_start_matches("::").split("::").next()?;
    let shown = sources[module].split("use ").skip(1).filter_map(|rest| rest.split_once(';'));
    let child = shown.filter_map(|(tree, _)| tree.split_once("::")).find_map(|(child, names)| {
        let child = format!("{module}::{child}");
        let has = names.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|word| word == name);
        (has && sources.contains_key(&child)).then_some(child)
    });
    Some(child.unwrap_or_else(|| module.to_owned()))
}

fn room(module: &str) -> &str {
    module.split("::").next().unwrap_or(module)
}

/// Catches an import from a room further up, a room that the page does not know, and an import through the front door.
#[test]
fn no_import_goes_up() -> Result<()> {
    let (order, sources) = (order()?, sources()?);
    let floor = |room: &str| order.iter().position(|r| r == room);
    let mut up = Vec::new();
    for (module, code) in &sources {
        let own =
            floor(room(module)).with_context(|| format!("ARCHITECTURE.md has no room for `{module}`"))?;
        for path in imports(code) {
            match floor(room(&path)) {
                Some(other) if other <= own => {}
                Some(_) => up.push(format!("{module} imports {path}, which is further up")),
                None => up.push(format!("{module} imports {path} through the front door, or from no room")),
            }
        }
    }
    ensure!(up.is_empty(), "{} imports go up:\n  {}", up.len(), up.join("\n  "));
    Ok(())
}

/// Catches files that need each other, but for a module and the files of its own folder.
#[test]
fn no_files_are_in_a_circle() -> Result<()> {
    let sources = sources()?;
    let mut reached: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (module, code) in &sources {
        let paths = imports(code);
        let others = paths.iter().filter_map(|path| file(path, &sources)).filter(|other| other != module);
        reached.insert(module, others.collect());
    }
    // Everything that can be reached, step by step.
    loop {
        let more: Vec<(&str, BTreeSet<String>)> = (reached.iter())
            .map(|(m, direct)| (*m, direct.iter().flat_map(|d| reached[d.as_str()].clone()).collect()))
            .collect();
        let before: usize = reached.values().map(BTreeSet::len).sum();
        more.into_iter().for_each(|(m, set)| reached.entry(m).or_default().extend(set));
        if reached.values().map(BTreeSet::len).sum::<usize>() == before {
            break;
        }
    }
    let mut circles: BTreeSet<Vec<&str>> = BTreeSet::new();
    for (module, others) in &reached {
        let circle = reached.keys().filter(|o| others.contains(**o) && reached[*o].contains(*module));
        let circle: Vec<&str> = circle.copied().collect();
        let Some(parent) = circle.iter().min_by_key(|m| m.len()) else { continue };
        if !circle.iter().all(|m| m == parent || m.starts_with(&format!("{parent}::"))) {
            circles.insert(circle);
        }
    }
    ensure!(circles.is_empty(), "files that need each other: {circles:#?}");
    Ok(())
}
