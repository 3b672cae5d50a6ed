//! **Agreement.** Two correct replicas never execute different batches at the same slot, each executes the slots in
//! order without a gap, and none executes a slot twice in one life.
//!
//! Promises 1 and 2; the normal case and R9; Castro and Liskov (OSDI 1999) §4.3, safety.

use std::collections::BTreeMap;

use polder_types::{Digest, ReplicaId, Seq};

use super::{Verdict, violation};

/// The name of this checker.
pub const NAME: &str = "agreement";

/// What was executed where.
#[derive(Clone, Debug, Default)]
pub struct Agreement {
    decided: BTreeMap<Seq, Decided>,
    cursor: BTreeMap<ReplicaId, Seq>,
}

#[derive(Clone, Copy, Debug)]
struct Decided {
    digest: Digest,
    history: Digest,
    first: ReplicaId,
}

impl Agreement {
    /// A replica starts, or goes on after a transfer, at this slot with this history.
    ///
    /// # Errors
    ///
    /// When the history is not the one that led others to that slot.
    pub fn starts(&mut self, replica: ReplicaId, after: Seq, history: Digest) -> Verdict {
        self.cursor.insert(replica, after);
        match self.decided.get(&after) {
            Some(decided) if decided.history != history => violation(
                NAME,
                format!(
                    "{replica} goes on after {after} with history {history}, {} had {}",
                    decided.first, decided.history
                ),
            ),
            _ => Ok(()),
        }
    }

    /// A replica goes on after a cut that it did not execute up to: it fetched the state. What it executes next shows
    /// whether its history is right.
    pub fn fetched(&mut self, replica: ReplicaId, cut: Seq) {
        self.cursor.insert(replica, cut);
    }

    /// The last slot that a replica executed or goes on from.
    #[must_use]
    pub fn cursor(&self, replica: ReplicaId) -> Seq {
        self.cursor.get(&replica).copied().unwrap_or(Seq::ZERO)
    }

    /// A correct replica executed a batch.
    ///
    /// # Errors
    ///
    /// When another correct replica executed another batch there or came there another way, or the slot is not the
    /// replica's next.
    pub fn executed(&mut self, replica: ReplicaId, slot: Seq, digest: Digest, history: Digest) -> Verdict {
        let before = self.cursor.insert(replica, slot).unwrap_or(Seq::ZERO);
        if before.next() != slot {
            return violation(NAME, format!("{replica} executed {slot} after {before}"));
        }
        let decided = *self.decided.entry(slot).or_insert(Decided { digest, history, first: replica });
        if decided.digest != digest {
            let (first, other) = (decided.first, decided.digest);
            return violation(NAME, format!("{replica} executed {digest} at {slot}, {first} had executed {other}"));
        }
        if decided.history != history {
            let (first, other) = (decided.first, decided.history);
            return violation(NAME, format!("{replica} has history {history} at {slot}, {first} has {other}"));
        }
        Ok(())
    }

    /// The highest slot executed anywhere.
    #[must_use]
    pub fn highest(&self) -> Seq {
        self.decided.keys().next_back().copied().unwrap_or(Seq::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Digest = Digest([1; 32]);
    const TWO: Digest = Digest([2; 32]);

    #[test]
    fn the_same_batches_in_order_are_fine_also_again_after_a_restart() {
        let mut agreement = Agreement::default();
        for replica in [0, 1].map(ReplicaId) {
            assert_eq!(agreement.executed(replica, Seq(1), ONE, ONE), Ok(()));
            assert_eq!(agreement.executed(replica, Seq(2), TWO, TWO), Ok(()));
        }
        assert_eq!(agreement.starts(ReplicaId(1), Seq(1), ONE), Ok(()));
        assert_eq!(agreement.executed(ReplicaId(1), Seq(2), TWO, TWO), Ok(()));
        assert_eq!(agreement.highest(), Seq(2));
    }

    #[test]
    fn two_batches_at_one_slot_are_caught() {
        let mut agreement = Agreement::default();
        assert_eq!(agreement.executed(ReplicaId(0), Seq(1), ONE, ONE), Ok(()));
        assert!(agreement.executed(ReplicaId(1), Seq(1), TWO, ONE).is_err());
    }

    #[test]
    fn another_history_is_caught_when_it_is_made_and_when_it_is_restored() {
        let mut agreement = Agreement::default();
        assert_eq!(agreement.executed(ReplicaId(0), Seq(1), ONE, ONE), Ok(()));
        assert!(agreement.clone().executed(ReplicaId(1), Seq(1), ONE, TWO).is_err());
        assert!(agreement.starts(ReplicaId(1), Seq(1), TWO).is_err());
    }

    #[test]
    fn a_gap_and_a_second_execution_are_caught() {
        let mut agreement = Agreement::default();
        assert!(agreement.executed(ReplicaId(0), Seq(2), ONE, ONE).is_err());
        let mut agreement = Agreement::default();
        assert_eq!(agreement.executed(ReplicaId(0), Seq(1), ONE, ONE), Ok(()));
        assert!(agreement.executed(ReplicaId(0), Seq(1), ONE, ONE).is_err());
    }
}
