//! STATUS and what it brings about (R15): everything that a peer's STATUS shows missing is sent to it again, and what
//! is missing here is pulled. No correctness rests on a queue that does not drop.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use polder_types::{Batch, Blob, Digest, ReplicaId, Seq};

use crate::bodies::{Body, bit};
use crate::verify::carried;
use crate::{Core, Fetch, Ignored, Message, Output, SlotStatus, StatusMessage, To, VerifiedMessage, Vote};

/// The mask of a slot that is decided above a gap: nobody's vote is missing.
const DECIDED: u128 = u128::MAX;
/// Batches pulled at once.
const PULLED_MAX: usize = 64;
/// Slots below the watermark pulled at once.
const GAP_PULLED_MAX: usize = 64;

impl Core {
    /// Every `τ`, idle or not: STATUS to all, ABDICATE while it stands, and what is missing here is asked for again.
    pub(crate) fn broadcast_status(&mut self, out: &mut Vec<Output>) {
        #[cfg(polder_mutations)]
        let is_silent = self.is_silent();
        #[cfg(not(polder_mutations))]
        let is_silent = false;
        if !is_silent {
            self.send(To::All, Message::Status(self.status_message()), out);
        }
        if let Some(abdication) = &self.term.abdication {
            out.push(Output::Send { to: To::All, message: abdication.clone() });
        }
        for digest in self.bodies.wanted().into_iter().take(PULLED_MAX) {
            self.ask_for(digest, out);
        }
        let missing: Vec<Seq> = self.window.missing().take(GAP_PULLED_MAX).collect();
        if let Some(peer) = missing.first().and_then(|_| self.peers.next(self.config.me)) {
            let asks = missing.into_iter().map(|slot| Message::Fetch(Fetch::Committed(slot)));
            asks.for_each(|ask| self.send(To::One(peer), ask, out));
        }
    }

    fn status_message(&self) -> StatusMessage {
        let view = self.term.view;
        let above = self.window.slots.range(self.window.committed.next()..);
        let slots = above.map(|(slot, state)| {
            let accepted = state.accepted_in(view).map(|accepted| accepted.digest);
            if self.window.decided.contains_key(slot) {
                return SlotStatus { slot: *slot, accepted, prepares: DECIDED, commits: DECIDED };
            }
            let prepares = state.prepares.votes().fold(0, |mask, (by, _)| mask | bit(by));
            let commits = state.commits.votes().fold(0, |mask, (by, _)| mask | bit(by));
            SlotStatus { slot: *slot, accepted, prepares, commits }
        });
        let awaits_changes = self.is_leader() && self.term.start.is_none();
        let changes = self.leading.changes.keys().fold(0, |mask, by| mask | bit(*by));
        StatusMessage {
            epoch: self.config.epoch,
            view,
            new_view: self.term.start.as_ref().and_then(|start| start.body),
            low: self.window.low,
            committed: self.window.committed,
            executed: self.window.executed,
            suspects: self.suspicion.mask(&self.suspicion_of_view()),
            view_changes: if awaits_changes { changes } else { 0 },
            slots: slots.collect(),
        }
    }

    /// A peer's STATUS: what it shows missing is sent again, as far as it is held here.
    pub(crate) fn on_status(
        &mut self,
        from: ReplicaId,
        status: &StatusMessage,
        out: &mut Vec<Output>,
    ) -> Result<(), Ignored> {
        if status.epoch != self.config.epoch {
            return Err(Ignored::OtherEpoch);
        }
        self.peers.note(from, status, self.progress.now_ms());
        self.note_agreement();
        if from == self.config.me || !self.peers.may_answer(from, self.progress.now_ms()) {
            return Err(Ignored::Flood);
        }
        let to = To::One(from);
        if status.low < self.window.low
            && let Some(stable) = &self.window.stable
        {
            self.send(to, Message::Stable(stable.proof().clone()), out);
        }
        if status.view < self.term.view
            && let Some(ended) = &self.suspicion.ended
        {
            // R4: who holds the certificate relays it.
            mark!(EndRelayed);
            self.send(to, Message::Suspects(ended.proof().clone()), out);
        }
        if status.view == self.term.view {
            self.resend_of_view(from, status, out);
        }
        self.resend_decided(from, status, out);
        Ok(())
    }

