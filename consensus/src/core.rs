//! The core: its parts, and which part handles which input. Nothing is decided here.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use polder_types::{
    Certificate, Checkpoint, Digest, Epoch, Quorum, ReplicaId, Seq, Signed, Statement, Timestamp, View, history_genesis,
};

use crate::batching::Leading;
use crate::bodies::Bodies;
use crate::evidence::EvidenceKind;
use crate::peers::Peers;
use crate::progress::{Progress, Timer};
use crate::requests::Requests;
use crate::view_change::{Suspicion, Term};
use crate::window::Window;
use crate::{Config, Evidence, Header, Ignored, Input, Kind, Message, Now, Output, Record, Status, Ticket, To};
use crate::{VerifiedMessage, Why};

/// What a restarted replica finds on its disk.
#[derive(Clone, Debug, Default)]
pub struct RecoveredLog {
    /// The records, in the order of the log.
    pub records: Vec<Record>,
    /// The cut that the restored state is of; none for the state of genesis.
    pub base: Option<Certificate<Checkpoint>>,
}

/// The ordering core of one replica: a pure state machine. The same inputs in the same order give the same outputs.
#[derive(Debug)]
pub struct Core {
    pub(crate) config: Config,
    pub(crate) quorum: Quorum,
    /// The wall clock of the input at hand.
    pub(crate) wall: Timestamp,
    pub(crate) progress: Progress,
    pub(crate) term: Term,
    pub(crate) suspicion: Suspicion,
    pub(crate) window: Window,
    pub(crate) bodies: Bodies,
    pub(crate) requests: Requests,
    pub(crate) leading: Leading,
    pub(crate) peers: Peers,
    /// Against whom evidence of which kind was given: one of each is enough, of the one epoch of a core (R41).
    pub(crate) caught: BTreeSet<(ReplicaId, EvidenceKind)>,
    pub(crate) ignored: BTreeMap<Ignored, u64>,
    pub(crate) view_changes: u64,
    /// When the decided slots last went on, by the logical clock.
    pub(crate) moved_ms: Option<u64>,
    /// When `q` replicas last agreed that nothing is left to decide, by the logical clock.
    pub(crate) agreed_ms: Option<u64>,
    pub(crate) halted: bool,
}

impl Core {
    /// The core of a replica that has never run, and what it asks for first.
    #[must_use]
    pub fn new(config: Config) -> (Self, Vec<Output>) {
        let mut core = Self::bare(config, None);
        let mut out = Vec::new();
        core.enter_first_view(&mut out);
        (core, out)
    }

    /// The core of a replica that ran before, and what it asks for first. Nothing in that says more than the records.
    #[must_use]
    pub fn recover(config: Config, log: RecoveredLog) -> (Self, Vec<Output>) {
        let mut core = Self::bare(config, log.base.clone());
        let mut out = Vec::new();
        core.replay(log, &mut out);
        (core, out)
    }

    fn bare(config: Config, base: Option<Certificate<Checkpoint>>) -> Self {
        let constants = &config.constants;
        let quorum = config.keyring.quorum();
        let genesis = history_genesis(config.keyring.cluster());
        #[cfg_attr(not(polder_mutations), allow(unused_mut))]
        let mut progress = Progress::new(constants);
        #[cfg(polder_mutations)]
        if config.mutation == Some(crate::Mutation::KUnbounded) {
            progress.unbound();
        }
        #[cfg_attr(not(polder_mutations), allow(unused_mut))]
        let mut requests = Requests::new(constants);
        #[cfg(polder_mutations)]
        {
            requests.keeps_later = config.mutation == Some(crate::Mutation::DeadlinesForTheInexecutable);
        }
        Self {
            quorum,
            wall: Timestamp::ZERO,
            progress,
            term: Term::first(),
            suspicion: Suspicion::default(),
            window: Window::new(constants, base, genesis),
            bodies: Bodies::new(),
            requests,
            leading: Leading::default(),
            peers: Peers::new(constants, quorum),
            caught: BTreeSet::new(),
            ignored: BTreeMap::new(),
            view_changes: 0,
            moved_ms: None,
            agreed_ms: None,
            halted: false,
            config,
        }
    }

