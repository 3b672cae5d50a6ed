//! A replica that changes small things in what it signs: one view, one slot more or less (ByzzFuzz, OOPSLA 2023).

use polder_consensus::{Message, Proposal, Vote};
use polder_node::replica::PeerMessage;
use polder_types::{ReplicaId, Seq, View};

use super::{Actor, Plot, say};
use crate::random::Random;

/// See the module.
pub(super) struct MutatedFields {
    per_mille: u64,
}

impl MutatedFields {
    pub(super) fn new(random: &mut Random) -> Self {
        Self { per_mille: random.range(20, 300) }
    }
}

impl Actor for MutatedFields {
    fn name(&self) -> &'static str {
        "mutated-fields"
    }

    fn outgoing(&mut self, plot: &mut Plot<'_>, _to: ReplicaId, message: PeerMessage) -> Vec<PeerMessage> {
        if !plot.random.chance(self.per_mille) {
            return vec![message];
        }
        let lie = match &message {
            PeerMessage::Ordering(Message::Vote(vote), _) if vote.by == plot.me => {
                let (view, slot) = near(plot, vote.statement.view, vote.statement.slot);
                Message::Vote(plot.sign(Vote { view, slot, ..vote.statement }))
            }
            PeerMessage::Ordering(Message::Proposal(proposal, body), _) if proposal.by == plot.me => {
                let (view, slot) = near(plot, proposal.statement.view, proposal.statement.slot);
                Message::Proposal(plot.sign(Proposal { view, slot, ..proposal.statement }), body.clone())
            }
            _ => return vec![message],
        };
        if plot.random.chance(500) { vec![message, say(lie)] } else { vec![say(lie)] }
    }
}

fn near(plot: &mut Plot<'_>, view: View, slot: Seq) -> (View, Seq) {
    match plot.random.range(0, 3) {
        0 => (view.next(), slot),
        1 => (View(view.0.saturating_sub(1)), slot),
        2 => (view, slot.next()),
        _ => (view, Seq(slot.0.saturating_sub(1).max(1))),
    }
}
