//! Commands over models and adapters, as their users run them.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn golden(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name).display().to_string()
}

fn peft<S: AsRef<str>>(arguments: &[S]) -> Output {
    let arguments = arguments.iter().map(AsRef::as_ref);
    Command::new(env!("CARGO_BIN_EXE_peft")).args(arguments).output().unwrap()
}

/// The JSON lines of a command that ends well.
fn json<S: AsRef<str>>(arguments: &[S]) -> Vec<Value> {
    let mut all: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
    all.push("--json");
    let output = peft(&all);
    assert!(output.status.success(), "{all:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The one line of a command that fails.
fn error<S: AsRef<str>>(arguments: &[S]) -> String {
    let output = peft(arguments);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty());
    let text = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("warning: ")).collect();
    assert_eq!(lines.len(), 1, "{text}");
    lines[0].to_owned()
}

fn path(dir: &tempfile::TempDir, name: &str) -> (PathBuf, String) {
    let path = dir.path().join(name);
    (path.clone(), path.display().to_string())
}

#[test]
fn methods_are_listed_and_one_is_explained() {
    let all = json(&["methods"]);
    assert_eq!(all.len(), 28);
    let lora = all.iter().find(|m| m["name"] == "lora").unwrap();
    assert_eq!((&lora["trained"], &lora["merges"]), (&4_194_304.into(), &"yes".into()));
    let dora = &json(&["methods", "DoRA"])[0];
    assert_eq!((&dora["fields"]["use_dora"], &dora["fields"]["r"]), (&true.into(), &8.into()));
    assert!(error(&["methods", "lroa"]).contains("did you mean `lora`"));
}

#[test]
fn a_merged_model_computes_what_the_adapted_one_does() {
    let dir = tempfile::tempdir().unwrap();
    for (model, adapter) in [("llama", "dora"), ("gpt2", "pissa"), ("bert", "lora")] {
        let (out, text) = path(&dir, model);
        let base = golden(&format!("{model}/base"));
        let adapter = golden(&format!("{model}/{adapter}"));
        let merged = &json(&["merge", &base, &adapter, &text])[0];
        assert!(merged["error"].as_f64().unwrap() < 1e-5, "{merged}");
        assert!(out.join("model.safetensors").exists());
        assert!(error(&["merge", &base, &adapter, &text]).contains("--overwrite"));
        json(&["merge", &base, &adapter, &text, "--overwrite"]);
    }
    // What one generates is what the other does.
    let write = |arguments: &[&str]| json(arguments)[0]["ids"].clone();
    let (_, merged) = path(&dir, "llama");
    let base = golden("llama/base");
    let adapted = write(&["generate", &base, "5 17 2", "--adapter", &golden("llama/dora")]);
    assert_eq!(adapted, write(&["generate", &merged, "5 17 2"]));
    assert_ne!(adapted, write(&["generate", &base, "5 17 2"]));
}

#[test]
fn what_cannot_be_merged_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (out, text) = path(&dir, "out");
    let said = error(&["merge", &golden("llama/base"), &golden("llama/prefix"), &text]);
    assert!(said.contains("cannot be merged"), "{said}");
    assert!(!out.exists() && dir.path().read_dir().unwrap().next().is_none());
    let said = error(&["merge", &golden("llama/base"), &golden("gpt2/lora"), &text]);
    assert!(said.contains("c_attn"), "{said}");
    assert!(!out.exists());
}

#[test]
fn plain_loras_are_exact_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let base = golden("llama/base");
    for (adapter, rank) in [("rslora", 4), ("pissa", 8), ("x_olora", 8), ("adalora", 4), ("lora_pattern", 4)]
    {
        let (out, text) = path(&dir, adapter);
        let made =
            &json(&["convert", &base, &golden(&format!("llama/{adapter}")), &text, "--for", "vllm"])[0];
        assert!(made["distance"]["error"].as_f64().unwrap() < 1e-5 && made["exact"] == true, "{made}");
        let config: Value =
            serde_json::from_slice(&std::fs::read(out.join("adapter_config.json")).unwrap()).unwrap();
        assert_eq!((&config["r"], &config["use_rslora"]), (&rank.into(), &false.into()), "{adapter}");
        assert_eq!(config["init_lora_weights"], true);
    }
    let (out, text) = path(&dir, "refused");
    for (adapter, why) in [("dora", "use_dora"), ("lora_mts", "modules_to_save"), ("ia3", "low rank")] {
        let adapter = golden(&format!("llama/{adapter}"));
        let said = error(&["convert", &base, &adapter, &text, "--for", "llama.cpp"]);
        assert!(said.contains(why) && said.contains("peft merge"), "{said}");
        assert!(!out.exists());
    }
    let made = &json(&["convert", &base, &golden("llama/dora"), &text, "--to-lora", "2"])[0];
    let kept = made["kept"].as_f64().unwrap();
    assert!(made["exact"] == false && (0.3..0.9).contains(&kept), "{made}");
}

