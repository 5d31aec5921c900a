//! VeRA: one pair of frozen random matrices for all layers, and two trained vectors a layer. Kopiczko et al. 2023,
//! <https://arxiv.org/abs/2310.11454>, section 3.1.
//!
//! `y = W x + b + λ_b ⊙ (B (λ_d ⊙ (A drop(x))))`, with the first `in` columns of A and the first `out` rows of B.

use crate::check;
use crate::error::Result;
use crate::methods::config::{Common, PeftConfig};
use crate::seam::{
    Adapter, Init, Inner, LowRank, Method, MethodConfig, Outline, Params, Resolved, Site, Weights, numel,
};
use crate::target::{Adaptable, Layers, Names, Targets, defaults};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// Configuration of VeRA; field names and defaults are PEFT's.
///
/// | tensor | shape | stored as | start |
/// |---|---|---|---|
/// | λ_b | `[out]` | `<site>.vera_lambda_b` | 0; 1 for `init_weights: false` |
/// | λ_d | `[r]` | `<site>.vera_lambda_d` | `d_initial`; N(0, 1) for `init_weights: false` |
/// | A | `[r, widest in]` | `base_model.vera_A` | U(±√(6/widest in)), never trained |
/// | B | `[widest out, r]` | `base_model.vera_B` | U(±√(6/r)), never trained |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VeraConfig {
    /// Rank of the shared matrices; larger than LoRA's.
    pub r: i64,
    /// Linear layers to adapt; `None` is PEFT's default for the model type.
    pub target_modules: Option<Names>,
    /// Seed of the shared matrices, which come from a random generator of their own: the same numbers as PEFT's.
    pub projection_prng_key: i64,
    /// Whether the file has the shared matrices; if not, they are drawn again from the seed.
    pub save_projection: bool,
    /// Probability that an input of A is dropped in training.
    pub vera_dropout: f64,
    /// Where the scales between the two matrices start.
    pub d_initial: f64,
    /// Whether the adapter starts without effect.
    pub init_weights: bool,
    /// Whether weights are stored as `[in, out]`: what the model says, whatever is set here.
    pub fan_in_fan_out: bool,
    /// Only some layers of the model.
    #[serde(flatten)]
    pub layers: Layers,
    /// The fields that every adapter has.
    #[serde(flatten)]
    pub common: Common,
}

impl Default for VeraConfig {
    fn default() -> Self {
        Self {
            r: 256,
            target_modules: None,
            projection_prng_key: 0,
            save_projection: true,
            vera_dropout: 0.0,
            d_initial: 0.1,
            init_weights: true,
            fan_in_fan_out: false,
            layers: Layers::default(),
            common: Common::default(),
        }
    }
}

const NAME: &str = "VeRA";
const CAN: Adaptable = Adaptable::linear(NAME, defaults::lora);
const A: &str = "base_model.vera_A";
const B: &str = "base_model.vera_B";

impl VeraConfig {
    fn check(&self) -> Result<()> {
        check::positive(NAME, "r", self.r)?;
        check::share(NAME, "vera_dropout", self.vera_dropout)?;
        check::finite(NAME, "d_initial", self.d_initial)
    }
}

impl PeftConfig for VeraConfig {
    const TYPE: &'static str = "VERA";
    const DEFAULTS: &'static str = r#"{"bias": "none"}"#;
}

impl MethodConfig for VeraConfig {
    fn resolve(mut self: Box<Self>, outline: &Outline) -> Result<Resolved> {
        self.check()?;
        self.common.resolve(NAME, outline)?;
        let targets = Targets { target_modules: self.target_modules.take(), exclude_modules: None };
        let found = targets.resolve(&CAN, &self.layers, self.common.saved(), outline)?;
        let shapes = outline.sites.iter().filter(|s| found.sites.contains(&s.name));
        let widest = shapes.fold((0, 0), |(out, inp), s| match s.shape.as_slice() {
            &[o, i] => (out.max(o), inp.max(i)),
            _ => (out, inp),
        });
        self.target_modules = Some(found.names);
        self.fan_in_fan_out = found.transposed;
        Ok(self.resolved(|config| VeraMethod { config, sites: found.sites, widest }))
    }
}

/// VeRA in one model.
#[derive(Debug)]
struct VeraMethod {
    config: Arc<VeraConfig>,
    /// The adapted layers.
    sites: BTreeSet<String>,
    /// Widest output and input of those layers.
    widest: (i64, i64),
}

impl VeraMethod {
    fn shapes(&self) -> ([i64; 2], [i64; 2]) {
        let ((out, inp), r) = (self.widest, self.config.r);
        ([r, inp], [out, r])
    }