    /// Takes one input and appends what follows from it. It cannot fail: what it cannot use it ignores, and counts why.
    /// After an [`Output::Halt`] it ignores everything.
    pub fn step(&mut self, now: Now, input: Input, out: &mut Vec<Output>) {
        if self.halted {
            return;
        }
        self.wall = now.wall;
        let committed = self.window.committed;
        let outcome = match input {
            Input::Request { request, window } => self.on_request(request, window, out),
            Input::Message { from, message } => self.on_message(from, &message, out),
            Input::Tick => self.on_tick(now.monotonic_ms, out),
            Input::Synced(Ticket::Entered(view)) => self.on_entered(view, out),
            Input::Stable(certificate) => self.adopt(certificate, out),
            Input::Executed { slot, windows } => self.on_executed(slot, windows, out),
            Input::Restored { certificate } => self.on_restored(certificate, out),
            Input::SessionClock { must_run } => self.on_sessions(must_run),
            Input::Settled { request } => self.requests.settle(&request),
        };
        if let Err(why) = outcome {
            self.ignored.entry(why).and_modify(|count| *count = count.saturating_add(1)).or_insert(1);
        }
        if self.window.committed > committed {
            self.note_moved();
        }
        // Whatever happened may have made room in the pipeline: a batch closes as soon as there is room.
        self.propose(out);
    }

    fn on_message(
        &mut self,
        from: ReplicaId,
        message: &Arc<VerifiedMessage>,
        out: &mut Vec<Output>,
    ) -> Result<(), Ignored> {
        if !self.quorum.is_member(from) {
            return Err(Ignored::Invalid);
        }
        if from == self.leader() && self.term.start.is_some() && from != self.config.me {
            self.progress.arm(Timer::Silent, self.progress.timeout_ms().saturating_mul(4));
        }
        match message.message() {
            Message::Request(_) => self.on_forwarded(from, message),
            Message::Proposal(signed, _) => self.on_proposal(signed, message, out),
            Message::Vote(vote) => self.on_vote(vote, message, out),
            Message::Suspect(suspect) => self.on_suspect(suspect, message, out),
            Message::Suspects(_) => self.on_suspects(message, out),
            Message::Abdicate(abdicate) => self.on_abdicate(abdicate, out),
            Message::ViewChange(signed, body) => self.on_view_change(signed, body, message, out),
            Message::NewView(signed, enclosed) => self.on_new_view(signed, enclosed, message, out),
            Message::Status(status) => self.on_status(from, status, out),
            Message::Fetch(fetch) => self.on_fetch(from, *fetch, out),
            Message::Body(bytes) => self.on_body(bytes, message, out),
            Message::Committed(proof, bytes) => self.on_committed(&proof.statement, bytes, message, out),
            Message::Stable(_) => self.on_stable(message, out),
        }
    }

    /// Whether a message is worth checking its signatures: asked before that is done, and never answered yes for a
    /// vote after the quorum, or outside the window (R42).
    #[must_use]
    pub fn wants(&self, header: &Header) -> bool {
        if self.halted || header.epoch.is_some_and(|epoch| epoch != self.config.epoch) {
            return false;
        }
        let view = header.view.unwrap_or_default();
        let (is_current, is_later) = (view == self.term.view, view > self.term.view);
        let by = header.by.unwrap_or_default();
        let slot = header.slot.unwrap_or_default();
        match header.kind {
            Kind::Prepare | Kind::Commit => self.wants_vote(header),
            Kind::Proposal => is_current && by == self.leader() && self.wants_proposal(slot, header.digest),
            Kind::Suspect => (is_current || is_later) && self.suspicion.is_news(by, view),
            Kind::Suspects => is_current || is_later,
            Kind::Abdicate => is_current && by == self.leader() && !self.suspicion.suspects(),
            Kind::ViewChange => is_later || is_current && self.wants_view_change(by, header.digest),
            Kind::NewView => is_later || is_current && self.wants_new_view(by, header.digest),
            Kind::Committed => {
                slot > self.window.delivered && slot <= self.window.high() && !self.window.decided.contains_key(&slot)
            }
            Kind::Stable => slot > self.window.low,
            Kind::Request => self.is_leader() && header.digest.is_none_or(|digest| !self.requests.is_known(&digest)),
            Kind::Other => true,
        }
    }

