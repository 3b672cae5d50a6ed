//! The replica: one pure machine that owns the ordering core, the planner, the state transfer and the executor, and
//! decides the order of everything that leaves.
//!
//! It knows nothing of sockets, disks, clocks or threads: [`Replica::step`] takes an [`Event`] and asks for
//! [`Action`]s. The event loop and the simulator drive this very type.
//!
//! ```text
//!   peers, clients ─Event▶ core ─Persist▶ log ─Written▶ votes to all, and back to the core
//!                            └─Deliver▶ executor ─▶ replies, effects; at a cut: freeze ─Digested▶ planner ─▶ CHECKPOINT
//! ```
//!
//! - Own votes come back by the same road as others': after their record is durable ([`log`]).
//! - Nothing is signed or sent before others have confirmed that nothing was forgotten ([`memory`], R18), and before all
//!   that the log held at the start is durable and counted by the mark.
//! - A replica that fell behind the truncated log fetches the certified state ([`catch_up`], R14, C12).

/// Whether a planted bug is on. Without `--cfg polder_mutations` nothing of it is left.
#[cfg(polder_mutations)]
macro_rules! mutated {
    ($replica:expr, $name:ident) => {
        $replica.mutation == Some(polder_consensus::Mutation::$name)
    };
}
#[cfg(not(polder_mutations))]
macro_rules! mutated {
    ($replica:expr, $name:ident) => {
        false
    };
}

/// Marks a rare branch, for a test that demands that it is reached. Without `--cfg polder_mutations` nothing of it is left.
#[cfg(polder_mutations)]
macro_rules! mark {
    ($name:ident) => {
        polder_consensus::mark::hit(polder_consensus::mark::Mark::$name)
    };
}
#[cfg(not(polder_mutations))]
macro_rules! mark {
    ($name:ident) => {};
}

mod catch_up;
mod copies;
mod cuts;
mod event;
mod execution;
mod log;
mod memory;
mod message;
mod open;
mod status;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use polder_checkpoint::{Planner, Writes, planner, transfer};
use polder_consensus::{Core, Header, Input, Message, Now, Output, To};
use polder_executor::{Executor, Service};
use polder_types::{Constants, Digest, Keyring, NodeFrame, ReplicaId, Seq, SigningKey, Verified};

pub use event::{Action, Disk, Event};
pub use message::{Lane, Mark, PeerMessage, VerifiedPeer, verify_peer};
pub use open::{OpenError, ReplicaConfig, Start};
pub use status::{Phase, ReplicaStatus};

use catch_up::CatchUp;
use copies::Copies;
use cuts::{Digesting, Diverged, Statements};
use log::{Entry, Log, Then};
use memory::Memory;

/// After how long a client that was told `Busy` should try again.
const RETRY_AFTER_MS: u32 = 50;

/// The same, where space on the disk must be made first.
const RETRY_WITH_SPACE_AFTER_MS: u32 = 1_000;

/// One replica, as a pure machine. See the [module](self).
pub struct Replica<S: Service> {
    me: ReplicaId,
    key: SigningKey,
    keyring: Keyring,
    constants: Constants,
    config_digest: Digest,
    service: Arc<S>,
    genesis: Arc<polder_types::Genesis>,
    core: Core,
    executor: Executor<S>,
    copies: Copies,
    planner: Planner,
    catch_up: CatchUp,
    serve: transfer::Serve,
    log: Log,
    memory: Memory,
    /// How far the own log is durable: beside all that is said (R18).
    mark: Mark,
    /// What the core was told last of the session clock (R24).
    session_clock_must_run: bool,
    /// What the core is still to be given, in order.
    queue: VecDeque<Input>,
    /// What the core asked for at its start, held back until the replica may speak; none once it does (R18).
    held_back: Option<Vec<Output>>,
    /// Writes for the state store that this step gathered, and the number of the next.
    state_writes: Writes,
    state_ticket: u64,
    /// Which cut's frontier and certificate are durable once a state write is done.
    frontiers: BTreeMap<u64, Seq>,
    /// Cuts that are frozen and not digested yet.
    digesting: Digesting,
    history: Digest,
    statements: Statements,
    images_in_flight: bool,
    diverged: Option<Diverged>,
    /// Whether little space is left on the disk (C10).
    is_space_low: bool,
    since_status_ms: u64,
    last_tick_ms: u64,
    halted: Option<Arc<str>>,
    /// The planted bug, if any: only in the simulator's build for them.
    #[cfg(polder_mutations)]
    mutation: Option<polder_consensus::Mutation>,
}

