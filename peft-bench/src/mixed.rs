//! Serving several adapters over one base: what each way costs.

use anyhow::{Context, Result, ensure};
use peft_core::device::Threads;
use peft_core::generate::KvCache;
use peft_core::methods::LoraConfig;
use peft_core::models::llama;
use peft_core::seam::Wanted;
use peft_core::{Batch, Model, Params, Pass, Peft};
use serde::Serialize;
use std::time::Instant;
use tch::{Device, Kind, Tensor};

/// A Llama's sizes.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub hidden: i64,
    pub layers: i64,
    pub heads: i64,
    pub kv_heads: i64,
    pub ffn: i64,
    pub vocab: i64,
}

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    pub shape: Shape,
    /// Rows of the batch, each with an adapter of its own.
    pub rows: i64,
    pub rank: i64,
    /// Tokens a row.
    pub tokens: i64,
    pub rounds: usize,
    /// CPU threads.
    pub threads: Threads,
    /// Tokens decoded in a round.
    pub steps: i64,
}

/// One number of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    pub what: &'static str,
    pub way: &'static str,
    /// Median of the rounds, for the whole batch.
    pub ms: f64,
    /// Median of the rounds' ratios to the base.
    pub ratio: f64,
}

const TARGETS: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

impl Shape {
    /// The model with random weights.
    fn model(&self) -> Result<Peft> {
        let s = self;
        let json = serde_json::json!({
            "model_type": "llama", "vocab_size": s.vocab, "hidden_size": s.hidden, "num_hidden_layers": s.layers,
            "intermediate_size": s.ffn, "num_attention_heads": s.heads, "num_key_value_heads": s.kv_heads,
        });
        let config = llama::config(&json, "the benchmark")?;
        let cpu = (Kind::Float, Device::Cpu);
        let mut tensors = Vec::new();
        let mut matrix = |name: String, out: i64, inp: i64| -> Result<()> {
            tensors.push((name, Tensor::f_randn([out, inp], cpu)?.f_mul_scalar(0.02)?));
            Ok(())
        };
        let (d, kv) = (s.hidden, s.hidden / s.heads * s.kv_heads);
        matrix("model.embed_tokens.weight".into(), s.vocab, d)?;
        matrix("lm_head.weight".into(), s.vocab, d)?;
        for i in 0..s.layers {
            let sizes = [(d, d), (kv, d), (kv, d), (d, d), (s.ffn, d), (s.ffn, d), (d, s.ffn)];
            for (target, (out, inp)) in TARGETS.iter().zip(sizes) {
                let part = if target.len() == 6 { "self_attn" } else { "mlp" };
                matrix(format!("model.layers.{i}.{part}.{target}.weight"), out, inp)?;
            }
        }
        let layers = (0..s.layers).flat_map(|i| {
            ["input_layernorm", "post_attention_layernorm"].map(|n| format!("model.layers.{i}.{n}.weight"))
        });
        for name in layers.chain(["model.norm.weight".to_owned()]).collect::<Vec<_>>() {
            tensors.push((name, Tensor::f_ones([d], cpu)?));
        }
        Ok(Peft::new(Params::from_tensors("random weights", Device::Cpu, tensors)?, config)?)
    }
}

/// One way of computing the batch: views, each with some of its rows.
struct Way {
    name: &'static str,
    /// First row, how many, and their view.
    parts: Vec<(i64, i64, Box<dyn Model>)>,
    caches: Vec<KvCache>,
}

impl Way {
    /// The logits of the batch, part by part.
    fn run(&self, ids: &Tensor, wanted: Wanted, cached: bool) -> Result<Vec<Tensor>> {
        let parts = self.parts.iter().zip(&self.caches).map(|((first, rows, model), cache)| {
            let pass = Pass { wanted, cache: cached.then_some(cache), ..Pass::eval() };
            Ok(model.forward(&Batch::dense(ids.f_narrow(0, *first, *rows)?), pass)?)
        });
        parts.collect()
    }
}

