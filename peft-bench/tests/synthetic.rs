//! The synthetic task against its recording in Python (`golden/synth.json`): data to the bit, the first losses of
//! pre-training. After some 250 steps runs on different processors part ways, so nothing later is compared.

use anyhow::{Context, Result, ensure};
use peft_bench::cases::Case;
use peft_bench::record::Message;
use peft_bench::sweep::{On, Place, SCRATCH, Sweep};
use peft_bench::synthetic::{Rows, draw, pretrain};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::sync::{Mutex, PoisonError};
use tch::{Device, Tensor};

/// libtorch has one generator for the whole process.
static ALONE: Mutex<()> = Mutex::new(());

fn golden() -> Result<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/synth.json");
    Ok(serde_json::from_str(&std::fs::read_to_string(path)?)?)
}

fn bytes(t: &Tensor) -> Result<Vec<u8>> {
    let t = t.contiguous();
    let mut bytes = vec![0u8; t.numel() * t.kind().elt_size_in_bytes()];
    t.f_copy_data_u8(&mut bytes, t.numel())?;
    Ok(bytes)
}

fn sha(rows: &Rows) -> Result<String> {
    let digest = Sha256::new().chain_update(bytes(&rows.x)?).chain_update(bytes(&rows.y)?).finalize();
    let hex: String = digest.iter().map(|b| format!("{b:02x}")).collect();
    Ok(hex[..32].to_owned())
}

#[test]
fn data_of_every_recorded_seed() -> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let golden = golden()?;
    let seeds = golden["data_sha256_128"].as_object().context("seeds")?;
    ensure!(!seeds.is_empty());
    for (seed, recorded) in seeds {
        let data = draw(seed.parse()?)?;
        for (name, rows) in [
            ("A", &data.pretrain),
            ("A_test", &data.pretrain_test),
            ("B", &data.train),
            ("B_test", &data.test),
        ] {
            ensure!(recorded[format!("data.{name}")] == sha(rows)?, "seed {seed}: {name}");
        }
    }
    Ok(())
}

#[test]
fn the_first_losses_of_pretraining() -> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    tch::set_num_threads(1);
    let golden = golden()?;
    let recorded = golden["first_200_pretrain_losses_seed0_f32_hex"].as_array().context("losses")?;
    let mut losses = Vec::new();
    pretrain(0, Device::Cpu, recorded.len() as u64, |_, loss| {
        losses.push(loss);
        Ok(())
    })?;
    for (step, (found, bits)) in losses.iter().zip(recorded).enumerate() {
        let expected = f64::from(f32::from_bits(u32::from_str_radix(bits.as_str().context("hex")?, 16)?));
        // Measured over threads and instruction sets: 1e-6 for the first 200 steps.
        ensure!(
            (found - expected).abs() <= 2e-6 * expected.abs().max(1.0),
            "step {step}: {found}, recorded {expected}"
        );
    }
    Ok(())
}

#[test]
fn a_small_sweep_in_this_process() -> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let cases = vec![Case::find("full")?, Case::find("lora")?];
    let small = Sweep {
        on: On::Synthetic { pretrain_steps: 3, scratch: true },
        steps: Some(4),
        ..Sweep::synthetic(cases, vec![5, 1])
    };
    let (mut steps, mut titles) = (0, Vec::new());
    let results = small.run(Place::Here, |planned, message| {
        match message {
            Message::Progress(done, of) if done == of => steps += of,
            Message::Ended(_) => titles.push(planned.title()),
            Message::Failed(why) => anyhow::bail!("{why}"),
            _ => {}
        }
        Ok(())
    })?;
    ensure!(small.steps() == Some(steps) && steps == 2 * (3 + 3 * 4), "{steps} steps");
    ensure!(
        titles.len() == 8 && titles[..3] == ["seed 5: base", "seed 5: full", "seed 5: lora"],
        "{titles:?}"
    );
    let runs: Vec<_> = results.runs.iter().map(|r| (r.seed, r.method)).collect();
    ensure!(runs[1..5] == [(5, "lora"), (5, SCRATCH), (1, "full"), (1, "lora")], "{runs:?}");
    let [full, lora, scratch] = &results.summaries()[..] else { anyhow::bail!("methods") };
    ensure!(full.trainable == 28_740 && lora.trainable == 1_280 && scratch.trainable == 28_740);
    ensure!(full.losses.len() == 4 && scratch.losses[0].1 != full.losses[0].1);
    ensure!(results.bases.len() == 2 && results.bases[&5].parameters == 28_740);

    // A seed has its numbers whatever runs before it.
    let again = Sweep { seeds: vec![1], ..small.clone() }.run(Place::Here, |_, _| Ok(()))?;
    ensure!(again.bases[&1] == results.bases[&1]);
    ensure!(again.good("lora")[0].losses == results.good("lora")[1].losses);

    // Who listens can end it.
    let ended = small.run(Place::Here, |planned, _| {
        ensure!(planned.method.is_none(), "enough");
        Ok(())
    });
    ensure!(ended.err().context("an error")?.to_string() == "enough");

    // Nothing can start from a base that fails; the rest goes on.
    let wrong = Sweep { device: "gpu".into(), ..small }.run(Place::Here, |_, _| Ok(()))?;
    ensure!(
        wrong.runs.len() == 6 && wrong.runs.iter().all(|r| r.result.is_err()) && wrong.summaries().is_empty()
    );
    Ok(())
}
