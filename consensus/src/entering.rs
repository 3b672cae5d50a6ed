//! Entering a view (R8, R9): its leader collects VIEW-CHANGEs and forms the NEW-VIEW; everyone computes from what it
//! encloses how the view starts.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use polder_types::{Certificate, Checkpoint, Digest, ReplicaId, Seq, Signed, View};

use crate::evidence::{self, EvidenceKind};
use crate::new_view::{Plan, plan};
use crate::progress::Timer;
use crate::verify::carried;
use crate::view_change::Start;
use crate::{Core, Evidence, Ignored, Message, NewView, Output, Record, Ticket, To};
use crate::{VerifiedMessage, ViewChange, ViewChangeBody, Why};

type Change = (Signed<ViewChange>, ViewChangeBody);

impl Core {
    /// A replica that has never run enters view 0: also that is durable before anything is said in it (R8).
    pub(crate) fn enter_first_view(&mut self, out: &mut Vec<Output>) {
        out.push(Output::Persist {
            record: written!(self, ViewZeroNotRecorded, Record::Entered { epoch: self.config.epoch, view: View::ZERO }),
            then: Vec::new(),
            ticket: Some(Ticket::Entered(View::ZERO)),
        });
        self.progress.arm(Timer::Status, 0);
        self.progress.arm(Timer::Calm, self.progress.timeout_ms().saturating_mul(64));
        self.start_timers();
        self.leading.next = self.window.low.next();
    }

    /// The record of having entered a view is durable: its leader may speak.
    pub(crate) fn on_entered(&mut self, view: View, out: &mut Vec<Output>) -> Result<(), Ignored> {
        if view != self.term.view {
            return Err(Ignored::StaleView);
        }
        self.term.durable = true;
        self.form(out);
        Ok(())
    }

    /// VIEW-CHANGE. Whoever gets one moves to its view by the certificate in it; only the leader of the view keeps it.
    pub(crate) fn on_view_change(
        &mut self,
        signed: &Signed<ViewChange>,
        body: &ViewChangeBody,
        message: &Arc<VerifiedMessage>,
        out: &mut Vec<Output>,
    ) -> Result<(), Ignored> {
        let ViewChange { epoch, view, .. } = signed.statement;
        if epoch != self.config.epoch {
            return Err(Ignored::OtherEpoch);
        }
        if view < self.term.view {
            return Err(Ignored::StaleView);
        }
        let ended = carried(message, |message| match message {
            Message::ViewChange(_, body) => Some(&body.suspects),
            _ => None,
        });
        ended.into_iter().for_each(|ended| self.leave(ended, out));
        let stable = carried(message, |message| match message {
            Message::ViewChange(_, body) => body.stable.as_ref(),
            _ => None,
        });
        self.learn_stable(stable, out);
        self.catch_forgotten(signed, body, out);
        if !self.is_leader() && !mutated!(self, NewViewJudgedByHeld) {
            return Err(Ignored::NotLeader);
        }
        match self.leading.changes.get(&signed.by).map(|held| held.message()) {
            Some(Message::ViewChange(held, _)) if held.statement.body != signed.statement.body => {
                let evidence = Evidence::ViewChanges(held.clone(), signed.clone());
                self.report(evidence, out);
                return Err(Ignored::Conflict);
            }
            Some(_) => return Err(Ignored::Duplicate),
            None => {}
        }
        if self.term.start.is_some() {
            return Err(Ignored::Duplicate);
        }
        self.leading.changes.insert(signed.by, message.clone());
        self.form(out);
        Ok(())
    }

    /// Whether a VIEW-CHANGE for the current view is of use: the first of each replica, and one that is evidence.
    pub(crate) fn wants_view_change(&self, by: ReplicaId, body: Option<Digest>) -> bool {
        let is_leader = self.is_leader() || mutated!(self, NewViewJudgedByHeld);
        let differs = |held: &Arc<VerifiedMessage>| match held.message() {
            Message::ViewChange(held, _) => {
                Some(held.statement.body) != body && !self.caught.contains(&(by, EvidenceKind::ViewChanges))
            }
            _ => false,
        };
        is_leader && self.term.start.is_none() && self.leading.changes.get(&by).is_none_or(differs)
    }

    /// Whether a NEW-VIEW for the current view is of use: the first, and one that is evidence.
    pub(crate) fn wants_new_view(&self, by: ReplicaId, body: Option<Digest>) -> bool {
        let differs = |start: &Start| start.body != body && !self.caught.contains(&(by, EvidenceKind::NewViews));
        by == self.leader() && self.term.view > View::ZERO && self.term.start.as_ref().is_none_or(differs)
    }

