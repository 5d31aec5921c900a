//! BERT for sequence classification; names and numbers are those of the Hub's `BertForSequenceClassification`.

use crate::error::Result;
use crate::io::Fields;
use crate::models::encoder::{EncoderConfig, EncoderFamily, Positions};
use crate::models::hub_model::Family;
use crate::seam::TaskType;
use serde_json::Value;

/// BERTs of the Hub.
pub static FAMILY: Family = Family {
    model_type: "bert",
    class: "BertForSequenceClassification",
    task: TaskType::SeqCls,
    describe: |json, place, classes| config(json, place, classes)?.described(place),
};

/// Its `config.json`, with `classes` of them where that is given.
///
/// # Errors
/// A field that is missing or malformed, or that asks for something this crate does not have.
pub fn config(json: &Value, place: &str, classes: Option<i64>) -> Result<EncoderConfig> {
    EncoderConfig::read(&BERT, &Fields::new(json, place), classes)
}

static BERT: EncoderFamily = EncoderFamily {
    hub: &FAMILY,
    head: ["bert.pooler.dense", "classifier"],
    drops_first: false,
    pad: 0,
    positions: Positions::All,
    bare: &["embeddings.", "encoder.", "pooler."],
    foreign: &["cls."],
};
