//! What a leader proposes: batches of waiting requests, and filler (R16, R24).

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use polder_types::{Batch, Digest, ReplicaId, Seq};

use crate::progress::Timer;
use crate::{Core, Ignored, Message, Output, Proposal, To, VerifiedMessage};

/// How long a batch is held back at most, so that more may join it: little beside the round trips of distant replicas,
/// whose leader must not wait for one slot before it opens the next.
const HOLD_MS: u64 = 20;

/// What only a leader needs.
#[derive(Debug, Default)]
pub(crate) struct Leading {
    /// The slot of the next fresh proposal.
    pub(crate) next: Seq,
    /// The requests of the largest batch since nothing was in flight.
    pub(crate) largest: usize,
    /// Since when what waits is held back, by the logical clock.
    pub(crate) held_since_ms: Option<u64>,
    /// The VIEW-CHANGEs for the current view, one a replica: from them its NEW-VIEW is formed (R9, R42).
    pub(crate) changes: BTreeMap<ReplicaId, Arc<VerifiedMessage>>,
}

impl Leading {
    /// The batches that the VIEW-CHANGEs held list: what was pulled for them is kept while the NEW-VIEW is formed.
    pub(crate) fn listed(&self) -> impl Iterator<Item = Digest> + '_ {
        let bodies = self.changes.values().filter_map(|message| match message.message() {
            Message::ViewChange(_, body) => Some(body),
            _ => None,
        });
        bodies.flat_map(|body| body.entries.iter().map(|entry| entry.digest))
    }
}

impl Core {
    /// Proposes while the pipeline has room and something waits: a batch closes when it is full or when there is room
    /// for it, so that an idle cluster adds no delay and a busy one packs.
    pub(crate) fn propose(&mut self, out: &mut Vec<Output>) {
        while self.may_propose() {
            let slot = self.leading.next;
            if self.holds_back(slot) {
                return;
            }
            let requests = self.requests.take(slot, self.config.constants.batch_bytes_max as usize);
            self.leading.held_since_ms = None;
            if requests.is_empty() && !self.filler_is_due(slot) {
                return;
            }
            mark!(FillerProposed, requests.is_empty());
            // R27: time never goes back at execution, whatever a leader says; so it says what its clock says.
            let batch = Batch { ts: self.wall, requests };
            self.leading.next = slot.next();
            self.leading.largest = self.leading.largest.max(batch.requests.len());
            self.propose_batch(slot, batch, out);
        }
    }

    fn propose_batch(&mut self, slot: Seq, batch: Batch, out: &mut Vec<Output>) {
        let bytes = batch.to_blob();
        let digest = Batch::digest(&bytes);
        let signed = self.sign(Proposal { epoch: self.config.epoch, view: self.term.view, slot, digest });
        let message = Message::Proposal(signed.clone(), bytes);
        let message = Arc::new(VerifiedMessage::own_proposal(message, Arc::new(batch)));
        out.push(Output::Send { to: To::All, message: message.clone() });
        // The leader accepts its own proposal as a backup does; what it cannot accept now is like one that was lost.
        self.on_proposal(&signed, &message, out).unwrap_or_default();
    }

    /// Whether what waits should join more first. A slot costs the same votes and syncs however little is in it; so
    /// beside what is in flight a batch is opened at once only if it is larger (Nagle's idea) or full, and otherwise
    /// when nothing is in flight any more, or after [`HOLD_MS`].
    fn holds_back(&mut self, slot: Seq) -> bool {
        if self.in_flight() == 0 {
            self.leading.largest = 0;
            return false;
        }
        let (waiting, bytes) = self.requests.unproposed();
        let is_full = bytes >= self.config.constants.batch_bytes_max.into();
        if waiting > self.leading.largest || waiting == 0 || is_full || self.filler_is_due(slot) {
            return false;
        }
        let now_ms = self.progress.now_ms();
        now_ms < self.leading.held_since_ms.get_or_insert(now_ms).saturating_add(HOLD_MS)
    }

    /// R8: only in a view whose entering is durable, and never in one that was entered before a restart.
    pub(crate) fn may_lead(&self) -> bool {
        self.is_leader() && self.term.durable && self.term.abdication.is_none() && !self.halted
    }

    fn may_propose(&self) -> bool {
        let slot = self.leading.next;
        self.may_lead()
            && self.term.start.is_some()
            && self.in_flight() < self.config.pipeline_slots
            && slot <= self.window.committed.plus(self.config.constants.fresh_slots_max)
            && self.window.contains(slot)
    }

