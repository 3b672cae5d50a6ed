//! Recovery from the records alone (R8, R30): what this replica promised, it goes on promising; what it may have
//! proposed in, it gives up.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::convert::Infallible;

use polder_types::{Batch, Blob, Certificate, Checkpoint, Digest, Proof, Seq, Signed, Statement, Verified, View};

use crate::Vote;
use crate::bodies::Body;
use crate::core::RecoveredLog;
use crate::progress::Timer;
use crate::verify::part;
use crate::view_change::{Start, Term};
use crate::window::{Accepted, Decided, Slot};
use crate::{
    Abdicate, Core, Message, Output, Phase, Proposal, Record, To, VerifiedMessage, ViewChange, ViewChangeBody,
};

/// What was read from the records.
#[derive(Debug, Default)]
struct Read {
    /// Whether any view was entered durably.
    entered: bool,
    view: View,
    change: Option<(Signed<ViewChange>, ViewChangeBody)>,
    cuts: Vec<Certificate<Checkpoint>>,
    /// The own votes, of all views.
    votes: Vec<Signed<Vote>>,
    committed: BTreeMap<Seq, Certificate<Vote>>,
}

impl Core {
    /// Rebuilds everything that the records say.
    pub(crate) fn replay(&mut self, log: RecoveredLog, out: &mut Vec<Output>) {
        let mut read = Read::default();
        for record in log.records {
            self.read(record, &mut read);
        }
        let base = self.window.low;
        self.re_enter(&mut read);
        for (slot, certificate) in core::mem::take(&mut read.committed) {
            let digest = certificate.statement().digest;
            let body = self.bodies.get(&digest).cloned().filter(|_| slot > base);
            if let Some(body) = body {
                // A copy of what is in it must not wait, however long a slot before it is missing.
                self.requests.decide(slot, &body.batch, &body.requests);
                self.window.decide(slot, Decided { digest, certificate: Some(certificate), at_ms: 0, history: None });
            }
        }
        self.deliver(out);
        self.pass_cuts(read.cuts, out);
        self.restore_votes(&read.votes);
        self.drop_bodies();
        self.watch_gap(out);
        if !read.entered {
            // Nothing was ever said: this is a first start.
            self.enter_first_view(out);
            return;
        }
        self.progress.arm(Timer::Status, 0);
        self.progress.arm(Timer::Calm, self.progress.timeout_ms().saturating_mul(64));
        if self.term.start.is_some() {
            self.start_timers();
        } else {
            self.progress.arm(Timer::NewView, self.progress.timeout_ms());
        }
        self.leading.next = self.window.committed.next();
        self.abdicate(out);
    }

    fn read(&mut self, record: Record, read: &mut Read) {
        match record {
            Record::Entered { view, .. } => {
                read.entered = true;
                read.view = read.view.max(view);
            }
            Record::Accepted { proposal, body, vote } => self.read_accepted(proposal, body, vote, read),
            Record::Prepared { certificate, body, vote } => {
                let Vote { slot, digest, .. } = vote.statement;
                self.read_body(slot, digest, body);
                let state = self.window.slots.entry(slot).or_default();
                let view = state.prepared.as_ref().map(|prepared| prepared.statement().view);
                if view <= Some(certificate.statement.view) {
                    state.prepared = certified(certificate);
                }
                read.votes.push(vote);
            }
            Record::Committed { certificate, body } => {
                let Vote { slot, digest, .. } = certificate.statement;
                self.read_body(slot, digest, body);
                read.committed.extend(certified(certificate).map(|certificate| (slot, certificate)));
            }
            Record::ViewChange { signed, body } => {
                read.entered = true;
                read.view = signed.statement.view;
                read.change = Some((signed, body));
            }
            Record::Stable { certificate, view, view_change } => {
                read.entered = true;
                read.view = view;
                read.change = view_change;
                read.cuts.extend(certified(certificate));
            }
            #[cfg(polder_mutations)]
            Record::Volatile => {}
        }
    }

    fn read_accepted(
        &mut self,
        proposal: Option<Signed<Proposal>>,
        body: Option<Blob>,
        vote: Signed<Vote>,
        read: &mut Read,
    ) {
        let Vote { view, slot, digest, .. } = vote.statement;
        self.read_body(slot, digest, body);
        let bytes = self.bodies.get(&digest).map(|body| body.bytes.clone());
        let message = proposal.clone().zip(bytes).map(|(signed, bytes)| Message::Proposal(signed, bytes));
        let state = self.window.slots.entry(slot).or_default();
        if state.accepted.as_ref().is_none_or(|accepted| accepted.view <= view) {
            let proposal_message = message.map(|message| Arc::new(VerifiedMessage::own(message)));
            state.accepted = Some(Accepted { view, digest, proposal: proposal_message, signed: proposal, at_ms: 0 });
        }
        read.votes.push(vote);
    }

