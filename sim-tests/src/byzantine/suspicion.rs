//! A replica that suspects every leader at once, and abdicates whenever it leads.

use polder_consensus::{Abdicate, Message, Suspect};
use polder_node::replica::PeerMessage;
use polder_types::{Epoch, ReplicaId, View};

use super::{Actor, Plot, say};

/// See the module.
pub(super) struct Suspicion;

impl Actor for Suspicion {
    fn name(&self) -> &'static str {
        "suspicion"
    }

    fn make_up(&mut self, plot: &mut Plot<'_>) -> Vec<(ReplicaId, PeerMessage)> {
        let view = View(plot.shared.view.0 + plot.random.range(0, 2));
        let epoch = Epoch::ZERO;
        let suspect = say(Message::Suspect(plot.sign(Suspect { epoch, view })));
        let mut lies: Vec<(ReplicaId, PeerMessage)> = plot.others().map(|to| (to, suspect.clone())).collect();
        if plot.quorum().leader(view) == plot.me && plot.random.chance(100) {
            let abdicate = say(Message::Abdicate(plot.sign(Abdicate { epoch, view })));
            lies.extend(plot.others().map(|to| (to, abdicate.clone())));
        }
        lies
    }
}
