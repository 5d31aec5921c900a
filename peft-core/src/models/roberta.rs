//! RoBERTa for sequence classification. Liu et al. 2019, <https://arxiv.org/abs/1907.11692>; names and numbers are those
//! of the Hub's `RobertaForSequenceClassification`.

use crate::error::Result;
use crate::io::Fields;
use crate::models::encoder::{EncoderConfig, EncoderFamily, Positions};
use crate::models::hub_model::Family;
use crate::seam::TaskType;
use serde_json::Value;

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
    let config = EncoderConfig::read(&ROBERTA, &f, classes)?;
    // Without padding all tokens are words, from position 0 on.
    if !(-1..config.vocab_size).contains(&config.pad_token_id) {
        let message = format!("{} is not an id below {}", config.pad_token_id, config.vocab_size);
        return Err(f.wrong("pad_token_id", message));
    }
    Ok(config)
}

static ROBERTA: EncoderFamily = EncoderFamily {
    hub: &FAMILY,
    head: ["classifier.dense", "classifier.out_proj"],
    drops_first: true,
    pad: 1,
    positions: Positions::Words,
    bare: &["embeddings.", "encoder."],
    foreign: &["lm_head.", "pooler.", "roberta.pooler."],
};
