//! Leaving a view (R4, R6, R9): SUSPECTs, the certificate that ends a view, the own VIEW-CHANGE.

use alloc::sync::Arc;
use alloc::vec::Vec;

use polder_types::{Certificate, Digest, ReplicaId, Seq, Signed, Tally, View};

use crate::new_view::Chosen;
use crate::progress::Timer;
use crate::verify::{carried, part};
use crate::{Abdicate, Core, Entry, Ignored, Message, Output, Record, Suspect, Ticket, To};
use crate::{VerifiedMessage, ViewChange, ViewChangeBody};

/// The current view.
#[derive(Debug)]
pub(crate) struct Term {
    pub(crate) view: View,
    /// Whether the record of having entered it is durable (R8).
    pub(crate) durable: bool,
    /// The own VIEW-CHANGE for it; none in view 0.
    pub(crate) change: Option<Arc<VerifiedMessage>>,
    /// How it started; none while its NEW-VIEW is awaited.
    pub(crate) start: Option<Start>,
    /// The own ABDICATE: this replica led the view before it restarted (R8).
    pub(crate) abdication: Option<Arc<VerifiedMessage>>,
}

impl Term {
    /// View 0, which needs no NEW-VIEW.
    pub(crate) fn first() -> Self {
        Self { view: View::ZERO, durable: false, change: None, start: Some(Start::default()), abdication: None }
    }
}

/// How a view started.
#[derive(Debug, Default)]
pub(crate) struct Start {
    /// The NEW-VIEW, to be relayed; none in view 0.
    pub(crate) message: Option<Arc<VerifiedMessage>>,
    /// What it encloses, by digest.
    pub(crate) body: Option<Digest>,
    /// The last forced slot: fresh ones come after it.
    pub(crate) last: Seq,
    /// What the slots before are forced to.
    pub(crate) chosen: alloc::collections::BTreeMap<Seq, Chosen>,
    /// When it was accepted here, by the logical clock.
    pub(crate) at_ms: u64,
}

impl Start {
    /// Who should have the body that a slot is forced to.
    pub(crate) fn listers(&self, slot: Seq) -> Vec<ReplicaId> {
        self.chosen.get(&slot).map(|chosen| chosen.listers.clone()).unwrap_or_default()
    }
}

/// The SUSPECTs held, and the certificate that ended the view before (R4).
#[derive(Debug, Default)]
pub(crate) struct Suspicion {
    /// The newest SUSPECT of each replica (R42).
    votes: Tally<Suspect>,
    /// `SC(v−1)`, `v` the current view; none in view 0.
    pub(crate) ended: Option<Certificate<Suspect>>,
    /// Whether this replica has signed one for the current view.
    signed: bool,
}

impl Suspicion {
    /// Whether this replica suspects the leader of its view.
    pub(crate) fn suspects(&self) -> bool {
        self.signed
    }

    /// Whether a SUSPECT of this replica for this view is newer than what is held.
    pub(crate) fn is_news(&self, by: ReplicaId, view: View) -> bool {
        self.votes.vote(by).is_none_or(|held| held.statement.view < view)
    }

    /// Whose SUSPECTs for the view are held.
    pub(crate) fn mask(&self, suspect: &Suspect) -> u128 {
        self.votes.mask(suspect)
    }

    /// The SUSPECTs for this view.
    pub(crate) fn of(&self, suspect: Suspect) -> impl Iterator<Item = Signed<Suspect>> + '_ {
        let by: Vec<ReplicaId> = self.votes.votes().filter(|(_, held)| **held == suspect).map(|(by, _)| by).collect();
        by.into_iter().filter_map(|by| self.votes.vote(by))
    }
}

impl Core {
    /// The SUSPECT statement of the current view.
    pub(crate) fn suspicion_of_view(&self) -> Suspect {
        Suspect { epoch: self.config.epoch, view: self.term.view }
    }

    /// Signs a SUSPECT, once a view; it stands until the view ends, and this replica goes on voting (R4).
    pub(crate) fn suspect(&mut self, out: &mut Vec<Output>) {
        if self.suspicion.signed {
            return;
        }
        self.suspicion.signed = true;
        let signed = self.sign(self.suspicion_of_view());
        let message = VerifiedMessage::own(Message::Suspect(signed.clone()));
        self.send(To::All, Message::Suspect(signed.clone()), out);
        // It leaves by `Send`, so it does not come back by itself.
        self.on_suspect(&signed, &message, out).unwrap_or_default();
    }

    /// SUSPECT: `u+1` of others are reason enough, `q` of them end the view (R4).
    pub(crate) fn on_suspect(
        &mut self,
        suspect: &Signed<Suspect>,
        message: &VerifiedMessage,
        out: &mut Vec<Output>,
    ) -> Result<(), Ignored> {
        let Suspect { epoch, view } = suspect.statement;
        if epoch != self.config.epoch {
            return Err(Ignored::OtherEpoch);
        }
        if view < self.term.view {
            return Err(Ignored::StaleView);
        }
        if !self.suspicion.is_news(suspect.by, view) {
            return Err(Ignored::Duplicate);
        }
        let Some(verified) = part(message, |message| match message {
            Message::Suspect(suspect) => Some(suspect),
            _ => None,
        }) else {
            return Err(Ignored::Invalid);
        };
        self.suspicion.votes.replace(&verified);
        let joins = if mutated!(self, JoinAtWeak) { self.quorum.weak() } else { self.quorum.holders() };
        if self.suspicion.votes.count(&self.suspicion_of_view()) >= joins && !self.suspicion.signed {
            mark!(JoinsSuspects);
            self.suspect(out);
        }
        if let Some(ended) = self.suspicion.votes.any_certificate(self.quorum.quorum()) {
            self.leave(ended, out);
        }
        Ok(())
    }

