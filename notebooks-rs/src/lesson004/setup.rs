//! 0 Basic Setup: the device, and why one would want to train less than everything.

use crate::{Mistake, Page, Setting};
use anyhow::{Result, anyhow};
use peft_core::estimate::{Blueprint, Estimate, Memory, Optimizer, Setup, Storage};
use peft_core::methods::LoraConfig;
use peft_core::report::commas;
use peft_plot::{Axis, BarGroup, Bars, Figure, Panel};
use tch::{Device, Kind};

/// The lesson's first cell, without the packages that it names no version of.
const BOUNDS: [&str; 5] = [
    "pip install -q transformers>=4.35.0",
    "pip install -q accelerate>=0.24.0",
    "pip install -q datasets>=2.14.0",
    "pip install -q peft>=0.7.0",
    "pip install -q bitsandbytes>=0.41.0",
];

/// What a shell makes of a command with an unquoted `>`: the command that runs, and the file that gets its output.
pub fn redirected(command: &str) -> (String, Option<String>) {
    match command.split_once('>') {
        Some((run, file)) => (run.trim().to_owned(), file.split_whitespace().next().map(str::to_owned)),
        None => (command.to_owned(), None),
    }
}

/// 0 Basic Setup.
pub fn setup(setting: Setting, page: &mut Page) -> Result<()> {
    device(setting.device, page)?;
    libtorch(page)?;
    pip(page)?;
    why(page)
}

/// The lesson's cell: which device, and what it is called.
fn device(device: Device, page: &mut Page) -> Result<()> {
    match device {
        Device::Cuda(index) => {
            let about = peft_sys::cuda_device(index).map_err(|e| anyhow!("device {index}: {e:?}"))?;
            let number = if index == 0 { String::new() } else { format!(":{index}") };
            page.line(format!("🔧 Using device: cuda{number}"))?;
            page.line(format!("   GPU: {}", about.name))?;
            page.line(format!("   Memory: {:.1} GB", about.memory as f64 / 1e9))?;
        }
        _ => page.line("🔧 Using device: cpu")?,
    }
    page.fact("cuda", matches!(device, Device::Cuda(_)));
    Ok(())
}

/// What this libtorch can do. It differs from machine to machine, so no other number here depends on it.
fn libtorch(page: &mut Page) -> Result<()> {
    let threads = tch::get_num_threads();
    let yes = |there: bool| if there { "yes" } else { "no" }.to_owned();
    let cuda = yes(tch::Cuda::is_available());
    let rows = [
        ("threads within an operation", threads.to_string()),
        ("processors", std::thread::available_parallelism()?.to_string()),
        ("OpenMP", yes(tch::utils::has_openmp())),
        ("MKL, matrix products", yes(tch::utils::has_mkl())),
        ("oneDNN, activations", yes(tch::utils::has_mkldnn())),
        ("CUDA, loaded and with a device", cuda),
    ];
    page.fact("threads", threads);
    let rows = rows.map(|(what, is)| vec![what.to_owned(), is]).to_vec();
    page.table("libtorch here", ["", "is"], rows)?;
    Ok(())
}

/// The bounds that get lost.
fn pip(page: &mut Page) -> Result<()> {
    let said: Vec<(String, Option<String>)> = BOUNDS.iter().map(|c| redirected(c)).collect();
    let files: Vec<String> = said.iter().filter_map(|(_, file)| file.clone()).collect();
    page.fact("redirected", files.clone());
    page.mistakes(&[Mistake::new(
        "an unquoted `>` in a shell",
        format!(
            "`!{}` runs `{}`, any version, and writes its output to a file named `{}`; {} such lines, {} such files",
            BOUNDS[0],
            said[0].0,
            files[0],
            BOUNDS.len(),
            files.len()
        ),
        "`!pip install -q \"transformers>=4.35.0\"`".to_owned(),
    )])?;
    Ok(())
}

/// LLaMA-7B, whose sizes Llama-2-7B has as well.
fn seven_billion() -> Result<Blueprint> {
    let config = serde_json::json!({
        "model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
        "num_hidden_layers": 32, "num_attention_heads": 32
    });
    Ok(Blueprint::read(&config, "a model of 7B")?)
}

