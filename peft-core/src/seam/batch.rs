//! What goes into a model: a batch, and what of it enters the first layer.

use crate::error::{Error, Result};
use crate::seam::attention::lowest;
use crate::seam::documents::Documents;
use crate::seam::pass::Pass;
use std::fmt::Debug;
use tch::{Kind, Tensor};

/// What goes into a model at once, a row an example.
#[derive(Debug)]
pub struct Batch {
    /// Token ids, or numbers of any kind.
    pub data: Data,
    /// `[batch, length]`, 1 for real tokens and 0 for padding; `None` when all are real. With a cache,
    /// `[batch, cached tokens + length]`.
    pub mask: Option<Tensor>,
    /// `[batch, length]`, which text of a pair each token is of, for models that were trained with such types (BERT);
    /// `None` is type 0 throughout.
    pub token_types: Option<Tensor>,
    /// The texts of which rows are made that are [packed](Batch::packed); `None` where each row is one.
    pub documents: Option<Documents>,
}

/// What the rows of a [`Batch`] are made of.
#[derive(Debug)]
pub enum Data {
    /// Token ids, `[batch, length]`, int64.
    Ids(Tensor),
    /// Whatever a model takes that does not read tokens, `[batch, ..]`.
    Features(Tensor),
}

impl Batch {
    /// A batch of token ids `[batch, length]` without padding.
    pub fn dense(ids: Tensor) -> Self {
        Self { data: Data::Ids(ids), mask: None, token_types: None, documents: None }
    }

    /// A batch of token ids `[batch, length]`, and which of them are real: 1, and 0 for padding.
    pub fn masked(ids: Tensor, mask: Tensor) -> Self {
        Self { mask: Some(mask), ..Self::dense(ids) }
    }

    /// A batch of features `[batch, ..]`, for a model that does not read tokens.
    pub fn of_features(features: Tensor) -> Self {
        Self { data: Data::Features(features), mask: None, token_types: None, documents: None }
    }

    /// The token ids.
    ///
    /// # Errors
    /// A batch of features.
    pub fn ids(&self) -> Result<&Tensor> {
        match &self.data {
            Data::Ids(ids) => Ok(ids),
            Data::Features(_) => Err(Error::Input("token ids are needed, and the batch has features".into())),
        }
    }

    /// The features.
    ///
    /// # Errors
    /// A batch of token ids.
    pub fn features(&self) -> Result<&Tensor> {
        match &self.data {
            Data::Features(features) => Ok(features),
            Data::Ids(_) => Err(Error::Input("features are needed, and the batch has token ids".into())),
        }
    }

    /// With the token types of rows that were [padded](Batch::padded): 0 for padding.
    ///
    /// # Errors
    /// Other rows than those of the ids.
    pub fn typed<R: AsRef<[i64]>>(self, rows: &[R]) -> Result<Self> {
        let types = Self::padded(rows, 0, self.ids()?.device())?;
        let typed = Self { token_types: Some(types.ids()?.shallow_clone()), ..self };
        typed.check_types_shape()?;
        Ok(typed)
    }

    /// With rows that are several texts each, for a causal model to learn as if each were alone.
    ///
    /// # Errors
    /// Other rows than those of the ids, or texts that are longer than they.
    pub fn packed(self, documents: Documents) -> Result<Self> {
        documents.check(self.ids()?.size2()?)?;
        Ok(Self { documents: Some(documents), ..self })
    }

    /// Rows of ids, padded on the right with `pad` to the longest of them.
    ///
    /// # Errors
    /// No row, or one without an id.
    pub fn padded<R: AsRef<[i64]>>(rows: &[R], pad: i64, device: tch::Device) -> Result<Self> {
        let longest = rows.iter().map(|row| row.as_ref().len()).max().unwrap_or_default();
        let (mut ids, mut mask) = (Vec::new(), Vec::new());
        for (number, row) in (1..).zip(rows) {
            let row = row.as_ref();
            if row.is_empty() {
                return Err(Error::Input(format!("row {number} of {} has no token", rows.len())));
            }
            let padding = longest.saturating_sub(row.len());
            ids.extend(row.iter().copied().chain(std::iter::repeat_n(pad, padding)));
            mask.extend(std::iter::repeat_n(1i64, row.len()).chain(std::iter::repeat_n(0, padding)));
        }
        if rows.is_empty() {
            return Err(Error::Input("a batch without rows".into()));
        }
        let padded = mask.contains(&0);
        let shape = [rows.len(), longest].map(|n| i64::try_from(n).unwrap_or(i64::MAX));
        let tensor =
            |v: &[i64]| -> Result<Tensor> { Ok(Tensor::f_from_slice(v)?.f_view(shape)?.f_to(device)?) };
        let mask = padded.then(|| tensor(&mask)).transpose()?;
        Ok(Self { mask, ..Self::dense(tensor(&ids)?) })
    }

    /// The labels of a causal model that learns to go on as these rows do: the ids, and −100 for padding and what
    /// [nothing predicts](Batch::predicted). See [`next_token_loss`](crate::train::next_token_loss).
    pub fn next_token_labels(&self) -> Result<Tensor> {
        match &self.mask {
            Some(mask) => self.predicted(self.ids()?.f_masked_fill(&mask.f_eq(0)?, -100)?),
            None => self.predicted(self.ids()?.shallow_clone()),
        }
    }

