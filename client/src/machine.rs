//! The client as a pure machine: no sockets, no clock, no randomness but what it is given. [`crate::Client`] drives it; it is
//! public for who brings a transport of their own, and for those who try to break it.
//!
//! ```text
//!            ┌────────────── StaleOpen ──────────────┐
//!            ▼                                       │
//! (start) Unopened ─ r+1 cuts known, commands wait ─▶ Opening ─ Opened ─▶ Open ─ NoSession ─▶ Unopened, or Gone
//!                                                                          │ close, nothing under way
//!                                                                          ▼
//!                                                                       Closing ─ Closed ─▶ Closed
//! ```
//!
//! *Gone* is where a session ends whose numbers the callers keep: another session would be another numbering.

use bytes::Bytes;
use polder_types::{
    Answer, Blob, Call, ClientFrame, ClientId, ClusterId, Constants, Failure, NodeFrame, Quorum, ReplicaId, Request,
    SessionId, SignedRequest, SigningKey, encode,
};

use crate::SessionState;
pub use crate::courier::Patience;
use crate::courier::{Courier, LetterId};
use crate::error::{CallError, Unknown};
pub use crate::ledger::{CallId, Numbering};
use crate::ledger::{Ledger, Packed};
use crate::matcher::{Matcher, Subject};
use crate::pace::Pace;
use crate::peers::Peers;

/// What a machine is made from.
pub struct Settings {
    /// The cluster: part of what is signed.
    pub cluster: ClusterId,
    /// Its quorums: how many equal answers are believed (R23).
    pub quorum: Quorum,
    /// The constants of the epoch.
    pub constants: Constants,
    /// The client's key.
    pub key: SigningKey,
    /// How patient it is.
    pub patience: Patience,
    /// Requests under way at once; at least 1.
    pub requests_in_flight_max: usize,
    /// Commands in a request; from 1 to [`Request::COMMANDS_MAX`].
    pub commands_per_request_max: usize,
    /// Draws the 128 random bits of an OPEN (R24).
    pub nonce: Box<dyn FnMut() -> [u8; 16] + Send>,
}

impl Settings {
    /// What a request takes beside its commands, at most: key, numbers, signature.
    const REQUEST_OVERHEAD_BYTES: usize = 256;

    /// The bytes of commands in a request, at most.
    fn commands_bytes_max(&self) -> usize {
        let request = usize::try_from(self.constants.request_bytes_max).unwrap_or(usize::MAX);
        request.saturating_sub(Self::REQUEST_OVERHEAD_BYTES)
    }
}

/// What happens to a machine. Time is in milliseconds since its start, and is given to `step`.
#[derive(Debug)]
pub enum Input {
    /// A caller wants a command executed.
    Submit {
        /// What its end is told by.
        call: CallId,
        /// The command's number, if callers number.
        number: Option<u64>,
        /// The command, encoded; at most [`Machine::command_bytes_max`] bytes.
        command: Blob,
        /// When the caller gives up, in the machine's time.
        deadline_ms: u64,
    },
    /// Callers have stored that everything up to this number was answered.
    Acknowledge(u64),
    /// No more commands come; the session is to be closed once nothing is under way.
    Close,
    /// There is a connection to a replica.
    Up(ReplicaId),
    /// The connection to a replica failed.
    Down(ReplicaId),
    /// A replica says something.
    Frame(ReplicaId, NodeFrame),
}

/// What a machine wants.
#[derive(Debug)]
pub enum Output {
    /// Send this to a replica; if it is lost, the machine sends again.
    Send {
        /// To whom.
        to: ReplicaId,
        /// A [`ClientFrame`], encoded.
        frame: Bytes,
    },
    /// The session is open.
    Opened(SessionId),
    /// The replicas refuse a session.
    Refused(Failure),
    /// A call has ended.
    Finished {
        /// Which.
        call: CallId,
        /// The reply, encoded, or what is known of the command.
        outcome: Result<Blob, CallError>,
    },
    /// The session is closed, or there is none, and nothing is under way.
    Closed,
}

#[derive(Debug)]
enum Session {
    /// None; opened when a cut is known and `wanted`.
    Unopened {
        wanted: bool,
    },
    Opening {
        subject: Subject,
        letter: LetterId,
    },
    Open(SessionId),
    /// Lost, and its numbers are the callers'.
    Gone,
    Closing {
        subject: Subject,
        letter: LetterId,
    },
    Closed,
}

