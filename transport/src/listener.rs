//! (skeleton)
use crate::{Connection, Inbox, Lanes};
use polder_types::PublicKey;
use std::sync::Arc;
/// Which lanes a key may use; none: it may not connect.
pub type Allow = Arc<dyn Fn(&PublicKey) -> Option<Lanes> + Send + Sync>;
/// What a listener did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenerStats {
    /// Connections that are open, of replicas.
    pub replica_connections: u64,
    /// Connections that are open, of clients.
    pub client_connections: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections refused: version, cluster, key, or too many.
    pub refused: u64,
    /// Handshakes that failed or were not begun.
    pub handshakes_failed: u64,
}
/// Accepts.
#[derive(Debug)]
pub struct Listener(pub(crate) ());
impl Listener {
    /// The next connection; none when the endpoint is closed.
    pub async fn accept(&mut self) -> Option<(Connection, Inbox)> { None }
    /// What it did.
    #[must_use]
    pub fn stats(&self) -> ListenerStats { ListenerStats::default() }
}
