//! Full fine-tuning: every parameter of the model is trained.
//!
//! The trained parameters are copies that shadow the base's, so the base stays as it is and can serve other adapters
//! beside this one; merging gives an ordinary model.

use crate::error::Result;
use crate::methods::config::{Common, PeftConfig};
use crate::methods::copies::Copies;
use crate::seam::{MethodConfig, Outline, Overlay, Resolved};
use serde::{Deserialize, Serialize};

/// Configuration of full fine-tuning. Each parameter `p` of the model is stored as `base_model.model.p`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FullConfig {
    /// The fields that every adapter has.
    #[serde(flatten)]
    pub common: Common,
}

const NAME: &str = "full fine-tuning";

impl PeftConfig for FullConfig {
    const TYPE: &'static str = "FULL";
}

impl MethodConfig for FullConfig {
    fn resolve(mut self: Box<Self>, outline: &Outline) -> Result<Resolved> {
        self.common.resolve(NAME, outline)?;
        let params = outline.params.iter().map(String::as_str);
        Ok(self.resolved(|_| Copies::new(NAME, params, Overlay::replacing)))
    }
}
