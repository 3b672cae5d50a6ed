//! One slot, two stories. The adversary, a liar who rules the network too, follows a plan over three views:
//!
//! | view | leader | what happens at the slot |
//! | --- | --- | --- |
//! | `v` | the liar | one replica, the victim, prepares A, nobody else; then it is cut off |
//! | `v+1` | the next | the liar's VIEW-CHANGE hides A: B is ordered there, and decided without the victim |
//! | `v+2` | the one after | its predecessor is cut off: the VIEW-CHANGEs say A (the victim's, true, and the liar's, old) and B (one, true) |
//!
//! B is decided, and only the highest view says so: whoever counts entries, or takes the first, decides A (R9).

use polder_consensus::{Entry, Message, Phase, Suspect, ViewChange};
use polder_node::replica::{Event, PeerMessage};
use polder_types::{Digest, Epoch, ReplicaId, Seq, View};

use super::{Actor, Cut, Plot, Said, bit, heard, ordering, say};

/// How long a part of the plan may take before it is given up, in microseconds.
const PATIENCE_US: u64 = 3_000_000;

/// See the module.
#[derive(Default)]
pub(super) struct TwoStories {
    story: Option<Story>,
}

struct Story {
    view: View,
    slot: Seq,
    /// A.
    digest: Digest,
    /// The own entry of A, from the own VIEW-CHANGE for `v+1`.
    entry: Option<Entry>,
    part: Part,
    since_us: u64,
    /// Who has committed B.
    committed: u128,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// The victim is to prepare A.
    First,
    /// B is to be decided in `v+1`.
    Second,
    /// `v+2` is to start.
    Third,
}

impl Story {
    /// Goes on to the next part, with these links cut until it ends.
    fn go_on(&mut self, plot: &mut Plot<'_>, part: Part, cuts: &[(u128, u128, bool)]) {
        (self.part, self.since_us) = (part, plot.now_us);
        let until_us = plot.now_us + PATIENCE_US;
        let cut = |&(from, to, only_votes): &(u128, u128, bool)| Cut { from, to, only_votes, until_us };
        plot.cut(cuts.iter().map(cut).collect());
    }
}

/// The one that leads after the liar, the one after that, and the one after that.
fn roles(plot: &Plot<'_>) -> [ReplicaId; 3] {
    [1, 2, 3].map(|places| plot.after_me(places))
}

impl TwoStories {
    /// The liar leads, and proposes for a slot: the plan begins.
    fn begin(&mut self, plot: &mut Plot<'_>, message: &Message) {
        let Message::Proposal(proposal, _) = message else { return };
        if self.story.is_some() || proposal.by != plot.me || plot.is_healed {
            return;
        }
        let [_, _, victim] = roles(plot);
        let (view, slot, digest) = (proposal.statement.view, proposal.statement.slot, proposal.statement.digest);
        let since_us = plot.now_us;
        let mut story = Story { view, slot, digest, entry: None, part: Part::First, since_us, committed: 0 };
        // Nobody but the liar hears of the victim.
        story.go_on(plot, Part::First, &[(bit(victim), !bit(plot.me), false)]);
        self.story = Some(story);
    }

    fn suspect(plot: &Plot<'_>, view: View) -> Said {
        let suspect = say(Message::Suspect(plot.sign(Suspect { epoch: Epoch::ZERO, view })));
        plot.others().map(|to| (to, suspect.clone())).collect()
    }
}

impl Actor for TwoStories {
    fn name(&self) -> &'static str {
        "two-stories"
    }

    fn hears(&mut self, plot: &mut Plot<'_>, event: &Event) -> (bool, Said) {
        let [next, after, victim] = roles(plot);
        let Some(story) = &mut self.story else { return (true, Vec::new()) };
        if plot.is_healed || plot.now_us > story.since_us + PATIENCE_US || plot.shared.view > story.view.plus(2) {
            self.story = None;
            plot.cut(Vec::new());
            return (true, Vec::new());
        }
        let Some((from, Message::Vote(vote))) = heard(event) else { return (true, Vec::new()) };
        let vote = vote.statement;
        if vote.slot != story.slot || vote.phase != Phase::Commit {
            return (true, Vec::new());
        }
        match story.part {
            Part::First if from == victim && vote.digest == story.digest => {
                let apart = [(bit(victim), u128::MAX, false), (u128::MAX, bit(victim), false)];
                story.go_on(plot, Part::Second, &apart);
                (true, Self::suspect(plot, vote.view))
            }
            Part::Second if vote.view == story.view.next() && vote.digest != story.digest => {
                story.committed |= bit(from);
                if story.committed & bit(after) == 0 || story.committed & bit(next) == 0 {
                    return (true, Vec::new());
                }
                let alone =
                    [(bit(next), u128::MAX, false), (u128::MAX, bit(next), false), (u128::MAX, bit(victim), true)];
                story.go_on(plot, Part::Third, &alone);
                (true, Self::suspect(plot, vote.view))
            }
            _ => (true, Vec::new()),
        }
    }

    fn outgoing(&mut self, plot: &mut Plot<'_>, to: ReplicaId, message: PeerMessage) -> Vec<PeerMessage> {
        let [_, _, victim] = roles(plot);
        if let Some(message) = ordering(&message) {
            self.begin(plot, message);
        }
        let Some(story) = &mut self.story else { return vec![message] };
        match &message {
            // The liar's PREPARE is what the victim needs, and what the others lack; and it leads no further.
            PeerMessage::Ordering(Message::Vote(vote), _) if vote.statement.view == story.view => {
                let is_for_victim = to == victim && vote.statement.phase == Phase::Prepare;
                if is_for_victim && story.part == Part::First { vec![message] } else { Vec::new() }
            }
            PeerMessage::Ordering(Message::Proposal(proposal, _), _) if proposal.by == plot.me => {
                if proposal.statement.slot <= story.slot { vec![message] } else { Vec::new() }
            }
            PeerMessage::Ordering(Message::ViewChange(signed, body), mark) if signed.by == plot.me => {
                let mut body = body.clone();
                let at = body.entries.iter().position(|entry| entry.slot == story.slot);
                let removed = at.map(|at| body.entries.remove(at));
                if signed.statement.view == story.view.next() {
                    let own = removed.filter(|entry| entry.digest == story.digest);
                    story.entry = story.entry.take().or(own);
                } else if let Some(entry) = story.entry.clone().filter(|_| body.low < story.slot) {
                    let at = body.entries.partition_point(|other| other.slot < entry.slot);
                    body.entries.insert(at, entry);
                }
                let signed = plot.sign(ViewChange { body: body.digest(), ..signed.statement });
                vec![PeerMessage::Ordering(Message::ViewChange(signed, body), *mark)]
            }
            _ => vec![message],
        }
    }
}
