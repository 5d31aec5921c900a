//! The order of the data.

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// The order in which rows of data are trained on: another one each epoch, drawn from the seed and the epoch's number alone. So
/// it is the same on every machine, whatever else is drawn, and a training that is resumed goes on with the order it had.
///
/// The numbers are those of ChaCha with 8 rounds, an epoch's number its stream; libtorch's generator, which initial values and
/// dropout are drawn from, is not touched. A data set is split by cutting one order in two.
///
/// ```
/// use peft_core::train::Shuffle;
/// let shuffle = Shuffle::new(5, 0);
/// for epoch in 0..3 {
///     for rows in shuffle.epoch(epoch).chunks(2) {
///         assert!(rows.iter().all(|row| *row < 5)); // a batch of at most two rows
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shuffle {
    rows: usize,
    seed: u64,
}

impl Shuffle {
    /// Orders of the rows 0 to `rows` − 1.
    pub fn new(rows: usize, seed: u64) -> Self {
        Self { rows, seed }
    }

    /// All row numbers, each once, in the order of an epoch.
    pub fn epoch(&self, epoch: u64) -> Vec<usize> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(epoch);
        let mut order: Vec<usize> = (0..self.rows).collect();
        order.shuffle(&mut rng);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a seed means is kept: other orders would be other trainings.
    #[test]
    fn the_orders_of_a_seed() {
        let orders = [(7, 0), (7, 1), (8, 0)].map(|(seed, epoch)| Shuffle::new(8, seed).epoch(epoch));
        let expected = [[0, 7, 5, 2, 4, 1, 6, 3], [0, 5, 7, 1, 4, 6, 3, 2], [5, 3, 4, 7, 6, 2, 1, 0]];
        assert_eq!(orders, expected);
    }

    #[test]
    fn every_row_once() {
        for rows in [0, 1, 2, 1000] {
            let orders: Vec<Vec<usize>> = (0..3).map(|epoch| Shuffle::new(rows, 3).epoch(epoch)).collect();
            for order in &orders {
                let mut sorted = order.clone();
                sorted.sort_unstable();
                assert_eq!(sorted, (0..rows).collect::<Vec<_>>());
            }
            assert!(rows < 1000 || (orders[0] != orders[1] && orders[1] != orders[2]));
        }
    }
}
