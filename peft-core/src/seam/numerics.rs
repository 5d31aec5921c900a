//! Which of two orders of operations computes.

/// Whether libtorch's fastest kernels compute, or the operations that PyTorch's Python code runs, one by one. Both give the
/// same numbers up to rounding.
///
/// It is said once, of a [`Peft`](crate::Peft), and counts for its views and its trainers:
/// [`Peft::with_numerics`](crate::Peft::with_numerics). What nobody says is the model's own
/// ([`Architecture::numerics`](crate::build::Architecture::numerics)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Numerics {
    /// Fused kernels: attention in one call, and an optimizer's update in one pass over memory.
    #[default]
    Fast,
    /// PyTorch's own order of operations, and so the bits of a Python program on the same processor that draws the same
    /// numbers: `nn.MultiheadAttention` step by step, and the update of `torch.optim.Adam` as it is on the CPU by default.
    /// Where the Python program calls a fused kernel itself, as transformers does for attention, that kernel computes here,
    /// too.
    Exact,
}
