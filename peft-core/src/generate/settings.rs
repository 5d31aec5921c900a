//! `generation_config.json`: what is applied of it, and what is said of the rest.

use crate::error::Result;
use crate::generate::{GenerateConfig, LogitsProcessors, Sampling};
use crate::io::token_ids::{GENERATION, ids};
use crate::io::{Fields, TokenIds, directory, read_object, shown};
use crate::warning::Warning;
use serde_json::Value;
use std::path::Path;

/// How text is generated as a model directory says it, in `generation_config.json` or, without that, in `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationSettings {
    /// What to call [`generate`](super::generate) with. Its `sampling` is set where the directory asks for drawn tokens.
    pub config: GenerateConfig,
    /// How tokens are drawn where the caller wants that, whether the directory asks for it or not.
    pub sampling: Sampling,
    /// Settings of the directory that are not applied, and would change the text.
    pub warnings: Vec<Warning>,
}

/// What a setting means here.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Means {
    /// It is applied.
    Applied,
    /// It would change the text, and is not applied.
    Text,
    /// It is about how the text is found or handed back, and not about the text.
    Aside,
}
use Means::{Applied, Aside, Text};

/// Every setting that transformers has, by what it means here and by the value that asks for nothing (true and false are 1
/// and 0; NAN for null alone).
const SETTINGS: &[(Means, f64, &str)] = &[
    (Applied, 0.0, "min_length do_sample no_repeat_ngram_size"),
    (Applied, 1.0, "temperature top_p repetition_penalty"),
    (Applied, 20.0, "max_length"),
    (Applied, 50.0, "top_k"),
    (
        Applied,
        f64::NAN,
        "max_new_tokens min_new_tokens min_p bad_words_ids sequence_bias forced_bos_token_id \
         forced_eos_token_id exponential_decay_length_penalty suppress_tokens begin_suppress_tokens",
    ),
    (
        Text,
        0.0,
        "diversity_penalty penalty_alpha epsilon_cutoff eta_cutoff encoder_no_repeat_ngram_size \
         remove_invalid_values token_healing",
    ),
    (
        Text,
        1.0,
        "num_beams num_beam_groups typical_p encoder_repetition_penalty guidance_scale \
         num_return_sequences",
    ),
    (
        Text,
        f64::NAN,
        "max_time stop_strings dola_layers constraints force_words_ids top_h watermarking_config",
    ),
    (
        Aside,
        0.0,
        "early_stopping renormalize_logits low_memory output_attentions output_hidden_states \
         output_scores output_logits return_dict_in_generate use_mtp is_assistant disable_compile",
    ),
    (Aside, 0.4, "assistant_confidence_threshold"),
    (Aside, 1.0, "length_penalty"),
    (Aside, 10.0, "assistant_lookbehind target_lookbehind"),
    (Aside, 20.0, "num_assistant_tokens"),
    (
        Aside,
        f64::NAN,
        "cache_implementation cache_config max_cache_len prefill_chunk_size decoder_start_token_id \
         num_assistant_tokens_schedule prompt_lookup_num_tokens max_matching_ngram_size \
         assistant_early_exit assistant_ensemble_weight speculation_type compile_config \
         continuous_batching_config",
    ),
];

/// Fields of the file that are no settings, or that [`TokenIds`] reads.
const BESIDE: &[&str] = &[
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "use_cache",
    "transformers_version",
    "_from_model_config",
    "_commit_hash",
];

/// All settings, each with its meaning and the value that asks for nothing.
fn settings() -> impl Iterator<Item = (&'static str, Means, f64)> {
    SETTINGS.iter().flat_map(|(means, neutral, names)| names.split(' ').map(|name| (name, *means, *neutral)))
}

fn asks_for_nothing(value: &Value, neutral: f64) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => f64::from(u8::from(*on)) == neutral,
        other => other.as_f64() == Some(neutral),
    }
}

impl GenerationSettings {
    /// Reads `generation_config.json`, or the same fields of `config.json` where that file is not there, as transformers
    /// does; what is not said is as in `defaults`. Where tokens are drawn and the directory says nothing of `top_k`, it is
    /// 50, as in transformers.
    ///
    /// # Errors
    /// A file that is malformed, and a setting that cannot be, by name.
    pub fn read(dir: impl AsRef<Path>, defaults: GenerateConfig) -> Result<Self> {
        let dir = dir.as_ref();
        let (model, model_path) = directory::config(dir)?;
        let own = Some(dir.join(GENERATION)).filter(|own| own.exists());
        let (json, path) = match &own {
            Some(own) => (read_object(own)?, own.clone()),
            None => (settings_of(&model), model_path.clone()),
        };
        let place = path.display().to_string();
        let f = Fields::new(&json, &place);
        let special = TokenIds::read(dir)?;
        let eos = match &own {
            Some(own) => ids(&json, "eos_token_id", own)?.unwrap_or_default(),
            None => special.eos.clone(),
        };
        let endless = json.get("eos_token_id").is_none() && !special.eos.is_empty();
        let max_new_tokens = f.get("max_new_tokens")?;
        let max_length =
            if max_new_tokens.is_some() { None } else { f.get("max_length")?.or(defaults.max_length) };
        let sampling = sampling(&f, defaults.sampling.as_ref())?;
        let config = GenerateConfig {
            max_new_tokens: max_new_tokens.unwrap_or(defaults.max_new_tokens),
            max_length,
            eos_token_ids: eos,
            pad_token_id: special.pad,
            processors: processors(&f, &path, defaults.processors)?,
            sampling: f.or("do_sample", defaults.sampling.is_some())?.then(|| sampling.clone()),
            use_cache: f.or("use_cache", defaults.use_cache)?,
        };
        config.check(&place)?;
        let mut warnings = not_applied(&f);
        warnings.extend(both(&f));
        if own.is_some() {
            let place = model_path.display().to_string();
            let f = Fields::new(&model, &place);
            let message = format!("ends no text, as in transformers: {GENERATION} names no end");
            warnings.extend(endless.then(|| f.passed_over("eos_token_id", message)));
            warnings.extend(misplaced(&f));
        }
        Ok(Self { config, sampling, warnings })
    }
}

