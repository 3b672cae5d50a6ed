//! How much is free on the disks, and whether that is little (C10). Decides only; a store measures
//! ([`polder_checkpoint::Store::free_bytes`]) and the event loop asks it once a second.
//!
//! Below the reserve the node takes no new commands and writes no images, and says so; it votes, executes, certifies
//! and truncates as before, so that what is under way everywhere can end, and goes on by itself once space is back. A
//! write that finds no space at all still ends the node (R19).

use std::fmt;

/// So much more than the reserve must be free before it counts as enough again, in parts of the reserve: a disk at the
/// edge would change its mind with every truncation.
const MARGIN_DIVISOR: u64 = 8;

/// What is free, and what should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    /// Bytes free on the disk of the log or of the state, whichever has less.
    pub free_bytes: u64,
    /// Bytes that should stay free.
    pub reserve_bytes: u64,
    /// Whether that is too little.
    pub is_low: bool,
}

impl fmt::Display for DiskSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = |bytes: u64| bytes >> 20;
        write!(
            f,
            "{} MiB are free on the disk of its data, and disk_reserve_bytes wants {} MiB",
            mebibytes(self.free_bytes),
            mebibytes(self.reserve_bytes)
        )
    }
}

/// Watches what is free.
#[derive(Debug)]
pub(crate) struct Reserve {
    reserve_bytes: u64,
    last: Option<DiskSpace>,
}

impl Reserve {
    /// Wants so many bytes to stay free; with 0 there is always enough.
    pub(crate) fn new(reserve_bytes: u64) -> Self {
        Self { reserve_bytes, last: None }
    }

    /// Takes what the disks say is free; a disk that cannot tell has enough. Returns what to say when it has become
    /// little, or enough again.
    pub(crate) fn measured(&mut self, free: [Option<u64>; 2]) -> Option<DiskSpace> {
        let free_bytes = free.into_iter().flatten().min()?;
        let reserve_bytes = self.reserve_bytes;
        let was_low = self.last.is_some_and(|last| last.is_low);
        let enough_bytes =
            if was_low { reserve_bytes.saturating_add(reserve_bytes / MARGIN_DIVISOR) } else { reserve_bytes };
        let space = DiskSpace { free_bytes, reserve_bytes, is_low: free_bytes < enough_bytes };
        self.last = Some(space);
        (space.is_low != was_low).then_some(space)
    }

    /// What was measured last; none where no disk can tell.
    pub(crate) fn space(&self) -> Option<DiskSpace> {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(reserve: &mut Reserve, free: [u64; 2]) -> Option<bool> {
        reserve.measured(free.map(Some)).map(|space| space.is_low)
    }

    #[test]
    fn c10_the_disk_with_less_decides_and_only_changes_are_told() {
        let mut reserve = Reserve::new(800);
        assert_eq!(changes(&mut reserve, [800, 5_000]), None, "just enough");
        assert_eq!(changes(&mut reserve, [5_000, 799]), Some(true));
        assert_eq!(changes(&mut reserve, [0, 0]), None, "low is low");
        assert_eq!(changes(&mut reserve, [800, 800]), None, "not for a moment only");
        assert_eq!(changes(&mut reserve, [899, 5_000]), None);
        assert_eq!(changes(&mut reserve, [900, 900]), Some(false));
        assert_eq!(changes(&mut reserve, [800, 800]), None, "still enough");
    }

    #[test]
    fn c10_without_a_reserve_or_a_measure_there_is_enough() {
        let mut none = Reserve::new(0);
        assert_eq!(changes(&mut none, [0, 0]), None);
        let mut blind = Reserve::new(u64::MAX);
        assert_eq!(blind.measured([None, None]), None);
        assert_eq!(blind.space(), None);
        assert_eq!(blind.measured([None, Some(7)]).map(|space| space.is_low), Some(true));
        // Nobody can tell any more: what was known stays.
        assert_eq!(blind.measured([None, None]), None);
        assert!(blind.space().is_some_and(|space| space.is_low));
        assert_eq!(changes(&mut blind, [u64::MAX, u64::MAX]), Some(false), "a sum beyond all numbers");
    }

    #[test]
    fn c10_it_is_said_in_words_that_name_the_key() {
        let space = DiskSpace { free_bytes: 5 << 20, reserve_bytes: 256 << 20, is_low: true };
        let words = "5 MiB are free on the disk of its data, and disk_reserve_bytes wants 256 MiB";
        assert_eq!(space.to_string(), words);
    }
}
