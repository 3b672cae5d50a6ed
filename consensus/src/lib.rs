//! The ordering core of Polder: PBFT, signed and pipelined, with hybrid quorums and view changes by certificate.
//!
//! This crate knows nothing of sockets, disks, clocks, threads or of what a command means. [`Core`] is one pure state
//! machine: `step(now, input, &mut outputs)`. The same inputs in the same order give the same outputs. It cannot fail:
//! what it cannot use it ignores, and counts why ([`Ignored`]).
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
mod message;
#[cfg(polder_mutations)]
mod mutation;
mod new_view;
mod normal;
mod output;
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
pub use ignored::Ignored;
pub use input::{Input, Now, SessionWindow};
pub use message::{
    Abdicate, Entry, Fetch, Header, Kind, Message, NewView, Phase, Proposal, SlotStatus, Status as StatusMessage,
    Suspect, ViewChange, ViewChangeBody, Vote,
};
#[cfg(polder_mutations)]
pub use mutation::Mutation;
pub use output::{CommittedBatch, Evidence, Output, Refusal, Ticket, To, Why};
pub use record::Record;
pub use status::Status;
pub use verify::{Authentic, BadMessage, Seen, VerifiedMessage, verify};
