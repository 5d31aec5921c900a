//! The table of cases of `recommend`.

use anyhow::{Result, ensure};
use peft_core::TaskType::{CausalLm, QuestionAns, Seq2SeqLm, SeqCls};
use peft_core::estimate::{Blueprint, Choice, Need, Storage, recommend};
use peft_core::seam::MethodConfig;
use tests::refused;
use tests::subject::Subject;
use tests::subject::{Bert, Tiny};

const GB: i64 = 1_000_000_000;

#[test]
fn the_table_of_cases() -> Result<()> {
    let (full, few) = ("full fine-tuning", "(IA)³");
    let small = "LoRA, r = 8, at PEFT's default targets";
    let wide = "LoRA, r = 16, at all linear layers";
    let (dense, packed) = (16, 4);
    // Billions, GB, task, examples; method, bits of the base, whether it fits.
    let cases = [
        // Examples and task.
        (7, 80, CausalLm, 99, few, dense, true),
        (7, 80, CausalLm, 100, small, dense, true),
        (7, 80, CausalLm, 999, small, dense, true),
        (7, 80, CausalLm, 1_000, wide, dense, true),
        (7, 80, QuestionAns, 1_000, small, dense, true),
        (7, 80, SeqCls, 5_000, small, dense, true),
        (7, 80, CausalLm, 99_999, wide, dense, true),
        // Full fine-tuning where there is room for it: 7 billion would take 20 bytes each.
        (7, 80, CausalLm, 100_000, wide, dense, true),
        (7, 180, CausalLm, 100_000, full, 32, true),
        (1, 20, SeqCls, 100_000, small, dense, true),
        (1, 40, SeqCls, 100_000, full, 32, true),
        // Memory: 13.5 GB of weights and a LoRA of 67 MB in four fifths of the device.
        (7, 17, SeqCls, 5_000, small, dense, true),
        (7, 16, SeqCls, 5_000, small, packed, true),
        (7, 14, SeqCls, 5_000, small, packed, true),
        (7, 5, SeqCls, 5_000, small, packed, true),
        (7, 4, SeqCls, 5_000, small, packed, false),
        (70, 80, CausalLm, 100, small, packed, true),
        (70, 40, CausalLm, 100, small, packed, false),
        (70, 48, CausalLm, 5_000, small, packed, true),
        (70, 52, CausalLm, 5_000, wide, packed, true),
        (70, 40, CausalLm, 5_000, small, packed, false),
        (70, 40, CausalLm, 50, few, packed, false),
        (70, 180, CausalLm, 100, small, dense, true),
    ];
    for case in cases {
        let (billions, gb, task, examples, method, bits, fits) = case;
        let model = Blueprint::about(billions * GB)?;
        let found = recommend(&model, &Need::new(gb * GB, task, examples))?;
        let stored = match found.setup.base {
            Storage::Nf4 { .. } => 4,
            Storage::Dense(kind) => 8 * kind.elt_size_in_bytes(),
        };
        ensure!(
            (found.choice.name().as_str(), stored, found.fits) == (method, bits, fits),
            "{case:?}: {found}"
        );
        let total = found.estimate.memory.total();
        ensure!(found.free == gb * GB - total && fits == (5 * total <= 4 * gb * GB), "{case:?}: {found}");
        ensure!(found.why.len() >= 2 && found.why.iter().all(|why| !why.is_empty()), "{case:?}: {found}");
    }
    Ok(())
}

/// Weights of 14 GB on a device of 14 GB leave nothing for anything else.
#[test]
fn reasons_have_the_numbers() -> Result<()> {
    let model = Blueprint::about(7 * GB)?;
    let found = recommend(&model, &Need::new(14 * GB, SeqCls, 5_000))?;
    let text = found.to_string();
    for part in [
        "over a base in 16 bits it holds 13.54 GB, beyond 11.20 GB of 14.00 GB",
        "LoRA, r = 8, at PEFT's default targets, over a base in 4 bits (NF4, double quantisation)",
        "5,000 examples",
        "trainable params: 4,194,304",
    ] {
        ensure!(text.contains(part), "{part}:\n{text}");
    }
    let none = recommend(&model, &Need { reserve: 0.0, ..Need::new(14 * GB, SeqCls, 5_000) })?;
    ensure!(none.setup.base == Storage::Dense(tch::Kind::BFloat16) && none.free < GB / 2, "{none}");
    Ok(())
}

/// What is advised can be added as it is, and trains what was said.
#[test]
fn advice_can_be_followed() -> Result<()> {
    let _serial = tests::serial();
    let base = Bert::base()?;
    for (examples, device) in [(50, GB), (500, GB), (200_000, GB)] {
        let model = Blueprint::like(&base)?;
        let found = recommend(&model, &Need::new(device, SeqCls, examples))?;
        let mut peft = Bert::base()?;
        let expected = found.estimate.report.clone();
        peft.add("advised", Box::<dyn MethodConfig>::from(found.choice.clone()))?;
        ensure!(peft.report(&["advised"])? == expected && found.fits, "{found}");
        ensure!(matches!(
            (examples, &found.choice),
            (200_000, Choice::Full(_)) | (50, Choice::Ia3(_)) | (500, Choice::Lora(_))
        ));
    }
    Ok(())
}

#[test]
fn needs_that_are_none_are_refused() -> Result<()> {
    let _serial = tests::serial();
    let model = Blueprint::about(7 * GB)?;
    let need = Need::new(24 * GB, CausalLm, 1_000);
    for bytes in [0, -GB] {
        refused(
            "device",
            recommend(&model, &Need { device_bytes: bytes, ..need }),
            &["device_bytes", "positive"],
        )?;
    }
    refused("examples", recommend(&model, &Need { examples: 0, ..need }), &["examples", "positive"])?;
    for reserve in [-0.1, 1.0, f64::NAN, f64::INFINITY] {
        refused("reserve", recommend(&model, &Need { reserve, ..need }), &["reserve", "[0, 1)"])?;
    }
    // PEFT knows no targets for the lessons' model.
    let tiny = Blueprint::like(&Tiny::base()?)?;
    refused(
        "tiny",
        recommend(&tiny, &Need { examples: 500, task: SeqCls, ..need }),
        &["target_modules", "tiny"],
    )?;
    Ok(())
}

/// A classifier writes no text, whatever it would hold.
#[test]
fn tasks_that_a_model_has_not() -> Result<()> {
    let _serial = tests::serial();
    let bert = Blueprint::like(&Bert::base()?)?;
    for task in [CausalLm, Seq2SeqLm] {
        for examples in [50, 500, 5_000, 200_000] {
            let advice = recommend(&bert, &Need::new(GB, task, examples));
            refused("generation", advice, &["task", "bert", "no causal model", "classification"])?;
        }
    }
    Ok(())
}
