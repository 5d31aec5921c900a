//! Which sites a method adapts: PEFT's rules for `target_modules` and `exclude_modules`, evaluated once when the
//! adapter is added, so that a name which matches nothing is an error on that line and not a silent loss.

pub mod defaults;
mod layers;
mod names;
mod patterns;

pub use defaults::Defaults;
pub use layers::{LayerIndices, Layers};
pub(crate) use names::no_target;
pub use names::{Names, closest};
pub use patterns::Patterns;

use crate::error::{Error, Result};
use crate::seam::{Outline, SiteKind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The fields by which a configuration says what it adapts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Targets {
    /// Modules to adapt; `None` is PEFT's default for the model type, if the method has one.
    pub target_modules: Option<Names>,
    /// Modules that are not adapted although `target_modules` stands for them.
    pub exclude_modules: Option<Names>,
}

impl<N: Into<Names>> From<N> for Targets {
    /// These modules, and none of them excluded.
    fn from(names: N) -> Self {
        Self { target_modules: Some(names.into()), exclude_modules: None }
    }
}

/// What a method can adapt, whatever its configuration says.
#[derive(Debug, Clone, Copy)]
pub struct Adaptable {
    /// The method's name, for errors.
    pub method: &'static str,
    /// The kinds of site that the method has a formula for.
    pub kinds: &'static [SiteKind],
    /// The table with PEFT's targets for the model type, where a configuration names none.
    pub default: Option<Defaults>,
}

/// What [`Targets::resolve`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// Full names of the sites to adapt.
    pub sites: BTreeSet<String>,
    /// `target_modules` as PEFT writes it: never a default and never `all-linear`.
    pub names: Names,
    /// `fan_in_fan_out` as PEFT writes it: whether the last of the sites is stored as `[in, out]`.
    pub transposed: bool,
}

impl Targets {
    /// The sites to adapt. Those within `modules_to_save` are never among them: they are trained whole.
    ///
    /// # Errors
    /// [`Error::NoTarget`] for a pattern that matches nothing, with the closest names there are;
    /// [`Error::Unsupported`] for a site of another kind; [`Error::Config`] for a model type without a default.
    pub fn resolve(
        &self,
        can: &Adaptable,
        layers: &Layers,
        modules_to_save: &[String],
        outline: &Outline,
    ) -> Result<Selected> {
        let default = can.default.and_then(|table| table(&outline.dims.model_type));
        let target = match (&self.target_modules, default) {
            (Some(names), _) => names.clone(),
            (None, Some(names)) => names.into(),
            (None, None) => {
                let model = outline.dims.model();
                let message = format!("there is no default for {model}: name the modules to adapt");
                return Err(Error::config(can.method, "target_modules", message));
            }
        };
        let hits = |names: &Names, field| {
            names.hits(can.method, field, outline.sites.iter().map(|s| s.name.as_str()))
        };
        let mut sites = if target.is_all_linear() {
            let head = outline.dims.head.as_deref().filter(|_| outline.dims.causal());
            let linear = outline.sites.iter().filter(|s| s.kind == SiteKind::Linear);
            linear.map(|s| s.name.clone()).filter(|n| Some(n.as_str()) != head).collect()
        } else {
            hits(&target, "target_modules")?
        };
        if let Some(names) = &self.exclude_modules {
            let excluded = hits(names, "exclude_modules")?;
            sites.retain(|n| !excluded.contains(n));
        }
        sites.retain(|n| !modules_to_save.iter().any(|m| within(n, m)));
        layers.apply(can.method, &target, outline, &mut sites)?;
        if sites.is_empty() {
            let message = match target.is_empty() {
                true => "names nothing to adapt",
                false => "has nothing left without exclude_modules and modules_to_save",
            };
            return Err(Error::config(can.method, "target_modules", message));
        }
        can.check_kinds(outline, &sites)?;
        let names = if target.is_all_linear() { Names::List(condensed(&sites, outline)) } else { target };
        let transposed =
            outline.sites.iter().rev().find(|s| sites.contains(&s.name)).is_some_and(|s| s.transposed);
        Ok(Selected { sites, names, transposed })
    }
}

impl Adaptable {
    /// Linear layers, and those of the table where a configuration names none.
    pub const fn linear(method: &'static str, default: Defaults) -> Self {
        Self { method, kinds: &[SiteKind::Linear], default: Some(default) }
    }

    /// Every name must be that of a site which the method has a formula for (a block may share its name with one).
    fn check_kinds(&self, outline: &Outline, sites: &BTreeSet<String>) -> Result<()> {
        let fits = |name: &str| outline.sites.iter().any(|s| s.name == name && self.kinds.contains(&s.kind));
        match outline.sites.iter().find(|s| sites.contains(&s.name) && !fits(&s.name)) {
            Some(s) => {
                let kinds: Vec<String> = self.kinds.iter().map(SiteKind::to_string).collect();
                let why = format!("it is {}, not {}", s.kind, kinds.join(" or "));
                Err(Error::Unsupported { method: self.method, site: s.name.clone(), why })
            }
            None => Ok(()),
        }
    }
}

