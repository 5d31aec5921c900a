//! OFT: orthogonal fine-tuning. Qiu et al. 2023, <https://arxiv.org/abs/2306.07280>, sections 3 and 4 (COFT: 3.3);
//! Cayley–Neumann: Qiu et al. 2025 (OFTv2), <https://arxiv.org/abs/2506.19847>.
//!
//! `y = W (x R) + b`: the input is cut into blocks and each is turned by an orthogonal matrix of its own, made from a
//! skew-symmetric Q. `x R` stands for the blocks `xₖ Rₖ`; as a map on weights, `W' = W blockdiag(R)ᵀ`.
//!
//! - Cayley–Neumann, n terms: `R = I + 2Q + 2Q² + … + 2Qⁿ⁻² + Qⁿ⁻¹`, nearly orthogonal while Q is small. As in PEFT,
//!   3 terms are the same as 4, and 2 terms are `I + 2Q`.
//! - Cayley: `R = (I − Q)(I + Q)⁻¹`, orthogonal. As in PEFT, it turns the other way round: the series above is that of
//!   `(I + Q)(I − Q)⁻¹`.

mod adapter;

use crate::check;
use crate::error::{Error, Result};
use crate::methods::config::{Common, PeftConfig};
use crate::methods::oft::adapter::{Oft, projected};
use crate::seam::{Adapter, Init, Method, MethodConfig, Outline, Params, Resolved, Site};
use crate::target::{Adaptable, Layers, Targets, defaults};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;
use tch::{Kind, Tensor};

/// Configuration of OFT; field names and defaults are PEFT's.
///
/// | tensor | shape | stored as | start |
/// |---|---|---|---|
/// | upper triangles of all Q, row by row | `[blocks, size (size − 1)/2]` | `<site>.oft_R.weight` | 0; N(0, 0.1²) for `init_weights: false` |
///
/// With `block_share` there is one row for all blocks. How a layer's input is cut is [`OftConfig::blocks`].
///
/// PEFT has no OFT on GPT-2's `Conv1D`, and cannot read an adapter with one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OftConfig {
    /// Number of blocks. One of this and `oft_block_size` is 0.
    pub r: i64,
    /// Size of a block.
    pub oft_block_size: i64,
    /// Without effect, as in PEFT, which makes the dropout and never calls it.
    pub module_dropout: f64,
    /// Constrained OFT: every skew-symmetric Q is kept within `‖Q‖ ≤ eps/√(stored blocks)` (Frobenius).
    pub coft: bool,
    /// How far constrained OFT may turn; without `coft` it has no effect.
    pub eps: f64,
    /// Whether all blocks of a layer share one matrix.
    pub block_share: bool,
    /// Whether the orthogonal matrix is computed by a series, instead of exactly.
    pub use_cayley_neumann: bool,
    /// Terms of the series.
    pub num_cayley_neumann_terms: i64,
    /// Whether the adapter starts without effect, as the identity.
    pub init_weights: bool,
    /// Linear layers to adapt.
    #[serde(flatten)]
    pub targets: Targets,
    /// Only some layers of the model.
    #[serde(flatten)]
    pub layers: Layers,
    /// The fields that every adapter has.
    #[serde(flatten)]
    pub common: Common,
}

impl Default for OftConfig {
    fn default() -> Self {
        Self {
            r: 0,
            oft_block_size: 32,
            module_dropout: 0.0,
            coft: false,
            eps: 6e-5,
            block_share: false,
            use_cayley_neumann: true,
            num_cayley_neumann_terms: 5,
            init_weights: true,
            targets: Targets::default(),
            layers: Layers::default(),
            common: Common::default(),
        }
    }
}

impl OftConfig {
    /// Number and size of the blocks of a layer with `inp` inputs.
    ///
    /// The number that is given is exact where it divides `inp`. Elsewhere, as in PEFT, it stands for the nearest divisor
    /// of `inp`, the smaller one of two; the configuration and its file keep the number that was given.
    pub fn blocks(&self, inp: i64) -> (i64, i64) {
        let over = |d: i64| inp.checked_div(d).unwrap_or(1);
        match self.r {
            0 => {
                let size = nearest_divisor(inp, self.oft_block_size);
                (over(size), size)
            }
            r => {
                let blocks = nearest_divisor(inp, r);
                (blocks, over(blocks))
            }
        }
    }

    fn check(&self) -> Result<()> {
        let wrong = |field: &str, message: String| Err(Error::config(NAME, field, message));
        let (r, size) = (self.r, self.oft_block_size);
        match (r, size) {
            (0, size) if size > 0 => {}
            (r, 0) if r > 0 => {}
            _ => {
                let message = format!(
                    "one of r and oft_block_size should be 0 and the other positive: they are {r} and {size}"
                );
                return wrong(if size < 0 { "oft_block_size" } else { "r" }, message);
            }
        }
        check::share(NAME, "module_dropout", self.module_dropout)?;
        if self.coft {
            check::above_zero(NAME, "eps", self.eps)?;
        }
        let terms = self.num_cayley_neumann_terms;
        if self.use_cayley_neumann && terms < 2 {
            let message = format!("should be 2 or more, is {terms}: R is then always I");
            return wrong("num_cayley_neumann_terms", message);
        }
        if self.use_cayley_neumann && terms > MOST_TERMS {
            let message = format!(
                "is {terms}, of at most {MOST_TERMS}: each costs a product of matrices at every call, and where the series \
                 converges so many later ones are 0 in f32; use_cayley_neumann: false is the exact map"
            );
            return wrong("num_cayley_neumann_terms", message);
        }
        Ok(())
    }

