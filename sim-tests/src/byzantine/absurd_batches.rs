//! A leader that proposes batches of no requests, or of times that cannot be: long ago, never, for long from now (R27).

use polder_consensus::Message;
use polder_node::replica::PeerMessage;
use polder_types::{Batch, ReplicaId, Seq, Timestamp, View};

use super::instead::Instead;
use super::{Actor, Plot};
use crate::random::Random;

const HOUR_MS: u64 = 3_600_000;

/// See the module.
pub(super) struct AbsurdBatches {
    per_mille: u64,
    /// What it made of the last proposal: the same for all receivers, or it would be an equivocation.
    last: Option<((View, Seq), Option<Batch>)>,
    instead: Instead,
}

impl AbsurdBatches {
    pub(super) fn new(random: &mut Random) -> Self {
        Self { per_mille: random.range(100, 900), last: None, instead: Instead::default() }
    }

    fn absurd(&self, plot: &mut Plot<'_>, mut batch: Batch) -> Option<Batch> {
        if !plot.random.chance(self.per_mille) {
            return None;
        }
        let ahead_ms = plot.genesis.constants.clock_ahead_max_ms;
        match plot.random.range(0, 7) {
            // Without requests and of time 0 it is a no-op, which nobody need propose.
            0 => batch = Batch::no_op(),
            1 => batch.requests.clear(),
            2 => batch.ts = Timestamp(0),
            3 => batch.ts = Timestamp(u64::MAX),
            4 => batch.ts = plot.now.wall.plus(HOUR_MS),
            5 => batch.ts = plot.now.wall.minus(HOUR_MS),
            6 => batch.ts = plot.now.wall.plus(ahead_ms + plot.random.range(0, 2) - 1),
            // Twice the same requests: the second time they are copies.
            _ => batch.requests.extend_from_within(..),
        }
        Some(batch)
    }
}

impl Actor for AbsurdBatches {
    fn name(&self) -> &'static str {
        "absurd-batches"
    }

    fn outgoing(&mut self, plot: &mut Plot<'_>, _to: ReplicaId, message: PeerMessage) -> Vec<PeerMessage> {
        match message {
            PeerMessage::Ordering(Message::Proposal(proposal, body), mark) if proposal.by == plot.me => {
                let at = (proposal.statement.view, proposal.statement.slot);
                if self.last.as_ref().is_none_or(|(last, _)| *last != at) {
                    let batch = Batch::from_blob(&body, usize::MAX).ok();
                    self.last = Some((at, batch.and_then(|batch| self.absurd(plot, batch))));
                }
                match &self.last {
                    Some((_, Some(batch))) => vec![self.instead.propose(plot, &proposal, batch)],
                    _ => vec![PeerMessage::Ordering(Message::Proposal(proposal, body), mark)],
                }
            }
            PeerMessage::Ordering(Message::Vote(vote), _) if vote.by == plot.me => {
                vec![self.instead.vote(plot, &vote)]
            }
            other => vec![other],
        }
    }
}
