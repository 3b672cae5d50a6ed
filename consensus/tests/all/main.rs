//! The core in a cluster in memory. The simulator proper is in sim-tests and drives whole replicas; this one is here so
//! that the core is trusted before it is put into anything.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs, unreachable_pub)]

mod attack;
mod clusters;
mod liars;
mod parts;
mod random;
mod rules;
mod solo;
mod world;
