//! A replica that asks for everything, claims anything, and votes for slots and views that are far away, many times over
//! (R15, R42: rate-limited, dropped before it is stored).

use polder_checkpoint::transfer;
use polder_consensus::{Abdicate, Fetch, Message, Phase, StatusMessage, Suspect, Vote};
use polder_node::replica::PeerMessage;
use polder_types::{Digest, Epoch, ReplicaId, Seq, View};

use super::{Actor, Plot, Said, say};
use crate::random::Random;

/// See the module.
pub(super) struct Floods {
    per_mille: u64,
    messages: u64,
}

impl Floods {
    pub(super) fn new(random: &mut Random) -> Self {
        Self { per_mille: random.range(50, 300), messages: random.range(5, 30) }
    }
}

impl Actor for Floods {
    fn name(&self) -> &'static str {
        "floods"
    }

    fn make_up(&mut self, plot: &mut Plot<'_>) -> Said {
        if !plot.random.chance(self.per_mille) {
            return Vec::new();
        }
        let others: Vec<ReplicaId> = plot.others().collect();
        let Some(to) = plot.random.pick(&others).copied() else { return Vec::new() };
        let one_kind = plot.random.chance(500).then(|| plot.random.range(0, 8));
        let mut one = |_| {
            let kind = one_kind.unwrap_or_else(|| plot.random.range(0, 8));
            (to, one(plot, kind))
        };
        (0..self.messages).map(&mut one).collect()
    }
}

fn one(plot: &mut Plot<'_>, kind: u64) -> PeerMessage {
    let epoch = if plot.random.chance(100) { Epoch(1) } else { Epoch::ZERO };
    let view = View(plot.random.weighted(&[(3, plot.shared.view.0), (1, 1_000_000), (1, u64::MAX)], 0));
    let known = plot.shared.digests.keys().next_back().copied().unwrap_or_default();
    let ahead = plot.random.range(0, 64);
    let slot = plot.random.weighted(&[(3, known.plus(ahead)), (1, Seq::ZERO), (1, Seq(u64::MAX))], known);
    let digest = Digest(plot.random.bytes());
    let message = match kind {
        0 => Message::Fetch(Fetch::Body(digest)),
        1 => Message::Fetch(Fetch::Committed(slot)),
        2 => {
            let phase = if plot.random.chance(500) { Phase::Prepare } else { Phase::Commit };
            Message::Vote(plot.sign(Vote { phase, epoch, view, slot, digest }))
        }
        3 => Message::Suspect(plot.sign(Suspect { epoch, view })),
        4 => Message::Abdicate(plot.sign(Abdicate { epoch, view })),
        5 => return PeerMessage::MemoryAsk { nonce: plot.random.bits() },
        6 => return PeerMessage::Transfer(transfer::Message::AskDigests { cut: slot }),
        // All that there is, please.
        _ => Message::Status(StatusMessage { epoch, view, ..StatusMessage::default() }),
    };
    say(message)
}
