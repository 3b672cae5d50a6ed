//! A leader that is as slow as it can be without missing a deadline: it holds every proposal and NEW-VIEW back until
//! just before somebody would suspect it (R6, R7: nothing that a leader can stretch sets its own deadline).

use std::collections::VecDeque;

use polder_consensus::Message;
use polder_node::replica::{Event, PeerMessage};
use polder_types::ReplicaId;

use super::{Actor, Plot, Said, ordering};
use crate::random::Random;

/// Messages held back, at most.
const HELD_MAX: usize = 1_024;

/// See the module.
pub(super) struct SlowLeader {
    /// Of the time-out in force, in thousandths.
    per_mille: u64,
    held: VecDeque<(u64, ReplicaId, PeerMessage)>,
}

impl SlowLeader {
    pub(super) fn new(random: &mut Random) -> Self {
        Self { per_mille: random.range(500, 950), held: VecDeque::new() }
    }

    fn delay_us(&self, plot: &Plot<'_>) -> u64 {
        let constants = &plot.genesis.constants;
        let doublings = plot.shared.view.0.min(constants.doublings_max().into());
        let timeout_ms = (constants.timeout_first_ms << doublings).min(constants.timeout_max_ms);
        timeout_ms * self.per_mille
    }
}

impl Actor for SlowLeader {
    fn name(&self) -> &'static str {
        "slow-leader"
    }

    fn hears(&mut self, plot: &mut Plot<'_>, _event: &Event) -> (bool, Said) {
        let mut due = Vec::new();
        while self.held.front().is_some_and(|(due_us, _, _)| *due_us <= plot.now_us) {
            due.extend(self.held.pop_front().map(|(_, to, message)| (to, message)));
        }
        (true, due)
    }

    fn outgoing(&mut self, plot: &mut Plot<'_>, to: ReplicaId, message: PeerMessage) -> Vec<PeerMessage> {
        let is_led = match ordering(&message) {
            Some(Message::Proposal(proposal, _)) => proposal.by == plot.me,
            Some(Message::NewView(new_view, _)) => new_view.by == plot.me,
            // It never says that it is slow.
            Some(Message::Abdicate(_)) => return Vec::new(),
            _ => false,
        };
        if !is_led || self.held.len() >= HELD_MAX {
            return vec![message];
        }
        self.held.push_back((plot.now_us + self.delay_us(plot), to, message));
        Vec::new()
    }
}
