//! AdaLoRA's budget: which singular values are kept. Section 3.2 and 3.3 of the paper.
//!
//! For every number p of A, E and B: `I = |p · ∂loss/∂p|`, with averages `Ī ← β₁ Ī + (1 − β₁) I` and
//! `Ū ← β₂ Ū + (1 − β₂) |I − Ī|`. A singular value scores `Ī Ū` of its own, plus the means of its row of A and its column
//! of B; those with the lowest scores in the whole model are set to zero, so many that the budget is kept.

use crate::error::{Error, Result};
use crate::methods::adalora::config::NAME;
use crate::methods::adalora::{AdaLoraConfig, AdaLoraMethod, key};
use crate::seam::Params;
use std::collections::{BTreeMap, BTreeSet};
use tch::Tensor;

const LEAVES: [&str; 3] = ["lora_A", "lora_B", "lora_E"];

impl AdaLoraConfig {
    /// How many singular values step `step` (from 1) leaves in all of so many adapted layers, and whether it prunes.
    pub fn budget(&self, step: u64, layers: usize) -> (i64, bool) {
        let layers = i64::try_from(layers).unwrap_or(i64::MAX);
        let (start, end) = (self.init_r.saturating_mul(layers), self.target_r.saturating_mul(layers));
        if step <= self.tinit {
            return (start, false);
        }
        if step > self.last_pruning() {
            return (end, true);
        }
        let (gone, all) = (step.saturating_sub(self.tinit), self.last_pruning().saturating_sub(self.tinit));
        let left = 1.0 - gone as f64 / all as f64;
        let budget = (start.saturating_sub(end)) as f64 * left.powf(3.0) + end as f64;
        (budget as i64, step.is_multiple_of(self.delta_t))
    }
}

/// The allocator over an adapter's tensors. What it remembers lies beside them, in [`Params::running`]: it is saved
/// with a run, and not in the adapter's file, so training that goes on from a file starts with new averages.
#[derive(Debug)]
pub(super) struct RankAllocator<'a> {
    config: &'a AdaLoraConfig,
    sites: &'a BTreeSet<String>,
    params: &'a Params,
}

impl<'a> RankAllocator<'a> {
    pub fn new(method: &'a AdaLoraMethod, params: &'a Params) -> Self {
        Self { config: &method.config, sites: &method.sites, params }
    }

    /// Averages, and prunes where it is time.
    pub fn after_step(&self, step: u64) -> Result<()> {
        if self.config.rank_pattern.is_some() {
            return Ok(());
        }
        let _guard = tch::no_grad_guard();
        let last = self.config.last_pruning();
        if step < last {
            self.each(|name| self.average(name))?;
        }
        let (budget, due) = self.config.budget(step, self.sites.len());
        if step <= last && (due || step == last) {
            self.prune(budget)?;
        } else if step > last {
            self.mask(step)?;
        }
        if step == last {
            self.each(|name| {
                self.params.remove_running(&sensitivity(name));
                self.params.remove_running(&uncertainty(name));
                Ok(())
            })?;
        }
        Ok(())
    }

    fn each(&self, f: impl Fn(&str) -> Result<()>) -> Result<()> {
        let names = self.sites.iter().flat_map(|site| LEAVES.map(|leaf| key(site, leaf)));
        names.into_iter().try_for_each(|name| f(&name))
    }

    fn tensor(&self, name: &str) -> Result<Tensor> {
        let missing = || Error::Input(format!("{}: no tensor `{name}`", self.params.label()));
        self.params.find(name).ok_or_else(missing)
    }

    /// Updates the averages of one tensor.
    fn average(&self, name: &str) -> Result<()> {
        let p = self.tensor(name)?;
        let grad = p.f_grad()?;
        if !grad.defined() {
            let place = self.params.label();
            return Err(Error::Input(format!("{place}: `{name}` has no gradient to rank its numbers by")));
        }
        let importance = p.f_mul(&grad)?.f_abs()?;
        let step = |state: &str, beta: f64, value: &Tensor| -> Result<Tensor> {
            let average = self.params.running(state).map_or_else(|| importance.f_zeros_like(), Ok)?;
            let average = average.f_mul_scalar(beta)?.f_add(&value.f_mul_scalar(1.0 - beta)?)?;
            self.params.set_running(state, average.shallow_clone());
            Ok(average)
        };
        let average = step(&sensitivity(name), self.config.beta1, &importance)?;
        let _ = step(&uncertainty(name), self.config.beta2, &importance.f_sub(&average)?.f_abs()?)?;
        Ok(())
    }

