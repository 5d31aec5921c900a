//! LoRA over a base in 4 bits beside LoRA over the same base dense: memory, time of a step, opening.

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, ValueEnum};
use peft_bench::results::median;
use peft_core::device::{DeviceChoice, Threads, peak_memory, reset_peak_memory, synchronize};
use peft_core::hub;
use peft_core::hub::{Head, Options as Open};
use peft_core::io::{tensors, write_json};
use peft_core::methods::LoraConfig;
use peft_core::quant::Nf4Config;
use peft_core::train::{AdamConfig, Schedule, Trainer, next_token_loss};
use peft_core::{Batch, Pass, Peft};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use tch::{Device, Kind, Tensor};

/// LoRA (r = 16, all linear layers) over NF4 beside LoRA over dense weights
///
/// One Llama-shaped model with random weights is opened twice: dense, and quantised as it is read. Their training steps
/// alternate in one process. Times are medians; CPU time is that of all threads, and is the one to read on a machine
/// with other work. Memory is what tensors hold; a step's peak includes its own model alone.
#[derive(Debug, Parser)]
struct Options {
    /// Shapes to run
    #[arg(long, value_enum, value_delimiter = ',', default_value = "15m,110m")]
    size: Vec<Size>,
    /// dtype of the dense weights, and of the products over 4 bits
    #[arg(long, value_enum, default_value = "f32")]
    dtype: Dtype,
    /// Keep the scales in f32 (no double quantisation)
    #[arg(long)]
    single: bool,
    /// Sequences a step
    #[arg(long, default_value_t = 4)]
    batch: i64,
    /// Tokens a sequence
    #[arg(long, default_value_t = 256)]
    length: i64,
    /// Timed steps of each, after one that is not
    #[arg(long, default_value_t = 7)]
    steps: usize,
    #[arg(long, default_value_t = Threads::ONE, help = Threads::HELP)]
    threads: Threads,
    /// cpu, cuda, cuda:N or auto
    #[arg(long, default_value = "cpu")]
    device: DeviceChoice,
    /// Append one JSON line a shape to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Dtype {
    F32,
    Bf16,
}

