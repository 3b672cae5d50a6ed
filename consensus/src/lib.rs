//! The ordering core of Polder: PBFT, signed and pipelined, with hybrid quorums and view changes by certificate.
//!
//! This crate knows nothing of sockets, disks, clocks, threads or of what a command means. [`Core`] is one pure state
//! machine: `step(now, input, &mut outputs)`. The same inputs in the same order give the same outputs. It cannot fail:
//! what it cannot use it ignores, and counts why ([`Ignored`]).
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod config;
mod core;
mod ignored;
mod input;
mod message;
mod output;
mod record;
mod status;
mod verify;

pub use self::core::{Core, RecoveredLog};
pub use config::Config;
pub use ignored::Ignored;
pub use input::{Input, Now, SessionWindow};
pub use message::{
    Abdicate, Entry, Fetch, Header, Kind, Message, NewView, Phase, Proposal, SlotStatus, Status as StatusMessage,
    Suspect, ViewChange, ViewChangeBody, Vote,
};
pub use output::{CommittedBatch, Evidence, Output, Refusal, Ticket, To, Why};
pub use record::Record;
pub use status::Status;
pub use verify::{Authentic, BadMessage, Seen, VerifiedMessage, verify};
