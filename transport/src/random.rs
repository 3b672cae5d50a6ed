//! Randomness: a stream of bytes from one seed.

use std::io;
use std::sync::{Mutex, PoisonError};

/// The randomness of an endpoint. With a seed every byte follows from it; without, the seed is drawn from the
/// operating system.
pub(crate) struct Random(Mutex<blake3::OutputReader>);

impl Random {
    pub(crate) fn new(seed: Option<[u8; 32]>) -> io::Result<Self> {
        let seed = match seed {
            Some(seed) => seed,
            None => {
                let mut seed = [0; 32];
                getrandom::fill(&mut seed).map_err(|error| io::Error::other(error.to_string()))?;
                seed
            }
        };
        let mut hasher = blake3::Hasher::new_derive_key("polder 2026 transport randomness");
        hasher.update(&seed);
        Ok(Self(Mutex::new(hasher.finalize_xof())))
    }

    pub(crate) fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill(bytes);
    }

    pub(crate) fn array<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&self, low: u64, high: u64) -> u64 {
        let span = high.saturating_sub(low).saturating_add(1);
        low.saturating_add(u64::from_le_bytes(self.array()) % span.max(1))
    }
}

impl std::fmt::Debug for Random {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Random")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_one_stream() {
        let draw = |seed| Random::new(Some([seed; 32])).map(|random| (random.array::<16>(), random.between(10, 20)));
        assert_eq!(draw(1).ok(), draw(1).ok());
        assert_ne!(draw(1).ok(), draw(2).ok());
    }

    #[test]
    fn between_stays_between() {
        let random = Random::new(None).expect("the operating system has randomness");
        assert!((0..1_000).all(|_| (3..=5).contains(&random.between(3, 5))));
        assert_eq!(random.between(7, 7), 7);
    }
}
