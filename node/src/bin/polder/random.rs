//! Numbers that load is drawn from: fast, seeded by the system, of no use for secrets.

/// SplitMix64.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Seeded by the system.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(|error| anyhow::anyhow!("the system has no random bytes: {error}"))?;
        Ok(Self(u64::from_le_bytes(seed)))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, or 0 when that is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        u64::try_from((u128::from(self.next()) * u128::from(bound)) >> 64).unwrap_or(0)
    }

    /// Fills `bytes` with 64 characters of ASCII that are neither blank nor control characters, each as likely.
    pub(crate) fn fill_printable(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let drawn = self.next().to_le_bytes();
            chunk.iter_mut().zip(drawn).for_each(|(byte, drawn)| *byte = b'0' + (drawn & 63));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_below_their_bound_and_reach_all_below_it() -> anyhow::Result<()> {
        let mut random = Random::new()?;
        let drawn: std::collections::BTreeSet<u64> = (0..1_000).map(|_| random.below(4)).collect();
        assert_eq!(drawn, (0..4).collect());
        assert_eq!(random.below(0), 0);
        Ok(())
    }

    #[test]
    fn printable_bytes_are_that() -> anyhow::Result<()> {
        let mut bytes = [0; 1_001];
        Random::new()?.fill_printable(&mut bytes);
        assert!(bytes.iter().all(u8::is_ascii_graphic));
        assert!(bytes.iter().collect::<std::collections::BTreeSet<_>>().len() > 32);
        Ok(())
    }
}
