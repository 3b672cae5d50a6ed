//! **Single votes.** No correct replica signs two different things of one kind for one view and slot, whatever it went
//! through: crashes, failing disks, older copies of its folder.
//!
//! R8, R18; promise 5.

use std::collections::BTreeMap;

use polder_consensus::{Kind, Message};
use polder_types::{Digest, ReplicaId, Seq, View};

use super::{Verdict, violation};

/// The name of this checker.
pub const NAME: &str = "single-votes";

/// Statements that are remembered, the newest slots first to stay.
const VOTES_MAX: usize = 50_000;

/// What was signed.
#[derive(Clone, Debug, Default)]
pub struct SingleVotes {
    signed: BTreeMap<(Seq, View, u8, ReplicaId), Digest>,
}

impl SingleVotes {
    /// A replica that is held to the protocol sends something.
    ///
    /// # Errors
    ///
    /// When it has signed another thing of that kind for that view and slot.
    pub fn sent(&mut self, by: ReplicaId, message: &Message) -> Verdict {
        let header = message.header();
        let kind = match header.kind {
            Kind::Prepare => 0,
            Kind::Commit => 1,
            Kind::Proposal => 2,
            Kind::ViewChange => 3,
            Kind::NewView => 4,
            _ => return Ok(()),
        };
        let (Some(view), Some(digest)) = (header.view, header.digest) else { return Ok(()) };
        // Others' statements are relayed.
        if header.by != Some(by) {
            return Ok(());
        }
        self.signed(by, kind, view, header.slot.unwrap_or_default(), digest)
    }

    fn signed(&mut self, by: ReplicaId, kind: u8, view: View, slot: Seq, digest: Digest) -> Verdict {
        let first = *self.signed.entry((slot, view, kind, by)).or_insert(digest);
        if self.signed.len() > VOTES_MAX {
            self.signed.pop_first();
        }
        if first == digest {
            return Ok(());
        }
        violation(NAME, format!("{by} signed {first} and then {digest} in {view} for {slot}, kind {kind}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_different_vote_is_caught() {
        let (by, digest) = (ReplicaId(1), |byte| Digest([byte; 32]));
        let mut votes = SingleVotes::default();
        assert_eq!(votes.signed(by, 0, View(1), Seq(3), digest(1)), Ok(()));
        assert_eq!(votes.signed(by, 0, View(1), Seq(3), digest(1)), Ok(()));
        assert_eq!(votes.signed(by, 0, View(2), Seq(3), digest(2)), Ok(()));
        assert_eq!(votes.signed(ReplicaId(2), 0, View(1), Seq(3), digest(2)), Ok(()));
        assert!(votes.signed(by, 0, View(1), Seq(3), digest(2)).is_err());
    }
}
