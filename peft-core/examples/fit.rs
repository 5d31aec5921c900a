//! What methods train in a model, what a training holds in memory, and which one to take: from `config.json` alone. `peft plan`
//! and `peft recommend` are the programs for daily use.

use anyhow::Result;
use clap::Parser;
use peft_core::TaskType;
use peft_core::estimate::{Blueprint, Need, Setup, Shape, recommend};
use peft_core::methods::by_name;
use serde_json::Map;

/// Says what fine-tuning a model takes, before it is downloaded
#[derive(Debug, Parser)]
struct Args {
    /// Directory with a config.json [default: a decoder of that many parameters]
    #[arg(long)]
    model: Option<String>,
    /// Parameters of a model that is not there, in the proportions of LLaMA
    #[arg(long, default_value_t = 125_000_000)]
    parameters: i64,
    /// Memory of the device in GB (10⁹ bytes)
    #[arg(long, default_value_t = 24)]
    gpu: i64,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let model = match &args.model {
        Some(dir) => Blueprint::open(dir)?,
        None => Blueprint::about(args.parameters)?,
    };
    println!("{model}");
    for name in ["ia3", "lora", "dora", "prefix_tuning", "bottleneck", "full"] {
        let estimate = model.estimate(by_name(name, Map::new())?, &Setup::default())?;
        println!("{name}: {estimate}");
    }
    let shape = Shape { batch: 4, length: 64 };
    println!(
        "lora, 4 rows of 64 tokens: {}",
        model.plan(|| by_name("lora", Map::new()), &Setup::default(), shape)?
    );
    let causal = model.outline().dims.causal();
    let task = if causal { TaskType::CausalLm } else { TaskType::SeqCls };
    print!("{}", recommend(&model, &Need::new(args.gpu * 1_000_000_000, task, 5_000))?);
    Ok(())
}
