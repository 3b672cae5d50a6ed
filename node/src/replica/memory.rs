//! Proof of memory at the start (R18): before its first vote a replica asks what others remember of it.
//!
//! A log can be unbroken and yet old: a folder restored from a copy. So a replica puts beside all that it says how many
//! rows of its log are durable, the others keep the highest such mark, and nobody who answers may show one beyond the log
//! that this replica starts from. Until enough have answered it signs nothing; it answers others' questions all the
//! same, or two that start together would wait for each other.
//!
//! Who holds the proof may be the last to answer: with enough answers at hand the others have a little more time, and who
//! has still not answered is asked for as long as the replica runs. A mark names the start that made it, so that
//! rows written since then prove nothing and hide nothing.
//!
//! Counting rows, not comparing votes: the votes of one view are not signed in the order of slots, so the highest vote
//! may be in a log that lacks others.

use std::collections::{BTreeMap, BTreeSet};

use polder_types::{Keyring, ReplicaId, SigningKey};
use serde::{Deserialize, Serialize};

use super::log::Log;
use super::message::{Mark, VerifiedPeer};

/// STATUS periods that those who have not answered still have, since the last answer: each is asked at least once more.
const WAIT_PERIODS: u64 = 2;

/// What was heard of another replica's log: the highest mark, and the highest that another start than that one's made.
/// So the highest mark from before any one start is always among them, in whatever order they came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Heard {
    highest: Mark,
    of_another_start: Mark,
}

impl Heard {
    /// Takes a mark; whether anything has changed.
    fn note(&mut self, mark: Mark) -> bool {
        let before = *self;
        if mark.start == self.highest.start {
            if mark.rows > self.highest.rows {
                self.highest = mark;
            }
        } else if mark.rows > self.highest.rows {
            self.of_another_start = self.highest;
            self.highest = mark;
        } else if mark.rows > self.of_another_start.rows {
            self.of_another_start = mark;
        }
        *self != before
    }

    /// The highest mark that this start has not made.
    fn before(&self, start: u64) -> Mark {
        if self.highest.start == start { self.of_another_start } else { self.highest }
    }
}

/// Whether others confirm that this replica remembers what it signed, and what it remembers of them.
#[derive(Debug)]
pub(super) struct Memory {
    me: ReplicaId,
    nonce: u64,
    /// Rows of the own log at the start.
    rows: u64,
    /// The others who have not answered.
    silent: BTreeSet<ReplicaId>,
    /// Answers that it cannot do without and that are still missing.
    answers_missing: usize,
    /// How much longer those who have not answered are waited for, once enough have.
    wait_ms: u64,
    wait_ms_max: u64,
    heard: BTreeMap<ReplicaId, Heard>,
    changed: BTreeSet<ReplicaId>,
}

impl Memory {
    /// The memory of a replica whose log has so many rows at its start, and which has heard this of others.
    pub(super) fn new(
        me: ReplicaId,
        keyring: &Keyring,
        nonce: u64,
        rows: u64,
        heard: BTreeMap<ReplicaId, Heard>,
        status_period_ms: u64,
    ) -> Self {
        let answers_missing = keyring.quorum().quorum() - 1;
        let silent = keyring.quorum().members().filter(|member| *member != me).collect();
        let wait_ms = status_period_ms.saturating_mul(WAIT_PERIODS);
        let changed = BTreeSet::new();
        Self { me, nonce, rows, silent, answers_missing, wait_ms, wait_ms_max: wait_ms, heard, changed }
    }

    /// Whether enough have answered, and the others have or had the time to; once so, always so.
    pub(super) fn is_proven(&self) -> bool {
        self.answers_missing == 0 && (self.silent.is_empty() || self.wait_ms == 0)
    }

    /// How many answers that it cannot do without are missing, for the status.
    pub(super) fn answers_missing(&self) -> usize {
        self.answers_missing
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, elapsed_ms: u64) {
        if self.answers_missing == 0 {
            self.wait_ms = self.wait_ms.saturating_sub(elapsed_ms);
        }
    }

    /// The question, to be asked until all have answered.
    pub(super) fn question(&self) -> VerifiedPeer {
        VerifiedPeer::MemoryAsk { nonce: self.nonce }
    }

