//! Batches whose rows have different adapters: as good as every row alone.

use anyhow::{Result, ensure};
use peft_core::build::{Architecture, Layer, Scope};
use peft_core::combine::Combination;
use peft_core::generate::KvCache;
use peft_core::hub;
use peft_core::methods::{BottleneckConfig, Common, FullConfig, LoraConfig, PromptTuningConfig};
use peft_core::quant::Nf4Config;
use peft_core::{Batch, Model, Params, Pass, Peft};
use tch::{Device, Kind, Tensor};
use tests::on_every_model;
use tests::subject::Tiny;
use tests::subject::{Subject, logits, move_away, moved};
use tests::table::{Merge, Row};
use tests::{assert_close, golden, golden_tensors, refused, serial};

fn lora(r: i64, alpha: f64, targets: &[&str]) -> LoraConfig {
    LoraConfig { r, lora_alpha: alpha, targets: targets.into(), ..LoraConfig::default() }
}

/// Adapters `a`, `b` and `c` over `peft`: other ranks, scales and targets, all moved from their start.
fn with(mut peft: Peft, targets: [&[&str]; 3]) -> Result<Peft> {
    let configs = [
        lora(4, 10.0, targets[0]),
        LoraConfig { use_rslora: true, ..lora(3, 4.0, targets[1]) },
        lora(1, 3.0, targets[2]),
    ];
    for (i, (name, config)) in ["a", "b", "c"].into_iter().zip(configs).enumerate() {
        peft.add(name, config)?;
        tch::manual_seed(i as i64 + 3);
        for (key, t) in peft.trainable(&[name])? {
            peft.params(name)?.assign(&key, &(t.detach() + t.randn_like() * 0.15))?;
        }
    }
    Ok(peft)
}

fn open(family: &str) -> Result<Peft> {
    Ok(hub::open(golden(family).join("base"), Device::Cpu, hub::Head::Stored)?.peft)
}

const ROWS: [Option<&str>; 5] = [Some("b"), None, Some("a"), Some("c"), Some("b")];

/// Row by row with its own adapter, and in the batch.
fn rows_alone(peft: &Peft, vocab: i64, padded: bool) -> Result<()> {
    tch::manual_seed(5);
    let ids = Tensor::randint(vocab, [5, 7], (Kind::Int64, Device::Cpu));
    let mask = padded.then(|| {
        let lengths = Tensor::from_slice(&[7i64, 3, 5, 7, 1]).view([5, 1]);
        Tensor::arange(7, (Kind::Int64, Device::Cpu)).unsqueeze(0).lt_tensor(&lengths).to_kind(Kind::Int64)
    });
    let batch = Batch { mask: mask.as_ref().map(Tensor::copy), ..Batch::dense(ids.copy()) };
    let mixed = peft.view_rows(&ROWS)?.forward(&batch, Pass::eval())?;
    let mut alone = Vec::new();
    for (i, row) in ROWS.iter().enumerate() {
        let one = |t: &Tensor| t.narrow(0, i as i64, 1);
        let batch = Batch { mask: mask.as_ref().map(one), ..Batch::dense(one(&ids)) };
        let active: Vec<&str> = row.iter().copied().collect();
        alone.push(peft.view(&active)?.forward(&batch, Pass::eval())?);
    }
    // A product of other rows may sum in another order, so a row whose logits are small has larger relative errors.
    assert_close("rows", &mixed, &Tensor::cat(&alone, 0), 1e-6)
}

#[test]
fn every_row_is_as_if_alone() -> Result<()> {
    let _serial = serial();
    let tiny = with(Tiny::base()?, [&["ff.0"], &["ff.0", "ff.2"], &["ff.2", "head"]]);
    rows_alone(&tiny?, 50, false)?;
    let bert = with(open("bert")?, [&["query"], &["query", "pooler.dense"], &["value", "output.dense"]]);
    rows_alone(&bert?, 90, true)?;
    let llama = with(open("llama")?, [&["q_proj"], &["q_proj", "down_proj"], &["v_proj", "lm_head"]]);
    rows_alone(&llama?, 90, true)?;
    let gpt2 = || open("gpt2");
    let linear = with(gpt2()?, [&["c_attn"], &["c_attn", "c_fc"], &["mlp.c_proj", "lm_head"]]);
    rows_alone(&linear?, 90, true)?;
    // Word embeddings, and positions: without padding, one row of those stands for all.
    let embeddings = || with(gpt2()?, [&["wte"], &["wte", "wpe", "c_attn"], &["wpe"]]);
    rows_alone(&embeddings()?, 90, true)?;
    rows_alone(&embeddings()?, 90, false)
}

