//! What some of the planted bugs do: only under `--cfg polder_mutations`.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use polder_types::{Batch, Digest, ReplicaId, Seq, Signed, Tally};

use crate::bodies::Body;
use crate::new_view::{Chosen, Plan, plan};
use crate::verify::part;
use crate::{Core, Message, Output, Phase, Proposal, Record, VerifiedMessage, ViewChangeBody, Vote};

/// What planted bugs keep of a slot.
#[derive(Debug, Default)]
pub(crate) struct Planted {
    /// PREPAREs of the view before the current one.
    late: Tally<Vote>,
    committed_late: bool,
}

impl Core {
    /// A vote after one's own VIEW-CHANGE, `r = 0`: accepts a proposal of the view before.
    pub(crate) fn accept_late(
        &mut self,
        signed: &Signed<Proposal>,
        message: &Arc<VerifiedMessage>,
        out: &mut Vec<Output>,
    ) -> bool {
        let Proposal { epoch, view, slot, digest } = signed.statement;
        let applies = mutated!(self, VoteAfterViewChange)
            && !self.quorum.has_prepare_phase()
            && view.next() == self.term.view
            && signed.by == self.quorum.leader(view)
            && self.window.contains(slot);
        let Message::Proposal(_, bytes) = message.message() else { return false };
        if !applies || self.window.slots.get(&slot).is_some_and(|state| state.accepted.is_some()) {
            return false;
        }
        let vote = self.sign(Vote { phase: Phase::Commit, epoch, view, slot, digest });
        let record = Record::Accepted { proposal: Some(signed.clone()), body: Some(bytes.clone()), vote: vote.clone() };
        let then = alloc::vec![Arc::new(VerifiedMessage::own(Message::Vote(vote)))];
        out.push(Output::Persist { record, then, ticket: None });
        true
    }

    /// A vote after one's own VIEW-CHANGE, `r > 0`: commits in the view before.
    pub(crate) fn count_late(&mut self, vote: &Signed<Vote>, message: &VerifiedMessage, out: &mut Vec<Output>) {
        let Vote { phase, epoch, view, slot, digest } = vote.statement;
        if !mutated!(self, VoteAfterViewChange) || phase != Phase::Prepare || view.next() != self.term.view {
            return;
        }
        let quorum = self.quorum.quorum();
        let part = part(message, |message| match message {
            Message::Vote(vote) => Some(vote),
            _ => None,
        });
        let Some(verified) = part else { return };
        let Some(state) = self.window.slot_mut(slot) else { return };
        state.planted.late.add(&verified);
        let Some(certificate) = state.planted.late.certificate(&vote.statement, quorum) else { return };
        if core::mem::replace(&mut state.planted.committed_late, true) {
            return;
        }
        let vote = self.sign(Vote { phase: Phase::Commit, epoch, view, slot, digest });
        let record = Record::Prepared { certificate: certificate.proof().clone(), body: None, vote: vote.clone() };
        let then = alloc::vec![Arc::new(VerifiedMessage::own(Message::Vote(vote)))];
        out.push(Output::Persist { record, then, ticket: None });
    }

    /// Votes counted twice: a COMMIT that comes again makes up for one that is missing.
    pub(crate) fn count_again(&mut self, vote: &Signed<Vote>, out: &mut Vec<Output>) {
        let Vote { phase, slot, digest, .. } = vote.statement;
        if !mutated!(self, VotesCountedTwice) || phase != Phase::Commit || !self.bodies.has(&digest) {
            return;
        }
        let fewer = self.quorum.quorum().saturating_sub(1);
        let commits = self.window.slots.get(&slot).map(|state| &state.commits);
        let certificate = commits.and_then(|commits| commits.certificate(&vote.statement, fewer));
        if let Some(certificate) = certificate {
            self.decide(slot, digest, Some(certificate), out);
        }
    }

    /// `ts` outside the digest: every replica has its own.
    pub(crate) fn planted_time(&self, batch: Arc<Batch>) -> Arc<Batch> {
        if mutated!(self, TsOutsideDigest) && batch.ts.0 > 0 {
            return Arc::new(Batch { ts: self.wall, requests: batch.requests.clone() });
        }
        batch
    }

    /// Re-proposals re-checked: a forced batch that is older than a time-out is refused.
    pub(crate) fn refuses_forced(&self, digest: &Digest) -> bool {
        let oldest = self.wall.minus(self.config.constants.timeout_first_ms);
        let is_old = |body: &Body| body.batch.ts.0 > 0 && body.batch.ts < oldest;
        mutated!(self, ReproposalsRechecked) && self.bodies.get(digest).is_some_and(is_old)
    }

    /// STATUS silent when idle.
    pub(crate) fn is_silent(&self) -> bool {
        let is_decided = self.window.slots.keys().all(|slot| *slot <= self.window.committed);
        mutated!(self, StatusSilentWhenIdle) && self.requests.waiting() == 0 && is_decided
    }

    /// A gap counts as lag.
    pub(crate) fn takes_a_gap_for_lag(&self) -> bool {
        let above = self.window.committed.plus(2);
        mutated!(self, GapCountsAsLag) && self.window.slots.range(above..).next().is_some()
    }

    /// The planted ways to compute how a view starts.
    pub(crate) fn planted_plan<'a>(
        &self,
        changes: impl Iterator<Item = (ReplicaId, &'a ViewChangeBody)> + Clone,
    ) -> Option<Plan> {
        let mut planted = plan(changes.clone(), self.bodies.no_op()).ok()?;
        if mutated!(self, MostCommonInsteadOfHighest) {
            let mut counts: BTreeMap<Seq, BTreeMap<Digest, Vec<ReplicaId>>> = BTreeMap::new();
            for (by, body) in changes {
                for entry in &body.entries {
                    counts.entry(entry.slot).or_default().entry(entry.digest).or_default().push(by);
                }
            }
            for (slot, chosen) in &mut planted.chosen {
                let most = counts.get(slot).and_then(|digests| digests.iter().max_by_key(|(_, by)| by.len()));
                if let Some((digest, listers)) = most {
                    *chosen = Chosen { digest: *digest, listers: listers.clone() };
                }
            }
            return Some(planted);
        }
        if mutated!(self, BackupsDoNotRecompute) && !self.is_leader() {
            for (slot, chosen) in &mut planted.chosen {
                if let Some(digest) = self.window.slots.get(slot).and_then(|state| state.candidate()) {
                    *chosen = Chosen { digest, listers: Vec::new() };
                }
            }
            return Some(planted);
        }
        None
    }
}
