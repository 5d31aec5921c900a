//! A page against its record, `golden/pages/<name>.json`, made by `scripts/record_pages.py`: every word and number beside
//! the lesson's lines. What the seed does not change stands there as it is. What the seed changes may differ between
//! processors as well, and refers to a fact of the page, `{lora.losses/79:.3}`; whether the fact is right is for the
//! section's own tests.

use super::golden;
use anyhow::{Context, Result, bail, ensure};
use notebooks_rs::Page;
use serde_json::{Map, Value, json};

/// Whether tables, mistakes, our own words, figures and the names of facts are the recorded ones.
pub fn same_page(name: &str, page: &Page) -> Result<()> {
    let found = json!({
        "facts": page.facts(), "tables": page.tables(), "mistakes": page.mistaken(), "what_to_see": page.to_see(),
        "figures": page.pictures(),
    });
    Facts(page.facts()).same(name, &golden(&format!("pages/{name}"))?, &found)
}

struct Facts<'a>(&'a Map<String, Value>);

impl Facts<'_> {
    fn same(&self, at: &str, expected: &Value, found: &Value) -> Result<()> {
        match (expected, found) {
            (Value::String(any), _) if any == "{*}" => Ok(()),
            (Value::Object(many), Value::Array(_)) => finite(many, found).context(at.to_owned()),
            (Value::Object(expected), Value::Object(found)) => {
                ensure!(expected.keys().eq(found.keys()), "{at} has {:?}", found.keys().collect::<Vec<_>>());
                expected.iter().try_for_each(|(key, e)| self.same(&format!("{at}/{key}"), e, &found[key]))
            }
            (Value::Array(expected), Value::Array(found)) => {
                ensure!(expected.len() == found.len(), "{at} has {} of {}", found.len(), expected.len());
                let mut pairs = expected.iter().zip(found).enumerate();
                pairs.try_for_each(|(i, (e, f))| self.same(&format!("{at}/{i}"), e, f))
            }
            (Value::String(pattern), Value::String(found)) => {
                let rest =
                    self.text(pattern, found).with_context(|| format!("{at}: `{found}`, not `{pattern}`"));
                ensure!(rest?.is_empty(), "{at}: `{found}` goes on after `{pattern}`");
                Ok(())
            }
            (Value::String(pattern), Value::Number(found)) => {
                let found = found.as_f64().context("a number")?;
                let expected = match pattern.as_str() {
                    "{}" => found,
                    reference => self.value(reference.trim_matches(['{', '}']))?,
                };
                close(at, found, expected)
            }
            (Value::Number(expected), Value::Number(found)) if expected.is_f64() && found.is_f64() => {
                close(at, found.as_f64().context("a number")?, expected.as_f64().context("a number")?)
            }
            _ => {
                ensure!(expected == found, "{at} is {found}, recorded {expected}");
                Ok(())
            }
        }
    }

    /// What is left of `found` after `pattern`.
    fn text<'f>(&self, pattern: &str, mut found: &'f str) -> Result<&'f str> {
        let mut pattern = pattern;
        while let Some(open) = pattern.find(['{', '}']) {
            let (words, rest) = pattern.split_at(open);
            found = found.strip_prefix(words).context("other words")?;
            if rest.starts_with("{{") || rest.starts_with("}}") {
                found = found.strip_prefix(&rest[..1]).context("other words")?;
                pattern = &rest[2..];
                continue;
            }
            let (reference, rest) = rest[1..].split_once('}').context("an open bracket")?;
            found = match self.shown(reference)? {
                Some(text) => found.strip_prefix(text.as_str()).with_context(|| format!("not {text}"))?,
                None => number(found)?,
            };
            pattern = rest;
        }
        found.strip_prefix(pattern).context("other words")
    }

    /// The fact of `name/index*scale:format` as it is printed; None for any number.
    fn shown(&self, reference: &str) -> Result<Option<String>> {
        if reference.is_empty() {
            return Ok(None);
        }
        let Some((fact, format)) = reference.rsplit_once(':') else {
            return Ok(Some(self.find(reference)?.as_str().context("a text")?.to_owned()));
        };
        let value = self.value(fact)?.abs();
        if format == "," {
            return Ok(Some(peft_core::report::commas(value as i64)));
        }
        // Nothing is printed as `0`, or as `0.0e0`.
        if value == 0.0 && format.ends_with('e') {
            return Ok(None);
        }
        let digits = format.trim_matches(['.', 'e']).parse::<usize>()?;
        Ok(Some(if format.ends_with('e') {
            format!("{value:.digits$e}")
        } else {
            format!("{value:.digits$}")
        }))
    }

    fn value(&self, reference: &str) -> Result<f64> {
        let (fact, scale) = match reference.rsplit_once('*') {
            Some((fact, scale)) => (fact, scale.parse()?),
            None => (reference, 1.0),
        };
        Ok(scale * self.find(fact)?.as_f64().context("a number")?)
    }

    /// A fact, or the item of a fact behind the last slash.
    fn find(&self, name: &str) -> Result<&Value> {
        if let Some(fact) = self.0.get(name) {
            return Ok(fact);
        }
        let (list, index) = name.rsplit_once('/').with_context(|| format!("no fact `{name}`"))?;
        self.find(list)?.get(index.parse::<usize>()?).with_context(|| format!("no fact `{name}`"))
    }
}

/// So many finite numbers, or points from left to right.
fn finite(many: &Map<String, Value>, found: &Value) -> Result<()> {
    let (kind, count) = many.iter().next().context("a count")?;
    let items = found.as_array().context("a list")?;
    ensure!(*count == items.len(), "{} numbers, recorded {count}", items.len());
    let firsts: Option<Vec<f64>> = items.iter().map(|i| i.get(0).unwrap_or(i).as_f64()).collect();
    let firsts = firsts.context("not all are numbers")?;
    ensure!(items.iter().all(|i| i.get(1).is_none_or(Value::is_number)), "not all are numbers");
    match kind.as_str() {
        "rising" => ensure!(firsts.windows(2).all(|w| w[0] < w[1]), "not from left to right"),
        "finite" => {}
        other => bail!("`{other}`"),
    }
    Ok(())
}

/// What is left behind a number.
fn number(text: &str) -> Result<&str> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let mut end = digits(text);
    ensure!(end > 0, "no number");
    for part in [".", ",", ",", ",", "e-", "e"] {
        if let Some(rest) = text[end..].strip_prefix(part).filter(|rest| digits(rest) > 0) {
            end += part.len() + digits(rest);
        }
    }
    Ok(&text[end..])
}

/// Equal, but for the last bits of a sum.
fn close(at: &str, found: f64, expected: f64) -> Result<()> {
    ensure!((found - expected).abs() <= 1e-9 * expected.abs(), "{at} is {found}, recorded {expected}");
    Ok(())
}
