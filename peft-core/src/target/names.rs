//! Names of places in the model, as configurations have them.

use crate::error::{Error, Result};
use fancy_regex::Regex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A list of names, or one pattern, as PEFT's configs have them.
///
/// A list entry matches a module of that name, or whose path ends in `.` + that name. A single string is a regular
/// expression that must match the whole path; `"all-linear"` (any case) stands for every linear layer but the head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a name, or a list of names")]
pub enum Names {
    /// A regular expression for whole paths, or `"all-linear"`.
    Pattern(String),
    /// Names, each of which stands for all modules whose path ends in it, from a dot on.
    List(Vec<String>),
}

impl<S: Into<String>, const N: usize> From<[S; N]> for Names {
    fn from(names: [S; N]) -> Self {
        Names::list(names)
    }
}

impl<S: Into<String>> From<Vec<S>> for Names {
    fn from(names: Vec<S>) -> Self {
        Names::list(names)
    }
}

impl From<&[&str]> for Names {
    fn from(names: &[&str]) -> Self {
        Names::list(names.iter().copied())
    }
}

/// A pattern, or `"all-linear"`.
impl From<&str> for Names {
    fn from(pattern: &str) -> Self {
        Names::Pattern(pattern.to_owned())
    }
}

/// A pattern, or `"all-linear"`.
impl From<String> for Names {
    fn from(pattern: String) -> Self {
        Names::Pattern(pattern)
    }
}

impl Names {
    /// A list, from anything that is one.
    pub fn list<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        Names::List(names.into_iter().map(Into::into).collect())
    }

    /// Whether this stands for every linear layer.
    pub fn is_all_linear(&self) -> bool {
        matches!(self, Names::Pattern(p) if p.eq_ignore_ascii_case("all-linear"))
    }

    /// Those of the candidates that it stands for.
    ///
    /// # Errors
    /// [`Error::NoTarget`] for an entry that stands for none, [`Error::Config`] for a pattern that is none.
    pub(crate) fn hits<'a>(
        &self,
        method: &'static str,
        field: &'static str,
        candidates: impl Iterator<Item = &'a str>,
    ) -> Result<BTreeSet<String>> {
        let candidates: Vec<&str> = candidates.collect();
        let mut all = BTreeSet::new();
        for m in self.matchers(method, field)? {
            let mut any = false;
            for name in &candidates {
                let hit = m.matches(name);
                if hit.map_err(|e| Error::config(method, field, format!("`{}`: {e}", m.text())))? {
                    any = true;
                    all.insert((*name).to_owned());
                }
            }
            if !any {
                return Err(no_target(method, field, m.text(), candidates));
            }
        }
        Ok(all)
    }

    /// Whether this is an empty list.
    pub fn is_empty(&self) -> bool {
        matches!(self, Names::List(list) if list.is_empty())
    }

    fn matchers(&self, method: &'static str, field: &'static str) -> Result<Vec<Matcher<'_>>> {
        match self {
            Names::List(list) => Ok(list.iter().map(|n| Matcher::Suffix(n)).collect()),
            Names::Pattern(p) => {
                let whole = Regex::new(&format!("^(?:{p})$"));
                let regex = whole.map_err(|e| Error::config(method, field, format!("`{p}`: {e}")))?;
                Ok(vec![Matcher::Whole(p, Box::new(regex))])
            }
        }
    }
}

enum Matcher<'a> {
    Suffix(&'a str),
    Whole(&'a str, Box<Regex>),
}

impl Matcher<'_> {
    fn text(&self) -> &str {
        match self {
            Matcher::Suffix(s) | Matcher::Whole(s, _) => s,
        }
    }

    fn matches(&self, site: &str) -> std::result::Result<bool, fancy_regex::Error> {
        match self {
            Matcher::Suffix(s) => {
                Ok(site == *s || site.strip_suffix(s).is_some_and(|rest| rest.ends_with('.')))
            }
            Matcher::Whole(_, regex) => regex.is_match(site),
        }
    }
}

/// The error for a name or a pattern that matches none of `names`.
pub(crate) fn no_target<'a>(
    method: &'static str,
    field: &'static str,
    pattern: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Error {
    let close = closest(pattern, names.into_iter());
    Error::NoTarget { method, field, pattern: pattern.to_owned(), close }
}

/// The three names most like `pattern`, compared by their last parts (layer numbers make the rest alike).
pub fn closest<'a>(pattern: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let parts = pattern.split('.').count();
    let tail = |name: &str| {
        let all: Vec<&str> = name.split('.').collect();
        all.iter().skip(all.len().saturating_sub(parts)).copied().collect::<Vec<_>>().join(".")
    };
    let tails: BTreeSet<String> = names.map(tail).filter(|t| t.parse::<i64>().is_err()).collect();
    let mut scored: Vec<(f64, String)> =
        tails.into_iter().map(|t| (strsim::jaro_winkler(&t, pattern), t)).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().filter(|(score, _)| *score > 0.6).take(3).map(|(_, t)| t).collect()
}
