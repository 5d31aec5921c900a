//! Lesson 003 against the recorded run of PyTorch 2.11 and numpy (`golden/seed003.json`): every printed line, every
//! initial tensor of cells 2, 3 and 6, outputs, gradients, the arrays of cell 4.

mod common;

use anyhow::{Context, Result, ensure};
use common::{alone, close, golden, number, recorded_kind, run, same_lines, sha, strings};
use notebooks_rs::lesson003::{Cell2, Cell3, GATE, Gated, LORA, PROMPT, inputs, output};
use notebooks_rs::Setting;
use peft_core::PREFIX;
use serde_json::Value;
use std::collections::BTreeMap;
use tch::{Device, Tensor};

const SETTING: Setting = Setting { seed: 42, device: Device::Cpu };

/// Whether a tensor has the recorded bits; on other kinds of processors that cannot be said.
fn bits(what: &str, tensor: &Tensor, recorded: &Value) -> Result<()> {
    let recorded = recorded.as_str().with_context(|| format!("no recorded {what}"))?;
    if recorded_kind() {
        let found = sha(tensor)?;
        ensure!(found == recorded, "{what}: {found}, recorded {recorded}");
    }
    Ok(())
}

/// Whether `tensors` are exactly those that the golden's section has under `init.`, bit for bit.
fn init(section: &str, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let golden = golden("seed003")?;
    let section = golden["sections"][section].as_object().context("no section")?;
    let recorded: Vec<&str> = section.keys().filter_map(|k| k.strip_prefix("init.")).collect();
    ensure!(recorded.len() == tensors.len(), "{recorded:?}\n{:?}", tensors.keys());
    for name in recorded {
        bits(
            name,
            tensors.get(name).with_context(|| format!("no {name}"))?,
            &section[&format!("init.{name}")],
        )?;
    }
    Ok(())
}

/// The printed lines of a cell.
fn printed(cell: &str) -> Result<Vec<String>> {
    strings(&golden("seed003")?["printed_by_cell"][cell])
}

#[test]
fn every_printed_line() -> Result<()> {
    let _alone = alone();
    for (program, cell) in [("review_lora", "cell2"), ("review_zero_init", "cell3")] {
        same_lines(run(program)?.lines(), &printed(cell)?)?;
    }
    Ok(())
}

#[test]
fn cell_2_draws_as_python() -> Result<()> {
    let _alone = alone();
    let cell = Cell2::draw(SETTING)?;
    for (section, peft) in [("lora_r8", &cell.r8), ("lora_r16", &cell.r16)] {
        let lora = peft.params(LORA)?.tensors();
        let own = |letter| lora[&format!("{PREFIX}linear.lora_{letter}.weight")].shallow_clone();
        let weight = peft.base().tensors()["linear.weight"].shallow_clone();
        let named = [("pretrained_weight", weight), ("lora_down", own("A")), ("lora_up", own("B"))];
        init(&format!("003.2.{section}"), &named.map(|(n, t)| (n.to_owned(), t)).into())?;
    }
    let full = cell.full.base().tensors();
    let full = full.into_iter().map(|(n, t)| (n.replace("linear.", ""), t)).collect();
    init("003.2.full_linear", &full)
}

#[test]
fn cell_2_computes_as_python() -> Result<()> {
    let _alone = alone();
    let golden = &golden("seed003")?["sections"]["003.2"];
    let cell = Cell2::draw(SETTING)?;
    let (x, _) = inputs(SETTING)?;
    bits("x", &x, &golden["x"])?;
    bits("r = 8", &output(&cell.r8, &x)?, &golden["lora_r8_y"])?;
    bits("r = 16", &output(&cell.r16, &x)?, &golden["lora_r16_y"])?;
    bits("full", &output(&cell.full, &x)?, &golden["full_linear_y"])
}

#[test]
fn cell_3_draws_as_python() -> Result<()> {
    let _alone = alone();
    let cell = Cell3::draw(SETTING)?;
    for gate in ["sigmoid", "tanh"] {
        let mut tensors: BTreeMap<String, Tensor> = cell
            .prefix
            .base()
            .tensors()
            .into_iter()
            .map(|(n, t)| (n.replace("layers.0.self_attn.", "").replace("o_proj", "out_proj"), t))
            .collect();
        let own = cell.prefix.params(gate)?.tensors();
        tensors.insert("prefix_tokens".into(), own[PROMPT].shallow_clone());
        tensors.insert("gating".into(), own[GATE].shallow_clone());
        init("003.3.prefix_attention", &tensors)?;
    }
    let standard = cell.standard.base().tensors();
    let standard = standard.into_iter().map(|(n, t)| (n.replace("in_proj.", "in_proj_"), t)).collect();
    init("003.3.standard_attention", &standard)
}

#[test]
fn the_gates() -> Result<()> {
    let _alone = alone();
    let golden = &golden("seed003")?["sections"]["003.3"];
    let gated = Gated::new(SETTING)?;
    bits("without a prefix", &gated.plain, &golden["noprefix_y"])?;
    bits("sigmoid", &gated.output("sigmoid")?, &golden["prefix_attention_y"])?;
    ensure!(gated.output("tanh")? == gated.plain, "tanh(0) changes the output");
    let page = run("review_zero_init")?;
    let recorded = |name: &str| golden[name]["value"].as_f64().context("a number");
    close("start", number(&page, "sigmoid.start")?, recorded("init_rel_change")?)?;
    close("largest", number(&page, "sigmoid.start_max_change")?, recorded("init_max_abs_change")?)?;
    Ok(())
}
