//! The normal case: a proposal is accepted, prepared, committed, delivered.
//!
//! ```text
//!  PRE-PREPARE ──▶ accepted ─▶ PREPARE ──q──▶ prepared ─▶ COMMIT ──q──▶ decided ─▶ delivered, in slot order
//!  NEW-VIEW    ──▶ (a forced slot)            (r = 0: accepted ─▶ COMMIT at once)
//! ```
//!
//! A vote leaves only by [`Output::Persist`], with the record of what it promises (R8), and is counted when it comes
//! back as any other. Whatever changes for a slot, [`Core::advance`] does what has become possible there.

use alloc::sync::Arc;
use alloc::vec::Vec;

use polder_types::{Added, Certificate, Digest, Seq, Signed, history_after};

use crate::bodies::Body;
use crate::evidence::EvidenceKind;
use crate::progress::Timer;
use crate::verify::part;
use crate::window::{Accepted, Decided};
use crate::{Authentic, CommittedBatch, Core, Evidence, Header, Ignored, Kind, Message, Output, Phase, Proposal};
use crate::{Record, VerifiedMessage, Vote, Why};

impl Core {
    /// PRE-PREPARE. A backup accepts at most one a slot and view, and only fresh ones this way: slots that the
    /// NEW-VIEW forces need no proposal.
    pub(crate) fn on_proposal(
        &mut self,
        signed: &Signed<Proposal>,
        message: &Arc<VerifiedMessage>,
        out: &mut Vec<Output>,
    ) -> Result<(), Ignored> {
        let Proposal { epoch, view, slot, digest } = signed.statement;
        #[cfg(polder_mutations)]
        if self.accept_late(signed, message, out) {
            return Ok(());
        }
        self.of_this_view(epoch, view)?;
        if signed.by != self.leader() {
            return Err(Ignored::NotLeader);
        }
        let Some(start) = &self.term.start else { return Err(Ignored::OutsideWindow) };
        if slot <= start.last {
            return Err(Ignored::Unasked);
        }
        // R11: contiguous committed + F.
        if !self.window.contains(slot) || slot > self.window.committed.plus(self.config.constants.fresh_slots_max) {
            return Err(Ignored::OutsideWindow);
        }
        if let Some(accepted) = self.window.slots.get(&slot).and_then(|slot| slot.accepted_in(view)) {
            if accepted.digest == digest {
                return Err(Ignored::Duplicate);
            }
            let evidence = accepted.signed.clone().map(|first| Evidence::Proposals(first, signed.clone()));
            evidence.into_iter().for_each(|evidence| self.report(evidence, out));
            // R6 (iii)
            self.suspect(out);
            return Err(Ignored::Conflict);
        }
        if self.window.decided.get(&slot).is_some_and(|decided| decided.digest != digest) {
            return Err(Ignored::Conflict);
        }
        // R20: the verdict is the same everywhere, so this is proof of the leader's fault.
        let (Authentic::Yes, Some(batch)) = (message.authentic, &message.batch) else {
            out.push(Output::Misled(signed.by));
            self.suspect(out);
            return Err(Ignored::Invalid);
        };
        // R27: too far ahead is held until it is not; nothing else about the time is refused.
        let constants = &self.config.constants;
        if batch.ts > self.wall.plus(constants.clock_ahead_max_ms) {
            mark!(ProposalHeld);
            let now_ms = self.progress.now_ms();
            if let Some(state) = self.window.slot_mut(slot) {
                // A copy waits no longer than the first.
                let since_ms = state.held.as_ref().map_or(now_ms, |(_, since_ms)| *since_ms);
                state.held = Some((message.clone(), since_ms));
            }
            return Ok(());
        }
        let behind = batch.ts.plus(constants.timeout_max_ms.saturating_mul(4)) < self.wall;
        if self.progress.stale(behind) {
            self.suspect(out);
            // That may have been the last SUSPECT that was missing: then this proposal is of a view that has ended.
            self.of_this_view(epoch, view)?;
        }
        let Message::Proposal(_, bytes) = message.message() else { return Err(Ignored::Invalid) };
        let waited = self.bodies.insert(digest, || Body::new(bytes.clone(), Some(batch.clone())));
        self.accept(slot, digest, Some((signed, message)), out);
        self.wake(waited, out);
        Ok(())
    }