    /// A and B, from a fresh generator.
    fn draw(&self) -> Result<(Tensor, Tensor)> {
        let (a, b) = self.shapes();
        let float = (Kind::Float, Device::Cpu);
        let (a, b) = (Tensor::f_zeros(a, float)?, Tensor::f_zeros(b, float)?);
        // PyTorch's `kaiming_uniform_`; the detour over √2 and √3 is Python's.
        let bound = |fan_in: i64| 3f64.sqrt() * (2f64.sqrt() / (fan_in as f64).sqrt());
        // A negative key is taken as its two's complement, as PyTorch does.
        let seed = u64::from_ne_bytes(self.config.projection_prng_key.to_ne_bytes());
        peft_sys::seeded_uniform(seed, &[(&a, bound(self.widest.1)), (&b, bound(self.config.r))])?;
        Ok((a, b))
    }

    /// The shared projections; drawn at the first site, unless they come from a file.
    fn projections(&self, params: &Params) -> Result<(Tensor, Tensor)> {
        let (a, b) = self.shapes();
        if !self.config.save_projection {
            let a = params.derived(A, || Ok(self.draw()?.0))?;
            return Ok((a, params.derived(B, || Ok(self.draw()?.1))?));
        }
        let a = params.get_or_else(A, &a, || Ok(self.draw()?.0))?;
        Ok((a, params.get_or_else(B, &b, || Ok(self.draw()?.1))?))
    }
}

impl Method for VeraMethod {
    fn name(&self) -> &'static str {
        NAME
    }

    fn adapt(&self, site: &Site<'_>, params: &Params) -> Result<Option<Box<dyn Adapter>>> {
        let Some((out, inp)) = site.linear_of(&self.sites) else { return Ok(None) };
        let (a, b) = self.projections(params)?;
        let (start_b, start_d) = match self.config.init_weights {
            true => (Init::Zeros, Init::Constant(self.config.d_initial)),
            false => (Init::Constant(1.0), Init::Normal { std: 1.0 }),
        };
        let lambda_b = site.param(params, "vera_lambda_b", &[out], start_b)?;
        let lambda_d = site.param(params, "vera_lambda_d", &[self.config.r], start_d)?;
        let (a, b) = (a.f_narrow(1, 0, inp)?, b.f_narrow(0, 0, out)?);
        Ok(Some(Box::new(Vera { a, b, lambda_b, lambda_d, dropout: self.config.vera_dropout })))
    }

    fn frozen(&self, name: &str) -> bool {
        name == A || name == B
    }

    /// PEFT keeps the projections in buffers, which it does not count.
    fn uncounted(&self, params: &Params) -> i64 {
        let sizes = [A, B].iter().filter_map(|name| Some(numel(&params.find(name)?)));
        sizes.fold(0, i64::saturating_sub)
    }
}

/// VeRA at one linear layer.
#[derive(Debug)]
pub struct Vera {
    /// The shared matrix A, as far as the layer is wide, `[r, in]`.
    pub a: Tensor,
    /// The shared matrix B, as far as the layer is wide, `[out, r]`.
    pub b: Tensor,
    /// The scales λ_b of the outputs, `[out]`.
    pub lambda_b: Tensor,
    /// The scales λ_d between the two matrices, `[r]`.
    pub lambda_d: Tensor,
    /// Probability that an input of A is dropped in training.
    pub dropout: f64,
}

impl Vera {
    /// `ΔW = (λ_b ⊙ B) (λ_d ⊙ A)`
    fn change(&self) -> Result<LowRank> {
        let a = self.a.f_mul(&self.lambda_d.f_unsqueeze(1)?)?;
        let b = self.b.f_mul(&self.lambda_b.f_unsqueeze(1)?)?;
        Ok(LowRank { a, b, scale: 1.0, bias: None })
    }
}

impl Adapter for Vera {
    fn reweight(&self, w: Weights) -> Result<Weights> {
        w.plus(&self.change()?.delta()?)
    }

    fn low_rank(&self) -> Result<Option<LowRank>> {
        self.change().map(Some)
    }

    /// λ_b scales the wide tensor: over B it would be cheaper to apply, but its gradient would be one more product.
    fn forward(&self, x: &Tensor, inner: &Inner<'_>) -> Result<Tensor> {
        let mut y = inner.forward(x)?;
        let x = inner.pass.dropped(x.f_to_kind(self.a.kind())?, self.dropout)?;
        let h = x.f_matmul(&self.a.f_tr()?)?.f_mul(&self.lambda_d)?.f_matmul(&self.b.f_tr()?)?;
        if y.kind() == h.kind() {
            return Ok(y.f_addcmul_(&h, &self.lambda_b)?);
        }
        Ok(y.f_add(&h.f_mul(&self.lambda_b)?)?.f_to_kind(y.kind())?)
    }
}