#[test]
fn adapters_are_combined_and_rows_have_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let (out, text) = path(&dir, "both");
    let base = golden("llama/base");
    let one = format!("one={}", golden("llama/lora"));
    let two = golden("llama/rslora");
    let adapters = ["--adapter", one.as_str(), "--adapter", two.as_str()];
    let combine = [&["combine", &base, &text, "--weights", "one=0.7,rslora=0.3"][..], &adapters].concat();
    json(&combine);
    assert!(out.join("adapter_model.safetensors").exists());
    let rows = [&["generate", &base, "9 9", "9 9", "9 9", "--rows", "one,rslora,-"][..], &adapters].concat();
    let rows = json(&rows);
    let alone = |name: &str| json(&["generate", &base, "9 9", "--adapter", name])[0]["ids"].clone();
    assert_eq!((&rows[0]["ids"], &rows[1]["ids"]), (&alone(&one), &alone(&two)));
    assert_eq!(rows[2]["ids"], json(&["generate", &base, "9 9"])[0]["ids"]);
    let said = error(&[&["generate", &base, "9 9"][..], &adapters].concat());
    assert!(said.contains("--rows"), "{said}");
}

#[test]
fn what_is_there_is_inspected() {
    let model = &json(&["inspect", &golden("llama/base")])[0];
    assert_eq!(
        (&model["kind"], &model["parameters"], &model["layers"]),
        (&"model".into(), &24_736.into(), &2.into())
    );
    let base = golden("llama/base");
    let adapter = &json(&["inspect", &golden("llama/rslora"), "--base", &base])[0];
    assert_eq!((&adapter["method"], &adapter["set"]["r"]), (&"rsLoRA".into(), &4.into()));
    let changes = adapter["changes"].as_array().unwrap();
    let rank = |change: &Value| change["effective_rank"].as_f64().unwrap();
    assert!(changes.len() == 6 && changes.iter().all(|c| (1.0..4.01).contains(&rank(c))), "{changes:?}");
    assert!(error(&["inspect", "/"]).contains("no adapter, no model"));
}

#[test]
fn memory_is_planned_by_part() {
    let plan = &json(&["plan", &golden("llama/base"), "--batch", "4", "--length", "32", "--set", "r=4"])[0];
    let part = |name: &str| plan[name].as_i64().unwrap();
    let sum: i64 = ["base", "adapter", "gradients", "optimizer", "activations"].into_iter().map(part).sum();
    assert!(sum == part("total") && part("activations") > 0 && part("base") == 4 * 24_736, "{plan}");
    assert!(error(&["plan", &golden("llama/base"), "--set", "rnak=4"]).contains("did you mean"));
    assert!(error(&["plan", &golden("bert/base"), "--length", "100000"]).contains("positions"));
}

#[test]
fn a_method_is_recommended() {
    let found =
        &json(&["recommend", "7B", "--gpu", "14GB", "--task", "classification", "--examples", "5000"])[0];
    assert!(found["model"].as_str().unwrap().contains("assumed shape"));
    assert!(found["advice"]["fits"] == true && found["advice"]["base"].as_str().unwrap().contains("4 bits"));
    let bert = golden("bert/base");
    let said = error(&["recommend", &bert, "--task", "generation"]);
    assert!(said.contains("no causal model"), "{said}");
    let found = &json(&["recommend", &bert])[0];
    assert!(
        found["model"].as_str().unwrap().starts_with("bert of ") && !found.to_string().contains("assumed")
    );
    assert!(error(&["recommend", &golden("llama/lora")]).contains("this is an adapter and no model"));
    assert!(error(&["recommend", "7B", "--examples", "0"]).contains("examples"));
    assert_eq!(peft(&["recommend", "7B", "--gpu", "-1"]).status.code(), Some(2));
}

#[test]
fn adapters_are_called_by_their_folder_or_a_name() {
    let (base, lora) = (golden("llama/base"), golden("llama/lora"));
    for (given, name) in
        [(lora.clone(), "lora"), (format!("one={lora}"), "one"), (format!("{lora}/."), "lora")]
    {
        let found = json(&["generate", &base, "5 17 2", "--tokens", "2", "--adapter", &given]);
        assert_eq!(found[0]["adapter"], name);
    }
    assert!(error(&["generate", &base, "5", "--adapter", "nowhere"]).contains("nowhere"));
    assert!(error(&["generate", &lora, "5"]).contains("this is an adapter and no model"));
}

/// A golden base with a tokenizer of the goldens beside it.
fn with_tokenizer(dir: &tempfile::TempDir, family: &str) -> String {
    let (out, text) = path(dir, family);
    std::fs::create_dir(&out).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(format!("{}/{file}", golden(&format!("{family}/base"))), out.join(file)).unwrap();
    }
    std::fs::copy(golden(&format!("text/{family}/tokenizer.json")), out.join("tokenizer.json")).unwrap();
    text
}

