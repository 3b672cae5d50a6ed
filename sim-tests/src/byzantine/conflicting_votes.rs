//! A replica that votes for anything it has heard of, in any phase, several times over.

use polder_consensus::{Message, Phase, Vote};
use polder_node::replica::PeerMessage;
use polder_types::{Digest, ReplicaId, Seq, View};

use super::{Actor, Plot, say};
use crate::random::Random;

/// See the module.
pub(super) struct ConflictingVotes {
    per_mille: u64,
}

impl ConflictingVotes {
    pub(super) fn new(random: &mut Random) -> Self {
        Self { per_mille: random.range(100, 800) }
    }
}

impl Actor for ConflictingVotes {
    fn name(&self) -> &'static str {
        "conflicting-votes"
    }

    fn outgoing(&mut self, plot: &mut Plot<'_>, _to: ReplicaId, message: PeerMessage) -> Vec<PeerMessage> {
        let PeerMessage::Ordering(Message::Vote(vote), _) = &message else { return vec![message] };
        if vote.by != plot.me || !plot.random.chance(self.per_mille) {
            return vec![message];
        }
        let slot = vote.statement.slot;
        let digest = another(plot, slot, vote.statement.digest);
        let phase = if plot.random.chance(500) { Phase::Prepare } else { Phase::Commit };
        let lie = plot.sign(Vote { phase, digest, ..vote.statement });
        let lie = say(Message::Vote(lie));
        // First or last: a table that keeps one of two must not be fooled by either.
        if plot.random.chance(500) { vec![lie, message] } else { vec![message, lie] }
    }

    fn make_up(&mut self, plot: &mut Plot<'_>) -> Vec<(ReplicaId, PeerMessage)> {
        let slots: Vec<Seq> = plot.shared.digests.keys().copied().collect();
        let Some(&slot) = plot.random.pick(&slots) else { return Vec::new() };
        let digest = another(plot, slot, Digest::ZERO);
        let back = plot.random.range(0, 2);
        let view = View(plot.shared.view.0.saturating_sub(back));
        let others: Vec<ReplicaId> = plot.others().collect();
        let mut lies = Vec::new();
        for phase in [Phase::Prepare, Phase::Commit] {
            let lie = plot.sign(Vote { phase, epoch: polder_types::Epoch::ZERO, view, slot, digest });
            if let Some(&to) = plot.random.pick(&others) {
                lies.push((to, say(Message::Vote(lie))));
            }
        }
        lies
    }
}

/// Another digest that was proposed for the slot, or one that nobody proposed.
fn another(plot: &mut Plot<'_>, slot: Seq, than: Digest) -> Digest {
    let known = plot.shared.digests.get(&slot).cloned().unwrap_or_default();
    let others: Vec<Digest> = known.into_iter().filter(|digest| *digest != than).collect();
    plot.random.pick(&others).copied().unwrap_or_else(|| Digest(plot.random.bytes()))
}
