//! Will it fit? What the methods train in a model and what that holds, and which one to take: from the model's
//! configuration alone.

mod common;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use peft_core::TaskType;
use peft_core::estimate::{Blueprint, Estimate, Need, Setup, Storage, human_bytes, recommend};
use peft_core::methods::{
    BottleneckConfig, Common, FullConfig, Ia3Config, LoraConfig, PrefixTuningConfig, PromptTuningConfig,
};
use peft_core::report::commas;
use peft_core::seam::MethodConfig;
use serde_json::json;
use std::io::{Write, stdout};
use std::path::Path;
use std::process::ExitCode;

/// Says what fine-tuning a model takes, before it is downloaded
#[derive(Debug, Parser)]
#[command(allow_negative_numbers = true)]
struct Options {
    /// Directory with a config.json, or a size: 7B, 350M
    model: String,
    /// Memory of the device in GB (10⁹ bytes)
    #[arg(long, default_value_t = 24.0, value_parser = common::positive::<f64>)]
    gpu: f64,
    /// Share of it that is kept for activations and buffers
    #[arg(long, default_value_t = 0.2)]
    reserve: f64,
    /// What for [default: generation with a causal model or a size, else classification]
    #[arg(long)]
    task: Option<Task>,
    /// Training examples
    #[arg(long, default_value_t = 10_000)]
    examples: i64,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Task {
    Generation,
    Classification,
    Answering,
}

impl From<Task> for TaskType {
    fn from(task: Task) -> Self {
        match task {
            Task::Generation => TaskType::CausalLm,
            Task::Classification => TaskType::SeqCls,
            Task::Answering => TaskType::QuestionAns,
        }
    }
}

/// The model of a directory, or of a size.
fn blueprint(model: &str) -> Result<Blueprint> {
    let upper = model.to_ascii_uppercase();
    let unit =
        [("M", 1e6), ("B", 1e9)].into_iter().find_map(|(unit, size)| Some((upper.strip_suffix(unit)?, size)));
    match unit.and_then(|(number, size)| Some(number.parse::<f64>().ok()? * size)) {
        Some(size) if !Path::new(model).is_dir() => Ok(Blueprint::about(size as i64)?),
        _ => Blueprint::open(model).context("a model is a directory with a config.json, or a size: 7B, 350M"),
    }
}

/// The methods to compare.
fn methods(common: &Common) -> Vec<(&'static str, Box<dyn MethodConfig>)> {
    let common = || common.clone();
    let lora = LoraConfig { common: common(), ..LoraConfig::default() };
    let bottleneck = BottleneckConfig { bottleneck_size: 64, common: common(), ..Default::default() };
    vec![
        ("prompt tuning, 20 tokens", PromptTuningConfig { common: common(), ..Default::default() }.into()),
        ("(IA)³", Ia3Config { common: common(), ..Default::default() }.into()),
        ("LoRA, r = 8", lora.clone().into()),
        ("DoRA, r = 8", LoraConfig { use_dora: true, ..lora.clone() }.into()),
        ("prefix tuning, 20 tokens", PrefixTuningConfig { common: common(), ..Default::default() }.into()),
        ("bottleneck adapters, 64 wide", bottleneck.into()),
        ("LoRA, r = 16, all linear layers", LoraConfig { r: 16, ..lora.targets("all-linear") }.into()),
        ("full fine-tuning, of a copy", FullConfig { common: common() }.into()),
    ]
}

fn main() -> ExitCode {
    peft_core::program::exit(run(&Options::parse()).map(|()| true))
}

fn run(options: &Options) -> Result<()> {
    let model = blueprint(&options.model).with_context(|| format!("model `{}`", options.model))?;
    let usual = if model.outline().dims.causal() { Task::Generation } else { Task::Classification };
    let task: TaskType = options.task.unwrap_or(usual).into();
    let need = Need {
        device_bytes: (options.gpu * 1e9) as i64,
        reserve: options.reserve,
        task,
        examples: options.examples,
    };
    let advice = recommend(&model, &need)?;
    let common = Common { task_type: Some(task), ..Common::default() };
    let packed = model.weights(&Storage::qlora())?;
    let estimates = methods(&common)
        .into_iter()
        .map(|(name, method)| Ok((name, model.estimate(method, &Setup::default())?)))
        .collect::<Result<Vec<(&str, Estimate)>>>()?;
    if options.json {
        let methods = estimates.iter().map(|(name, Estimate { report, memory })| {
            json!({
                "method": name, "trainable": report.trainable, "all": report.all, "overhead_bytes": memory.overhead(),
                "bytes_over_16_bits": memory.total(), "bytes_over_4_bits": packed + memory.overhead(),
            })
        });
        let methods: Vec<_> = methods.collect();
        let advice = json!({
            "method": advice.choice.name(), "base": advice.setup.base.to_string(), "fits": advice.fits,
            "bytes": advice.estimate.memory.total(), "free_bytes": advice.free, "why": advice.why,
        });
        writeln!(
            stdout(),
            "{}",
            json!({ "model": model.to_string(), "methods": methods, "advice": advice })
        )?;
        return Ok(());
    }

    writeln!(stdout(), "{model}")?;
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(["method", "trained", "%", "beside the base", "over 16 bits", "over 4 bits"]);
    for (name, Estimate { report, memory }) in estimates {
        let bytes = [memory.overhead(), memory.total(), packed + memory.overhead()].map(human_bytes);
        let [beside, dense, packed] = bytes;
        let percent = format!("{:.4}", report.percent());
        table.add_row([name.to_owned(), commas(report.trainable), percent, beside, dense, packed]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    writeln!(stdout(), "{table}\nActivations are not counted.\n")?;

    write!(stdout(), "{}: {advice}", if advice.fits { "It fits" } else { "It does not fit" })?;
    Ok(())
}
