//! **Undisturbed.** While a quorum is connected and its leader is correct, nobody changes the view: neither liars, nor
//! those that are down, nor requests that cannot execute.
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
/// When one has left the view that all were in.
pub fn check(before: View, leader: ReplicaId, after: &[(ReplicaId, View)]) -> Verdict {
    after.iter().find(|(_, view)| *view != before).map_or(Ok(()), |(replica, view)| {
        violation(NAME, format!("{replica} went from {before} to {view} under its correct leader {leader}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_that_changes_for_no_reason_is_caught() {
        let leader = ReplicaId(0);
        assert_eq!(check(View(4), leader, &[(ReplicaId(0), View(4)), (ReplicaId(1), View(4))]), Ok(()));
        assert!(check(View(4), leader, &[(ReplicaId(0), View(4)), (ReplicaId(1), View(5))]).is_err());
    }
}
