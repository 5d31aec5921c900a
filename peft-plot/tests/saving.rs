//! Files are whole or not there.

mod common;

use common::*;
use peft_plot::*;
use std::fs;
use std::path::Path;

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn two_files_in_a_new_directory() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("a/b");
    let figure = one(Panel::Bars(bars(&[1.0, 2.0])));
    let [svg, png] = figure.save(&dir, "loss-2.v1").unwrap();
    assert_eq!(files(&dir), ["loss-2.v1.png", "loss-2.v1.svg"]);
    assert_eq!(fs::read_to_string(&svg).unwrap(), figure.svg().unwrap());
    assert!(fs::read(&png).unwrap() == figure.png().unwrap());

    // Again, over what is there.
    let other = one(Panel::Bars(bars(&[2.0, 1.0])));
    other.save(&dir, "loss-2.v1").unwrap();
    assert_eq!(files(&dir).len(), 2);
    assert_eq!(fs::read_to_string(&svg).unwrap(), other.svg().unwrap());
}

#[cfg(unix)]
#[test]
fn everybody_may_read_them_whom_the_umask_lets() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let ordinary = dir.path().join("ordinary");
    fs::write(&ordinary, "").unwrap();
    for path in one(Panel::Bars(bars(&[1.0]))).save(dir.path(), "x").unwrap() {
        assert_eq!(mode(&path), mode(&ordinary));
    }
}

/// What a killed writer has left goes; what another one is writing, or is another picture's, stays.
#[test]
fn left_over_files_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for name in
        [".x.svg.old.saving", ".x.png.old.saving", ".x.svg.held.saving", ".y.svg.old.saving", ".x.svg"]
    {
        fs::write(at(name), "half").unwrap();
    }
    let held = fs::File::open(at(".x.svg.held.saving")).unwrap();
    held.lock().unwrap();
    one(Panel::Bars(bars(&[1.0]))).save(dir.path(), "x").unwrap();
    assert_eq!(files(dir.path()), [".x.svg", ".x.svg.held.saving", ".y.svg.old.saving", "x.png", "x.svg"]);
}

#[test]
fn what_cannot_be_drawn_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    one(Panel::Bars(bars(&[f64::NAN]))).save(&root.path().join("new"), "x").unwrap_err();
    assert!(files(root.path()).is_empty());
}

#[test]
fn a_failure_leaves_no_temporary_file() {
    let dir = tempfile::tempdir().unwrap();
    for blocked in ["x.svg", "y.png"] {
        fs::create_dir_all(dir.path().join(blocked).join("full")).unwrap();
        let name = &blocked[..1];
        let error = one(Panel::Bars(bars(&[1.0]))).save(dir.path(), name).unwrap_err();
        assert!(matches!(&error, Error::File { path, .. } if path.ends_with(blocked)), "{error}");
        assert!(error.to_string().contains(blocked), "{error}");
    }
    assert!(files(dir.path()).iter().all(|name| ["x.svg", "y.png", "y.svg"].contains(&name.as_str())));
}

#[test]
fn a_directory_that_is_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("taken");
    fs::write(&file, "").unwrap();
    let error = one(Panel::Bars(bars(&[1.0]))).save(&file, "x").unwrap_err();
    assert!(error.to_string().starts_with(&file.display().to_string()), "{error}");
}

#[test]
fn names_are_names() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["", ".", "..", "a/b", "../x", ".hidden", "a\\b", "c:d", "a b", "a\n", "/x"] {
        let error = one(Panel::Bars(bars(&[1.0]))).save(dir.path(), name).unwrap_err();
        assert!(matches!(&error, Error::Name(n) if n == name), "{error}");
    }
    assert!(files(dir.path()).is_empty());
}

#[test]
fn a_directory_is_made_or_refused() {
    let root = tempfile::tempdir().unwrap();
    make_directory(&root.path().join("a/b")).unwrap();
    assert!(root.path().join("a/b").is_dir() && files(&root.path().join("a/b")).is_empty());
    let file = root.path().join("file");
    fs::write(&file, "x").unwrap();
    let said = make_directory(&file).unwrap_err().to_string();
    assert_eq!(said, format!("{}: is a file; pictures need a directory", file.display()));
    let below = make_directory(&file.join("below")).unwrap_err().to_string();
    assert!(below.contains("cannot be made a directory"), "{below}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "x");
}
