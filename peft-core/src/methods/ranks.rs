//! Rank and scale of every site: `r`, `alpha` and their patterns, as LoRA, LoHa and LoKr have them.

use crate::check;
use crate::error::{Error, Result};
use crate::target::Patterns;
use std::collections::{BTreeMap, BTreeSet};

/// Rank of one site, and its scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct SiteRank {
    pub r: i64,
    /// `alpha/r`, or `alpha/√r` for rsLoRA.
    pub scaling: f64,
}

impl SiteRank {
    pub(super) fn new(r: i64, alpha: f64, rooted: bool) -> Self {
        let by = r as f64;
        Self { r, scaling: alpha / if rooted { by.sqrt() } else { by } }
    }
}

/// The fields of a configuration that say them.
pub(super) struct Ranks<'a> {
    pub method: &'static str,
    pub r: i64,
    /// Name and value of the field.
    pub alpha: (&'static str, f64),
    /// Scale by `alpha/√r`.
    pub rooted: bool,
    pub rank_pattern: &'a Patterns,
    pub alpha_pattern: &'a Patterns,
}

impl<'a> Ranks<'a> {
    /// Scaled by `alpha/r`; `patterns` are those of the ranks and of alpha.
    pub fn new(
        method: &'static str,
        r: i64,
        alpha: (&'static str, f64),
        [rank_pattern, alpha_pattern]: [&'a Patterns; 2],
    ) -> Self {
        Self { method, r, alpha, rooted: false, rank_pattern, alpha_pattern }
    }

    /// For every site.
    ///
    /// # Errors
    /// A rank that is no positive integer, a scale that is not finite, a pattern that matches nothing.
    pub fn resolve(&self, sites: BTreeSet<String>) -> Result<BTreeMap<String, SiteRank>> {
        let (field, alpha) = self.alpha;
        check::positive(self.method, "r", self.r)?;
        check::finite(self.method, field, alpha)?;
        let ranks = self.rank_pattern.resolve(self.method, "rank_pattern", &sites)?;
        let alphas = self.alpha_pattern.resolve(self.method, "alpha_pattern", &sites)?;
        let positive = |r: f64| r >= 1.0 && r.fract() == 0.0 && r < 1e9;
        if let Some((site, r)) = ranks.iter().find(|(_, r)| !positive(**r)) {
            let message = format!("should be a positive integer, is {r} for `{site}`");
            return Err(Error::config(self.method, "rank_pattern", message));
        }
        let rank = |site: String| {
            let r = ranks.get(&site).map_or(self.r, |r| *r as i64);
            let alpha = alphas.get(&site).copied().unwrap_or(alpha);
            (site, SiteRank::new(r, alpha, self.rooted))
        };
        Ok(sites.into_iter().map(rank).collect())
    }
}
