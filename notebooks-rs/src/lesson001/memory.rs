//! Section 1.1: the lesson's two boxes, computed. Training holds weights, gradients and what the optimizer keeps, of all
//! parameters or of an adapter's alone; the library's [`estimate`](peft_core::estimate) counts them before any download.

use super::catalogue;
use super::text::{Example, Text};
use crate::{Mistake, Page, Setting};
use anyhow::Result;
use peft_core::estimate::{Blueprint, Memory, Optimizer, Setup, Storage};
use peft_core::methods::LoraConfig;
use peft_core::report::commas;
use peft_core::train::{AdamConfig, Schedule, Trainer, next_token_loss};
use peft_core::{Model, Pass};
use peft_plot::{Axis, BarGroup, Bars, Figure, Panel};
use peft_sys::memory as counter;
use tch::{Device, Kind};

/// "7B".
const NOMINAL: i64 = 7_000_000_000;

/// Of the lesson's `setup_qlora`: rank 64 at all linear layers.
pub fn qlora() -> LoraConfig {
    let targets = "all-linear".into();
    LoraConfig { r: 64, lora_alpha: 128.0, targets, ..LoraConfig::default() }
}

/// Rank 8 at the query and value projections.
pub fn lora() -> LoraConfig {
    LoraConfig { r: 8, lora_alpha: 16.0, ..LoraConfig::default() }
}

/// A frozen base in 16 bits, Adam over the adapter in 32.
pub fn half() -> Setup {
    Setup { base: Storage::Dense(Kind::Half), optimizer: Optimizer::Adam }
}

/// The same over a base in 4 bits.
pub fn packed() -> Setup {
    Setup { base: Storage::qlora(), optimizer: Optimizer::Adam }
}

fn gb(bytes: i64) -> String {
    format!("{:.2}", bytes as f64 / 1e9)
}

/// 1.1 Why PEFT?
pub fn run(setting: Setting, page: &mut Page) -> Result<()> {
    let llama = super::llama()?;
    let nominal = Memory::in_place(NOMINAL, Kind::Half, Optimizer::AdamF32)?;
    let real = Memory::in_place(llama.parameters(), Kind::Half, Optimizer::AdamF32)?;
    let over_half = llama.estimate(lora(), &half())?;
    let over_packed = llama.estimate(qlora(), &packed())?;
    page.line("Full fine-tuning of 7B parameters")?;
    page.line(format!("- Parameters: {}B", NOMINAL / 1_000_000_000))?;
    for (what, bytes) in [
        ("FP16 memory", nominal.base),
        ("Optimizer states", nominal.optimizer),
        ("Gradients", nominal.gradients),
        ("Total", nominal.total()),
    ] {
        page.fact(what, bytes);
        page.line(format!("- {what}: {}GB", bytes / 1_000_000_000))?;
    }
    let (report, memory) = (&over_half.report, over_half.memory);
    let share = 100.0 * report.trainable as f64 / llama.parameters() as f64;
    page.line("LoRA (rank=8) over it")?;
    page.line(format!("- Trainable parameters: {} ({share:.2}%)", commas(report.trainable)))?;
    page.line(format!("- Additional memory: {:.0}MB", memory.overhead() as f64 / 1e6))?;
    page.line(format!(
        "- Storage: {}GB original + {:.1}MB adapter",
        gb(memory.base),
        memory.adapter as f64 / 1e6
    ))?;
    page.fact("lora.trainable", report.trainable);
    page.fact("lora.overhead", memory.overhead());
    page.fact("lora.adapter", memory.adapter);
    page.fact("qlora.total", over_packed.memory.total());

    let all = [
        ("full, 7B", nominal),
        ("full, LLaMA-7B", real),
        ("LoRA r=8 at q, v", memory),
        ("QLoRA r=8 at q, v", llama.estimate(lora(), &packed())?.memory),
        ("QLoRA r=64 at all linear layers", over_packed.memory),
    ];
    let rows = all.iter().map(|(what, m)| {
        let parts = [m.base, m.adapter, m.gradients, m.optimizer, m.total()];
        std::iter::once((*what).to_owned()).chain(parts.map(gb)).collect()
    });
    let columns = ["GB between two steps", "weights", "adapter", "gradients", "optimizer", "total"];
    page.table("Memory of training, activations not counted", columns, rows.collect())?;
    page.figure("unified_memory_parts", figure(&all))?;

    let small = Small::new(setting)?;
    small.tell(page)?;
    let all_attention = LoraConfig { targets: ["q_proj", "k_proj", "v_proj", "o_proj"].into(), ..lora() };
    let four = llama.estimate(all_attention, &half())?.report.trainable;
    let master = 4 * NOMINAL;
    page.mistakes(&[
        Mistake::new(
            "LoRA of rank 8 trains two shares",
            "~0.1%, and 0.06% in section 6.1",
            format!(
                "{share:.4}% at q and v, {:.4}% at q, k, v and o",
                100.0 * four as f64 / llama.parameters() as f64
            ),
        ),
        Mistake::new(
            "LoRA of rank 8 has two costs",
            "~100MB, and ~200MB in section 6.1",
            format!(
                "{:.0} MB: {} parameters in f32, their gradients and two moments",
                memory.overhead() as f64 / 1e6,
                commas(report.trainable)
            ),
        ),
        Mistake::new(
            "Weights in FP16 with moments in FP32 lack the FP32 copy that such training updates",
            format!("{} GB", nominal.total() / 1_000_000_000),
            format!(
                "{} GB with {} GB of master weights",
                (nominal.total() + master) / 1_000_000_000,
                master / 1_000_000_000
            ),
        ),
    ])?;
    page.what_to_see(&[
        format!(
            "LoRA does not make the weights smaller: {} GB stay. What goes is {} GB of gradients and optimizer.",
            gb(memory.base),
            gb(real.gradients + real.optimizer)
        ),
        format!(
            "QLoRA packs the weights: {} GB with the adapter of section 2.2, which is {} MB of that.",
            gb(over_packed.memory.total()),
            over_packed.memory.overhead() / 1_000_000
        ),
        format!(
            "A small model holds {} bytes between two steps by the estimate and {} by the allocator, whose blocks are a little \
             larger than the tensors in them. At the peak of a step it is {:.1} times that: activations.",
            commas(small.expected.total()),
            commas(small.held),
            small.peak as f64 / small.held as f64
        ),
        "\"90-95% of Full FT\" depends on task and model: `unified_ranking` measures one.".into(),
    ])?;
    Ok(())
}