    fn read_body(&mut self, slot: Seq, digest: Digest, body: Option<Blob>) {
        let Some(bytes) = body else { return };
        let batch = Batch::from_blob(&bytes, self.config.constants.batch_bytes_max as usize).ok().map(Arc::new);
        self.bodies.insert(digest, || Body::new(bytes, batch));
        self.window.slots.entry(slot).or_default().logged.insert(digest);
    }

    /// The view is the last one that was entered durably; how it started is asked of others (R15).
    fn re_enter(&mut self, read: &mut Read) {
        let change = read.change.take().filter(|_| !mutated!(self, ScNotDurable));
        let message = change.map(|(signed, body)| Arc::new(VerifiedMessage::own(Message::ViewChange(signed, body))));
        self.suspicion.ended = message.as_ref().and_then(|message| {
            crate::verify::carried(message, |message| match message {
                Message::ViewChange(_, body) => Some(&body.suspects),
                _ => None,
            })
        });
        let start = (read.view == View::ZERO).then(Start::default);
        self.term = Term { view: read.view, durable: read.entered, change: message, start, abdication: None };
    }

    /// R30: each certified cut proves the local batches below it, if their chain is the certified one.
    fn pass_cuts(&mut self, cuts: Vec<Certificate<Checkpoint>>, out: &mut Vec<Output>) {
        let base = self.window.low;
        let is_recorded = cuts.iter().any(|cut| cut.statement().seq >= base);
        let mut behind: BTreeMap<Seq, Slot> = BTreeMap::new();
        for cut in cuts.into_iter().filter(|cut| cut.statement().seq > base) {
            if cut.statement().seq > self.window.low {
                behind.append(&mut self.window.raise(cut.clone()));
                self.prove_by_history(&cut, &behind, out);
            }
        }
        self.deliver(out);
        let (low, high) = (self.window.low, self.window.high());
        self.window.slots.retain(|slot, _| *slot > low && *slot <= high);
        if !is_recorded && base > Seq::ZERO {
            self.record_stable(out);
        }
    }

    /// The own votes of the current view are durable: they are sent again from the tallies, as any.
    fn restore_votes(&mut self, votes: &[Signed<Vote>]) {
        let view = self.term.view;
        let has_prepare_phase = self.quorum.has_prepare_phase();
        for state in self.window.slots.values_mut() {
            state.accepted = state.accepted.take().filter(|accepted| accepted.view == view || !has_prepare_phase);
        }
        for vote in votes.iter().filter(|vote| vote.statement.view == view) {
            let message = VerifiedMessage::own(Message::Vote(vote.clone()));
            let verified = part(&message, |message| match message {
                Message::Vote(vote) => Some(vote),
                _ => None,
            });
            let Some((state, verified)) = self.window.slot_mut(vote.statement.slot).zip(verified) else { continue };
            let tally = if vote.statement.phase == Phase::Prepare { &mut state.prepares } else { &mut state.commits };
            mark!(VotesRestored);
            tally.add(&verified);
        }
    }

    /// R8: proposals and NEW-VIEWs need no sync of their own, because whoever restarts as the leader of its last
    /// durable view gives that view up.
    fn abdicate(&mut self, out: &mut Vec<Output>) {
        if !self.is_leader() || mutated!(self, NewViewNotDurableNoAbdication) {
            return;
        }
        mark!(AbdicatesAfterRestart);
        let signed = self.sign(Abdicate { epoch: self.config.epoch, view: self.term.view });
        let message = Arc::new(VerifiedMessage::own(Message::Abdicate(signed)));
        self.term.abdication = Some(message.clone());
        out.push(Output::Send { to: To::All, message });
        self.suspect(out);
    }
}

/// A certificate from the own log: it was verified before it was written.
fn certified<S: Statement>(proof: Proof<S>) -> Option<Certificate<S>> {
    let Ok(proof) = Verified::by::<Infallible>(proof, |_| Ok(()));
    Certificate::carried(&proof, |proof| Some(proof))
}
