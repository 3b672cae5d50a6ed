//! Which commands wait, which are under way, and under which numbers (R25). Pure.

use std::collections::{BTreeMap, BTreeSet};

use polder_types::{Blob, Constants, Digest, Reply};

use crate::courier::LetterId;
use crate::error::{CallError, Unknown};
use crate::machine::Output;
use crate::{SessionState, Token};

/// One caller waiting for one command.
pub type CallId = u64;

/// Who numbers the commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbering {
    /// The ledger, as they are sent.
    Own,
    /// The callers, who also say what is acknowledged.
    Callers,
}

/// The commands of a session.
#[derive(Debug)]
pub(crate) struct Ledger {
    numbering: Numbering,
    window: u64,
    /// Every number up to this one was answered and is never sent again. Kept by the callers if they number.
    acknowledged: u64,
    /// The lowest number never used. Only if the ledger numbers.
    next: u64,
    /// By number if the callers number, else by order of arrival.
    waiting: BTreeMap<u64, Waiting>,
    waiting_bytes: usize,
    arrivals: u64,
    pending: BTreeMap<u64, Pending>,
    letters: BTreeMap<LetterId, BTreeSet<u64>>,
    calls: BTreeMap<CallId, Place>,
    deadlines: BTreeSet<(u64, CallId)>,
    /// The session, once it is open.
    state: Option<SessionState>,
    /// Numbers whose tokens are out: not acknowledged, so that the replicas keep their replies (R25), for so long as
    /// that takes from later commands neither numbers nor room for replies. Only if the ledger numbers.
    tokens: BTreeSet<u64>,
    /// Numbers under way that the replicas had no room for (R25): sent again under the same number.
    again: BTreeSet<u64>,
    /// When they were refused last.
    refused_ms: u64,
    /// So many numbers above the acknowledged one had room then; what is answered since lets it grow.
    room: u64,
    /// Bytes of replies that came since a token was out.
    kept_bytes: u64,
    kept_bytes_max: u64,
}

/// A command that was not sent.
#[derive(Debug)]
struct Waiting {
    command: Blob,
    calls: Vec<CallId>,
}

/// A command that was sent and not answered.
#[derive(Debug)]
struct Pending {
    command: Blob,
    digest: Digest,
    /// What was acknowledged by the request that it was packed into.
    ack: u64,
    /// Who waits for it; nobody if all gave up. It is sent on all the same: its number must be answered.
    calls: Vec<CallId>,
    letter: LetterId,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    key: u64,
    deadline_ms: u64,
}

/// What goes into one request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Packed {
    pub(crate) ack: u64,
    pub(crate) first: u64,
    pub(crate) commands: Vec<Blob>,
}

/// Bytes of commands that wait, beyond which callers wait to submit.
const WAITING_BYTES_MAX: usize = 8 << 20;
/// What the replicas had no room for is tried again after so long, though nothing was acknowledged since: others may
/// have acknowledged.
const AGAIN_MS: u64 = 250;
/// What a command takes in a request beyond its own bytes.
pub(crate) const COMMAND_OVERHEAD_BYTES: usize = 5;

impl Ledger {
    pub(crate) fn new(numbering: Numbering, acknowledged: u64, constants: &Constants) -> Self {
        Self {
            numbering,
            window: constants.session_window,
            acknowledged,
            next: acknowledged.saturating_add(1),
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            arrivals: 0,
            pending: BTreeMap::new(),
            letters: BTreeMap::new(),
            calls: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            state: None,
            tokens: BTreeSet::new(),
            again: BTreeSet::new(),
            refused_ms: 0,
            room: constants.session_window,
            kept_bytes: 0,
            kept_bytes_max: constants.reply_cache_per_session_bytes_max / 4,
        }
    }

    /// From now on commands are sent in this session.
    pub(crate) fn name(&mut self, state: SessionState) {
        self.state = Some(state);
    }

    /// Whether tokens are out for what this session was sent.
    pub(crate) fn has_tokens(&self) -> bool {
        !self.tokens.is_empty()
    }

    /// Whether more commands may be submitted; else callers wait.
    pub(crate) fn has_room(&self) -> bool {
        (self.waiting.len() as u64) < self.window && self.waiting_bytes < WAITING_BYTES_MAX
    }

