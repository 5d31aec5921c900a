//! Text generation: greedy or sampled, for rows of different length, over any view of a causal model.

mod processors;
mod sampling;
mod settings;

pub use processors::LogitsProcessors;
pub use sampling::Sampling;
pub use settings::GenerationSettings;

use crate::check;
use crate::error::{Error, Result};
use crate::generate::processors::Text;
use crate::generate::sampling::{Draws, drawn};
use crate::run::Model;
use crate::seam::Batch;
pub use crate::seam::cache::KvCache;
use crate::seam::{Pass, Wanted};
use tch::{Device, Kind, Tensor};

/// How [`generate`] makes text: how long, where it ends, and how each token is chosen. The default is greedy, 20 tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateConfig {
    /// The most new tokens that a row gets; it gets fewer where one of `eos_token_ids` comes first.
    pub max_new_tokens: i64,
    /// The most tokens that a row may have with its prompt, which counts as long as the batch's longest. Where it is given,
    /// `max_new_tokens` does not count.
    pub max_length: Option<i64>,
    /// Token ids that end a row: it gets no more tokens after one of them, which itself is part of the text.
    pub eos_token_ids: Vec<i64>,
    /// The id that fills the result behind the end of a row, so that all rows are equally long.
    pub pad_token_id: i64,
    /// What changes the logits before a token is chosen by them: penalties, tokens that are forbidden or forced.
    pub processors: LogitsProcessors,
    /// How tokens are drawn; `None` takes the likeliest token each time, which is called greedy.
    pub sampling: Option<Sampling>,
    /// Whether keys and values of the tokens so far are kept. Without them every new token costs a pass over the whole text.
    pub use_cache: bool,
}

impl Default for GenerateConfig {
    fn default() -> Self {
        Self {
            max_new_tokens: 20,
            max_length: None,
            eos_token_ids: Vec::new(),
            pad_token_id: 0,
            processors: LogitsProcessors::default(),
            sampling: None,
            use_cache: true,
        }
    }
}

/// What errors call settings that come from no file.
const PLACE: &str = "generation";

impl GenerateConfig {
    /// Refuses a setting that cannot be; `place` is what the error calls its file.
    fn check(&self, place: &str) -> Result<()> {
        check::positive(place, "max_new_tokens", self.max_new_tokens)?;
        self.processors.check(place)?;
        self.sampling.as_ref().map_or(Ok(()), |sampling| sampling.check(place))
    }

    /// New tokens behind a prompt of that length.
    fn new_tokens(&self, prompt: i64) -> Result<i64> {
        let Some(all) = self.max_length else { return Ok(self.max_new_tokens) };
        let new = all.saturating_sub(prompt);
        if new > 0 {
            return Ok(new);
        }
        let message = format!("is {all}, and the prompt has {prompt} tokens already: nothing can be said");
        Err(Error::config(PLACE, "max_length", message))
    }

    /// Ids that the model does not have could not be met, or not be read on.
    fn check_ids(&self, vocab: i64) -> Result<()> {
        let ends = self.eos_token_ids.iter().map(|id| ("eos_token_ids", *id));
        let ids = ends.chain([("pad_token_id", self.pad_token_id)]).chain(self.processors.ids());
        let wrong = ids.into_iter().find(|(_, id)| !(0..vocab).contains(id));
        wrong.map_or(Ok(()), |(field, id)| {
            let message = format!("{id} is outside the model's vocabulary of {vocab}");
            Err(Error::config(PLACE, field, message))
        })
    }
}

