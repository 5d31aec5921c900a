//! Connections that break off, bytes that are not those of the hash, a full disk.

use crate::home::{Home, directory, equal, model, refused};
use crate::server::{Faults, REPO, Server, etag};
use std::fs;
use std::process::Command;

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
