//! What a plan says of a training's memory is what the training holds: all bytes of tensors, at their peak.

use anyhow::{Result, ensure};
use peft_core::device::{count_memory, peak_memory, reset_peak_memory};
use peft_core::estimate::{Blueprint, Optimizer, Setup, Shape, Storage};
use peft_core::methods::by_name;
use peft_core::quant::Nf4Config;
use peft_core::train::{AdamConfig, Schedule, Trainer, cross_entropy, next_token_loss};
use peft_core::{Batch, Pass};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};
use tests::serial;

fn llama() -> Value {
    json!({
        "model_type": "llama", "vocab_size": 8000, "hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 6,
        "num_attention_heads": 8, "num_key_value_heads": 4
    })
}

fn gpt2() -> Value {
    json!({ "model_type": "gpt2", "vocab_size": 12000, "n_embd": 320, "n_layer": 5, "n_head": 5, "n_positions": 512 })
}

fn bert() -> Value {
    json!({
        "model_type": "bert", "vocab_size": 20000, "hidden_size": 312, "intermediate_size": 1200, "num_hidden_layers": 4,
        "num_attention_heads": 12, "max_position_embeddings": 512, "type_vocab_size": 2
    })
}

/// Peak bytes of three training steps on rows of different length, the model included.
fn measured(blueprint: &Blueprint, setup: &Setup, method: &str, fields: &Value, shape: Shape) -> Result<i64> {
    let before = peft_sys::memory::live() as i64;
    let mut peft = blueprint.drawn(setup.base.dense())?;
    if let Storage::Nf4 { config, .. } = &setup.base {
        peft = peft.quantised(config)?;
    }
    peft.add("a", by_name(method, fields.as_object().cloned().unwrap_or_default())?)?;
    let model = peft.view(&["a"])?;
    let mut trainer = Trainer::new(&peft, &["a"], AdamConfig::default(), 1e-4, Schedule::Constant)?;
    reset_peak_memory(Device::Cpu)?;
    for _ in 0..3 {
        let vocab = peft.outline().dims.sizes()?.vocab;
        let rows = (0..shape.batch).map(|row| {
            let ids = Tensor::randint_low(
                5,
                vocab,
                [shape.length - row.min(shape.length - 2)],
                (Kind::Int64, Device::Cpu),
            );
            Vec::<i64>::try_from(ids)
        });
        let batch = Batch::padded(&rows.collect::<Result<Vec<_>, _>>()?, 0, Device::Cpu)?;
        let logits = model.forward(&batch, Pass::train())?;
        let loss = match peft.outline().dims.causal() {
            true => next_token_loss(&logits, &batch.next_token_labels()?)?,
            false => cross_entropy(&logits, &Tensor::zeros([shape.batch], (Kind::Int64, Device::Cpu)))?,
        };
        drop(logits);
        trainer.step(&loss)?;
    }
    Ok(peak_memory(Device::Cpu)? - before)
}

/// Wide enough that it is measured in small.
fn wide() -> Value {
    json!({
        "model_type": "qwen2", "vocab_size": 15001, "hidden_size": 1024, "intermediate_size": 2750, "num_hidden_layers": 4,
        "num_attention_heads": 8, "num_key_value_heads": 2, "eos_token_id": [15000, 14999], "tie_word_embeddings": true
    })
}

#[test]
fn plans_are_what_is_held() -> Result<()> {
    let _serial = serial();
    count_memory();
    let all = json!({ "target_modules": "all-linear", "lora_dropout": 0.1, "r": 16 });
    let none = json!({});
    let dense = |kind| Setup { base: Storage::Dense(kind), optimizer: Optimizer::Adam };
    let four = Setup {
        base: Storage::Nf4 {
            config: Nf4Config { double_quant: true, ..Nf4Config::default() },
            rest: Kind::Float,
        },
        optimizer: Optimizer::Adam,
    };
    let cases = [
        (llama(), "lora", &none, dense(Kind::Float), 4, 128),
        (llama(), "lora", &all, dense(Kind::Float), 2, 300),
        (llama(), "dora", &all, dense(Kind::Float), 8, 32),
        (llama(), "loha", &json!({ "target_modules": "all-linear" }), dense(Kind::Float), 3, 64),
        (llama(), "full", &none, dense(Kind::Float), 2, 64),
        (llama(), "prefix_tuning", &none, dense(Kind::Float), 4, 100),
        (llama(), "lora", &none, dense(Kind::BFloat16), 4, 64),
        (llama(), "lora", &none, four.clone(), 4, 64),
        (llama(), "partial", &json!({ "last_layers": 4 }), dense(Kind::Float), 4, 64),
        (wide(), "lora", &all, dense(Kind::Float), 3, 250),
        (wide(), "lora", &none, four.clone(), 4, 128),
        (wide(), "dora", &none, dense(Kind::BFloat16), 2, 200),
        (wide(), "full", &none, dense(Kind::Float), 1, 256),
        (wide(), "prefix_tuning", &none, dense(Kind::Float), 4, 100),
        (gpt2(), "lora", &none, dense(Kind::Float), 6, 96),
        (gpt2(), "ia3", &none, dense(Kind::Float), 1, 512),
        (gpt2(), "prompt_tuning", &json!({ "num_virtual_tokens": 20 }), dense(Kind::Float), 4, 40),
        (gpt2(), "oft", &none, dense(Kind::Float), 4, 64),
        (bert(), "lora", &json!({ "task_type": "SEQ_CLS" }), dense(Kind::Float), 16, 128),
        (bert(), "bottleneck", &none, dense(Kind::Float), 8, 200),
        (bert(), "bitfit", &none, dense(Kind::Float), 32, 48),
        (bert(), "adalora", &json!({ "total_step": 100 }), dense(Kind::Float), 8, 64),
    ];
    let mut wrong = Vec::new();
    for (config, method, fields, setup, batch, length) in cases {
        let blueprint = Blueprint::read(&config, "a model")?;
        let shape = Shape { batch, length };
        let make = || by_name(method, fields.as_object().cloned().unwrap_or_default());
        let clock = std::time::Instant::now();
        let plan = blueprint.plan(make, &setup, shape)?;
        let took = clock.elapsed();
        let real = measured(&blueprint, &setup, method, fields, shape)?;
        let off = plan.total() as f64 / real as f64 - 1.0;
        let line = format!(
            "{} {method} {fields} {batch} x {length}: {plan}, measured {:.1} MB, {:+.1} %, {:.1} s",
            config["model_type"],
            real as f64 / 1e6,
            100.0 * off,
            took.as_secs_f64()
        );
        println!("{line}");
        if off.abs() > 0.05 {
            wrong.push(line);
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