#[test]
fn mixed_rows_and_sums_have_the_numbers_of_peft() -> Result<()> {
    let _serial = serial();
    let dir = golden("llama/x_multi_adapter");
    let g = golden_tensors(&dir)?;
    let mut peft = open("llama")?;
    for name in ["a", "b"] {
        peft.load(name, dir.join(name))?;
    }
    let batch = Batch::masked(g["input_ids"].copy(), g["attention_mask"].copy());
    let mixed = peft.view_rows(&[Some("a"), Some("b"), None])?.forward(&batch, Pass::eval())?;
    assert_close("mixed", &mixed, &g["logits.mixed_a_b_base"], 1e-5)?;
    for (active, key) in [
        (&["a"] as &[&str], "a"),
        (&["b"], "b"),
        (&["a", "b"], "a+b"),
        (&["b", "a"], "a+b"),
        (&[], "disabled"),
    ] {
        let found = peft.view(active)?.forward(&batch, Pass::eval())?;
        assert_close(key, &found, &g[&format!("logits.{key}")], 1e-5)?;
    }
    Ok(())
}

/// Tokens one by one with a cache, as in a pass over all of them.
#[test]
fn rows_decode_with_a_cache() -> Result<()> {
    let _serial = serial();
    let peft = with(open("llama")?, [&["q_proj"], &["k_proj", "down_proj"], &["v_proj"]])?;
    let ids = Tensor::randint(90, [5, 8], (Kind::Int64, Device::Cpu));
    let model = peft.view_rows(&ROWS)?;
    let whole = model.forward(&Batch::dense(ids.copy()), Pass::eval())?;
    let cache = KvCache::new();
    let _guard = tch::no_grad_guard();
    for (start, length) in [(0, 4), (4, 1), (5, 1), (6, 2)] {
        let pass = Pass { cache: Some(&cache), ..Pass::eval() };
        let step = model.forward(&Batch::dense(ids.narrow(1, start, length)), pass)?;
        assert_close(&format!("from {start}"), &step, &whole.narrow(1, start, length), 1e-5)?;
    }
    Ok(())
}

/// Over a base in 4 bits, mixed rows, a combination and a conversion are what they are over the weights it stands for.
#[test]
fn bases_in_4_bits_serve_as_well() -> Result<()> {
    let _serial = serial();
    let targets: [&[&str]; 3] = [&["q_proj"], &["q_proj", "down_proj"], &["v_proj"]];
    let mut peft = with(open("llama")?.quantised(&Nf4Config::default())?, targets)?;
    rows_alone(&peft, 90, true)?;
    peft.combine("b again", &[("b", 1.0)], Combination::Cat)?;
    peft.to_lora("b", "b as LoRA", 3)?;
    let expected = logits(&peft, &["b"])?;
    for name in ["b again", "b as LoRA"] {
        assert_close(name, &logits(&peft, &[name])?, &expected, 1e-6)?;
    }
    Ok(())
}

#[test]
fn bf16_bases_and_one_adapter_for_all() -> Result<()> {
    let _serial = serial();
    let f32 = with(open("llama")?, [&["q_proj"], &["k_proj", "down_proj"], &["v_proj"]])?;
    let peft = with(f32.to_kind(Kind::BFloat16)?, [&["q_proj"], &["k_proj", "down_proj"], &["v_proj"]])?;
    let ids = Tensor::randint(90, [3, 6], (Kind::Int64, Device::Cpu));
    let batch = || Batch::dense(ids.copy());
    for peft in [&f32, &peft] {
        let rows = peft.view_rows(&[Some("b"); 3])?.forward(&batch(), Pass::eval())?;
        let all = peft.view(&["b"])?.forward(&batch(), Pass::eval())?;
        ensure!(rows.kind() == all.kind(), "{:?}", rows.kind());
        let tol = if rows.kind() == Kind::Float { 1e-6 } else { 2e-2 };
        assert_close("one adapter for all rows", &rows, &all, tol)?;
    }
    Ok(())
}

#[test]
fn what_rows_cannot_have_is_refused_by_name() -> Result<()> {
    let _serial = serial();
    let mut peft = with(Tiny::base()?, [&["ff.0"], &["ff.2"], &["ff.2"]])?;
    let saving = Common { modules_to_save: Some(vec!["n2".into()]), ..Common::default() };
    peft.add("bottleneck", BottleneckConfig::default())?;
    peft.add("prompt", PromptTuningConfig { num_virtual_tokens: 2, ..Default::default() })?;
    peft.add("full", FullConfig::default())?;
    move_away(peft.params("full")?, 7)?;
    peft.add("saving", LoraConfig { common: saving, ..lora(2, 2.0, &["ff.0"]) })?;
    move_away(peft.params("saving")?, 8)?;
    peft.add("attention", lora(2, 2.0, &["in_proj"]))?;
    for (name, words) in [
        ("attention", &["LoRA", "layers.0.attn.in_proj", "length"] as &[&str]),
        ("bottleneck", &["bottleneck", "layers.0.attn"]),
        ("prompt", &["prompt tuning", "the input"]),
        ("full", &["full fine-tuning", "copy"]),
        ("saving", &["LoRA", "layers.0.n2.weight"]),
        ("none", &["`none`"]),
    ] {
        refused(name, peft.view_rows(&[Some("a"), Some(name)]).map(drop), words)?;
    }
    let batch = |rows| Batch::dense(Tensor::zeros([rows, 4], (Kind::Int64, Device::Cpu)));
    for rows in [&[Some("a"), None, Some("b")] as &[_], &[None, None, None]] {
        let model = peft.view_rows(rows)?;
        let _ = model.forward(&batch(3), Pass::eval())?;
        for wrong in [1, 2, 4] {
            let words = [format!("a batch of {wrong} rows"), "a view of 3 rows".to_owned()];
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            refused("another batch", model.forward(&batch(wrong), Pass::eval()), &words)?;
        }
        refused("training", model.forward(&batch(3), Pass::train()), &["inference"])?;
    }
    Ok(())
}

