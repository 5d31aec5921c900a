//! Lesson 000 against the recorded run of PyTorch 2.11 (`golden/seed000.json`): every printed line, every initial
//! tensor, the loss of all 500 steps, every trained tensor.
//!
//! Bits depend on the processor's instruction set. They are compared on the kind of processor that the recording
//! comes from; elsewhere losses are within the spread that was measured over kinds of processors.

use anyhow::{Context, Result, ensure};
use notebooks_rs::cli::{Setting, pin_threads};
use notebooks_rs::lesson000::{self, Lesson, TECHNIQUES};
use notebooks_rs::{Page, page};
use peft_core::{PREFIX, models::TinyConfig};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tch::{Device, Kind, Tensor};

/// Losses on other processors: the golden's own `suggested_portable_rtol`.
const PORTABLE: f64 = 2e-5;

/// libtorch has one generator for the whole process: one lesson at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    let guard = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    pin_threads();
    guard
}

fn golden() -> Result<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/seed000.json");
    Ok(serde_json::from_str(&std::fs::read_to_string(path)?)?)
}

/// Whether this is a processor of the recorded kind: Intel with AVX512-FP16 (Sapphire Rapids and later).
fn recorded_kind() -> bool {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    info.contains("GenuineIntel") && info.contains("avx512_fp16")
}

fn sha(t: &Tensor) -> Result<String> {
    let t = t.detach().contiguous();
    let mut bytes = vec![0u8; t.numel() * t.kind().elt_size_in_bytes()];
    t.f_copy_data_u8(&mut bytes, t.numel())?;
    let hex: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
    Ok(hex[..32].to_owned())
}

type Run = fn(Setting, &mut Page<Vec<u8>>) -> Result<()>;

fn run(section: Run) -> Result<page::Page<Vec<u8>>> {
    let mut page = Page::new(Vec::new(), false);
    section(Setting::default(), &mut page)?;
    Ok(page)
}

/// The golden's name of a tensor of ours.
fn golden_name(technique: &str, name: &str) -> String {
    let name = name.strip_prefix(PREFIX).unwrap_or(name);
    match technique {
        "adapter" => name.replace("adapter_", "adapter."),
        "lora" => name.replace("lora_A.weight", "A").replace("lora_B.weight", "B"),
        "prefix" => name.replace("attn.prefix", "prefix"),
        "prompt" => "prompt".into(),
        _ => name.into(),
    }
}

#[test]
fn every_printed_line() -> Result<()> {
    let _alone = alone();
    let sections: [Run; 6] = [
        lesson000::base_model,
        lesson000::adapter,
        lesson000::lora,
        lesson000::prompt_tuning,
        lesson000::prefix_tuning,
        lesson000::comparison,
    ];
    let mut lines = Vec::new();
    for section in sections {
        lines.extend(run(section)?.lines().to_vec());
    }
    let golden = golden()?;
    let printed = golden["printed"].as_array().context("printed")?;
    for (found, expected) in lines.iter().zip(printed) {
        ensure!(found == expected, "printed\n{found}\nthe lesson has\n{expected}");
    }
    ensure!(lines.len() == printed.len(), "{} lines, the lesson has {}", lines.len(), printed.len());
    Ok(())
}

#[test]
fn data_and_base_start_as_in_python() -> Result<()> {
    let _alone = alone();
    let golden = golden()?;
    tch::manual_seed(0);
    let x = Tensor::randint(100, [200, 10], (Kind::Int64, Device::Cpu));
    let y = Tensor::randint(4, [200], (Kind::Int64, Device::Cpu));
    ensure!(sha(&x)? == golden["data"]["X_sha256_128"] && sha(&y)? == golden["data"]["y_sha256_128"]);
    let init = golden["sections"]["pretrain"]["init_sha256_128"].as_object().context("init")?;
    let params = TinyConfig::default().init(Device::Cpu)?.tensors();
    ensure!(
        params.keys().collect::<Vec<_>>() == {
            let mut names: Vec<_> = init.keys().collect();
            names.sort();
            names
        }
    );
    for (name, t) in &params {
        ensure!(sha(t)? == init[name], "{name}");
    }
    Ok(())
}

