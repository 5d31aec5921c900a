//! LoRA at an embedding.

use crate::error::Result;
use crate::methods::lora::LoraConfig;
use crate::methods::lora::start::InitLora;
use crate::methods::ranks::SiteRank;
use crate::seam::{Adapter, Init, Inner, LowRank, Params, Site, Weights};
use tch::Tensor;

/// `y = E[ids] + s · Aᵀ[ids] Bᵀ`; nothing is ever dropped.
#[derive(Debug)]
pub struct EmbeddingLora {
    /// The factor A, `[r, vocab]`.
    pub a: Tensor,
    /// The factor B, `[dim, r]`.
    pub b: Tensor,
    /// The scale of the product.
    pub scaling: f64,
}

impl EmbeddingLora {
    pub(super) fn new(
        config: &LoraConfig,
        rank: SiteRank,
        site: &Site<'_>,
        [vocab, dim]: [i64; 2],
        params: &Params,
    ) -> Result<Self> {
        let normal = Init::Normal { std: 1.0 };
        let start = if config.init_lora_weights == InitLora::Flag(false) { normal } else { Init::Zeros };
        let a = site.param(params, "lora_embedding_A", &[rank.r, vocab], start)?;
        let b = site.param(params, "lora_embedding_B", &[dim, rank.r], normal)?;
        Ok(Self { a, b, scaling: rank.scaling })
    }

    /// `s · Aᵀ[ids]`, `[rows, r]`.
    pub(in crate::methods) fn rows(&self, ids: &Tensor) -> Result<Tensor> {
        let rows = Tensor::f_embedding(&self.a.f_tr()?, &ids.f_reshape([-1])?, -1, false, false)?;
        Ok(rows.f_mul_scalar(self.scaling)?)
    }

    /// `ΔE = s · (B A)ᵀ`, `[vocab, dim]`.
    pub fn delta(&self) -> Result<Tensor> {
        Ok(self.b.f_matmul(&self.a)?.f_tr()?.f_mul_scalar(self.scaling)?)
    }
}

impl Adapter for EmbeddingLora {
    fn reweight(&self, w: Weights) -> Result<Weights> {
        w.plus(&self.delta()?)
    }

    fn low_rank(&self) -> Result<Option<LowRank>> {
        let (a, b) = (self.a.shallow_clone(), self.b.shallow_clone());
        Ok(Some(LowRank { a, b, scale: self.scaling, bias: None }))
    }

    fn forward(&self, ids: &Tensor, inner: &Inner<'_>) -> Result<Tensor> {
        let y = inner.forward(ids)?;
        let delta = self.rows(ids)?.f_mm(&self.b.f_tr()?)?.f_view(y.size().as_slice())?;
        Ok(y.f_add(&delta)?.f_to_kind(y.kind())?)
    }
}