    /// `SC(v')`, valid for ever: moves to `v'+1`.
    pub(crate) fn on_suspects(&mut self, message: &VerifiedMessage, out: &mut Vec<Output>) -> Result<(), Ignored> {
        let ended = carried(message, |message| match message {
            Message::Suspects(proof) => Some(proof),
            _ => None,
        });
        let Some(ended) = ended else { return Err(Ignored::Invalid) };
        if ended.statement().epoch != self.config.epoch {
            return Err(Ignored::OtherEpoch);
        }
        if ended.statement().view < self.term.view {
            return Err(Ignored::StaleView);
        }
        self.leave(ended, out);
        Ok(())
    }

    /// ABDICATE: a reason to suspect (R6 iii).
    pub(crate) fn on_abdicate(&mut self, abdicate: &Signed<Abdicate>, out: &mut Vec<Output>) -> Result<(), Ignored> {
        self.of_this_view(abdicate.statement.epoch, abdicate.statement.view)?;
        if abdicate.by != self.leader() {
            return Err(Ignored::NotLeader);
        }
        mark!(BelievesAbdication);
        self.suspect(out);
        Ok(())
    }

    /// Leaves the current view for the one after `ended`: only on this certificate (R4). Relays it at once.
    pub(crate) fn leave(&mut self, ended: Certificate<Suspect>, out: &mut Vec<Output>) {
        let view = ended.statement().view.next();
        if view <= self.term.view {
            return;
        }
        mark!(SkipsViews, view > self.term.view.next());
        self.send(To::All, Message::Suspects(ended.proof().clone()), out);
        self.progress.moved(view.0 - self.term.view.0);
        self.view_changes = self.view_changes.saturating_add(1);
        let body = ViewChangeBody {
            suspects: ended.proof().clone(),
            low: self.window.low,
            stable: self.window.stable.as_ref().map(|certificate| certificate.proof().clone()),
            entries: self.entries(),
        };
        let signed = self.sign(ViewChange { epoch: self.config.epoch, view, body: body.digest() });
        let message = Arc::new(VerifiedMessage::own(Message::ViewChange(signed.clone(), body.clone())));
        self.enter(view, ended, message.clone());
        // R8: the exact bytes are the record of having entered the view, and leave once they are durable.
        out.push(Output::Persist {
            record: written!(self, EnteredViewNotDurable, Record::ViewChange { signed, body }),
            then: alloc::vec![message],
            ticket: Some(Ticket::Entered(view)),
        });
    }

    /// Makes `view` the current one.
    pub(crate) fn enter(&mut self, view: View, ended: Certificate<Suspect>, change: Arc<VerifiedMessage>) {
        self.term = Term { view, durable: false, change: Some(change), start: None, abdication: None };
        self.suspicion.ended = Some(ended);
        self.suspicion.signed = false;
        self.window.leave_view(self.quorum.has_prepare_phase());
        self.leading.changes.clear();
        self.requests.enter_view();
        self.want_only_certified();
        if !mutated!(self, BodiesOfAllViewsKept) {
            self.drop_bodies();
        }
        for timer in [Timer::Silent, Timer::Tail, Timer::Filler, Timer::SessionClock, Timer::SessionFiller] {
            self.progress.disarm(timer);
        }
        self.progress.arm(Timer::NewView, self.progress.timeout_ms());
        self.progress.arm(Timer::Calm, self.progress.timeout_ms().saturating_mul(64));
    }

    /// `P` of the VIEW-CHANGE (R9): for each slot of `(h, h+L]` at most one entry, that of the highest view in which
    /// this replica prepared (`r > 0`) or accepted (`r = 0`) with the body durable. Per slot, never "my log in my
    /// highest view".
    fn entries(&self) -> Vec<Entry> {
        let has_prepare_phase = self.quorum.has_prepare_phase();
        let slots = self.window.slots.iter();
        let mut entries: Vec<Entry> = if has_prepare_phase {
            let prepared = slots.filter_map(|(slot, state)| Some((*slot, state.prepared.as_ref()?)));
            prepared
                .map(|(slot, certificate)| Entry {
                    slot,
                    view: certificate.statement().view,
                    digest: certificate.statement().digest,
                    prepared: Some(certificate.proof().clone()),
                })
                .collect()
        } else {
            let accepted = slots.filter_map(|(slot, state)| Some((*slot, state.accepted.as_ref()?)));
            accepted
                .map(|(slot, accepted)| Entry { slot, view: accepted.view, digest: accepted.digest, prepared: None })
                .collect()
        };
        if mutated!(self, ViewChangeWithoutAccepted) && !has_prepare_phase {
            entries.clear();
        }
        if mutated!(self, EntriesPerReplica) {
            let highest = entries.iter().map(|entry| entry.view).max().unwrap_or_default();
            entries.retain(|entry| entry.view == highest);
        }
        entries
    }
}