    /// Forms the NEW-VIEW, once `q` VIEW-CHANGEs are held whose chosen bodies are held (R9).
    pub(crate) fn form(&mut self, out: &mut Vec<Output>) {
        if !self.may_lead() || self.term.start.is_some() {
            return;
        }
        let Some(enclosed) = self.enclosable(out) else { return };
        let body = NewView::body_digest(&enclosed);
        let signed = self.sign(NewView { epoch: self.config.epoch, view: self.term.view, body });
        let message = Message::NewView(signed.clone(), enclosed);
        let message = Arc::new(VerifiedMessage::own(message));
        out.push(Output::Send { to: To::All, message: message.clone() });
        if let Message::NewView(signed, enclosed) = message.message() {
            // The leader starts its view as everybody does.
            self.on_new_view(signed, enclosed, &message, out).unwrap_or_default();
        }
    }

    /// The VIEW-CHANGEs to enclose: all held, without those that list a chosen entry whose body is missing; none while
    /// fewer than `q` remain. What is missing is pulled from those that list it.
    fn enclosable(&mut self, out: &mut Vec<Output>) -> Option<Vec<Change>> {
        let changes = self.leading.changes.clone();
        let mut held: BTreeMap<ReplicaId, &ViewChangeBody> = BTreeMap::new();
        held.extend(changes.iter().filter_map(|(by, message)| match message.message() {
            Message::ViewChange(_, body) => Some((*by, body)),
            _ => None,
        }));
        while held.len() >= self.quorum.quorum() {
            let plan = match plan(held.iter().map(|(by, body)| (*by, *body)), self.bodies.no_op()) {
                Ok(plan) => plan,
                Err(why) => {
                    self.halt(why, out);
                    return None;
                }
            };
            let missing: Vec<_> = plan.chosen.iter().filter(|(_, chosen)| !self.bodies.has(&chosen.digest)).collect();
            for (slot, chosen) in &missing {
                self.pull(chosen.digest, **slot, chosen.listers.clone(), out);
            }
            match missing.first() {
                None => break,
                Some((_, chosen)) => {
                    mark!(ViewChangeLeftOut);
                    held.retain(|by, _| !chosen.listers.contains(by));
                }
            }
        }
        if held.len() < self.quorum.quorum() {
            return None;
        }
        let enclosed =
            changes.iter().filter(|(by, _)| held.contains_key(by)).filter_map(|(_, message)| match message.message() {
                Message::ViewChange(signed, body) => Some((signed.clone(), body.clone())),
                _ => None,
            });
        Some(enclosed.collect())
    }

    /// NEW-VIEW: judged by what it encloses alone. An equivocated VIEW-CHANGE blocks nobody (R9).
    pub(crate) fn on_new_view(
        &mut self,
        signed: &Signed<NewView>,
        enclosed: &[Change],
        message: &Arc<VerifiedMessage>,
        out: &mut Vec<Output>,
    ) -> Result<(), Ignored> {
        let NewView { epoch, view, body } = signed.statement;
        if epoch != self.config.epoch {
            return Err(Ignored::OtherEpoch);
        }
        if view < self.term.view {
            return Err(Ignored::StaleView);
        }
        if signed.by != self.quorum.leader(view) {
            return Err(Ignored::NotLeader);
        }
        // R41: a second one is evidence whatever it encloses.
        if let Some(start) = self.term.start.as_ref().filter(|_| view == self.term.view) {
            return Err(self.judge_second(start.body, start.message.clone(), signed, body, out));
        }
        let fits = |change: &Change| change.0.statement.view == view && change.0.statement.epoch == epoch;
        if !enclosed.iter().all(fits) {
            return Err(Ignored::Invalid);
        }
        if view > self.term.view {
            mark!(NewViewProvesEnd);
            let ended = carried(message, |message| match message {
                Message::NewView(_, enclosed) => enclosed.first().map(|(_, body)| &body.suspects),
                _ => None,
            });
            ended.into_iter().for_each(|ended| self.leave(ended, out));
        }
        self.catch_liars(enclosed, out)?;
        let changes = enclosed.iter().map(|(signed, body)| (signed.by, body));
        let plan = match self.plan(changes) {
            Ok(plan) => plan,
            Err(why) => {
                self.halt(why, out);
                return Err(Ignored::Conflict);
            }
        };
        let stable = carried(message, |message| match message {
            Message::NewView(_, enclosed) => {
                enclosed.iter().find(|(_, body)| body.low == plan.low).and_then(|(_, body)| body.stable.as_ref())
            }
            _ => None,
        });
        self.learn_stable(stable, out);
        self.start(plan, body, message, out);
        Ok(())
    }

