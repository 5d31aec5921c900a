//! The optimizer of an adapter, as a value.

use crate::error::{Error, Result};
use crate::peft::Peft;
use crate::train::{AdamConfig, Group, LoraFa, LoraPlus};

/// How the tensors of an adapter are trained: which optimizer, with which constants. A [`Trainer`](super::Trainer) is made
/// from it, and from nothing else that could be forgotten: it freezes what this freezes.
///
/// Every optimizer's own constants become one by themselves: `AdamConfig::default().into()` is AdamW.
#[derive(Debug, Clone, PartialEq)]
pub enum Optim {
    /// Adam or AdamW, with one learning rate for all.
    Adam(AdamConfig),
    /// Adam or AdamW, with other learning rates for some tensors.
    Rates {
        /// The constants of all.
        adam: AdamConfig,
        /// How names end, and the learning rate of such tensors in multiples of the trainer's: `(".log_alpha", 25.0)`. The
        /// first ending that fits counts; tensors that none fits have the trainer's rate.
        rates: Vec<(String, f64)>,
    },
    /// LoRA+: B learns faster than A.
    LoraPlus(LoraPlus),
    /// LoRA-FA: A is frozen.
    LoraFa(LoraFa),
}

impl From<AdamConfig> for Optim {
    fn from(adam: AdamConfig) -> Self {
        Self::Adam(adam)
    }
}

impl From<LoraPlus> for Optim {
    fn from(plus: LoraPlus) -> Self {
        Self::LoraPlus(plus)
    }
}

impl From<LoraFa> for Optim {
    fn from(fa: LoraFa) -> Self {
        Self::LoraFa(fa)
    }
}

impl Optim {
    /// The constants of the Adam underneath.
    pub(super) fn adam(&self) -> AdamConfig {
        match self {
            Self::Adam(adam) | Self::Rates { adam, .. } => *adam,
            Self::LoraPlus(plus) => plus.adam,
            Self::LoraFa(fa) => fa.adam,
        }
    }

    /// What is trained of the named adapters, in groups; `lr` is the trainer's learning rate.
    pub(super) fn groups(&self, peft: &Peft, active: &[&str], lr: f64) -> Result<Vec<Group>> {
        match self {
            Self::Adam(_) | Self::LoraFa(_) => Ok(vec![self.adam().group(peft.trainable(active)?)]),
            Self::Rates { adam, rates } => with_rates(adam, rates, peft, active),
            Self::LoraPlus(plus) => plus.groups(peft, active, lr),
        }
    }
}

/// A group for each ending, and one for the others.
fn with_rates(
    adam: &AdamConfig,
    rates: &[(String, f64)],
    peft: &Peft,
    active: &[&str],
) -> Result<Vec<Group>> {
    let mut left = peft.trainable(active)?;
    let count = left.len();
    let mut groups = Vec::new();
    for (ending, rate) in rates {
        let (params, others) = left.into_iter().partition::<Vec<_>, _>(|(name, _)| name.ends_with(ending));
        if params.is_empty() {
            let others = others.first().map_or_else(String::new, |(name, _)| format!(", as `{name}` is"));
            let message = format!(
                "`{ending}`: none of the {count} trained tensors has a name with this ending{others}; expected the end \
                 of a name"
            );
            return Err(Error::config("optimizer", "rates", message));
        }
        groups.push(Group { rate: *rate, ..adam.group(params) });
        left = others;
    }
    if !left.is_empty() {
        groups.push(adam.group(left));
    }
    Ok(groups)
}
