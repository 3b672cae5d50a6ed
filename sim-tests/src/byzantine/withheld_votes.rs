//! A replica that withholds its votes, of one phase or all, from some or all.

use polder_consensus::{Message, Phase};
use polder_node::replica::PeerMessage;
use polder_types::ReplicaId;

use super::{Actor, Plot, is_in, ordering};
use crate::random::Random;

/// See the module.
pub(super) struct WithheldVotes {
    hidden_from: u128,
    phases: Vec<Phase>,
}

impl WithheldVotes {
    pub(super) fn new(random: &mut Random) -> Self {
        let hidden_from = if random.chance(400) { u128::MAX } else { random.bits().into() };
        let phases = match random.range(0, 2) {
            0 => vec![Phase::Prepare],
            1 => vec![Phase::Commit],
            _ => vec![Phase::Prepare, Phase::Commit],
        };
        Self { hidden_from, phases }
    }
}

impl Actor for WithheldVotes {
    fn name(&self) -> &'static str {
        "withheld-votes"
    }

    fn outgoing(&mut self, plot: &mut Plot<'_>, to: ReplicaId, message: PeerMessage) -> Vec<PeerMessage> {
        let is_hidden = match ordering(&message) {
            Some(Message::Vote(vote)) => vote.by == plot.me && self.phases.contains(&vote.statement.phase),
            _ => false,
        };
        if is_hidden && is_in(self.hidden_from, to) { Vec::new() } else { vec![message] }
    }
}