/// See the module.
pub struct Machine {
    settings: Settings,
    numbering: Numbering,
    peers: Peers,
    matcher: Matcher,
    courier: Courier,
    ledger: Ledger,
    session: Session,
    closing: bool,
    /// When the session was last used, by the own clock.
    used_ms: u64,
    pace: Pace,
    /// When what waits is held back no longer.
    release_ms: Option<u64>,
}

impl Machine {
    /// A machine that opens a session at once.
    #[must_use]
    pub fn new(settings: Settings, numbering: Numbering) -> Self {
        Self::with(settings, numbering, Session::Unopened { wanted: true }, 0)
    }

    /// A machine that goes on with a session.
    #[must_use]
    pub fn resume(settings: Settings, session: SessionId, acknowledged: u64) -> Self {
        let mut machine = Self::with(settings, Numbering::Callers, Session::Open(session), acknowledged);
        machine.ledger.name(machine.state(session));
        machine
    }

    /// The session, as tokens name it.
    fn state(&self, session: SessionId) -> SessionState {
        let client = ClientId(self.settings.key.public());
        SessionState { cluster: self.settings.cluster, client, session, acknowledged: 0 }
    }

    fn with(settings: Settings, numbering: Numbering, session: Session, acknowledged: u64) -> Self {
        Self {
            numbering,
            peers: Peers::new(settings.quorum, &settings.constants),
            matcher: Matcher::new(settings.quorum),
            courier: Courier::new(settings.patience),
            ledger: Ledger::new(numbering, acknowledged, &settings.constants),
            session,
            closing: false,
            used_ms: 0,
            pace: Pace::default(),
            release_ms: None,
            settings,
        }
    }

