//! What is done with trained adapters and runs: they are evaluated, inspected, merged.

use peft_core::hub::{self, Head, Options};
use peft_core::io::tensors;
use peft_core::tch::{Device, Kind};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(path)
}

/// `peft COMMAND` in a folder.
fn peft(dir: &TempDir, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peft"));
    command.current_dir(dir.path()).env("OMP_NUM_THREADS", "1").args(arguments).output().unwrap()
}

/// The JSON lines that it says, and how it ends.
fn lines(dir: &TempDir, code: i32, arguments: &[&str]) -> Vec<Value> {
    let output = peft(dir, &[arguments, &["--json"]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A folder with a tiny model that has a tokenizer, as `model`, and rows as `rows.jsonl`.
fn work(family: &str, rows: &[Value]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    std::fs::create_dir(&model).unwrap();
    for from in [golden(family).join("base"), golden("text").join(family)] {
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), model.join(entry.file_name())).unwrap();
        }
    }
    let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
    std::fs::write(dir.path().join("rows.jsonl"), text).unwrap();
    dir
}

fn train(dir: &TempDir, more: &[&str]) {
    let given = ["train", "--model", "model", "--data", "rows.jsonl", "--output", "out", "--lr", "1e-2"];
    let output = peft(dir, &[&given, more].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn causal() -> TempDir {
    let texts = ["the cat sat on a mat", "a dog was red", "what is the cat", "the mat is not small"];
    let rows: Vec<Value> = texts.iter().cycle().take(12).map(|text| json!({ "text": text })).collect();
    work("llama", &rows)
}

/// Catches adapters that are all measured as one, a base that is measured with an adapter, rows that depend on the batch.
#[test]
fn adapters_are_compared() {
    let dir = causal();
    train(&dir, &["--epochs", "4", "--eval-data", "rows.jsonl", "--set", "target_modules=all-linear"]);
    let lora = golden("llama/lora").display().to_string();
    let eval = ["eval", "model", "rows.jsonl", "--adapter", "mine=out", "--adapter", &lora, "--base"];
    let found = lines(&dir, 0, &eval);
    let of = |at: usize, field: &str| found[at][field].as_f64().unwrap();
    assert_eq!(
        [&found[0]["adapters"], &found[1]["adapters"], &found[2]["adapters"]],
        [&json!([]), &json!(["mine"]), &json!(["lora"])]
    );
    assert!(of(1, "loss") < of(0, "loss") - 0.1 && of(2, "loss") != of(0, "loss"), "{found:?}");
    assert!(of(1, "token_accuracy") >= of(0, "token_accuracy"), "{found:?}");
    let one = &lines(&dir, 0, &["eval", "model", "rows.jsonl", "--adapter", "mine=out", "--batch", "5"])[0];
    assert!((one["loss"].as_f64().unwrap() - of(1, "loss")).abs() < 1e-5, "{one}");
    // What training said of its own last evaluation.
    let text = std::fs::read_to_string(dir.path().join("out/README.md")).unwrap();
    assert!(text.contains(&format!("{:.4}", of(1, "loss"))), "{text}: {found:?}");
    let both = &lines(&dir, 0, &[&eval[..7], &["--active", "mine,lora"]].concat())[0];
    assert_eq!(both["adapters"], json!(["mine", "lora"]));
    let table = peft(&dir, &eval);
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(["base alone", "mine", "lora", "perplexity"].iter().all(|part| table.contains(part)), "{table}");
    let cut = peft(&dir, &["eval", "model", "rows.jsonl", "--length", "3"]);
    assert!(String::from_utf8_lossy(&cut.stderr).contains("cut"), "{cut:?}");
}

/// Catches a regression that is taken for classes, and an encoder's answer for another row.
#[test]
fn numbers_are_evaluated() {
    let words = ["the cat", "a dog was", "the mat is not", "what is", "who sat on a", "red"];
    let numbers = [0.5, -1.0, 2.0, 0.25, 1.5, -0.75];
    let rows = words.iter().zip(numbers).map(|(text, label)| json!({ "text": text, "label": label }));
    let dir = work("bert", &rows.collect::<Vec<_>>());
    let file = dir.path().join("model/model.safetensors");
    let mut headless = tensors::read(&file).unwrap();
    headless.retain(|name, _| !name.starts_with("classifier."));
    tensors::write(&file, &headless).unwrap();
    train(&dir, &["--task", "regression", "--epochs", "30"]);
    let found = &lines(&dir, 0, &["eval", "model", "rows.jsonl", "--adapter", "out"])[0];
    let of = |field: &str| found[field].as_f64().unwrap();
    assert!(of("pearson") > 0.5 && of("mse") < 1.5 && of("mae") > 0.0, "{found}");
    assert!((of("loss") - of("mse")).abs() < 1e-5 && found["rows"] == 6, "{found}");
}

#[test]
fn runs_and_checkpoints_are_inspected() {
    let dir = causal();
    train(
        &dir,
        &["--epochs", "4", "--batch", "4", "--save-every", "4", "--keep", "3", "--eval-share", "0.34"],
    );
    let found = lines(&dir, 0, &["inspect", "out"]);
    assert_eq!((&found[0]["kind"], &found[1]["kind"]), (&json!("adapter"), &json!("run")));
    assert_eq!(found[0]["unknown"], json!({}));
    let all = found[1]["checkpoints"].as_array().unwrap();
    let steps: Vec<u64> = all.iter().map(|c| c["step"].as_u64().unwrap()).collect();
    assert!(steps.contains(&8) && found[1]["best"].is_number(), "{found:?}");
    let config = dir.path().join("out/adapter_config.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    json["rnak"] = 8.into();
    std::fs::write(&config, json.to_string()).unwrap();
    assert_eq!(lines(&dir, 0, &["inspect", "out"])[0]["unknown"], json!({ "rnak": 8 }));

    let last = "out/checkpoints/checkpoint-8";
    let whole = &lines(&dir, 0, &["inspect", last])[0];
    assert_eq!(
        (&whole["kind"], &whole["step"], &whole["batch"]),
        (&json!("checkpoint"), &json!(8), &json!(4))
    );
    assert_eq!(whole["adapters"][0]["parameters"], found[0]["parameters"]);
    assert!(whole["adapters"][0]["norms"]["lora_B"]["mean"].as_f64().unwrap() > 0.0, "{whole}");
    assert!(whole["recipe"]["model"] == "model" && whole["not_finite"] == json!([]), "{whole}");

    let state = dir.path().join(last).join("state.safetensors");
    let bytes = std::fs::read(&state).unwrap();
    std::fs::write(&state, &bytes[..bytes.len() - 8]).unwrap();
    let torn = &lines(&dir, 3, &["inspect", last])[0];
    assert!(torn["torn"].as_str().unwrap().contains("state.safetensors") && torn["step"] == 8, "{torn}");
    let run = &lines(&dir, 3, &["inspect", "out"])[1];
    let torn = |c: &Value| c.get("torn").is_some();
    assert_eq!(run["checkpoints"].as_array().unwrap().iter().filter(|c| torn(c)).count(), 1, "{run}");
}

/// Catches a tolerance of 32 bits for 16, and what was added in 16 bits.
#[test]
fn bases_of_sixteen_bits_are_merged_and_converted() {
    let dir = causal();
    for (kind, name) in [(Kind::BFloat16, "bf16"), (Kind::Half, "f16")] {
        let half = Options { kind: Some(kind), ..Head::Stored.into() };
        let peft = hub::open(dir.path().join("model"), Device::Cpu, half).unwrap().peft;
        hub::save(&peft, dir.path().join(name), Some(&dir.path().join("model"))).unwrap();
        for adapter in ["lora", "dora", "rslora"] {
            let (from, out) = (golden(&format!("llama/{adapter}")), format!("{name}-{adapter}"));
            let from = from.display().to_string();
            let made = &lines(&dir, 0, &["merge", name, &from, &out])[0];
            let [error, most] = ["error", "tolerance"].map(|field| made[field].as_f64().unwrap());
            assert!(error <= most, "{made}");
            let merged = tensors::read(dir.path().join(&out).join("model.safetensors")).unwrap();
            assert!(merged.values().all(|t| t.kind() == kind), "{name} {adapter}");
            let ids = |model: &str, more: &[&str]| {
                lines(&dir, 0, &[&["generate", model, "the cat", "--tokens", "3"], more].concat())[0]["ids"]
                    .clone()
            };
            assert_eq!(ids(&out, &[]).as_array().unwrap().len(), 3);
            assert_eq!(ids(name, &["--adapter", &from]).as_array().unwrap().len(), 3);
        }
        let from = golden("llama/rslora").display().to_string();
        let made = &lines(&dir, 0, &["convert", name, &from, &format!("{name}-plain"), "--for", "vllm"])[0];
        assert_eq!(made["exact"], true);
        let from = golden("llama/dora").display().to_string();
        lines(&dir, 0, &["convert", name, &from, &format!("{name}-to"), "--to-lora", "4"]);
        let loss = &lines(&dir, 0, &["eval", name, "rows.jsonl", "--adapter", &from])[0]["loss"];
        assert!(loss.as_f64().unwrap().is_finite());
    }
}
