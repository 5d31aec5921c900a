//! Files of `torch.save`: what Python has written is read to the bit, and everything else is refused without being run.

mod evil;
mod fuzz;
mod write;

use anyhow::{Result, ensure};
use peft_core::hub;
use peft_core::hub::{Head, Options};
use peft_core::io::{adapter, tensors};
use peft_core::quant::Nf4Config;
use peft_core::{Batch, Model, Pass, Peft};
use std::path::Path;
use tch::{Device, Kind, Tensor};
use tests::{assert_bits, golden, refused, serial};

fn same_file(found: &str, expected: &str) -> Result<()> {
    let (found, expected) =
        (tensors::read(golden("pickle").join(found))?, tensors::read(golden("pickle").join(expected))?);
    ensure!(found.keys().eq(expected.keys()), "{:?}, expected {:?}", found.keys(), expected.keys());
    expected.iter().try_for_each(|(name, t)| {
        ensure!(found[name].is_contiguous(), "{name}: not contiguous");
        assert_bits(name, &found[name], t)
    })
}

/// All dtypes, tensors that are views of others (transposed, strided, expanded, shared), none and one value, parameters.
#[test]
fn tensors_are_pythons() -> Result<()> {
    let _serial = serial();
    same_file("weights.bin", "weights.safetensors")?;
    same_file("module.bin", "module.safetensors")?;
    let shapes = tensors::phantoms(golden("pickle/weights.bin"))?;
    for (name, t) in tensors::read(golden("pickle/weights.safetensors"))? {
        ensure!((shapes[&name].size(), shapes[&name].kind()) == (t.size(), t.kind()), "{name}");
    }
    Ok(())
}

#[test]
fn other_protocols_and_no_checksums() -> Result<()> {
    let _serial = serial();
    let x = tensors::read(golden("pickle/weights.safetensors"))?["f32"].narrow(0, 0, 2).narrow(1, 0, 2);
    for file in ["protocol4.bin", "protocol5.bin"] {
        let read = tensors::read(golden("pickle").join(file))?;
        ensure!(read.len() == 1, "{file}: {read:?}");
        assert_bits(file, &read["w"], &x)?;
    }
    let read = tensors::read(golden("pickle/no_crc.bin"))?;
    assert_bits("no checksums", &read["w"], &x)
}

fn open(dir: &Path, options: impl Into<Options>) -> Result<Peft> {
    Ok(hub::open(dir, Device::Cpu, options)?.peft)
}

/// A model's pickle has the bits of its safetensors, rounded to the dtype that it was saved in.
fn same_base(name: &str, kind: Kind) -> Result<()> {
    let found = open(&golden("pickle").join(name), Head::Stored)?;
    let expected = open(&golden(name).join("base"), Head::Stored)?;
    let (found, expected) = (found.base().tensors(), expected.base().tensors());
    ensure!(found.keys().eq(expected.keys()), "{name}: other names");
    expected.iter().try_for_each(|(key, t)| assert_bits(key, &found[key], &t.to_kind(kind)))
}

#[test]
fn models_are_pythons() -> Result<()> {
    let _serial = serial();
    same_base("bert", Kind::Half)?;
    same_base("llama", Kind::BFloat16) // two shards
}

/// The plan of what is quantised needs names and shapes alone.
#[test]
fn a_pickle_in_four_bits() -> Result<()> {
    let _serial = serial();
    let options = Options { quantise: Some(Nf4Config::default()), ..Head::Stored.into() };
    let bf16 = Options { kind: Some(Kind::BFloat16), ..options.clone() };
    let found = open(&golden("pickle/llama"), options)?;
    let expected = open(&golden("llama/base"), bf16)?;
    ensure!(!expected.base().nf4s().is_empty(), "nothing is in 4 bits");
    ensure!(found.base().nf4s().keys().eq(expected.base().nf4s().keys()), "other weights");
    let batch = Batch::dense(Tensor::from_slice2(&[[5i64, 17, 2]]));
    let run = |peft: &Peft| peft.view(&[])?.forward(&batch, Pass::eval());
    assert_bits("logits", &run(&found)?, &run(&expected)?)
}

#[test]
fn an_adapter_is_pefts() -> Result<()> {
    let _serial = serial();
    let found = adapter::read(golden("pickle/lora"))?.0.tensors;
    let expected = adapter::read(golden("llama/lora"))?.0.tensors;
    ensure!(found.keys().eq(expected.keys()), "other names");
    expected.iter().try_for_each(|(name, t)| assert_bits(name, &found[name], t))?;
    let mut peft = open(&golden("llama/base"), Head::Stored)?;
    peft.load("pickle", golden("pickle/lora"))?;
    peft.load("safetensors", golden("llama/lora"))?;
    let batch = Batch::dense(Tensor::from_slice2(&[[5i64, 17, 2]]));
    let run = |name: &str| peft.view(&[name])?.forward(&batch, Pass::eval());
    assert_bits("logits", &run("pickle")?, &run("safetensors")?)
}

/// Where both are there, safetensors are read.
#[test]
fn safetensors_win() -> Result<()> {
    let _serial = serial();
    let dir = tempfile::tempdir()?;
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        std::fs::copy(golden("llama/lora").join(file), dir.path().join(file))?;
    }
    std::fs::write(dir.path().join("adapter_model.bin"), "no pickle")?;
    adapter::read(dir.path())?;
    let dir = tests::edited("llama", &serde_json::Value::Null)?;
    std::fs::write(dir.path().join("pytorch_model.bin"), "no pickle")?;
    open(dir.path(), Head::Stored)?;
    std::fs::rename(dir.path().join("model.safetensors"), dir.path().join("other.safetensors"))?;
    let read = hub::open(dir.path(), Device::Cpu, Head::Stored);
    refused("the pickle alone", read, &["pytorch_model.bin", "not a zip"])?;
    Ok(())
}

/// What Python writes and is more, or less, than weights: by name, with what to do.
#[test]
fn what_is_no_file_of_weights() -> Result<()> {
    let _serial = serial();
    let convert = ["None of it was run", "python -c", "weights_only=True", "safetensors"];
    for (file, parts) in [
        ("legacy.bin", &["torch before 1.6"][..]),
        ("checkpoint.bin", &["`epoch`", "a number", "no tensor"]),
        ("float8.bin", &["data.pkl", "`torch._utils._rebuild_tensor_v3`"]),
        ("tensor.bin", &["a tensor", "no dictionary"]),
        ("object.bin", &["data.pkl", "`torch.nn.modules.container.Sequential`"]),
        ("evil.bin", &["data.pkl", "`posix.system`"]),
    ] {
        let read = tensors::read(golden("pickle").join(file));
        refused(file, read, &[parts, &convert, &[file, "torch.load('", file]].concat())?;
    }
    let script = tensors::read(golden("pickle/script.bin"));
    refused("TorchScript", script, &["script.bin", "TorchScript", "state_dict()"])?;
    ensure!(!Path::new("evil").exists(), "it was run");
    Ok(())
}