impl Dtype {
    fn kind(self) -> Kind {
        match self {
            Dtype::F32 => Kind::Float,
            Dtype::Bf16 => Kind::BFloat16,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Size {
    #[value(name = "15m")]
    M15,
    #[value(name = "110m")]
    M110,
}

/// Sizes of a Llama.
#[derive(Debug, Clone, Copy)]
struct Shape {
    name: &'static str,
    hidden: i64,
    layers: i64,
    heads: i64,
    kv_heads: i64,
    ffn: i64,
    vocab: i64,
}

impl Size {
    fn shape(self) -> Shape {
        match self {
            Size::M15 => {
                Shape { name: "15M", hidden: 384, layers: 6, heads: 6, kv_heads: 2, ffn: 1024, vocab: 8192 }
            }
            Size::M110 => Shape {
                name: "110M",
                hidden: 768,
                layers: 12,
                heads: 12,
                kv_heads: 4,
                ffn: 2048,
                vocab: 32000,
            },
        }
    }
}

impl Shape {
    /// Writes a model with random weights.
    fn write(&self, dir: &Path, kind: Kind) -> Result<()> {
        let s = self;
        let (kv, mut all) = (s.hidden / s.heads * s.kv_heads, BTreeMap::new());
        let mut add = |name: String, dims: &[i64]| -> Result<()> {
            let t = if let &[_, inp] = dims {
                Tensor::f_randn(dims, (Kind::Float, Device::Cpu))?.f_mul_scalar(1.0 / (inp as f64).sqrt())?
            } else {
                Tensor::f_ones(dims, (Kind::Float, Device::Cpu))?
            };
            all.insert(name, t.f_to_kind(kind)?);
            Ok(())
        };
        add("model.embed_tokens.weight".into(), &[s.vocab, s.hidden])?;
        for i in 0..s.layers {
            for (leaf, out, inp) in [
                ("self_attn.q_proj", s.hidden, s.hidden),
                ("self_attn.k_proj", kv, s.hidden),
                ("self_attn.v_proj", kv, s.hidden),
                ("self_attn.o_proj", s.hidden, s.hidden),
                ("mlp.gate_proj", s.ffn, s.hidden),
                ("mlp.up_proj", s.ffn, s.hidden),
                ("mlp.down_proj", s.hidden, s.ffn),
            ] {
                add(format!("model.layers.{i}.{leaf}.weight"), &[out, inp])?;
            }
            for norm in ["input_layernorm", "post_attention_layernorm"] {
                add(format!("model.layers.{i}.{norm}.weight"), &[s.hidden])?;
            }
        }
        add("model.norm.weight".into(), &[s.hidden])?;
        add("lm_head.weight".into(), &[s.vocab, s.hidden])?;
        tensors::write(dir.join("model.safetensors"), &all)?;
        let config = json!({
            "model_type": "llama", "vocab_size": s.vocab, "hidden_size": s.hidden, "intermediate_size": s.ffn,
            "num_hidden_layers": s.layers, "num_attention_heads": s.heads, "num_key_value_heads": s.kv_heads,
            "tie_word_embeddings": false
        });
        Ok(write_json(dir.join("config.json"), &config)?)
    }
}

/// A model with its adapter, and what it cost so far.
struct Side {
    peft: Peft,
    trainer: Trainer,
    /// Bytes of the base, and the most that opening it held.
    base: i64,
    opening: i64,
    /// Most bytes that a step held beyond the base.
    beyond: i64,
    wall: Vec<f64>,
    cpu: Vec<f64>,
    loss: f64,
}

const ADAPTER: &str = "lora";

impl Side {
    fn open(dir: &Path, device: Device, quantise: Option<Nf4Config>) -> Result<Self> {
        let before = held(device)?;
        let open = Open { quantise, ..Head::Stored.into() };
        let hub::Opened { mut peft, warnings, .. } = hub::open(dir, device, open)?;
        warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
        let opening = peak_memory(device)? - before;
        let base = held(device)? - before;
        tch::manual_seed(1);
        let targets = "all-linear".into();
        peft.add(ADAPTER, LoraConfig { r: 16, lora_alpha: 32.0, targets, ..LoraConfig::default() })?;
        let trainer = Trainer::new(&peft, &[ADAPTER], AdamConfig::default(), 1e-4, Schedule::Constant)?;
        let (wall, cpu) = (Vec::new(), Vec::new());
        Ok(Self { peft, trainer, base, opening, beyond: 0, wall, cpu, loss: 0.0 })
    }

    fn step(&mut self, batch: &Batch, device: Device) -> Result<()> {
        let before = held(device)?;
        let (wall, cpu) = (Instant::now(), peft_sys::cpu_seconds());
        let logits = self.peft.view(&[ADAPTER])?.forward(batch, Pass::train())?;
        let loss = next_token_loss(&logits, batch.ids()?)?;
        drop(logits);
        self.loss = self.trainer.step(&loss)?.loss;
        synchronize(device)?;
        self.wall.push(wall.elapsed().as_secs_f64());
        self.cpu.push(peft_sys::cpu_seconds() - cpu);
        self.beyond = self.beyond.max(peak_memory(device)? - before);
        Ok(())
    }

    fn figures(&self) -> Value {
        let linears: i64 = self.peft.base().nf4s().values().map(|w| w.numel()).sum();
        let bytes: usize = self.peft.base().nf4s().values().map(|w| w.bytes()).sum();
        json!({
            "base_bytes": self.base, "opening_peak_bytes": self.opening, "step_peak_bytes": self.base + self.beyond,
            "wall_s": median(&mut self.wall.clone()), "cpu_s": median(&mut self.cpu.clone()), "loss": self.loss,
            "bytes_a_parameter": (linears > 0).then(|| bytes as f64 / linears as f64),
        })
    }
}

/// Bytes that tensors hold now. The next peak is counted from here.
fn held(device: Device) -> Result<i64> {
    reset_peak_memory(device)?;
    Ok(peak_memory(device)?)
}

fn main() -> ExitCode {
    peft_core::program::exit(run(&Options::parse()).map(|()| true))
}

fn run(o: &Options) -> Result<()> {
    let device = o.device.open()?;
    peft_sys::memory::install();
    ensure!(o.batch > 0 && o.length > 1 && o.steps > 0, "--batch, --length and --steps should be positive");
    for size in &o.size {
        let line = measure(size.shape(), o, device)?;
        print(&line)?;
        if let Some(path) = &o.json {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
            writeln!(file.with_context(|| path.display().to_string())?, "{line}")?;
        }
    }
    Ok(())
}

fn measure(shape: Shape, o: &Options, device: Device) -> Result<Value> {
    tch::manual_seed(0);
    let dir = tempfile::tempdir()?;
    shape.write(dir.path(), o.dtype.kind())?;
    let how = Nf4Config { double_quant: !o.single, compute: o.dtype.kind(), ..Nf4Config::default() };
    let mut sides = [Side::open(dir.path(), device, None)?, Side::open(dir.path(), device, Some(how))?];
    o.threads.set(sides[0].peft.report(&[])?.all);
    let ids = Tensor::f_randint(shape.vocab, [o.batch, o.length], (Kind::Int64, Device::Cpu))?;
    let batch = Batch::dense(ids.f_to(device)?);
    for step in 0..=o.steps {
        // Both orders, in turn.
        for i in [step % 2, (step + 1) % 2] {
            sides[i].step(&batch, device)?;
        }
        if step == 0 {
            sides.iter_mut().for_each(|s| (s.wall.clear(), s.cpu.clear()).0);
        }
    }
    let [dense, nf4] = sides.each_ref().map(Side::figures);
    if !(dense["loss"].is_number() && nf4["loss"].is_number()) {
        bail!("a loss is not finite");
    }
    let ratio = |of: &str| Some(nf4[of].as_f64()? / dense[of].as_f64()?);
    Ok(json!({
        "shape": shape.name, "dtype": format!("{:?}", o.dtype), "double_quantisation": !o.single,
        "batch": o.batch, "length": o.length, "steps": o.steps, "threads": o.threads, "device": o.device.to_string(),
        "wall_ratio": ratio("wall_s"), "cpu_ratio": ratio("cpu_s"), "peak_ratio": ratio("step_peak_bytes"),
        "dense": dense, "nf4": nf4, "versions": peft_bench::record::versions(),
    }))
}

fn print(line: &Value) -> Result<()> {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED);
    let title = format!(
        "{} {}",
        line["shape"].as_str().unwrap_or_default(),
        line["dtype"].as_str().unwrap_or_default()
    );
    table.set_header([&title, "dense", "NF4", "NF4 / dense"]);
    for (what, key, unit, digits) in [
        ("base, MB", "base_bytes", 1e6, 1),
        ("peak of opening, MB", "opening_peak_bytes", 1e6, 1),
        ("peak of a step, MB", "step_peak_bytes", 1e6, 1),
        ("step, s of wall time", "wall_s", 1.0, 3),
        ("step, s of CPU time", "cpu_s", 1.0, 3),
        ("bytes a parameter of linear layers", "bytes_a_parameter", 1.0, 4),
    ] {
        let value = |side: &str| line[side][key].as_f64().map(|v| v / unit);
        let show = |v: Option<f64>, digits: usize| v.map_or(String::new(), |v| format!("{v:.digits$}"));
        let (dense, nf4) = (value("dense"), value("nf4"));
        let ratio = dense.zip(nf4).map(|(d, n)| n / d);
        table.add_row([what.to_owned(), show(dense, digits), show(nf4, digits), show(ratio, 3)]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(comfy_table::CellAlignment::Right);
    }
    writeln!(std::io::stdout(), "{table}")?;
    Ok(())
}
