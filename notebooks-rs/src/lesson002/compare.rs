//! `compare_peft_methods`: how many parameters each method trains, by closed formulas.

use peft_core::report::commas;

/// Sizes of a model and of the methods; defaults are the lesson's, those of a model of 7B.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    pub d_model: i64,
    pub num_layers: i64,
    pub num_heads: i64,
    pub lora_rank: i64,
    pub adapter_bottleneck: i64,
    pub prefix_length: i64,
    pub prompt_length: i64,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            d_model: 4096,
            num_layers: 32,
            num_heads: 32,
            lora_rank: 8,
            adapter_bottleneck: 64,
            prefix_length: 10,
            prompt_length: 20,
        }
    }
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// In the printed table.
    pub name: &'static str,
    /// In the dictionary that the lesson's function returns.
    pub key: &'static str,
    pub params: i64,
    /// Over the attention matrices of all layers.
    pub ratio: f64,
    pub description: String,
}

impl Row {
    /// As the lesson prints it.
    pub fn line(&self) -> String {
        format!("{} {} {:.4}% {}", self.name, commas(self.params), 100.0 * self.ratio, self.description)
    }
}

/// With d = `d_model` and L = `num_layers`:
///
/// | method | trained | |
/// |---|---|---|
/// | full | `L · 4 d²` | q, k, v and o; nothing else of the model |
/// | LoRA | `L · 2 · r (d + d)` | A `[r, d]` and B `[d, r]` on q and v |
/// | adapters | `L · 2 · 2 d m` | D and U, after attention and after feed-forward, no biases |
/// | prefix | `L · 2 · n d` | keys and values of all heads |
/// | prompt | `n d` | once, before the first layer |
pub fn compare(s: &Sizes) -> [Row; 5] {
    let d_head = s.d_model / s.num_heads;
    let full = s.num_layers * 4 * s.d_model * s.d_model;
    let row = |name, key, params, description| Row {
        name,
        key,
        params,
        ratio: params as f64 / full as f64,
        description,
    };
    [
        row("full_fine_tuning", "full", full, "Update all attention weights".into()),
        row(
            "lora",
            "lora",
            s.num_layers * 2 * s.lora_rank * (s.d_model + s.d_model),
            format!("LoRA rank={} on Q,V", s.lora_rank),
        ),
        row(
            "adapters",
            "adapters",
            s.num_layers * 2 * 2 * s.d_model * s.adapter_bottleneck,
            format!("Bottleneck={}", s.adapter_bottleneck),
        ),
        row(
            "prefix_tuning",
            "prefix",
            s.num_layers * 2 * s.prefix_length * s.num_heads * d_head,
            format!("{} prefix tokens", s.prefix_length),
        ),
        row(
            "prompt_tuning",
            "prompt",
            s.prompt_length * s.d_model,
            format!("{} soft prompts", s.prompt_length),
        ),
    ]
}

/// The table of the lesson, heading and all.
pub fn lines(rows: &[Row]) -> Vec<String> {
    let head = ["Method Parameters Ratio Description".to_owned(), "-".repeat(70)];
    head.into_iter().chain(rows.iter().map(Row::line)).collect()
}