    /// Who has not answered it.
    pub(super) fn silent(&self) -> impl Iterator<Item = ReplicaId> + '_ {
        self.silent.iter().copied()
    }

    /// The answer to another's question: what was heard before the start that asks.
    pub(super) fn answer(&self, to: ReplicaId, nonce: u64) -> VerifiedPeer {
        VerifiedPeer::Memory { nonce, mark: self.heard.get(&to).copied().unwrap_or_default().before(nonce) }
    }

    /// The own mark, of so many rows.
    pub(super) fn mark(&self, rows: u64, key: &SigningKey) -> Mark {
        Mark::new(rows, self.nonce, key)
    }

    /// Takes an answer: only to this start's question, and one a replica counts. A mark that was not made under the own
    /// key, or that this start made, is an empty answer.
    ///
    /// # Errors
    ///
    /// Somebody has heard of rows that the log did not have at the start: sign nothing any more (R17). However late it
    /// comes, and whoever has answered before: who answered first may have been away, or lie.
    pub(super) fn answered(
        &mut self,
        from: ReplicaId,
        nonce: u64,
        mark: &Mark,
        key: &SigningKey,
    ) -> Result<(), String> {
        if nonce != self.nonce {
            return Ok(());
        }
        if mark.rows > self.rows && mark.start != self.nonce && mark.is_of(key) {
            mark!(LostMemory);
            let (heard, had) = (mark.rows, self.rows);
            return Err(format!(
                "{from} has heard from this replica when its log had {heard} rows, and at this start it had {had}"
            ));
        }
        let was_proven = self.is_proven();
        if self.silent.remove(&from) && !was_proven {
            self.answers_missing = self.answers_missing.saturating_sub(1);
            self.wait_ms = self.wait_ms_max;
        }
        Ok(())
    }

    /// Planted: how many of so many rows were written since the start.
    #[cfg(polder_mutations)]
    pub(super) fn rows_since_start(&self, rows: u64) -> u64 {
        rows.saturating_sub(self.rows)
    }

    /// Planted: nothing is asked for any more.
    #[cfg(polder_mutations)]
    pub(super) fn forgive(&mut self) {
        (self.answers_missing, self.wait_ms) = (0, 0);
    }

    /// Remembers how far another replica's log reaches, as that replica says itself on its own channel.
    pub(super) fn note(&mut self, from: ReplicaId, mark: Mark) {
        if from != self.me && self.heard.entry(from).or_default().note(mark) {
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
            if let Some(heard) = self.heard.get(&replica) {
                log.remember(replica, heard);
            }
        }
    }
}

#[cfg(test)]
mod restart;

#[cfg(test)]
mod tests {
    use polder_types::{ClientAccess, Constants, FaultModel, Genesis, Member, Nonce};

    use super::*;

