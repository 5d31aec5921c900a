//! `adapt` with `reweight` alone: the default forward, merging and stacking come with it.

use crate::{batch, classes, get, logits, merged, shake, tiny};
use anyhow::{Result, ensure};
use peft_core::build::{Architecture, Scope};
use peft_core::methods::LoraConfig;
use peft_core::seam::{Adapter, Init, Kernel, Layer, Method, Place, Site, Weights};
use peft_core::train::cross_entropy;
use peft_core::{Batch, Model, Params, Pass, Peft};
use tch::{Device, Kind, Tensor};
use tests::{assert_bits, assert_close, relative_error, serial};

/// Scales the rows of a layer's weight, and its bias: `W' = diag(l) W`, `b' = l ⊙ b`.
#[derive(Debug)]
struct Scale {
    /// Layers to scale, by the kind of their kernel.
    wanted: fn(Kernel) -> bool,
}

impl Method for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn adapt(&self, site: &Site<'_>, params: &Params) -> peft_core::Result<Option<Box<dyn Adapter>>> {
        let Place::Layer { kernel, shape, .. } = site.place else { return Ok(None) };
        if !(self.wanted)(kernel) {
            return Ok(None);
        }
        Ok(Some(Box::new(Rows(site.param(params, "scale", &shape[..1], Init::Constant(1.0))?))))
    }
}

#[derive(Debug)]
struct Rows(Tensor);

impl Adapter for Rows {
    fn reweight(&self, w: Weights) -> peft_core::Result<Weights> {
        let shape: Vec<i64> = std::iter::once(-1).chain(w.weight.size().iter().skip(1).map(|_| 1)).collect();
        Ok(Weights {
            weight: w.weight.f_mul(&self.0.f_view(shape.as_slice())?)?,
            bias: w.bias.map(|b| b.f_mul(&self.0)).transpose()?,
        })
    }
}

fn check(wanted: fn(Kernel) -> bool, sites: usize) -> Result<()> {
    let _serial = serial();
    let (mut peft, batch) = (tiny()?, batch());
    peft.add("scale", Scale { wanted })?;
    let params = peft.params("scale")?;
    ensure!(params.len() == sites, "{} sites", params.len());
    assert_close("scale 1", &logits(&peft, &["scale"], &batch)?, &logits(&peft, &[], &batch)?, 1e-6)?;
    shake(params)?;
    let found = logits(&peft, &["scale"], &batch)?;
    ensure!(relative_error(&found, &logits(&peft, &[], &batch)?)? > 1e-2, "nothing is scaled");
    assert_close("merged", &merged(&peft, &["scale"], &batch)?, &found, 1e-5)?;
    cross_entropy(&peft.view(&["scale"])?.forward(&batch, Pass::train())?, &classes())?.backward();
    for (name, p) in peft.trainable(&["scale"])? {
        ensure!(f64::try_from(p.grad().abs().max())? > 0.0, "no gradient of {name}");
    }
    Ok(())
}

#[test]
fn reweight_is_enough_on_linear_layers() -> Result<()> {
    check(|k| k == Kernel::Linear, 9)
}

#[test]
fn reweight_is_enough_on_embeddings() -> Result<()> {
    check(|k| k == Kernel::Embedding, 1)
}

#[test]
fn reweight_is_enough_on_norms() -> Result<()> {
    check(|k| matches!(k, Kernel::LayerNorm { .. }), 4)
}

/// The first adapter named is the innermost: `l (W + ΔW)`, or `l W + ΔW`.
#[test]
fn a_stack_applies_in_the_order_of_the_names() -> Result<()> {
    let _serial = serial();
    let (mut peft, batch) = (tiny()?, batch());
    let targets = ["ff.0"].into();
    peft.add("lora", LoraConfig { r: 2, lora_alpha: 3.0, targets, ..LoraConfig::default() })?;
    peft.add("scale", Scale { wanted: |k| k == Kernel::Linear })?;
    let (lora, scale) = (peft.params("lora")?, peft.params("scale")?);
    shake(lora)?;
    shake(scale)?;
    let own = |p: &Params, leaf: &str| get(p, &format!("base_model.model.layers.1.ff.0.{leaf}"));
    let w = get(peft.base(), "layers.1.ff.0.weight");
    let delta = own(lora, "lora_B.weight").matmul(&own(lora, "lora_A.weight")) * 1.5;
    let l = own(scale, "scale").unsqueeze(1);
    for (order, expected) in [(["lora", "scale"], &l * (&w + &delta)), (["scale", "lora"], &l * &w + &delta)]
    {
        let folded = get(peft.merged(&order)?.base(), "layers.1.ff.0.weight");
        assert_close(&format!("{order:?}"), &folded, &expected, 1e-6)?;
        assert_close(
            &format!("{order:?}"),
            &logits(&peft, &order, &batch)?,
            &merged(&peft, &order, &batch)?,
            1e-5,
        )?;
    }
    Ok(())
}

