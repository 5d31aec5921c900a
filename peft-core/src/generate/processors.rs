//! What logits go through before a token is taken: transformers' logits processors, in its order.

use crate::check;
use crate::error::{Error, Result};
use crate::seam::Batch;
use tch::{Kind, Tensor};

/// Settings that change the logits of the next token, by their names in `generation_config.json`; the default changes
/// nothing. Tokens of the prompt count as those that are generated do, padding and virtual tokens do not.
#[derive(Debug, Clone, PartialEq)]
pub struct LogitsProcessors {
    /// Sequences of token ids, and a number each, which is added to the logit of the sequence's last token wherever the text
    /// ends with those before it.
    pub sequence_bias: Vec<(Vec<i64>, f64)>,
    /// By what the logits of tokens that the text has already are divided if they are positive, and multiplied if they are
    /// negative: above 1 they come again less often, 1 changes nothing. Keskar et al. 2019, <https://arxiv.org/abs/1909.05858>.
    pub repetition_penalty: f64,
    /// How long a sequence of tokens is that may not come twice; 0 lets all come again.
    pub no_repeat_ngram_size: i64,
    /// Sequences of token ids that the text may not have.
    pub bad_words_ids: Vec<Vec<i64>>,
    /// How many tokens a row has at least, with its prompt and the padding before that: until then no token ends it.
    pub min_length: i64,
    /// How many new tokens a row has at least: until then no token ends it.
    pub min_new_tokens: i64,
    /// The id that a prompt of a single token is continued with; `None` leaves it open.
    pub forced_bos_token_id: Option<i64>,
    /// Ids, of which the last token that a row may have is one; with none it is any token.
    pub forced_eos_token_id: Vec<i64>,
    /// `(start, factor)`: after `start` new tokens, the logits `x` of the tokens that end a row become
    /// `x + |x| (factorⁿ − 1)` at the n-th token from there. So long texts end sooner.
    pub exponential_decay_length_penalty: Option<(i64, f64)>,
    /// Ids of tokens that the text may not have. Ids that the model does not have are passed over.
    pub suppress_tokens: Vec<i64>,
    /// Ids of tokens that the text may not begin with.
    pub begin_suppress_tokens: Vec<i64>,
}

impl Default for LogitsProcessors {
    fn default() -> Self {
        Self {
            sequence_bias: Vec::new(),
            repetition_penalty: 1.0,
            no_repeat_ngram_size: 0,
            bad_words_ids: Vec::new(),
            min_length: 0,
            min_new_tokens: 0,
            forced_bos_token_id: None,
            forced_eos_token_id: Vec::new(),
            exponential_decay_length_penalty: None,
            suppress_tokens: Vec::new(),
            begin_suppress_tokens: Vec::new(),
        }
    }
}

impl LogitsProcessors {
    pub(super) fn check(&self, place: &str) -> Result<()> {
        let wrong = |field: &str, message: String| Err(Error::config(place, field, message));
        let penalty = self.repetition_penalty;
        let is = penalty > 0.0 && penalty.is_finite();
        check::should_be(is, "above 0", place, "repetition_penalty", penalty)?;
        for (field, value) in [
            ("no_repeat_ngram_size", self.no_repeat_ngram_size),
            ("min_length", self.min_length),
            ("min_new_tokens", self.min_new_tokens),
        ] {
            if value < 0 {
                return wrong(field, format!("should not be below 0, is {value}"));
            }
        }
        let empty = |field: &str| wrong(field, "has a sequence without tokens".to_owned());
        match self {
            _ if self.bad_words_ids.iter().any(Vec::is_empty) => empty("bad_words_ids"),
            _ if self.sequence_bias.iter().any(|(s, _)| s.is_empty()) => empty("sequence_bias"),
            _ => Ok(()),
        }
    }

