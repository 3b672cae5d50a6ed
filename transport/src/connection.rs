//! (skeleton)
use crate::{Ended, Lane, SendError};
use bytes::Bytes;
use polder_types::PublicKey;
use std::net::SocketAddr;
/// An authenticated connection: the sending half.
#[derive(Clone, Debug)]
pub struct Connection(PublicKey);
/// What a connection did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionStats {
    /// Frames given to the network.
    pub frames_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Frames refused because a queue was full.
    pub frames_refused: u64,
    /// Frames received.
    pub frames_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
    /// The round trip, as measured.
    pub round_trip: std::time::Duration,
}
impl Connection {
    /// The peer's identity.
    #[must_use]
    pub fn peer(&self) -> PublicKey { self.0 }
    /// The peer's address.
    #[must_use]
    pub fn address(&self) -> SocketAddr { ([0, 0, 0, 0], 0).into() }
    /// Queues a frame; never waits.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub fn try_send(&self, lane: Lane, frame: Bytes) -> Result<(), SendError> { let _ = (lane, frame); Err(SendError::Full) }
    /// Queues a frame, waiting for room.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub async fn send(&self, lane: Lane, frame: Bytes) -> Result<(), SendError> { self.try_send(lane, frame) }
    /// Ends the connection.
    pub fn close(&self, reason: &str) { let _ = reason; }
    /// Sends what is queued, then ends the connection.
    pub async fn finish(&self, reason: &str, within: std::time::Duration) { let _ = (reason, within); }
    /// Resolves when the connection has ended, with why.
    pub async fn closed(&self) -> Ended { Ended(String::new()) }
    /// Whether it has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool { false }
    /// What it did.
    #[must_use]
    pub fn stats(&self) -> ConnectionStats { ConnectionStats::default() }
}
/// The receiving half of a connection.
#[derive(Debug)]
pub struct Inbox(());
impl Inbox {
    /// The next frame; none when the connection has ended and everything was read.
    pub async fn recv(&mut self) -> Option<(Lane, Bytes)> { None }
}
