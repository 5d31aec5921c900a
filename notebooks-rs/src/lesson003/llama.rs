//! LLaMA-7B by its sizes: the model that the paper fine-tunes, and what its adapters have.

/// Sizes of a LLaMA.
#[derive(Debug, Clone, Copy)]
pub struct Llama {
    pub vocab: i64,
    pub hidden: i64,
    pub ffn: i64,
    pub layers: i64,
}

/// LLaMA-7B.
pub const LLAMA_7B: Llama = Llama { vocab: 32_000, hidden: 4_096, ffn: 11_008, layers: 32 };

/// Bytes of a number in half precision and in single precision.
pub const HALF: i64 = 2;
pub const SINGLE: i64 = 4;

impl Llama {
    /// `2 V h + L (4 h² + 3 h f + 2 h) + h`: words and output layer; in each layer q, k, v and o, three matrices of the
    /// feed-forward part and two norms; the last norm.
    pub const fn params(self) -> i64 {
        let Self { vocab, hidden, ffn, layers } = self;
        2 * vocab * hidden + layers * (4 * hidden * hidden + 3 * hidden * ffn + 2 * hidden) + hidden
    }

    /// LoRA of rank r at q and v of every layer: `2 L r (h + h)`.
    pub const fn lora(self, r: i64) -> i64 {
        2 * self.layers * r * (self.hidden + self.hidden)
    }

    /// LLaMA-Adapter's prefix: `n` tokens and a gate in each of its last `layers`.
    pub const fn prefix(self, n: i64, layers: i64) -> i64 {
        layers * (n * self.hidden + 1)
    }
}

/// 10⁹ bytes.
pub fn gigabytes(bytes: i64) -> f64 {
    bytes as f64 / 1e9
}

/// 2²⁰ bytes, which the lesson writes MB.
pub fn mebibytes(bytes: i64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
