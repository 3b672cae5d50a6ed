//! Proof of memory at the start (R18): before its first vote a replica asks what others remember of it.
//!
//! A log can be unbroken and yet old: a folder restored from a copy. So a replica puts beside all that it says how many
//! rows of its log are durable, the others keep the highest such mark, and none of `q−1` of them may show one beyond the
//! log that it starts from. Until they have answered, the replica signs nothing; it answers others' questions all the
//! same, or two that start together would wait for each other.
//!
//! Counting rows, not comparing votes: the votes of one view are not signed in the order of slots, so the highest vote
//! may be in a log that lacks others.

use std::collections::{BTreeMap, BTreeSet};

use polder_types::{Keyring, ReplicaId, SigningKey};

use super::log::Log;
use super::message::{Mark, VerifiedPeer};

/// Whether others confirm that this replica remembers what it signed, and what it remembers of them.
#[derive(Debug)]
pub(super) struct Memory {
    me: ReplicaId,
    nonce: u64,
    /// Rows of the own log at the start.
    rows: u64,
    answered: BTreeSet<ReplicaId>,
    answers_needed: usize,
    /// The highest mark of each other replica.
    marks: BTreeMap<ReplicaId, Mark>,
    changed: BTreeSet<ReplicaId>,
}

/// What an answer to MEMORY? means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Not ours, or not enough yet: wait.
    Wait,
    /// Enough have answered, and none knows of more rows than the own log has: go.
    Proven,
    /// Somebody has heard of rows that the own log does not have: sign nothing (R17).
    Amnesia(String),
}

impl Memory {
    /// The memory of a replica whose log has so many rows at its start, and which remembers these marks of others.
    pub(super) fn new(
        me: ReplicaId,
        keyring: &Keyring,
        nonce: u64,
        rows: u64,
        marks: BTreeMap<ReplicaId, Mark>,
    ) -> Self {
        let answers_needed = keyring.quorum().quorum() - 1;
        Self { me, nonce, rows, answered: BTreeSet::new(), answers_needed, marks, changed: BTreeSet::new() }
    }

    /// Whether enough have answered.
    pub(super) fn is_proven(&self) -> bool {
        self.answered.len() >= self.answers_needed
    }

    /// How many answers are missing, for the status.
    pub(super) fn answers_missing(&self) -> usize {
        self.answers_needed.saturating_sub(self.answered.len())
    }

    /// The question, to be asked until enough have answered.
    pub(super) fn question(&self) -> VerifiedPeer {
        VerifiedPeer::MemoryAsk { nonce: self.nonce }
    }

    /// The answer to another's question.
    pub(super) fn answer(&self, to: ReplicaId, nonce: u64) -> VerifiedPeer {
        VerifiedPeer::Memory { nonce, mark: self.marks.get(&to).copied().unwrap_or_default() }
    }

    /// Takes an answer: one a replica counts, and only to this start's question. A mark that was not made under the own
    /// key is an empty answer.
    pub(super) fn answered(&mut self, from: ReplicaId, nonce: u64, mark: &Mark, key: &SigningKey) -> Verdict {
        if nonce != self.nonce || from == self.me || self.is_proven() {
            return Verdict::Wait;
        }
        if mark.rows > self.rows && mark.is_of(key) {
            let (heard, has) = (mark.rows, self.rows);
            return Verdict::Amnesia(format!(
                "{from} has heard from this replica when its log had {heard} rows, and now it has {has}"
            ));
        }
        self.answered.insert(from);
        if self.is_proven() { Verdict::Proven } else { Verdict::Wait }
    }

    /// Remembers how far another replica's log reaches, as that replica says itself on its own channel.
    pub(super) fn note(&mut self, from: ReplicaId, mark: Mark) {
        if from != self.me && mark.rows > self.marks.get(&from).map_or(0, |kept| kept.rows) {
            self.marks.insert(from, mark);
            self.changed.insert(from);
        }
    }

    /// Whether any row about another replica is newer here than on the disk.
    pub(super) fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Puts the changed rows beside the entries that the log is about to write: mostly they need no write of their own.
    pub(super) fn write_changed(&mut self, log: &mut Log) {
        while let Some(replica) = self.changed.pop_first() {
            if let Some(mark) = self.marks.get(&replica) {
                log.remember(replica, mark);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use polder_types::{ClientAccess, Constants, FaultModel, Genesis, Member, Nonce};

    use super::*;

    const ME: ReplicaId = ReplicaId(0);
    const NONCE: u64 = 5;

    fn key(index: u8) -> SigningKey {
        SigningKey::from_seed(&[index; 32])
    }

    fn memory(rows: u64) -> Memory {
        let member = |index: u8| Member { identity: key(100 + index).public(), signing: key(index).public() };
        let genesis = Genesis {
            nonce: Nonce([0; 16]),
            replicas: (0..4).map(member).collect(),
            fault_model: FaultModel::Byzantine,
            constants: Constants::default(),
            clients: ClientAccess::default(),
        };
        let keyring = genesis.check().expect("four replicas");
        Memory::new(ME, &keyring, NONCE, rows, BTreeMap::new())
    }

    #[test]
    fn r18_a_log_that_is_shorter_than_a_mark_has_lost_memory() {
        let answer = |rows| memory(10).answered(ReplicaId(1), NONCE, &Mark::new(rows, &key(0)), &key(0));
        assert_eq!(answer(10), Verdict::Wait);
        let Verdict::Amnesia(words) = answer(11) else { unreachable!("row 10 was there once") };
        assert_eq!(words, "r1 has heard from this replica when its log had 11 rows, and now it has 10");
    }

    #[test]
    fn r18_a_bare_claim_is_an_empty_answer() {
        let mut memory = memory(10);
        let forged = Mark::new(99, &key(1));
        assert_eq!(memory.answered(ReplicaId(1), NONCE, &forged, &key(0)), Verdict::Wait);
        assert_eq!(memory.answered(ReplicaId(1), NONCE, &forged, &key(0)), Verdict::Wait, "one a replica counts");
        assert_eq!(memory.answered(ReplicaId(2), NONCE + 1, &Mark::default(), &key(0)), Verdict::Wait);
        assert_eq!(memory.answers_missing(), 1);
        assert_eq!(memory.answered(ReplicaId(2), NONCE, &Mark::default(), &key(0)), Verdict::Proven);
    }

    #[test]
    fn r18_the_highest_mark_is_kept_and_answered_with() {
        let mut memory = memory(0);
        let [low, high] = [3, 8].map(|rows| Mark::new(rows, &key(2)));
        [high, low].into_iter().for_each(|mark| memory.note(ReplicaId(2), mark));
        memory.note(ME, Mark::new(99, &key(0)));
        let answer = |to| match memory.answer(to, 1) {
            VerifiedPeer::Memory { mark, .. } => mark,
            _ => unreachable!("an answer is MEMORY"),
        };
        assert_eq!((answer(ReplicaId(2)), answer(ReplicaId(3)), answer(ME)), (high, Mark::default(), Mark::default()));
        assert!(memory.has_changed());
    }
}
