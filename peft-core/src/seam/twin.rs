//! A tensor that PEFT's files have twice: once where it is trained, and once under the name of a head that is tied to it.

use crate::error::{Error, Result};
use std::collections::BTreeMap;
use tch::Tensor;

/// One tensor and its second name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Twin {
    /// Where it is read from.
    pub first: String,
    /// Where it stands once more.
    pub second: String,
    /// The second one is the first transposed.
    pub turned: bool,
}

impl Twin {
    pub fn new(first: impl Into<String>, second: impl Into<String>) -> Self {
        Self { first: first.into(), second: second.into(), turned: false }
    }

    /// Adds the second one to a file's tensors.
    pub fn export(&self, tensors: &mut BTreeMap<String, Tensor>) -> Result<()> {
        if let Some(first) = tensors.get(&self.first).map(|t| self.turn(t)) {
            tensors.insert(self.second.clone(), first?.f_contiguous()?);
        }
        Ok(())
    }

    /// Takes the second one out of a file's tensors. Without the first there is nothing to say yet.
    ///
    /// # Errors
    /// A second one that is missing, of another shape, or with other values.
    pub fn import(&self, place: &str, tensors: &mut BTreeMap<String, Tensor>) -> Result<()> {
        let Some(first) = tensors.get(&self.first).map(|t| self.turn(t)).transpose()? else { return Ok(()) };
        let (name, place, expected) = (self.second.clone(), place.to_owned(), first.size());
        let Some(second) = tensors.remove(&self.second) else {
            let hint =
                format!("; the head is tied, and PEFT stores what it shares with `{}` as well", self.first);
            return Err(Error::Missing { place, name, expected, hint });
        };
        let found = second.size();
        if found != expected {
            let own = self.turn(&second)?.size();
            let hint = match self.turned {
                true => {
                    let first = tensors.get(&self.first).map(Tensor::size).unwrap_or_default();
                    format!(": transposed it is {own:?}, and should be `{}`, which is {first:?}", self.first)
                }
                false => format!(", as `{}` has", self.first),
            };
            return Err(Error::Shape { place, name, expected, found, hint });
        }
        if !first.f_equal(&second)? {
            let message = format!("{place}: `{name}` and `{}` should be equal: the head is tied", self.first);
            return Err(Error::Input(message));
        }
        Ok(())
    }

    fn turn(&self, first: &Tensor) -> Result<Tensor> {
        let first = first.f_detach()?;
        if self.turned { Ok(first.f_tr()?) } else { Ok(first) }
    }
}
