//! What is fetched, where it lies, and what is not fetched again.

use crate::home::{Home, directory, equal, model, refused};
use crate::server::{COMMIT, Faults, REPO, Server, etag, is_large};
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

#[test]
fn a_model_is_fetched_once_and_lies_as_python_has_it() {
    let (files, home) = (model(), Home::new());
    let server = Server::start(files.clone(), Faults::default());
    let dir = directory(&home.fetch(&server.endpoint, &[REPO]));
    assert_eq!(dir.as_os_str(), home.repo().join("snapshots").join(COMMIT).as_os_str());
    let mut found: Vec<_> =
        fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    found.sort();
    let mut wanted = vec!["config.json", "model.safetensors", "tokenizer.json"];
    wanted.extend(files.contains_key("generation_config.json").then_some("generation_config.json"));
    wanted.sort();
    assert_eq!(found, wanted);
    for name in wanted {
        equal(&dir, name, &files[name]);
        let target = format!("../../blobs/{}", etag(&files[name], is_large(name)));
        assert_eq!(fs::read_link(dir.join(name)).unwrap(), PathBuf::from(target));
    }
    assert_eq!(fs::read_to_string(home.repo().join("refs/main")).unwrap(), COMMIT);

    // Again: the branch is looked up, and nothing is fetched; a commit, and without a network, not even that.
    server.requests();
    assert_eq!(directory(&home.fetch(&server.endpoint, &[REPO])), dir);
    assert_eq!(server.requests(), [format!("GET /api/models/{REPO}/revision/main")]);
    assert_eq!(directory(&home.fetch(&server.endpoint, &[&format!("{REPO}@{COMMIT}")])), dir);
    let offline = home.command(&server.endpoint, &[REPO]).env("HF_HUB_OFFLINE", "1").output().unwrap();
    assert_eq!(directory(&offline), dir);
    assert!(server.requests().is_empty());

    // A tag at the same commit needs no new byte.
    directory(&home.fetch(&server.endpoint, &[&format!("{REPO}@v1")]));
    assert_eq!(fs::read_to_string(home.repo().join("refs/v1")).unwrap(), COMMIT);
    assert_eq!(server.requests().len(), 1);

    let json = home.fetch(&server.endpoint, &[REPO, "--json", "--quiet"]);
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((value["name"].as_str(), value["directory"].as_str()), (Some(REPO), dir.to_str()));
    assert!(json.stderr.is_empty());
}

#[test]
fn an_adapter_comes_from_its_folder() {
    let (files, home) = (model(), Home::new());
    let server = Server::start(files.clone(), Faults::default());
    let dir = directory(&home.fetch(&server.endpoint, &["--adapter", &format!("{REPO}/last")]));
    assert_eq!(dir, home.repo().join("snapshots").join(COMMIT).join("last"));
    equal(&dir, "adapter_model.safetensors", &files["last/adapter_model.safetensors"]);
    equal(&dir, "adapter_config.json", &files["last/adapter_config.json"]);
    equal(&dir, "peft_rs.json", b"{}");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 3);
    refused(&home.fetch(&server.endpoint, &[&format!("{REPO}/last")]), &["no config.json", "is an adapter"]);
    refused(&home.fetch(&server.endpoint, &["--adapter", REPO]), &["no adapter_config.json", "is a model"]);
    refused(&home.fetch(&server.endpoint, &[&format!("{REPO}/first")]), &["no files there"]);
}

