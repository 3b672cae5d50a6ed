//! Executes what was ordered: services, the partitioned state under a root, sessions, schedulers.
//!
//! This crate knows nothing of sockets, disks, clocks, tokio, or of how anything was ordered. The same batches in the
//! same order give the same replies, effects and roots, whatever the scheduler and the number of threads, and wherever
//! a replica was restored in between.
#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod access;
mod executor;
mod footprint;
mod service;
mod state;
mod system;

pub use access::{Access, Limits, Page};
pub use executor::{Executed, Executor, ExecutorConfig, Lookup};
pub use footprint::{Footprint, Span, prefix_end};
pub use service::Service;
pub use state::{Chunk, Effect, Effects, Entry, Frozen, FrozenPartition, PartitionBuilder, RestoreError};