    /// Proposals that were too far ahead of the own clock come again once they are not; one that stays so for `4T` is a
    /// reason to suspect (R27): *its leader waits for a quorum that waits for a time that is far away, and whose client has
    /// gone is asked for by nobody else.*
    pub(crate) fn release_held(&mut self, out: &mut Vec<Output>) {
        let horizon = self.wall.plus(self.config.constants.clock_ahead_max_ms);
        let due = |held: &Arc<VerifiedMessage>| held.batch.as_ref().is_some_and(|batch| batch.ts <= horizon);
        let since_ms = self.progress.now_ms().saturating_sub(self.progress.timeout_ms().saturating_mul(4));
        let (mut released, mut is_absurd) = (Vec::new(), false);
        for state in self.window.slots.values_mut() {
            if state.held.as_ref().is_some_and(|(held, _)| due(held)) {
                released.extend(state.held.take());
            } else {
                is_absurd |= state.held.as_ref().is_some_and(|(_, held_since_ms)| *held_since_ms < since_ms);
            }
        }
        for (message, _) in released {
            mark!(ProposalReleased);
            if let Message::Proposal(signed, _) = message.message() {
                // What is no longer acceptable is dropped as if it came now.
                self.on_proposal(signed, &message, out).unwrap_or_default();
            }
        }
        if is_absurd {
            self.suspect(out);
        }
    }

    /// Accepts a batch whose body is held for a slot of the window: durable with the first vote (R8).
    pub(crate) fn accept(
        &mut self,
        slot: Seq,
        digest: Digest,
        proposal: Option<(&Signed<Proposal>, &Arc<VerifiedMessage>)>,
        out: &mut Vec<Output>,
    ) {
        let view = self.term.view;
        let phase = if self.quorum.has_prepare_phase() { Phase::Prepare } else { Phase::Commit };
        let vote = self.sign(Vote { phase, epoch: self.config.epoch, view, slot, digest });
        let at_ms = self.progress.now_ms();
        let body = self.body_to_log(slot, &digest);
        let Some(state) = self.window.slot_mut(slot) else { return };
        state.held = None;
        state.accepted = Some(Accepted {
            view,
            digest,
            proposal: proposal.map(|(_, message)| message.clone()),
            signed: proposal.map(|(signed, _)| signed.clone()),
            at_ms,
        });
        // A slot that is decided already decides nothing any more: what waits again, such as a copy of a read, is still to
        // be proposed.
        let is_decided = self.window.decided.contains_key(&slot);
        if let Some(body) = self.bodies.get(&digest).filter(|_| !is_decided) {
            self.requests.mark_proposed(&body.requests);
        }
        let proposal = proposal.map(|(signed, _)| signed.clone());
        let then = alloc::vec![Arc::new(VerifiedMessage::own(Message::Vote(vote.clone())))];
        let record = written!(self, AcceptNotDurable, Record::Accepted { proposal, body, vote });
        out.push(Output::Persist { record, then, ticket: None });
        self.advance(slot, out);
    }

    /// The body to be written with a record of this slot: none when one before has it, none for a no-op.
    pub(crate) fn body_to_log(&mut self, slot: Seq, digest: &Digest) -> Option<polder_types::Blob> {
        if *digest == self.bodies.no_op() {
            return None;
        }
        let body = self.bodies.get(digest)?.bytes.clone();
        let is_news = self.window.slots.get_mut(&slot).is_none_or(|state| state.logged.insert(*digest));
        is_news.then_some(body)
    }

    /// PREPARE or COMMIT, the own ones like others'.
    pub(crate) fn on_vote(
        &mut self,
        vote: &Signed<Vote>,
        message: &VerifiedMessage,
        out: &mut Vec<Output>,
    ) -> Result<(), Ignored> {
        let Vote { phase, epoch, view, slot, .. } = vote.statement;
        #[cfg(polder_mutations)]
        self.count_late(vote, message, out);
        self.of_this_view(epoch, view)?;
        if phase == Phase::Prepare && !self.quorum.has_prepare_phase() {
            return Err(Ignored::Invalid);
        }
        // The own votes are kept even where nobody needs to be convinced any more: they are sent again from here.
        if vote.by != self.config.me && self.window.decided.contains_key(&slot) {
            return Err(Ignored::Duplicate);
        }
        let quorum = self.quorum.quorum();
        let Some(verified) = part(message, |message| match message {
            Message::Vote(vote) => Some(vote),
            _ => None,
        }) else {
            return Err(Ignored::Invalid);
        };
        let Some(state) = self.window.slot_mut(slot) else { return Err(Ignored::OutsideWindow) };
        let tally = if phase == Phase::Prepare { &mut state.prepares } else { &mut state.commits };
        match tally.add(&verified) {
            Added::New => {}
            Added::Again => {
                #[cfg(polder_mutations)]
                self.count_again(vote, out);
                return Err(Ignored::Duplicate);
            }
            Added::Conflict(first) => {
                if !mutated!(self, EvidenceNotReported) {
                    self.report(Evidence::Votes(first, vote.clone()), out);
                }
                return Err(Ignored::Conflict);
            }
        }
        let enough = if mutated!(self, QuorumMinusOne) { quorum - 1 } else { quorum };
        if tally.count(&vote.statement) >= enough {
            self.advance(slot, out);
        }
        Ok(())
    }

