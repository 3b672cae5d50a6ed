//! (skeleton)
use crate::{Connection, ConnectError, Endpoint, Lane, Lanes, SendError};
use bytes::Bytes;
use polder_types::PublicKey;
use tokio::sync::mpsc;
/// Whom to keep a connection to.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// `host:port`; a name is looked up at every attempt.
    pub address: String,
    /// The peer's key.
    pub identity: PublicKey,
    /// The lanes.
    pub lanes: Lanes,
    /// What its events carry, to tell links apart.
    pub tag: usize,
}
/// What happens to a link.
#[derive(Clone, Debug)]
pub enum LinkEvent {
    /// Connected.
    Up {
        /// The link's tag.
        tag: usize,
    },
    /// A frame came in.
    Frame {
        /// The link's tag.
        tag: usize,
        /// The lane.
        lane: Lane,
        /// The frame.
        frame: Bytes,
    },
    /// A connection ended or an attempt failed; another attempt follows.
    Down {
        /// The link's tag.
        tag: usize,
        /// Why.
        why: ConnectError,
    },
}
/// How a link fares.
#[derive(Clone, Debug, Default)]
pub struct LinkStatus {
    /// Whether it is connected.
    pub connected: bool,
    /// Attempts so far.
    pub attempts: u64,
    /// Connections made so far.
    pub connections: u64,
    /// What the last failed attempt, or the end of the last connection, said.
    pub last_error: Option<String>,
}
/// Keeps one connection alive.
#[derive(Debug)]
pub struct Link(());
impl Link {
    /// Starts the link; it ends when it is dropped.
    #[must_use]
    pub fn spawn(endpoint: &Endpoint, config: LinkConfig, events: mpsc::Sender<LinkEvent>) -> Self { let _ = (endpoint, config, events); Self(()) }
    /// Queues a frame on the current connection; never waits.
    ///
    /// # Errors
    ///
    /// [`SendError`]; what is refused is dropped.
    pub fn try_send(&self, lane: Lane, frame: Bytes) -> Result<(), SendError> { let _ = (lane, frame); Err(SendError::Disconnected) }
    /// The current connection.
    #[must_use]
    pub fn connection(&self) -> Option<Connection> { None }
    /// How it fares.
    #[must_use]
    pub fn status(&self) -> LinkStatus { LinkStatus::default() }
}
