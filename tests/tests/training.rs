//! The training step: resuming, clipping, schedules.

use anyhow::{Result, ensure};
use peft_core::io::tensors;
use peft_core::methods::{AdaLoraConfig, LoraConfig};
use peft_core::models::TinyConfig;
use peft_core::quant::Nf4Config;
use peft_core::seam::{MethodConfig, Numerics};
use peft_core::train::{AdamConfig, LoraPlus, Schedule, Trainer, cross_entropy};
use peft_core::{Batch, Model, Pass, Peft};
use tch::{Device, Kind, Tensor};

const SCHEDULE: Schedule = Schedule::Linear { warmup: 3, total: 12 };

/// The test's own sequence of numbers: libtorch's generator belongs to the whole process.
fn numbers(n: i64, below: i64, seed: i64) -> Tensor {
    let values: Vec<i64> = (0..n).map(|i| (i * 7919 + seed * 104_729 + i * i * 31) % below).collect();
    Tensor::from_slice(&values)
}

fn base() -> Result<Peft> {
    let config = TinyConfig::default();
    let params = config.init(Device::Cpu)?;
    for (i, (name, t)) in params.tensors().into_iter().enumerate() {
        let wave =
            (Tensor::arange(t.numel() as i64, (Kind::Float, Device::Cpu)) * (0.7 + i as f64 / 9.0)).sin();
        params.assign(&name, &(wave.view(t.size().as_slice()) * 0.3))?;
    }
    Ok(Peft::new(params, config)?)
}

fn lora() -> LoraConfig {
    LoraConfig { r: 3, lora_alpha: 5.0, targets: ["ff.0", "in_proj"].into(), ..Default::default() }
}

fn loss(peft: &Peft, step: i64) -> Result<Tensor> {
    let batch = Batch::dense(numbers(80, 100, step).view([8, 10]));
    Ok(cross_entropy(&peft.view(&["a"])?.forward(&batch, Pass::train())?, &numbers(8, 4, step))?)
}

fn run(peft: &Peft, trainer: &mut Trainer, steps: std::ops::Range<i64>) -> Result<Vec<f64>> {
    steps.map(|i| Ok(trainer.step(&loss(peft, i)?)?.loss)).collect()
}

fn trainer(peft: &Peft) -> Result<Trainer> {
    Ok(Trainer::new(peft, &["a"], AdamConfig::default(), 0.05, SCHEDULE)?.clip(0.5))
}

/// Adapter and optimizer state, written to files and read again, go on as if nothing had happened.
#[test]
fn a_resumed_run_has_the_bits_of_a_straight_one() -> Result<()> {
    let _serial = tests::serial();
    let dir = tempfile::tempdir()?;
    let mut straight = base()?;
    straight.add("a", lora())?;
    straight.save("a", dir.path().join("start"))?;
    let expected = run(&straight, &mut trainer(&straight)?, 0..10)?;

    let mut first = base()?;
    first.load("a", dir.path().join("start"))?;
    let mut before = trainer(&first)?;
    let mut found = run(&first, &mut before, 0..4)?;
    first.save("a", dir.path().join("half"))?;
    let state = dir.path().join("optimizer.safetensors");
    tensors::write(&state, &before.optimizer().state()?)?;

    let mut second = base()?;
    second.load("a", dir.path().join("half"))?;
    let mut after = trainer(&second)?;
    after.optimizer().load_state(&tensors::read(&state)?)?;
    ensure!(after.steps() == 4);
    found.extend(run(&second, &mut after, 4..10)?);
    ensure!(found == expected, "{found:?}\n{expected:?}");
    ensure!(expected[9] < expected[0], "it learns: {expected:?}");
    Ok(())
}

