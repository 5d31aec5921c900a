//! Batches of rows of like length, which have little padding.

use crate::error::{Error, Result};
use std::cmp::Reverse;

/// How many batches of rows are sorted at a time: enough that rows of a batch are nearly of one length, and few enough that
/// an epoch goes through the data in a new order each time.
const WINDOW: usize = 50;

/// Row numbers in an order whose batches, each `batch` of them from the first on, are of like length; `lengths` are those of
/// all rows. Of every 50 batches in `order` the rows are sorted by length, and their batches come in the order in which the
/// first row of each was drawn: long and short ones are mixed as `order` is. Nothing else is drawn, so the same order gives
/// the same batches. A batch that is not full comes last, as it does in `order`.
///
/// # Errors
/// A row that has no length; batches of no row.
///
/// ```
/// use peft_core::text::bucketed;
/// use peft_core::train::Shuffle;
///
/// # fn main() -> peft_core::Result<()> {
/// let lengths = [3, 90, 4, 88, 5, 91];
/// for rows in bucketed(&Shuffle::new(6, 0).epoch(1), &lengths, 3)?.chunks(3) {
///     let rows: Vec<usize> = rows.iter().map(|row| lengths[*row]).collect();
///     assert!(rows.iter().max() <= rows.iter().min().map(|least| least + 3).as_ref());
/// }
/// # Ok(())
/// # }
/// ```
pub fn bucketed(order: &[usize], lengths: &[usize], batch: usize) -> Result<Vec<usize>> {
    if batch == 0 {
        return Err(Error::Input("batches of no row: a row at least is expected".into()));
    }
    let mut all = Vec::new();
    for window in order.chunks(batch.saturating_mul(WINDOW)) {
        // Each row with its place in the order and its length.
        let placed = window.iter().enumerate().map(|(place, row)| {
            let missing = || Error::Input(format!("row {row} has no length: there are {}", lengths.len()));
            Ok((place, *row, *lengths.get(*row).ok_or_else(missing)?))
        });
        let mut rows = placed.collect::<Result<Vec<(usize, usize, usize)>>>()?;
        rows.sort_by_key(|(_, _, length)| Reverse(*length));
        let mut batches: Vec<&[(usize, usize, usize)]> = rows.chunks(batch).collect();
        batches.sort_by_key(|rows| (rows.len() < batch, rows.iter().map(|(place, ..)| *place).min()));
        all.extend(batches.concat().iter().map(|(_, row, _)| *row));
    }
    Ok(all)
}
