//! Where in its data a run is.

use crate::error::{Error, Result};
use crate::text::bucketed;
use crate::train::Shuffle;
use serde::{Deserialize, Serialize};

/// The order in which a run takes its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Another random one each epoch ([`Shuffle`]).
    #[default]
    Shuffled,
    /// Random, with rows of like length in one batch, so that there is little padding.
    ByLength,
    /// As the data have them.
    AsIs,
}

/// The batches of one epoch after another. What it is at follows from the seed, the epoch and the number of batches that
/// were taken.
#[derive(Debug)]
pub(super) struct Cursor {
    lengths: Vec<usize>,
    order: Order,
    batch: usize,
    seed: u64,
    pub epoch: u64,
    /// How many batches of the epoch were taken.
    pub taken: usize,
    batches: Vec<Vec<usize>>,
}

impl Cursor {
    /// At the first batch of epoch 0. `lengths` are those of the rows.
    pub fn new(lengths: Vec<usize>, order: Order, batch: usize, seed: u64) -> Result<Self> {
        if lengths.is_empty() {
            return Err(Error::Input("there are no rows to train on".into()));
        }
        if batch == 0 {
            return Err(Error::config("run", "batch", "is 0, expected a positive number of rows a step"));
        }
        let mut cursor = Self { lengths, order, batch, seed, epoch: 0, taken: 0, batches: Vec::new() };
        cursor.batches = cursor.epoch(0)?;
        Ok(cursor)
    }

    /// Steps an epoch takes.
    pub fn steps(&self) -> u64 {
        self.batches.len() as u64
    }

    pub fn rows(&self) -> usize {
        self.lengths.len()
    }

    /// The batches of an epoch.
    fn epoch(&self, epoch: u64) -> Result<Vec<Vec<usize>>> {
        let batches = |rows: &[usize]| rows.chunks(self.batch).map(<[usize]>::to_vec).collect::<Vec<_>>();
        let shuffled = || Shuffle::new(self.rows(), self.seed).epoch(epoch);
        Ok(match self.order {
            Order::AsIs => batches(&(0..self.rows()).collect::<Vec<_>>()),
            Order::Shuffled => batches(&shuffled()),
            Order::ByLength => batches(&bucketed(&shuffled(), &self.lengths, self.batch)?),
        })
    }

    /// The rows of the next batch.
    pub fn rows_ahead(&self) -> &[usize] {
        self.batches.get(self.taken).map_or(&[], Vec::as_slice)
    }

    /// Goes on to the next batch.
    pub fn advance(&mut self) -> Result<()> {
        self.taken = self.taken.saturating_add(1);
        if self.taken >= self.batches.len() {
            self.seek(self.epoch.saturating_add(1), 0)?;
        }
        Ok(())
    }

    /// Goes to where `taken` batches of an epoch were taken.
    pub fn seek(&mut self, epoch: u64, taken: usize) -> Result<()> {
        self.batches = self.epoch(epoch)?;
        (self.epoch, self.taken) = (epoch, taken);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(n: usize) -> Vec<usize> {
        (0..n).map(|i| (i * 7919) % 97 + 1).collect()
    }

    #[test]
    fn every_row_once_an_epoch_in_every_order() {
        for order in [Order::Shuffled, Order::ByLength, Order::AsIs] {
            for (rows, batch) in [(1, 4), (8, 4), (1003, 8)] {
                let mut cursor = Cursor::new(lengths(rows), order, batch, 3).unwrap();
                for epoch in 0..2 {
                    let mut seen = Vec::new();
                    for _ in 0..cursor.steps() {
                        assert_eq!(cursor.epoch, epoch);
                        seen.extend_from_slice(cursor.rows_ahead());
                        cursor.advance().unwrap();
                    }
                    seen.sort_unstable();
                    assert_eq!(seen, (0..rows).collect::<Vec<_>>(), "{order:?}");
                }
            }
        }
    }

    #[test]
    fn seeking_is_going_there() {
        let mut there = Cursor::new(lengths(50), Order::ByLength, 4, 1).unwrap();
        (0..31).for_each(|_| there.advance().unwrap());
        let mut sought = Cursor::new(lengths(50), Order::ByLength, 4, 1).unwrap();
        sought.seek(there.epoch, there.taken).unwrap();
        assert_eq!(sought.rows_ahead(), there.rows_ahead());
    }

    #[test]
    fn like_lengths_need_little_padding() {
        let padding = |order| {
            let cursor = Cursor::new(lengths(1003), order, 8, 3).unwrap();
            let longest = |rows: &Vec<usize>| rows.iter().map(|r| cursor.lengths[*r]).max().unwrap();
            let held: usize = cursor.batches.iter().map(|rows| rows.len() * longest(rows)).sum();
            held - cursor.lengths.iter().sum::<usize>()
        };
        let (random, sorted) = (padding(Order::Shuffled), padding(Order::ByLength));
        assert!(sorted * 10 < random, "{sorted} {random}");
    }
}