/// The base first; medians of interleaved rounds.
pub fn measure(job: &Job) -> Result<Vec<Measured>> {
    let _guard = tch::no_grad_guard();
    let mut peft = job.shape.model()?;
    job.threads.set(peft.report(&[])?.all);
    let names: Vec<String> = (0..job.rows).map(|i| format!("adapter {i}")).collect();
    for name in &names {
        let targets = TARGETS.into();
        let alpha = 2.0 * job.rank as f64;
        peft.add(name, LoraConfig { r: job.rank, lora_alpha: alpha, targets, ..LoraConfig::default() })?;
        for (key, t) in peft.params(name)?.tensors() {
            peft.params(name)?.assign(&key, &t.f_randn_like()?.f_mul_scalar(0.02)?)?;
        }
    }
    let all = job.rows;
    let first = names.first().context("no adapter")?.as_str();
    let merged = peft.merged(&[first])?;
    let rows: Vec<Option<&str>> = names.iter().map(|n| Some(n.as_str())).collect();
    let one_by_one = (0..all).zip(&names).map(|(i, name)| Ok((i, 1, peft.view(&[name])?)));
    let ways: Vec<Way> = [
        ("base", vec![(0, all, peft.view(&[])?)]),
        ("merged", vec![(0, all, merged.view(&[])?)]),
        ("one adapter for all rows", vec![(0, all, peft.view(&[first])?)]),
        ("an adapter each, mixed rows", vec![(0, all, peft.view_rows(&rows)?)]),
        ("an adapter each, row by row", one_by_one.collect::<Result<_>>()?),
    ]
    .into_iter()
    .map(|(name, parts)| Way { name, caches: parts.iter().map(|_| KvCache::new()).collect(), parts })
    .collect();

    let ids = Tensor::f_randint(job.shape.vocab, [all, job.tokens], (Kind::Int64, Device::Cpu))?;
    let token = ids.f_narrow(1, 0, 1)?;
    agree(&ways, &ids)?;
    for way in &ways {
        way.run(&ids, Wanted::Last, true)?;
        way.run(&token, Wanted::Last, true)?;
    }
    let mut found = Vec::new();
    for what in ["all logits", "last logits", "decode"] {
        let mut times: Vec<Vec<f64>> = vec![Vec::new(); ways.len()];
        for _ in 0..job.rounds {
            for (way, times) in ways.iter().zip(&mut times) {
                let clock = Clock::start();
                match what {
                    "decode" => {
                        (0..job.steps).try_for_each(|_| way.run(&token, Wanted::Last, true).map(drop))?
                    }
                    "last logits" => drop(way.run(&ids, Wanted::Last, false)?),
                    _ => drop(way.run(&ids, Wanted::All, false)?),
                }
                let calls = if what == "decode" { job.steps as f64 } else { 1.0 };
                times.push(clock.ms() / calls);
            }
        }
        let base = times.first().cloned().unwrap_or_default();
        for (way, times) in ways.iter().zip(times) {
            let ratios = times.iter().zip(&base).map(|(t, b)| t / b).collect();
            found.push(Measured { what, way: way.name, ms: median(times), ratio: median(ratios) });
        }
    }
    Ok(found)
}

/// Mixed rows and row by row must be the same numbers: what is timed is right.
fn agree(ways: &[Way], ids: &Tensor) -> Result<()> {
    let [.., mixed, one_by_one] = ways else { return Ok(()) };
    let whole = |way: &Way| -> Result<Tensor> { Ok(Tensor::f_cat(&way.run(ids, Wanted::Last, false)?, 0)?) };
    let (a, b) = (whole(mixed)?, whole(one_by_one)?);
    let error = a.f_sub(&b)?.f_abs()?.f_max()?.f_div(&b.f_abs()?.f_max()?)?.f_double_value(&[])?;
    ensure!(error < 1e-5, "mixed rows are {error:.1e} away from row by row");
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle), values.len() % 2) {
        (Some(m), 0) => values.get(middle.wrapping_sub(1)).map_or(*m, |below| (m + below) / 2.0),
        (Some(m), _) => *m,
        (None, _) => f64::NAN,
    }
}

/// CPU time of this thread, or the wall clock's.
struct Clock {
    cpu: Option<f64>,
    wall: Instant,
}

impl Clock {
    fn start() -> Self {
        Self { cpu: cpu_ms(), wall: Instant::now() }
    }

    fn ms(&self) -> f64 {
        match (self.cpu, cpu_ms()) {
            (Some(start), Some(end)) => end - start,
            _ => self.wall.elapsed().as_secs_f64() * 1e3,
        }
    }
}

/// Linux says how long a thread ran in `/proc`; with several threads it would miss the others.
fn cpu_ms() -> Option<f64> {
    if tch::get_num_threads() != 1 {
        return None;
    }
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split_whitespace().next()?.parse::<f64>().ok()? / 1e6)
}
