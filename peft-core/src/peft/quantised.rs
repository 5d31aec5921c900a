//! A base in 4 bits, from a dense one and back.

use crate::error::{Error, Result};
use crate::peft::Peft;
use crate::quant::{DTYPES, Nf4, Nf4Config};
use crate::seam::{Outline, Params, SiteKind, SiteOutline};
use crate::target::no_target;
use fancy_regex::Regex;
use tch::{Kind, Tensor};

impl Peft {
    /// The same model with its linear layers in 4 bits, without adapters.
    ///
    /// # Errors
    /// A model that has weights in 4 bits already; a weight that is not finite; a wrong configuration.
    pub fn quantised(&self, config: &Nf4Config) -> Result<Self> {
        if let Some(name) = self.base().nf4s().into_keys().next() {
            return Err(Error::Exists { place: format!("{}: 4-bit weights", self.base().label()), name });
        }
        let mut dense = self.base().tensors();
        let mut packed = Vec::new();
        for site in linears(config, self.outline(), |name| dense.contains_key(name))? {
            let name = site.weight();
            if let Some(w) = dense.remove(&name) {
                let w = if site.transposed { w.f_tr()? } else { w };
                packed.push((Nf4::quantise(&name, &w, config)?, name));
            }
        }
        let params = Params::from_copies(self.base().label(), self.base().device(), dense)?;
        packed.iter().try_for_each(|(w, name)| params.insert_nf4(name, w))?;
        self.over(params)
    }

    /// A parameter of the base as a file has it, dense; that of a tied head is the other one's.
    pub(crate) fn dense_param(&self, name: &str) -> Result<Option<Tensor>> {
        let name = self.outline().stored_name(name);
        let Some(packed) = self.base().find_nf4(name) else { return Ok(self.base().find(name)) };
        let transposed = self.outline().sites.iter().any(|s| s.transposed && s.weight() == name);
        let w = packed.dequantise()?;
        Ok(Some(if transposed { w.f_tr()?.f_contiguous()? } else { w }))
    }

    /// Dtype of [`Peft::dense_param`].
    pub(crate) fn kind_of_param(&self, name: &str) -> Option<Kind> {
        self.base().kind(self.outline().stored_name(name))
    }
}

const NAME: &str = "NF4";

/// The linear layers to quantise, in the model's order; `stored` is whether the base has a parameter of that name.
///
/// # Errors
/// A pattern in `skip_modules` that is no regular expression, or that matches no linear layer.
pub(crate) fn linears<'o>(
    config: &Nf4Config,
    outline: &'o Outline,
    stored: impl Fn(&str) -> bool,
) -> Result<Vec<&'o SiteOutline>> {
    if !DTYPES.iter().any(|(_, kind)| *kind == config.compute) {
        let message = format!("{:?} is not supported: Float, BFloat16 and Half are", config.compute);
        return Err(Error::config(NAME, "compute", message));
    }
    let mut linears: Vec<&SiteOutline> = all_linears(outline).filter(|s| stored(&s.weight())).collect();
    for pattern in &config.skip_modules {
        let wrong = |e| Error::config(NAME, "skip_modules", format!("`{pattern}`: {e}"));
        let regex = Regex::new(&format!(r"^(?:{pattern})(?:(?<=\.)|(?=\.|$))")).map_err(wrong)?;
        let skipped = |site: &SiteOutline| match site.name.ends_with(pattern.as_str()) {
            true => Ok(true),
            false => regex.is_match(&site.name).map_err(wrong),
        };
        let before = linears.len();
        let marked = linears.iter().map(|s| skipped(s)).collect::<Result<Vec<_>>>()?;
        linears = linears.into_iter().zip(marked).filter(|(_, skip)| !skip).map(|(s, _)| s).collect();
        if linears.len() == before
            && !outline.dims.head.as_ref().is_some_and(|head| head.ends_with(pattern.as_str()))
        {
            return Err(no_target(NAME, "skip_modules", pattern, []));
        }
    }
    Ok(linears)
}

/// The model's linear layers without its output layer.
fn all_linears(outline: &Outline) -> impl Iterator<Item = &SiteOutline> {
    outline.sites.iter().filter(|s| s.kind == SiteKind::Linear && !outline.dims.is_head(&s.name))
}
