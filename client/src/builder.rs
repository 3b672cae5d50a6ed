//! How a client is made.

use std::fmt;
use std::time::Duration;

use polder_transport::{Config, Endpoint, Limits, Wiring};
use polder_types::{Application, ClientId, ClusterFile, Quorum, ReplicaId, Request, SigningKey};

use crate::courier::Patience;
use crate::driver::{self, Start};
use crate::error::ConnectError;
use crate::ledger::Numbering;
use crate::machine::{Machine, Settings};
use crate::{Client, ResumableClient, SessionState};

/// Draws the random bits of a session.
type Nonce = Box<dyn FnMut() -> [u8; 16] + Send>;

/// Builds a client. Every setting has a default that does.
pub struct Builder {
    cluster: ClusterFile,
    key: SigningKey,
    pub(crate) call_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    close_timeout: Duration,
    patience: Patience,
    requests_in_flight_max: usize,
    commands_per_request_max: usize,
    wiring: Option<Wiring>,
    nonce: Option<Nonce>,
}

impl Builder {
    /// A client of the cluster that the file describes, which signs with `key`.
    #[must_use]
    pub fn new(cluster: ClusterFile, key: SigningKey) -> Self {
        Self {
            cluster,
            key,
            call_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
            patience: Patience { late_ms: 250, late_max_ms: 4_000 },
            requests_in_flight_max: 2,
            commands_per_request_max: 128,
            wiring: None,
            nonce: None,
        }
    }

