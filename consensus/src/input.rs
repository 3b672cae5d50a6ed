//! What a core is given.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use polder_types::{
    Certificate, Checkpoint, ClientId, Digest, ReplicaId, Seq, SessionId, SignedRequest, Timestamp, Verified,
};

use crate::{Ticket, VerifiedMessage};

/// The two clocks: both are arguments, neither is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// A monotonic clock in milliseconds, for timers. Only ticks advance timers (R7).
    pub monotonic_ms: u64,
    /// The wall clock, for the times of batches (R27).
    pub wall: Timestamp,
}

/// What the front of the executor would let a session execute: numbers in `(ack, ack+W]` that are not decided (R26).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionWindow {
    /// Numbers up to this one are acknowledged: nothing at or below executes any more.
    pub ack: u64,
    /// The highest number that would execute now; 0 for a session that is not open here yet.
    pub high: u64,
}

/// What a core is given. Its driver gives it in one order, and keeps that order on replay.
#[derive(Clone, Debug)]
pub enum Input {
    /// A client's request, from the client itself. The driver has checked that it is not executed already (it would
    /// answer from the cache) and may still execute; `window` is its session's, none for an OPEN.
    Request {
        /// The request.
        request: Verified<SignedRequest>,
        /// The window of its session, at the last slot that the front has decided.
        window: Option<SessionWindow>,
    },
    /// A peer's message, or one of the own ones that [`crate::Output::Persist`] asked to send, after its record is
    /// durable: own votes take the road of others'.
    Message {
        /// From whose channel.
        from: ReplicaId,
        /// The message.
        message: Arc<VerifiedMessage>,
    },
    /// Time has passed. To be given every few milliseconds; each counts for at most `τ` (R7).
    Tick,
    /// A record that asked for it is durable, and all before it.
    Synced(Ticket),
    /// The planner has a certificate for a cut.
    Stable(Certificate<Checkpoint>),
    /// The executor has executed and the front decided up to this slot; `windows` are the sessions that changed,
    /// none for a session that is gone: its waiting requests never execute (R6).
    Executed {
        /// The slot.
        slot: Seq,
        /// The sessions that changed.
        windows: Vec<(ClientId, SessionId, Option<SessionWindow>)>,
    },
    /// State was transferred: execution goes on after this cut.
    Restored {
        /// The cut.
        certificate: Certificate<Checkpoint>,
    },
    /// Whether so many sessions are open, in the state as it was executed last, that the session clock must run by
    /// itself (R24). To be given whenever that has changed, at a start and after a transfer too; at first it need not.
    SessionClock {
        /// Whether it must.
        must_run: bool,
    },
    /// A request with this digest is answered from the cache, or can never execute: the executor says so. It waits no
    /// more.
    Settled {
        /// The digest of the request.
        request: Digest,
    },
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request { request, .. } => write!(f, "request {}", request.digest()),
            Self::Message { from, message } => write!(f, "{from}: {}", message.message()),
            Self::Tick => f.write_str("tick"),
            Self::Synced(ticket) => write!(f, "synced {ticket:?}"),
            Self::Stable(certificate) => write!(f, "stable {}", certificate.statement().seq),
            Self::Executed { slot, .. } => write!(f, "executed {slot}"),
            Self::Restored { certificate } => write!(f, "restored {}", certificate.statement().seq),
            Self::SessionClock { must_run } => {
                write!(f, "session clock {}", if *must_run { "must run" } else { "may stand" })
            }
            Self::Settled { request } => write!(f, "settled {request}"),
        }
    }
}
