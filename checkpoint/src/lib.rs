//! Checkpoints of Polder: what a replica certifies, what it keeps on its disk, and how it gets its state back.
//!
//! This crate knows nothing of sockets, clocks, threads or of which disk is below: storage is the trait [`Store`], and
//! what must be written, sent or frozen is asked for, never done behind the caller's back.
#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod mem_store;
mod schedule;
mod store;

pub use mem_store::{Applied, MemStore};
pub use schedule::{Due, Schedule, Turns};
pub use store::{Durability, Family, Rows, Store, StoreError, Write, Writes};