impl<S: Service> Replica<S> {
    /// Gives the replica one event, and takes what it asks for. Never fails: what it cannot use it ignores and counts.
    pub fn step(&mut self, now: Now, event: Event, out: &mut Vec<Action>) {
        if self.halted.is_some() {
            return;
        }
        match event {
            Event::Tick => self.tick(now, out),
            Event::Peer { from, message } => self.peer(from, message, out),
            Event::Request(request) => {
                if self.has_begun() {
                    self.request(request, out);
                }
            }
            Event::Written { disk: Disk::Log, ticket } => {
                let released = self.log.written(ticket);
                let durable_rows = self.log.durable_rows();
                #[cfg(polder_mutations)]
                let durable_rows = durable_rows.map(|rows| self.rows_to_mark(rows));
                if let Some(rows) = durable_rows.filter(|rows| *rows > self.mark.rows) {
                    self.mark = self.memory.mark(rows, &self.key);
                }
                self.begin(out);
                released.into_iter().for_each(|then| self.durable(then, out));
            }
            Event::Written { disk: Disk::State, ticket } => self.state_written(ticket, out),
            Event::Digested { frozen } => self.digested(frozen, out),
            Event::ImagesWritten { cut } => self.images_written(cut, out),
            Event::BaseInstalled { cut } => self.base_installed(cut, out),
            Event::Space { is_low } => {
                self.is_space_low = is_low;
                self.plan(planner::Input::Space { is_low }, out);
            }
        }
        self.run(now, out);
        self.flush(out);
    }

    /// Whether the replica can still use such a message: to be asked before its signatures are checked.
    #[must_use]
    pub fn wants(&self, header: &Header) -> bool {
        self.has_begun() && self.core.wants(header)
    }

    /// Asserts the invariants of the core and of the glue; for tests and simulations, after every step.
    ///
    /// # Panics
    ///
    /// When one is broken, which is a bug.
    pub fn check(&self) {
        self.core.check();
        self.planner.check();
        assert!(
            self.core.status().executed <= self.core.status().delivered,
            "nothing is executed before it is decided"
        );
        // A state is installed only above what is executed, so that batches which come meanwhile are held in order.
        let is_in_step = !self.has_begun() || self.catch_up.installing().is_some() || self.halted.is_some();
        assert!(
            is_in_step || self.core.status().delivered == self.executor.executed(),
            "what is decided in order is executed"
        );
        assert!(
            self.digesting.len() as u64 <= 2 * self.constants.window_slots / self.constants.interval_slots + 1,
            "cuts in digestion are bounded"
        );
    }

    /// Gives the core its inputs until there are none, and does what it asks for.
    fn run(&mut self, now: Now, out: &mut Vec<Action>) {
        if !self.has_begun() {
            return;
        }
        let mut outputs = Vec::new();
        while let Some(input) = self.queue.pop_front() {
            self.core.step(now, input, &mut outputs);
            for output in outputs.drain(..) {
                self.carry_out(output, out);
            }
        }
    }

    fn carry_out(&mut self, output: Output, out: &mut Vec<Action>) {
        if self.halted.is_some() {
            return;
        }
        match output {
            Output::Persist { record, then, ticket } => {
                let votes = (!then.is_empty()).then_some(Then::Votes(then));
                let then = votes.into_iter().chain(ticket.map(Then::Ticket)).collect();
                self.log.append(Entry::Ordering(record), then);
            }
            Output::Send { to, message } => {
                // A request on its way to the leader: what this replica's own executor can answer, or says can never
                // execute, is forwarded no more and arms no more (R6).
                if let Message::Request(request) = message.message()
                    && self.is_settled(request)
                {
                    mark!(SettledWhileWaiting);
                    self.queue.push_back(Input::Settled { request: request.digest() });
                    return;
                }
                out.push(Action::Send { to, message: VerifiedPeer::Ordering(message, self.mark) });
            }
            Output::Deliver(batch) => self.deliver(&batch, out),
            Output::Certified(certificate) => self.certified(certificate, out),
            Output::FellBehind(certificate) => self.fell_behind(certificate, out),
            Output::Refused { client, request, .. } => {
                out.push(Action::Reply { client, frame: NodeFrame::Busy { request, retry_after_ms: RETRY_AFTER_MS } });
            }
            Output::Misbehaviour(evidence) => out.push(Action::Evidence(evidence)),
            Output::Misled(by) => out.push(Action::Misled(by)),
            Output::Halt(why) => self.halt(why.to_string(), out),
        }
    }

