//! RoBERTa for sequence classification. Liu et al. 2019, <https://arxiv.org/abs/1907.11692>; names and numbers are those
//! of the Hub's `RobertaForSequenceClassification`.

use crate::error::Result;
use crate::io::Fields;
use crate::models::encoder::{EncoderConfig, EncoderFamily};
use crate::models::hub_model::Family;
use crate::seam::{Init, Input, TaskType};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

/// RoBERTas of the Hub.
pub static FAMILY: Family = Family {
    model_type: "roberta",
    class: "RobertaForSequenceClassification",
    task: TaskType::SeqCls,
    describe: |json, place, classes| config(json, place, classes)?.described(place),
};

/// Its `config.json`, with `classes` of them where that is given.
///
/// # Errors
/// A field that is missing or malformed, or that asks for something this crate does not have.
pub fn config(json: &Value, place: &str, classes: Option<i64>) -> Result<EncoderConfig> {
    let f = Fields::new(json, place);
    let config = EncoderConfig::read(&RobertaFamily, &f, classes)?;
    // Without padding all tokens are words, from position 0 on.
    if !(-1..config.vocab_size).contains(&config.pad_token_id) {
        let message = format!("{} is not an id below {}", config.pad_token_id, config.vocab_size);
        return Err(f.wrong("pad_token_id", message));
    }
    Ok(config)
}

/// What is RoBERTa's own.
#[derive(Debug, Clone, Copy)]
pub struct RobertaFamily;

impl EncoderFamily for RobertaFamily {
    fn hub(&self) -> &'static Family {
        &FAMILY
    }

    fn head(&self) -> [&'static str; 2] {
        ["classifier.dense", "classifier.out_proj"]
    }

    fn drops_first(&self) -> bool {
        true
    }

    fn pad(&self) -> i64 {
        1
    }

    fn first_position(&self, c: &EncoderConfig) -> i64 {
        c.pad_token_id.saturating_add(1)
    }

    /// Words count from `pad_token_id + 1` on, and padding (told by its id) stays at `pad_token_id`. Behind virtual
    /// tokens ids are not looked at: they all count, one after the other.
    fn positions(&self, c: &EncoderConfig, ids: &Tensor, input: &Input) -> Result<Tensor> {
        if input.virtual_tokens > 0 {
            let start = self.first_position(c).saturating_add(input.position);
            let end = start.saturating_add(input.embeds.size3()?.1);
            return Ok(Tensor::f_arange_start(start, end, (Kind::Int64, input.embeds.device()))?);
        }
        let words = ids.f_ne(c.pad_token_id)?.f_to_kind(Kind::Int64)?;
        let count = words.f_cumsum(1, Kind::Int64)?.f_add_scalar(input.position)?;
        Ok(count.f_mul(&words)?.f_add_scalar(c.pad_token_id)?)
    }

    /// Encoders are saved with and without the `roberta.` in front; other heads, the pooler and buffers are not ours.
    fn rename(&self, name: &str) -> Option<String> {
        let foreign = ["lm_head.", "pooler.", "roberta.pooler."].iter().any(|p| name.starts_with(p));
        if foreign || name.ends_with("embeddings.position_ids") {
            return None;
        }
        let bare = ["embeddings.", "encoder."].iter().any(|p| name.starts_with(p));
        let name = if bare { format!("roberta.{name}") } else { name.to_owned() };
        Some(name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias"))
    }

    fn fresh_head(&self, c: &EncoderConfig) -> Result<Vec<(String, Tensor)>> {
        let draw = |dims: &[i64]| Init::Normal { std: c.initializer_range }.tensor(dims, Device::Cpu);
        let zeros = |n: i64| Init::Zeros.tensor(&[n], Device::Cpu);
        let (d, n) = (c.hidden_size, c.num_labels);
        Ok(vec![
            ("classifier.dense.weight".into(), draw(&[d, d])?),
            ("classifier.dense.bias".into(), zeros(d)?),
            ("classifier.out_proj.weight".into(), draw(&[n, d])?),
            ("classifier.out_proj.bias".into(), zeros(n)?),
        ])
    }
}