/// The new tokens of each row of `batch`, `[batch, n]` with `n ≤ max_new_tokens`; behind a row's end there is padding.
///
/// Rows of different length are padded on the left or on the right, and say so in the batch's mask: a row's text is
/// what it is alone. (Where layers have a sliding window, padding on the left does count as distance to a prompt before
/// it. Frequencies of [`RopeType::Dynamic`](crate::models::RopeType) are those of the longest row, and `max_length` and
/// `min_length` count its prompt.) Nothing is recorded for gradients.
///
/// # Errors
/// A setting that cannot be, a row without a token, a model that is not causal, more tokens than it has positions, and
/// [`Error::NonFinite`] for logits that are not finite; settings that forbid every token.
pub fn generate(model: &dyn Model, batch: &Batch, config: &GenerateConfig) -> Result<Tensor> {
    config.check(PLACE)?;
    let _guard = tch::no_grad_guard();
    let prompt = aligned(batch)?;
    let mut ids = prompt.ids()?.shallow_clone();
    let (rows, length) = ids.size2()?;
    let most = config.new_tokens(length)?;
    let mut written = Text::new(&prompt, most)?;
    let mask = prompt.mask.map(|m| {
        let new = Tensor::f_ones([rows, most], (m.kind(), m.device()))?;
        Tensor::f_cat(&[&m, &new], 1)
    });
    let mask = mask.transpose()?;
    let mut draws = config.sampling.as_ref().map(|s| (s, Draws(s.seed)));
    let cache = KvCache::new();
    let pass = Pass { cache: config.use_cache.then_some(&cache), wanted: Wanted::Last, ..Pass::eval() };
    let mut ended = Tensor::f_zeros([rows], (Kind::Bool, ids.device()))?;
    let mut text = Vec::new();
    for step in 0..most {
        let seen = mask.as_ref().map(|m| m.f_narrow(1, 0, length.saturating_add(step))).transpose()?;
        let logits = model.forward(&Batch { mask: seen, ..Batch::dense(ids.shallow_clone()) }, pass)?;
        let &[_, 1, vocab] = logits.size().as_slice() else {
            return Err(Error::Input("this model is not causal: it has no logits for a next token".into()));
        };
        if step == 0 {
            config.check_ids(vocab)?;
        }
        let logits = logits.f_view([rows, vocab])?;
        let scores = config.processors.apply(&logits, &written, &config.eos_token_ids)?;
        let next = match &mut draws {
            Some((sampling, draws)) => drawn(&scores, sampling, draws)?,
            None => scores.f_argmax(-1, false)?,
        };
        let best = logits.f_amax(-1, false)?;
        let going = ended.f_logical_not()?;
        let broken = best.f_isfinite()?.f_logical_not()?.f_logical_and(&going)?;
        let mute = scores.f_amax(-1, false)?.f_eq(f64::NEG_INFINITY)?.f_logical_and(&going)?;
        let next = next.f_masked_fill(&ended, config.pad_token_id)?;
        for end in &config.eos_token_ids {
            ended = ended.f_logical_or(&next.f_eq(*end)?)?;
        }
        let next = next.f_unsqueeze(1)?;
        text.push(next.shallow_clone());
        // One look at the device a token.
        let flags = Tensor::f_stack(&[broken.f_any()?, ended.f_all()?, mute.f_any()?], 0)?
            .f_to_device(Device::Cpu)?;
        if flags.f_int64_value(&[0])? != 0 {
            let value = best.f_masked_select(&broken)?.f_double_value(&[0])?;
            let step = u64::try_from(step).unwrap_or_default();
            return Err(Error::NonFinite { what: "a logit", value, step, rows: Vec::new() });
        }
        if flags.f_int64_value(&[2])? != 0 {
            let message = format!("the settings forbid every token at step {step}: nothing is left to say");
            return Err(Error::config(PLACE, "processors", message));
        }
        if flags.f_int64_value(&[1])? != 0 {
            break;
        }
        written.push(&next)?;
        ids = if config.use_cache { next } else { Tensor::f_cat(&[&ids, &next], 1)? };
    }
    Ok(Tensor::f_cat(&text, 1)?)
}

/// The batch with all its padding on the left, so that every row ends with a token.
fn aligned(batch: &Batch) -> Result<Batch> {
    let ids = batch.ids()?.shallow_clone();
    let &[_, length] = ids.size().as_slice() else {
        return Err(Error::Input(format!("ids of shape {:?}, expected [batch, length]", ids.size())));
    };
    if ids.numel() == 0 {
        return Err(Error::Input("there is no token to go on from".into()));
    }
    batch.check_mask(0)?;
    batch.check_untyped()?;
    batch.check_unpacked()?;
    let Some(mask) = &batch.mask else { return Ok(Batch::dense(ids)) };
    let real = mask.f_ne(0)?.f_flip([1])?.f_cumsum(1, Kind::Int64)?;
    let right = real.f_eq(0)?.f_sum_dim_intlist(1, true, Kind::Int64)?;
    if right.f_max()?.f_int64_value(&[])? >= length {
        return Err(Error::Input(
            "a row of the batch is all padding: there is no token to go on from".into(),
        ));
    }
    let all = Tensor::f_arange(length, (Kind::Int64, ids.device()))?;
    let from = all.f_unsqueeze(0)?.f_sub(&right)?.f_remainder(length)?;
    let (ids, mask) = (ids.f_gather(1, &from, false)?, mask.f_gather(1, &from, false)?);
    Ok(Batch::masked(ids, mask))
}
