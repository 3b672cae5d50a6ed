//! **Latency.** Once a quorum is healed no request waits longer than a bounded time, whoever leads: a leader that is just
//! below every deadline makes each wait for a time-out and no more, and none is starved while others are served.
//!
//! R6, R7; Clement et al. (NSDI 2009) on slow leaders, Amir et al. (DSN 2008) on bounded delay.

use polder_types::{Constants, Quorum};

use super::{Verdict, violation};
use crate::history::History;

/// The name of this checker.
pub const NAME: &str = "latency";

/// A client's longest wait before it sends again, and as much for the answer, in milliseconds.
const RETRIES_MS: u64 = 2_000;

/// How long a request may wait, in milliseconds. Of a session only the lowest undecided number arms a deadline, so each
/// of those before it may take one, `T_max·(1 + M_adm/512)`; at most `u` leaders in a row fail, and each costs one more
/// and the time until its view is left and the next one has started.
#[must_use]
pub fn bound_ms(constants: &Constants, quorum: Quorum, in_flight: u64) -> u64 {
    let slowest_ms = constants.timeout_max_ms;
    let deadline_ms = slowest_ms + slowest_ms * u64::from(constants.admitted_max) / 512;
    let leaders = quorum.faults() as u64 + 1;
    in_flight * deadline_ms + leaders * (deadline_ms + 2 * slowest_ms) + 8 * constants.status_period_ms + RETRIES_MS
}

/// Judges every request by how long it has waited since it was made, or since this time if it was made before.
///
/// # Errors
///
/// When one has waited for longer than is allowed.
pub fn check(history: &History, since_us: u64, now_us: u64, bound_ms: u64) -> Verdict {
    for (place, operation) in history.operations.iter().enumerate() {
        let from_us = operation.invoked_us.max(since_us);
        let answered_us = operation.answered.as_ref().map(|(at_us, _)| *at_us);
        // Nobody waits for what was given up.
        let answered_us = answered_us.or_else(|| history.abandoned.get(&place).copied());
        let waited_ms = answered_us.unwrap_or(now_us).saturating_sub(from_us) / 1_000;
        if waited_ms > bound_ms {
            let (client, command) = (operation.client, operation.command);
            return violation(
                NAME,
                format!("c{client} has waited {waited_ms} ms for {command}, {bound_ms} are allowed"),
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use polder_types::{Answer, FaultModel};

    use super::*;
    use crate::history::{Command, Operation};

    fn history(invoked_us: u64, answered_us: Option<u64>) -> History {
        let answered = answered_us.map(|at_us| (at_us, Answer::Closed));
        let operation = Operation { client: 0, command: Command::Read { key: 1 }, invoked_us, answered };
        History { operations: vec![operation], ..History::default() }
    }

    #[test]
    fn a_late_answer_and_one_that_never_comes_are_caught_and_chaos_excuses() {
        assert_eq!(check(&history(0, Some(9_000)), 0, 99_000, 9), Ok(()));
        assert!(check(&history(0, Some(10_000)), 0, 99_000, 9).is_err());
        assert_eq!(check(&history(0, Some(10_000)), 5_000, 99_000, 9), Ok(()));
        assert_eq!(check(&history(0, None), 5_000, 14_000, 9), Ok(()));
        assert!(check(&history(0, None), 5_000, 15_000, 9).is_err());
        let abandoned = |at_us| History { abandoned: [(0, at_us)].into(), ..history(0, None) };
        assert_eq!(check(&abandoned(14_000), 5_000, 99_000, 9), Ok(()), "nobody waits for it any more");
        assert!(check(&abandoned(15_000), 5_000, 99_000, 9).is_err(), "it was given up too late");
    }

    #[test]
    fn the_bound_grows_with_what_may_fail_and_with_what_stands_before() {
        let constants = Constants::default();
        let bound = |replicas, in_flight| {
            Quorum::new(replicas, FaultModel::Byzantine).ok().map(|quorum| bound_ms(&constants, quorum, in_flight))
        };
        assert!(bound(4, 1) < bound(7, 1) && bound(4, 1) < bound(4, 2));
    }
}
