//! What (IA)³, VeRA and the methods that copy parameters of the base do beyond the laws that all methods share.

use anyhow::{Context, Result, ensure};
use peft_core::hub;
use peft_core::io::tensors;
use peft_core::methods::{BitFitConfig, Common, Ia3Config, PartialConfig, VeraConfig};
use peft_core::seam::MethodConfig;
use peft_core::target::{LayerIndices, Layers, Names};
use peft_core::{Model, Pass, Peft};
use tch::{Device, Kind, Tensor};
use tests::subject::{Llama, Tiny};
use tests::subject::{Subject, logits};
use tests::{assert_bits, assert_close, golden, serial};

fn base(family: &str) -> Result<Peft> {
    Ok(hub::open(golden(family).join("base"), Device::Cpu, hub::Head::Stored)?.peft)
}

fn names(list: &[&str]) -> Option<Names> {
    Some(Names::list(list.iter().copied()))
}

/// Names and shapes of a fresh adapter's tensors that contain `part`, without what all of them start with.
fn shapes(family: &str, method: impl MethodConfig + 'static, part: &str) -> Result<Vec<(String, Vec<i64>)>> {
    let mut peft = base(family)?;
    peft.add("a", method)?;
    let tensors = peft.params("a")?.tensors().into_iter();
    let own = tensors.filter(|(name, _)| name.contains(part));
    Ok(own.map(|(name, t)| (name.replace("base_model.model.", ""), t.size())).collect())
}

/// The numbers of `torch.Generator().manual_seed(0)`, as Python's file has them, whatever the global generator is at;
/// and that one goes on as if nothing had been drawn.
#[test]
fn veras_projections_come_from_a_generator_of_their_own() -> Result<()> {
    let _serial = serial();
    let file = tensors::read(golden("llama/vera/adapter_model.safetensors"))?;
    let float = (Kind::Float, Device::Cpu);
    tch::manual_seed(5);
    let expected = Tensor::randn([4], float);
    tch::manual_seed(5);
    let mut peft = base("llama")?;
    let config = VeraConfig {
        r: 8,
        target_modules: names(&["q_proj", "v_proj", "down_proj"]),
        ..VeraConfig::default()
    };
    peft.add("a", config.clone())?;
    assert_bits("the global generator", &Tensor::randn([4], float), &expected)?;
    let own = peft.params("a")?.tensors();
    for name in ["base_model.vera_A", "base_model.vera_B"] {
        assert_bits(name, &own[name], &file[name])?;
    }
    peft.add("other", VeraConfig { projection_prng_key: -1, ..config })?;
    ensure!(
        !peft.params("other")?.tensors()["base_model.vera_A"].equal(&own["base_model.vera_A"]),
        "one key"
    );
    Ok(())
}

/// One batch whose rows have a VeRA, an AdaLoRA with pruned ranks, and nothing.
#[test]
fn low_rank_changes_mix_in_one_batch() -> Result<()> {
    let _serial = serial();
    let mut peft = base("llama")?;
    peft.load("vera", golden("llama/vera"))?;
    peft.load("adalora", golden("llama/adalora"))?;
    let (batch, _) = Llama::batch()?;
    let rows = [Some("vera"), Some("adalora"), None, Some("vera")];
    let mixed = peft.view_rows(&rows)?.forward(&batch, Pass::eval())?;
    for (i, row) in (0..).zip(rows) {
        let alone = logits(&peft, row.as_slice())?.get(i);
        assert_close(&format!("row {i}"), &mixed.get(i), &alone, 1e-5)?;
    }
    Ok(())
}

/// The projections are as wide as the widest of the layers that are left.
#[test]
fn vera_fits_the_layers_it_adapts() -> Result<()> {
    let _serial = serial();
    let config = VeraConfig {
        r: 2,
        target_modules: names(&["v_proj", "k_proj"]),
        layers: Layers { layers_to_transform: Some(LayerIndices::One(1)), ..Layers::default() },
        ..VeraConfig::default()
    };
    let found = shapes("llama", config.clone(), "vera_A")?;
    ensure!(found == [("base_model.vera_A".into(), vec![2, 32])], "{found:?}");
    let found = shapes("llama", config, "lambda_b")?;
    let site = |leaf: &str| format!("model.layers.1.self_attn.{leaf}.vera_lambda_b");
    ensure!(found == [(site("k_proj"), vec![16]), (site("v_proj"), vec![16])], "{found:?}");
    Ok(())
}

