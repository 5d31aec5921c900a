//! BERT for sequence classification; names and numbers are those of the Hub's `BertForSequenceClassification`.

use crate::error::Result;
use crate::io::Fields;
use crate::models::encoder::{EncoderConfig, EncoderFamily};
use crate::models::hub_model::Family;
use crate::seam::{Init, Input, TaskType};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

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
    EncoderConfig::read(&BertFamily, &Fields::new(json, place), classes)
}

/// What is BERT's own.
#[derive(Debug, Clone, Copy)]
pub struct BertFamily;

impl EncoderFamily for BertFamily {
    fn hub(&self) -> &'static Family {
        &FAMILY
    }

    fn head(&self) -> [&'static str; 2] {
        ["bert.pooler.dense", "classifier"]
    }

    fn drops_first(&self) -> bool {
        false
    }

    fn pad(&self) -> i64 {
        0
    }

    fn first_position(&self, _: &EncoderConfig) -> i64 {
        0
    }

    /// One after the other, padding too.
    fn positions(&self, _: &EncoderConfig, _: &Tensor, input: &Input) -> Result<Tensor> {
        let (start, length) = (input.position, input.embeds.size3()?.1);
        let index = (Kind::Int64, input.embeds.device());
        Ok(Tensor::f_arange_start(start, start.saturating_add(length), index)?)
    }

    /// Encoders are saved with and without the `bert.` in front; pre-training heads and position buffers are not ours.
    fn rename(&self, name: &str) -> Option<String> {
        if name.starts_with("cls.") || name.ends_with("embeddings.position_ids") {
            return None;
        }
        let bare = ["embeddings.", "encoder.", "pooler."].iter().any(|p| name.starts_with(p));
        let name = if bare { format!("bert.{name}") } else { name.to_owned() };
        Some(name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias"))
    }

    fn fresh_head(&self, c: &EncoderConfig) -> Result<Vec<(String, Tensor)>> {
        let weight =
            Init::Normal { std: c.initializer_range }.tensor(&[c.num_labels, c.hidden_size], Device::Cpu)?;
        let bias = Init::Zeros.tensor(&[c.num_labels], Device::Cpu)?;
        Ok(vec![("classifier.weight".into(), weight), ("classifier.bias".into(), bias)])
    }
}
