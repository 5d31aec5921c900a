//! The model families against transformers and PEFT, and what their `config.json` may say.

use anyhow::{Context, Result, ensure};
use tests::{golden, parity};

/// f32, relative to the largest value of the tensor.
const TOL: f64 = 1e-5;

/// Base and LoRA: logits, merged logits, loss, gradients, files, counts.
#[test]
fn lora_is_pefts() -> Result<()> {
    for family in ["llama", "mistral", "qwen2", "bert", "roberta"] {
        let outcomes = parity::compare(&golden(family), &|method| method == "lora")?;
        ensure!(outcomes.len() == 1, "{family}: {} goldens", outcomes.len());
        for (_, outcome) in outcomes {
            let errors = outcome.with_context(|| family.to_owned())?;
            ensure!(errors.most() <= TOL, "{family}: {errors:?}");
        }
    }
    Ok(())
}
