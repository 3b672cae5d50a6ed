//! A leader that serves all clients but one: it leaves that one's requests out of every batch, and otherwise leads well.

use std::collections::BTreeMap;

use polder_consensus::{Message, Proposal, Vote};
use polder_node::replica::PeerMessage;
use polder_types::{Batch, ClientId, Digest, ReplicaId, Seq, View};

use super::{Actor, Plot, say};

/// See the module.
#[derive(Default)]
pub(super) struct StarvingLeader {
    victim: Option<ClientId>,
    /// What it proposes instead of what it would.
    instead: BTreeMap<(View, Seq), (Digest, Digest)>,
}

impl Actor for StarvingLeader {
    fn name(&self) -> &'static str {
        "starving-leader"
    }

    fn outgoing(&mut self, plot: &mut Plot<'_>, _to: ReplicaId, message: PeerMessage) -> Vec<PeerMessage> {
        match message {
            PeerMessage::Ordering(Message::Proposal(proposal, body), _) if proposal.by == plot.me => {
                let Ok(mut batch) = Batch::from_blob(&body, usize::MAX) else { return Vec::new() };
                let clients = batch.requests.iter().filter_map(|request| request.request().ok());
                // The first client of all, by key, once it is known.
                self.victim = clients.map(|request| request.client).chain(self.victim).min();
                let victim = self.victim;
                batch.requests.retain(|request| request.request().is_ok_and(|request| Some(request.client) != victim));
                let body = batch.to_blob();
                let digest = Batch::digest(&body);
                let at = (proposal.statement.view, proposal.statement.slot);
                self.instead.insert(at, (proposal.statement.digest, digest));
                if self.instead.len() > 128 {
                    self.instead.pop_first();
                }
                let proposal = plot.sign(Proposal { digest, ..proposal.statement });
                vec![say(Message::Proposal(proposal, body))]
            }
            PeerMessage::Ordering(Message::Vote(vote), _) if vote.by == plot.me => {
                let instead = self.instead.get(&(vote.statement.view, vote.statement.slot));
                let digest = match instead {
                    Some((own, instead)) if *own == vote.statement.digest => *instead,
                    _ => vote.statement.digest,
                };
                vec![say(Message::Vote(plot.sign(Vote { digest, ..vote.statement })))]
            }
            other => vec![other],
        }
    }
}
