//! What is refused of such a model, by name.

use super::laws::Scale;
use super::{SHAPES, Sequence, features, partial, sequence, tensors};
use crate::{logits, shake};
use anyhow::{Result, ensure};
use peft_core::build::{Architecture, Scope};
use peft_core::methods::{Ia3Config, LoHaConfig, LoraConfig, OftConfig};
use peft_core::seam::{MethodConfig, SiteKind};
use peft_core::target::Names;
use peft_core::{Batch, Error, Model, Params, Pass, Peft};
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};
use tests::{assert_close, refused, serial};

#[test]
fn the_outline_has_kinds_and_parameters() -> Result<()> {
    let _serial = serial();
    let peft = sequence()?;
    let sites: Vec<_> = peft.outline().sites.iter().map(|s| (s.name.as_str(), s.kind)).collect();
    ensure!(
        sites == [("conv", SiteKind::Own), ("up", SiteKind::Own), ("head", SiteKind::Linear)],
        "{sites:?}"
    );
    ensure!(peft.outline().params.iter().eq(SHAPES.map(|(name, _)| name)), "{:?}", peft.outline().params);
    Ok(())
}

#[test]
fn names_and_shapes_of_bare_parameters_are_checked() -> Result<()> {
    let _serial = serial();
    let with = |change: fn(&mut BTreeMap<String, Tensor>)| -> Result<peft_core::Result<Peft>> {
        let mut all = tensors();
        change(&mut all);
        Ok(Peft::new(Params::from_tensors("mine.safetensors", Device::Cpu, all)?, Sequence))
    };
    let renamed = with(|all| {
        let gate = all.remove("mix.gate").unwrap_or_default();
        all.insert("mix.gaet".into(), gate);
    })?;
    refused("a name", renamed, &["mine.safetensors", "`mix.gate`", "[5, 1]", "`mix.gaet`"])?;
    let shaped =
        with(|all| drop(all.insert("scale".into(), Tensor::zeros([2], (Kind::Float, Device::Cpu)))))?;
    refused("a shape", shaped, &["mine.safetensors", "`scale`", "[2]", "[1]"])?;
    let whole = with(|all| drop(all.insert("scale".into(), Tensor::zeros([1], (Kind::Int64, Device::Cpu)))))?;
    refused("whole numbers", whole, &["mine.safetensors", "`scale`", "Int64"])?;
    let more =
        with(|all| drop(all.insert("mix.more".into(), Tensor::zeros([2], (Kind::Float, Device::Cpu)))))?;
    let error = refused("one more", more, &["mine.safetensors", "`mix.more`"])?;
    ensure!(matches!(error, Error::Unread { .. }), "{error}");
    let long =
        with(|all| drop(all.insert("up.bias".into(), Tensor::zeros([6], (Kind::Float, Device::Cpu)))))?;
    refused("a kernel's bias", long, &["`up.bias`", "[6]", "[5]"])?;

    // An adapter's file is read as strictly.
    let (mut peft, dir) = (sequence()?, tempfile::tempdir()?);
    peft.add("mine", partial(&["gate"]))?;
    peft.save("mine", dir.path())?;
    let file = dir.path().join(peft_core::io::adapter::TENSORS);
    let mut stored = peft_core::io::tensors::read(&file)?;
    stored.insert("base_model.model.mix.gaet".into(), Tensor::zeros([5, 1], (Kind::Float, Device::Cpu)));
    peft_core::io::tensors::write(&file, &stored)?;
    refused("loading", peft.load("again", dir.path()), &["`base_model.model.mix.gaet`", "nothing reads"])?;
    refused("a typo", peft.add("typo", partial(&["gaet"])), &["`gaet`", "target_parameters", "gate"])?;
    Ok(())
}