    /// The Frobenius norm that a stored row of Q may have, for `blocks` of them; `None` where there is no limit.
    fn limit(&self, blocks: i64) -> Option<f64> {
        self.coft.then(|| self.eps / (blocks as f64).sqrt())
    }
}

/// The divisor of `n` that is nearest to `wanted`, the smaller one of two.
fn nearest_divisor(n: i64, wanted: i64) -> i64 {
    let divides = |d: &i64| n.checked_rem(*d) == Some(0);
    let below = (1..=wanted.min(n)).rev().find(divides).unwrap_or(1);
    let above = (wanted..=n).find(divides).unwrap_or(n);
    let (down, up) = (wanted.saturating_sub(below), above.saturating_sub(wanted));
    if wanted >= n || down > up { above } else { below }
}

const NAME: &str = "OFT";
const CAN: Adaptable = Adaptable::linear(NAME, defaults::lora);
/// Terms of the series beyond any use: with ‖Q‖ = 0.98 the thousandth is 10⁻⁹ of the first.
const MOST_TERMS: i64 = 1000;
const LEAF: &str = "oft_R.weight";

impl PeftConfig for OftConfig {
    const TYPE: &'static str = "OFT";
    const DEFAULTS: &'static str = r#"{"bias": "none", "fan_in_fan_out": false}"#;
}

impl MethodConfig for OftConfig {
    fn resolve(mut self: Box<Self>, outline: &Outline) -> Result<Resolved> {
        self.check()?;
        self.common.resolve(NAME, outline)?;
        let found = self.targets.resolve(&CAN, &self.layers, self.common.saved(), outline)?;
        for site in outline.sites.iter().filter(|s| found.sites.contains(&s.name)) {
            let inp = site.shape.last().copied().unwrap_or_default();
            if self.blocks(inp).1 < 2 {
                let why = format!("its {inp} inputs would be cut into blocks of one, which cannot be turned");
                return Err(Error::Unsupported { method: NAME, site: site.name.clone(), why });
            }
        }
        self.targets.target_modules = Some(found.names);
        Ok(self.resolved(|config| OftMethod { config, sites: found.sites }))
    }
}

/// OFT in one model.
#[derive(Debug)]
struct OftMethod {
    config: Arc<OftConfig>,
    /// The adapted layers.
    sites: BTreeSet<String>,
}

impl Method for OftMethod {
    fn name(&self) -> &'static str {
        NAME
    }

    fn adapt(&self, site: &Site<'_>, params: &Params) -> Result<Option<Box<dyn Adapter>>> {
        let Some((_, inp)) = site.linear_of(&self.sites) else { return Ok(None) };
        let config = &self.config;
        let (blocks, size) = config.blocks(inp);
        let stored = if config.block_share { 1 } else { blocks };
        let pairs = size.saturating_mul(size.saturating_sub(1)).checked_div(2).unwrap_or_default();
        let init = if config.init_weights { Init::Zeros } else { Init::Normal { std: 0.1 } };
        let upper = params.derived(&format!("upper triangle of {size}"), || {
            let options = (Kind::Int64, params.device());
            let at = Tensor::f_triu_indices(size, size, 1, options)?;
            Ok(at.f_get(0)?.f_mul_scalar(size)?.f_add(&at.f_get(1)?)?)
        })?;
        Ok(Some(Box::new(Oft {
            weight: site.param(params, LEAF, &[stored, pairs], init)?,
            upper,
            size,
            limit: config.limit(stored),
            terms: config.use_cayley_neumann.then_some(config.num_cayley_neumann_terms),
        })))
    }

    /// Writes the projection of COFT into the parameters, from where the next step then starts.
    fn after_step(&self, params: &Params, _step: u64) -> Result<()> {
        let _guard = tch::no_grad_guard();
        params.tensors().into_iter().filter(|(name, _)| name.ends_with(LEAF)).try_for_each(|(name, rows)| {
            match self.config.limit(rows.size2()?.0) {
                Some(limit) => params.assign(&name, &projected(&rows, limit)?),
                None => Ok(()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of PEFT's `adjust_oft_parameters`.
    #[test]
    fn sizes_that_do_not_divide_become_the_nearest_divisor() {
        for (n, wanted, found) in [
            (32, 8, 8),
            (32, 5, 4),
            (32, 6, 4),
            (32, 7, 8),
            (32, 40, 32),
            (96, 10, 8),
            (96, 11, 12),
            (7, 3, 1),
            (7, 5, 7),
        ] {
            assert_eq!(nearest_divisor(n, wanted), found, "{wanted} of {n}");
        }
        let by_count = OftConfig { r: 5, oft_block_size: 0, ..OftConfig::default() };
        assert_eq!(by_count.blocks(32), (4, 8));
        assert_eq!(OftConfig { oft_block_size: 12, ..OftConfig::default() }.blocks(32), (4, 8));
    }
}
