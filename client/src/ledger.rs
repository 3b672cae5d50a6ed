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
            && (is_full || self.next.saturating_sub(number) > self.window / 2)
        {
            self.tokens.pop_first();
        }
        if is_full || self.tokens.is_empty() {
            self.kept_bytes = 0;
        }
    }

    /// Takes what goes into the next request: consecutive numbers within the window, so many commands and bytes at
    /// most. A command that is larger than `bytes_max` alone is never submitted.
    pub(crate) fn pack(&mut self, commands_max: usize, bytes_max: usize, letter: LetterId) -> Option<Packed> {
        self.give_up_tokens();
        let ack = self.ack();
        let last = ack.saturating_add(self.window);
        let key = self.waiting.keys().next().copied()?;
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
        self.finish(pending.calls, outcome, out);
        let numbers = self.letters.get_mut(&pending.letter)?;
        numbers.remove(&number);
        if !numbers.is_empty() {
            return None;
        }
        self.letters.remove(&pending.letter);
        Some(pending.letter)
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
mod tests {
    use polder_types::{ClientId, ClusterId, PublicKey, SessionId};

    use super::*;

    fn command(fill: u8) -> Blob {
        Blob::copy(&[fill; 10])
    }

    fn constants(session_window: u64) -> Constants {
        Constants { session_window, reply_cache_per_session_bytes_max: 4 * 25, ..Constants::default() }
    }

    fn state() -> SessionState {
        SessionState {
            cluster: ClusterId(Digest([1; 32])),
            client: ClientId(PublicKey([2; 32])),
            session: SessionId::default(),
            acknowledged: 0,
        }
    }

    fn own(window: u64, commands: u64) -> Ledger {
        let mut ledger = Ledger::new(Numbering::Own, 0, &constants(window));
        ledger.name(state());
        (0..commands).for_each(|call| ledger.submit(call, command(call as u8), 1_000));
        ledger
    }

    fn numbers(packed: Option<Packed>) -> Option<(u64, u64, usize)> {
        packed.map(|packed| (packed.ack, packed.first, packed.commands.len()))
    }

    fn answer(ledger: &mut Ledger, number: u64) -> (Vec<Output>, Option<LetterId>) {
        let mut out = Vec::new();
        let letter = ledger.answered(number, &Ok(command(9)), &mut out);
        (out, letter)
    }

    #[test]
    fn commands_are_packed_in_order_up_to_the_limits() {
        let mut ledger = own(1_000, 10);
        assert_eq!(numbers(ledger.pack(4, 1_000, 0)), Some((0, 1, 4)));
        // 15 bytes a command.
        assert_eq!(numbers(ledger.pack(100, 30, 1)), Some((0, 5, 2)));
        assert_eq!(numbers(ledger.pack(100, 1_000, 2)), Some((0, 7, 4)));
        assert_eq!(ledger.pack(100, 1_000, 3), None);
        assert_eq!(ledger.letters(), 3);
    }

    #[test]
    fn r25_the_window_holds_until_the_lowest_is_answered() {
        let mut ledger = own(3, 3);
        ledger.submit(3, command(3), 1_000);
        assert_eq!(numbers(ledger.pack(100, 1_000, 0)), Some((0, 1, 3)));
        assert_eq!(ledger.pack(100, 1_000, 1), None);
        answer(&mut ledger, 2);
        assert_eq!(ledger.pack(100, 1_000, 1), None);
        answer(&mut ledger, 1);
        assert_eq!(numbers(ledger.pack(100, 1_000, 1)), Some((2, 4, 1)));
    }

    #[test]
    fn a_request_is_answered_when_all_its_commands_are() {
        let mut ledger = own(10, 2);
        ledger.pack(100, 1_000, 7);
        assert_eq!(answer(&mut ledger, 2).1, None);
        let (out, letter) = answer(&mut ledger, 1);
        assert_eq!(letter, Some(7));
        assert!(matches!(out[..], [Output::Finished { call: 0, outcome: Ok(_) }]));
        assert!(ledger.is_empty());
        assert_eq!(ledger.ack(), 2);
        // A late copy of the reply.
        assert_eq!(answer(&mut ledger, 1).1, None);
    }

    #[test]
    fn time_is_up_before_and_after_sending() {
        let mut ledger = own(1, 2);
        ledger.pack(100, 1_000, 0);
        let mut out = Vec::new();
        ledger.tick(999, &mut out);
        assert!(out.is_empty());
        ledger.tick(1_000, &mut out);
        let token = Some(Token::new(state(), 1, command(0)));
        let unknown = CallError::OutcomeUnknown { why: Unknown::TimedOut, token };
        let not_sent = CallError::NotSent(CallError::TIMED_OUT);
        assert!(matches!(&out[..], [
            Output::Finished { call: 0, outcome: Err(first) },
            Output::Finished { call: 1, outcome: Err(second) },
        ] if *first == unknown && *second == not_sent));
        // The first stays under way, and blocks the acknowledgement; the second is gone.
        assert!(ledger.has_pending());
        assert!(!ledger.has_waiting());
        assert_eq!(ledger.ack(), 0);
        assert_eq!(answer(&mut ledger, 1).1, Some(0));
        // Whoever has the token may still ask.
        assert_eq!(ledger.ack(), 0);
    }

    #[test]
    fn r25_what_a_token_asks_for_is_kept_while_later_commands_have_room() {
        let mut ledger = own(8, 1);
        ledger.pack(1, 1_000, 0);
        ledger.tick(1_000, &mut Vec::new());
        answer(&mut ledger, 1);
        assert!(ledger.has_tokens());
        for number in 2..=6 {
            ledger.submit(number, command(1), 2_000);
            // By numbers: half a window.
            let ack = if number < 6 { 0 } else { number - 1 };
            assert_eq!(numbers(ledger.pack(1, 1_000, number)), Some((ack, number, 1)));
            let mut out = Vec::new();
            ledger.answered(number, &Ok(Blob::default()), &mut out);
        }
        assert!(!ledger.has_tokens());
        assert_eq!(ledger.ack(), 6);
    }

    #[test]
    fn r25_what_a_token_asks_for_is_kept_while_there_is_room_for_later_replies() {
        let mut ledger = own(1_000, 1);
        ledger.pack(1, 1_000, 0);
        ledger.tick(1_000, &mut Vec::new());
        answer(&mut ledger, 1);
        // Ten bytes a reply, the first included; 25 are kept.
        for (number, ack) in [(2, 0), (3, 0), (4, 3)] {
            ledger.submit(number, command(1), 2_000);
            assert_eq!(numbers(ledger.pack(1, 1_000, number)), Some((ack, number, 1)));
            answer(&mut ledger, number);
        }
        assert!(!ledger.has_tokens());
    }

    /// Its window begins where that request said, not where an earlier one did.
    #[test]
    fn a_token_says_what_its_request_acknowledged() {
        let mut ledger = own(10, 1);
        ledger.pack(1, 1_000, 0);
        answer(&mut ledger, 1);
        ledger.submit(7, command(7), 2_000);
        ledger.pack(1, 1_000, 1);
        let mut out = Vec::new();
        ledger.end_pending(Unknown::Closed, &mut out);
        let token = Some(Token::new(SessionState { acknowledged: 1, ..state() }, 2, command(7)));
        let expected = CallError::OutcomeUnknown { why: Unknown::Closed, token };
        assert!(matches!(&out[..], [Output::Finished { call: 7, outcome: Err(error) }] if *error == expected));
    }

    #[test]
    fn numbered_commands_are_packed_in_runs() {
        let mut ledger = Ledger::new(Numbering::Callers, 10, &constants(100));
        let mut out = Vec::new();
        for (call, number) in [(0, 15), (1, 12), (2, 11)] {
            ledger.submit_numbered(call, number, command(number as u8), 1_000, &mut out);
        }
        assert_eq!(numbers(ledger.pack(100, 1_000, 0)), Some((10, 11, 2)));
        assert_eq!(numbers(ledger.pack(100, 1_000, 1)), Some((10, 15, 1)));
        assert!(out.is_empty());
        // Not beyond what is under way.
        ledger.acknowledge(20);
        assert_eq!(ledger.ack(), 10);
        answer(&mut ledger, 11);
        ledger.acknowledge(20);
        assert_eq!(ledger.ack(), 11);
    }

    #[test]
    fn numbered_commands_outside_the_window_or_reused_are_refused_here() {
        let mut ledger = Ledger::new(Numbering::Callers, 10, &constants(5));
        let mut out = Vec::new();
        ledger.submit_numbered(0, 10, command(1), 1_000, &mut out);
        ledger.submit_numbered(1, 16, command(1), 1_000, &mut out);
        ledger.submit_numbered(2, 11, command(1), 1_000, &mut out);
        ledger.submit_numbered(3, 11, command(2), 1_000, &mut out);
        ledger.pack(100, 1_000, 0);
        ledger.submit_numbered(4, 11, command(2), 1_000, &mut out);
        let errors: Vec<_> = out
            .iter()
            .filter_map(|output| match output {
                Output::Finished { call, outcome: Err(error) } => Some((*call, error.clone())),
                _ => None,
            })
            .collect();
        let in_use = CallError::NotSent(CallError::NUMBER_IN_USE);
        assert_eq!(
            errors,
            [
                (0, CallError::unknown(Unknown::Acknowledged)),
                (1, CallError::NotSent(CallError::BEYOND_WINDOW)),
                (3, in_use.clone()),
                (4, in_use),
            ]
        );
        // The same command again shares the answer.
        ledger.submit_numbered(5, 11, command(1), 1_000, &mut out);
        assert_eq!(answer(&mut ledger, 11).0.len(), 2);
    }

    #[test]
    fn r27_when_the_session_is_gone_what_was_sent_is_unknown_and_what_waits_stays() {
        let mut ledger = own(2, 3);
        ledger.pack(100, 1_000, 0);
        let mut out = Vec::new();
        assert_eq!(ledger.session_gone(&mut out).len(), 2);
        let unknown = CallError::unknown(Unknown::SessionGone);
        assert_eq!(out.len(), 2);
        assert!(out.iter().all(|output| matches!(output, Output::Finished { outcome: Err(e), .. } if *e == unknown)));
        ledger.renumber();
        assert_eq!(numbers(ledger.pack(100, 1_000, 1)), Some((0, 1, 1)));
    }
}