    fn plan<'a>(&self, changes: impl Iterator<Item = (ReplicaId, &'a ViewChangeBody)> + Clone) -> Result<Plan, Why> {
        #[cfg(polder_mutations)]
        if let Some(planted) = self.planted_plan(changes.clone()) {
            return Ok(planted);
        }
        plan(changes, self.bodies.no_op())
    }

    /// A NEW-VIEW for a view that has started: a copy, or evidence (R41).
    fn judge_second(
        &mut self,
        first_body: Option<Digest>,
        first: Option<Arc<VerifiedMessage>>,
        signed: &Signed<NewView>,
        body: Digest,
        out: &mut Vec<Output>,
    ) -> Ignored {
        if first_body == Some(body) {
            return Ignored::Duplicate;
        }
        if let Some(Message::NewView(first, _)) = first.as_deref().map(VerifiedMessage::message) {
            self.report(Evidence::NewViews(first.clone(), signed.clone()), out);
            self.suspect(out);
        }
        Ignored::Conflict
    }

    /// What the enclosed VIEW-CHANGEs give away about their senders (R41). It is reported, and blocks nobody.
    fn catch_liars(&mut self, enclosed: &[Change], out: &mut Vec<Output>) -> Result<(), Ignored> {
        for (signed, body) in enclosed {
            let held = self.leading.changes.get(&signed.by).map(|held| held.message());
            if let Some(Message::ViewChange(held, _)) = held
                && held.statement.body != signed.statement.body
            {
                let evidence = Evidence::ViewChanges(held.clone(), signed.clone());
                self.report(evidence, out);
                if mutated!(self, NewViewJudgedByHeld) {
                    return Err(Ignored::Invalid);
                }
            }
            self.catch_forgotten(signed, body, out);
        }
        Ok(())
    }

    fn catch_forgotten(&mut self, signed: &Signed<ViewChange>, body: &ViewChangeBody, out: &mut Vec<Output>) {
        let commits = self.window.slots.values().filter_map(|state| state.earlier_commits.vote(signed.by));
        let forgotten: Option<_> = commits.into_iter().find(|commit| evidence::is_forgotten(commit, signed, body));
        if let Some(commit) = forgotten {
            self.report(Evidence::Forgotten(commit, Box::new((signed.clone(), body.clone()))), out);
        }
    }

    /// The view starts: its forced slots are accepted as far as their bodies are held, and every deadline starts
    /// afresh (R6).
    fn start(&mut self, plan: Plan, body: Digest, message: &Arc<VerifiedMessage>, out: &mut Vec<Output>) {
        let contradicts = |(slot, chosen): (&Seq, &crate::new_view::Chosen)| {
            let decided = self.window.decided.get(slot).filter(|decided| decided.digest != chosen.digest)?;
            Some(Why::TwoDecisions { slot: *slot, first: decided.digest, second: chosen.digest })
        };
        if let Some(why) = plan.chosen.iter().find_map(contradicts) {
            return self.halt(why, out);
        }
        let Plan { last, chosen, .. } = plan;
        let at_ms = self.progress.now_ms();
        self.term.start = Some(Start { message: Some(message.clone()), body: Some(body), last, chosen, at_ms });
        self.leading.changes.clear();
        self.leading.next = last.max(self.window.low).next();
        self.start_timers();
        self.requests.start_afresh();
        self.want_only_certified();
        // The forced slots, and those for which votes came before the NEW-VIEW.
        let forced = (self.window.low.0.saturating_add(1)..=last.0).map(Seq);
        let slots: alloc::collections::BTreeSet<Seq> = forced.chain(self.window.slots.keys().copied()).collect();
        slots.into_iter().for_each(|slot| self.advance(slot, out));
        if !mutated!(self, BodiesOfAllViewsKept) {
            self.drop_bodies();
        }
    }

    /// The deadlines of a view that has just started (R6).
    pub(crate) fn start_timers(&mut self) {
        self.progress.disarm(Timer::NewView);
        self.progress.disarm(Timer::Filler);
        if !self.is_leader() {
            self.progress.arm(Timer::Silent, self.progress.timeout_ms().saturating_mul(4));
        }
        if self.window.tail.is_some() {
            self.progress.arm(Timer::Tail, self.config.constants.idle_ms);
        }
        self.restart_session_clock();
    }

    /// A certificate for a cut that a peer's message carries is adopted on sight, and the planner gets it.
    pub(crate) fn learn_stable(&mut self, stable: Option<Certificate<Checkpoint>>, out: &mut Vec<Output>) {
        let Some(stable) = stable else { return };
        if self.adopt(stable.clone(), out).is_ok() {
            mark!(CarriedCut);
            out.push(Output::Certified(stable));
        }
    }
}
