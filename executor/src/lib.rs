//! Executes what was ordered: services, the partitioned state under a root, sessions, schedulers.
//!
//! This crate knows nothing of sockets, disks, clocks, tokio, or of how anything was ordered. The same batches in the
//! same order give the same replies, effects and roots, whatever the scheduler and the number of threads, and wherever
//! a replica was restored in between.
//!
//! A slot's way: the front judges every command of the batch in order (`plan`, `sessions`), the commands that execute
//! run as their scheduler hands them out (`schedule`, `pool`, `command`), the committer records and answers in order
//! (`executor`, `sessions`). All that lasts is in partitions (`state`), and every change of them is an effect.
#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod access;
mod command;
mod executor;
mod footprint;
mod lookup;
mod plan;
mod pool;
mod schedule;
mod service;
mod sessions;
mod state;
mod system;

pub use access::{Access, Limits, Page};
pub use executor::{Executed, Executor, ExecutorConfig, Windows};
pub use footprint::{Footprint, Span, prefix_end};
pub use lookup::{Lookup, Share};
pub use service::Service;
pub use state::{Chunk, Effect, Effects, Entry, Frozen, FrozenPartition, PartitionBuilder, RestoreError};