    /// Fresh slots proposed and undecided.
    pub(crate) fn in_flight(&self) -> u64 {
        let Some(start) = self.term.start.as_ref().filter(|_| self.is_leader()) else { return 0 };
        self.leading.next.0.saturating_sub(1).saturating_sub(self.window.committed.max(start.last).0)
    }

    /// R16: a tail with requests above the last cut has stood, and is filled up to its cut; or the session clock must
    /// run, for which one slot is enough (R24).
    fn filler_is_due(&self, slot: Seq) -> bool {
        let is_tail = |tail| !self.progress.is_armed(Timer::Tail) && slot <= self.window.cut_at_or_after(tail);
        let moves_clock = self.progress.is_armed(Timer::SessionFiller) && slot == self.window.committed.next();
        self.window.tail.is_some_and(is_tail) || moves_clock
    }

    /// A slot was delivered: whether there is a tail, and since when it stands (R16). The order alone says so.
    pub(crate) fn note_tail(&mut self, slot: Seq, has_requests: bool) {
        if self.config.constants.is_cut(slot) {
            self.window.tail = None;
            self.progress.disarm(Timer::Tail);
            self.progress.disarm(Timer::Filler);
        } else if has_requests {
            self.window.tail = Some(slot);
            self.progress.arm(Timer::Tail, self.config.constants.idle_ms);
            self.progress.disarm(Timer::Filler);
        } else if self.window.tail.is_some() && self.progress.is_armed(Timer::Filler) {
            self.progress.arm(Timer::Filler, self.progress.timeout_ms());
        }
        self.restart_session_clock();
    }

    /// The executor says whether so many sessions are open that the session clock must run by itself (R24).
    pub(crate) fn on_sessions(&mut self, must_run: bool) -> Result<(), Ignored> {
        if must_run == self.window.session_clock_must_run {
            return Err(Ignored::Duplicate);
        }
        self.window.session_clock_must_run = must_run;
        self.restart_session_clock();
        Ok(())
    }

    /// A slot has moved the session clock, or the view has just started.
    pub(crate) fn restart_session_clock(&mut self) {
        self.progress.disarm(Timer::SessionFiller);
        if self.term.start.is_some() {
            let due_ms = self.config.constants.idle_ms.saturating_mul(2).max(1);
            self.progress.arm(Timer::SessionClock, due_ms);
        } else {
            self.progress.disarm(Timer::SessionClock);
        }
    }

    /// No slot has come for `2·T_idle`: if an empty batch is due, it is a reason to suspect when it is missing for `T`
    /// (R24, R6 ii).
    pub(crate) fn on_session_clock(&mut self) {
        if self.expects_session_filler() || self.owes_session_filler() {
            self.progress.arm(Timer::SessionFiller, self.progress.timeout_ms());
        } else {
            self.restart_session_clock();
        }
    }

    /// The empty batch has not come.
    pub(crate) fn on_session_filler(&mut self, out: &mut Vec<Output>) {
        if self.expects_session_filler() {
            self.suspect(out);
        } else {
            self.restart_session_clock();
        }
    }

    /// Whether the session clock must run, the state is that of all decided slots, so that what it says of its sessions
    /// is so, and a leader can propose the next one.
    fn expects_session_filler(&self) -> bool {
        self.window.session_clock_must_run
            && self.window.executed == self.window.committed
            && self.window.contains(self.window.committed.next())
    }

    /// A leader that has not executed what is decided cannot know whether the others expect an empty batch: it proposes
    /// one, which does no harm, rather than be suspected without fault.
    fn owes_session_filler(&self) -> bool {
        self.may_lead() && self.window.executed < self.window.committed
    }

    /// The tail has stood for `T_idle`: filler is due, and a reason to suspect when it is missing for `T` (R6 ii).
    pub(crate) fn on_tail(&mut self) {
        let Some(tail) = self.window.tail else { return };
        if self.term.start.is_none() {
            return;
        }
        if self.window.cut_at_or_after(tail) > self.window.high() {
            // No leader can propose that far before the window moves.
            self.progress.arm(Timer::Tail, self.config.constants.idle_ms.max(1));
        } else {
            self.progress.arm(Timer::Filler, self.progress.timeout_ms());
        }
    }
}
