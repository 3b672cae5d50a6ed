//! What can go wrong, an enum an operation.

use std::fmt;
use std::io;

use polder_types::PublicKey;

/// An endpoint that could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The socket cannot be bound or used.
    #[error("the socket cannot be used: {0}")]
    Socket(#[from] io::Error),
    /// TLS refuses the configuration.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

/// A connection that was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address is no `host:port`, or the host has no address.
    #[error("{address} cannot be resolved: {why}")]
    Resolve {
        /// The address.
        address: String,
        /// Why.
        why: String,
    },
    /// Nobody answered in time.
    #[error("no answer from {address}: is it running there?")]
    Unreachable {
        /// The address.
        address: String,
    },
    /// The peer holds another key than the one expected.
    #[error("{address} has the key {found}, not {expected}: another node listens there, or the cluster file is old")]
    WrongKey {
        /// The address.
        address: String,
        /// The key expected.
        expected: PublicKey,
        /// The key found.
        found: PublicKey,
    },
    /// The peer speaks another version.
    #[error("the peer speaks another version: {0}")]
    WrongVersion(String),
    /// The peer belongs to another cluster.
    #[error("the peer belongs to another cluster: {0}")]
    WrongCluster(String),
    /// The peer does not let this key in.
    #[error("the peer does not let this key in: {0}")]
    NotAllowed(String),
    /// The peer has too many connections at the moment.
    #[error("the peer has too many connections: {0}")]
    Busy(String),
    /// Anything else that ended the attempt.
    #[error("the connection failed: {0}")]
    Failed(String),
    /// The own endpoint is closed.
    #[error("the endpoint is closed")]
    Closed,
}

impl ConnectError {
    /// Whether trying again cannot help until somebody changes a file: wrong key, version, cluster, or not let in.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::WrongKey { .. } | Self::WrongVersion(_) | Self::WrongCluster(_) | Self::NotAllowed(_))
    }
}

/// Why a connection ended, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended(pub(crate) String);

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Ended {}

/// A frame that was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The queue is full: the peer is slow.
    #[error("the queue to the peer is full")]
    Full,
    /// The connection has ended, or there is none.
    #[error("not connected")]
    Disconnected,
    /// The frame is larger than the lane's frames may be.
    #[error("a frame of {bytes} bytes; this lane takes at most {bytes_max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The connection does not have this lane.
    #[error("the connection does not have this lane")]
    NoSuchLane,
}
