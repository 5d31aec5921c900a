//! From a file's rows to what a causal model is trained on, with everything that should be said of it.

use crate::error::Result;
use crate::io::TokenIds;
use crate::text::{ChatTemplate, Corpus, Example, Learn, Sequences, TextEncoder};
use crate::warning::Warning;

/// How a corpus is prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Preparation {
    /// What is learned of chats.
    pub learn: Learn,
    /// Rows of several texts, of at most so many tokens ([`Sequences::packed`]); `None` for a row a text.
    pub pack: Option<usize>,
}

/// What a causal model is trained on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    pub sequences: Sequences,
    /// Those of the corpus, and what of it is cut, left out or never ends.
    pub warnings: Vec<Warning>,
}

impl TextEncoder {
    /// What a causal model learns of a corpus: [`TextEncoder::examples`] with the model's first end of a text, and what
    /// should be said of them. Training, checking and showing data prepare it in this one way.
    ///
    /// # Errors
    /// As [`TextEncoder::examples`] and [`Sequences::packed`].
    pub fn prepare(
        &self,
        corpus: &Corpus,
        ids: &TokenIds,
        template: Option<&ChatTemplate>,
        how: Preparation,
    ) -> Result<Prepared> {
        let sequences = self.examples(&corpus.rows, ids.eos.first().copied(), template, how.learn)?;
        let mut warnings = corpus.warnings.clone();
        let (all, most) = (corpus.rows.len(), self.longest);
        let mut say = |field: &str, message: String| {
            warnings.push(Warning::new(corpus.path.display(), field, message));
        };
        if sequences.truncated > 0 {
            say("rows", format!("{} of {all} are longer than {most} tokens: cut", sequences.truncated));
        }
        if sequences.dropped > 0 {
            let dropped = sequences.dropped;
            say("rows", format!("{dropped} of {all} are left out: the cut leaves nothing to learn of them"));
        }
        let chats = corpus.rows.iter().any(|row| matches!(row, Example::Chat { .. }));
        if !ids.eos.is_empty() {
            let (unended, ends) = (unended(&sequences, &ids.eos), &ids.eos);
            if unended > 0 {
                say(
                    "rows",
                    format!(
                        "{unended} of {all} are learned without an end of the text (eos_token_id {ends:?}): the model does \
                         not learn to stop there"
                    ),
                );
            }
        } else if !chats {
            say(
                "rows",
                "end as they are: the model names no end of a text (eos_token_id), so none is learned".into(),
            );
        }
        let sequences = match how.pack {
            Some(length) => sequences.packed(length)?,
            None => sequences,
        };
        Ok(Prepared { sequences, warnings })
    }
}

/// How many rows are whole and have no end among what is learned.
fn unended(sequences: &Sequences, ends: &[i64]) -> usize {
    let ended = |(ids, learned): (&Vec<i64>, &Vec<bool>)| {
        ids.iter().zip(learned).any(|(id, learned)| *learned && ends.contains(id))
    };
    let rows = sequences.ids.iter().zip(&sequences.learned).zip(&sequences.documents);
    rows.filter(|(row, documents)| documents.iter().all(|d| !d.cut) && !ended(*row)).count()
}