#[test]
fn models_are_measured_on_data() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = path(&dir, "data.jsonl");
    let llama = with_tokenizer(&dir, "llama");
    std::fs::write(&data, "{\"text\": \"the cat\"}\n{\"text\": \"a cat sat\"}\n").unwrap();
    let base = &json(&["eval", &llama, &file])[0];
    let loss = base["loss"].as_f64().unwrap();
    assert!((base["perplexity"].as_f64().unwrap() - loss.exp()).abs() < 1e-9 && base["rows"] == 2, "{base}");
    let adapted = &json(&["eval", &llama, &file, "--adapter", &golden("llama/lora")])[0];
    assert_ne!(adapted["loss"], base["loss"]);
    let none = &json(&["eval", &llama, &file, "--adapter", &golden("llama/lora"), "--active", "-"])[0];
    assert_eq!(none["loss"], base["loss"]);

    let bert = with_tokenizer(&dir, "bert");
    std::fs::write(&data, "{\"text\": \"the cat\", \"label\": 0}\n{\"text\": \"cat\", \"label\": 1}\n")
        .unwrap();
    let found = &json(&["eval", &bert, &file, "--adapter", &golden("bert/lora")])[0];
    let counts = found["confusion"].as_array().unwrap().iter().map(|c| c["count"].as_u64().unwrap());
    assert!(
        counts.sum::<u64>() == 2 && found["accuracy"].is_number() && found["macro_f1"].is_number(),
        "{found}"
    );
    assert!(error(&["eval", &golden("llama/base"), &file]).contains("tokenizer"));
}

#[test]
fn chats_go_through_the_template() {
    let dir = tempfile::tempdir().unwrap();
    let llama = with_tokenizer(&dir, "llama");
    let said = error(&["generate", &llama, "the cat", "--chat"]);
    assert!(said.contains("no chat template"), "{said}");
    let template =
        "{% for m in messages %}{{ m.content }} {% endfor %}{% if add_generation_prompt %}sat{% endif %}";
    std::fs::write(Path::new(&llama).join("chat_template.jinja"), template).unwrap();
    let ids = |arguments: &[&str]| json(arguments)[0]["ids"].clone();
    let chat = ids(&["generate", &llama, "cat", "--chat", "--system", "the", "--tokens", "5"]);
    assert_eq!(chat.as_array().unwrap().len(), 5);
    std::fs::write(Path::new(&llama).join("chat_template.jinja"), "{{ messages[-1].content }}").unwrap();
    let (list, file) = path(&dir, "prompts.txt");
    std::fs::write(list, "the cat\n\na cat\n").unwrap();
    let rows = json(&["generate", &llama, "--prompts", &file, "--chat", "--batch", "1", "--tokens", "3"]);
    assert_eq!(rows.len(), 2);
}

/// A base that is another one in a single tensor, and an adapter that knows its own.
fn another_base(dir: &tempfile::TempDir) -> (String, String) {
    use peft_core::hub::{self, Head};
    use peft_core::io::{IfExists, tensors};
    use peft_core::tch::Device;
    let ((adapter, adapter_name), (other, other_name)) = (path(dir, "mine"), path(dir, "other"));
    let mut peft = hub::open(golden("llama/base"), Device::Cpu, Head::Stored).unwrap().peft;
    peft.load("mine", golden("llama/lora")).unwrap();
    let made = peft.provenance("mine").unwrap();
    peft.save_with_provenance("mine", &adapter, IfExists::Refuse, &made).unwrap();
    hub::save(&peft, &other, Some(Path::new(&golden("llama/base")))).unwrap();
    let mut all = tensors::read(other.join("model.safetensors")).unwrap();
    let changed = all.get_mut("model.layers.0.self_attn.q_proj.weight").unwrap();
    *changed = changed.f_mul_scalar(2.0).unwrap();
    tensors::write(other.join("model.safetensors"), &all).unwrap();
    (other_name, adapter_name)
}

#[test]
fn another_base_is_refused_unless_forced() {
    let dir = tempfile::tempdir().unwrap();
    let (other, adapter) = another_base(&dir);
    let (_, out) = path(&dir, "out");
    json(&["generate", &golden("llama/base"), "5 17 2", "--adapter", &adapter]);
    let commands: [&[&str]; 5] = [
        &["generate", &other, "5 17 2", "--adapter", &adapter],
        &["merge", &other, &adapter, &out, "--overwrite"],
        &["convert", &other, &adapter, &out, "--for", "vllm", "--overwrite"],
        &["combine", &other, &out, "--adapter", &adapter, "--weights", "mine=1", "--overwrite"],
        &["inspect", &adapter, "--base", &other],
    ];
    for command in commands {
        let said = error(command);
        assert!(said.contains("another base") && said.contains("--force"), "{command:?}: {said}");
        assert!(!Path::new(&out).exists());
        let forced = peft(&[command, &["--force"]].concat());
        let warned = String::from_utf8_lossy(&forced.stderr).into_owned();
        assert!(forced.status.success() && warned.contains("warning: ") && warned.contains("another base"));
        let _ = std::fs::remove_dir_all(&out);
    }
}
