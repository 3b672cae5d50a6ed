//! A leader whose NEW-VIEWs enclose different VIEW-CHANGEs for different receivers, or old ones: those of an earlier view in
//! place of those of this one (R9: only those of the view count).

use std::collections::BTreeMap;

use polder_consensus::{Message, NewView, ViewChange, ViewChangeBody};
use polder_node::replica::{Event, PeerMessage};
use polder_types::{ReplicaId, Signed};

use super::{Actor, Plot, Said, heard, say};

/// See the module.
#[derive(Default)]
pub(super) struct SelectiveNewView {
    /// The first VIEW-CHANGE that it heard of each.
    old: BTreeMap<ReplicaId, (Signed<ViewChange>, ViewChangeBody)>,
}

impl Actor for SelectiveNewView {
    fn name(&self) -> &'static str {
        "selective-new-view"
    }

    fn hears(&mut self, _plot: &mut Plot<'_>, event: &Event) -> (bool, Said) {
        if let Some((_, Message::ViewChange(signed, body))) = heard(event) {
            self.old.entry(signed.by).or_insert_with(|| (signed.clone(), body.clone()));
        }
        (true, Vec::new())
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
        if plot.random.chance(300) {
            for change in &mut enclosed {
                if let Some(old) = self.old.get(&change.0.by) {
                    *change = old.clone();
                }
            }
        }
        let signed = plot.sign(NewView { body: NewView::body_digest(&enclosed), ..signed.statement });
        vec![say(Message::NewView(signed, enclosed))]
    }
}
