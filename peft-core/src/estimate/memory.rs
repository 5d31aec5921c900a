//! Bytes, from numbers of parameters.

use crate::check;
use crate::error::Result;
use crate::quant::{Nf4, Nf4Config};
use std::fmt;
use tch::Kind;

/// How the frozen base is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Storage {
    /// Every parameter in this dtype.
    Dense(Kind),
    /// The linear layers that the configuration quantises in 4 bits; the others, as embeddings, norms and the head, in
    /// the dtype `rest`.
    Nf4 { config: Nf4Config, rest: Kind },
}

impl Storage {
    /// QLoRA's: 4 bits with double quantisation over bf16. Dettmers et al. 2023, <https://arxiv.org/abs/2305.14314>.
    pub fn qlora() -> Self {
        let config = Nf4Config { double_quant: true, compute: Kind::BFloat16, ..Nf4Config::default() };
        Storage::Nf4 { config, rest: Kind::BFloat16 }
    }

    /// Dtype of what is dense, and of copies of the base that are trained.
    pub fn dense(&self) -> Kind {
        match self {
            Storage::Dense(kind) | Storage::Nf4 { rest: kind, .. } => *kind,
        }
    }

    /// Bytes of a parameter.
    pub(super) fn bytes(&self, numel: i64, quantised: bool) -> i64 {
        match self {
            Storage::Nf4 { config, .. } if quantised => Nf4::bytes_of(numel, config.double_quant),
            _ => bytes(numel, self.dense()),
        }
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.dense().elt_size_in_bytes().saturating_mul(8);
        match self {
            Storage::Dense(_) => write!(f, "a base in {bits} bits"),
            Storage::Nf4 { config, .. } => {
                let double = if config.double_quant { ", double quantisation" } else { "" };
                write!(f, "a base in 4 bits (NF4{double}), its rest in {bits}")
            }
        }
    }
}

/// What the optimizer keeps for every trained parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Optimizer {
    /// Plain SGD: nothing.
    Sgd,
    /// Adam and AdamW: two moments in the parameter's dtype, as [`train::Adam`](crate::train::Adam) and PyTorch's keep
    /// them.
    Adam,
    /// Two moments in f32 whatever the parameter's dtype, as mixed-precision training has them. Rajbhandari et al. 2020,
    /// <https://arxiv.org/abs/1910.02054>, section 3.1, without the f32 copy of the weights that is counted there as well.
    AdamF32,
}

impl Optimizer {
    /// Bytes for `numel` trained parameters of a dtype.
    fn bytes(self, numel: i64, kind: Kind) -> i64 {
        match self {
            Optimizer::Sgd => 0,
            Optimizer::Adam => bytes(numel, kind).saturating_mul(2),
            Optimizer::AdamF32 => bytes(numel, Kind::Float).saturating_mul(2),
        }
    }
}

/// How a model is trained, as far as memory depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    pub base: Storage,
    pub optimizer: Optimizer,
}

impl Default for Setup {
    /// A base in bf16 and Adam.
    fn default() -> Self {
        Self { base: Storage::Dense(Kind::BFloat16), optimizer: Optimizer::Adam }
    }
}

/// Bytes that training holds between two steps, by purpose.
///
/// | part | bytes |
/// |---|---|
/// | `base` | the frozen base, as it is stored |
/// | `adapter` | what the method has beside it: 4 a parameter of an adapter, the base's dtype for a copy of the base's own; and what is derived (PiSSA's start) |
/// | `gradients` | as many as the trained parameters |
/// | `optimizer` | Adam: twice that |
///
/// **Not included** are activations, which grow with batch, length and depth and are often the largest part, buffers of
/// single operations (the dense form of a 4-bit weight that is used just then), the averages that AdaLoRA keeps in
/// training, and what the device's driver and allocator take for themselves. A sum below a device's memory is necessary and
/// not sufficient.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    pub base: i64,
    pub adapter: i64,
    pub gradients: i64,
    pub optimizer: i64,
}

impl Memory {
    /// Full fine-tuning of `parameters` in place, without a frozen base beside it: what is usually called a model's cost.
    /// 7 billion in f16 with f32 moments: 14 + 14 + 56 = 84 GB. ([`FullConfig`](crate::methods::FullConfig) trains
    /// a copy, so that the base can serve others: [`Blueprint::estimate`](super::Blueprint::estimate) counts both.)
    ///
    /// # Errors
    /// A number that is not positive.
    pub fn in_place(parameters: i64, kind: Kind, optimizer: Optimizer) -> Result<Self> {
        check::positive("estimate", "parameters", parameters)?;
        let memory = Self { base: bytes(parameters, kind), ..Self::default() };
        Ok(memory.training(parameters, kind, optimizer))
    }

    /// The same, with what is needed to train `numel` parameters of a dtype more.
    pub(super) fn training(self, numel: i64, kind: Kind, optimizer: Optimizer) -> Self {
        Self {
            gradients: self.gradients.saturating_add(bytes(numel, kind)),
            optimizer: self.optimizer.saturating_add(optimizer.bytes(numel, kind)),
            ..self
        }
    }

    /// All of it.
    pub fn total(&self) -> i64 {
        [self.base, self.adapter, self.gradients, self.optimizer].into_iter().fold(0, i64::saturating_add)
    }

    /// What the method costs beyond the frozen base.
    pub fn overhead(&self) -> i64 {
        self.total().saturating_sub(self.base)
    }
}

impl fmt::Display for Memory {
    /// `14.00 GB base + 14.00 GB gradients + 56.00 GB optimizer = 84.00 GB`: parts that are nothing are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            ("base", self.base),
            ("adapter", self.adapter),
            ("gradients", self.gradients),
            ("optimizer", self.optimizer),
        ];
        let said = parts.iter().filter(|(_, bytes)| *bytes != 0);
        let said: Vec<String> = said.map(|(name, bytes)| format!("{} {name}", human_bytes(*bytes))).collect();
        write!(f, "{} = {}", said.join(" + "), human_bytes(self.total()))
    }
}

/// 16777216 as `16.8 MB`: decimal units.
pub fn human_bytes(bytes: i64) -> String {
    let b = bytes as f64;
    match bytes.saturating_abs() {
        ..1_000_000 => format!("{:.1} kB", b / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", b / 1e6),
        _ => format!("{:.2} GB", b / 1e9),
    }
}

/// Of `numel` values of a dtype.
pub(super) fn bytes(numel: i64, kind: Kind) -> i64 {
    numel.saturating_mul(i64::try_from(kind.elt_size_in_bytes()).unwrap_or(i64::MAX))
}