    /// Whether nothing waits and nothing is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.pending.is_empty()
    }

    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether enough waits for a request to be full.
    pub(crate) fn fills_a_request(&self, commands_max: usize, bytes_max: usize) -> bool {
        self.waiting.len() >= commands_max || self.waiting_bytes >= bytes_max
    }

    /// Commands that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Commands under way.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Requests under way.
    pub(crate) fn letters(&self) -> usize {
        self.letters.len()
    }

    /// A command that the ledger numbers when it is sent.
    pub(crate) fn submit(&mut self, call: CallId, command: Blob, deadline_ms: u64) {
        let key = self.arrivals;
        self.arrivals += 1;
        self.wait(key, call, command, deadline_ms);
    }

    /// A command that its caller has numbered.
    pub(crate) fn submit_numbered(
        &mut self,
        call: CallId,
        number: u64,
        command: Blob,
        deadline_ms: u64,
        out: &mut Vec<Output>,
    ) {
        let refuse = |out: &mut Vec<Output>, error| out.push(Output::Finished { call, outcome: Err(error) });
        if number <= self.acknowledged {
            return refuse(out, CallError::unknown(Unknown::Acknowledged));
        }
        if number > self.acknowledged.saturating_add(self.window) {
            return refuse(out, CallError::NotSent(CallError::BEYOND_WINDOW));
        }
        if let Some(pending) = self.pending.get_mut(&number) {
            // The caller gave up and comes again, or two callers share a number.
            if pending.digest != Reply::command_digest(&command) {
                return refuse(out, CallError::NotSent(CallError::NUMBER_IN_USE));
            }
            pending.calls.push(call);
            return self.place(call, number, deadline_ms);
        }
        match self.waiting.get_mut(&number) {
            Some(waiting) if waiting.command != command => refuse(out, CallError::NotSent(CallError::NUMBER_IN_USE)),
            Some(waiting) => {
                waiting.calls.push(call);
                self.place(call, number, deadline_ms);
            }
            None => self.wait(number, call, command, deadline_ms),
        }
    }

    fn wait(&mut self, key: u64, call: CallId, command: Blob, deadline_ms: u64) {
        self.waiting_bytes += command.len();
        self.waiting.insert(key, Waiting { command, calls: vec![call] });
        self.place(call, key, deadline_ms);
    }

    fn place(&mut self, call: CallId, key: u64, deadline_ms: u64) {
        self.calls.insert(call, Place { key, deadline_ms });
        self.deadlines.insert((deadline_ms, call));
    }

    /// Everything up to this number was answered, says the caller. Never beyond what is under way.
    pub(crate) fn acknowledge(&mut self, number: u64) {
        let unanswered = self.pending.keys().chain(self.waiting.keys()).min().copied();
        let limit = unanswered.map_or(number, |unanswered| unanswered.saturating_sub(1));
        self.acknowledged = self.acknowledged.max(number.min(limit));
    }

    /// R25: every number up to this one was answered.
    pub(crate) fn ack(&self) -> u64 {
        match self.numbering {
            Numbering::Callers => self.acknowledged,
            Numbering::Own => {
                let lowest = [self.pending.keys().next(), self.tokens.first()].into_iter().flatten().min();
                lowest.copied().unwrap_or(self.next).saturating_sub(1)
            }
        }
    }

    /// Tokens that hold too much back are no longer heeded.
    fn give_up_tokens(&mut self) {
        let is_full = self.kept_bytes > self.kept_bytes_max;
        while let Some(&number) = self.tokens.first()
            && !self.pending.contains_key(&number)
            && (is_full || !self.again.is_empty() || self.next.saturating_sub(number) > self.window / 2)
        {
            self.tokens.pop_first();
        }
        if is_full || self.tokens.is_empty() {
            self.kept_bytes = 0;
        }
    }

    /// Takes what goes into the next request: consecutive numbers within the window, so many commands and bytes at
    /// most. A command that is larger than `bytes_max` alone is never submitted.
    pub(crate) fn pack(
        &mut self,
        now_ms: u64,
        commands_max: usize,
        bytes_max: usize,
        letter: LetterId,
    ) -> Option<Packed> {
        self.give_up_tokens();
        let ack = self.ack();
        let waiting = self.waiting.keys().next().copied();
        // A caller's number may be below those that were refused, and be what they wait for.
        let is_lower = |again: u64| self.numbering == Numbering::Callers && waiting.is_some_and(|key| key < again);
        if let Some(again) = self.again.first().copied().filter(|again| !is_lower(*again)) {
            return self.pack_again(again, now_ms, commands_max, bytes_max, letter);
        }
        let window = match self.numbering {
            Numbering::Own => self.window.min(self.room),
            Numbering::Callers => self.window,
        };
        let last = ack.saturating_add(window);
        let key = waiting?;
        let first = match self.numbering {
            Numbering::Own => self.next,
            Numbering::Callers => key,
        };
        let (mut number, mut bytes) = (first, 0);
        let mut commands = Vec::new();
        while let Some(entry) = self.waiting.first_entry() {
            bytes += entry.get().command.len() + COMMAND_OVERHEAD_BYTES;
            let follows = self.numbering == Numbering::Own || *entry.key() == number;
            let fits = commands.is_empty() || (commands.len() < commands_max && bytes <= bytes_max);
            if !follows || !fits || number > last {
                break;
            }
            let Waiting { command, calls } = entry.remove();
            self.waiting_bytes -= command.len();
            for call in &calls {
                if let Some(place) = self.calls.get_mut(call) {
                    place.key = number;
                }
            }
            self.letters.entry(letter).or_default().insert(number);
            commands.push(command.clone());
            let digest = Reply::command_digest(&command);
            self.pending.insert(number, Pending { command, digest, ack, calls, letter });
            number += 1;
        }
        self.next = self.next.max(number);
        (!commands.is_empty()).then_some(Packed { ack, first, commands })
    }

    /// Takes what there was no room for, from this number on: as far as there was room, or the first alone after a
    /// while. The same commands under the same numbers, since copies may be under way (R25).
    fn pack_again(
        &mut self,
        first: u64,
        now_ms: u64,
        commands_max: usize,
        bytes_max: usize,
        letter: LetterId,
    ) -> Option<Packed> {
        let ack = self.ack();
        let last = ack.saturating_add(self.room);
        if first > last {
            if now_ms < self.refused_ms.saturating_add(AGAIN_MS) {
                return None;
            }
            self.refused_ms = now_ms;
        }
        let (mut number, mut bytes) = (first, 0);
        let mut commands = Vec::new();
        while self.again.contains(&number)
            && let Some(pending) = self.pending.get_mut(&number)
        {
            bytes += pending.command.len() + COMMAND_OVERHEAD_BYTES;
            let fits = commands.len() < commands_max && bytes <= bytes_max && number <= last;
            if !commands.is_empty() && !fits {
                break;
            }
            (pending.ack, pending.letter) = (ack, letter);
            commands.push(pending.command.clone());
            self.again.remove(&number);
            self.letters.entry(letter).or_default().insert(number);
            number += 1;
        }
        (!commands.is_empty()).then_some(Packed { ack, first, commands })
    }

    /// Whether something is to be sent again that there was no room for.
    pub(crate) fn has_refused(&self) -> bool {
        !self.again.is_empty()
    }

    /// When what there was no room for is tried again in any case.
    pub(crate) fn again_ms(&self) -> Option<u64> {
        self.has_refused().then_some(self.refused_ms.saturating_add(AGAIN_MS))
    }

    /// R25: the replicas have no room for a command, which has not taken its number. Returns which request is thereby
    /// answered as a whole.
    pub(crate) fn no_room(&mut self, now_ms: u64, number: u64) -> Option<LetterId> {
        let pending = self.pending.get(&number)?;
        let letter = pending.letter;
        self.room = self.room.min(number.saturating_sub(pending.ack).saturating_sub(1)).max(1);
        self.refused_ms = now_ms;
        self.again.insert(number);
        self.settle(letter, number)
    }

    /// A number of a request is answered: returns the request if it is the last one.
    fn settle(&mut self, letter: LetterId, number: u64) -> Option<LetterId> {
        let numbers = self.letters.get_mut(&letter)?;
        numbers.remove(&number);
        if !numbers.is_empty() {
            return None;
        }
        self.letters.remove(&letter);
        Some(letter)
    }

    /// The digest of a command under way.
    pub(crate) fn digest(&self, number: u64) -> Option<Digest> {
        self.pending.get(&number).map(|pending| pending.digest)
    }

    /// A command was answered: tells who waits, and which request is thereby answered as a whole.
    pub(crate) fn answered(
        &mut self,
        number: u64,
        outcome: &Result<Blob, CallError>,
        out: &mut Vec<Output>,
    ) -> Option<LetterId> {
        let pending = self.pending.remove(&number)?;
        if let (Ok(reply), false) = (outcome, self.tokens.is_empty()) {
            self.kept_bytes = self.kept_bytes.saturating_add(reply.len() as u64);
        }
        self.again.remove(&number);
        self.room = self.room.saturating_add(1).min(self.window);
        self.finish(pending.calls, outcome, out);
        self.settle(pending.letter, number)
    }

    /// The session is gone: everything under way has an unknown outcome (R27). Returns what was under way. What
    /// waits was never sent and stays.
    pub(crate) fn session_gone(&mut self, out: &mut Vec<Output>) -> Vec<(u64, Digest)> {
        let gone = self.pending.iter().map(|(number, pending)| (*number, pending.digest)).collect();
        // No token: there is nobody left to ask.
        self.state = None;
        self.end_pending(Unknown::SessionGone, out);
        gone
    }

    /// Nothing that is under way will be answered here.
    pub(crate) fn end_pending(&mut self, why: Unknown, out: &mut Vec<Output>) {
        self.letters.clear();
        self.again.clear();
        self.room = self.window;
        for (number, pending) in std::mem::take(&mut self.pending) {
            let token = self.token(number, &pending);
            self.finish(pending.calls, &Err(CallError::OutcomeUnknown { why, token }), out);
        }
    }

    fn token(&self, number: u64, pending: &Pending) -> Option<Token> {
        let state = SessionState { acknowledged: pending.ack, ..self.state? };
        Some(Token::new(state, number, pending.command.clone()))
    }

    /// A new session, whose numbers start afresh.
    pub(crate) fn renumber(&mut self) {
        debug_assert!(self.pending.is_empty());
        if self.numbering == Numbering::Own {
            self.next = 1;
        }
        self.acknowledged = 0;
        self.tokens.clear();
        self.kept_bytes = 0;
    }

    /// Nothing that waits will be sent.
    pub(crate) fn refuse_waiting(&mut self, error: &CallError, out: &mut Vec<Output>) {
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        for (_, waiting) in waiting {
            self.finish(waiting.calls, &Err(error.clone()), out);
        }
    }

    /// Tells callers whose time is up. What was not sent is dropped; what was sent stays under way, since its number
    /// must be answered before a later one can be acknowledged.
    pub(crate) fn tick(&mut self, now_ms: u64, out: &mut Vec<Output>) {
        while let Some((deadline_ms, call)) = self.deadlines.first().copied()
            && deadline_ms <= now_ms
        {
            self.deadlines.remove(&(deadline_ms, call));
            let Some(place) = self.calls.remove(&call) else { continue };
            let is_sent = self.pending.get(&place.key).is_some_and(|pending| pending.calls.contains(&call));
            let error = if is_sent {
                self.give_up_pending(place.key, call)
            } else {
                self.give_up_waiting(place.key, call);
                CallError::NotSent(CallError::TIMED_OUT)
            };
            out.push(Output::Finished { call, outcome: Err(error) });
        }
    }

    /// When [`Ledger::tick`] has something to do.
    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        self.deadlines.first().map(|(deadline_ms, _)| *deadline_ms)
    }

    fn give_up_pending(&mut self, number: u64, call: CallId) -> CallError {
        let pending = self.pending.get_mut(&number);
        pending.into_iter().for_each(|pending| pending.calls.retain(|other| *other != call));
        let token = self.pending.get(&number).and_then(|pending| self.token(number, pending));
        if self.numbering == Numbering::Own && token.is_some() {
            self.tokens.insert(number);
        }
        CallError::OutcomeUnknown { why: Unknown::TimedOut, token }
    }

    fn give_up_waiting(&mut self, key: u64, call: CallId) {
        let Some(waiting) = self.waiting.get_mut(&key) else { return };
        waiting.calls.retain(|other| *other != call);
        if waiting.calls.is_empty() {
            self.waiting_bytes -= waiting.command.len();
            self.waiting.remove(&key);
        }
    }

    fn finish(&mut self, calls: Vec<CallId>, outcome: &Result<Blob, CallError>, out: &mut Vec<Output>) {
        for call in calls {
            if let Some(place) = self.calls.remove(&call) {
                self.deadlines.remove(&(place.deadline_ms, call));
                out.push(Output::Finished { call, outcome: outcome.clone() });
            }
        }
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
