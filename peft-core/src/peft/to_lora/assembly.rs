//! A LoRA adapter made of changes.

use crate::error::Result;
use crate::methods::{Common, LoraConfig, Tie, from_json, to_json};
use crate::peft::Peft;
use crate::peft::to_lora::changes::Changes;
use crate::seam::{LowRank, Outline, PREFIX};
use crate::target::Names;
use std::collections::{BTreeMap, BTreeSet};
use tch::Tensor;

/// A LoRA adapter of scale 1 under construction.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    pub rank: i64,
    pub sites: Vec<AssemblySite>,
    /// Parameters of the model with values of their own, by name: those of `modules`, and biases.
    pub values: BTreeMap<String, Tensor>,
    /// `modules_to_save`
    pub modules: BTreeSet<String>,
    /// Whether the biases of the sites are among `values`; a change's own bias is LoRA's `lora_bias`.
    pub biases: bool,
}

#[derive(Debug)]
pub(crate) struct AssemblySite {
    pub name: String,
    pub embedding: bool,
    pub change: LowRank,
}

impl Assembly {
    fn config(&self, sources: &[Changes], outline: &Outline) -> Result<serde_json::Value> {
        let first = sources.first().map(|s| &s.config);
        let field = |name: &str| first.and_then(|f| f.get(name)).cloned().unwrap_or_default();
        let mut json = to_json(&LoraConfig {
            r: self.rank,
            lora_alpha: self.rank as f64,
            lora_dropout: field("lora_dropout").as_f64().unwrap_or_default(),
            targets: self.targets(sources, outline).into(),
            common: Common {
                task_type: serde_json::from_value(field("task_type")).unwrap_or_default(),
                base_model_name_or_path: field("base_model_name_or_path").as_str().map(str::to_owned),
                modules_to_save: (!self.modules.is_empty()).then(|| self.modules.iter().cloned().collect()),
                ..Common::default()
            },
            ..LoraConfig::default()
        })?;
        if let Some(fields) = json.as_object_mut() {
            fields.insert("lora_bias".into(), self.biased().into());
            // Copies stay tied; a change of the head is one of its own by now.
            let tied = sources.iter().any(|s| {
                s.config.get("ensure_weight_tying") == Some(&true.into())
                    && s.modules().iter().any(|module| Tie::knows(module))
            });
            fields.insert("ensure_weight_tying".into(), tied.into());
            fields.insert("bias".into(), if self.biases { "lora_only" } else { "none" }.into());
        }
        Ok(json)
    }

    fn biased(&self) -> bool {
        self.sites.iter().any(|site| site.change.bias.is_some())
    }

    /// The union of the sources' targets where those are plain lists that mean just these sites; otherwise the sites'
    /// full names.
    fn targets(&self, sources: &[Changes], outline: &Outline) -> Names {
        const FILTERS: [&str; 3] = ["exclude_modules", "layers_to_transform", "layers_pattern"];
        let sites: BTreeSet<&String> = self.sites.iter().map(|site| &site.name).collect();
        let lists = sources.iter().map(|source| match FILTERS.iter().any(|f| source.has(f)) {
            true => None,
            false => source.list("target_modules"),
        });
        let lists = lists.collect::<Option<Vec<_>>>().unwrap_or_default();
        let union: BTreeSet<String> = lists.into_iter().flatten().collect();
        let named = outline.sites.iter().map(|s| &s.name).filter(|site| {
            let ends = |name: &String| {
                site.strip_suffix(name.as_str()).is_some_and(|s| s.is_empty() || s.ends_with('.'))
            };
            union.iter().any(ends)
        });
        if named.collect::<BTreeSet<_>>() == sites {
            Names::list(union)
        } else {
            Names::list(sites.into_iter().cloned())
        }
    }

    /// The tensors of the sites.
    fn tensors(&self) -> Result<Vec<(String, Tensor)>> {
        let mut tensors = Vec::new();
        for AssemblySite { name, embedding, change } in &self.sites {
            let [a, b] = match embedding {
                true => ["lora_embedding_A", "lora_embedding_B"],
                false => ["lora_A.weight", "lora_B.weight"],
            };
            if self.biased() {
                tensors.push((format!("{PREFIX}{name}.lora_B.bias"), change.bias_or_zeros()?));
            }
            tensors.push((format!("{PREFIX}{name}.{a}"), change.a.f_contiguous()?));
            tensors.push((format!("{PREFIX}{name}.{b}"), change.b.f_contiguous()?));
        }
        Ok(tensors)
    }
}

impl Peft {
    /// Adds the adapter; what describes its file is taken from `sources`.
    pub(crate) fn add_assembly(&mut self, new: &str, assembly: &Assembly, sources: &[Changes]) -> Result<()> {
        let config = from_json(assembly.config(sources, self.outline())?, "the new adapter")?;
        let method = self.resolve(new, config)?;
        let mut tensors: BTreeMap<String, Tensor> = assembly.tensors()?.into_iter().collect();
        for param in &self.outline().params {
            // A tied head may share the copy of the embedding, which is there already.
            let overlay = method.overlay(param).filter(|o| !tensors.contains_key(&o.key));
            let Some(overlay) = overlay else { continue };
            // What the file has of the base beside the changes: biases that stay, the weight below an embedding's, a module
            // that was trained and has not moved.
            let value = match assembly.values.get(param) {
                Some(own) => Some(own.shallow_clone()),
                None => self.dense_param(param)?,
            };
            tensors.extend(value.map(|value| (overlay.key, value)));
        }
        self.attach_with(new, method, tensors)
    }
}
