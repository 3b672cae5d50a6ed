//! (skeleton)
use crate::{Allow, ConnectError, Connection, Inbox, Lanes, Limits, Listener, SetupError, Wiring};
use polder_types::{ClusterId, PublicKey, SigningKey};
use std::net::SocketAddr;
/// Who one is.
#[derive(Clone, Debug)]
pub struct Config {
    /// The own identity.
    pub identity: SigningKey,
    /// The cluster.
    pub cluster: ClusterId,
    /// The bounds.
    pub limits: Limits,
}
/// Dials.
#[derive(Clone, Debug)]
pub struct Endpoint(());
impl Endpoint {
    /// An endpoint that only dials.
    ///
    /// # Errors
    ///
    /// [`SetupError`].
    pub fn dialing(config: Config, wiring: Wiring) -> Result<Self, SetupError> { let _ = (config, wiring); Ok(Self(())) }
    /// An endpoint that dials and listens.
    ///
    /// # Errors
    ///
    /// [`SetupError`].
    pub fn listening(config: Config, wiring: Wiring, allow: Allow) -> Result<(Self, Listener), SetupError> { let _ = allow; Ok((Self::dialing(config, wiring)?, Listener(()))) }
    /// The address of its socket.
    ///
    /// # Errors
    ///
    /// The socket's.
    pub fn local_address(&self) -> std::io::Result<SocketAddr> { Ok(([0, 0, 0, 0], 0).into()) }
    /// Connects.
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub async fn connect(&self, address: &str, expected: PublicKey, lanes: Lanes) -> Result<(Connection, Inbox), ConnectError> { let _ = (address, expected, lanes); Err(ConnectError::Closed) }
    /// Closes all connections and waits until the peers know, or a moment has passed.
    pub async fn close(&self, reason: &str) { let _ = reason; }
}
