//! A replica whose VIEW-CHANGEs hide entries that it prepared, and differ from one receiver to the next.

use polder_consensus::{Message, ViewChange};
use polder_node::replica::PeerMessage;
use polder_types::{ReplicaId, Seq};

use super::{Actor, Plot};
use crate::random::Random;

/// See the module.
pub(super) struct HiddenEntries {
    keep_per_mille: u64,
    hides_low: bool,
}

impl HiddenEntries {
    pub(super) fn new(random: &mut Random) -> Self {
        Self { keep_per_mille: random.range(0, 700), hides_low: random.chance(300) }
    }
}

impl Actor for HiddenEntries {
    fn name(&self) -> &'static str {
        "hidden-entries"
    }

    fn outgoing(&mut self, plot: &mut Plot<'_>, _to: ReplicaId, message: PeerMessage) -> Vec<PeerMessage> {
        let PeerMessage::Ordering(Message::ViewChange(signed, body), mark) = &message else { return vec![message] };
        if signed.by != plot.me {
            return vec![message];
        }
        let mut body = body.clone();
        if self.hides_low {
            body.low = Seq::ZERO;
            body.stable = None;
            body.entries.clear();
        }
        body.entries.retain(|_| plot.random.chance(self.keep_per_mille));
        let signed = plot.sign(ViewChange { body: body.digest(), ..signed.statement });
        vec![PeerMessage::Ordering(Message::ViewChange(signed, body), *mark)]
    }
}
