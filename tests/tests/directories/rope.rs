//! What a rope dictionary may say.

use crate::{open, warned};
use anyhow::{Result, ensure};
use peft_core::hub;
use peft_core::hub::Head;
use peft_core::io;
use peft_core::models::RopeType;
use peft_core::models::{llama, mistral, qwen2};
use serde_json::{Value, json};
use tests::{edited, refused};

fn rope_of(family: &str, changes: &Value) -> Result<RopeType> {
    let dir = edited(family, changes)?;
    let config = match family {
        "mistral" => mistral::config,
        "qwen2" => qwen2::config,
        _ => llama::config,
    };
    Ok(config(&io::read_json(dir.path().join("config.json"))?, "config.json")?.rope.kind)
}

#[test]
fn the_fields_of_yarn_and_dynamic() -> Result<()> {
    let kind = |rope: Value| -> Result<RopeType> { rope_of("llama", &json!({ "rope_parameters": rope })) };
    let default = RopeType::Yarn {
        factor: 4.0,
        original: 64.0,
        fast: 32.0,
        slow: 1.0,
        truncate: true,
        attention_factor: 0.1 * 4f64.ln() + 1.0,
    };
    ensure!(kind(json!({ "rope_type": "yarn", "factor": 4.0 }))? == default, "the model's own positions");
    let nulls = json!({ "type": "yarn", "factor": 4, "beta_fast": null, "beta_slow": 0, "mscale": 1.0, "truncate": null });
    ensure!(kind(nulls)? == default, "one mscale alone, nulls and 0 are the default");
    let ratio = json!({ "rope_type": "yarn", "factor": null, "original_max_position_embeddings": 16 });
    let RopeType::Yarn { factor, original, .. } = kind(ratio)? else { anyhow::bail!("not yarn") };
    ensure!((factor, original) == (4.0, 16.0), "{factor} {original}");
    let less = kind(json!({ "rope_type": "yarn", "factor": 0.5, "attention_factor": null }))?;
    ensure!(matches!(less, RopeType::Yarn { attention_factor: 1.0, .. }), "{less:?}");
    let dynamic = kind(json!({ "rope_type": "dynamic", "factor": 2 }))?;
    ensure!(dynamic == RopeType::Dynamic { factor: 2.0, original: 64.0 }, "{dynamic:?}");

    // Without max_position_embeddings, each family has its own.
    for (family, original) in [("llama", 2048.0), ("mistral", 131_072.0), ("qwen2", 32_768.0)] {
        let rope = json!({ "rope_type": "dynamic", "factor": 2.0 });
        let found = rope_of(family, &json!({ "max_position_embeddings": null, "rope_parameters": rope }))?;
        ensure!(found == RopeType::Dynamic { factor: 2.0, original }, "{found:?}");
    }

    // What a type has nothing for is named; what none has is refused.
    let rope = json!({
        "rope_type": "linear", "factor": 2.0, "beta_fast": 32.0, "finetuned": true, "partial_rotary_factor": 1
    });
    let opened = open(edited("llama", &json!({ "rope_parameters": rope }))?.path())?;
    warned(&opened.warnings, &[&["rope_parameters", "beta_fast", "`linear`"], &["finetuned"]])?;
    let wrong = |changes: Value, parts: &[&str]| -> Result<()> {
        let opened = hub::architecture(edited("llama", &changes)?.path(), Head::Stored);
        refused(&changes.to_string(), opened, &[parts, &["config.json"]].concat())?;
        Ok(())
    };
    let rope = |rope: Value| json!({ "rope_parameters": rope });
    wrong(rope(json!({ "rope_type": "yarn" })), &["rope_parameters", "factor", "missing"])?;
    wrong(rope(json!({ "rope_type": "dynamic" })), &["factor", "missing"])?;
    wrong(rope(json!({ "rope_type": "yarn", "factor": 2.0, "beta_fast": -1.0 })), &["beta_fast", "-1"])?;
    wrong(rope(json!({ "rope_type": "yarn", "factor": 2.0, "truncate": 1 })), &["truncate", "1"])?;
    wrong(rope(json!({ "rope_type": "yarn", "factor": 2.0, "rope_theta": 1.0 })), &["rope_theta", "1"])?;
    let small = json!({ "head_dim": 2, "rope_parameters": { "rope_type": "dynamic", "factor": 2.0 } });
    wrong(small, &["rope_type", "dynamic", "heads of 2"])
}
