//! Lesson 001, sections 1.2 to 3.2, against the recorded run of PyTorch 2.11 (`golden/seed001.json`). Bits are compared
//! on the kind of processor that they come from.

mod common;

use anyhow::{Result, ensure};
use common::{alone, close, golden, number, recorded_kind, run, sha};
use notebooks_rs::Setting;
use notebooks_rs::lesson001::adapter;
use peft_core::PREFIX;
use serde_json::Value;
use std::collections::BTreeMap;
use tch::{Device, Tensor};

fn setting() -> Setting {
    Setting { seed: 19, device: Device::Cpu }
}

/// Whether tensors have the recorded bits; `names` are those of the golden.
fn same_bits(golden: &Value, tensors: &[(&str, &Tensor)]) -> Result<()> {
    if !recorded_kind() {
        eprintln!("not the recorded kind of processor: bits are not compared");
        return Ok(());
    }
    for (name, t) in tensors {
        ensure!(golden[name] == sha(t)?, "{name} has other bits");
    }
    Ok(())
}

fn value(golden: &Value, name: &str) -> f64 {
    golden[name]["value"].as_f64().unwrap_or(f64::NAN)
}

#[test]
fn adapter_has_the_recorded_bits() -> Result<()> {
    let _alone = alone();
    let golden = &golden("seed001")?["sections"]["001.3.1.adapter"];
    let start = adapter::Start::new(setting())?;
    let own: BTreeMap<String, Tensor> = start.peft.params("adapter")?.tensors();
    let at = |leaf: &str| &own[&format!("{PREFIX}block.adapter_{leaf}")];
    same_bits(
        golden,
        &[
            ("init.down_proj.weight", at("down.weight")),
            ("init.down_proj.bias", at("down.bias")),
            ("init.up_proj.weight", at("up.weight")),
            ("init.up_proj.bias", at("up.bias")),
            ("x", &start.x),
            ("y", &start.y),
        ],
    )?;
    let page = run("unified_adapter")?;
    ensure!(number(&page, "parameters")? == 1096.0 && golden["total"] == 1096);
    close("deviation", number(&page, "deviation")?, value(golden, "max_abs_deviation_from_identity"))
}
