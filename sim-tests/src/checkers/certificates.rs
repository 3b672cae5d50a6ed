//! **Certificates verify.** Whatever a correct replica sends, votes, certificates and what encloses them, verifies at
//! everybody, also after a journey as bytes; and all commit certificates for one slot are for one batch.
//!
//! R1, R3, R9; promise 1.

use std::collections::BTreeMap;

use polder_consensus::{BadMessage, Message, Phase};
use polder_node::replica::VerifiedPeer;
use polder_types::{Digest, ReplicaId, Seq};

use super::{Verdict, violation};

/// The name of this checker.
pub const NAME: &str = "certificates";

/// What was certified.
#[derive(Clone, Debug, Default)]
pub struct Certificates {
    committed: BTreeMap<Seq, Digest>,
}

impl Certificates {
    /// A correct replica sent something that was checked with this verdict.
    ///
    /// # Errors
    ///
    /// When it does not verify.
    pub fn sent(by: ReplicaId, what: &str, verdict: Result<(), BadMessage>) -> Verdict {
        verdict.or_else(|why| violation(NAME, format!("{by} is correct and sent {what}: {why}")))
    }

    /// What a correct replica sent was changed on the way, and still verifies.
    ///
    /// # Errors
    ///
    /// When it says anything else under the name of whoever signed it.
    pub fn corrupted(sent: &VerifiedPeer, changed: &VerifiedPeer) -> Verdict {
        let is_same = match (sent, changed) {
            (VerifiedPeer::Ordering(sent, _), VerifiedPeer::Ordering(changed, _)) => {
                let (sent, changed) = (sent.message(), changed.message());
                sent == changed || changed.header().by.is_none()
            }
            (VerifiedPeer::Checkpoint(sent, _), VerifiedPeer::Checkpoint(changed, _)) => **sent == **changed,
            (_, VerifiedPeer::Ordering(changed, _)) => changed.message().header().by.is_none(),
            (_, VerifiedPeer::Checkpoint(..)) => false,
            _ => true,
        };
        if is_same {
            Ok(())
        } else {
            violation(NAME, format!("{sent} was changed on its way to {changed}, and verifies"))
        }
    }

    /// A verified message was seen, whoever sent it.
    ///
    /// # Errors
    ///
    /// When it carries a commit certificate for another batch than one before.
    pub fn seen(&mut self, message: &Message) -> Verdict {
        let Message::Committed(proof, _) = message else { return Ok(()) };
        if proof.statement.phase != Phase::Commit {
            return violation(
                NAME,
                format!("a decision of {} is proved by {:?}s", proof.statement.slot, proof.statement.phase),
            );
        }
        let (slot, digest) = (proof.statement.slot, proof.statement.digest);
        let first = *self.committed.entry(slot).or_insert(digest);
        if first == digest {
            return Ok(());
        }
        violation(NAME, format!("{slot} has commit certificates for {first} and {digest}"))
    }
}

#[cfg(test)]
mod tests {
    use polder_consensus::Vote;
    use polder_node::replica::Mark;
    use polder_types::{Blob, Checkpoint, ClusterId, Epoch, Proof, Signed, SigningKey, Timestamp, View};

    use super::*;

    fn committed(digest: u8) -> Message {
        let digest = Digest([digest; 32]);
        let statement = Vote { phase: Phase::Commit, epoch: Epoch(0), view: View(0), slot: Seq(3), digest };
        Message::Committed(Proof { statement, signers: Vec::new() }, Blob::default())
    }

    #[test]
    fn two_decisions_of_one_slot_are_caught() {
        let mut certificates = Certificates::default();
        assert_eq!(certificates.seen(&committed(1)), Ok(()));
        assert_eq!(certificates.seen(&committed(1)), Ok(()));
        assert!(certificates.seen(&committed(2)).is_err());
    }

    #[test]
    fn a_signed_statement_that_was_changed_and_verifies_is_caught() {
        let key = SigningKey::from_seed(&[1; 32]);
        let statement = |seq| {
            let (root, history, config, pending) = (Digest::ZERO, Digest::ZERO, Digest::ZERO, Digest::ZERO);
            let statement = Checkpoint { epoch: Epoch(0), seq, root, history, time: Timestamp(0), config, pending };
            let signed = Signed::sign(ReplicaId(0), statement, ClusterId(Digest::ZERO), &key);
            VerifiedPeer::Checkpoint(signed, Mark::default())
        };
        assert_eq!(Certificates::corrupted(&statement(Seq(1)), &statement(Seq(1))), Ok(()));
        assert!(Certificates::corrupted(&statement(Seq(1)), &statement(Seq(2))).is_err());
        let question = VerifiedPeer::MemoryAsk { nonce: 1 };
        assert!(Certificates::corrupted(&question, &statement(Seq(1))).is_err());
        assert_eq!(Certificates::corrupted(&statement(Seq(1)), &question), Ok(()));
    }

    #[test]
    fn what_does_not_verify_is_caught() {
        assert_eq!(Certificates::sent(ReplicaId(0), "it", Ok(())), Ok(()));
        assert!(Certificates::sent(ReplicaId(0), "it", Err(BadMessage::Signature)).is_err());
    }
}
