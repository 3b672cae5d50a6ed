//! Proof of memory at the start (R18): before its first vote a replica asks what others remember of it.
//!
//! A log can be unbroken and yet old: a folder restored from a copy. So none of `q−1` others may show a statement under
//! this replica's own signature that its log does not know. Until they have answered, the replica signs nothing; it
//! answers others' questions all the same, or two that start together would wait for each other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use polder_consensus::Message;
use polder_types::{Checkpoint, Keyring, ReplicaId, Signed};

use super::log::{Log, OwnHighest};
use super::message::{Remembered, VerifiedPeer};

/// Whether others confirm that this replica remembers what it signed, and what it remembers of them.
#[derive(Debug)]
pub(super) struct Memory {
    me: ReplicaId,
    nonce: u64,
    own: OwnHighest,
    answered: BTreeSet<ReplicaId>,
    answers_needed: usize,
    remembered: BTreeMap<ReplicaId, Remembered>,
    changed: BTreeSet<ReplicaId>,
}

/// What an answer to MEMORY? means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Not ours, or not enough yet: wait.
    Wait,
    /// Enough have answered, and none knows more than the own log: go.
    Proven,
    /// Somebody holds a statement of ours that the own log does not know: sign nothing (R17).
    Amnesia(String),
}

impl Memory {
    pub(super) fn new(
        me: ReplicaId,
        keyring: &Keyring,
        nonce: u64,
        own: OwnHighest,
        remembered: BTreeMap<ReplicaId, Remembered>,
    ) -> Self {
        let answers_needed = keyring.quorum().quorum() - 1;
        Self { me, nonce, own, answered: BTreeSet::new(), answers_needed, remembered, changed: BTreeSet::new() }
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
        let remembered = self.remembered.get(&to).cloned().unwrap_or_default();
        VerifiedPeer::Memory { nonce, remembered: Arc::new(remembered) }
    }

    /// Takes an answer: one a replica counts, and only to this start's question.
    pub(super) fn answered(
        &mut self,
        from: ReplicaId,
        nonce: u64,
        remembered: &Remembered,
        keyring: &Keyring,
    ) -> Verdict {
        if nonce != self.nonce || from == self.me || self.is_proven() {
            return Verdict::Wait;
        }
        let remembered = remembered.clone().verified(self.me, keyring);
        if let Some(what) = self.own.exceeded_by(&remembered) {
            return Verdict::Amnesia(format!("{from} holds {what} that this replica signed and its log does not know"));
        }
        self.answered.insert(from);
        if self.is_proven() { Verdict::Proven } else { Verdict::Wait }
    }

    /// Remembers what another replica signed.
    pub(super) fn note(&mut self, message: &Message) {
        let Some(by) = signer(message).filter(|by| *by != self.me) else { return };
        if self.remembered.entry(by).or_default().note(message) {
            self.changed.insert(by);
        }
    }

    /// Remembers another replica's statement about a cut.
    pub(super) fn note_checkpoint(&mut self, signed: &Signed<Checkpoint>) {
        let by = signed.by;
        if by != self.me && self.remembered.entry(by).or_default().note_checkpoint(signed) {
            self.changed.insert(by);
        }
    }

    /// Puts the changed rows beside the entries that the log is about to write: they need no write of their own.
    pub(super) fn write_changed(&mut self, log: &mut Log) {
        while let Some(replica) = self.changed.pop_first() {
            if let Some(remembered) = self.remembered.get(&replica) {
                log.remember(replica, remembered);
            }
        }
    }
}

/// Whose memory a message is about: votes and view changes.
fn signer(message: &Message) -> Option<ReplicaId> {
    match message {
        Message::Vote(vote) => Some(vote.by),
        Message::ViewChange(change, _) => Some(change.by),
        _ => None,
    }
}
