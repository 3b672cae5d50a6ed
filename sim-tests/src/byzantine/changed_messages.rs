//! A replica whose messages are taken apart and changed at any place, mixed with parts of others that it sent before, and
//! signed again where the signature would be its own. What it cannot sign does not verify and goes no further.

use std::collections::VecDeque;

use polder_consensus::{Message, NewView, ViewChange};
use polder_node::replica::PeerMessage;
use polder_types::{Batch, NodeFrame, ReplicaId, Signed, decode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Actor, Plot};
use crate::fuzz::tree::Tree;
use crate::random::Random;

/// Messages that parts are taken from.
const DONORS_MAX: usize = 48;

/// See the module.
pub(super) struct ChangedMessages {
    per_mille: u64,
    donors: VecDeque<Tree>,
}

impl ChangedMessages {
    pub(super) fn new(random: &mut Random) -> Self {
        Self { per_mille: random.range(30, 500), donors: VecDeque::new() }
    }

    /// Something else than this, if it can be decoded.
    fn changed<T: Serialize + DeserializeOwned>(&mut self, value: &T, random: &mut Random) -> Option<T> {
        let mut tree = Tree::of(value)?;
        self.donors.push_back(tree.clone());
        if self.donors.len() > DONORS_MAX {
            self.donors.pop_front();
        }
        let donors = self.donors.make_contiguous();
        (0..random.range(1, 3)).for_each(|_| tree.mutate(random, donors));
        decode(&tree.encode(), usize::MAX).ok()
    }
}

impl Actor for ChangedMessages {
    fn name(&self) -> &'static str {
        super::CHANGED_MESSAGES
    }

    fn outgoing(&mut self, plot: &mut Plot<'_>, _to: ReplicaId, message: PeerMessage) -> Vec<PeerMessage> {
        if !plot.random.chance(self.per_mille) {
            return vec![message];
        }
        let Some(mut changed) = self.changed(&message, plot.random) else { return vec![message] };
        if plot.random.chance(900) {
            changed = sign_again(plot, changed);
        }
        if plot.random.chance(500) { vec![message, changed] } else { vec![changed] }
    }

    fn answer(&mut self, plot: &mut Plot<'_>, frame: NodeFrame) -> Option<NodeFrame> {
        if !plot.random.chance(self.per_mille) {
            return Some(frame);
        }
        self.changed(&frame, plot.random).or(Some(frame))
    }
}

/// Makes the digests fit what they are of, and signs in the own name.
fn sign_again(plot: &Plot<'_>, message: PeerMessage) -> PeerMessage {
    let sign_change = |signed: &Signed<ViewChange>, body: &polder_consensus::ViewChangeBody| {
        plot.sign(ViewChange { body: body.digest(), ..signed.statement })
    };
    match message {
        PeerMessage::Ordering(message, mark) => {
            let message = match message {
                Message::Proposal(proposal, body) => {
                    let digest = Batch::digest(&body);
                    Message::Proposal(plot.sign(polder_consensus::Proposal { digest, ..proposal.statement }), body)
                }
                Message::Vote(vote) => Message::Vote(plot.sign(vote.statement)),
                Message::Suspect(suspect) => Message::Suspect(plot.sign(suspect.statement)),
                Message::Abdicate(abdicate) => Message::Abdicate(plot.sign(abdicate.statement)),
                Message::ViewChange(signed, body) => Message::ViewChange(sign_change(&signed, &body), body),
                Message::NewView(signed, mut enclosed) => {
                    let own = enclosed.iter_mut().filter(|(change, _)| change.by == plot.me);
                    own.for_each(|(change, body)| *change = sign_change(change, body));
                    let body = NewView::body_digest(&enclosed);
                    Message::NewView(plot.sign(NewView { body, ..signed.statement }), enclosed)
                }
                other => other,
            };
            PeerMessage::Ordering(message, mark)
        }
        PeerMessage::Checkpoint(signed, mark) => PeerMessage::Checkpoint(plot.sign(signed.statement), mark),
        other => other,
    }
}