/// What training a model of 7 billion parameters holds in memory, by method.
fn why(page: &mut Page) -> Result<()> {
    let model = seven_billion()?;
    let n = model.parameters();
    let linear = |r: i64| LoraConfig::new(r).targets("all-linear");
    let bf16 = Setup::default();
    let qlora = Setup { base: Storage::qlora(), ..Setup::default() };
    let tuned: [(&str, Estimate); 4] = [
        ("LoRA, r = 8, q and v", model.estimate(LoraConfig::new(8), &bf16)?),
        ("LoRA, r = 16, all linear", model.estimate(linear(16), &bf16)?),
        ("LoRA, r = 64, all linear", model.estimate(linear(64), &bf16)?),
        ("QLoRA, r = 64, all linear", model.estimate(linear(64), &qlora)?),
    ];
    let mut all = vec![
        ("full, f32", n, Memory::in_place(n, Kind::Float, Optimizer::Adam)?),
        ("full, bf16", n, Memory::in_place(n, Kind::BFloat16, Optimizer::Adam)?),
    ];
    all.extend(tuned.iter().map(|(name, e)| (*name, e.report.trainable, e.memory)));

    let gb = |bytes: i64| bytes as f64 / 1e9;
    let row = |(name, trained, m): &(&str, i64, Memory)| {
        let mut row =
            vec![(*name).to_owned(), commas(*trained), format!("{:.2}%", 100.0 * *trained as f64 / n as f64)];
        row.extend(
            [m.base, m.adapter + m.gradients + m.optimizer, m.total()].map(|b| format!("{:.1}", gb(b))),
        );
        row
    };
    let columns = ["", "trained", "of the model", "model, GB", "for training, GB", "together, GB"];
    let title = format!("Training a model of {} parameters with Adam, activations not counted", commas(n));
    page.table(&title, columns, all.iter().map(row).collect())?;
    page.fact("parameters", n);
    page.fact("trained", all.iter().map(|a| a.1).collect::<Vec<_>>());
    page.fact("bytes", all.iter().map(|a| a.2.total()).collect::<Vec<_>>());
    page.figure("depth_setup_memory", picture(&all))?;
    let share = |i: usize| 100.0 * all[i].1 as f64 / n as f64;
    page.what_to_see(&[
        format!(
            "All {} parameters: {:.0} GB in f32, of which {:.0} GB are gradients and Adam's two moments. A LoRA of rank 8 \
             over a bf16 model: {:.1} GB, of which {:.2} GB are for training.",
            commas(n),
            gb(all[0].2.total()),
            gb(all[0].2.overhead()),
            gb(all[2].2.total()),
            gb(all[2].2.overhead())
        ),
        format!(
            "\"Often less than 1 %\" holds for r = 8 at q and v ({:.2}%) and r = 16 everywhere ({:.2}%), not for r = 64 \
             everywhere ({:.2}%).",
            share(2),
            share(3),
            share(4)
        ),
        "What is left is the model itself: that is what a base in 4 bits is for.".into(),
    ])?;
    Ok(())
}

fn picture(all: &[(&str, i64, Memory)]) -> Figure {
    let group = |name: &str, f: &dyn Fn(&Memory) -> i64| BarGroup {
        name: name.into(),
        values: all.iter().map(|(_, _, m)| f(m) as f64 / 1e9).collect(),
        labels: Some(all.iter().map(|(_, _, m)| format!("{:.1}", f(m) as f64 / 1e9)).collect()),
        ..BarGroup::default()
    };
    let bars = Bars {
        categories: all.iter().map(|(name, _, _)| name.replacen(", ", "\n", 1)).collect(),
        y: Axis { label: "memory (GB)".into(), ..Axis::default() },
        groups: vec![
            group("model", &|m| m.base),
            group("for training: adapter, gradients, optimizer", &|m| m.adapter + m.gradients + m.optimizer),
        ],
        ..Bars::default()
    };
    Figure {
        title: "Training a model of 7 billion parameters".into(),
        rows: vec![vec![Panel::Bars(bars)]],
        note: Some("Activations are not counted.".into()),
    }
}