/// Names of all-linear's sites as PEFT writes them: in full, and from 20 on as the shortest suffixes that no other
/// module has.
fn condensed(sites: &BTreeSet<String>, outline: &Outline) -> Vec<String> {
    const FULL: usize = 20;
    if sites.len() < FULL {
        return sites.iter().cloned().collect();
    }
    fn suffixes(name: &str) -> impl Iterator<Item = &str> {
        let dots = name.rmatch_indices('.').filter_map(|(i, _)| name.get(i.saturating_add(1)..));
        dots.chain(std::iter::once(name))
    }
    let others = outline.sites.iter().filter(|s| !sites.contains(&s.name));
    let taken: BTreeSet<&str> = others.flat_map(|s| suffixes(&s.name)).collect();
    let mut chosen: BTreeSet<&str> = BTreeSet::new();
    for site in sites {
        if !suffixes(site).any(|s| chosen.contains(s)) {
            chosen.extend(suffixes(site).find(|s| !taken.contains(s)));
        }
    }
    chosen.into_iter().map(str::to_owned).collect()
}

/// PEFT's exclusion rule: the name occurs in the path between dots.
pub(crate) fn within(site: &str, module: &str) -> bool {
    format!(".{site}.").contains(&format!(".{module}."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seam::{Dims, SiteOutline};

    fn outline() -> Outline {
        let dims = Dims { model_type: "t".into(), head: Some("head".into()), ..Dims::default() };
        let names =
            ["embed", "layers.0.q_proj", "layers.0.v_proj", "layers.1.q_proj", "layers.1.v_proj", "head"];
        let kind = |n: &str| if n == "embed" { SiteKind::Embedding } else { SiteKind::Linear };
        let site = |n: &&str| SiteOutline {
            name: n.to_string(),
            kind: kind(n),
            shape: vec![8, 8],
            transposed: false,
            tied: None,
            layer: n.split('.').nth(1).and_then(|i| i.parse().ok()),
        };
        Outline { dims, sites: names.iter().map(site).collect(), params: vec![] }
    }

    fn select(target: Names, exclude: Option<Names>, save: &[String]) -> Result<Vec<String>> {
        let can = Adaptable { method: "LoRA", kinds: &[SiteKind::Linear], default: None };
        let targets = Targets { target_modules: Some(target), exclude_modules: exclude };
        targets
            .resolve(&can, &Layers::default(), save, &outline())
            .map(|found| found.sites.into_iter().collect())
    }

    #[test]
    fn lists_match_at_dots_and_strings_match_whole() {
        assert_eq!(
            select(Names::list(["q_proj"]), None, &[]).unwrap(),
            ["layers.0.q_proj", "layers.1.q_proj"]
        );
        assert!(select(Names::list(["_proj"]), None, &[]).is_err());
        let text = select(Names::list(["q_proj", "embed"]), None, &[]).unwrap_err().to_string();
        assert!(text.contains("`embed`: it is an embedding, not a linear layer"), "{text}");
        assert!(select(Names::Pattern("q_proj".into()), None, &[]).is_err());
        assert_eq!(select(Names::Pattern(r".*\.1\.(q|v)_proj".into()), None, &[]).unwrap().len(), 2);
        assert_eq!(select(Names::Pattern("All-Linear".into()), None, &["head".into()]).unwrap().len(), 4);
        let except = Some(Names::list(["layers.0.q_proj"]));
        assert_eq!(select(Names::list(["q_proj"]), except, &[]).unwrap(), ["layers.1.q_proj"]);
    }

    #[test]
    fn one_unmatched_name_among_several_is_an_error_with_a_suggestion() {
        let typo = Some(Names::list(["layers.0.k_proj"]));
        assert!(select(Names::Pattern("all-linear".into()), typo, &[]).is_err());
        // A pattern that gives up on a name is no match: it says so.
        let runaway = Names::Pattern(r"(?:(?:(\w|\.)+)+)+(?=!)\1".into());
        let text = select(runaway, None, &[]).unwrap_err().to_string();
        assert!(text.contains("target_modules") && text.contains("acktrack"), "{text}");
        let text = select(Names::list(["q_proj", "v_porj"]), None, &[]).unwrap_err().to_string();
        assert!(text.contains("`v_porj`") && text.contains("did you mean `v_proj`"), "{text}");
        assert!(
            select(Names::Pattern("([".into()), None, &[])
                .unwrap_err()
                .to_string()
                .contains("target_modules")
        );
    }
}
