//! A replica that changes small things in what it signs and says: one view, one slot, one epoch more or less, another
//! batch of the same slot (ByzzFuzz, OOPSLA 2023).

use polder_consensus::{Abdicate, Fetch, Message, NewView, Proposal, StatusMessage, Suspect, ViewChange, Vote};
use polder_node::replica::PeerMessage;
use polder_types::{Checkpoint, Epoch, ReplicaId, Seq, View};

use super::{Actor, Plot, say};
use crate::random::Random;

/// See the module.
pub(super) struct MutatedFields {
    per_mille: u64,
}

impl MutatedFields {
    pub(super) fn new(random: &mut Random) -> Self {
        Self { per_mille: random.range(20, 300) }
    }
}

impl Actor for MutatedFields {
    fn name(&self) -> &'static str {
        "mutated-fields"
    }

    fn outgoing(&mut self, plot: &mut Plot<'_>, _to: ReplicaId, message: PeerMessage) -> Vec<PeerMessage> {
        if !plot.random.chance(self.per_mille) {
            return vec![message];
        }
        let lie = match &message {
            PeerMessage::Ordering(said, _) => mutate(plot, said).map(say),
            PeerMessage::Checkpoint(signed, mark) if signed.by == plot.me => {
                let seq = near_slot(plot, signed.statement.seq);
                let lie = plot.sign(Checkpoint { seq, ..signed.statement.clone() });
                Some(PeerMessage::Checkpoint(lie, *mark))
            }
            _ => None,
        };
        match lie {
            None => vec![message],
            Some(lie) if plot.random.chance(500) => vec![message, lie],
            Some(lie) => vec![lie],
        }
    }
}

/// The message with one field changed; none where there is nothing to change, or it is another's.
fn mutate(plot: &mut Plot<'_>, message: &Message) -> Option<Message> {
    let by = message.header().by;
    if by.is_some_and(|by| by != plot.me) {
        return None;
    }
    Some(match message {
        Message::Vote(vote) => {
            let mut statement = vote.statement;
            match plot.random.range(0, 3) {
                0 => statement.view = near_view(plot, statement.view),
                1 => statement.slot = near_slot(plot, statement.slot),
                2 => statement.epoch = Epoch(statement.epoch.0 + 1),
                _ => statement.digest = *plot.shared.digests.get(&statement.slot)?.last()?,
            }
            Message::Vote(plot.sign::<Vote>(statement))
        }
        Message::Proposal(proposal, body) => {
            let mut statement = proposal.statement;
            if plot.random.chance(500) {
                statement.view = near_view(plot, statement.view);
            } else {
                statement.slot = near_slot(plot, statement.slot);
            }
            Message::Proposal(plot.sign::<Proposal>(statement), body.clone())
        }
        Message::Suspect(suspect) => {
            let view = near_view(plot, suspect.statement.view);
            Message::Suspect(plot.sign(Suspect { view, ..suspect.statement }))
        }
        Message::Abdicate(abdicate) => {
            let view = near_view(plot, abdicate.statement.view);
            Message::Abdicate(plot.sign(Abdicate { view, ..abdicate.statement }))
        }
        Message::ViewChange(signed, body) => {
            let mut body = body.clone();
            let mut statement = signed.statement;
            let index = plot.random.below(body.entries.len());
            match (plot.random.range(0, 3), body.entries.get_mut(index)) {
                (0, Some(entry)) => entry.view = near_view(plot, entry.view),
                (1, Some(entry)) => entry.slot = near_slot(plot, entry.slot),
                (2, _) => body.low = near_slot(plot, body.low),
                _ => statement.view = near_view(plot, statement.view),
            }
            let statement = ViewChange { body: body.digest(), ..statement };
            Message::ViewChange(plot.sign(statement), body)
        }
        Message::NewView(signed, enclosed) => {
            let view = near_view(plot, signed.statement.view);
            Message::NewView(plot.sign(NewView { view, ..signed.statement }), enclosed.clone())
        }
        Message::Status(status) => Message::Status(StatusMessage {
            view: near_view(plot, status.view),
            committed: near_slot(plot, status.committed),
            ..status.clone()
        }),
        Message::Fetch(Fetch::Committed(slot)) => Message::Fetch(Fetch::Committed(near_slot(plot, *slot))),
        _ => return None,
    })
}

fn near_view(plot: &mut Plot<'_>, view: View) -> View {
    if plot.random.chance(500) { view.next() } else { view.minus(1) }
}

fn near_slot(plot: &mut Plot<'_>, slot: Seq) -> Seq {
    if plot.random.chance(500) { slot.next() } else { Seq(slot.0.saturating_sub(1).max(1)) }
}