    const ME: ReplicaId = ReplicaId(0);
    /// This start's, and one from before it.
    const NONCE: u64 = 5;
    const BEFORE: u64 = 4;
    const PERIOD_MS: u64 = 100;

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
        Memory::new(ME, &keyring, NONCE, rows, BTreeMap::new(), PERIOD_MS)
    }

    fn answered(memory: &mut Memory, from: u8, mark: Mark) -> Result<(), String> {
        memory.answered(ReplicaId(from), NONCE, &mark, &key(0))
    }

    fn mark(rows: u64) -> Mark {
        Mark::new(rows, BEFORE, &key(0))
    }

    #[test]
    fn r18_a_log_that_is_shorter_than_a_mark_has_lost_memory() {
        assert_eq!(answered(&mut memory(10), 1, mark(10)), Ok(()));
        let words = "r1 has heard from this replica when its log had 11 rows, and at this start it had 10";
        assert_eq!(answered(&mut memory(10), 1, mark(11)), Err(words.to_owned()));
    }

    #[test]
    fn r18_a_bare_claim_and_an_answer_to_another_start_prove_nothing() {
        let mut memory = memory(10);
        let forged = Mark::new(99, BEFORE, &key(1));
        assert_eq!(answered(&mut memory, 1, forged), Ok(()));
        assert_eq!(answered(&mut memory, 1, forged), Ok(()));
        assert_eq!(memory.answers_missing(), 1, "one a replica counts");
        assert_eq!(memory.answered(ReplicaId(2), NONCE + 1, &mark(99), &key(0)), Ok(()));
        assert_eq!(memory.answers_missing(), 1);
        assert_eq!(answered(&mut memory, 2, Mark::default()), Ok(()));
        assert_eq!(memory.answers_missing(), 0);
    }

    #[test]
    fn r18_who_has_not_answered_is_waited_for_a_little_and_asked_for_ever() {
        let mut memory = memory(10);
        memory.tick(9 * PERIOD_MS);
        assert_eq!(answered(&mut memory, 1, Mark::default()), Ok(()));
        memory.tick(9 * PERIOD_MS);
        assert_eq!(answered(&mut memory, 3, Mark::default()), Ok(()));
        memory.tick(2 * PERIOD_MS - 1);
        assert!(!memory.is_proven(), "it has two more periods since the last answer");
        memory.tick(1);
        assert!(memory.is_proven(), "q-1 are enough, or it would wait for the dead");
        assert_eq!(memory.silent().collect::<Vec<_>>(), [ReplicaId(2)]);
        assert_eq!(answered(&mut memory, 2, Mark::default()), Ok(()));
        assert_eq!(memory.silent().count(), 0);
        assert!(memory.is_proven());
    }

    #[test]
    fn r18_when_all_have_answered_nobody_is_waited_for() {
        let mut memory = memory(10);
        for from in 1..=3 {
            assert!(!memory.is_proven());
            assert_eq!(answered(&mut memory, from, mark(10)), Ok(()));
        }
        assert!(memory.is_proven());
    }

    /// Two empty answers first, from one that was away and from one that lies; the third shows what was lost.
    #[test]
    fn r18_an_answer_that_shows_lost_memory_counts_also_when_it_is_late() {
        let mut memory = memory(10);
        assert_eq!(answered(&mut memory, 1, Mark::default()), Ok(()));
        assert_eq!(answered(&mut memory, 2, Mark::default()), Ok(()));
        memory.tick(2 * PERIOD_MS);
        assert!(memory.is_proven());
        assert!(answered(&mut memory, 3, mark(11)).is_err());
        assert!(answered(&mut memory, 1, mark(11)).is_err(), "who has answered may hear late what was said before");
    }

    #[test]
    fn r18_rows_that_were_written_since_the_start_prove_nothing() {
        let mut memory = memory(10);
        let own = memory.mark(12, &key(0));
        assert_eq!(answered(&mut memory, 1, own), Ok(()));
        assert_eq!(memory.answers_missing(), 1);
    }

    #[test]
    fn r18_the_highest_mark_from_before_a_start_is_answered_with() {
        let mut memory = memory(0);
        let made = |rows, start| Mark::new(rows, start, &key(2));
        let answer = |memory: &Memory, to, nonce| match memory.answer(ReplicaId(to), nonce) {
            VerifiedPeer::Memory { mark, .. } => mark,
            _ => unreachable!("an answer is MEMORY"),
        };
        [made(8, 1), made(3, 1)].into_iter().for_each(|mark| memory.note(ReplicaId(2), mark));
        memory.note(ME, Mark::new(99, 1, &key(0)));
        assert_eq!(answer(&memory, 2, 7), made(8, 1));
        assert_eq!((answer(&memory, 3, 7), answer(&memory, 0, 7)), (Mark::default(), Mark::default()));
        assert!(memory.has_changed());

        // Start 7 goes on from an older copy of the folder: its rows hide nothing, and what start 1 said late counts.
        [made(5, 7), made(9, 7)].into_iter().for_each(|mark| memory.note(ReplicaId(2), mark));
        assert_eq!((answer(&memory, 2, 7), answer(&memory, 2, 8)), (made(8, 1), made(9, 7)));
        [made(10, 1), made(2, 6), made(11, 7)].into_iter().for_each(|mark| memory.note(ReplicaId(2), mark));
        assert_eq!((answer(&memory, 2, 7), answer(&memory, 2, 8)), (made(10, 1), made(11, 7)));
    }
}
