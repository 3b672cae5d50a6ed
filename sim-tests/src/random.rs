//! All that is random in a run, drawn from its seed.

use rand::{Rng as _, SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

/// What a stream of randomness is for: each part draws from its own, so that a change in one does not shift the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The options of the run.
    Swarm = 1,
    /// Keys and nonces.
    Keys = 2,
    /// The order of events at one time.
    Order = 3,
    /// Delays, losses, copies.
    Network = 4,
    /// Durations of writes, what a crash keeps.
    Disk = 5,
    /// Crashes, pauses, splits.
    Faults = 6,
    /// What clients ask for.
    Workload = 7,
    /// What liars do.
    Liars = 8,
    /// What the fuzz targets change.
    Fuzz = 32,
    /// Which hazards the run meets.
    Hazards = 9,
}

/// A stream of randomness. Integers only, so that a seed means the same on every machine.
#[derive(Clone, Debug)]
pub struct Random(ChaCha8Rng);

impl Random {
    /// The stream of a seed for one purpose.
    #[must_use]
    pub fn new(seed: u64, purpose: Purpose) -> Self {
        let mut stream = ChaCha8Rng::seed_from_u64(seed);
        stream.set_stream(purpose as u64);
        Self(stream)
    }

    /// A number from `low` to `high`, both included; `low` when there is none between.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        if low >= high { low } else { self.0.random_range(low..=high) }
    }

    /// A number below `bound`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.range(0, (bound as u64).saturating_sub(1)) as usize
    }

    /// Whether something that happens `per_mille` times in a thousand happens now.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        per_mille > 0 && self.range(0, 999) < per_mille
    }

    /// Any 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0.random()
    }

    /// Any bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill(&mut bytes);
        bytes
    }

    /// One of these; none when there are none.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }

    /// One of these by weight; the last when the weights are all 0.
    pub fn weighted<T: Copy>(&mut self, from: &[(u64, T)], otherwise: T) -> T {
        let total: u64 = from.iter().map(|(weight, _)| weight).sum();
        let mut left = self.range(0, total.saturating_sub(1));
        for (weight, value) in from {
            if left < *weight {
                return *value;
            }
            left -= weight;
        }
        otherwise
    }

    /// A length of time around `mean`: often short, sometimes up to four times as long.
    pub fn around(&mut self, mean: u64) -> u64 {
        let first = self.range(0, 2 * mean);
        let second = self.range(0, 2 * mean);
        if self.chance(200) { first + second } else { first.min(second).max(mean / 16) }
    }

    /// Brings these into any order.
    pub fn shuffle<T>(&mut self, values: &mut [T]) {
        values.shuffle(&mut self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_and_a_purpose_decide_everything_and_purposes_differ() {
        let draw = |seed, purpose| (0..8).map(|_| 0).scan(Random::new(seed, purpose), |r, _| Some(r.bits())).collect();
        let first: Vec<u64> = draw(7, Purpose::Network);
        assert_eq!(first, draw(7, Purpose::Network));
        assert_ne!(first, draw(7, Purpose::Disk));
        assert_ne!(first, draw(8, Purpose::Network));
    }

    #[test]
    fn draws_stay_in_their_bounds() {
        let mut random = Random::new(1, Purpose::Order);
        for _ in 0..1_000 {
            assert!((3..=5).contains(&random.range(3, 5)));
            assert_eq!(random.range(9, 2), 9);
            assert!(!random.chance(0));
            assert!(random.chance(1_000));
            assert_eq!(random.weighted(&[(0, 'a'), (3, 'b')], 'c'), 'b');
        }
        assert_eq!(random.pick::<u8>(&[]), None);
    }
}
