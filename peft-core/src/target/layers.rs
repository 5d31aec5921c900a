//! `layers_to_transform` and `layers_pattern`: only some layers of the model.

use crate::error::{Error, Result};
use crate::seam::Outline;
use crate::target::{Names, no_target};
use fancy_regex::Regex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// One layer index, or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a layer number, or a list of them")]
pub enum LayerIndices {
    /// A single number.
    One(i64),
    /// A list of numbers.
    Many(Vec<i64>),
}

impl LayerIndices {
    fn list(&self) -> &[i64] {
        match self {
            LayerIndices::One(i) => std::slice::from_ref(i),
            LayerIndices::Many(list) => list,
        }
    }
}

/// The fields by which a configuration keeps to some layers of the model; by default it has all of them. Of the sites that
/// `target_modules` stands for, those in other layers are left out. A target that is a site's full name is kept in any
/// case, as in PEFT, and an empty list leaves nothing out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Layers {
    /// The layers to adapt, by their numbers from 0.
    pub layers_to_transform: Option<LayerIndices>,
    /// Name of the list of layers, where the model has several: the number after it is the layer's.
    pub layers_pattern: Option<Names>,
}

impl<const N: usize> From<[i64; N]> for Layers {
    /// These layers alone.
    fn from(layers: [i64; N]) -> Self {
        Self { layers_to_transform: Some(LayerIndices::Many(layers.into())), layers_pattern: None }
    }
}

impl Layers {
    pub(super) fn apply(
        &self,
        method: &'static str,
        target: &Names,
        outline: &Outline,
        sites: &mut BTreeSet<String>,
    ) -> Result<()> {
        let patterns: Vec<&str> = match &self.layers_pattern {
            Some(Names::Pattern(p)) if !p.is_empty() => vec![p],
            Some(Names::List(list)) => list.iter().map(String::as_str).collect(),
            _ => Vec::new(),
        };
        let wanted = self.layers_to_transform.as_ref().map_or(&[][..], LayerIndices::list);
        if wanted.is_empty() {
            return match patterns.is_empty() {
                true => Ok(()),
                false => Err(Error::config(method, "layers_pattern", "is for use with layers_to_transform")),
            };
        }
        let full = match target {
            Names::List(list) => list,
            Names::Pattern(_) => {
                let message = "is for use with a list of target_modules";
                return Err(Error::config(method, "layers_to_transform", message));
            }
        };
        let mut numbers = Vec::new();
        for p in &patterns {
            let regex = Regex::new(&format!(r"^(?:.*?\.)?{p}\.(\d+)\."));
            numbers.push(regex.map_err(|e| Error::config(method, "layers_pattern", format!("`{p}`: {e}")))?);
        }
        let index = |name: &str| -> Option<i64> {
            if numbers.is_empty() {
                return outline.sites.iter().find(|s| s.name == name)?.layer;
            }
            numbers.iter().find_map(|r| r.captures(name).ok()??.get(1)?.as_str().parse().ok())
        };
        for i in wanted {
            if !sites.iter().any(|n| index(n) == Some(*i)) {
                return Err(no_target(method, "layers_to_transform", &format!("layer {i}"), []));
            }
        }
        sites.retain(|n| full.contains(n) || index(n).is_some_and(|i| wanted.contains(&i)));
        Ok(())
    }
}
