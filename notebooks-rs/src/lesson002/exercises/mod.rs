//! "Exercises": all six.

mod combination;
mod dropout;
mod feed_forward;
mod four_bits;
mod parallel;
mod prefix_mlp;

pub use combination::Combined;
pub use dropout::{Dropout, DroppedLora};
pub use feed_forward::FeedForward;
pub use four_bits::{Nf4ByHand, QuantisedLora};
pub use parallel::ParallelAdapter;
pub use prefix_mlp::PrefixMlp;

use super::tensors::Source;
use crate::{Page, Setting};
use anyhow::Result;

/// One after another; each says its number and its task, checks its gradients, and then what is special about it.
pub fn section(setting: Setting, page: &mut Page) -> Result<()> {
    tch::manual_seed(setting.seed);
    let source = Source(setting.device);
    let to_see = [
        feed_forward::solve(page, source)?,
        dropout::solve(page, source)?,
        parallel::solve(page, source)?,
        prefix_mlp::solve(page, source)?,
        combination::solve(page, source)?,
        four_bits::solve(page, source)?,
    ];
    page.what_to_see(&to_see)?;
    Ok(())
}

/// `3. Parallel adapter: ..`
fn task(page: &mut Page, number: usize, text: &str) -> Result<()> {
    if number > 1 {
        page.line("")?;
    }
    page.line(format!("{number}. {text}"))?;
    Ok(())
}
