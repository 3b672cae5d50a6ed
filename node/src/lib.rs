//! A Polder node: the pure [`replica`] machine, and around it the event loop with sockets, disks and threads.
//!
//! The library is generic over the [`polder_executor::Service`] and knows nothing of the key-value service or of
//! RocksDB: its stores, sockets and clocks are arguments of [`Node::start`], so that the very same node runs in a
//! simulation. The `polder` binary, its verbs and RocksDB are behind the feature `bin`; [`cli::run`] gives any service
//! a binary of its own.
#![cfg_attr(not(feature = "bin"), doc = "\n[`cli::run`]: https://docs.rs/polder-node")]
#![forbid(unsafe_code)]

mod admission;
mod clients;
pub mod config;
mod disk;
mod disk_space;
mod event_loop;
pub mod evidence;
pub mod files;
pub mod identity;
mod metrics;
mod node;
mod receive;
pub mod replica;
mod report;
mod shares;
pub mod store;
mod turns;
mod verify_pool;
mod weight;

#[cfg(feature = "bin")]
mod admin;
#[cfg(feature = "bin")]
mod admin_seats;
#[cfg(feature = "bin")]
pub mod cli;

pub use disk_space::DiskSpace;
pub use metrics::Metrics;
pub use node::{Node, NodeConfig, NodeError, Stores, Threads, WallClock};
pub use report::{Check, PeerReport, Report};

/// The examples of README.md compile.
#[cfg(all(doctest, feature = "bin"))]
#[doc = include_str!("../../README.md")]
struct Readme;
