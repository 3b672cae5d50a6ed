//! **Progress.** Once a quorum is healed, every request that was submitted is answered, and every healed replica
//! catches up, within a bounded time, whatever the others do.
//!
//! R5 to R7, R15, R16; Castro and Liskov (OSDI 1999) §4.5.2, liveness.

use polder_types::{Constants, Quorum, ReplicaId, Seq};

use super::{Verdict, violation};

/// The name of this checker.
pub const NAME: &str = "progress";

/// How long a healed quorum may take for everything, in milliseconds. The longest time-out comes into force after the
/// doublings; then at most `u` leaders in a row are faulty, and each takes up to two time-outs (its view starts, its
/// request is late) and one more of each healed replica that comes back; then the rest is ordered.
#[must_use]
pub fn bound_ms(constants: &Constants, quorum: Quorum, requests: u64) -> u64 {
    let views = 2 * quorum.faults() as u64 + 4;
    let settle_ms = constants.timeout_max_ms * u64::from(constants.doublings_max() + 1);
    settle_ms + 4 * views * constants.timeout_max_ms + 8 * constants.idle_ms + requests * constants.status_period_ms
}

/// What the end of a run looks like.
#[derive(Clone, Debug, Default)]
pub struct End {
    /// Simulated time since the healing, in milliseconds.
    pub since_ms: u64,
    /// What was allowed.
    pub bound_ms: u64,
    /// Requests without an answer.
    pub unanswered: usize,
    /// Requests that replicas still hold, though nobody waits for them.
    pub held: usize,
    /// Healed replicas that do not say that they take part in a quorum, though nothing is left to do.
    pub apart: Vec<ReplicaId>,
    /// Replicas whose disks lead to a cut too far below the stable one (C10), and to which.
    pub undurable: Vec<(ReplicaId, Seq)>,
    /// Healed replicas that do not know of the certificate of the last cut that all must reach, and of which they do: every
    /// healed replica's statement comes to every other, however often it was lost (R15, R29).
    pub uncertified: Vec<(ReplicaId, Seq)>,
    /// Healed replicas and the slot up to which each has executed.
    pub executed: Vec<(ReplicaId, Seq)>,
    /// The slot that all must reach: the highest one when the last answer came.
    pub must_reach: Seq,
}

impl End {
    /// Whether all is answered and all have caught up.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.unanswered == 0
            && self.held == 0
            && self.apart.is_empty()
            && self.undurable.is_empty()
            && self.uncertified.is_empty()
            && self.executed.iter().all(|(_, executed)| *executed >= self.must_reach)
    }
}

/// Judges the end of a run.
///
/// # Errors
///
/// When the time is up and something is unanswered or somebody lags.
pub fn check(end: &End) -> Verdict {
    if end.is_settled() || end.since_ms < end.bound_ms {
        return Ok(());
    }
    let lagging: Vec<String> = end
        .executed
        .iter()
        .filter(|(_, executed)| *executed < end.must_reach)
        .map(|(replica, executed)| format!("{replica} at {executed}"))
        .collect();
    let lagging = if lagging.is_empty() { "nobody".to_string() } else { lagging.join(", ") };
    violation(
        NAME,
        format!(
            "{} ms after the healing {} requests are unanswered, {} are held for nobody; not at {}: \
             {lagging}; not durable: {:?}; not certified: {:?}; not ready: {:?}",
            end.since_ms, end.unanswered, end.held, end.must_reach, end.undurable, end.uncertified, end.apart
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end() -> End {
        End {
            since_ms: 1_001,
            bound_ms: 1_000,
            unanswered: 0,
            held: 0,
            apart: Vec::new(),
            undurable: Vec::new(),
            uncertified: Vec::new(),
            executed: vec![(ReplicaId(0), Seq(9)), (ReplicaId(1), Seq(9))],
            must_reach: Seq(9),
        }
    }

    #[test]
    fn a_settled_end_is_fine_and_so_is_one_that_still_has_time() {
        assert_eq!(check(&end()), Ok(()));
        assert_eq!(check(&End { unanswered: 3, since_ms: 10, ..end() }), Ok(()));
    }

    #[test]
    fn an_unanswered_request_is_caught() {
        assert!(check(&End { unanswered: 1, ..end() }).is_err());
    }

    #[test]
    fn a_request_that_is_held_for_nobody_and_a_disk_that_stands_and_a_replica_that_is_never_ready_are_caught() {
        assert!(check(&End { held: 1, ..end() }).is_err());
        assert!(check(&End { apart: vec![ReplicaId(1)], ..end() }).is_err());
        assert!(check(&End { uncertified: vec![(ReplicaId(1), Seq(2))], ..end() }).is_err());
        assert!(check(&End { undurable: vec![(ReplicaId(1), Seq(2))], ..end() }).is_err());
    }

    #[test]
    fn a_replica_that_lags_for_ever_is_caught() {
        assert!(check(&End { executed: vec![(ReplicaId(0), Seq(9)), (ReplicaId(1), Seq(8))], ..end() }).is_err());
    }
}
