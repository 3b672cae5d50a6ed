//! The simulators of Polder, the liars in them, and what must hold whatever they do.
//!
//! The core simulator runs real [`polder_node::replica::Replica`]s, the pure machines that the event loop drives in
//! production, under a hostile scheduler: no threads, no sockets, no clocks, no tokio. Everything derives from the
//! seed; the same seed twice gives the same trace. See README.md for the properties and how to replay a failure.

#[cfg(polder_mutations)]
pub mod bias;
pub mod byzantine;
pub mod checkers;
pub mod client;
pub mod disk;
pub mod fuzz;
pub mod hazards;
pub mod history;
pub mod hostile;
pub mod mischief;
pub mod network;
pub mod random;
pub mod run;
pub mod script;
pub mod service;
pub mod shrink;
pub mod swarm;
pub mod trace;
pub mod world;
