//! **Ready.** A healed replica comes to say that it takes part in a quorum; one that hears nobody stops saying so.
//!
//! R15: what a replica says of itself is measured, and never more than is so.

use polder_types::ReplicaId;

use super::{Verdict, violation};

/// The name of this checker.
pub const NAME: &str = "ready";

/// A quorum so long ago says nothing of now, in milliseconds.
const READY_MS: u64 = 2_000;

/// Whether a replica says that it takes part, by how long ago it last did.
#[must_use]
pub fn says_ready(took_part_ms_ago: Option<u64>) -> bool {
    took_part_ms_ago.is_some_and(|ago_ms| ago_ms <= READY_MS)
}

/// Judges what a replica says of itself that has heard nobody for so long, by its own clock.
///
/// # Errors
///
/// When it says that it takes part in a quorum all the same.
pub fn check(replica: ReplicaId, deaf_ms: u64, took_part_ms_ago: Option<u64>) -> Verdict {
    if deaf_ms > READY_MS && says_ready(took_part_ms_ago) {
        return violation(NAME, format!("{replica} has heard nobody for {deaf_ms} ms and says that it takes part"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_that_boasts_is_caught() {
        assert_eq!(check(ReplicaId(1), 1_999, Some(10)), Ok(()));
        assert_eq!(check(ReplicaId(1), 9_000, Some(8_000)), Ok(()));
        assert_eq!(check(ReplicaId(1), 9_000, None), Ok(()));
        assert!(check(ReplicaId(1), 9_000, Some(1_999)).is_err());
    }
}
