//! State transfer (C12): a replica that is behind the truncated log fetches a certified state from its peers.
//!
//! Sans-IO: [`Fetch`] and [`Serve`] take messages and ticks, and say what to send. No view and no leader matters here,
//! and an idle cluster serves as well as a busy one: sources keep the snapshots of their last stable cuts for ever.
//!
//! The certified root is the only thing that is trusted. A peer offers a certificate and the digests of all partitions;
//! the digests are right if their Merkle root is the certified one. Every partition is then fetched whole from one
//! peer, different partitions from different peers, and checked against its digest: so a wrong one has one source,
//! which is named, dropped and replaced.

mod fetch;
mod message;
mod serve;

pub use fetch::{Blame, Fetch, FetchConfig, Output, Progress};
pub use message::Message;
pub use serve::{Serve, ServeConfig};

use polder_types::ReplicaId;

/// What [`Fetch`] and [`Serve`] are given.
#[derive(Clone, Debug, PartialEq, Eq)]
// An input is moved into a step and taken apart there: a box would cost more than it saves.
#[allow(clippy::large_enum_variant)]
pub enum Input {
    /// A message from a peer's channel.
    Message {
        /// The peer.
        from: ReplicaId,
        /// What it says.
        message: Message,
    },
    /// Time has passed. To be given every few milliseconds.
    Tick,
}
