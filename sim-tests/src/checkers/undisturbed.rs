//! **Undisturbed.** While a quorum is connected and its leader is correct, nobody changes the view and none of them
//! suspects: neither for liars, nor for those that are down, nor for what clients send.
//!
//! R4, R5 (at the end of a run only; the partial splits of R5 have tests of their own), R6.

use polder_types::{ReplicaId, View};

use super::{Verdict, violation};

/// The name of this checker.
pub const NAME: &str = "undisturbed";

/// Judges the views of the healed replicas at the end of a watch in which nothing failed.
///
/// # Errors
///
/// When one has left the view that all were in, or suspects its leader.
pub fn check(before: View, leader: ReplicaId, after: &[(ReplicaId, View, bool)]) -> Verdict {
    after.iter().find(|(_, view, suspects)| *view != before || *suspects).map_or(Ok(()), |(replica, view, _)| {
        violation(NAME, format!("{replica} suspects {leader} in {before} (it is in {view}), and that is correct"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_that_changes_for_no_reason_is_caught() {
        let leader = ReplicaId(0);
        let calm = (ReplicaId(0), View(4), false);
        assert_eq!(check(View(4), leader, &[calm, (ReplicaId(1), View(4), false)]), Ok(()));
        assert!(check(View(4), leader, &[calm, (ReplicaId(1), View(5), false)]).is_err());
        assert!(check(View(4), leader, &[calm, (ReplicaId(1), View(4), true)]).is_err());
    }
}