#[test]
fn techniques_start_as_in_python() -> Result<()> {
    let _alone = alone();
    let golden = golden()?;
    let lesson = Lesson::new(Setting::default())?;
    for t in TECHNIQUES.iter().filter(|t| t.key != "full") {
        let init = &golden["sections"][t.key]["init_sha256_128"];
        for (name, tensor) in lesson.peft.params(t.key)?.tensors() {
            let name = golden_name(t.key, &name);
            ensure!(init[&name] == sha(&tensor)?, "{} {name}", t.key);
        }
        let report = lesson.peft.report(&[t.key])?;
        let section = &golden["sections"][t.key];
        ensure!(section["trainable"] == report.trainable && section["total"] == report.all, "{report}");
    }
    Ok(())
}

/// Compares one training with the golden: losses, trained tensors, rows that are right.
fn trained(lesson: &Lesson, section: &str, active: &[&str], losses: &[f64]) -> Result<()> {
    let golden = &golden()?["sections"][section];
    let recorded = &golden["by_condition"]["avx512_threads1"];
    let expected = recorded["loss"].as_array().context("loss")?;
    ensure!(losses.len() == expected.len(), "{section}: {} steps, {} recorded", losses.len(), expected.len());
    for (step, (found, expected)) in losses.iter().zip(expected).enumerate() {
        let expected = expected.as_f64().context("loss")?;
        let error = (found - expected).abs() / expected;
        ensure!(error <= PORTABLE, "{section}, step {step}: loss {found}, recorded {expected}");
    }
    let (test, train) = (lesson.correct(active, &lesson.test)?.0, lesson.correct(active, &lesson.train)?.0);
    let accuracy = &golden["accuracy"];
    ensure!(
        accuracy["test_correct_of_40"] == test && accuracy["train_correct_of_160"] == train,
        "{test} {train}"
    );
    if !recorded_kind() {
        eprintln!("{section}: not the recorded kind of processor, losses compared to {PORTABLE:e}");
        return Ok(());
    }
    for (step, (found, bits)) in
        losses.iter().zip(recorded["loss_f32_hex"].as_array().context("hex")?).enumerate()
    {
        let found = format!("{:08x}", (*found as f32).to_bits());
        ensure!(*bits == found, "{section}, step {step}: loss bits {found}, recorded {bits}");
    }
    let params = match active {
        [] => lesson.peft.base().tensors(),
        _ => lesson.peft.params(section)?.tensors(),
    };
    for (name, t) in params {
        let name = golden_name(section, &name);
        ensure!(recorded["final_sha256_128"][&name] == sha(&t)?, "{section}: trained {name}");
    }
    Ok(())
}

#[test]
fn training_has_the_recorded_losses_and_weights() -> Result<()> {
    let _alone = alone();
    let lesson = Lesson::new(Setting::default())?;
    trained(&lesson, "pretrain", &[], &lesson.losses)?;
    let base: Vec<String> = lesson.peft.base().tensors().values().map(sha).collect::<Result<_>>()?;
    for t in &TECHNIQUES {
        trained(&lesson, t.key, &[t.key], &lesson.fit(t)?)?;
    }
    let after: Vec<String> = lesson.peft.base().tensors().values().map(sha).collect::<Result<_>>()?;
    ensure!(base == after, "training changed the frozen base");
    if recorded_kind() {
        let probe = Vec::<f32>::try_from(Tensor::randn([4], (Kind::Float, Device::Cpu)))?;
        let probe: Vec<String> = probe.iter().map(|v| format!("{:08x}", v.to_bits())).collect();
        let recorded = &golden()?["rng_probe_after_everything_randn4_f32_hex"]["avx512_threads1"];
        ensure!(*recorded == probe.join(" "), "the generator is elsewhere after the lesson");
    }
    Ok(())
}

#[test]
fn json_has_the_lines_and_the_numbers() -> Result<()> {
    let _alone = alone();
    let mut out = Vec::new();
    let mut page = Page::new(&mut out, true);
    lesson000::lora(Setting::default(), &mut page)?;
    page.finish()?;
    let json: Value = serde_json::from_slice(&out)?;
    ensure!(json["lora.losses"].as_array().context("losses")?.len() == 80);
    ensure!(json["lora.trainable"] == 1280 && json["lines"][0] == golden()?["printed"][5]);
    Ok(())
}
