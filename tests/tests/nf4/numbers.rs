//! bitsandbytes' numbers, bit by bit.

use crate::{DOUBLE, TOL, qlora};
use anyhow::{Context, Result, ensure};
use peft_core::io::tensors::read;
use peft_core::quant::{Nf4, Nf4Config, file};
use peft_core::train::next_token_loss;
use peft_core::{Batch, Model, Pass};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};
use tests::{assert_bits, assert_close, golden, golden_tensors, refused, serial};

type Tensors = BTreeMap<String, Tensor>;

/// Name in bitsandbytes' state dict, and in the golden; with double quantisation.
const PARTS: [(&str, &str); 6] = [
    ("w", "packed"),
    ("w.absmax", "dq.absmax"),
    ("w.nested_absmax", "dq.nested_absmax"),
    ("w.nested_quant_map", "dq.nested_quant_map"),
    ("w.quant_state.bitsandbytes__nf4", "dq.quant_state"),
    ("w.quant_map", "code.nf4"),
];

/// Every case: `f(name, input, the golden's tensors of that case)`.
fn cases(mut f: impl FnMut(&str, &Tensor, &dyn Fn(&str) -> Result<Tensor>) -> Result<()>) -> Result<()> {
    let g = read(golden("nf4/nf4_vectors.safetensors"))?;
    let names: Vec<&str> = g.keys().filter_map(|k| k.strip_suffix(".input")).collect();
    ensure!(names.len() == 14, "{names:?}");
    for name in names {
        let part = |leaf: &str| -> Result<Tensor> {
            let key = if leaf == "code.nf4" { leaf.to_owned() } else { format!("{name}.{leaf}") };
            Ok(g.get(&key).with_context(|| key.clone())?.shallow_clone())
        };
        f(name, &part("input")?, &part).with_context(|| name.to_owned())?;
    }
    Ok(())
}

fn state_dict(w: &Nf4) -> Result<Tensors> {
    let mut all = BTreeMap::new();
    file::put("w", w, &mut all)?;
    Ok(all)
}

#[test]
fn quantising() -> Result<()> {
    cases(|_, input, golden| {
        let w = Nf4::quantise("w", input, &Nf4Config::default())?;
        let dict = state_dict(&w)?;
        assert_bits("codes", &dict["w"], &golden("packed")?)?;
        assert_bits("absmax", &dict["w.absmax"], &golden("absmax")?)?;
        assert_bits("map", &dict["w.quant_map"], &golden("code.nf4")?)?;
        assert_bits("dense", &w.dequantise()?, &golden("dequant")?)
    })
}

/// Down to the bytes of the scales and of the JSON.
#[test]
fn double_quantisation() -> Result<()> {
    cases(|_, input, golden| {
        let w = Nf4::quantise("w", input, &DOUBLE)?;
        let dict = state_dict(&w)?;
        ensure!(dict.len() == PARTS.len(), "{:?}", dict.keys());
        for (ours, theirs) in PARTS {
            assert_bits(ours, &dict[ours], &golden(theirs)?)?;
        }
        assert_bits("dense", &w.dequantise()?, &golden("dq.dequant")?)
    })
}

#[test]
fn reading_a_state_dict() -> Result<()> {
    cases(|_, input, golden| {
        let mut dict = BTreeMap::new();
        for (ours, theirs) in PARTS {
            dict.insert(ours.to_owned(), golden(theirs)?);
        }
        let packed = file::take("golden", &mut dict, Kind::Float)?;
        ensure!(dict.is_empty() && packed.len() == 1, "left {:?}", dict.keys());
        let w = &packed["w"];
        ensure!(w.size() == *input.size() && w.kind() == input.kind(), "{:?} {:?}", w.size(), w.kind());
        assert_bits("dense", &w.dequantise()?, &golden("dq.dequant")?)
    })
}

#[test]
fn linear4bit() -> Result<()> {
    let g = read(golden("nf4/linear4bit.safetensors"))?;
    let stored: Tensors = g
        .iter()
        .filter_map(|(k, t)| Some((k.strip_prefix("proj.")?.to_owned(), t.shallow_clone())))
        .collect();
    let mut dict = stored.iter().map(|(k, t)| (k.clone(), t.shallow_clone())).collect();
    let w = &file::take("golden", &mut dict, Kind::Float)?["weight"];
    assert_bits("dense", &w.dequantise()?, &g["dequant"])?;
    let bias = &dict["bias"];
    assert_close("output", &w.linear(&g["input"], Some(bias))?, &g["output"], TOL)?;
    let mut again = Tensors::from([("bias".to_owned(), bias.shallow_clone())]);
    file::put("weight", w, &mut again)?;
    ensure!(again.keys().eq(stored.keys()), "{:?}", again.keys());
    stored.iter().try_for_each(|(name, t)| assert_bits(name, &again[name], t))
}