    /// All ids that the model must have, with their fields.
    pub(super) fn ids(&self) -> impl Iterator<Item = (&'static str, i64)> {
        let biased = self.sequence_bias.iter().flat_map(|(s, _)| s).map(|id| ("sequence_bias", *id));
        let bad = self.bad_words_ids.iter().flatten().map(|id| ("bad_words_ids", *id));
        let first = self.forced_bos_token_id.iter().map(|id| ("forced_bos_token_id", *id));
        let last = self.forced_eos_token_id.iter().map(|id| ("forced_eos_token_id", *id));
        biased.chain(bad).chain(first).chain(last)
    }

    /// `logits` `[rows, vocab]` of what comes behind `text`, in f32 where anything is asked for.
    pub(super) fn apply(&self, logits: &Tensor, text: &Text, ends: &[i64]) -> Result<Tensor> {
        if *self == Self::default() {
            return Ok(logits.shallow_clone());
        }
        let mut x = logits.f_to_kind(Kind::Float)?;
        let new = text.length()?.saturating_sub(text.prompt);
        if !self.sequence_bias.is_empty() {
            x = x.f_add(&bias(&x, text, self.sequence_bias.iter().map(|(s, by)| (s.as_slice(), *by)))?)?;
        }
        if self.repetition_penalty != 1.0 {
            x = penalised(&x, text, self.repetition_penalty)?;
        }
        if self.no_repeat_ngram_size > 0 {
            x = without_repeats(x, text, self.no_repeat_ngram_size)?;
        }
        if !self.bad_words_ids.is_empty() {
            // An end is not bad.
            let bad =
                self.bad_words_ids.iter().filter(|s| !matches!(s.as_slice(), [id] if ends.contains(id)));
            x = x.f_add(&bias(&x, text, bad.map(|s| (s.as_slice(), f64::NEG_INFINITY)))?)?;
        }
        if text.length()? < self.min_length || new < self.min_new_tokens {
            x = without(x, ends)?;
        }
        if let Some(first) = self.forced_bos_token_id.filter(|_| matches!(text.length(), Ok(1))) {
            x = only(&x, &[first])?;
        }
        if !self.forced_eos_token_id.is_empty() && text.length()?.saturating_add(1) == text.end {
            x = only(&x, &self.forced_eos_token_id)?;
        }
        if let Some((start, factor)) = self.exponential_decay_length_penalty.filter(|(start, _)| new > *start)
        {
            x = nearer_the_end(&x, factor.powf(new.saturating_sub(start) as f64), ends)?;
        }
        x = without(x, &self.suppress_tokens)?;
        let begin = if text.prompt == 1 && self.forced_bos_token_id.is_some() { 1 } else { 0 };
        if new == begin { without(x, &self.begin_suppress_tokens) } else { Ok(x) }
    }
}

/// The tokens so far, prompt included.
#[derive(Debug)]
pub(super) struct Text {
    /// `[rows, t]`, −1 for padding.
    ids: Tensor,
    /// How many of them are the prompt's.
    prompt: i64,
    /// How many there can be.
    end: i64,
}

impl Text {
    /// A prompt, padded on the left, that `new` tokens can follow.
    pub fn new(prompt: &Batch, new: i64) -> Result<Self> {
        let ids = match &prompt.mask {
            Some(mask) => prompt.ids()?.f_masked_fill(&mask.f_eq(0)?, -1)?,
            None => prompt.ids()?.shallow_clone(),
        };
        let length = ids.size2()?.1;
        Ok(Self { ids, prompt: length, end: length.saturating_add(new) })
    }

    /// Adds a token a row, `[rows, 1]`.
    pub fn push(&mut self, next: &Tensor) -> Result<()> {
        self.ids = Tensor::f_cat(&[&self.ids, next], 1)?;
        Ok(())
    }

    fn length(&self) -> Result<i64> {
        Ok(self.ids.size2()?.1)
    }
}

