//! Models and adapters from the Hub, by `peft fetch` from a server on loopback.

#[path = "hub/server.rs"]
mod server;

use server::{COMMIT, Faults, REPO, Server, etag, is_large};
use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

type Files = BTreeMap<String, Vec<u8>>;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/llama");

/// A test model as the Hub has it, with an adapter in a folder and files that nobody reads.
fn model() -> Files {
    let mut files = Files::new();
    for (from, to) in [("base", ""), ("lora", "last/")] {
        for entry in fs::read_dir(format!("{GOLDEN}/{from}")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            files.insert(format!("{to}{name}"), fs::read(&path).unwrap());
        }
    }
    for name in ["README.md", "pytorch_model.bin", "onnx/model.onnx", "training_args.bin"] {
        files.insert(name.into(), b"nobody reads this".to_vec());
    }
    files.insert("tokenizer.json".into(), br#"{"model": {}}"#.to_vec());
    files
}

struct Home {
    dir: TempDir,
}

impl Home {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn repo(&self) -> PathBuf {
        self.dir.path().join("hub/models--maker--tiny")
    }

    fn command(&self, endpoint: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_peft"));
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("HF_")
                || text.to_lowercase().ends_with("_proxy")
                || text == "TRANSFORMERS_OFFLINE"
            {
                command.env_remove(&name);
            }
        }
        command.current_dir(self.dir.path()).env("HF_HOME", self.dir.path()).env("HF_ENDPOINT", endpoint);
        command.arg("fetch").args(arguments);
        command
    }

    fn fetch(&self, endpoint: &str, arguments: &[&str]) -> Output {
        self.command(endpoint, arguments).output().unwrap()
    }

    /// What is in `blobs`, without what is under way.
    fn blobs(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.repo().join("blobs")) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

#[track_caller]
fn directory(output: &Output) -> PathBuf {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(std::str::from_utf8(&output.stdout).unwrap().trim())
}

#[track_caller]
fn refused(output: &Output, words: &[&str]) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    let error = text.lines().last().unwrap_or_default();
    assert!(error.starts_with("error: "), "{text}");
    for word in words {
        assert!(error.contains(word), "`{word}` is missing: {error}");
    }
    text
}

#[track_caller]
fn equal(dir: &Path, name: &str, bytes: &[u8]) {
    assert!(fs::read(dir.join(name)).unwrap() == bytes, "{name} differs");
}

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
    refused(&home.fetch(&server.endpoint, &[&format!("{REPO}/last")]), &["no config.json", "is an adapter"]);
    refused(&home.fetch(&server.endpoint, &["--adapter", REPO]), &["no adapter_config.json", "is a model"]);
    refused(&home.fetch(&server.endpoint, &[&format!("{REPO}/first")]), &["no files there"]);
}

