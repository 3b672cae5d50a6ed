//! Real processes on the loopback interface: killed, paused, cut off, with disks that are full, stalled, failing or
//! damaged, with folders that are not theirs. What clients were told is judged by the simulator's own checkers. Needs
//! the binary: `./run test` builds it and sets `POLDER_BIN`.
//!
//! `POLDER_CHAOS_SECONDS=600` makes the tests that search go on for so long each, `POLDER_CHAOS_SEED=7` has them draw
//! other faults; what they drew is printed when they fail. What a test needs and this machine does not give is said in
//! a line that starts with `SKIPPED`.
#![allow(clippy::panic, missing_docs)]

mod cluster;
mod damaged;
mod disk;
mod disks;
mod folders;
mod killed;
mod load;
mod network;
mod proxy;
mod shell;
mod started;

use std::time::Duration;

/// How long a test that searches goes on: so many seconds, or what the environment says.
fn chaos(seconds: u64) -> Duration {
    Duration::from_secs(number("POLDER_CHAOS_SECONDS").unwrap_or(seconds))
}

/// What such a test draws from.
fn seed() -> u64 {
    number("POLDER_CHAOS_SEED").unwrap_or(1)
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}
