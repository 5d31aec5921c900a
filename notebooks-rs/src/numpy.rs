//! numpy's legacy generator, `np.random.seed` and `np.random.randn`, bit for bit: the Mersenne Twister MT19937
//! (Matsumoto and Nishimura 1998) and Marsaglia's polar method on top of it.

/// Words of state, and the distance of the recurrence.
const N: usize = 624;
const M: usize = 397;

/// numpy's `RandomState`.
#[derive(Debug, Clone)]
pub struct RandomState {
    state: [u32; N],
    /// The next word to hand out; `N` when a new block is due.
    next: usize,
    /// The second number of a pair, which the next call gets.
    spare: Option<f64>,
}

impl RandomState {
    /// `np.random.seed(seed)`
    pub fn new(seed: u32) -> Self {
        let mut state = [seed; N];
        for i in 1..N {
            let last = state[i - 1];
            state[i] = 1_812_433_253u32.wrapping_mul(last ^ (last >> 30)).wrapping_add(i as u32);
        }
        Self { state, next: N, spare: None }
    }

    /// The next block of words: the top bit of one and the other bits of its neighbour, twisted into the word M further.
    fn twist(&mut self) {
        for i in 0..N {
            let mixed = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
            let odd = if mixed & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + M) % N] ^ (mixed >> 1) ^ odd;
        }
        self.next = 0;
    }

    /// 32 bits.
    pub fn word(&mut self) -> u32 {
        if self.next == N {
            self.twist();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// `np.random.rand()`: 53 bits of two words, from 0 to below 1.
    pub fn uniform(&mut self) -> f64 {
        let (high, low) = (f64::from(self.word() >> 5), f64::from(self.word() >> 6));
        (high * f64::from(1 << 26) + low) / (1u64 << 53) as f64
    }

    /// `np.random.randn()`: a point in the unit disc, `r² = u² + v²`, gives the pair `(u, v) √(−2 ln r² / r²)`, of which v's is
    /// handed out first.
    pub fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        loop {
            let (u, v) = (2.0 * self.uniform() - 1.0, 2.0 * self.uniform() - 1.0);
            let r2 = u * u + v * v;
            if r2 < 1.0 && r2 != 0.0 {
                let factor = (-2.0 * r2.ln() / r2).sqrt();
                self.spare = Some(factor * u);
                return factor * v;
            }
        }
    }

    /// `np.random.randn(rows, columns)`
    pub fn normals(&mut self, rows: usize, columns: usize) -> Vec<Vec<f64>> {
        (0..rows).map(|_| (0..columns).map(|_| self.normal()).collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_twister_is_mt19937() {
        // The C++ standard gives the 10,000th number of the default seed for this test.
        let mut random = RandomState::new(5489);
        let words: Vec<u32> = (0..10_000).map(|_| random.word()).collect();
        assert_eq!((words[0], words[9_999]), (3_499_211_612, 4_123_659_995));
    }

    #[test]
    fn numbers_are_numpys() {
        let mut random = RandomState::new(42);
        assert_eq!([random.uniform(), random.uniform()], [0.3745401188473625, 0.9507143064099162]);
        let mut random = RandomState::new(42);
        let pair = random.normals(1, 2);
        assert_eq!(pair, [[0.4967141530112327, -0.13826430117118466]]);
    }
}