    fn peer(&mut self, from: ReplicaId, message: VerifiedPeer, out: &mut Vec<Action>) {
        match message {
            VerifiedPeer::MemoryAsk { nonce } => {
                out.push(Action::Send { to: To::One(from), message: self.memory.answer(from, nonce) });
            }
            VerifiedPeer::Memory { nonce, mark } => match self.memory.answered(from, nonce, &mark, &self.key) {
                Ok(()) => self.begin(out),
                #[cfg(polder_mutations)]
                Err(_) if mutated!(self, WipedVotesAtOnce) => self.forgive(out),
                Err(what) => self.halt(
                    format!(
                        "this data folder has lost memory (R18): {what}. Restore the newest copy of the folder, or \
                         replace this replica; it must not vote from this one"
                    ),
                    out,
                ),
            },
            // Before it begins nothing may be signed, so nothing is taken up: STATUS restores it (R15).
            _ if !self.has_begun() => {}
            VerifiedPeer::Ordering(message, mark) => {
                self.memory.note(from, mark);
                self.ordering(from, message, out);
            }
            VerifiedPeer::Checkpoint(signed, mark) => {
                self.memory.note(from, mark);
                self.checkpoint_vote(signed, out);
            }
            VerifiedPeer::Transfer(message) => self.transfer(from, &message, out),
        }
    }

    fn ordering(&mut self, from: ReplicaId, message: Arc<polder_consensus::VerifiedMessage>, out: &mut Vec<Action>) {
        // A forwarded request is answered from the cache, or ordered, like one that came from the client itself.
        let forwarded = Verified::carried(message.verified(), |message| match message {
            Message::Request(request) => Some(request),
            _ => None,
        });
        match forwarded {
            Some(request) => self.request(request, out),
            None => self.queue.push_back(Input::Message { from, message }),
        }
    }

    /// A record is durable: what waited for it leaves now, own votes by the same road as others'.
    fn durable(&mut self, then: Then, out: &mut Vec<Action>) {
        match then {
            Then::Votes(votes) => {
                for message in votes {
                    let to_all = VerifiedPeer::Ordering(message.clone(), self.mark);
                    out.push(Action::Send { to: To::All, message: to_all });
                    self.queue.push_back(Input::Message { from: self.me, message });
                }
            }
            Then::Ticket(ticket) => self.queue.push_back(Input::Synced(ticket)),
            Then::Checkpoint(signed) => self.statement_durable(signed, out),
        }
    }

    fn tick(&mut self, now: Now, out: &mut Vec<Action>) {
        let elapsed = now.monotonic_ms.saturating_sub(self.last_tick_ms).min(self.constants.status_period_ms);
        self.last_tick_ms = now.monotonic_ms;
        self.since_status_ms += elapsed;
        self.copies.tick();
        let is_due = self.since_status_ms >= self.constants.status_period_ms;
        if is_due {
            self.since_status_ms = 0;
        }
        self.memory.tick(elapsed);
        self.begin(out);
        if is_due {
            // For as long as it runs: proof of lost memory counts at any time (R18).
            for silent in self.memory.silent() {
                out.push(Action::Send { to: To::One(silent), message: self.memory.question() });
            }
        }
        if !self.has_begun() {
            return;
        }
        if is_due {
            self.resend_statements(out);
            if self.memory.has_changed() {
                // What others said last is remembered also when nothing more is said (R18).
                self.memory.write_changed(&mut self.log);
                self.log.sync();
            }
        }
        self.transfer_tick(out);
        self.divergence_tick(elapsed, out);
        self.queue.push_back(Input::Tick);
    }

    /// Whether it signs and sends: its memory is proven.
    fn has_begun(&self) -> bool {
        self.held_back.is_none()
    }

    /// What the core asked for at its start leaves once the memory is proven and the log of before is durable and in the
    /// mark: what is said again out of that log must be remembered like what is said for the first time (R8, R18).
    fn begin(&mut self, out: &mut Vec<Action>) {
        if !self.memory.is_proven() || self.log.durable_rows().is_none() {
            return;
        }
        for output in self.held_back.take().unwrap_or_default() {
            self.carry_out(output, out);
        }
    }

    /// Planted: rows of before the start do not count.
    #[cfg(polder_mutations)]
    fn rows_to_mark(&self, rows: u64) -> u64 {
        if mutated!(self, MarkStartsAtZero) { self.memory.rows_since_start(rows) } else { rows }
    }

    /// Planted: whatever others have heard, it begins.
    #[cfg(polder_mutations)]
    fn forgive(&mut self, out: &mut Vec<Action>) {
        self.memory.forgive();
        self.begin(out);
    }

    fn flush(&mut self, out: &mut Vec<Action>) {
        if self.log.has_writes() {
            // What was heard last must become durable: it never rides with a write that is not synced (R18).
            if self.log.will_sync() {
                self.memory.write_changed(&mut self.log);
            }
            self.log.flush(out);
        }
        self.flush_state(polder_checkpoint::Durability::Lazy, out);
    }

    /// Stops for good.
    fn halt(&mut self, why: String, out: &mut Vec<Action>) {
        let why: Arc<str> = why.into();
        self.halted = Some(why.clone());
        out.push(Action::Halt(why));
    }
}