    /// Does what has become possible for a slot.
    pub(crate) fn advance(&mut self, slot: Seq, out: &mut Vec<Output>) {
        self.accept_forced(slot, out);
        self.prepare(slot, out);
        self.commit(slot, out);
    }

    /// A slot that the NEW-VIEW forces: accepted without any check of time, clients, copies or sizes (R10), once its
    /// body is held.
    fn accept_forced(&mut self, slot: Seq, out: &mut Vec<Output>) {
        let view = self.term.view;
        let Some(chosen) = self.term.start.as_ref().and_then(|start| start.chosen.get(&slot)) else { return };
        let digest = chosen.digest;
        if !self.window.contains(slot) {
            return;
        }
        if self.window.slots.get(&slot).is_some_and(|state| state.accepted_in(view).is_some()) {
            return;
        }
        if !self.bodies.has(&digest) {
            mark!(ForcedBodyPulled);
            let listers = self.term.start.as_ref().map(|start| start.listers(slot)).unwrap_or_default();
            self.pull(digest, slot, listers, out);
            return;
        }
        #[cfg(polder_mutations)]
        if self.refuses_forced(&digest) {
            return;
        }
        self.accept(slot, digest, None, out);
    }

    /// *Prepared*: `q` PREPAREs of one batch, whose body is held. The certificate and the body are durable, then COMMIT
    /// leaves (R8). Whether this replica accepted that batch itself does not matter (R10).
    fn prepare(&mut self, slot: Seq, out: &mut Vec<Output>) {
        let view = self.term.view;
        if !self.quorum.has_prepare_phase() || self.term.start.is_none() {
            return;
        }
        let Some(state) = self.window.slots.get(&slot).filter(|state| !state.prepared_in(view)) else { return };
        let Some(certificate) = state.prepares.any_certificate(self.quorum.quorum()) else { return };
        let digest = certificate.statement().digest;
        if !self.bodies.has(&digest) && !mutated!(self, CommitWithoutBody) {
            mark!(PreparedBodyPulled);
            let signers = certificate.signers().collect();
            self.pull(digest, slot, signers, out);
            return;
        }
        let vote = self.sign(Vote { phase: Phase::Commit, ..*certificate.statement() });
        let body = self.body_to_log(slot, &digest);
        let then = alloc::vec![Arc::new(VerifiedMessage::own(Message::Vote(vote.clone())))];
        let proof = certificate.proof().clone();
        let record = written!(self, PreparedNotDurable, Record::Prepared { certificate: proof, body, vote });
        out.push(Output::Persist { record, then, ticket: None });
        self.window.slot_mut(slot).into_iter().for_each(|state| state.prepared = Some(certificate.clone()));
    }

    /// *Committed*: `q` COMMITs of one batch of one view, whose body is held.
    fn commit(&mut self, slot: Seq, out: &mut Vec<Output>) {
        if self.window.decided.contains_key(&slot) {
            return;
        }
        let quorum = self.quorum.quorum() - usize::from(mutated!(self, QuorumMinusOne));
        let Some(state) = self.window.slots.get_mut(&slot) else { return };
        let certificate = state.certified.take().or_else(|| state.commits.any_certificate(quorum));
        let Some(certificate) = certificate else { return };
        let digest = certificate.statement().digest;
        if self.bodies.has(&digest) {
            self.decide(slot, digest, Some(certificate), out);
        } else {
            mark!(CommittedBodyPulled);
            let signers = certificate.signers().collect();
            state.certified = Some(certificate);
            self.pull(digest, slot, signers, out);
        }
    }