    /// What a peer in the same view lacks of it.
    fn resend_of_view(&mut self, from: ReplicaId, status: &StatusMessage, out: &mut Vec<Output>) {
        let to = To::One(from);
        if !mutated!(self, SuspectSentOnce) {
            let suspects = self.suspicion.of(self.suspicion_of_view());
            let missing: Vec<_> = suspects.filter(|suspect| status.suspects & bit(suspect.by) == 0).collect();
            missing.into_iter().for_each(|suspect| self.send(to, Message::Suspect(suspect), out));
        }
        let awaits_new_view = status.new_view.is_none() && self.term.view.0 > 0;
        let lacks_mine = status.view_changes & bit(self.config.me) == 0;
        if let Some(change) = self.term.change.clone().filter(|_| self.term.durable)
            && awaits_new_view
            && from == self.leader()
            && lacks_mine
        {
            out.push(Output::Send { to, message: change });
        }
        if let Some(start) = &self.term.start
            && let Some(message) = &start.message
            && awaits_new_view
            && self.is_old_enough(start.at_ms)
        {
            mark!(NewViewRelayed, !self.is_leader());
            out.push(Output::Send { to, message: message.clone() });
        }
        self.resend_slots(from, status, out);
    }

    /// What is sent at first by the leader is sent again by it after a period, and by the others after three: it may be
    /// on its way, and all would send it at once.
    fn is_old_enough(&self, since_ms: u64) -> bool {
        let periods = if self.is_leader() { 1 } else { 3 };
        let age_ms = self.progress.now_ms().saturating_sub(since_ms);
        age_ms >= self.config.constants.status_period_ms.saturating_mul(periods)
    }

    /// Proposals and own votes that a peer lacks of undecided slots.
    fn resend_slots(&mut self, from: ReplicaId, status: &StatusMessage, out: &mut Vec<Output>) {
        let (me, view, now_ms) = (self.config.me, self.term.view, self.progress.now_ms());
        let shown: BTreeMap<Seq, &SlotStatus> = status.slots.iter().map(|shown| (shown.slot, shown)).collect();
        let above = self.window.low.max(status.committed).next();
        let mut messages: Vec<Arc<VerifiedMessage>> = Vec::new();
        for (slot, state) in self.window.slots.range(above..) {
            let shown = shown.get(slot);
            if shown.is_some_and(|shown| shown.commits == DECIDED) {
                continue;
            }
            let masks = shown.map_or((0, 0), |shown| (shown.prepares, shown.commits));
            let votes = [(masks.0, &state.prepares), (masks.1, &state.commits)];
            let missing = votes.into_iter().filter(|(mask, _)| mask & bit(me) == 0);
            let own = missing.filter_map(|(_, tally)| tally.vote(me));
            messages.extend(own.map(|vote| Arc::new(VerifiedMessage::own(Message::Vote(vote)))));
            let accepted = state.accepted_in(view).filter(|accepted| self.is_old_enough(accepted.at_ms));
            let Some(accepted) = accepted.filter(|_| !mutated!(self, ProposalsNotFetched)) else { continue };
            // Another batch than the peer's: the two proposals are evidence (R41).
            let lacks = shown.and_then(|shown| shown.accepted) != Some(accepted.digest);
            if let Some(proposal) = accepted.proposal.as_ref().filter(|_| lacks)
                && let Message::Proposal(_, bytes) = proposal.message()
                && self.peers.may_send(from, bytes.len(), now_ms)
            {
                messages.push(proposal.clone());
            }
        }
        out.extend(messages.into_iter().map(|message| Output::Send { to: To::One(from), message }));
    }

    /// Decided batches that a peer lacks: with their certificates, once they have been decided for a period, so that
    /// what is merely on its way is not sent twice. Peers share the work by slot; all send all to one that stands.
    fn resend_decided(&mut self, from: ReplicaId, status: &StatusMessage, out: &mut Vec<Output>) {
        let now_ms = self.progress.now_ms();
        let period_ms = self.config.constants.status_period_ms;
        let stands = self.peers.stands(from, status.committed, now_ms) >= period_ms.saturating_mul(3);
        let replicas = self.quorum.replicas() as u64;
        // How many places after the peer this replica stands: 1 to n−1.
        let place = (u64::from(self.config.me.0) + replicas - u64::from(from.0)) % replicas;
        let is_mine = |slot: Seq| slot.0 % (replicas - 1).max(1) + 1 == place;
        let has: BTreeSet<Seq> =
            status.slots.iter().filter(|shown| shown.commits == DECIDED).map(|shown| shown.slot).collect();
        let decided = self.window.decided.range(status.committed.next()..);
        let lacking = decided.filter(|(slot, _)| !has.contains(slot) && (stands || is_mine(**slot)));
        for (_, decided) in lacking.filter(|(_, decided)| now_ms.saturating_sub(decided.at_ms) >= period_ms) {
            let Some(certificate) = &decided.certificate else { continue };
            let Some(body) = self.bodies.get(&decided.digest) else { continue };
            if !self.peers.may_send(from, body.bytes.len(), now_ms) {
                break;
            }
            let message = Message::committed(certificate, body.bytes.clone());
            out.push(Output::Send { to: To::One(from), message: Arc::new(VerifiedMessage::own(message)) });
        }
    }

