//! What a lying replica says in place of what its core would: at most `r` of them.

use polder_consensus::{Message, Proposal, ViewChange, Vote};
use polder_types::{Batch, ClusterId, ReplicaId, Signed, SigningKey};

/// A way to lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Says nothing.
    Mute,
    /// Proposes one batch to some and another to others.
    TwoProposals,
    /// Votes for another batch towards some.
    TwoVotes,
    /// Forgets in its VIEW-CHANGE, towards some, what it prepared.
    Forget,
}

impl Lie {
    pub const ALL: [Self; 4] = [Self::Mute, Self::TwoProposals, Self::TwoVotes, Self::Forget];

    /// What is sent instead of `message`.
    pub fn tell(
        self,
        key: &SigningKey,
        cluster: ClusterId,
        me: ReplicaId,
        to: ReplicaId,
        message: Message,
    ) -> Option<Message> {
        let lies = to.0.is_multiple_of(2);
        match (self, message) {
            (Self::Mute, _) => None,
            (Self::TwoProposals, Message::Proposal(signed, bytes)) if lies && signed.by == me => {
                let batch = Batch::from_blob(&bytes, usize::MAX).unwrap();
                let other = Batch { ts: batch.ts.next(), requests: Vec::new() }.to_blob();
                let statement = Proposal { digest: Batch::digest(&other), ..signed.statement };
                Some(Message::Proposal(Signed::sign(me, statement, cluster, key).into_inner(), other))
            }
            (Self::TwoVotes, Message::Vote(vote)) if lies && vote.by == me => {
                let other = Batch { ts: polder_types::Timestamp(7), requests: Vec::new() }.to_blob();
                let statement = Vote { digest: Batch::digest(&other), ..vote.statement };
                Some(Message::Vote(Signed::sign(me, statement, cluster, key).into_inner()))
            }
            (Self::Forget, Message::ViewChange(signed, mut body)) if lies && signed.by == me => {
                body.entries.clear();
                let statement = ViewChange { body: body.digest(), ..signed.statement };
                Some(Message::ViewChange(Signed::sign(me, statement, cluster, key).into_inner(), body))
            }
            (_, message) => Some(message),
        }
    }
}
