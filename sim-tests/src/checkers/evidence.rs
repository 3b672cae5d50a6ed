//! **Evidence.** No correct replica ever finds evidence against a correct one, whatever crashed, and none finds itself
//! misled by one.
//!
//! R41 ("crashes and restarts of correct replicas never produce one"), R20.

use polder_types::ReplicaId;

use super::{Verdict, violation};

/// The name of this checker.
pub const NAME: &str = "evidence";

/// A correct replica accuses another.
///
/// # Errors
///
/// When the accused does not lie.
pub fn check(by: ReplicaId, accused: ReplicaId, is_liar: bool, what: &str) -> Verdict {
    if is_liar {
        return Ok(());
    }
    violation(NAME, format!("{by} accuses {accused}, which is correct: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_against_a_correct_replica_is_caught() {
        assert_eq!(check(ReplicaId(0), ReplicaId(1), true, "two votes"), Ok(()));
        assert!(check(ReplicaId(0), ReplicaId(1), false, "two votes").is_err());
    }
}