    /// `labels` `[batch, length]` with −100 where a packed text begins: the one before does not predict it.
    pub fn predicted(&self, labels: Tensor) -> Result<Tensor> {
        let Some(documents) = &self.documents else { return Ok(labels) };
        let first = documents.positions(labels.size2()?.1, labels.device())?.f_eq(0)?;
        Ok(labels.f_masked_fill(&first, -100)?)
    }

    /// Checks that there is an id, and that every one is below `vocab`. The ids themselves on the CPU alone: elsewhere it
    /// would make the device wait, and ids are checked where they are made ([`crate::text`]).
    pub fn check_ids(&self, vocab: i64) -> Result<()> {
        let ids = self.ids()?;
        if ids.dim() != 2 {
            return Err(Error::Input(format!("ids of shape {:?}, expected [batch, length]", ids.size())));
        }
        if ids.numel() == 0 {
            return Err(Error::Input(format!("ids of shape {:?}: there is no token in it", ids.size())));
        }
        match outside(ids, vocab)? {
            Some(id) => {
                Err(Error::Input(format!("token id {id} is outside the model's vocabulary of {vocab}")))
            }
            None => Ok(()),
        }
    }

    /// Checks that the mask covers `cached` earlier tokens and those of the batch.
    pub fn check_mask(&self, cached: i64) -> Result<()> {
        let (rows, length) = self.ids()?.size2()?;
        match self.mask.as_ref().map(Tensor::size) {
            Some(m) if m != [rows, length.saturating_add(cached)] => {
                let i = self.ids()?.size();
                let cache = if cached > 0 { format!(" after {cached} cached tokens") } else { String::new() };
                Err(Error::Input(format!("attention mask of shape {m:?} for ids of shape {i:?}{cache}")))
            }
            _ => Ok(()),
        }
    }

    /// Checks that there are no token types: for models that have no use for them.
    pub fn check_untyped(&self) -> Result<()> {
        match &self.token_types {
            Some(_) => Err(Error::Input("token types, of which this model has none".into())),
            None => Ok(()),
        }
    }

    /// Checks that no row is several texts: for what takes each row for one.
    pub fn check_unpacked(&self) -> Result<()> {
        match &self.documents {
            Some(_) => Err(Error::Input(
                "rows that are several texts each (packed) are for a causal model to learn: here each row is one".into(),
            )),
            None => Ok(()),
        }
    }

    fn check_types_shape(&self) -> Result<()> {
        let ids = self.ids()?.size();
        match self.token_types.as_ref().map(Tensor::size) {
            Some(types) if types != ids => {
                Err(Error::Input(format!("token types of shape {types:?} for ids of shape {ids:?}")))
            }
            _ => Ok(()),
        }
    }

    /// Checks that there is a token type below `types` for every id; on the CPU alone, as [`Batch::check_ids`].
    pub fn check_token_types(&self, types: i64) -> Result<()> {
        self.check_types_shape()?;
        let Some(all) = &self.token_types else { return Ok(()) };
        match outside(all, types)? {
            Some(found) => {
                let message = format!("token type {found}, of which the model has {types} from 0 on");
                Err(Error::Input(message))
            }
            None => Ok(()),
        }
    }

    /// The mask in the form that attention adds to its scores, `[batch, 1, 1, length]`, and for packed rows `[batch, 1,
    /// length, length]`: 0, and the dtype's lowest number for padding and between two texts.
    pub fn additive_mask(&self, kind: Kind) -> Result<Option<Tensor>> {
        let padding = self.mask.as_ref().map(|mask| -> Result<Tensor> {
            let hidden = mask.f_eq(0)?.f_unsqueeze(1)?.f_unsqueeze(1)?;
            let zeros = Tensor::f_zeros(hidden.size(), (kind, mask.device()))?;
            Ok(zeros.f_masked_fill(&hidden, lowest(kind))?)
        });
        let padding = padding.transpose()?;
        let Some(documents) = &self.documents else { return Ok(padding) };
        let (size, device) = (self.ids()?.size2()?, self.ids()?.device());
        documents.check(size)?;
        let apart = documents.additive_mask(size.1, (kind, device))?;
        Ok(Some(padding.map_or_else(|| Ok(apart.shallow_clone()), |padding| apart.f_minimum(&padding))?))
    }
}

/// A number that is not from 0 on below `end`, of those on the CPU.
pub(crate) fn outside(numbers: &Tensor, end: i64) -> Result<Option<i64>> {
    if numbers.device() != tch::Device::Cpu || numbers.numel() == 0 {
        return Ok(None);
    }
    let (low, high) = numbers.f_aminmax(None, false)?;
    let ends = [low.f_int64_value(&[])?, high.f_int64_value(&[])?];
    Ok(ends.into_iter().find(|n| !(0..end).contains(n)))
}

/// What enters the first layer; input-level methods rewrite it.
#[derive(Debug)]
pub struct Input {
    /// Word embeddings `[batch, length, hidden]`, before positions are added.
    pub embeds: Tensor,
    /// As [`Pass::mask`], without the causal part.
    pub mask: Option<Tensor>,
    /// Position of the first token.
    pub position: i64,
    /// How many leading rows of `embeds` are not tokens of the batch.
    pub virtual_tokens: i64,
}

/// Rewrites a model's input: prompts, and what shifts its positions.
pub trait Prompt: Debug + Send {
    /// The rewritten input.
    fn rewrite(&self, input: Input, pass: Pass<'_>) -> Result<Input>;
}