/// Base logits, logits, loss and every gradient of PEFT's LoRA over bitsandbytes' base.
#[test]
fn qlora_is_pefts() -> Result<()> {
    let _serial = serial();
    let dir = golden("nf4/qlora_llama");
    let g = golden_tensors(&dir)?;
    let mut peft = qlora()?.peft;
    ensure!(peft.base().nf4s().len() == 14, "{:?}", peft.base().nf4s().keys());
    let q = "model.layers.0.self_attn.q_proj.weight";
    assert_bits(q, &peft.base().nf4s()[q].dequantise()?, &g[&format!("dequant.{q}")])?;

    let batch = Batch::masked(g["input_ids"].copy(), g["attention_mask"].copy());
    assert_close("base", &peft.view(&[])?.forward(&batch, Pass::eval())?, &g["logits_base"], TOL)?;
    peft.load("golden", &dir)?;
    let logits = peft.view(&["golden"])?.forward(&batch, Pass::train())?;
    assert_close("logits", &logits, &g["logits"], TOL)?;
    let loss = next_token_loss(&logits, &g["labels"])?;
    assert_close("loss", &loss.view([1]), &g["loss"], TOL)?;
    loss.backward();
    let trained = peft.trainable(&["golden"])?;
    ensure!(trained.len() == g.keys().filter(|k| k.starts_with("grad.")).count(), "{}", trained.len());
    for (name, p) in trained {
        assert_close(&name, &p.grad(), &g[&format!("grad.{name}")], TOL)?;
    }
    Ok(())
}

/// f32 against bf16: the product is computed in the dtype that is asked for, and comes back in the input's.
#[test]
fn the_dtype_of_the_product() -> Result<()> {
    let _serial = serial();
    let (x, w) = (
        Tensor::randn([3, 128], (Kind::Float, tch::Device::Cpu)),
        Tensor::randn([32, 128], (Kind::Float, tch::Device::Cpu)),
    );
    for compute in [Kind::BFloat16, Kind::Half] {
        let packed = Nf4::quantise("w", &w, &Nf4Config { compute, ..DOUBLE })?;
        let y = packed.linear(&x, None)?;
        let expected = x.to_kind(compute).linear::<Tensor>(&packed.dequantise()?.to_kind(compute), None);
        assert_bits("product", &y, &expected.to_kind(Kind::Float))?;
    }
    Ok(())
}

/// Gradients of `x` and of a bias, and of a gradient, by finite differences of a frozen dense layer: the same layer.
#[test]
fn gradients_are_those_of_a_dense_layer() -> Result<()> {
    let _serial = serial();
    let f32 = (Kind::Float, tch::Device::Cpu);
    let w = Nf4::quantise("w", &Tensor::randn([24, 48], f32), &DOUBLE)?;
    let dense = w.dequantise()?;
    let (x, b) = (Tensor::randn([2, 5, 48], f32), Tensor::randn([24], f32));
    let run = |packed: bool| -> Result<[Tensor; 3]> {
        let (x, b) = (x.copy().set_requires_grad(true), b.copy().set_requires_grad(true));
        let y = if packed { w.linear(&x, Some(&b))? } else { x.linear(&dense, Some(&b)) };
        let y = y.square();
        let first = Tensor::run_backward(&[y.sum(Kind::Float)], &[&x, &b], true, true);
        let second = Tensor::run_backward(&[first[0].square().sum(Kind::Float)], &[&x], false, false);
        let [gx, gb] = [0, 1].map(|i| first[i].detach());
        Ok([gx, gb, second[0].detach()])
    };
    for (what, (a, b)) in ["x", "bias", "second order"].iter().zip(run(true)?.iter().zip(run(false)?.iter()))
    {
        assert_close(what, a, b, 1e-6)?;
    }
    Ok(())
}

#[test]
fn what_cannot_be_quantised() -> Result<()> {
    let f32 = (Kind::Float, tch::Device::Cpu);
    let w = Tensor::ones([4, 64], f32);
    let how = Nf4Config::default();
    let _ = w.get(2).get(5).fill_(f64::NAN);
    refused("NaN", Nf4::quantise("the.weight", &w, &how), &["NF4", "`the.weight`", "finite"])?;
    let _ = w.get(2).get(5).fill_(f64::INFINITY);
    refused("infinity", Nf4::quantise("the.weight", &w, &how), &["`the.weight`", "finite"])?;
    refused(
        "3-d",
        Nf4::quantise("the.weight", &Tensor::ones([1, 2, 3], f32), &how),
        &["[1, 2, 3]", "[out, in]"],
    )?;
    refused(
        "integers",
        Nf4::quantise("the.weight", &w.to_kind(Kind::Int64), &how),
        &["`the.weight`", "Int64"],
    )?;
    Ok(())
}
