//! A replica that votes in others' names: with its own signature, with theirs from another vote, with none.

use polder_consensus::{Message, Phase, Vote};
use polder_node::replica::{Event, PeerMessage};
use polder_types::{Signature, Signed};

use super::{Actor, Plot, Said, heard, say};
use crate::random::Random;

/// See the module.
pub(super) struct ForgedVotes {
    per_mille: u64,
}

impl ForgedVotes {
    pub(super) fn new(random: &mut Random) -> Self {
        Self { per_mille: random.range(20, 200) }
    }

    fn forge(plot: &mut Plot<'_>, vote: &Signed<Vote>) -> PeerMessage {
        let mut forged = vote.clone();
        match plot.random.range(0, 4) {
            // The other phase: a PREPARE is no COMMIT.
            0 => {
                forged.statement.phase =
                    if vote.statement.phase == Phase::Prepare { Phase::Commit } else { Phase::Prepare }
            }
            1 => forged.statement.view = vote.statement.view.next(),
            2 => {
                let known = plot.shared.digests.get(&vote.statement.slot).cloned().unwrap_or_default();
                forged.statement.digest = plot.random.pick(&known).copied().unwrap_or(vote.statement.digest);
            }
            3 => forged.signature = plot.sign(vote.statement).signature,
            _ => forged.signature = Signature([0; 64]),
        }
        say(Message::Vote(forged))
    }
}

impl Actor for ForgedVotes {
    fn name(&self) -> &'static str {
        "forged-votes"
    }

    fn hears(&mut self, plot: &mut Plot<'_>, event: &Event) -> (bool, Said) {
        let Some((_, Message::Vote(vote))) = heard(event) else { return (true, Vec::new()) };
        if vote.by == plot.me || !plot.random.chance(self.per_mille) {
            return (true, Vec::new());
        }
        let forged = Self::forge(plot, vote);
        (true, plot.others().map(|to| (to, forged.clone())).collect())
    }
}