/// Bytes of a small model under training, counted by the allocator. On the CPU, whatever the device.
struct Small {
    expected: Memory,
    /// Between two steps, and the most during one.
    held: i64,
    peak: i64,
}

impl Small {
    fn new(setting: Setting) -> Result<Self> {
        tch::manual_seed(setting.seed);
        let text = Text::new()?;
        let config = catalogue::config(text.vocab);
        let setup = Setup { base: Storage::Dense(Kind::Float), optimizer: Optimizer::Adam };
        let expected = Blueprint::read(&config, "a small model")?.estimate(lora(), &setup)?.memory;
        counter::install();
        let before = counter::live();
        let mut peft = catalogue::fresh(&config, Device::Cpu)?;
        peft.add("lora", lora())?;
        let model = peft.view(&["lora"])?;
        let mut trainer = Trainer::new(&peft, &["lora"], AdamConfig::default(), 1e-3, Schedule::Constant)?;
        let rows: Vec<&Example> = text.train.iter().take(16).collect();
        for _ in 0..2 {
            counter::reset_peak();
            let (batch, labels) = text.questions(&rows, Device::Cpu)?;
            trainer.step(&next_token_loss(&model.forward(&batch, Pass::train())?, &labels)?)?;
        }
        let bytes = |n: usize| n.saturating_sub(before) as i64;
        Ok(Self { expected, held: bytes(counter::live()), peak: bytes(counter::peak()) })
    }

    fn tell(&self, page: &mut Page) -> Result<()> {
        let m = self.expected;
        let parts = [m.base, m.adapter, m.gradients, m.optimizer, m.total(), self.held, self.peak];
        page.fact("small.expected", m.total());
        page.fact("small.held", self.held);
        page.fact("small.peak", self.peak);
        let columns =
            ["bytes", "weights", "adapter", "gradients", "optimizer", "total", "measured", "peak of a step"];
        let row = std::iter::once("LoRA r=8, f32".to_owned()).chain(parts.map(commas)).collect();
        Ok(page.table("The estimate, and a small Llama that was trained", columns, vec![row])?)
    }
}

fn figure(all: &[(&str, Memory)]) -> Figure {
    let part = |name: &str, of: fn(&Memory) -> i64| BarGroup {
        name: name.into(),
        values: all.iter().map(|(_, m)| of(m) as f64 / 1e9).collect(),
        labels: Some(
            all.iter()
                .map(|(_, m)| match of(m) {
                    0 => String::new(),
                    bytes @ ..100_000_000 => format!("{:.2}", bytes as f64 / 1e9),
                    bytes => format!("{:.1}", bytes as f64 / 1e9),
                })
                .collect(),
        ),
        errors: None,
    };
    let bars = Bars {
        title: "Weights, and what training adds to them".into(),
        categories: all.iter().map(|(name, _)| (*name).replacen(" at ", "\nat ", 1)).collect(),
        x: String::new(),
        y: Axis { label: "memory (GB)".into(), ..Axis::default() },
        groups: vec![
            part("weights", |m| m.base),
            part("adapter", |m| m.adapter),
            part("gradients", |m| m.gradients),
            part("optimizer", |m| m.optimizer),
        ],
    };
    Figure {
        title: "Memory of fine-tuning 7 billion parameters".into(),
        rows: vec![vec![Panel::Bars(bars)]],
        note: Some("Between two steps; activations come on top.".into()),
    }
}