    /// How long a call may take in all, retries included; 30 s unless told. After it the call's outcome is an error
    /// that says whether the command was sent.
    #[must_use]
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// How long connecting and opening a session may take; 10 s unless told. A cluster that turns this client away
    /// says so at once.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long closing may take, commands under way included; 5 s unless told.
    #[must_use]
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    /// `T_client`: after how long without an answer a request goes to all replicas; 250 ms unless told, from 1 ms to
    /// a day. It doubles for each further time.
    #[must_use]
    pub fn late_after(mut self, wait: Duration) -> Self {
        let late_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).clamp(1, 86_400_000);
        self.patience = Patience { late_ms, late_max_ms: late_ms.saturating_mul(16) };
        self
    }

    /// How many requests are under way at once; 2 unless told, at least 1. While so many are, further commands are
    /// packed together: more requests mean shorter waits, fewer mean less work a command.
    #[must_use]
    pub fn requests_in_flight_max(mut self, requests: usize) -> Self {
        self.requests_in_flight_max = requests.max(1);
        self
    }

    /// How many commands go into one request; 128 unless told, from 1 to [`Request::COMMANDS_MAX`].
    #[must_use]
    pub fn commands_per_request_max(mut self, commands: usize) -> Self {
        self.commands_per_request_max = commands.clamp(1, Request::COMMANDS_MAX);
        self
    }

    /// The socket, clocks and randomness of the transport; the real ones unless told.
    #[must_use]
    pub fn wiring(mut self, wiring: Wiring) -> Self {
        self.wiring = Some(wiring);
        self
    }

    /// What draws the 128 random bits of each session (R24); the operating system unless told. Bits that were drawn
    /// before would find the session of then.
    #[must_use]
    pub fn nonces(mut self, draw: impl FnMut() -> [u8; 16] + Send + 'static) -> Self {
        self.nonce = Some(Box::new(draw));
        self
    }

    /// Connects to the replicas and opens a session. To be called within a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the client is closed; a session that was just opened is closed too, or expires.
    ///
    /// # Errors
    ///
    /// [`ConnectError`], in words: at once when the cluster turns this client away, and never later than
    /// [`Builder::connect_timeout`].
    pub async fn connect<A: Application>(mut self) -> Result<Client<A>, ConnectError> {
        let (quorum, endpoint) = self.prepare()?;
        let machine = Machine::new(self.settings(quorum)?, Numbering::Own);
        let (call_timeout, close_timeout) = (self.call_timeout, self.close_timeout);
        let start = self.start(machine, Numbering::Own, None, (quorum, endpoint));
        let (handle, _) = driver::start(start, &self.cluster).await?;
        Ok(Client::new(handle, call_timeout, close_timeout))
    }

    /// Connects to the replicas and opens a session whose numbers the caller keeps: see [`ResumableClient`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, a session that was just opened stays open until it expires.
    ///
    /// # Errors
    ///
    /// As [`Builder::connect`].
    pub async fn connect_resumable<A: Application>(mut self) -> Result<ResumableClient<A>, ConnectError> {
        let (quorum, endpoint) = self.prepare()?;
        let machine = Machine::new(self.settings(quorum)?, Numbering::Callers);
        let start = self.start(machine, Numbering::Callers, None, (quorum, endpoint));
        let (handle, session) = driver::start(start, &self.cluster).await?;
        let state = SessionState { session, acknowledged: 0, ..self.state_without_session() };
        Ok(self.resumable(handle, state))
    }

    /// Connects to the replicas and goes on with a session: see [`ResumableClient`]. Whether the session still exists
    /// is seen at the first call.
    ///
    /// # Errors
    ///
    /// As [`Builder::connect`], and [`ConnectError::WrongState`] when the session is not of this cluster and key.
    pub async fn resume<A: Application>(mut self, state: SessionState) -> Result<ResumableClient<A>, ConnectError> {
        let handle = self.go_on(state).await?;
        Ok(self.resumable(handle, state))
    }

    /// Goes on with a session, whose numbers the caller keeps.
    pub(crate) async fn go_on(&mut self, state: SessionState) -> Result<driver::Handle, ConnectError> {
        let own = self.state_without_session();
        if state.cluster != own.cluster {
            return Err(ConnectError::WrongState("cluster"));
        }
        if state.client != own.client {
            return Err(ConnectError::WrongState("client key"));
        }
        let (quorum, endpoint) = self.prepare()?;
        let machine = Machine::resume(self.settings(quorum)?, state.session, state.acknowledged);
        let start = self.start(machine, Numbering::Callers, Some(state), (quorum, endpoint));
        let (handle, _) = driver::start(start, &self.cluster).await?;
        Ok(handle)
    }

    /// Checks the cluster file and the key, and opens the socket.
    pub(crate) fn prepare(&mut self) -> Result<(Quorum, Endpoint), ConnectError> {
        let genesis = self.cluster.genesis();
        let keyring = genesis.check().map_err(|error| ConnectError::ClusterFile(error.to_string()))?;
        let own = self.key.public();
        let replica = (0..=u8::MAX).zip(&self.cluster.replicas).find(|(_, replica)| replica.identity == own);
        if let Some((replica, _)) = replica {
            return Err(ConnectError::ReplicaKey(ReplicaId(replica)));
        }
        let local = |error: &dyn fmt::Display| ConnectError::Local(error.to_string());
        let wiring = match self.wiring.take() {
            Some(wiring) => wiring,
            None => Wiring::real_dialing().map_err(|error| local(&error))?,
        };
        let limits = Limits::new(&genesis.constants);
        let config = Config { identity: self.key.clone(), cluster: genesis.cluster(), limits };
        let endpoint = Endpoint::dialing(config, wiring).map_err(|error| local(&error))?;
        Ok((keyring.quorum(), endpoint))
    }

    pub(crate) fn cluster(&self) -> &ClusterFile {
        &self.cluster
    }

    fn settings(&mut self, quorum: Quorum) -> Result<Settings, ConnectError> {
        let nonce = match self.nonce.take() {
            Some(nonce) => nonce,
            None => system_nonces()?,
        };
        let genesis = self.cluster.genesis();
        Ok(Settings {
            cluster: genesis.cluster(),
            quorum,
            constants: genesis.constants,
            key: self.key.clone(),
            patience: self.patience,
            requests_in_flight_max: self.requests_in_flight_max,
            commands_per_request_max: self.commands_per_request_max,
            nonce,
        })
    }

    fn start(
        &self,
        machine: Machine,
        numbering: Numbering,
        resumed: Option<SessionState>,
        (quorum, endpoint): (Quorum, Endpoint),
    ) -> Start {
        Start {
            machine,
            numbering,
            session: resumed.map(|state| state.session),
            quorum,
            endpoint,
            acknowledged: resumed.map_or(0, |state| state.acknowledged),
            frame_bytes_max: Limits::new(&self.cluster.constants).client_frame_bytes_max,
            connect_timeout: self.connect_timeout,
        }
    }

    fn resumable<A: Application>(self, handle: driver::Handle, state: SessionState) -> ResumableClient<A> {
        let window = self.cluster.constants.session_window;
        ResumableClient::new(handle, state, window, self.call_timeout, self.close_timeout)
    }

    fn state_without_session(&self) -> SessionState {
        SessionState {
            cluster: self.cluster.genesis().cluster(),
            client: ClientId(self.key.public()),
            session: polder_types::SessionId::default(),
            acknowledged: 0,
        }
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("replicas", &self.cluster.replicas.len())
            .field("key", &self.key)
            .field("call_timeout", &self.call_timeout)
            .finish_non_exhaustive()
    }
}

/// Nonces from the operating system's randomness, drawn once here, where an error can still be told: hashes of those
/// bits and a counter.
fn system_nonces() -> Result<Nonce, ConnectError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| ConnectError::Local(error.to_string()))?;
    let mut drawn = 0u64;
    Ok(Box::new(move || {
        drawn += 1;
        let hasher = polder_types::Hasher::new(polder_types::Domain::Request).bytes(&seed).u64(drawn);
        let digest = hasher.finish();
        let mut nonce = [0; 16];
        nonce.iter_mut().zip(digest.0).for_each(|(byte, random)| *byte = random);
        nonce
    }))
}
