//! The ordering core of Polder: PBFT, signed and pipelined, with hybrid quorums and view changes by certificate.
//!
//! This crate knows nothing of sockets, disks, clocks, threads or of what a command means. [`Core`] is one pure state
//! machine: `step(now, input, &mut outputs)`. The same inputs in the same order give the same outputs. It cannot fail:
//! what it cannot use it ignores, and counts why ([`Ignored`]).
//!
//! # The protocol on a page
//!
//! `n` replicas, of which at most `r` lie and at most `u` fail in any way; `q` are a quorum (R1, `polder_types::Quorum`).
//! The rules R1 to R42 are in `docs/protocol.md`; code cites them.
//!
//! 1. **Order.** The leader of view `v`, replica `v mod n`, packs waiting requests into batches and proposes each for the
//!    next slot: PRE-PREPARE. A replica that accepts it makes that durable and votes PREPARE; `q` of them are a *prepared
//!    certificate*, which it makes durable and votes COMMIT; `q` of those decide the slot. Decided batches are delivered
//!    in slot order, each once. With `r = 0` nobody equivocates: who accepts votes COMMIT at once.
//! 2. **Cut.** Every `I` slots the replicas sign the state's root; `q` equal statements make the cut *stable*, and the
//!    window `(h, h+L]` in which slots are voted on moves up to it, whatever has been executed here (R14).
//! 3. **Leave.** A replica that waits too long, or holds proof against the leader, signs a SUSPECT and goes on voting. `q`
//!    of them, `SC(v)`, end the view; nothing else does (R4, R6).
//! 4. **Enter.** With `SC(v)` in hand a replica makes its VIEW-CHANGE for `v+1` durable, which lists per slot what it
//!    prepared, and sends it. The new leader encloses `q` of them in a NEW-VIEW, and everyone computes from it, alike,
//!    what each open slot is forced to (R9, `new_view`).
//! 5. **Heal.** Every `τ` each replica shows what it has (STATUS), and the others send it what it lacks (R15).
//!
//! # How to drive a core
//!
//! Give inputs one at a time and carry out the outputs of each in their order, before the next input; inputs that an
//! output brings about queue behind them. [`Output::Persist`] is the only way out for a vote: its record is durable, and
//! all records before it, before its messages leave (R8), and the core hears its own votes by the same road as others'.
//! Messages of peers pass [`verify`] first, if [`Core::wants`] them. Forwarded requests are looked up like a client's own
//! and become [`Input::Request`]; given as messages they are ordered, but arm no deadline.
//!
//! # Where this differs from Castro and Liskov, and from a literal reading of the rules
//!
//! - A NEW-VIEW carries no PRE-PREPAREs: a forced slot is accepted by what everyone computes, so bodies travel only to
//!   those who lack them, and a record of it has no proposal.
//! - A view ends by a certificate of `q` SUSPECTs, not by `f+1` VIEW-CHANGEs (R4).
//! - Batches of one interval below `h` are kept for laggards: who misses a few at a cut pulls them, and transfers the
//!   state only when they are not to be had.
//! - The row that R6 takes regardless of the caps holds its request whole, one a client, under bounds of its own as large
//!   as the caps.
//! - A tail (R16) stands since its last slot with requests: under steady traffic nothing is filled.
//!
//! # Words
//!
//! *accepted*: voted for in a view · *prepared*, *decided*: a certificate is held, and the body · *forced*: fixed by a
//! NEW-VIEW · *fresh*: not forced · *delivered*: handed to execution · *pull*: ask peers for a body or a batch · *lag*: a
//! stable cut is above what was executed here · *term*: the current view and how it started.
#![no_std]
#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

extern crate alloc;
#[cfg(test)]
extern crate std;

/// Whether a planted bug is on. Without `--cfg polder_mutations` nothing of it is left.
#[cfg(polder_mutations)]
macro_rules! mutated {
    ($core:expr, $name:ident) => {
        $core.config.mutation == Some(crate::Mutation::$name)
    };
}
#[cfg(not(polder_mutations))]
macro_rules! mutated {
    ($core:expr, $name:ident) => {
        false
    };
}

/// The record to be written: itself, unless the planted bug of that name forgets to write it.
#[cfg(polder_mutations)]
macro_rules! written {
    ($core:expr, $name:ident, $record:expr) => {
        if mutated!($core, $name) { crate::Record::Volatile } else { $record }
    };
}
#[cfg(not(polder_mutations))]
macro_rules! written {
    ($core:expr, $name:ident, $record:expr) => {
        $record
    };
}

/// Marks a rare branch, for a test that demands that it is reached. Without `--cfg polder_mutations` nothing of it is left.
#[cfg(polder_mutations)]
macro_rules! mark {
    ($name:ident) => {
        crate::mark::hit(crate::mark::Mark::$name)
    };
    ($name:ident, $condition:expr) => {
        if $condition {
            crate::mark::hit(crate::mark::Mark::$name)
        }
    };
}
#[cfg(not(polder_mutations))]
macro_rules! mark {
    ($name:ident) => {};
    ($name:ident, $condition:expr) => {};
}

mod admission;
mod batching;
mod bodies;
mod catch_up;
mod check;
mod config;
mod core;
mod entering;
mod evidence;
mod ignored;
mod input;
mod lane;
#[cfg(polder_mutations)]
pub mod mark;
mod message;
#[cfg(polder_mutations)]
mod mutation;
mod new_view;
mod normal;
mod output;
mod peers;
#[cfg(polder_mutations)]
mod planted;
mod progress;
mod record;
mod recover;
mod requests;
mod stable;
mod status;
mod ticks;
mod verify;
mod view_change;
mod window;

pub use self::core::{Core, RecoveredLog};
pub use config::Config;
pub use evidence::{EVIDENCE_BYTES_MAX, Evidence, EvidenceKind, Misdeed, NotEvidence, verify_evidence};
pub use ignored::Ignored;
pub use input::{Input, Now, SessionWindow};
pub use message::{
    Abdicate, Entry, Fetch, Header, Kind, Message, NewView, Phase, Proposal, SlotStatus, Status as StatusMessage,
    Suspect, ViewChange, ViewChangeBody, Vote,
};
#[cfg(polder_mutations)]
pub use mutation::Mutation;
pub use output::{CommittedBatch, Output, Refusal, Ticket, To, Why};
pub use record::Record;
pub use status::Status;
pub use verify::{Authentic, BadMessage, Seen, VerifiedMessage, verify};
