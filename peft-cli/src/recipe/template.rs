//! A recipe to start from: every field with what it means, those that have a default commented out.

use crate::recipe::Recipe;
use anyhow::Result;
use clap::{Arg, Args, Command};
use serde_json::Value;
use std::fmt::Write;

/// The text of a recipe that says what `said` says, and shows what else could be said.
pub fn template(said: &Recipe) -> Result<String> {
    let Value::Object(values) = serde_json::to_value(said)? else { return Ok(String::new()) };
    let fields = Recipe::augment_args(Command::new("recipe"));
    let mut text = String::from(
        "# A recipe of `peft train`. What stands behind a `#` is the default, or an example; every field is a flag as well.\n",
    );
    let mut heading = "";
    for arg in fields.get_arguments().filter(|arg| arg.get_id() != "fields") {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let own = arg.get_help_heading().unwrap_or_default();
        if own != heading {
            write!(text, "\n# --- {own}\n")?;
            heading = own;
        }
        let (meaning, default) = match help.split_once(" [default: ") {
            Some((meaning, rest)) => (meaning, Some(rest.trim_end_matches(']'))),
            None => (help.as_str(), None),
        };
        let name = arg.get_id().as_str();
        writeln!(text, "\n# {meaning}")?;
        match values.get(name).filter(|value| !value.is_null()) {
            Some(value) => writeln!(text, "{name} = {}", toml::Value::try_from(value)?)?,
            None => writeln!(text, "# {name} = {}", example(arg, default))?,
        }
    }
    text.push_str("\n# --- Fields of the method, as its adapter_config.json has them\n\n[set]\n");
    match &said.set {
        Some(fields) if !fields.is_empty() => text.push_str(&toml::to_string(fields)?),
        _ => text.push_str("# r = 16\n# lora_alpha = 32\n# target_modules = [\"q_proj\", \"v_proj\"]\n"),
    }
    Ok(text)
}

/// A recipe with every default said, so that two may be compared.
pub fn filled(said: &Recipe) -> Result<Recipe> {
    let fields = Recipe::augment_args(Command::new("recipe"));
    let mut text = String::new();
    for arg in fields.get_arguments() {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        if let Some((_, rest)) = help.split_once(" [default: ") {
            writeln!(text, "{} = {}", arg.get_id(), example(arg, Some(rest.trim_end_matches(']'))))?;
        }
    }
    Recipe::parse(&text)?.with(said.clone())
}

/// The default as TOML, or what a value looks like.
fn example(arg: &Arg, default: Option<&str>) -> String {
    const LISTS: [&str; 3] = ["seeds", "labels", "samples"];
    let name = arg.get_id().as_str();
    let value = match (default, name) {
        (Some(default), _) => default.to_owned(),
        (None, "max_time") => "2h".into(),
        (None, "memory_limit") => "8GB".into(),
        (None, "eval_every" | "max_steps") => "100".into(),
        (None, "lr") => "2e-4".into(),
        (None, "eps") => "1e-8".into(),
        (None, "lora_plus_ratio") => "16".into(),
        (None, "length") => "512".into(),
        (None, "patience" | "recompute" | "micro_batch") => "2".into(),
        (None, "task") => "causal".into(),
        (None, _) => {
            arg.get_value_names().and_then(|names| names.first()).map_or("...".into(), ToString::to_string)
        }
    };
    let plain = value.parse::<f64>().is_ok() || value == "true" || value == "false";
    let value = if plain { value } else { format!("\"{value}\"") };
    if LISTS.contains(&name) { format!("[{value}]") } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Settings;

    fn said() -> Recipe {
        let some = |text: &str| Some(text.to_owned());
        Recipe { model: some("m"), data: some("d.jsonl"), output: some("o"), ..Recipe::default() }
    }

    /// Catches a default that the help says otherwise than it is.
    #[test]
    fn the_defaults_are_those_that_are_said() {
        let text = template(&said()).unwrap();
        assert_eq!(Recipe::parse(&text).unwrap(), Recipe { set: Some(Default::default()), ..said() });
        let fields = Recipe::augment_args(Command::new("recipe"));
        for arg in fields.get_arguments() {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            if help.contains("[default: ") {
                let line = format!("# {} = ", arg.get_id());
                let on = text.replace(&line, &line[2..]);
                assert_ne!(on, text, "{line}");
                let settings = |recipe: Recipe| {
                    // What is said of evaluations has an effect on some alone.
                    let eval_data = recipe.eval_share.is_none().then(|| "e.jsonl".to_owned());
                    let mut settings = Settings::of(&Recipe { eval_data, ..recipe }).unwrap();
                    (settings.said, settings.eval_data) = (Recipe::default(), None);
                    format!("{settings:?}")
                };
                assert_eq!(settings(Recipe::parse(&on).unwrap()), settings(said()), "{line}");
            }
        }
    }

    #[test]
    fn every_field_is_in_it() {
        let text = template(&said()).unwrap();
        for name in Recipe::names() {
            let there = [format!("\n{name} = "), format!("\n# {name} = "), format!("[{name}]")];
            assert!(there.iter().any(|line| text.contains(line)), "{name}");
        }
        let set = Recipe { set: Some([("r".to_owned(), 4.into())].into_iter().collect()), ..said() };
        assert_eq!(Recipe::parse(&template(&set).unwrap()).unwrap(), set);
    }
}