/// Wherever a block is reweighted there is nothing to reweight: a typed refusal at the first forward pass.
#[test]
fn a_block_has_no_weights() -> Result<()> {
    #[derive(Debug)]
    struct OnBlocks;
    impl Method for OnBlocks {
        fn name(&self) -> &'static str {
            "on blocks"
        }
        fn adapt(&self, site: &Site<'_>, params: &Params) -> peft_core::Result<Option<Box<dyn Adapter>>> {
            let Place::Block { width, .. } = site.place else { return Ok(None) };
            Ok(Some(Box::new(Rows(site.param(params, "scale", &[width], Init::Constant(1.0))?))))
        }
    }
    let _serial = serial();
    let mut peft = tiny()?;
    peft.add("blocks", OnBlocks)?;
    let forward = peft.view(&["blocks"])?.forward(&batch(), Pass::eval());
    tests::refused("a forward pass", forward, &["`layers.0"])?;
    Ok(())
}

/// A model from outside the crate, of one linear layer without a bias.
#[derive(Debug)]
struct Plain(Layer);

#[derive(Debug)]
struct PlainConfig;

impl Architecture for PlainConfig {
    fn build(&self, scope: &Scope<'_>) -> peft_core::Result<Box<dyn Model>> {
        Ok(Box::new(Plain(scope.at("body").linear("out", 4, 3, false)?)))
    }
}

impl Model for Plain {
    fn forward(&self, batch: &Batch, pass: Pass<'_>) -> peft_core::Result<Tensor> {
        self.0.forward(batch.features()?, pass)
    }
}

/// Gives a layer a bias, whether it has one or not.
#[derive(Debug)]
struct AddBias;

impl Method for AddBias {
    fn name(&self) -> &'static str {
        "bias"
    }

    fn adapt(&self, site: &Site<'_>, params: &Params) -> peft_core::Result<Option<Box<dyn Adapter>>> {
        let Some((out, _)) = site.linear() else { return Ok(None) };
        Ok(Some(Box::new(Bias(site.param(params, "bias", &[out], Init::Constant(0.5))?))))
    }
}

#[derive(Debug)]
struct Bias(Tensor);

impl Adapter for Bias {
    fn reweight(&self, w: Weights) -> peft_core::Result<Weights> {
        let bias = match w.bias {
            Some(b) => b.f_add(&self.0)?,
            None => self.0.shallow_clone(),
        };
        Ok(Weights { bias: Some(bias), ..w })
    }
}

fn plain() -> Result<(Peft, Batch)> {
    let weight = Tensor::randn([3, 4], (Kind::Float, Device::Cpu));
    let base = Params::from_tensors("plain", Device::Cpu, [("body.out.weight".to_owned(), weight)])?;
    let ids = Tensor::randint(9, [2, 4], (Kind::Int64, Device::Cpu));
    Ok((Peft::new(base, PlainConfig)?, Batch::of_features(ids.to_kind(Kind::Float))))
}

#[test]
fn a_model_from_outside_takes_the_methods_there_are() -> Result<()> {
    let _serial = serial();
    let (mut peft, batch) = plain()?;
    let targets = "all-linear".into();
    peft.add("lora", LoraConfig { r: 2, targets, ..LoraConfig::default() })?;
    shake(peft.params("lora")?)?;
    let adapted = peft.view(&["lora"])?.forward(&batch, Pass::eval())?;
    let merged = peft.merged(&["lora"])?.view(&[])?.forward(&batch, Pass::eval())?;
    assert_close("merged", &merged, &adapted, 1e-5)
}

/// What `forward` adds, merging must not lose without a word: the layer has no name for a bias.
#[test]
fn merging_a_bias_into_a_layer_without_one_is_not_silent() -> Result<()> {
    let _serial = serial();
    let (mut peft, batch) = plain()?;
    peft.add("bias", AddBias)?;
    let adapted = peft.view(&["bias"])?.forward(&batch, Pass::eval())?;
    let plain = peft.view(&[])?.forward(&batch, Pass::eval())?;
    assert_bits("0.5 more", &adapted, &(plain + 0.5))?;
    match peft.merged(&["bias"]) {
        Err(e) => ensure!(e.to_string().contains("`body.out`"), "{e}"),
        Ok(base) => {
            let merged = base.view(&[])?.forward(&batch, Pass::eval())?;
            assert_close("merged", &merged, &adapted, 1e-5)?;
        }
    }
    Ok(())
}

/// Says that it replaces rows of the embedding.
#[derive(Debug, Clone, Copy)]
struct Replaces(&'static [i64]);

impl Method for Replaces {
    fn name(&self) -> &'static str {
        "replaces"
    }

    fn adapt(&self, site: &Site<'_>, params: &Params) -> peft_core::Result<Option<Box<dyn Adapter>>> {
        let Some((_, dim)) = site.embedding() else { return Ok(None) };
        let _ = site.param(params, "row", &[dim], Init::Zeros)?;
        Ok(Some(Box::new(*self)))
    }
}

impl Adapter for Replaces {
    fn tokens(&self) -> &[i64] {
        self.0
    }

    fn reweight(&self, w: Weights) -> peft_core::Result<Weights> {
        Ok(w)
    }
}

#[test]
fn a_token_is_replaced_by_one_adapter() -> Result<()> {
    let _serial = serial();
    let mut peft = tiny()?;
    for (name, tokens) in [("a", &[1, 5][..]), ("b", &[2]), ("c", &[7, 5, 2])] {
        peft.add(name, Replaces(tokens))?;
    }
    peft.view(&["a", "b"])?;
    for (other, token) in [("a", "5"), ("b", "2")] {
        let error = tests::refused("both", peft.view(&[other, "c"]), &["`embed`", other, "`c`", token])?;
        ensure!(matches!(error, peft_core::Error::Overlap { .. }), "{error:?}");
    }
    Ok(())
}
