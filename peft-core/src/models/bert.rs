//! BERT for sequence classification; names and numbers are those of the Hub's `BertForSequenceClassification`.

use crate::error::Result;
use crate::hub::HubModel;
use crate::io::fields::Fields;
use crate::models::classes::Classes;
use crate::models::encoder::{Encoder, EncoderConfig, EncoderFamily};
use crate::seam::batch::Input;
use crate::seam::init::Init;
use crate::warning::Warning;
use serde_json::Value;
use tch::{Device, Kind, Tensor};

/// A view of a BERT.
pub type Bert = Encoder<BertFamily>;

/// What is BERT's own.
#[derive(Debug, Clone, Copy)]
pub struct BertFamily;

impl EncoderFamily for BertFamily {
    const MODEL_TYPE: &'static str = "bert";
    const HEAD: [&'static str; 2] = ["bert.pooler.dense", "classifier"];
    const DROPS_FIRST: bool = false;
    const PAD: i64 = 0;

    fn first_position(_: &EncoderConfig) -> i64 {
        0
    }

    /// One after the other, padding too.
    fn positions(_: &EncoderConfig, _: &Tensor, input: &Input) -> Result<Tensor> {
        let (start, length) = (input.position, input.embeds.size3()?.1);
        let index = (Kind::Int64, input.embeds.device());
        Ok(Tensor::f_arange_start(start, start.saturating_add(length), index)?)
    }
}

impl HubModel for Bert {
    const MODEL_TYPE: &'static str = BertFamily::MODEL_TYPE;
    const ARCHITECTURE: &'static str = "BertForSequenceClassification";

    fn config(json: &Value, place: &str, labels: Option<i64>) -> Result<EncoderConfig> {
        EncoderConfig::read::<BertFamily>(&Fields::new(json, place), labels)
    }

    fn passed_over(json: &Value, place: &str) -> Result<Vec<Warning>> {
        Classes::passed_over(&Fields::new(json, place))
    }

    /// Encoders are saved with and without the `bert.` in front; pre-training heads and position buffers are not ours.
    fn rename(name: &str) -> Option<String> {
        if name.starts_with("cls.") || name.ends_with("embeddings.position_ids") {
            return None;
        }
        let bare = ["embeddings.", "encoder.", "pooler."].iter().any(|p| name.starts_with(p));
        let name = if bare { format!("bert.{name}") } else { name.to_owned() };
        Some(name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias"))
    }

    fn json(c: &EncoderConfig) -> Value {
        c.to_json(Self::ARCHITECTURE)
    }

    fn fresh_head(c: &EncoderConfig) -> Result<Vec<(String, Tensor)>> {
        let weight =
            Init::Normal { std: c.initializer_range }.tensor(&[c.num_labels, c.hidden_size], Device::Cpu)?;
        let bias = Init::Zeros.tensor(&[c.num_labels], Device::Cpu)?;
        Ok(vec![("classifier.weight".into(), weight), ("classifier.bias".into(), bias)])
    }
}
