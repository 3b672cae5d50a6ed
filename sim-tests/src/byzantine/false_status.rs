//! A replica whose STATUS claims more or less than it has, or does not come.

use polder_consensus::Message;
use polder_node::replica::PeerMessage;
use polder_types::{Digest, ReplicaId, Seq, View};

use super::{Actor, Plot, say};

/// See the module.
pub(super) struct FalseStatus;

impl Actor for FalseStatus {
    fn name(&self) -> &'static str {
        "false-status"
    }

    fn outgoing(&mut self, plot: &mut Plot<'_>, _to: ReplicaId, message: PeerMessage) -> Vec<PeerMessage> {
        let PeerMessage::Ordering(Message::Status(status), _) = &message else { return vec![message] };
        let mut status = status.clone();
        let by = plot.random.range(1, 40);
        match plot.random.range(0, 8) {
            0 => return Vec::new(),
            1 => status.committed = Seq(status.committed.0 + by),
            2 => status.executed = Seq(status.executed.0 + by),
            3 => status.suspects = plot.some(),
            4 => status.view = View(status.view.0 + by),
            5 => status.view = View(status.view.0.saturating_sub(by)),
            6 => status.new_view = Some(Digest(plot.random.bytes())),
            7 => {
                for slot in &mut status.slots {
                    slot.prepares = plot.some();
                    slot.commits = plot.some();
                    slot.accepted = slot.accepted.filter(|_| plot.random.chance(500));
                }
            }
            _ => {
                status.low = Seq::ZERO;
                status.committed = Seq::ZERO;
                status.executed = Seq::ZERO;
                status.slots.clear();
            }
        }
        vec![say(Message::Status(status))]
    }
}