    /// FETCH.
    pub(crate) fn on_fetch(&mut self, from: ReplicaId, fetch: Fetch, out: &mut Vec<Output>) -> Result<(), Ignored> {
        if from == self.config.me {
            return Err(Ignored::Unasked);
        }
        let answer = match fetch {
            Fetch::Body(digest) => self.bodies.get(&digest).map(|body| Message::Body(body.bytes.clone())),
            Fetch::Committed(slot) => self.committed_or_stable(slot),
        };
        let Some(answer) = answer else { return Err(Ignored::Unasked) };
        let bytes = match &answer {
            Message::Body(bytes) | Message::Committed(_, bytes) => bytes.len(),
            _ => 0,
        };
        if !self.peers.may_send(from, bytes, self.progress.now_ms()) {
            return Err(Ignored::Flood);
        }
        self.send(To::One(from), answer, out);
        Ok(())
    }

    /// R14: who asks for a truncated slot gets the stable certificate, never silence.
    fn committed_or_stable(&self, slot: Seq) -> Option<Message> {
        let decided = self.window.decided.get(&slot);
        let certificate = decided.and_then(|decided| decided.certificate.as_ref());
        let body = decided.and_then(|decided| self.bodies.get(&decided.digest));
        match (certificate, body) {
            (Some(certificate), Some(body)) => Some(Message::committed(certificate, body.bytes.clone())),
            _ if slot <= self.window.low => {
                mark!(TruncatedSlotAsked);
                self.window.stable.as_ref().map(|stable| Message::Stable(stable.proof().clone()))
            }
            _ => None,
        }
    }

    /// A body that was pulled.
    pub(crate) fn on_body(
        &mut self,
        bytes: &Blob,
        message: &VerifiedMessage,
        out: &mut Vec<Output>,
    ) -> Result<(), Ignored> {
        let digest = Batch::digest(bytes);
        if !self.bodies.is_wanted(&digest) {
            return Err(Ignored::Unasked);
        }
        let waited = self.bodies.insert(digest, || Body::new(bytes.clone(), message.batch.clone()));
        self.wake(waited, out);
        Ok(())
    }

    /// A commit certificate with its batch: decides the slot, whatever the view.
    pub(crate) fn on_committed(
        &mut self,
        vote: &Vote,
        bytes: &Blob,
        message: &VerifiedMessage,
        out: &mut Vec<Output>,
    ) -> Result<(), Ignored> {
        if vote.epoch != self.config.epoch {
            return Err(Ignored::OtherEpoch);
        }
        if vote.slot <= self.window.keep_above().max(self.window.delivered) || vote.slot > self.window.high() {
            return Err(Ignored::OutsideWindow);
        }
        if self.window.decided.get(&vote.slot).is_some_and(|decided| decided.digest == vote.digest) {
            return Err(Ignored::Duplicate);
        }
        let certificate = carried(message, |message| match message {
            Message::Committed(proof, _) => Some(proof),
            _ => None,
        });
        let Some(certificate) = certificate else { return Err(Ignored::Invalid) };
        // First what keeps the body, then what waited for it.
        let waited = self.bodies.insert(vote.digest, || Body::new(bytes.clone(), message.batch.clone()));
        self.decide(vote.slot, vote.digest, Some(certificate), out);
        self.wake(waited, out);
        Ok(())
    }

    /// Does what waited for a body.
    pub(crate) fn wake(&mut self, waited: BTreeSet<Seq>, out: &mut Vec<Output>) {
        if !waited.is_empty() {
            waited.into_iter().for_each(|slot| self.advance(slot, out));
            self.form(out);
        }
    }

    /// Pulls a body: first from those who should have it and from the leader, then from all (R11).
    pub(crate) fn pull(&mut self, digest: Digest, slot: Seq, likely: Vec<ReplicaId>, out: &mut Vec<Output>) {
        let leader = self.leader();
        if self.bodies.want(digest, slot, likely.into_iter().chain([leader])) {
            self.ask_for(digest, out);
        }
    }

    fn ask_for(&mut self, digest: Digest, out: &mut Vec<Output>) {
        if let Some(peer) = self.bodies.ask(&digest, self.quorum, self.config.me) {
            self.send(To::One(peer), Message::Fetch(Fetch::Body(digest)), out);
        }
    }

    /// Pulls only what a commit certificate asks for: what was pulled for a view that ended is of no use.
    pub(crate) fn want_only_certified(&mut self) {
        let certified = self.window.slots.values().filter_map(|state| state.certified.as_ref());
        let digests = certified.map(|certificate| certificate.statement().digest).collect();
        self.bodies.want_only(&digests);
    }
}
