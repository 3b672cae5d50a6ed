//! A leader that proposes nothing, leaves out single slots, or keeps some in the dark, as long as it leads.

use polder_consensus::Message;
use polder_node::replica::PeerMessage;
use polder_types::ReplicaId;

use super::{Actor, Plot, is_in, ordering};
use crate::random::Random;

/// See the module.
pub(super) struct SilentLeader {
    hidden_from: u128,
    hides_new_views: bool,
    /// Of the slots only those that are a multiple of this.
    every: u64,
}

impl SilentLeader {
    pub(super) fn new(random: &mut Random) -> Self {
        let hidden_from = if random.chance(400) { u128::MAX } else { random.bits().into() };
        Self { hidden_from, hides_new_views: random.chance(500), every: random.weighted(&[(2, 1), (1, 3), (1, 5)], 1) }
    }
}

impl Actor for SilentLeader {
    fn name(&self) -> &'static str {
        "silent-leader"
    }

    fn outgoing(&mut self, plot: &mut Plot<'_>, to: ReplicaId, message: PeerMessage) -> Vec<PeerMessage> {
        let is_hidden = match ordering(&message) {
            Some(Message::Proposal(proposal, _)) => {
                proposal.by == plot.me && proposal.statement.slot.0.is_multiple_of(self.every)
            }
            Some(Message::NewView(new_view, _)) => new_view.by == plot.me && self.hides_new_views,
            _ => false,
        };
        if is_hidden && is_in(self.hidden_from, to) { Vec::new() } else { vec![message] }
    }
}
