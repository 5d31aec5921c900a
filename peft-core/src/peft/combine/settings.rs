//! Combinations by PEFT's names.

use crate::error::{Error, Result};
use crate::peft::combine::{Arithmetic, Combination, MajoritySign, NAME, Rank};

/// The settings that go with PEFT's name of a combination.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Settings {
    pub density: Option<f64>,
    pub majority_sign_method: Option<MajoritySign>,
    pub svd_rank: Option<i64>,
    pub svd_clamp: Option<f64>,
}

impl Combination {
    /// By PEFT's `combination_type`: `linear`, `cat`, `svd`, `ties`, `ties_svd`, `dare_linear`, `dare_ties`,
    /// `magnitude_prune` and so on.
    ///
    /// ```
    /// use peft_core::combine::{Combination, Settings};
    /// let density = Settings { density: Some(0.5), ..Settings::default() };
    /// assert!(Combination::named("ties_svd", density).is_ok());
    /// assert!(Combination::named("ties", Settings::default()).is_err()); // no density
    /// ```
    ///
    /// # Errors
    /// An unknown name, a setting that it needs and one that it has no use for.
    pub fn named(name: &str, settings: Settings) -> Result<Self> {
        let Settings { density, majority_sign_method: sign, svd_rank, svd_clamp } = settings;
        let unused = |field, there: bool| match there {
            true => Err(Error::config(NAME, field, format!("is of no use to `{name}`"))),
            false => Ok(()),
        };
        let (arithmetic, svd) = match name.strip_suffix("svd") {
            Some("") => ("linear", true),
            Some(other) => (other.strip_suffix('_').unwrap_or(name), true),
            None => (name, false),
        };
        if !svd {
            unused("svd_rank", svd_rank.is_some())?;
            unused("svd_clamp", svd_clamp.is_some())?;
        }
        if name == "cat" || arithmetic == "linear" {
            unused("density", density.is_some())?;
        }
        if !arithmetic.ends_with("ties") {
            unused("majority_sign_method", sign.is_some())?;
        }
        let pruned = || {
            density.ok_or_else(|| Error::config(NAME, "density", format!("is missing: `{name}` needs it")))
        };
        let sign = sign.unwrap_or_default();
        let arithmetic = match arithmetic {
            "cat" if !svd => return Ok(Combination::Cat),
            "linear" if name != "linear_svd" => Arithmetic::Linear,
            "magnitude_prune" => Arithmetic::MagnitudePrune { density: pruned()? },
            "ties" => Arithmetic::Ties { density: pruned()?, sign },
            "dare_linear" => Arithmetic::DareLinear { density: pruned()? },
            "dare_ties" => Arithmetic::DareTies { density: pruned()?, sign },
            _ => {
                let known =
                    "linear, cat, svd, ties, dare_linear, dare_ties, magnitude_prune, ties_svd and so on";
                let message = format!("`{name}` is not one of {known}");
                return Err(Error::config(NAME, "combination_type", message));
            }
        };
        Ok(match svd {
            true => Combination::Svd(arithmetic, Rank { rank: svd_rank, clamp: svd_clamp }),
            false => Combination::Factors(arithmetic),
        })
    }
}
