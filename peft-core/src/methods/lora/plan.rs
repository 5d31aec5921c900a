//! What LoRA's configuration comes to in a model: which sites, with which ranks, and what else is trained or stored.

use crate::error::{Error, Result};
use crate::methods::lora::config::{LoraConfig, TokenIndices};
use crate::methods::lora::names::NAME;
use crate::methods::lora::tie::Tie;
use crate::methods::ranks::{Ranks, SiteRank};
use crate::methods::tokens::{Request, TokenRows};
use crate::methods::trainable_tokens::words;
use crate::seam::{Outline, SiteKind, SiteOutline};
use crate::target::{Adaptable, Names, defaults, no_target};
use std::collections::{BTreeMap, BTreeSet};

/// What a configuration comes to in a model.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LoraPlan {
    /// The adapted sites.
    pub sites: BTreeMap<String, SiteRank>,
    /// The sites whose base weight is in the file, and whether it is another parameter's tensor.
    pub bases: BTreeMap<String, bool>,
    /// Rows of embeddings that are trained alone.
    pub tokens: TokenRows,
    /// What is tied, by `ensure_weight_tying`.
    pub tie: Option<Tie>,
}

const CAN: Adaptable = Adaptable {
    method: NAME,
    kinds: &[SiteKind::Linear, SiteKind::Embedding],
    default: Some(defaults::lora),
};

/// The names under which PEFT saves an adapted embedding's base weight as well.
const EMBEDDINGS: &[&str] = &["embed_tokens", "lm_head"];

impl LoraConfig {
    /// Completes the configuration from the model, and says what it comes to there.
    pub(super) fn plan(&mut self, outline: &Outline, tie: Option<Tie>) -> Result<LoraPlan> {
        let none = self.targets.target_modules.as_ref().is_none_or(Names::is_empty);
        let mut sites = match self.parameters() {
            Some(_) if none => self.no_modules()?,
            _ => {
                let found = self.targets.resolve(&CAN, &self.layers, self.common.saved(), outline)?;
                self.targets.target_modules = Some(found.names);
                found.sites
            }
        };
        sites.extend(tie.as_ref().and_then(Tie::changed_head).map(str::to_owned));
        for target in self.parameters().unwrap_or_default() {
            for site in self.owners(target, outline)? {
                if !sites.insert(site.clone()) {
                    let message = format!("`{target}` is the weight of `{site}`, which is adapted already");
                    return Err(Error::config(NAME, "target_parameters", message));
                }
            }
        }
        let adapted: Vec<&SiteOutline> = outline.sites.iter().filter(|s| sites.contains(&s.name)).collect();
        if let Some(s) = adapted.iter().find(|s| self.lora_bias && s.kind == SiteKind::Embedding) {
            let message = format!("`{}` is an embedding, which has no bias", s.name);
            return Err(Error::config(NAME, "lora_bias", message));
        }
        // PEFT corrects the field at every layer that it adapts, so that it is true of the last one.
        self.fan_in_fan_out =
            adapted.iter().rfind(|s| s.kind == SiteKind::Linear).is_some_and(|s| s.transposed);
        let tokens = self.tokens(outline)?;
        if let Some(site) = tokens.sites().find(|s| sites.contains(*s)) {
            let message = format!("`{site}` is adapted already, by target_modules");
            return Err(Error::config(NAME, "trainable_token_indices", message));
        }
        let bases = self.bases(outline, &adapted);
        let alpha = ("lora_alpha", self.lora_alpha);
        let ranks = Ranks::new(NAME, self.r, alpha, [&self.rank_pattern, &self.alpha_pattern]);
        let sites = Ranks { rooted: self.use_rslora, ..ranks }.resolve(sites)?;
        Ok(LoraPlan { sites, bases, tokens, tie })
    }

    /// No sites: `target_parameters` alone are adapted, and nothing may be said about modules.
    fn no_modules(&self) -> Result<BTreeSet<String>> {
        for (field, used) in [
            ("exclude_modules", self.targets.exclude_modules.is_some()),
            ("layers_to_transform", self.layers.layers_to_transform.is_some()),
            ("layers_pattern", self.layers.layers_pattern.is_some()),
        ] {
            if used {
                return Err(Error::config(NAME, field, "is for use with target_modules"));
            }
        }
        Ok(BTreeSet::new())
    }

    /// The linear layers whose weight is the parameter `target`.
    fn owners(&self, target: &str, outline: &Outline) -> Result<Vec<String>> {
        let field = "target_parameters";
        let ends = |p: &str| p == target || p.strip_suffix(target).is_some_and(|rest| rest.ends_with('.'));
        let mut owners = Vec::new();
        for param in outline.params.iter().filter(|p| ends(p)) {
            let site = outline.sites.iter().find(|s| param.strip_suffix(".weight") == Some(s.name.as_str()));
            match site {
                Some(s) if s.kind == SiteKind::Linear && !s.transposed => owners.push(s.name.clone()),
                _ => {
                    let message =
                        format!("`{param}` is not the weight of a linear layer, stored as [out, in]");
                    return Err(Error::config(NAME, field, message));
                }
            }
        }
        if owners.is_empty() {
            return Err(no_target(NAME, field, target, outline.params.iter().map(String::as_str)));
        }
        Ok(owners)
    }

    fn tokens(&self, outline: &Outline) -> Result<TokenRows> {
        let field = "trainable_token_indices";
        let leaf = "token_adapter.trainable_tokens_delta";
        let ask = Request { method: NAME, field, leaf, twice: false, common: &self.common };
        let mut rows = TokenRows::default();
        match &self.trainable_token_indices {
            None => {}
            Some(TokenIndices::Words(indices)) => rows.add(ask, outline, words(outline)?, indices)?,
            Some(TokenIndices::Layers(layers)) => {
                for (layer, indices) in layers {
                    let ends = |name: &str| name == layer || name.ends_with(&format!(".{layer}"));
                    let Some(site) = outline.sites.iter().find(|s| ends(&s.name)) else {
                        let sites = outline.sites.iter().map(|s| s.name.as_str());
                        return Err(no_target(NAME, field, layer, sites));
                    };
                    rows.add(ask, outline, &site.name, indices)?;
                }
            }
        }
        Ok(rows)
    }

    /// The embedding and the head, as far as they are adapted and PEFT saves their weights: see [`EMBEDDINGS`].
    fn bases(&self, outline: &Outline, adapted: &[&SiteOutline]) -> BTreeMap<String, bool> {
        let named = match &self.targets.target_modules {
            Some(Names::List(list)) => list.iter().any(|n| EMBEDDINGS.contains(&n.as_str())),
            Some(Names::Pattern(_)) => adapted.iter().any(|s| {
                let leaf = s.name.rsplit('.').next().unwrap_or_default();
                EMBEDDINGS.contains(&leaf)
            }),
            None => false,
        };
        if !named || self.trainable_token_indices.is_some() {
            return BTreeMap::new();
        }
        let ends = [words(outline).ok(), outline.dims.head.as_deref()];
        let saved = adapted.iter().filter(|s| ends.contains(&Some(s.name.as_str())));
        saved.map(|s| (s.name.clone(), s.tied.is_some())).collect()
    }
}
