//! **Bounded tables.** Whatever arrives, a replica's tables and its ordering log stay within bounds that follow from
//! the constants.
//!
//! Promise 4; R11, R14, R42; C10 for the log.

use polder_types::{Constants, Quorum, ReplicaId};

use super::{Verdict, violation};

/// The name of this checker.
pub const NAME: &str = "bounded-tables";

/// What a replica holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Requests admitted and not proposed.
    pub waiting: u64,
    /// Slots committed and not executed.
    pub unexecuted: u64,
    /// Slots between the stable cut and the highest slot executed.
    pub above_stable: u64,
    /// Bytes of the bodies of batches.
    pub body_bytes: u64,
    /// Bytes of the requests admitted and not proposed.
    pub request_bytes: u64,
    /// Bytes of the ordering log on disk.
    pub log_bytes: u64,
    /// The time-out, in milliseconds (R7).
    pub timeout_ms: u64,
}

/// The bounds that follow from the constants.
#[must_use]
pub fn bounds(constants: &Constants, quorum: Quorum) -> Sizes {
    let window = constants.window_slots;
    let q = quorum.quorum() as u64;
    let n = quorum.replicas() as u64;
    // A slot: its body up to once a record (accepted, pulled, decided), with two certificates, in up to three views
    // that are kept; and a view change with a certificate a slot, once for the own record, once carried forward.
    let body = u64::from(constants.batch_bytes_max) + 512;
    let certificates = 2 * (q * 68 + 128);
    let view_change = window * (q * 68 + 128) + 2_048 + q * 160;
    let slots = 2 * window + constants.interval_slots * constants.turn_cuts;
    Sizes {
        waiting: u64::from(constants.admitted_max) + n * 128,
        unexecuted: 2 * window,
        above_stable: window,
        body_bytes: 3 * window * u64::from(constants.batch_bytes_max),
        request_bytes: 2 * constants.admitted_bytes_max,
        log_bytes: 4 * slots * (body + certificates) + 64 * view_change + (64 << 10),
        timeout_ms: constants.timeout_max_ms,
    }
}

/// Judges what a replica holds.
///
/// # Errors
///
/// When something is beyond its bound.
pub fn check(replica: ReplicaId, held: &Sizes, bounds: &Sizes) -> Verdict {
    let rows = [
        ("waiting requests", held.waiting, bounds.waiting),
        ("unexecuted batches", held.unexecuted, bounds.unexecuted),
        ("slots above the stable cut", held.above_stable, bounds.above_stable),
        ("bytes of bodies", held.body_bytes, bounds.body_bytes),
        ("bytes of requests", held.request_bytes, bounds.request_bytes),
        ("bytes of log", held.log_bytes, bounds.log_bytes),
        ("ms of time-out", held.timeout_ms, bounds.timeout_ms),
    ];
    match rows.into_iter().find(|(_, held, bound)| held > bound) {
        None => Ok(()),
        Some((what, held, bound)) => violation(NAME, format!("{replica} holds {held} {what}, {bound} are allowed")),
    }
}

#[cfg(test)]
mod tests {
    use polder_types::FaultModel;

    use super::*;

    #[test]
    fn each_table_beyond_its_bound_is_caught() {
        let Ok(quorum) = Quorum::new(4, FaultModel::Byzantine) else { return };
        let bounds = bounds(&Constants::default(), quorum);
        assert_eq!(check(ReplicaId(0), &bounds, &bounds), Ok(()));
        for beyond in [
            Sizes { waiting: bounds.waiting + 1, ..bounds },
            Sizes { unexecuted: bounds.unexecuted + 1, ..bounds },
            Sizes { above_stable: bounds.above_stable + 1, ..bounds },
            Sizes { body_bytes: bounds.body_bytes + 1, ..bounds },
            Sizes { request_bytes: bounds.request_bytes + 1, ..bounds },
            Sizes { log_bytes: bounds.log_bytes + 1, ..bounds },
            Sizes { timeout_ms: bounds.timeout_ms + 1, ..bounds },
        ] {
            assert!(check(ReplicaId(0), &beyond, &bounds).is_err());
        }
    }
}
