//! A leader that lets one replica prepare a batch whose body it keeps from it, lets nobody else prepare it, and answers
//! no pull: whoever votes COMMIT without the body is left with an entry that nobody can fill (R11).

use polder_consensus::Message;
use polder_node::replica::PeerMessage;
use polder_types::ReplicaId;

use super::{Actor, Plot, ordering};
use crate::random::Random;

/// See the module.
pub(super) struct HalfPrepared {
    /// The victim: the one that leads so many views later.
    places: u64,
}

impl HalfPrepared {
    pub(super) fn new(random: &mut Random) -> Self {
        Self { places: random.range(1, 6) }
    }
}

impl Actor for HalfPrepared {
    fn name(&self) -> &'static str {
        "half-prepared"
    }

    fn outgoing(&mut self, plot: &mut Plot<'_>, to: ReplicaId, message: PeerMessage) -> Vec<PeerMessage> {
        let n = plot.quorum().replicas() as u64;
        let victim = plot.after_me(1 + self.places % (n - 1).max(1));
        let is_said = match ordering(&message) {
            Some(Message::Proposal(proposal, _)) => proposal.by != plot.me || to != victim,
            Some(Message::Vote(vote)) => {
                plot.quorum().leader(vote.statement.view) != plot.me || (vote.by == plot.me && to == victim)
            }
            Some(Message::Body(_) | Message::Committed(..) | Message::ViewChange(..)) => false,
            _ => true,
        };
        if is_said { vec![message] } else { Vec::new() }
    }
}