#[test]
fn what_breaks_off_is_gone_on_with() {
    let (files, home) = (model(), Home::new());
    let weights = &files["model.safetensors"];
    let server =
        Server::start(files.clone(), Faults { break_off: 2, break_after: 3000, ..Faults::default() });
    equal(&directory(&home.fetch(&server.endpoint, &[REPO])), "model.safetensors", weights);
    let log = server.requests();
    for start in ["", " from 3000", " from 6000"] {
        let line = format!("GET /model.safetensors{start}");
        assert_eq!(log.iter().filter(|l| **l == line).count(), 1, "{log:?}");
    }

    // Again and again, as long as each answer brings something.
    let (home, always) =
        (Home::new(), Faults { break_off: u32::MAX, break_after: 5000, ..Faults::default() });
    server.set(always.clone());
    equal(&directory(&home.fetch(&server.endpoint, &[REPO])), "model.safetensors", weights);

    // Else it is an error, and the next program goes on where this one was.
    let home = Home::new();
    server.set(Faults { break_after: 0, ..always });
    let words = ["model.safetensors", "broke off 5 times", "what has come is kept"];
    refused(&home.fetch(&server.endpoint, &[REPO]), &words);
    server.set(Faults::default());
    server.requests();
    let partial = home.repo().join("blobs").join(format!("{}.incomplete", etag(weights, true)));
    fs::write(&partial, &weights[..7777]).unwrap();
    equal(&directory(&home.fetch(&server.endpoint, &[REPO])), "model.safetensors", weights);
    assert!(server.requests().contains(&"GET /model.safetensors from 7777".into()));
    assert!(!partial.exists());
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
fn what_is_there_is_not_believed() {
    let files = model();
    let weights = &files["model.safetensors"];
    let name = etag(weights, true);
    // Rubbish of an earlier program, and a server that cannot go on in the middle.
    for (rubbish, no_ranges) in
        [(vec![7; 5000], false), (weights[..5000].to_vec(), true), (vec![7; weights.len() + 9], false)]
    {
        let home = Home::new();
        fs::create_dir_all(home.repo().join("blobs")).unwrap();
        fs::write(home.repo().join(format!("blobs/{name}.incomplete")), rubbish).unwrap();
        let server = Server::start(files.clone(), Faults { no_ranges, ..Faults::default() });
        equal(&directory(&home.fetch(&server.endpoint, &[REPO])), "model.safetensors", weights);
    }
}

#[test]
fn other_bytes_than_the_hash_says_are_removed() {
    let (files, home) = (model(), Home::new());
    let server = Server::start(files.clone(), Faults { corrupt: true, ..Faults::default() });
    let name = etag(&files["model.safetensors"], true);
    refused(&home.fetch(&server.endpoint, &[REPO]), &["model.safetensors", "sha256", &name, "removed"]);
    assert!(!home.blobs().iter().any(|blob| blob.starts_with(&name)), "{:?}", home.blobs());
    assert!(!home.repo().join("refs/main").exists());
    server.set(Faults::default());
    directory(&home.fetch(&server.endpoint, &[REPO]));
}

#[test]
fn a_token_is_asked_for_and_kept_secret() {
    let (files, home) = (model(), Home::new());
    let server = Server::start(files, Faults { token: Some("hf_secret".into()), ..Faults::default() });
    refused(&home.fetch(&server.endpoint, &[REPO]), &["gated", "HF_TOKEN", "401", "restricted"]);
    let wrong = home.command(&server.endpoint, &[REPO]).env("HF_TOKEN", "hf_wrong").output().unwrap();
    let text = refused(&wrong, &["the token from HF_TOKEN may not read it"]);
    assert!(!text.contains("hf_wrong"));
    let right = home.command(&server.endpoint, &[REPO]).env("HF_TOKEN", "hf_secret").output().unwrap();
    directory(&right);
    assert!(!String::from_utf8_lossy(&right.stderr).contains("hf_secret"));
    // The store of large files is another server, and nobody's business.
    assert_eq!(server.leaked(), 0);

    let home = Home::new();
    fs::write(home.dir.path().join("token"), "hf_secret\n").unwrap();
    directory(&home.fetch(&server.endpoint, &[REPO]));
}

#[test]
fn what_is_not_there_is_said() {
    let home = Home::new();
    let server = Server::start(model(), Faults::default());
    refused(
        &home.fetch(&server.endpoint, &["maker/tinny"]),
        &["`maker/tinny` is no directory", "there is no maker/tinny"],
    );
    refused(&home.fetch(&server.endpoint, &["maker/tiny@v9"]), &["maker/tiny has no revision `v9`", "404"]);
    server.requests();
    refused(&home.fetch(&server.endpoint, &["./maker/tiny"]), &["`./maker/tiny` is not there"]);
    assert!(server.requests().is_empty());
    let offline = home.command(&server.endpoint, &[REPO]).env("HF_HUB_OFFLINE", "1").output().unwrap();
    refused(&offline, &["HF_HUB_OFFLINE is set", "no revision `main`", "models--maker--tiny"]);
    assert!(server.requests().is_empty());

    // A directory comes before an id.
    fs::create_dir_all(home.dir.path().join(REPO)).unwrap();
    assert_eq!(directory(&home.fetch(&server.endpoint, &[REPO])), PathBuf::from(REPO));
    assert!(server.requests().is_empty());
}

#[test]
fn without_a_network_the_cache_will_do_and_that_is_said() {
    let home = Home::new();
    let server = Server::start(model(), Faults::default());
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    refused(
        &home.fetch(&closed, &[REPO]),
        &[&closed, "cannot be asked", "refused", "the cache has no revision `main`"],
    );
    let dir = directory(&home.fetch(&server.endpoint, &[REPO]));
    server.set(Faults { down: true, ..Faults::default() });
    for endpoint in [&closed, &server.endpoint] {
        let output = home.fetch(endpoint, &[REPO]);
        assert_eq!(directory(&output), dir);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("warning: ") && said.contains("as it is in the cache"), "{said}");
    }
    fs::remove_file(dir.join("model.safetensors")).unwrap();
    let offline = home.command(&closed, &[REPO]).env("HF_HUB_OFFLINE", "yes").output().unwrap();
    refused(&offline, &["the cache lacks model.safetensors"]);
}

/// As Python leaves it when it has fetched a model for itself: with the files it wanted.
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

/// A limit of the file size stands for a full disk: the write fails in the middle.
#[test]
fn a_full_disk_keeps_what_there_was_room_for() {
    let (mut files, home) = (model(), Home::new());
    files.insert("model.safetensors".into(), vec![5; 100_000]);
    let server = Server::start(files.clone(), Faults::default());
    let inner = home.command(&server.endpoint, &[REPO]);
    let mut command = Command::new("sh");
    // 80 blocks of 512 or 1024 bytes, as the shell has it.
    command
        .args(["-c", "trap '' XFSZ; ulimit -f 80; exec \"$@\"", "sh"])
        .arg(inner.get_program())
        .args(inner.get_args());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let output = command.current_dir(home.dir.path()).output().unwrap();
    refused(&output, &["model.safetensors", "what has come is kept", "make room"]);
    server.requests();
    equal(
        &directory(&home.fetch(&server.endpoint, &[REPO])),
        "model.safetensors",
        &files["model.safetensors"],
    );
    assert!(server.requests().iter().any(|l| l.starts_with("GET /model.safetensors from ")));
}