/// What is added to the last token of each sequence, in the rows that end with the tokens before it.
fn bias<'a>(x: &Tensor, text: &Text, sequences: impl Iterator<Item = (&'a [i64], f64)>) -> Result<Tensor> {
    let bias = x.f_zeros_like()?;
    let (rows, length) = text.ids.size2()?;
    for (sequence, by) in sequences {
        let Some((last, before)) = sequence.split_last() else { continue };
        let n = i64::try_from(before.len()).unwrap_or(i64::MAX);
        if n > length {
            continue;
        }
        let before = Tensor::f_from_slice(before)?.f_to(x.device())?;
        let said =
            text.ids.f_narrow(1, length.saturating_sub(n), n)?.f_eq_tensor(&before)?.f_all_dim(1, false)?;
        let zeros = Tensor::f_zeros([rows], (x.kind(), x.device()))?;
        let _ = bias.f_select(1, *last)?.f_add_(&zeros.f_masked_fill(&said, by)?)?;
    }
    Ok(bias)
}

fn penalised(x: &Tensor, text: &Text, penalty: f64) -> Result<Tensor> {
    let (spare, ids) = with_spare(x, &text.ids)?;
    let said = spare.f_gather(1, &ids, false)?;
    let less = said.f_mul_scalar(penalty)?.f_where_self(&said.f_lt(0.0)?, &said.f_div_scalar(penalty)?)?;
    Ok(spare.f_scatter(1, &ids, &less)?.f_narrow(1, 0, x.size2()?.1)?)
}

/// Without the tokens that would make a sequence of `n` a second time: those that end a window of the text which starts
/// with its last n − 1 tokens.
fn without_repeats(x: Tensor, text: &Text, n: i64) -> Result<Tensor> {
    let length = text.length()?;
    if length < n {
        return Ok(x);
    }
    let before = n.saturating_sub(1);
    let windows = text.ids.f_unfold(1, n, 1)?;
    let suffix = text.ids.f_narrow(1, length.saturating_sub(before), before)?;
    let starts = windows.f_narrow(2, 0, before)?.f_eq_tensor(&suffix.f_unsqueeze(1)?)?.f_all_dim(2, false)?;
    let last = windows.f_select(2, before)?.f_masked_fill(&starts.f_logical_not()?, -1)?;
    let (spare, ids) = with_spare(&x, &last)?;
    let banned = spare.f_zeros_like()?.f_scatter_value(1, &ids, 1.0)?.f_narrow(1, 0, x.size2()?.1)?;
    Ok(x.f_masked_fill(&banned.f_ne(0.0)?, f64::NEG_INFINITY)?)
}

/// The logits with one more column, and the ids with that column for those that have none.
fn with_spare(x: &Tensor, ids: &Tensor) -> Result<(Tensor, Tensor)> {
    let vocab = x.size2()?.1;
    let none = ids.f_lt(0)?.f_logical_or(&ids.f_ge(vocab)?)?;
    Ok((x.f_constant_pad_nd([0, 1])?, ids.f_masked_fill(&none, vocab)?))
}

/// The columns of those ids that there are columns for.
fn columns(x: &Tensor, ids: &[i64]) -> Result<Tensor> {
    let vocab = x.size2()?.1;
    let ids: Vec<i64> = ids.iter().copied().filter(|id| (0..vocab).contains(id)).collect();
    Ok(Tensor::f_from_slice(&ids)?.f_to(x.device())?)
}

fn without(x: Tensor, ids: &[i64]) -> Result<Tensor> {
    if ids.is_empty() {
        return Ok(x);
    }
    Ok(x.f_index_fill(1, &columns(&x, ids)?, f64::NEG_INFINITY)?)
}

fn only(x: &Tensor, ids: &[i64]) -> Result<Tensor> {
    Ok(x.f_full_like(f64::NEG_INFINITY)?.f_index_fill(1, &columns(x, ids)?, 0.0)?)
}

fn nearer_the_end(x: &Tensor, factor: f64, ends: &[i64]) -> Result<Tensor> {
    let columns = columns(x, ends)?;
    let logits = x.f_index_select(1, &columns)?;
    let more = logits.f_abs()?.f_mul_scalar(factor - 1.0)?;
    let more = more.f_masked_fill(&logits.f_isfinite()?.f_logical_not()?, 0.0)?;
    Ok(x.f_index_add(1, &columns, &more)?)
}
