//! Another size of the vocabulary: rows for new tokens, in the word embedding and in the head.

use crate::error::{Error, Result};
use crate::io::adapter::Files;
use crate::peft::Peft;
use crate::peft::load::keys::vocabulary_of;
use crate::seam::Params;
use crate::{check, io};
use std::path::Path;
use tch::{Kind, Tensor};

/// The rows of the tokens that a vocabulary gains.
#[derive(Debug)]
pub enum NewRows {
    /// Drawn from libtorch's generator as transformers' `resize_token_embeddings` does: from N(mean, 10⁻⁹ · covariance) of
    /// the rows that there are, so that the new tokens begin as an average one (Hewitt 2021,
    /// <https://nlp.stanford.edu/~johnhew/vocab-expansion.html>). The same seed draws the same rows there and here.
    Drawn,
    /// Given, `[new tokens, hidden]` each.
    Given {
        words: Tensor,
        /// Those of a head that is not tied to the word embedding.
        head: Option<Tensor>,
    },
}

impl Peft {
    /// The same model with a vocabulary of `vocab` tokens, without adapters. Rows of tokens that remain stay as they are;
    /// a smaller vocabulary loses its last ones. A tied head follows the word embedding.
    ///
    /// ```
    /// # use peft_core::{NewRows, Peft};
    /// # use peft_core::models::TinyConfig;
    /// # fn main() -> peft_core::Result<()> {
    /// # let config = TinyConfig::default();
    /// # let peft = Peft::new(config.init(tch::Device::Cpu)?, config)?;
    /// let larger = peft.resized(103, NewRows::Drawn)?;
    /// assert_eq!(larger.outline().dims.sizes()?.vocab, 103);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// A size that is not positive, given rows of another shape, a model whose vocabulary cannot be resized, a head in 4
    /// bits.
    pub fn resized(&self, vocab: i64, new: NewRows) -> Result<Self> {
        let dims = &self.outline().dims;
        let wrong = |message: String| Error::config("resizing", "vocab", message);
        check::positive("resizing", "vocab", vocab)?;
        let Some(architecture) = self.architecture().resized(vocab) else {
            return Err(wrong(format!("{} has a fixed vocabulary", dims.model())));
        };
        let _guard = tch::no_grad_guard();
        let (sizes, head) = (dims.sizes()?, dims.head_weight().unwrap_or_default());
        let more = vocab.saturating_sub(sizes.vocab);
        let (given_words, given_head) = match new {
            NewRows::Drawn => (None, None),
            NewRows::Given { words, head } => (Some(words), head),
        };
        let drawn = given_words.is_none();
        let rows = |name: &str, old: &Tensor, given: Option<Tensor>| -> Result<Tensor> {
            if more <= 0 {
                return Ok(old.f_narrow(0, 0, vocab)?);
            }
            let expected = vec![more, old.size2()?.1];
            let rows = match given {
                Some(rows) if rows.size() == expected => {
                    rows.f_detach()?.f_to_kind(old.kind())?.f_to(old.device())?
                }
                None if drawn => drawn_rows(old, more)?,
                other => {
                    let found = other.map_or_else(|| "none".to_owned(), |t| format!("{:?}", t.size()));
                    return Err(wrong(format!(
                        "`{name}` needs new rows of shape {expected:?}, {found} are given"
                    )));
                }
            };
            Ok(Tensor::f_cat(&[old, &rows], 0)?)
        };
        let mut tensors = self.base().tensors();
        let words = sizes.word_embedding.clone();
        if let Some(old) = tensors.get(&words) {
            if drawn && more > 0 {
                let _ = Tensor::f_randn([vocab, old.size2()?.1], (Kind::Float, tch::Device::Cpu))?; // transformers' fresh layer
            }
            let resized = rows(&words, old, given_words)?;
            tensors.insert(words.clone(), resized);
        }
        let site = self.outline().sites.iter().find(|s| dims.is_head(&s.name));
        if site.is_some_and(|s| s.tied.is_none() && s.shape.first() == Some(&sizes.vocab)) && dims.causal() {
            let Some(old) = tensors.get(&head) else {
                let why = "it is in 4 bits, which have no rows to add".to_owned();
                return Err(Error::Unsupported { method: "resizing", site: head, why });
            };
            if drawn && more > 0 {
                let _ = Tensor::f_rand([vocab, old.size2()?.1], (Kind::Float, tch::Device::Cpu))?; // as above
            }
            let resized = rows(&head, old, given_head)?;
            tensors.insert(head, resized);
        }
        let params = Params::from_copies(self.base().label(), self.base().device(), tensors)?;
        self.base().nf4s().iter().try_for_each(|(name, w)| params.insert_nf4(name, w))?;
        self.remade(params, architecture.into())
    }

    /// The same model with the vocabulary of the adapter in `dir`, without adapters: where an adapter was trained on a model
    /// with tokens of its own, its file has the whole embedding, and so the new rows.
    ///
    /// # Errors
    /// A directory without an adapter, an adapter whose file has no embedding, and as [`Peft::resized`].
    pub fn resized_for(&self, dir: impl AsRef<Path>) -> Result<Self> {
        let (Files { tensors, .. }, file) = io::adapter::read(dir)?;
        let place = file.display().to_string();
        let [words, head] = vocabulary_of(tensors, self.outline(), &place)?;
        let dims = &self.outline().dims;
        let (sizes, head_weight) = (dims.sizes()?, dims.head_weight().unwrap_or_default());
        let tied = self.outline().stored_name(&head_weight) == sizes.word_embedding;
        let lacks = |what: &str| {
            let message = format!(
                "has no `{what}`, so it does not say what the new rows of that are: open the base that the adapter was \
                 trained on"
            );
            Error::format(&file, message)
        };
        let words = words.or_else(|| head.as_ref().filter(|_| tied).map(Tensor::shallow_clone));
        let words = words.ok_or_else(|| lacks(&sizes.word_embedding))?;
        let (old, new) = (sizes.vocab, words.size2()?.0);
        if new > old && dims.causal() && !tied && head.is_none() {
            return Err(lacks(&head_weight));
        }
        let more = |t: &Tensor| t.f_narrow(0, old.min(new), new.saturating_sub(old).max(0));
        let head = head.as_ref().map(more).transpose()?;
        self.resized(new, NewRows::Given { words: more(&words)?, head })
    }
}

/// `more` rows like those of `old`.
fn drawn_rows(old: &Tensor, more: i64) -> Result<Tensor> {
    let f = old.f_to_kind(Kind::Float)?.f_to(tch::Device::Cpu)?;
    let (count, width) = f.size2()?;
    let mean = f.f_mean_dim(0i64, false, None::<Kind>)?;
    let centred = f.f_sub(&mean)?;
    let covariance = centred.f_tr()?.f_matmul(&centred)?.f_div_scalar(count)?.f_mul_scalar(1e-9)?;
    // In f32 a covariance of many dimensions may fail to be positive: the mean alone is drawn then, as there.
    let (factor, info) = Tensor::f_linalg_cholesky_ex(&covariance, false, false)?;
    let rows = match info.f_int64_value(&[])? {
        0 => {
            let draws = Tensor::f_randn([more, width], (Kind::Float, tch::Device::Cpu))?;
            mean.f_add(&draws.f_matmul(&factor.f_tr()?)?)?
        }
        _ => mean.f_unsqueeze(0)?.f_repeat([more, 1])?,
    };
    Ok(rows.f_to_kind(old.kind())?.f_to(old.device())?)
}
