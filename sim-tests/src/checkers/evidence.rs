//! **Evidence.** No correct replica ever finds evidence against a correct one, whatever crashed, and none finds itself
//! misled by one.
//!
//! R41 ("crashes and restarts of correct replicas never produce one"), R20.

use polder_consensus::{Evidence, Misdeed, NotEvidence};
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

/// Evidence that was reported must prove what it says to anybody, by its bytes alone.
///
/// # Errors
///
/// When it does not, or names another.
pub fn proves(found: &Evidence, verdict: Result<Misdeed, NotEvidence>) -> Verdict {
    match verdict {
        Ok(misdeed) if (misdeed.culprit, misdeed.kind) == (found.culprit(), found.kind()) => Ok(()),
        Ok(misdeed) => violation(NAME, format!("evidence against {} names otherwise: {misdeed}", found.culprit())),
        Err(why) => violation(NAME, format!("evidence against {} proves nothing: {why}", found.culprit())),
    }
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