/// `output.dense` ends the paths of two linear layers of BERT's, as PEFT has it without a dot.
#[test]
fn feed_forward_layers_are_found_by_the_end_of_their_path() -> Result<()> {
    let _serial = serial();
    let layer = "bert.encoder.layer.0.";
    let check = |targets: &[&str], feedforward: Option<Names>, expected: &[(&str, [i64; 2])]| -> Result<()> {
        let config =
            Ia3Config { targets: targets.into(), feedforward_modules: feedforward, ..Ia3Config::default() };
        let found = shapes("bert", config, layer)?;
        let expected: Vec<(String, Vec<i64>)> =
            expected.iter().map(|(n, s)| (format!("{layer}{n}.ia3_l"), s.to_vec())).collect();
        ensure!(found == expected, "{targets:?}: {found:?}");
        Ok(())
    };
    let both = &[("attention.output.dense", [1, 32]), ("output.dense", [1, 64])];
    check(&["output.dense"], None, both)?;
    check(&["output.dense"], names(&["output.dense"]), both)?;
    check(&["output.dense"], names(&[]), &[("attention.output.dense", [32, 1]), ("output.dense", [32, 1])])?;
    let pattern = Some(Names::Pattern(r".*\d\.output\.dense".into()));
    check(&["output.dense"], pattern, &[("attention.output.dense", [32, 1]), ("output.dense", [1, 64])])?;
    // The default names none of these.
    check(&["key"], None, &[("attention.self.key", [32, 1])])?;
    // The default stands for a longer target, which the file then names.
    check(&["attention.output.dense"], None, &[("attention.output.dense", [1, 32])])?;
    // By a pattern, beside which the file has the default.
    let (dir, mut peft) = (tempfile::tempdir()?, base("bert")?);
    let targets = ".*key".into();
    peft.add("a", Ia3Config { targets, ..Ia3Config::default() })?;
    peft.save("a", dir.path())?;
    peft.load("b", dir.path())?;
    peft.delete("a")?;
    peft.add("a", Ia3Config { targets: ["attention.output.dense"].into(), ..Ia3Config::default() })?;
    let config = peft.adapter_config("a")?.context("no file form")?;
    ensure!(config["feedforward_modules"] == config["target_modules"], "{config:#}");
    Ok(())
}

/// The paper's smaller variant: query and the feed-forward's first layer.
#[test]
fn bitfit_trains_the_biases_it_is_told_to() -> Result<()> {
    let _serial = serial();
    let config =
        BitFitConfig { targets: ["query", "intermediate.dense"].into(), common: Common::classifier() };
    let found = shapes("bert", config.clone(), "layer.1.")?;
    let name = |leaf: &str| format!("bert.encoder.layer.1.{leaf}.bias");
    let expected = [(name("attention.self.query"), vec![32]), (name("intermediate.dense"), vec![64])];
    ensure!(found == expected, "{found:?}");
    let mut peft = base("bert")?;
    peft.add("a", config)?;
    let report = peft.report(&["a"])?;
    // The head is counted twice, as it is beside every method; the biases are the model's own.
    ensure!(report.trainable == 2 * (32 + 64) + 99, "{report}");
    ensure!(report.all == peft.report(&[])?.all + 99, "{report}");
    // `nn.MultiheadAttention` names its bias another way.
    let mut tiny = Tiny::base()?;
    let packed = BitFitConfig::default().targets(["in_proj"]);
    tiny.add("a", packed)?;
    ensure!(tiny.report(&["a"])?.trainable == 2 * 96, "{}", tiny.report(&["a"])?);
    Ok(())
}

#[test]
fn partial_fine_tuning_by_layers_and_names() -> Result<()> {
    let _serial = serial();
    let trained = |config: PartialConfig| -> Result<Vec<String>> {
        let found = shapes("llama", config, "")?;
        Ok(found.into_iter().map(|(name, _)| name).collect())
    };
    let partial = PartialConfig::default;
    let last = trained(PartialConfig { last_layers: Some(1), ..partial() })?;
    ensure!(last.len() == 9 && last.iter().all(|n| n.starts_with("model.layers.1.")), "{last:?}");
    let both = trained(PartialConfig {
        last_layers: Some(1),
        target_parameters: names(&["lm_head", "0.mlp"]),
        ..partial()
    })?;
    ensure!(both.len() == 9 + 1 + 3, "{both:?}");
    let pattern = Names::Pattern(r"model\.layers\.\d\.self_attn\.[qk]_proj\.weight".into());
    let some = trained(PartialConfig { target_parameters: Some(pattern), ..partial() })?;
    ensure!(
        some.len() == 4 && some.iter().all(|n| n.ends_with("q_proj.weight") || n.ends_with("k_proj.weight")),
        "{some:?}"
    );
    Ok(())
}

/// The head of GPT-2 is its word embedding: whoever trains one trains both.
#[test]
fn a_tied_head_is_trained_as_the_embedding_that_it_is() -> Result<()> {
    let _serial = serial();
    let config = PartialConfig { target_parameters: names(&["lm_head"]), ..PartialConfig::default() };
    let mut peft = base("gpt2")?;
    peft.add("a", config)?;
    let own = peft.params("a")?.tensors();
    ensure!(own.keys().eq(["base_model.model.transformer.wte.weight"]), "{:?}", own.keys());
    let (name, t) = own.into_iter().next().context("no tensor")?;
    peft.params("a")?.assign(&name, &(t.detach() * 1.5))?;
    let merged = peft.merged(&["a"])?;
    assert_bits("merged", &logits(&merged, &[])?, &logits(&peft, &["a"])?)?;
    ensure!(merged.base().find("lm_head.weight").is_none(), "the head was untied");
    Ok(())
}
