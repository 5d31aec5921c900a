//! Batches of rows of like length.

use anyhow::{Result, ensure};
use peft_core::text::bucketed;
use peft_core::train::Shuffle;
use tests::refused;

/// Lengths as those of sentences are: most are short.
fn lengths(rows: usize) -> Vec<usize> {
    Shuffle::new(rows, 5).epoch(0).iter().map(|at| 4 + 500 * at * at / (rows * rows)).collect()
}

/// Tokens of padding that batches have.
fn padding(order: &[usize], lengths: &[usize], batch: usize) -> usize {
    let of = |rows: &[usize]| -> usize {
        let rows: Vec<usize> = rows.iter().map(|row| lengths[*row]).collect();
        rows.iter().max().unwrap_or(&0) * rows.len() - rows.iter().sum::<usize>()
    };
    order.chunks(batch).map(of).sum()
}

#[test]
fn every_row_once_with_little_padding() -> Result<()> {
    for (rows, batch) in [(1000, 8), (1003, 8), (40, 8), (7, 8), (1, 1), (0, 4), (5000, 16)] {
        let lengths = lengths(rows);
        for epoch in 0..3 {
            let order = Shuffle::new(rows, 0).epoch(epoch);
            let found = bucketed(&order, &lengths, batch)?;
            ensure!(found == bucketed(&order, &lengths, batch)?, "other batches of the same order");
            let mut sorted = found.clone();
            sorted.sort_unstable();
            ensure!(sorted == (0..rows).collect::<Vec<_>>(), "{rows} rows: {found:?}");
            if rows >= 1000 {
                let (less, more) = (padding(&found, &lengths, batch), padding(&order, &lengths, batch));
                ensure!(
                    less * 10 < more,
                    "{rows} rows in batches of {batch}: {less} of padding, and before {more}"
                );
            }
        }
    }
    Ok(())
}

/// Long batches and short ones are mixed, and otherwise in each epoch.
#[test]
fn batches_come_in_the_order_that_was_drawn() -> Result<()> {
    let lengths = lengths(800);
    let longest = |epoch| -> Result<Vec<usize>> {
        let order = bucketed(&Shuffle::new(800, 1).epoch(epoch), &lengths, 8)?;
        Ok(order
            .chunks(8)
            .map(|rows| rows.iter().map(|row| lengths[*row]).max().unwrap_or_default())
            .collect())
    };
    let [first, second] = [longest(0)?, longest(1)?];
    ensure!(first != second, "the same in each epoch");
    // Of 50 batches in a random order about half are longer than the one before.
    for epoch in [&first, &second] {
        let rises = epoch.windows(2).filter(|pair| pair[0] < pair[1]).count();
        ensure!(
            (30..70).contains(&rises),
            "{rises} of {} batches are longer than the one before",
            epoch.len()
        );
    }
    // What is not full comes last, although its rows are short.
    let order = Shuffle::new(21, 2).epoch(0);
    let lengths: Vec<usize> = (1..22).collect();
    let last = bucketed(&order, &lengths, 4)?[20];
    ensure!(lengths[last] == 1, "row {last}");
    refused("no length", bucketed(&[0, 5], &[1, 2], 2), &["row 5", "there are 2"])?;
    refused("no row", bucketed(&[0], &[1], 0), &["batches of no row"])?;
    Ok(())
}
