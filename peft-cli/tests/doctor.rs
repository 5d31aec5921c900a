//! `peft doctor` looks at what the tests themselves run on.

use serde_json::Value;
use std::process::{Command, Output};

fn doctor(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peft"));
    for name in
        ["HF_TOKEN", "HF_HUB_OFFLINE", "HF_ENDPOINT", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"]
    {
        command.env_remove(name);
    }
    command.arg("doctor").args(arguments).envs(environment.iter().copied()).output().unwrap()
}

/// What it says of one thing.
#[track_caller]
fn finding(output: &Output, what: &str) -> Value {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.find(|line| line["what"] == what).unwrap_or_else(|| panic!("nothing of {what}: {text}"))
}

#[test]
fn the_cpu_is_well() {
    let output = doctor(&["--json", "--device", "cpu"], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    let libtorch = finding(&output, "libtorch");
    assert_eq!(libtorch["state"], "ok");
    assert!(libtorch["is"].as_str().unwrap().starts_with("2.11.0"));
    assert_eq!(finding(&output, "--device")["is"], "cpu: the CPU");
    let text = String::from_utf8(doctor(&[], &[]).stdout).unwrap();
    assert!(text.contains("libtorch") && text.contains("memory"), "{text}");
}

#[test]
fn a_device_that_is_asked_for_and_not_there_is_a_fault() {
    let output = doctor(&["--json", "--device", "cuda:77"], &[]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(finding(&output, "--device")["state"], "wrong");
    let library = finding(&output, "CUDA library");
    assert!(
        library["state"] == "ok" || library["fix"].as_str().unwrap().contains("scripts/libtorch.sh --cuda")
    );
}

#[test]
fn a_token_is_seen_and_not_shown() {
    let output =
        doctor(&["--json"], &[("HF_TOKEN", "hf_secret"), ("HF_HUB_OFFLINE", "1"), ("HF_HOME", "/proc/none")]);
    assert_eq!(finding(&output, "Hub's token")["is"], "from HF_TOKEN");
    assert!(finding(&output, "Hub")["is"].as_str().unwrap().contains("HF_HUB_OFFLINE"));
    assert_eq!(finding(&output, "Hub's cache")["state"], "wrong"); // nobody can write there
    assert_eq!(output.status.code(), Some(3));
    assert!(!String::from_utf8(output.stdout).unwrap().contains("hf_secret"));
}

#[test]
fn half_of_what_ranks_need_is_a_fault() {
    for (environment, state) in [
        (&[("RANK", "0")][..], "wrong"),
        (&[("RANK", "2"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "a"), ("MASTER_PORT", "1")], "wrong"),
        (&[("RANK", "1"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "a"), ("MASTER_PORT", "1")], "ok"),
    ] {
        assert_eq!(finding(&doctor(&["--json"], environment), "ranks")["state"], state, "{environment:?}");
    }
}