fn sampling(f: &Fields<'_>, defaults: Option<&Sampling>) -> Result<Sampling> {
    let defaults = defaults.cloned().unwrap_or(Sampling { top_k: Some(50), ..Sampling::default() });
    Ok(Sampling {
        temperature: f.or("temperature", defaults.temperature)?,
        // 0 is all.
        top_k: f.get("top_k")?.or(defaults.top_k).filter(|k| *k != 0),
        // 1 and above is all; of 0 the likeliest is left.
        top_p: f
            .get("top_p")?
            .or(defaults.top_p)
            .filter(|p| *p < 1.0)
            .map(|p| if p == 0.0 { f64::MIN_POSITIVE } else { p }),
        min_p: f.get("min_p")?.or(defaults.min_p),
        seed: defaults.seed,
    })
}

fn processors(f: &Fields<'_>, path: &Path, defaults: LogitsProcessors) -> Result<LogitsProcessors> {
    let several = |field: &str, default: Vec<i64>| {
        Ok::<_, crate::error::Error>(ids(f.json, field, path)?.unwrap_or(default))
    };
    Ok(LogitsProcessors {
        sequence_bias: f.or("sequence_bias", defaults.sequence_bias)?,
        repetition_penalty: f.or("repetition_penalty", defaults.repetition_penalty)?,
        no_repeat_ngram_size: f.or("no_repeat_ngram_size", defaults.no_repeat_ngram_size)?,
        bad_words_ids: f.or("bad_words_ids", defaults.bad_words_ids)?,
        min_length: match f.get::<i64>("min_new_tokens")? {
            Some(_) => 0,
            None => f.or("min_length", defaults.min_length)?,
        },
        min_new_tokens: f.or("min_new_tokens", defaults.min_new_tokens)?,
        forced_bos_token_id: f.token_id("forced_bos_token_id")?.or(defaults.forced_bos_token_id),
        forced_eos_token_id: several("forced_eos_token_id", defaults.forced_eos_token_id)?,
        exponential_decay_length_penalty: f
            .get("exponential_decay_length_penalty")?
            .or(defaults.exponential_decay_length_penalty),
        suppress_tokens: several("suppress_tokens", defaults.suppress_tokens)?,
        begin_suppress_tokens: several("begin_suppress_tokens", defaults.begin_suppress_tokens)?,
    })
}

/// What the file asks for and nothing here does.
fn not_applied(f: &Fields<'_>) -> Vec<Warning> {
    let fields = f.json.as_object().into_iter().flatten();
    let warnings =
        fields.filter(|(field, _)| !BESIDE.contains(&field.as_str())).filter_map(|(field, value)| {
            let message = match settings().find(|(name, ..)| name == field) {
                _ if value.is_null() => return None,
                Some((_, Applied, _)) => return None,
                Some((_, _, neutral)) if asks_for_nothing(value, neutral) => return None,
                Some((_, Text, _)) => "is not applied: the text may be another than transformers'",
                Some((_, Aside, _)) => "is passed over: it changes no token of what is generated here",
                None => "is no setting that is known here: it is not applied",
            };
            Some(f.passed_over(field, format!("{} {message}", shown(value))))
        });
    warnings.collect()
}

/// Of two lengths, the one that counts new tokens comes first.
fn both(f: &Fields<'_>) -> Vec<Warning> {
    let said = |field: &str| f.json.get(field).filter(|value| !value.is_null());
    let pairs = [("max_length", "max_new_tokens"), ("min_length", "min_new_tokens")];
    let warnings = pairs.into_iter().filter_map(|(field, first)| {
        let (value, _) = said(field).zip(said(first))?;
        Some(f.passed_over(field, format!("{} is not applied: {first} comes first", shown(value))))
    });
    warnings.collect()
}

/// The settings in a `config.json`. Its `use_cache` is not one of them: training leaves `false` there, which means nothing
/// but time.
fn settings_of(model: &Value) -> Value {
    let mut fields = model.as_object().cloned().unwrap_or_default();
    fields.retain(|field, _| settings().any(|(name, ..)| name == field));
    Value::Object(fields)
}

/// Settings in a `config.json` that transformers passes over, as there is a [`GENERATION`].
fn misplaced(f: &Fields<'_>) -> Vec<Warning> {
    let asked = settings().filter(|(_, means, _)| *means != Aside).filter_map(|(field, _, neutral)| {
        let value = f.json.get(field).filter(|value| !asks_for_nothing(value, neutral))?;
        let message = format!("{} is not applied, as in transformers: there is a {GENERATION}", shown(value));
        Some(f.passed_over(field, message))
    });
    asked.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_asks_for_nothing() {
        let f = |value: Value, neutral: f64| asks_for_nothing(&value, neutral);
        assert!(f(Value::Null, f64::NAN) && f(json!(1), 1.0) && f(json!(1.0), 1.0) && f(json!(false), 0.0));
        assert!(
            !f(json!(2), 1.0) && !f(json!(true), 0.0) && !f(json!("x"), f64::NAN) && !f(json!([]), f64::NAN)
        );
    }
}
