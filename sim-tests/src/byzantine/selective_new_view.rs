//! A leader whose NEW-VIEWs enclose different VIEW-CHANGEs for different receivers.

use polder_consensus::{Message, NewView};
use polder_node::replica::PeerMessage;
use polder_types::ReplicaId;

use super::{Actor, Plot, say};

/// See the module.
pub(super) struct SelectiveNewView;

impl Actor for SelectiveNewView {
    fn name(&self) -> &'static str {
        "selective-new-view"
    }

    fn outgoing(&mut self, plot: &mut Plot<'_>, _to: ReplicaId, message: PeerMessage) -> Vec<PeerMessage> {
        let PeerMessage::Ordering(Message::NewView(signed, enclosed), _) = &message else { return vec![message] };
        if signed.by != plot.me {
            return vec![message];
        }
        let mut enclosed = enclosed.clone();
        while enclosed.len() > plot.quorum().quorum() && plot.random.chance(800) {
            let index = plot.random.below(enclosed.len());
            enclosed.remove(index);
        }
        let signed = plot.sign(NewView { body: NewView::body_digest(&enclosed), ..signed.statement });
        vec![say(Message::NewView(signed, enclosed))]
    }
}