    /// Whether a request with this digest waits here for a decision.
    #[must_use]
    pub fn is_waiting(&self, request: &Digest) -> bool {
        self.requests.is_waiting(request)
    }

    /// The bytes of the bodies held, at most `3·L·batch_bytes_max` (R11), and of the requests admitted and not proposed, at
    /// most `admitted_bytes_max` and as much again outside the caps (R6). Looks at every body: for checks, not for every
    /// step of a node.
    #[must_use]
    pub fn held_bytes(&self) -> (u64, u64) {
        (self.bodies.bytes(), self.requests.unproposed().1)
    }

    /// What there is to say.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            me: self.config.me,
            epoch: self.config.epoch,
            view: self.term.view,
            leader: self.leader(),
            is_leader: self.is_leader(),
            entered: self.term.start.is_some(),
            low: self.window.low,
            committed: self.window.committed,
            delivered: self.window.delivered,
            executed: self.window.executed,
            in_flight: self.in_flight(),
            waiting: self.requests.waiting(),
            stable: self.window.stable.as_ref().map(|certificate| certificate.statement().seq),
            lagging: self.window.lags(),
            suspects: self.suspicion.suspects(),
            timeout_ms: self.progress.timeout_ms(),
            view_changes: self.view_changes,
            took_part_ms_ago: self.took_part_ms_ago(),
            behind_slots: self.behind_slots(),
            ignored: self.ignored.clone(),
        }
    }

    /// The leader of the view.
    pub(crate) fn leader(&self) -> ReplicaId {
        self.quorum.leader(self.term.view)
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.leader() == self.config.me
    }

    /// Signs a statement of one's own.
    pub(crate) fn sign<S: Statement>(&self, statement: S) -> Signed<S> {
        Signed::sign(self.config.me, statement, self.config.keyring.cluster(), &self.config.key).into_inner()
    }

    /// Its epoch and view.
    #[must_use]
    pub fn position(&self) -> (Epoch, View) {
        (self.config.epoch, self.term.view)
    }

    /// Whether a statement is of this epoch and view (R42).
    pub(crate) fn of_this_view(&self, epoch: Epoch, view: View) -> Result<(), Ignored> {
        if epoch != self.config.epoch {
            Err(Ignored::OtherEpoch)
        } else if view < self.term.view {
            Err(Ignored::StaleView)
        } else if view > self.term.view {
            Err(Ignored::UnprovedView)
        } else {
            Ok(())
        }
    }

    pub(crate) fn send(&self, to: To, message: Message, out: &mut Vec<Output>) {
        out.push(Output::Send { to, message: Arc::new(VerifiedMessage::own(message)) });
    }

    /// Reports evidence, once a replica and kind (R41).
    pub(crate) fn report(&mut self, evidence: Evidence, out: &mut Vec<Output>) {
        if self.caught.insert((evidence.culprit(), evidence.kind())) {
            out.push(Output::Misbehaviour(evidence));
        }
    }

    /// A fault outside the model: stops for good.
    pub(crate) fn halt(&mut self, why: Why, out: &mut Vec<Output>) {
        self.halted = true;
        out.push(Output::Halt(why));
    }

    /// Drops every body that nothing refers to any more (R11).
    pub(crate) fn drop_bodies(&mut self) {
        let mut kept: BTreeSet<Digest> = self.window.slots.values().flat_map(|slot| slot.digests()).collect();
        kept.extend(self.window.decided.values().map(|decided| decided.digest));
        kept.extend(self.term.start.iter().flat_map(|start| start.chosen.values().map(|chosen| chosen.digest)));
        kept.extend(self.leading.listed());
        let above = self.window.keep_above().min(self.window.low);
        self.bodies.retain(&kept, above);
    }

    /// The slot after the last one that the front has decided about.
    pub(crate) fn next_slot(&self) -> Seq {
        self.window.delivered.next()
    }
}
