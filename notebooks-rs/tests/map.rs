//! The map in the README: no empty row, every program and every test that it names is there, and none is missing.

use anyhow::{Context, Result, ensure};
use notebooks_rs::{DOCUMENTS, find};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The cells of the map's rows.
fn rows() -> Result<Vec<[String; 6]>> {
    let text = std::fs::read_to_string(root().join("README.md"))?;
    let map = text.split("## Map").nth(1).context("no map")?;
    let rows = map.lines().filter(|l| l.starts_with('|')).skip(2).map(|line| {
        let cells: Vec<String> = line.trim_matches('|').split(" | ").map(|c| c.trim().to_owned()).collect();
        <[String; 6]>::try_from(cells).map_err(|cells| anyhow::anyhow!("{} cells: {line}", cells.len()))
    });
    rows.collect()
}

/// The tests of a lesson, `tests/lesson<number>*`: files, and folders of them.
fn sources(lesson: &str) -> Result<String> {
    let mut text = String::new();
    let mut paths = vec![root().join("tests")];
    while let Some(path) = paths.pop() {
        if path.is_file() {
            text += &std::fs::read_to_string(path)?;
            continue;
        }
        for entry in std::fs::read_dir(&path)? {
            let entry = entry?;
            let ours = entry.file_name().to_string_lossy().starts_with(&format!("lesson{lesson}"));
            if ours || path != root().join("tests") {
                paths.push(entry.path());
            }
        }
    }
    Ok(text)
}

fn quoted(cell: &str) -> String {
    cell.trim_matches('`').to_owned()
}

#[test]
fn every_row_names_a_program_and_a_test() -> Result<()> {
    let mut tests = BTreeMap::new();
    for row in rows()? {
        ensure!(row.iter().all(|cell| !cell.is_empty()), "an empty cell: {row:?}");
        let [lesson, section, _, program, _, test] = &row;
        let (document, found) = find(&quoted(program)).with_context(|| format!("no program: {row:?}"))?;
        ensure!(
            document.number == lesson && found.number == section,
            "{} {}: {row:?}",
            document.number,
            found.number
        );
        let text = match tests.get(lesson) {
            Some(text) => text,
            None => tests.entry(lesson.clone()).or_insert(sources(lesson)?),
        };
        ensure!(text.contains(&format!("#[test]\nfn {}(", quoted(test))), "no such test: {row:?}");
    }
    Ok(())
}

#[test]
fn every_section_is_in_the_map_and_has_its_program() -> Result<()> {
    let mapped: BTreeSet<String> = rows()?.iter().map(|row| quoted(&row[3])).collect();
    let mut programs = BTreeSet::new();
    for file in std::fs::read_dir(root().join("src/bin"))? {
        let path = file?.path();
        let name = path.file_stem().and_then(|n| n.to_str()).context("a file name")?.to_owned();
        let text = std::fs::read_to_string(&path)?;
        ensure!(text.contains(&format!("notebooks_rs::main(\"{name}\")")), "{name} runs another section");
        let (document, section) = find(&name).with_context(|| format!("{name} is no section"))?;
        let title = format!("//! Lesson {}, section {} {}", document.number, section.number, section.title);
        ensure!(text.starts_with(&title), "{name} does not begin with\n{title}");
        programs.insert(name);
    }
    let sections = DOCUMENTS.iter().flat_map(|d| d.sections);
    let names: Vec<&str> = sections.map(|s| s.name).collect();
    let listed: BTreeSet<String> = names.iter().map(|&n| n.to_owned()).collect();
    ensure!(names.len() == listed.len(), "two sections have one name: {names:?}");
    ensure!(programs == listed, "programs {programs:?}\nsections {listed:?}");
    ensure!(mapped == listed, "in the map {mapped:?}\nsections {listed:?}");
    Ok(())
}
