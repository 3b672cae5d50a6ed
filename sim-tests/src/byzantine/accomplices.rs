//! Liars that lead one after the other and vouch for one another: each votes, in both phases, for whatever a liar has
//! shown to whom, and hides in its VIEW-CHANGEs what would give it away. Of use where two or more lie.

use polder_consensus::{Message, Phase, ViewChange, Vote};
use polder_node::replica::PeerMessage;
use polder_types::{ReplicaId, Seq, View};

use super::{Actor, Plot, Said, is_in, say};

/// See the module.
#[derive(Default)]
pub(super) struct Accomplices {
    /// The last of the shared plans that it has voted for.
    last: Option<(View, Seq)>,
}

impl Actor for Accomplices {
    fn name(&self) -> &'static str {
        "accomplices"
    }

    fn make_up(&mut self, plot: &mut Plot<'_>) -> Said {
        let twins: Vec<_> = plot.shared.twins.iter().map(|(at, twin)| (*at, twin.clone())).collect();
        let mut said = Vec::new();
        let last = self.last;
        for (at, twin) in twins.into_iter().filter(|(at, _)| Some(*at) > last) {
            self.last = Some(at);
            for to in plot.others() {
                let digest = if is_in(twin.shown_to, to) { twin.second.statement.digest } else { twin.first };
                for phase in [Phase::Prepare, Phase::Commit] {
                    let epoch = twin.second.statement.epoch;
                    let vote = plot.sign(Vote { phase, epoch, view: at.0, slot: at.1, digest });
                    said.push((to, say(Message::Vote(vote))));
                }
            }
        }
        said
    }

    fn outgoing(&mut self, plot: &mut Plot<'_>, _to: ReplicaId, message: PeerMessage) -> Vec<PeerMessage> {
        match &message {
            // Its own honest votes for such a slot would spoil it.
            PeerMessage::Ordering(Message::Vote(vote), _) => {
                let at = (vote.statement.view, vote.statement.slot);
                if vote.by == plot.me && plot.shared.twins.contains_key(&at) { Vec::new() } else { vec![message] }
            }
            PeerMessage::Ordering(Message::ViewChange(signed, body), mark) if signed.by == plot.me => {
                let mut body = body.clone();
                body.entries.retain(|entry| !plot.shared.twins.contains_key(&(entry.view, entry.slot)));
                let signed = plot.sign(ViewChange { body: body.digest(), ..signed.statement });
                vec![PeerMessage::Ordering(Message::ViewChange(signed, body), *mark)]
            }
            _ => vec![message],
        }
    }
}