    /// A slot is decided, by a commit certificate or by a certified history (R30). Its body is held.
    pub(crate) fn decide(
        &mut self,
        slot: Seq,
        digest: Digest,
        certificate: Option<Certificate<Vote>>,
        out: &mut Vec<Output>,
    ) {
        if let Some(decided) = self.window.decided.get(&slot) {
            if decided.digest != digest {
                let why = Why::TwoDecisions { slot, first: decided.digest, second: digest };
                self.halt(why, out);
            }
            return;
        }
        let Some(body) = self.bodies.get(&digest).cloned() else { return };
        self.requests.decide(slot, &body.batch, &body.requests);
        if let Some(certificate) = &certificate {
            let body = self.body_to_log(slot, &digest);
            let record = Record::Committed { certificate: certificate.proof().clone(), body };
            out.push(Output::Persist { record, then: Vec::new(), ticket: None });
        }
        let at_ms = self.progress.now_ms();
        self.window.decide(slot, Decided { digest, certificate, at_ms, history: None });
        self.deliver(out);
    }

    /// Delivers what is decided, in slot order, each slot once; at most `L` slots ahead of execution (R14).
    pub(crate) fn deliver(&mut self, out: &mut Vec<Output>) {
        let before = self.window.delivered;
        while self.window.delivered < self.window.executed.plus(self.window.length) {
            let slot = self.window.delivered.next();
            let Some(decided) = self.window.decided.get_mut(&slot) else { break };
            let digest = decided.digest;
            let Some(body) = self.bodies.get(&digest) else { break };
            let history = history_after(&self.window.history, slot, &digest);
            let is_wrong = mutated!(self, Canary) && slot == Seq(3) && self.config.me.0.is_multiple_of(2);
            let history = if is_wrong { digest } else { history };
            decided.history = Some(history);
            self.window.history = history;
            self.window.delivered = slot;
            let (bytes, batch) = (body.bytes.clone(), body.batch.clone());
            self.note_tail(slot, !batch.requests.is_empty());
            #[cfg(polder_mutations)]
            let batch = self.planted_time(batch);
            out.push(Output::Deliver(CommittedBatch { slot, digest, bytes, batch, history }));
            if mutated!(self, TimersRestart) {
                self.requests.start_afresh();
            }
        }
        if self.window.prune() {
            self.drop_bodies();
        }
        if self.window.delivered >= self.window.low {
            self.progress.disarm(Timer::Gap);
            self.window.transfer = None;
        } else if self.window.delivered > before && self.progress.is_armed(Timer::Gap) {
            // The gap is closing: it goes on being pulled.
            self.progress.arm(Timer::Gap, self.gap_ms());
        }
    }

    /// Whether a vote could still change anything here.
    pub(crate) fn wants_vote(&self, header: &Header) -> bool {
        let (view, slot) = (header.view.unwrap_or_default(), header.slot.unwrap_or_default());
        if view != self.term.view || !self.window.contains(slot) || self.window.decided.contains_key(&slot) {
            return mutated!(self, VoteAfterViewChange) && view.next() == self.term.view;
        }
        let Some(state) = self.window.slots.get(&slot) else { return true };
        let (open, tally) = match header.kind {
            Kind::Prepare => (!state.prepared_in(view), &state.prepares),
            _ => (state.certified.is_none(), &state.commits),
        };
        // A second, different vote is evidence (R41), of which one is enough.
        let by = header.by.unwrap_or_default();
        let voted = tally.vote(by).map(|vote| vote.statement.digest);
        let is_evidence = voted != header.digest && !self.caught.contains(&(by, EvidenceKind::Votes));
        open && (voted.is_none() || is_evidence || mutated!(self, VotesCountedTwice))
    }

    /// Whether a proposal of the current view could be accepted, or would be evidence.
    pub(crate) fn wants_proposal(&self, slot: Seq, digest: Option<Digest>) -> bool {
        let Some(start) = &self.term.start else { return false };
        let accepted = self.window.slots.get(&slot).and_then(|state| state.accepted_in(self.term.view));
        let is_caught = self.caught.contains(&(self.leader(), EvidenceKind::Proposals));
        slot > start.last
            && self.window.contains(slot)
            && accepted.is_none_or(|accepted| Some(accepted.digest) != digest && !is_caught)
    }
}
