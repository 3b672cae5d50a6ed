//! A leader that serves all clients but one: it leaves that one's requests out of every batch, and otherwise leads well.

use polder_consensus::Message;
use polder_node::replica::PeerMessage;
use polder_types::{Batch, ClientId, ReplicaId};

use super::instead::Instead;
use super::{Actor, Plot};

/// See the module.
#[derive(Default)]
pub(super) struct StarvingLeader {
    victim: Option<ClientId>,
    instead: Instead,
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
                vec![self.instead.propose(plot, &proposal, &batch)]
            }
            PeerMessage::Ordering(Message::Vote(vote), _) if vote.by == plot.me => {
                vec![self.instead.vote(plot, &vote)]
            }
            other => vec![other],
        }
    }
}