#[test]
fn a_shape_needs_no_weights() {
    let (files, home) = (model(), Home::new());
    let server = Server::start(files, Faults::default());
    for command in [&["plan", REPO, "--length", "8"][..], &["recommend", REPO]] {
        let done = home.peft(&server.endpoint, command).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    let asked: Vec<_> = server.requests().into_iter().filter(|line| line.contains("/resolve/")).collect();
    assert!(asked.iter().all(|line| line.ends_with("/config.json")) && !asked.is_empty(), "{asked:?}");
    // The whole model is fetched all the same.
    let dir = directory(&home.fetch(&server.endpoint, &[REPO]));
    assert!(dir.join("model.safetensors").exists());
    let done =
        home.peft("http://127.0.0.1:9", &["recommend", REPO]).env("HF_HUB_OFFLINE", "1").output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let adapter = home.peft(&server.endpoint, &["plan", &format!("{REPO}/last")]).output().unwrap();
    refused(&adapter, &["is an adapter"]);
}

#[test]
fn two_programs_at_once_fetch_it_once() {
    let (files, home) = (model(), Home::new());
    let server = Server::start(files.clone(), Faults::default());
    let spawn = || {
        home.command(&server.endpoint, &[REPO]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    for child in [spawn(), spawn(), spawn()] {
        equal(
            &directory(&child.wait_with_output().unwrap()),
            "model.safetensors",
            &files["model.safetensors"],
        );
    }
    assert_eq!(server.requests().iter().filter(|line| line.starts_with("GET /model.safetensors")).count(), 1);
}

#[test]
fn what_python_has_fetched_is_used() {
    let (files, home) = (model(), Home::new());
    let snapshot = home.repo().join("snapshots").join(COMMIT);
    for dir in [&snapshot, &home.repo().join("blobs"), &home.repo().join("refs")] {
        fs::create_dir_all(dir).unwrap();
    }
    fs::write(home.repo().join("refs/main"), COMMIT).unwrap();
    for name in ["config.json", "model.safetensors"] {
        let tag = etag(&files[name], is_large(name));
        fs::write(home.repo().join("blobs").join(&tag), &files[name]).unwrap();
        std::os::unix::fs::symlink(format!("../../blobs/{tag}"), snapshot.join(name)).unwrap();
    }
    let offline = home.command("http://127.0.0.1:9", &[REPO]).env("HF_HUB_OFFLINE", "1").output().unwrap();
    assert_eq!(directory(&offline), snapshot);
    // With a network only the tokenizer comes.
    let server = Server::start(files, Faults::default());
    directory(&home.fetch(&server.endpoint, &[&format!("{REPO}@{COMMIT}")]));
    let gets: Vec<_> = server.requests().into_iter().filter(|l| l.starts_with("GET /maker")).collect();
    assert_eq!(gets, [format!("GET /{REPO}/resolve/{COMMIT}/tokenizer.json")]);
}

#[test]
fn shards_are_those_of_the_index() {
    let (mut files, home) = (model(), Home::new());
    let weights = files.remove("model.safetensors").unwrap();
    let (a, b) = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors");
    files.insert(a.into(), weights[..100].to_vec());
    files.insert(b.into(), weights[100..].to_vec());
    files.insert("model-00003-of-00003.safetensors".into(), b"of another model".to_vec());
    let index = |b: &str| format!(r#"{{"weight_map": {{"x": "{a}", "y": "{b}"}}}}"#).into_bytes();
    files.insert("model.safetensors.index.json".into(), index(b));
    let server = Server::start(files.clone(), Faults::default());
    let dir = directory(&home.fetch(&server.endpoint, &[REPO]));
    equal(&dir, a, &files[a]);
    equal(&dir, b, &files[b]);
    assert!(!dir.join("model-00003-of-00003.safetensors").exists());
    fs::remove_file(dir.join(b)).unwrap();
    let offline = home.command(&server.endpoint, &[REPO]).env("HF_HUB_OFFLINE", "1").output().unwrap();
    refused(&offline, &["the cache lacks", b]);

    for (wrong, words) in
        [("../../../../config.json", "no name of a file beside it"), ("absent.safetensors", "absent")]
    {
        let home = Home::new();
        files.insert("model.safetensors.index.json".into(), index(wrong));
        refused(&home.fetch(&Server::start(files.clone(), Faults::default()).endpoint, &[REPO]), &[words]);
    }
}
