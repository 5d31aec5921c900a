//! The model card beside an adapter.

use peft_cli::card::{Card, FILE, Written};
use peft_cli::watch::summary::Fact;
use peft_core::TaskType;
use std::fs;

fn card() -> Card {
    Card {
        base: "HuggingFaceTB/SmolLM2-135M-Instruct".into(),
        peft_type: "LORA".into(),
        task: Some(TaskType::CausalLm),
        trainable: 460_800,
        all: 134_975_808,
        training: vec![Fact::new("data", "instructions.jsonl, 3,200 rows"), Fact::new("seed", 0)],
        evaluation: vec![Fact::new("loss", "3.595 (before: 4.194)")],
        versions: vec![Fact::new("peft-rs", "0.1.0"), Fact::new("libtorch", "2.11.0")],
        ..Card::default()
    }
}

fn head(text: &str) -> &str {
    text.strip_prefix("---\n").unwrap().split_once("---\n").unwrap().0
}

#[test]
fn the_head_is_that_of_peft() {
    let expected = "base_model: HuggingFaceTB/SmolLM2-135M-Instruct\nlibrary_name: peft\npipeline_tag: text-generation\n\
                    tags:\n- base_model:adapter:HuggingFaceTB/SmolLM2-135M-Instruct\n- lora\n- transformers\n";
    assert_eq!(head(&card().text()), expected);
    let text = card().text();
    for said in [
        "460,800 of 134,975,808 parameters were trained (0.3414 %)",
        "AutoModelForCausalLM.from_pretrained(\"HuggingFaceTB/SmolLM2-135M-Instruct\")",
        "- seed: 0\n",
        "- loss: 3.595 (before: 4.194)\n",
        "### Framework versions\n\n- peft-rs 0.1.0\n- libtorch 2.11.0\n",
    ] {
        assert!(text.contains(said), "{said}\n{text}");
    }
}

#[test]
fn a_path_is_no_model_of_the_hub() {
    for base in ["/home/me/model", "./model", "../a", "a/b/c", "src", "", "a b", "~/model", "x: y\n- z"] {
        let text = Card { base: base.into(), ..card() }.text();
        assert!(!head(&text).contains("base_model"), "{base}: {text}");
        assert_eq!(head(&text).lines().count(), 5, "{base}");
    }
}

#[test]
fn a_classifier_says_its_classes() {
    let classes = vec!["cold".into(), "`warm`".into()];
    let (task, peft_type) = (Some(TaskType::SeqCls), "IA3".into());
    let text = Card { classes, task, peft_type, ..card() }.text();
    assert!(text.contains("Classes: 0 `cold`, 1 `` `warm` ``."), "{text}");
    assert!(text.contains("num_labels=2") && text.contains("pipeline_tag: text-classification\n"));
    assert!(!head(&text).contains("- lora"));
}

#[test]
fn what_somebody_wrote_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    assert_eq!(card().write(dir.path()).unwrap(), Written::New);
    let first = fs::read_to_string(&path).unwrap();
    assert_eq!(first, card().text());
    // Its own is replaced.
    let next = Card { trainable: 7, ..card() };
    assert_eq!(next.write(dir.path()).unwrap(), Written::New);
    assert_eq!(fs::read_to_string(&path).unwrap(), next.text());
    // One that was edited, or was never from here, is not.
    let edited = next.text().replace("seed: 0", "seed: 0, the best of five");
    for other in [
        edited.as_bytes(),
        b"# My model\n",
        b"",
        b"\xff\xfe",
        next.text().replace("sha256 ", "sha256 0").as_bytes(),
    ] {
        fs::write(&path, other).unwrap();
        assert_eq!(card().write(dir.path()).unwrap(), Written::Kept);
        assert_eq!(fs::read(&path).unwrap(), other);
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn markdown_in_a_value_is_text() {
    let training = vec![Fact::new("data", "a*b*.jsonl\n# [x](y) <b>")];
    let text = Card { training, ..card() }.text();
    assert!(text.contains(r"- data: a\*b\*.jsonl \# \[x\](y) \<b\>"), "{text}");
}
