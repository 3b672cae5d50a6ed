//! A leader that shows some replicas one batch and some another, and votes with each for what they were shown; all
//! liars vote along.

use polder_consensus::{Message, Phase, Proposal, Vote};
use polder_node::replica::PeerMessage;
use polder_types::{Batch, Blob, Digest, ReplicaId, Signed, Timestamp};

use super::{Actor, Plot, Twin, is_in, say};
use crate::random::Random;

/// See the module.
pub(super) struct EquivocatingLeader {
    per_mille: u64,
    commits_at_once: bool,
}

impl EquivocatingLeader {
    pub(super) fn new(random: &mut Random) -> Self {
        Self { per_mille: random.range(100, 1_000), commits_at_once: random.chance(700) }
    }

    fn propose(
        &mut self,
        plot: &mut Plot<'_>,
        to: ReplicaId,
        proposal: Signed<Proposal>,
        body: Blob,
    ) -> Vec<PeerMessage> {
        let at = (proposal.statement.view, proposal.statement.slot);
        if !plot.shared.twins.contains_key(&at)
            && plot.random.chance(self.per_mille)
            && let Some((second, batch)) = twin(plot, &proposal, &body)
        {
            let shown_to = plot.some();
            plot.shared.twins.insert(at, Twin { first: proposal.statement.digest, second, batch, shown_to });
        }
        let shown = plot.shared.twins.get(&at).filter(|twin| twin.first == proposal.statement.digest);
        let Some(twin) = shown.filter(|twin| is_in(twin.shown_to, to)).cloned() else {
            return vec![say(Message::Proposal(proposal, body))];
        };
        let mut messages = vec![say(Message::Proposal(twin.second.clone(), twin.batch))];
        messages.extend(self.votes(plot, twin.second.statement));
        messages
    }

    /// The own votes for the second proposal, as if all went well with it.
    fn votes(&self, plot: &Plot<'_>, second: Proposal) -> Vec<PeerMessage> {
        let Proposal { epoch, view, slot, digest } = second;
        let phases: &[Phase] = if self.commits_at_once { &[Phase::Prepare, Phase::Commit] } else { &[Phase::Prepare] };
        let vote = |phase: &Phase| plot.sign(Vote { phase: *phase, epoch, view, slot, digest });
        phases.iter().map(|phase| say(Message::Vote(vote(phase)))).collect()
    }
}

impl Actor for EquivocatingLeader {
    fn name(&self) -> &'static str {
        "equivocating-leader"
    }

    fn outgoing(&mut self, plot: &mut Plot<'_>, to: ReplicaId, message: PeerMessage) -> Vec<PeerMessage> {
        match message {
            PeerMessage::Ordering(Message::Proposal(proposal, body), _) if proposal.by == plot.me => {
                self.propose(plot, to, proposal, body)
            }
            PeerMessage::Ordering(Message::Vote(vote), _) if vote.by == plot.me => {
                let twin = plot.shared.twins.get(&(vote.statement.view, vote.statement.slot));
                match twin.filter(|twin| is_in(twin.shown_to, to)) {
                    None => vec![say(Message::Vote(vote))],
                    Some(twin) => self.votes(plot, twin.second.statement),
                }
            }
            other => vec![other],
        }
    }
}

/// Another batch for the same slot: fewer requests, in another order, or of another time.
fn twin(plot: &mut Plot<'_>, proposal: &Signed<Proposal>, body: &Blob) -> Option<(Signed<Proposal>, Blob)> {
    let mut batch = Batch::from_blob(body, usize::MAX).ok()?;
    match plot.random.range(0, 2) {
        0 if !batch.requests.is_empty() => {
            batch.requests.pop();
        }
        1 if batch.requests.len() > 1 => batch.requests.reverse(),
        _ => batch.ts = Timestamp(batch.ts.0 + 1),
    }
    let body = batch.to_blob();
    let digest: Digest = Batch::digest(&body);
    let second = plot.sign(Proposal { digest, ..proposal.statement });
    Some((second, body))
}