/// A linear layer over features, of which the last dimension alone is the layer's.
#[derive(Debug)]
struct Linear;

#[derive(Debug)]
struct LinearView(Layer);

impl Architecture for Linear {
    fn build(&self, scope: &Scope<'_>) -> peft_core::Result<Box<dyn Model>> {
        Ok(Box::new(LinearView(scope.linear("layer", 6, 5, true)?)))
    }
}

impl Model for LinearView {
    fn forward(&self, batch: &Batch, pass: Pass<'_>) -> peft_core::Result<Tensor> {
        self.0.forward(batch.features()?, pass)
    }
}

/// Catches a row's bias that meets another dimension than the rows', which is as long by chance; and a batch of other rows
/// that no adapted layer sees.
#[test]
fn rows_of_features_have_any_shape() -> Result<()> {
    let _serial = serial();
    let floats = (Kind::Float, Device::Cpu);
    let tensors =
        [("layer.weight", Tensor::randn([5, 6], floats)), ("layer.bias", Tensor::randn([5], floats))];
    let tensors = tensors.map(|(name, t)| (name.to_owned(), t));
    let mut peft = Peft::new(Params::from_tensors("the layer", Device::Cpu, tensors)?, Linear)?;
    for (name, seed) in [("a", 1), ("b", 2)] {
        peft.add(name, LoraConfig { lora_bias: true, ..lora(2, 4.0, &["layer"]) })?;
        move_away(peft.params(name)?, seed)?;
    }
    let forward = |model: &dyn Model, x: &Tensor| model.forward(&Batch::of_features(x.copy()), Pass::eval());
    let mixed = peft.view_rows(&[Some("b"), None, Some("a")])?;
    for shape in [&[3i64, 6] as &[_], &[3, 4, 6], &[3, 3, 6], &[3, 3, 4, 6], &[3, 1, 2, 6], &[3, 3, 3, 3, 6]]
    {
        let x = Tensor::randn(shape, floats);
        let found = forward(&mixed, &x)?;
        for (i, active) in (0..).zip([&["b"] as &[&str], &[], &["a"]]) {
            let alone = forward(&peft.view(active)?, &x.narrow(0, i, 1))?;
            assert_close(&format!("{shape:?}, row {i}"), &found.narrow(0, i, 1), &alone, 1e-6)?;
        }
    }
    let x = Tensor::randn([4, 6], floats);
    for rows in [[Some("b"), None, Some("a")], [None; 3]] {
        refused("another batch", forward(&peft.view_rows(&rows)?, &x), &["of 4 rows", "of 3 rows"])?;
    }
    Ok(())
}

/// Of every method: its rows are as if alone, or it is refused by name.
fn rows_or_refusal<M: Subject>(row: &Row) -> Result<()> {
    let peft = moved::<M>(&row.config)?;
    let rows = [Some("a"), None, Some("a"), None];
    let model = match peft.view_rows(&rows) {
        Err(e) => {
            let (name, text) = (peft.method("a")?.name(), e.to_string());
            ensure!(
                [name, "DoRA"].iter().any(|n| text.contains(n)) && text.contains("cannot adapt"),
                "{text}"
            );
            return Ok(());
        }
        Ok(model) => model,
    };
    ensure!(row.merge == Merge::Folds, "was accepted");
    let batch = M::batch()?.0;
    let mixed = model.forward(&batch, Pass::eval())?;
    let [with, without] = [&["a"] as &[&str], &[]].map(|active| logits(&peft, active));
    let (with, without) = (with?, without?);
    for (i, row) in (0..).zip(rows) {
        let alone = if row.is_some() { &with } else { &without }.narrow(0, i, 1);
        assert_close(&format!("row {i}"), &mixed.narrow(0, i, 1), &alone, 1e-5)?;
    }
    Ok(())
}

#[test]
fn every_method_mixes_or_is_refused() -> Result<()> {
    on_every_model!(rows_or_refusal)
}
