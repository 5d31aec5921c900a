//! Models that have one layer in two places, or one tensor under two names, and that say nothing of themselves.

use crate::{logits, merged, shake};
use anyhow::{Result, ensure};
use peft_core::build::{Architecture, Layer, Scope};
use peft_core::combine::{Arithmetic, Combination, Rank};
use peft_core::estimate::Blueprint;
use peft_core::hub;
use peft_core::methods::{FullConfig, LoHaConfig, LoraConfig, PromptTuningConfig};
use peft_core::quant::Nf4Config;
use peft_core::{Batch, MergeOptions, Model, Params, Pass, Peft, Quantised};
use tch::{Device, Kind, Tensor};
use tests::{assert_close, refused, serial};

/// `again(layer(tanh(layer(x))))`: one layer twice, and one whose weight is a bare parameter.
#[derive(Debug)]
struct Shared;

#[derive(Debug)]
struct SharedView([Layer; 3], Tensor);

impl Architecture for Shared {
    fn build(&self, scope: &Scope<'_>) -> peft_core::Result<Box<dyn Model>> {
        let layer = || scope.linear("layer", 6, 6, true);
        let layers = [layer()?, layer()?, scope.tied_linear("again", "table", 6, 6)?];
        Ok(Box::new(SharedView(layers, scope.param("table", &[6, 6])?)))
    }
}

impl Model for SharedView {
    fn forward(&self, batch: &Batch, pass: Pass<'_>) -> peft_core::Result<Tensor> {
        let SharedView([first, second, again], table) = self;
        let x = first.forward(&batch.features()?.f_matmul(table)?, pass)?.f_tanh()?;
        again.forward(&second.forward(&x, pass)?, pass)
    }
}

const FLOATS: (Kind, Device) = (Kind::Float, Device::Cpu);

fn shared() -> Result<(Peft, Batch)> {
    let shapes = [("layer.weight", [6, 6].as_slice()), ("layer.bias", &[6]), ("table", &[6, 6])];
    let tensors = shapes.map(|(name, shape)| (name.to_owned(), Tensor::randn(shape, FLOATS)));
    let base = Params::from_tensors("the shared model", Device::Cpu, tensors)?;
    Ok((Peft::new(base, Shared)?, Batch::of_features(Tensor::randn([3, 6], FLOATS))))
}

/// Catches a layer's change that counts as often as the layer is there.
#[test]
fn a_layer_in_two_places_is_changed_once() -> Result<()> {
    let _serial = serial();
    let (mut peft, batch) = shared()?;
    peft.add("lora", LoraConfig::new(2).targets(["layer"]))?;
    peft.add("loha", LoHaConfig::new(2).targets(["layer"]))?;
    for name in ["lora", "loha"] {
        shake(peft.params(name)?)?;
        let adapted = logits(&peft, &[name], &batch)?;
        assert_close(name, &merged(&peft, &[name], &batch)?, &adapted, 1e-5)?;
        let conversion = peft.to_lora(name, "converted", 6)?;
        ensure!(conversion.sites.len() == 1, "{conversion:?}");
        assert_close(name, &logits(&peft, &["converted"], &batch)?, &adapted, 1e-5)?;
        peft.delete("converted")?;
    }
    let adapted = logits(&peft, &["lora"], &batch)?;
    for how in [
        Combination::Cat,
        Combination::Factors(Arithmetic::Linear),
        Combination::Svd(Arithmetic::Linear, Rank::default()),
    ] {
        peft.combine("alone", &[("lora", 1.0)], how)?;
        assert_close(&format!("{how:?}"), &logits(&peft, &["alone"], &batch)?, &adapted, 1e-5)?;
        peft.delete("alone")?;
    }
    let mixed = peft.view_rows(&[Some("lora"), None, Some("lora")])?.forward(&batch, Pass::eval())?;
    assert_close("mixed", &mixed.get(2), &adapted.get(2), 1e-5)?;

    let mut packed = peft.quantised(&Nf4Config::default())?;
    packed.add("lora", LoraConfig::new(2).targets(["layer"]))?;
    shake(packed.params("lora")?)?;
    let again = MergeOptions { quantised: Quantised::Requantise, ..MergeOptions::default() };
    let requantised = packed.merged_with(&["lora"], &again)?.requantised;
    ensure!(requantised.len() == 1, "{requantised:?}");
    Ok(())
}

/// What is trained of the bare parameter is the tied layer's, too; a change of that alone has no place in such a model.
#[test]
fn a_layer_that_is_tied_for_good_cannot_part() -> Result<()> {
    let _serial = serial();
    let (mut peft, batch) = shared()?;
    peft.add("full", FullConfig::default())?;
    shake(peft.params("full")?)?;
    assert_close("full", &merged(&peft, &["full"], &batch)?, &logits(&peft, &["full"], &batch)?, 1e-6)?;
    peft.add("tied", LoraConfig::new(2).targets(["again"]))?;
    shake(peft.params("tied")?)?;
    refused("tied", peft.merged(&["tied"]), &["merging", "`again.weight`", "tied", "Architecture::untied"])?;
    Ok(())
}

/// An empty name is no name: messages do without.
#[test]
fn a_model_without_a_type_is_called_a_model() -> Result<()> {
    let _serial = serial();
    let (mut peft, _) = shared()?;
    let status = peft.status()?.to_string();
    ensure!(status.starts_with("a model, 78 parameters"), "{status}");
    let blueprint = Blueprint::like(&peft)?.to_string();
    ensure!(blueprint == "a model of 78 parameters", "{blueprint}");
    refused("targets", peft.add("x", LoraConfig::new(2)), &["target_modules", "no default for this model"])?;
    let prompt = peft.add("x", PromptTuningConfig::new(2));
    refused("sizes", prompt, &["this model", "Dims::transformer", "prompts"])?;
    let dir = tempfile::tempdir()?;
    refused("saving", hub::save(&peft, dir.path(), None), &["this model", "Architecture::json"])?;
    refused("names", peft.named(&["a".into()]), &["1 names", "this model", "Architecture::named"])?;
    Ok(())
}