#[test]
fn clipping_scales_all_gradients_by_one_factor() -> Result<()> {
    let _serial = tests::serial();
    let mut peft = base()?;
    peft.add("a", LoraConfig { init_lora_weights: peft_core::methods::InitLora::Flag(false), ..lora() })?;
    loss(&peft, 0)?.backward();
    let free: Vec<Tensor> = peft.trainable(&["a"])?.into_iter().map(|(_, p)| p.grad().copy()).collect();
    let norm = free
        .iter()
        .map(|g| f64::try_from(g.square().sum(Kind::Double)).unwrap_or(f64::NAN))
        .sum::<f64>()
        .sqrt();
    for max in [norm / 3.0, norm * 3.0] {
        let mut trainer = Trainer::new(&peft, &["a"], AdamConfig::default(), 0.0, SCHEDULE)?.clip(max);
        let report = trainer.step(&loss(&peft, 0)?)?;
        ensure!(
            report.grad_norm.is_some_and(|n| (n - norm).abs() < 1e-5 * norm),
            "{report:?}, by hand {norm}"
        );
        let factor = (max / (norm + 1e-6)).min(1.0);
        for ((name, p), g) in peft.trainable(&["a"])?.into_iter().zip(&free) {
            tests::assert_close(&name, &p.grad(), &(g * factor), 1e-5)?;
        }
    }
    Ok(())
}

#[test]
fn the_schedule_is_that_of_the_report() -> Result<()> {
    let _serial = tests::serial();
    let mut peft = base()?;
    peft.add("a", lora())?;
    let mut trainer = trainer(&peft)?;
    for step in 0..12 {
        let report = trainer.step(&loss(&peft, step)?)?;
        let expected = 0.05 * SCHEDULE.factor(step as u64);
        ensure!(report.lr == expected, "step {step}: {} for {expected}", report.lr);
    }
    ensure!(SCHEDULE.factor(0) == 0.0 && SCHEDULE.factor(3) == 1.0);
    Ok(())
}

/// Rows `from..from + count` of the batch of [`loss`], and how many there are.
fn part(peft: &Peft, step: i64, (from, count): (i64, i64)) -> Result<(Tensor, f64)> {
    let ids = numbers(80, 100, step).view([8, 10]).narrow(0, from, count);
    let logits = peft.view(&["a"])?.forward(&Batch::dense(ids), Pass::train())?;
    Ok((cross_entropy(&logits, &numbers(8, 4, step).narrow(0, from, count))?, count as f64))
}

/// Parts of different size add up to their batch: losses and gradients, with a penalty and without.
#[test]
fn accumulated_parts_are_one_batch() -> Result<()> {
    let _serial = tests::serial();
    let ada = AdaLoraConfig { total_step: Some(20), targets: ["ff.0"].into(), ..AdaLoraConfig::default() };
    for method in [Box::<dyn MethodConfig>::from(lora()), ada.into()] {
        let dir = tempfile::tempdir()?;
        let mut whole = base()?;
        whole.add("a", method)?;
        whole.save("a", dir.path())?;
        let mut parted = base()?;
        parted.load("a", dir.path())?;
        let [mut at_once, mut in_parts] = [trainer(&whole)?, trainer(&parted)?];
        for step in 0..6 {
            let expected = at_once.step(&loss(&whole, step)?)?;
            let parts = [(0, 4), (4, 3), (7, 1)].map(|rows| part(&parted, step, rows));
            let found = in_parts.step_accumulated(parts)?;
            ensure!((found.loss - expected.loss).abs() < 1e-6 * expected.loss, "{found:?} {expected:?}");
            let norms = found.grad_norm.zip(expected.grad_norm);
            ensure!(norms.is_some_and(|(f, e)| (f - e).abs() < 1e-5 * e), "{found:?} {expected:?}");
            ensure!(found.lr == expected.lr);
            if step > 1 {
                continue; // The first step's rate is 0: until then both have the same parameters.
            }
            let found = parted.params("a")?.tensors();
            for (name, p) in whole.trainable(&["a"])? {
                tests::assert_close(&name, &found[&name].grad(), &p.grad(), 1e-5)?;
            }
        }
    }
    Ok(())
}

