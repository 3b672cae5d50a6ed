//! (skeleton)
use crate::{Client, ConnectError, ResumableClient, SessionState};
use polder_types::{Application, ClusterFile, SigningKey};
use std::time::Duration;
/// Builds a client.
#[derive(Clone, Debug)]
pub struct Builder {
    cluster: ClusterFile,
    key: SigningKey,
    call_timeout: Duration,
}
impl Builder {
    /// A client of the cluster that the file describes, signing with `key`.
    #[must_use]
    pub fn new(cluster: ClusterFile, key: SigningKey) -> Self { Self { cluster, key, call_timeout: Duration::from_secs(30) } }
    /// How long a call waits for its answer; 30 s unless told.
    #[must_use]
    pub fn call_timeout(mut self, timeout: Duration) -> Self { self.call_timeout = timeout; self }
    /// How long connecting may take; 10 s unless told.
    #[must_use]
    pub fn connect_timeout(self, timeout: Duration) -> Self { let _ = timeout; self }
    /// Requests in flight at once; 2 unless told.
    #[must_use]
    pub fn requests_in_flight_max(self, requests: usize) -> Self { let _ = requests; self }
    /// Commands a request; 128 unless told.
    #[must_use]
    pub fn commands_per_request_max(self, commands: usize) -> Self { let _ = commands; self }
    /// Connects and opens a session.
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub async fn connect<A: Application>(self) -> Result<Client<A>, ConnectError> { Err(ConnectError::TimedOut(Vec::new())) }
    /// Connects and opens a session whose numbers the caller keeps.
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub async fn connect_resumable<A: Application>(self) -> Result<ResumableClient<A>, ConnectError> { Err(ConnectError::TimedOut(Vec::new())) }
    /// Connects and goes on with a session kept by [`ResumableClient::state`].
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub async fn resume<A: Application>(self, state: SessionState) -> Result<ResumableClient<A>, ConnectError> { let _ = state; Err(ConnectError::TimedOut(Vec::new())) }
}
