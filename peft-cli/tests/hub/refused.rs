//! What the Hub, the network or a name refuses.

use crate::home::{Home, directory, model, refused};
use crate::server::{Faults, REPO, Server};
use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;

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