    /// Takes one input. Several may be taken before [`Machine::flush`] sends what they lead to.
    pub fn step(&mut self, now_ms: u64, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Submit { call, number, command, deadline_ms } => {
                self.submit(call, number, command, deadline_ms, out);
            }
            Input::Acknowledge(number) => self.ledger.acknowledge(number),
            Input::Close => self.closing = true,
            Input::Up(replica) => self.up(replica, out),
            Input::Down(replica) => {
                self.peers.set_up(replica, false);
                self.courier.lost(replica, &self.peers, out);
            }
            Input::Frame(from, NodeFrame::At { view, cut, .. }) => self.peers.at(from, view, cut),
            Input::Frame(from, NodeFrame::Replies(replies)) => {
                for reply in replies {
                    if let Some((subject, answer)) = self.matcher.hear(from, reply) {
                        self.believe(now_ms, subject, answer, out);
                    }
                }
                tracing::trace!(replica = %from, ignored = self.matcher.ignored(), "replies");
            }
            Input::Frame(from, NodeFrame::Busy { request, retry_after_ms }) => {
                self.courier.busy(now_ms, from, request, retry_after_ms);
            }
            // Asked by operators only.
            Input::Frame(_, NodeFrame::Status(_)) => {}
        }
    }

    /// Sends what is due: repeats, an OPEN or CLOSE, and what waits, packed.
    pub fn flush(&mut self, now_ms: u64, out: &mut Vec<Output>) {
        self.ledger.tick(now_ms, out);
        if self.courier.tick(now_ms, &self.peers, out) {
            self.peers.leader_is_late(now_ms);
        }
        self.renew_idle_session(now_ms);
        self.open(now_ms, out);
        self.pack(now_ms, out);
        self.close(now_ms, out);
    }

    /// When [`Machine::flush`] has something to do even if nothing comes in.
    #[must_use]
    pub fn deadline_ms(&self) -> Option<u64> {
        [self.ledger.deadline_ms(), self.courier.deadline_ms(), self.release_ms].into_iter().flatten().min()
    }

    /// Whether more commands may be submitted; else callers wait.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.ledger.has_room()
    }

    /// The largest command that fits into a request.
    #[must_use]
    pub fn command_bytes_max(&self) -> usize {
        self.settings.commands_bytes_max().saturating_sub(crate::ledger::COMMAND_OVERHEAD_BYTES)
    }

    /// How many replicas there are connections to.
    #[must_use]
    pub fn up_count(&self) -> usize {
        self.peers.up_count()
    }

    /// Ends every call: the machine is about to be dropped.
    pub fn abandon(&mut self, out: &mut Vec<Output>) {
        self.ledger.refuse_waiting(&CallError::NotSent(CallError::CLOSED), out);
        self.ledger.end_pending(Unknown::Closed, out);
    }

    fn submit(&mut self, call: CallId, number: Option<u64>, command: Blob, deadline_ms: u64, out: &mut Vec<Output>) {
        let error = match self.session {
            Session::Gone => Some(CallError::unknown(Unknown::SessionGone)),
            _ if self.closing => Some(CallError::NotSent(CallError::CLOSED)),
            _ => None,
        };
        if let Some(error) = error {
            return out.push(Output::Finished { call, outcome: Err(error) });
        }
        self.pace.submitted();
        if let Session::Unopened { wanted } = &mut self.session {
            *wanted = true;
        }
        match (self.numbering, number) {
            (Numbering::Callers, Some(number)) => {
                self.ledger.submit_numbered(call, number, command, deadline_ms, out);
            }
            // The public types give a number exactly when callers number.
            _ => self.ledger.submit(call, command, deadline_ms),
        }
    }

    fn up(&mut self, replica: ReplicaId, out: &mut Vec<Output>) {
        self.peers.set_up(replica, true);
        if let Session::Open(session) | Session::Closing { subject: Subject { session: Some(session), .. }, .. } =
            self.session
        {
            attach(session, replica, out);
        }
        self.courier.found(replica, out);
    }

    /// An answer that `r+1` replicas give.
    fn believe(&mut self, now_ms: u64, subject: Subject, answer: Answer, out: &mut Vec<Output>) {
        match self.session {
            Session::Opening { subject: open, letter } if open == subject => {
                self.courier.answered(letter);
                self.opened(now_ms, answer, out);
            }
            Session::Closing { subject: close, letter } if close == subject => {
                self.courier.answered(letter);
                self.session = Session::Closed;
                out.push(Output::Closed);
            }
            Session::Open(session) if subject.session == Some(session) => {
                self.used_ms = now_ms;
                if answer == Answer::Failed(Failure::NoSession) {
                    self.session_gone(out);
                } else if answer == Answer::Failed(Failure::NoRoom) {
                    // No answer to the call: it may yet be executed, and is sent again.
                    let letter = self.ledger.no_room(now_ms, subject.number);
                    letter.into_iter().for_each(|letter| self.courier.answered(letter));
                } else {
                    let before = out.len();
                    let letter = self.ledger.answered(subject.number, &outcome(answer), out);
                    self.pace.answered(now_ms, out.len() - before);
                    letter.into_iter().for_each(|letter| self.courier.answered(letter));
                }
            }
            _ => {}
        }
    }

    fn opened(&mut self, now_ms: u64, answer: Answer, out: &mut Vec<Output>) {
        match answer {
            Answer::Opened(session) => {
                tracing::debug!(%session, "the session is open");
                self.used_ms = now_ms;
                self.session = Session::Open(session);
                self.ledger.renumber();
                self.ledger.name(self.state(session));
                for replica in self.peers.all().filter(|replica| self.peers.is_up(*replica)) {
                    attach(session, replica, out);
                }
                out.push(Output::Opened(session));
            }
            Answer::Failed(Failure::StaleOpen) => {
                // It was long under way. The cuts of then are too old, so ask for new ones; the next OPEN is another
                // request, with its own nonce (R24).
                self.session = Session::Unopened { wanted: true };
                self.peers.forget_cuts();
                self.courier.ask_where(now_ms, &self.peers, out);
            }
            Answer::Failed(failure) => {
                self.session = Session::Unopened { wanted: false };
                self.ledger.refuse_waiting(&CallError::Rejected(failure), out);
                out.push(Output::Refused(failure));
            }
            Answer::Closed | Answer::Done(_) => self.session = Session::Unopened { wanted: true },
        }
    }

    /// R27: whether what was under way was executed is unknown, and it is never sent under another session. What
    /// waits was never sent: the next session takes it.
    fn session_gone(&mut self, out: &mut Vec<Output>) {
        let Session::Open(session) = self.session else { return };
        tracing::warn!(%session, "the session has expired or was closed by a newer one");
        self.courier.forget_all();
        for (number, command) in self.ledger.session_gone(out) {
            self.matcher.forget(&Subject { session: Some(session), number, command });
        }
        self.session = match self.numbering {
            Numbering::Own => Session::Unopened { wanted: self.ledger.has_waiting() },
            Numbering::Callers => {
                self.ledger.refuse_waiting(&CallError::unknown(Unknown::SessionGone), out);
                Session::Gone
            }
        };
    }

    /// A session that nothing was sent in for long may expire under the next command, whose outcome would then be
    /// unknown for nothing: another one is opened for it.
    fn renew_idle_session(&mut self, now_ms: u64) {
        let idle_ms = now_ms.saturating_sub(self.used_ms);
        let is_old = idle_ms >= self.settings.constants.session_expiry_ms / 2;
        let is_idle = self.ledger.has_waiting() && !self.ledger.has_pending();
        if is_old && is_idle && self.numbering == Numbering::Own && matches!(self.session, Session::Open(_)) {
            self.session = Session::Unopened { wanted: true };
        }
    }

    fn open(&mut self, now_ms: u64, out: &mut Vec<Output>) {
        if !matches!(self.session, Session::Unopened { wanted: true }) || self.closing && !self.ledger.has_waiting() {
            return;
        }
        let Some(cut) = self.peers.cut() else { return };
        let nonce = (self.settings.nonce)();
        let request = self.sign(Call::Open { nonce, cut });
        let subject = Subject { session: None, number: 0, command: request.digest() };
        self.matcher.expect(subject);
        let letter = self.courier.post(now_ms, request, &self.peers, out);
        self.session = Session::Opening { subject, letter };
    }

    fn pack(&mut self, now_ms: u64, out: &mut Vec<Output>) {
        self.release_ms = None;
        let Session::Open(session) = self.session else { return };
        let bytes_max = self.settings.commands_bytes_max();
        let commands_max = self.settings.commands_per_request_max;
        while self.ledger.letters() < self.settings.requests_in_flight_max {
            if !self.ledger.has_refused()
                && !self.ledger.fills_a_request(commands_max, bytes_max)
                && self.pace.holds_back(now_ms, self.ledger.waiting(), self.ledger.pending())
            {
                self.release_ms = self.pace.release_ms();
                return;
            }
            let letter = self.courier.next_letter();
            let packed = self.ledger.pack(now_ms, commands_max, bytes_max, letter);
            let Some(Packed { ack, first, commands }) = packed else {
                self.release_ms = self.ledger.again_ms();
                return;
            };
            for number in (first..).take(commands.len()) {
                if let Some(command) = self.ledger.digest(number) {
                    self.matcher.expect(Subject { session: Some(session), number, command });
                }
            }
            self.pace.sent();
            self.used_ms = now_ms;
            let request = self.sign(Call::Commands { session, ack, first, commands });
            self.courier.post(now_ms, request, &self.peers, out);
        }
    }

    fn close(&mut self, now_ms: u64, out: &mut Vec<Output>) {
        if !self.closing || !self.ledger.is_empty() {
            return;
        }
        match self.session {
            // What a token asks for is forgotten with the session, which expires if nobody closes it.
            Session::Open(_) if self.ledger.has_tokens() => {
                self.session = Session::Closed;
                out.push(Output::Closed);
            }
            Session::Open(session) => {
                let request = self.sign(Call::Close { session });
                let subject = Subject { session: Some(session), number: 0, command: request.digest() };
                self.matcher.expect(subject);
                let letter = self.courier.post(now_ms, request, &self.peers, out);
                self.session = Session::Closing { subject, letter };
            }
            Session::Unopened { .. } | Session::Gone => {
                self.session = Session::Closed;
                out.push(Output::Closed);
            }
            // An OPEN under way may yet be executed: its session is closed once it is known.
            Session::Opening { .. } | Session::Closing { .. } | Session::Closed => {}
        }
    }

    fn sign(&self, call: Call) -> SignedRequest {
        let client = ClientId(self.settings.key.public());
        Request { client, call }.sign(self.settings.cluster, &self.settings.key)
    }
}

/// Tells a replica that the session's replies are to come here.
fn attach(session: SessionId, to: ReplicaId, out: &mut Vec<Output>) {
    out.push(Output::Send { to, frame: Bytes::from(encode(&ClientFrame::Attach(session))) });
}

/// What an answer means to who called.
fn outcome(answer: Answer) -> Result<Blob, CallError> {
    match answer {
        Answer::Done(reply) => Ok(reply),
        Answer::Failed(Failure::OutsideWindow) => Err(CallError::unknown(Unknown::Acknowledged)),
        Answer::Failed(Failure::ReplyNotKept) => Err(CallError::unknown(Unknown::ReplyNotKept)),
        Answer::Failed(failure) if failure.is_rejection() => Err(CallError::Rejected(failure)),
        Answer::Failed(_) => Err(CallError::unknown(Unknown::SessionGone)),
        // Not what is answered to a command.
        Answer::Opened(_) | Answer::Closed => Err(CallError::BadReply),
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
