//! Checkpoints of Polder: what a replica certifies, what it keeps on its disk, and how it gets its state back.
//!
//! This crate knows nothing of sockets, clocks, threads or of which disk is below: storage is the trait [`Store`], and
//! what must be written, sent or frozen is asked for, never done behind the caller's back.
//!
//! Three predicates, never mixed (C1): a cut is *certified* when a quorum computed its root; a partition is *persisted*
//! when this replica declared an image of it as of a certified cut; a cut is *durable* when this replica can recover to
//! it from its own disk. [`Planner`] keeps all three.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`planner`] | statements → certificates; when to write images, what may be truncated, who differs |
//! | [`effects_log`] | what slots changed, and the frontiers that close them at cuts |
//! | [`images`] | partitions on disk, replaced so that a crash at any write leaves a whole one |
//! | [`recovery`] | the own disk → the certified state, as a plan and then run |
//! | [`transfer`] | peers → the certified state, checked partition by partition |
//! | [`install`] | a transferred state → the base that recovery starts from |
#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod certificates;
pub mod effects_log;
pub mod images;
pub mod install;
mod mem_store;
pub mod planner;
pub mod recovery;
mod rows;
mod schedule;
mod state;
mod store;
pub mod transfer;

pub use mem_store::{Applied, MemStore};
pub use planner::Planner;
pub use schedule::{Due, Schedule, Turns};
pub use state::CertifiedState;
pub use store::{Durability, Family, Rows, Store, StoreError, Write, Writes};
