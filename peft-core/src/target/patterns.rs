//! `rank_pattern` and `alpha_pattern`: values for some sites that differ from the config's.

use crate::error::{Error, Result};
use crate::target::no_target;
use fancy_regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Regular expressions with values. A site has the value of the first expression that matches the end of its path,
/// from a dot on: `re.match(r"(.*\.)?(expression)$", site)`.
///
/// The order is that of the file. PEFT writes them sorted, so patterns that overlap may mean something else once they
/// are saved; here that is an error.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Patterns(Map<String, Value>);

impl Patterns {
    /// From expressions and values, in the order in which they are tried.
    pub fn new<S: Into<String>, V: Into<Value>>(entries: impl IntoIterator<Item = (S, V)>) -> Self {
        Self(entries.into_iter().map(|(k, v)| (k.into(), v.into())).collect())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value for `site`, if a pattern matches it.
    ///
    /// # Errors
    /// [`Error::Config`] for a pattern that is not a regular expression, and for a value that is not a number.
    pub fn get(&self, method: &str, field: &str, site: &str) -> Result<Option<f64>> {
        Ok(self.first(method, field, site)?.map(|(_, value)| value))
    }

    /// The first pattern that matches `site`, and its value.
    fn first(&self, method: &str, field: &str, site: &str) -> Result<Option<(&String, f64)>> {
        for (pattern, value) in &self.0 {
            let wrong = |what: String| Error::config(method, field, format!("`{pattern}`: {what}"));
            let regex = Regex::new(&format!(r"^(.*\.)?({pattern})$")).map_err(|e| wrong(e.to_string()))?;
            if regex.is_match(site).map_err(|e| wrong(e.to_string()))? {
                let value = value.as_f64().ok_or_else(|| wrong(format!("{value} is not a number")))?;
                return Ok(Some((pattern, value)));
            }
        }
        Ok(None)
    }

    /// The values of all sites that have one of their own.
    ///
    /// # Errors
    /// As [`Patterns::get`], and for a pattern that gives no site its value: it matches nothing, or others come first.
    pub fn resolve(
        &self,
        method: &'static str,
        field: &'static str,
        sites: &BTreeSet<String>,
    ) -> Result<BTreeMap<String, f64>> {
        let mut unused: BTreeSet<&String> = self.0.keys().collect();
        let mut found = BTreeMap::new();
        for site in sites {
            let Some((pattern, value)) = self.first(method, field, site)? else { continue };
            unused.remove(pattern);
            found.insert(site.clone(), value);
        }
        match unused.first() {
            None => Ok(found),
            Some(pattern) => Err(no_target(method, field, pattern, sites.iter().map(String::as_str))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_match_from_a_dot_on_counts() {
        let p = Patterns::new([("q_proj", 2), (r"^model\.layers\.1\.v_proj", 6), ("v_proj", 3)]);
        let get = |site: &str| p.get("LoRA", "rank_pattern", site).unwrap();
        assert_eq!(get("model.layers.0.q_proj"), Some(2.0));
        assert_eq!(get("model.layers.0.v_proj"), Some(3.0));
        assert_eq!(get("model.layers.1.v_proj"), Some(6.0));
        assert_eq!(get("model.layers.1.kv_proj"), None);
        let sites = BTreeSet::from(["a.q_proj".to_owned()]);
        let text = p.resolve("LoRA", "rank_pattern", &sites).unwrap_err().to_string();
        assert!(text.contains("rank_pattern") && text.contains("matches nothing"), "{text}");
    }
}