#[test]
fn a_step_of_parts_that_fails_updates_nothing() -> Result<()> {
    let _serial = tests::serial();
    let mut peft = base()?;
    peft.add("a", lora())?;
    let mut trainer = trainer(&peft)?;
    let nan = || Ok((Tensor::from(f64::NAN), 1.0));
    let good = || part(&peft, 0, (0, 4));
    let failed = |found: Result<_>, part: &str| -> Result<()> {
        let error = found.err().map(|e| e.to_string()).unwrap_or_default();
        ensure!(error.contains(part), "{error}");
        Ok(())
    };
    failed(trainer.step_accumulated(Vec::<Result<(Tensor, f64)>>::new()), "without a part")?;
    failed(trainer.step_accumulated([good(), Ok((good()?.0, -1.0))]), "weight -1")?;
    failed(trainer.step_accumulated([Ok((good()?.0, 0.0))]), "every label is -100")?;
    failed(trainer.step_accumulated([good(), nan()]), "the loss")?;
    failed(trainer.step_accumulated([good(), Err(anyhow::anyhow!("no more rows"))]), "no more rows")?;
    ensure!(trainer.steps() == 0);
    let report = trainer.step_accumulated([good(), Ok((Tensor::from(f64::NAN), 0.0))])?;
    ensure!(trainer.steps() == 1 && report.skipped == 1 && report.weight == 4.0, "{report:?}");
    Ok(())
}

/// Two adapters of one stack have tensors of one name: the optimizer's state has both.
#[test]
fn a_stack_resumes_as_one_adapter_does() -> Result<()> {
    let _serial = tests::serial();
    let names = ["a", "b"];
    let (mut straight, mut halved) = (base()?, base()?);
    for (i, name) in (5..).zip(names) {
        straight.add(name, lora())?;
        tests::subject::move_away(straight.params(name)?, i)?;
        halved.add_with(name, lora(), straight.params(name)?.tensors())?;
    }
    let trainer = |peft: &Peft| Trainer::new(peft, &names, LoraPlus::new(4.0), 0.02, SCHEDULE);
    let run = |peft: &Peft, trainer: &mut Trainer, steps: std::ops::Range<i64>| -> Result<()> {
        for step in steps {
            let batch = Batch::dense(numbers(80, 100, step).view([8, 10]));
            let logits = peft.view(&names)?.forward(&batch, Pass::eval())?;
            trainer.step(&cross_entropy(&logits, &numbers(8, 4, step))?)?;
        }
        Ok(())
    };
    run(&straight, &mut trainer(&straight)?, 0..6)?;
    let mut before = trainer(&halved)?;
    run(&halved, &mut before, 0..3)?;
    let state = before.optimizer().state()?;
    ensure!(state.contains_key("m.b.base_model.model.layers.0.ff.0.lora_A.weight"), "{:?}", state.keys());
    ensure!(state.len() == 1 + 2 * straight.trainable(&names)?.len(), "{} tensors", state.len());
    let mut after = trainer(&halved)?;
    after.optimizer().load_state(&state)?;
    run(&halved, &mut after, 3..6)?;
    for name in names {
        let found = halved.params(name)?.tensors();
        for (key, expected) in straight.params(name)?.tensors() {
            tests::assert_bits(&format!("{name}: {key}"), &found[&key], &expected)?;
        }
    }
    Ok(())
}

/// Both numerics compute the same but for rounding, views and steps; and what is made of a model computes as that does.
#[test]
fn numerics_are_said_once() -> Result<()> {
    let _serial = tests::serial();
    let dir = tempfile::tempdir()?;
    let mut exact = base()?;
    exact.add("a", lora())?;
    exact.save("a", dir.path())?;
    let mut fast = base()?.with_numerics(Numerics::Fast);
    fast.load("a", dir.path())?;
    ensure!(exact.numerics() == Numerics::Exact, "the tiny model has PyTorch's bits");
    let logits = |peft: &Peft| -> Result<Tensor> {
        let batch = Batch::dense(numbers(80, 100, 0).view([8, 10]));
        Ok(peft.view(&["a"])?.forward(&batch, Pass::eval())?)
    };
    tests::assert_close("a view", &logits(&fast)?, &logits(&exact)?, 1e-6)?;
    let [expected, found] = [&exact, &fast].map(|peft| run(peft, &mut trainer(peft)?, 0..6));
    for (expected, found) in expected?.into_iter().zip(found?) {
        ensure!((expected - found).abs() < 1e-5 * expected, "{expected} {found}");
    }
    for made in [fast.merged(&["a"])?, fast.to_kind(Kind::Double)?, fast.quantised(&Nf4Config::default())?] {
        ensure!(made.numerics() == Numerics::Fast, "{made:?}");
    }
    Ok(())
}