/// Adapters of the layer would not reach the bare handle, and merging would not be what the view is.
#[test]
fn a_layers_parameter_is_not_a_bare_one() -> Result<()> {
    #[derive(Debug)]
    struct Twice(bool);
    impl Architecture for Twice {
        fn build(&self, scope: &Scope<'_>) -> peft_core::Result<Box<dyn Model>> {
            let bare = || scope.param("head.weight", &[3, 5]);
            let first = self.0.then(bare).transpose()?;
            let head = scope.linear("head", 5, 3, false)?;
            let second = if self.0 { None } else { Some(bare()?) };
            let (weight, view) = (first.or(second).unwrap_or_default(), Sequence.build(scope));
            drop((head, weight));
            view
        }
    }
    let _serial = serial();
    for order in [true, false] {
        let base = Params::from_tensors("twice", Device::Cpu, tensors())?;
        refused("twice", Peft::new(base, Twice(order)), &["head.weight", "Scope::param", "take the layer"])?;
    }
    Ok(())
}

#[test]
fn methods_of_matrices_refuse_own_kernels_by_kind() -> Result<()> {
    let _serial = serial();
    let mut peft = sequence()?;
    let kind = "a layer with a kernel of the model's own, not a linear layer";
    let ia3 = Ia3Config { feedforward_modules: Some(Names::list([""; 0])), ..Ia3Config::default() };
    let methods: [(&str, Box<dyn MethodConfig>); 4] = [
        ("LoRA", LoraConfig::new(2).targets(["conv"]).into()),
        ("LoHa", LoHaConfig::new(2).targets(["conv"]).into()),
        ("OFT", OftConfig::new(2).targets(["conv"]).into()),
        ("(IA)³", ia3.targets(["conv"]).into()),
    ];
    for (name, method) in methods {
        let error = refused(name, peft.add("x", method), &[name, "`conv`", kind])?;
        ensure!(matches!(error, Error::Unsupported { .. }), "{error}");
    }
    peft.add("all", LoraConfig::new(2).targets("all-linear"))?;
    let found: Vec<String> = peft.params("all")?.tensors().into_keys().collect();
    ensure!(found.iter().all(|name| name.starts_with("base_model.model.head.")), "{found:?}");
    Ok(())
}

/// Whatever a kernel says comes with the layer's name.
#[test]
fn a_kernels_error_has_its_layers_name() -> Result<()> {
    let _serial = serial();
    let narrow = Batch::of_features(Tensor::zeros([3, 2, 9], (Kind::Float, Device::Cpu)));
    refused("a batch", sequence()?.view(&[])?.forward(&narrow, Pass::eval()), &["at `conv`: libtorch: "])?;
    Ok(())
}

/// A LoRA has no place for a bare parameter: that is said, and not lost. A kernel is kept whole.
#[test]
fn conversion_keeps_kernels_whole_and_refuses_bare_parameters() -> Result<()> {
    let _serial = serial();
    let (mut peft, batch) = (sequence()?, features());
    peft.add("bare", partial(&["gate"]))?;
    shake(peft.params("bare")?)?;
    refused("a bare parameter", peft.to_lora("bare", "lora", 2), &["`mix.gate`", "of no layer"])?;
    peft.add("layers", partial(&["conv", "head"]))?;
    shake(peft.params("layers")?)?;
    let conversion = peft.to_lora("layers", "lora", 3)?;
    ensure!(conversion.whole == ["conv.weight", "conv.bias"], "{:?}", conversion.whole);
    let dir = tempfile::tempdir()?;
    peft.save("lora", dir.path())?;
    let config = peft_core::io::read_json(dir.path().join(peft_core::io::adapter::CONFIG))?;
    ensure!(config["modules_to_save"] == serde_json::json!(["conv"]), "{config}");
    assert_close("lora", &logits(&peft, &["lora"], &batch)?, &logits(&peft, &["layers"], &batch)?, 1e-5)
}

/// The rows of a batch cannot have each its own change of such a weight, whatever an adapter says of it.
#[test]
fn mixed_rows_refuse_changes_of_own_kernels() -> Result<()> {
    let _serial = serial();
    for claims in [false, true] {
        let mut peft = sequence()?;
        peft.add("scale", Scale { claims })?;
        refused("mixed rows", peft.view_rows(&[Some("scale"), None]).map(drop), &["scale", "`conv`"])?;
    }
    Ok(())
}