    /// `Ī Ū` of one tensor.
    fn element_score(&self, name: &str) -> Result<Tensor> {
        match (self.params.running(&sensitivity(name)), self.params.running(&uncertainty(name))) {
            (Some(i), Some(u)) => Ok(i.f_mul(&u)?),
            _ => Err(Error::Input(format!(
                "{}: {NAME} is to settle its ranks, and no step before this one has shown which numbers matter",
                self.params.label()
            ))),
        }
    }

    /// Scores of a site's singular values, `[r]`.
    fn score(&self, site: &str) -> Result<Tensor> {
        let a = self.element_score(&key(site, "lora_A"))?.f_mean_dim(1, false, None)?;
        let b = self.element_score(&key(site, "lora_B"))?.f_mean_dim(0, false, None)?;
        let e = self.element_score(&key(site, "lora_E"))?.f_view([-1])?;
        Ok(e.f_add(&a.f_add(&b)?)?)
    }

    /// Keeps the `budget` best of all singular values.
    fn prune(&self, budget: i64) -> Result<()> {
        let scores = self.sites.iter().map(|site| Ok((site, self.score(site)?)));
        let scores = scores.collect::<Result<Vec<_>>>()?;
        let all = Tensor::f_cat(&scores.iter().map(|(_, s)| s).collect::<Vec<_>>(), 0)?;
        let gone = all.size1()?.saturating_sub(budget);
        let threshold = if gone > 0 { Some(all.f_kthvalue(gone, 0, false)?.0) } else { None };
        for (site, score) in scores {
            let kept = match &threshold {
                Some(threshold) => score.f_gt_tensor(threshold)?,
                None => score.f_ones_like()?.f_to_kind(tch::Kind::Bool)?,
            };
            self.params.set_running(&kept_name(site), kept);
            self.apply(site)?;
        }
        Ok(())
    }

    /// Sets the values that were pruned to zero again: the optimizer has moved them.
    fn mask(&self, step: u64) -> Result<()> {
        self.sites.iter().try_for_each(|site| match self.kept(site) {
            Some(_) => self.apply(site),
            None => Err(Error::Input(format!(
                "{}: step {step} comes after {NAME}'s last pruning, which this adapter has not seen",
                self.params.label()
            ))),
        })
    }

    fn apply(&self, site: &str) -> Result<()> {
        if let Some(kept) = self.kept(site) {
            let pruned = kept.f_logical_not()?.f_unsqueeze(1)?;
            let _ = self.tensor(&key(site, "lora_E"))?.f_masked_fill_(&pruned, 0.0)?;
        }
        Ok(())
    }

    /// Which singular values of a site are kept, `[r]`, once some have been pruned.
    fn kept(&self, site: &str) -> Option<Tensor> {
        self.params.running(&kept_name(site))
    }

    /// What was kept, as `rank_pattern` has it; `None` before the first pruning.
    pub fn rank_pattern(&self) -> Result<Option<BTreeMap<String, Vec<bool>>>> {
        let mut pattern = BTreeMap::new();
        for site in self.sites {
            if let Some(kept) = self.kept(site) {
                pattern.insert(format!("{site}.lora_E"), Vec::<bool>::try_from(&kept)?);
            }
        }
        Ok((!pattern.is_empty()).then_some(pattern))
    }

    /// The adapter's tensors with the rows of A and E and the columns of B that are kept.
    pub fn pruned(&self) -> Result<BTreeMap<String, Tensor>> {
        let _guard = tch::no_grad_guard();
        let mut tensors = self.params.tensors();
        for site in self.sites {
            let Some(kept) = self.kept(site) else { continue };
            let kept = kept.f_nonzero()?.f_view([-1])?;
            for (leaf, dim) in LEAVES.into_iter().zip([0, 1, 0]) {
                let name = key(site, leaf);
                let own = self.tensor(&name)?.f_index_select(dim, &kept)?;
                tensors.insert(name, own);
            }
        }
        Ok(tensors)
    }
}

fn sensitivity(name: &str) -> String {
    format!("{name}.sensitivity")
}

fn uncertainty(name: &str) -> String {
    format!("{name}.uncertainty")
}

fn kept_name(site: &str) -> String {
    key(site, "kept")
}
