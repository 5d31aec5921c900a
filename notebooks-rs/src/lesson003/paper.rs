//! What the lesson quotes from the paper on code review, and typed itself. These are claims: what follows from them is
//! computed where it is shown.

/// A row of the lesson's data frame.
#[derive(Debug, Clone, Copy)]
pub struct Quoted {
    pub method: &'static str,
    /// BLEU-4 of generated review comments.
    pub comments: f64,
    /// BLEU-4 of refined code.
    pub refinement: f64,
    /// Trainable parameters, in millions.
    pub millions: f64,
    /// Storage, in MB.
    pub megabytes: f64,
}

/// The data frame of cell 5.
pub const RESULTS: [Quoted; 3] = [
    Quoted { method: "Prefix-tuning", comments: 5.16, refinement: 76.71, millions: 1.2, megabytes: 2.4 },
    Quoted { method: "LoRA (r=8)", comments: 5.64, refinement: 81.59, millions: 4.2, megabytes: 8.0 },
    Quoted { method: "LoRA (r=16)", comments: 5.70, refinement: 82.27, millions: 8.4, megabytes: 16.0 },
];

/// The best of them, which the others are measured by.
pub const BEST: Quoted = RESULTS[2];

/// A bubble of the lesson's last figure.
#[derive(Debug, Clone, Copy)]
pub struct Bubble {
    pub method: &'static str,
    /// "Parameter Reduction (%)"
    pub reduction: f64,
    /// "Relative Performance (%)"
    pub performance: f64,
    /// In MB.
    pub storage: f64,
}

/// The data of cell 7.
pub const BUBBLES: [Bubble; 4] = [
    Bubble { method: "Full\nFine-tuning", reduction: 0.0, performance: 100.0, storage: 850.0 },
    Bubble { method: "LoRA\n(r=16)", reduction: 99.87, performance: 98.0, storage: 16.0 },
    Bubble { method: "LoRA\n(r=8)", reduction: 99.93, performance: 95.0, storage: 8.0 },
    Bubble { method: "Prefix\nTuning", reduction: 99.98, performance: 85.0, storage: 2.4 },
];

/// Millions of parameters of the "baseline models" that section 7 compares with.
pub const BASELINE_MILLIONS: f64 = 220.0;

impl Quoted {
    /// Both scores, in percent of the best method's.
    pub fn relative(&self) -> [f64; 2] {
        [100.0 * self.comments / BEST.comments, 100.0 * self.refinement / BEST.refinement]
    }
}
