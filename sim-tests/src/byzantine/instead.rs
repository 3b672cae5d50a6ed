//! What a leader proposes in place of what its replica would, and how its own votes follow.

use std::collections::BTreeMap;

use polder_consensus::{Message, Proposal, Vote};
use polder_node::replica::PeerMessage;
use polder_types::{Batch, Digest, Seq, Signed, View};

use super::{Plot, say};

/// Slots that are remembered.
const SLOTS_MAX: usize = 128;

/// Batches that were proposed in place of others.
#[derive(Debug, Default)]
pub(super) struct Instead(BTreeMap<(View, Seq), (Digest, Digest)>);

impl Instead {
    /// Proposes this batch in place of the replica's own.
    pub(super) fn propose(&mut self, plot: &Plot<'_>, proposal: &Signed<Proposal>, batch: &Batch) -> PeerMessage {
        let body = batch.to_blob();
        let digest = Batch::digest(&body);
        let at = (proposal.statement.view, proposal.statement.slot);
        self.0.insert(at, (proposal.statement.digest, digest));
        if self.0.len() > SLOTS_MAX {
            self.0.pop_first();
        }
        say(Message::Proposal(plot.sign(Proposal { digest, ..proposal.statement }), body))
    }

    /// The own vote, for what was proposed in place of what it is for.
    pub(super) fn vote(&self, plot: &Plot<'_>, vote: &Signed<Vote>) -> PeerMessage {
        let digest = match self.0.get(&(vote.statement.view, vote.statement.slot)) {
            Some((own, instead)) if *own == vote.statement.digest => *instead,
            _ => return say(Message::Vote(vote.clone())),
        };
        say(Message::Vote(plot.sign(Vote { digest, ..vote.statement })))
    }
}
