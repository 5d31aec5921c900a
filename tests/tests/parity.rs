//! Numbers of Python PEFT 0.21.2 (`tests/golden`): logits, merged logits, loss, every gradient, files, counts.

use anyhow::{Result, bail, ensure};
use peft_core::methods::{Common, LoraConfig};
use peft_core::{Batch, Model, Pass, Peft};
use peft_core::{hub, io};
use tch::{Device, Tensor};
use tests::parity::{compare, folder_name};
use tests::{assert_close, golden, golden_tensors, serial};

/// f32, relative to the largest value of the tensor.
const TOL: f64 = 1e-5;

/// Every method of a family's folder, of which there must be at least `least`.
fn family(name: &str, least: usize) -> Result<()> {
    let _serial = serial();
    let outcomes = compare(&golden(name), &|_| true)?;
    ensure!(outcomes.len() >= least, "{} methods were compared, at least {least} expected", outcomes.len());
    let wrong = outcomes.iter().filter_map(|(dir, outcome)| match outcome {
        Ok(e) if e.most() <= TOL => None,
        Ok(e) => Some(format!("{e:?}")),
        Err(e) => Some(format!("{}: {e:#}", folder_name(dir))),
    });
    let wrong: Vec<String> = wrong.collect();
    if !wrong.is_empty() {
        bail!("{} of {} methods:\n{}", wrong.len(), outcomes.len(), wrong.join("\n"));
    }
    Ok(())
}

#[test]
fn llama() -> Result<()> {
    family("llama", 38)
}

#[test]
fn gpt2() -> Result<()> {
    family("gpt2", 21)
}

#[test]
fn bert() -> Result<()> {
    family("bert", 24)
}

fn base() -> Result<Peft> {
    Ok(hub::open(golden("bert/base"), Device::Cpu, hub::Head::Stored)?.peft)
}

#[test]
fn all_linear_finds_what_peft_finds() -> Result<()> {
    let _serial = serial();
    let dir = golden("bert/lora_all_linear");
    let mut peft = base()?;
    let config = LoraConfig {
        r: 2,
        lora_alpha: 4.0,
        targets: "all-linear".into(),
        common: Common::classifier(),
        ..Default::default()
    };
    peft.add("mine", config)?;
    let theirs = io::tensors::read(dir.join("adapter_model.safetensors"))?;
    let ours: Vec<String> = peft.params("mine")?.tensors().into_keys().collect();
    ensure!(ours.iter().eq(theirs.keys()), "{ours:?}");
    Ok(())
}

#[test]
fn a_padded_row_is_what_it_is_alone() -> Result<()> {
    let g = golden_tensors(&golden("bert/lora"))?;
    let mut peft = base()?;
    peft.load("golden", golden("bert/lora"))?;
    let view = peft.view(&["golden"])?;
    let (ids, mask): (&Tensor, &Tensor) = (&g["input_ids"], &g["attention_mask"]);
    let together = view.forward(&Batch::masked(ids.copy(), mask.copy()), Pass::eval())?;
    for row in 0..ids.size()[0] {
        let length = mask.get(row).sum(tch::Kind::Int64).int64_value(&[]);
        let alone = Batch::dense(ids.get(row).narrow(0, 0, length).unsqueeze(0));
        assert_close("row", &view.forward(&alone, Pass::eval())?, &together.narrow(0, row, 1), TOL)?;
    }
    Ok(())
}
