//! Enters: a seed. Leaves: numbers that look random and are the same for the same seed.

/// A generator of pseudo-random numbers: Weyl's sequence through the finaliser of `SplitMix64`.
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// Starts a sequence.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A seed that nobody has chosen: the time of day in nanoseconds.
    #[must_use]
    pub fn any_seed() -> u64 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self::new(now.map_or(0, |now| u64::from(now.subsec_nanos()) ^ (now.as_secs() << 20))).word() >> 32
    }

    /// The next 64 bits.
    pub fn word(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number from 0 to `limit - 1`; 0 where `limit` is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        let word = u128::from(self.word());
        usize::try_from((word * limit as u128) >> 64).unwrap_or(0)
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True once in a hundred for each `percent`.
    pub fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// True once in a thousand for each `per_mille`.
    pub fn per_mille(&mut self, per_mille: usize) -> bool {
        self.below(1000) < per_mille
    }

    /// Any byte.
    pub fn byte(&mut self) -> u8 {
        self.word().to_le_bytes()[0]
    }

    /// Any two bytes as a number.
    pub fn half(&mut self) -> u16 {
        let [low, high, ..] = self.word().to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    /// Any four bytes as a number.
    pub fn quad(&mut self) -> u32 {
        let [a, b, c, d, ..] = self.word().to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    /// `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend(self.word().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }

    /// One of the choices, all alike; the type's default where there are none.
    pub fn pick<T: Copy + Default>(&mut self, choices: &[T]) -> T {
        choices.get(self.below(choices.len())).copied().unwrap_or_default()
    }

    /// The index of one of the choices, by their weights; 0 where all weigh nothing.
    pub fn weighted(&mut self, weights: &[usize]) -> usize {
        let mut left = self.below(weights.iter().sum());
        for (index, weight) in weights.iter().enumerate() {
            if left < *weight {
                return index;
            }
            left -= weight;
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::Rng;

    #[test]
    fn same_seed_gives_the_same_numbers() {
        let numbers = |seed| {
            let mut rng = Rng::new(seed);
            (rng.word(), rng.below(10), rng.bytes(5), rng.pick(&[1, 2, 3]))
        };

        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
    }

    #[test]
    fn numbers_reach_both_bounds_and_keep_them() {
        let mut rng = Rng::new(1);
        let mut seen = [0_u32; 4];
        for _ in 0..1000 {
            seen[rng.between(1, 3)] += 1;
        }

        assert_eq!(seen[0], 0);
        assert!(seen[1..].iter().all(|count| *count > 250), "{seen:?}");
        assert_eq!((rng.below(0), rng.weighted(&[]), rng.weighted(&[0, 1])), (0, 0, 1));
    }
}
