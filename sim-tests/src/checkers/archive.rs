//! **Archive.** Whatever one keeps of all that a correct replica ever said, across crashes and restarts, no two statements
//! in it are evidence against it.
//!
//! R41 ("crashes and restarts of correct replicas never produce one"), R8. Stronger than that no replica accuses it: nobody
//! hears everything.

use std::collections::BTreeMap;

use polder_consensus::{Evidence, Message, NotEvidence, Phase, Vote};
use polder_types::{Digest, Keyring, ReplicaId, Seq, Signed, View};

use super::{Verdict, violation};

/// The name of this checker.
pub const NAME: &str = "archive";

/// A statement of which there is one: its kind, who made it, its view, its slot.
type Place = (u8, ReplicaId, View, Seq);

/// All that correct replicas said.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    said: BTreeMap<Place, Digest>,
    /// The COMMIT of the highest view, by replica and slot.
    commits: BTreeMap<(ReplicaId, Seq), Signed<Vote>>,
}

impl Archive {
    /// A correct replica sends a message; what it signed itself is kept.
    ///
    /// # Errors
    ///
    /// When that contradicts what it said before.
    pub fn sent(&mut self, by: ReplicaId, message: &Message, keyring: &Keyring) -> Verdict {
        let header = message.header();
        if header.by != Some(by) {
            return Ok(());
        }
        let kind = match message {
            Message::Proposal(..) => 0,
            Message::Vote(vote) if vote.statement.phase == Phase::Prepare => 1,
            Message::Vote(_) => 2,
            Message::ViewChange(..) => 3,
            Message::NewView(..) => 4,
            _ => return Ok(()),
        };
        let digest = header.digest.unwrap_or_default();
        let place = (kind, by, header.view.unwrap_or_default(), header.slot.unwrap_or_default());
        let first = *self.said.entry(place).or_insert(digest);
        if first != digest {
            return violation(NAME, format!("{by} is correct and said {message}, but before {first}"));
        }
        match message {
            Message::Vote(vote) if vote.statement.phase == Phase::Commit => {
                let kept = self.commits.entry((by, vote.statement.slot)).or_insert_with(|| vote.clone());
                if kept.statement.view < vote.statement.view {
                    *kept = vote.clone();
                }
                Ok(())
            }
            Message::ViewChange(signed, body) => {
                let above = self.commits.range((by, body.low.next())..=(by, Seq(u64::MAX)));
                for commit in above.map(|(_, commit)| commit) {
                    let slot = commit.statement.slot;
                    if body.entries.iter().any(|entry| entry.slot == slot && entry.view > commit.statement.view) {
                        continue;
                    }
                    let forgotten = Evidence::Forgotten(commit.clone(), Box::new((signed.clone(), body.clone())));
                    if forgotten.verify(keyring) != Err(NotEvidence::NoContradiction) {
                        return violation(NAME, format!("{by} is correct and said {message}, which forgets {slot}"));
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use polder_consensus::{Proposal, Suspect, ViewChange, ViewChangeBody};
    use polder_types::{Blob, ClusterId, Epoch, FaultModel, Proof, Quorum, SigningKey};

    use super::*;

    const ME: ReplicaId = ReplicaId(1);

    fn keys() -> (SigningKey, Option<Keyring>) {
        let keys: Vec<SigningKey> = (0..4).map(|i| SigningKey::from_seed(&[i; 32])).collect();
        let public: Vec<_> = keys.iter().map(SigningKey::public).collect();
        let quorum = Quorum::new(4, FaultModel::Byzantine).ok();
        let keyring = quorum.and_then(|quorum| Keyring::new(ClusterId(Digest::ZERO), quorum, &public).ok());
        (keys[1].clone(), keyring)
    }

    #[test]
    fn a_second_proposal_and_a_forgotten_commit_are_caught() {
        let (key, Some(keyring)) = keys() else { return };
        let cluster = keyring.cluster();
        let (epoch, view, slot) = (Epoch(0), View(1), Seq(3));
        let mut archive = Archive::default();
        let propose = |digest: u8| {
            let statement = Proposal { epoch, view, slot, digest: Digest([digest; 32]) };
            Message::Proposal(Signed::sign(ME, statement, cluster, &key).into_inner(), Blob::default())
        };
        assert_eq!(archive.sent(ME, &propose(1), &keyring), Ok(()));
        assert_eq!(archive.sent(ME, &propose(1), &keyring), Ok(()));
        assert!(archive.sent(ME, &propose(2), &keyring).is_err());
        let vote = Vote { phase: Phase::Commit, epoch, view, slot, digest: Digest([1; 32]) };
        let vote = Message::Vote(Signed::sign(ME, vote, cluster, &key).into_inner());
        assert_eq!(archive.sent(ME, &vote, &keyring), Ok(()));
        let change = |low: u64| {
            let suspects = Proof { statement: Suspect { epoch, view: View(low) }, signers: Vec::new() };
            let body = ViewChangeBody { suspects, low: Seq(low), stable: None, entries: Vec::new() };
            let statement = ViewChange { epoch, view: View(2 + low), body: body.digest() };
            Message::ViewChange(Signed::sign(ME, statement, cluster, &key).into_inner(), body)
        };
        assert_eq!(archive.sent(ME, &change(3), &keyring), Ok(()), "below the watermark");
        assert!(archive.sent(ME, &change(2), &keyring).is_err());
    }
}
