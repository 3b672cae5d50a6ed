//! Who one is, and how one dials.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use polder_types::{ClusterId, PublicKey, SigningKey};
use quinn::{ConnectionId, VarInt};

use crate::hello::{Code, Hello, connect_error, end};
use crate::random::Random;
use crate::tls::Tls;
use crate::{Allow, ConnectError, Connection, Inbox, Lanes, Limits, Listener, SetupError, VERSION, Wiring};

/// Who one is, among whom, within which bounds.
#[derive(Clone, Debug)]
pub struct Config {
    /// The own identity: the key that TLS proves.
    pub identity: SigningKey,
    /// The cluster; a peer of another one is refused in words.
    pub cluster: ClusterId,
    /// The bounds.
    pub limits: Limits,
}

/// A UDP socket that dials, and may listen. Shared by cloning; when the last clone, the listener and all connections
/// are dropped, the socket is closed.
#[derive(Clone)]
pub struct Endpoint {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) quic: quinn::Endpoint,
    pub(crate) limits: Limits,
    pub(crate) hello: Hello,
    pub(crate) random: Arc<Random>,
    tls: Tls,
    transport: Arc<quinn::TransportConfig>,
    resolve: crate::Resolve,
}

impl Endpoint {
    /// An endpoint that only dials. To be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// When the socket cannot be used or there is no randomness.
    pub fn dialing(config: Config, wiring: Wiring) -> Result<Self, SetupError> {
        Ok(Self { inner: Arc::new(Inner::new(config, wiring, VERSION, false)?) })
    }

    /// An endpoint that dials and listens; `allow` says who may connect. To be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// When the socket cannot be used or there is no randomness.
    pub fn listening(config: Config, wiring: Wiring, allow: Allow) -> Result<(Self, Listener), SetupError> {
        Self::listening_as(config, wiring, allow, VERSION)
    }

    pub(crate) fn listening_as(
        config: Config,
        wiring: Wiring,
        allow: Allow,
        version: u16,
    ) -> Result<(Self, Listener), SetupError> {
        let endpoint = Self { inner: Arc::new(Inner::new(config, wiring, version, true)?) };
        let listener = Listener::start(&endpoint.inner, allow);
        Ok((endpoint, listener))
    }

    /// The address of its socket.
    ///
    /// # Errors
    ///
    /// The socket's.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.inner.quic.local_addr()
    }

    /// Connects to the peer at `address` (`host:port`), which must hold `expected`, to use `lanes`. Tries each of the
    /// host's addresses for [`Limits::connect_timeout`], then gives up: it never hangs.
    ///
    /// # Cancel safety
    ///
    /// A future dropped before it is ready leaves no connection behind.
    ///
    /// # Errors
    ///
    /// [`ConnectError`], in words. If addresses fail for several reasons, one that trying again cannot mend is told
    /// first.
    pub async fn connect(
        &self,
        address: &str,
        expected: PublicKey,
        lanes: Lanes,
    ) -> Result<(Connection, Inbox), ConnectError> {
        let limit = self.inner.limits.connect_timeout;
        let resolve_error = |why: String| ConnectError::Resolve { address: address.to_owned(), why };
        let resolving = (self.inner.resolve)(address);
        let candidates = match tokio::time::timeout(limit, resolving).await {
            Ok(Ok(candidates)) => candidates,
            Ok(Err(error)) => return Err(resolve_error(error.to_string())),
            Err(_) => return Err(resolve_error("no answer".to_owned())),
        };
        let mut last = resolve_error("the name has no address".to_owned());
        for candidate in candidates {
            let attempt = self.inner.attempt(address, candidate, expected, lanes);
            let outcome = tokio::time::timeout(limit, attempt).await;
            match outcome.unwrap_or_else(|_| Err(ConnectError::Unreachable { address: address.to_owned() })) {
                Ok(connection) => return Ok(connection),
                Err(error) if !last.is_permanent() => last = error,
                Err(_) => {}
            }
        }
        Err(last)
    }

    /// Closes all connections with words for the peers, takes no new ones, and waits until the peers know or a
    /// moment has passed. To send first what is queued, see [`Connection::finish`].
    ///
    /// # Cancel safety
    ///
    /// The connections are closed at the first poll.
    pub async fn close(&self, reason: &str) {
        const MOMENT: Duration = Duration::from_millis(500);
        self.inner.quic.close(VarInt::from_u32(0), reason.as_bytes());
        if tokio::time::timeout(MOMENT, self.inner.quic.wait_idle()).await.is_err() {
            tracing::debug!(reason, "some peers may not know yet that this endpoint is closed");
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("hello", &self.inner.hello).finish_non_exhaustive()
    }
}

impl Inner {
    fn new(config: Config, wiring: Wiring, version: u16, listens: bool) -> Result<Self, SetupError> {
        let random = Arc::new(Random::new(wiring.seed)?);
        let tls = Tls::new(&config.identity, &wiring, &random)?;
        let transport = Arc::new(transport_config(&config.limits)?);
        let server = listens.then(|| server_config(&tls, &transport, &random, &config.limits)).transpose()?;
        let quic_config = endpoint_config(&config.identity, &random);
        let quic = quinn::Endpoint::new_with_abstract_socket(quic_config, server, wiring.socket, wiring.runtime)?;
        let hello = Hello { version, cluster: config.cluster };
        Ok(Self { quic, limits: config.limits, hello, random, tls, transport, resolve: wiring.resolve })
    }

    async fn attempt(
        &self,
        address: &str,
        candidate: SocketAddr,
        expected: PublicKey,
        lanes: Lanes,
    ) -> Result<(Connection, Inbox), ConnectError> {
        let found = Arc::new(OnceLock::new());
        let failed = |error: &dyn fmt::Display| ConnectError::Failed(error.to_string());
        let tls = self.tls.client(expected, Arc::clone(&found)).map_err(|error| failed(&error))?;
        let mut config = quinn::ClientConfig::new(Arc::new(tls));
        config.transport_config(Arc::clone(&self.transport));
        let random = Arc::clone(&self.random);
        config.initial_dst_cid_provider(Arc::new(move || ConnectionId::new(&random.array::<20>())));
        let connecting = match self.quic.connect_with(config, candidate, "polder.invalid") {
            Ok(connecting) => connecting,
            Err(quinn::ConnectError::EndpointStopping) => return Err(ConnectError::Closed),
            Err(error) => return Err(failed(&error)),
        };
        let quic = connecting.await.map_err(|error| match found.get() {
            Some(found) if *found != expected => {
                ConnectError::WrongKey { address: address.to_owned(), expected, found: *found }
            }
            _ => connect_error(&error, address),
        })?;
        let quic = CloseOnDrop(Some(quic));
        let theirs = greet(quic.get()?, self.hello).await.map_err(|error| match quic.reason() {
            Some(reason) => connect_error(&reason, address),
            None => error,
        })?;
        if let Some(refusal) = self.hello.refuse(theirs) {
            // A correct peer has refused us already; this one is another program.
            refusal.end(quic.get()?);
            return Err(ConnectError::Failed(refusal.words));
        }
        Ok(Connection::start(quic.keep()?, expected, lanes, &self.limits, None))
    }
}

/// Says hello and hears it.
async fn greet(quic: &quinn::Connection, hello: Hello) -> Result<Hello, ConnectError> {
    let failed = |error: &dyn fmt::Display| ConnectError::Failed(format!("no hello: {error}"));
    let (mut send, mut receive) = quic.open_bi().await.map_err(|error| failed(&error))?;
    send.write_all(&hello.encode()).await.map_err(|error| failed(&error))?;
    send.finish().map_err(|error| failed(&error))?;
    let bytes = receive.read_to_end(Hello::BYTES).await.map_err(|error| failed(&error))?;
    Hello::decode(&bytes).ok_or_else(|| failed(&"the peer says something else"))
}

/// Closes a connection whose making was given up.
struct CloseOnDrop(Option<quinn::Connection>);

impl CloseOnDrop {
    fn get(&self) -> Result<&quinn::Connection, ConnectError> {
        self.0.as_ref().ok_or(ConnectError::Closed)
    }

    fn reason(&self) -> Option<quinn::ConnectionError> {
        self.0.as_ref()?.close_reason()
    }

    fn keep(mut self) -> Result<quinn::Connection, ConnectError> {
        self.0.take().ok_or(ConnectError::Closed)
    }
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        if let Some(quic) = &self.0 {
            end(quic, Code::Goodbye, "the connection was given up before it was made");
        }
    }
}

/// What a stranger can open and make us hold before the hellos: little. [`Connection::start`] widens it.
fn transport_config(limits: &Limits) -> Result<quinn::TransportConfig, SetupError> {
    let mut config = quinn::TransportConfig::default();
    let idle = quinn::IdleTimeout::try_from(limits.idle_timeout);
    config
        .max_idle_timeout(Some(idle.map_err(|_| io::Error::other("the idle time-out is too long"))?))
        .keep_alive_interval(Some(limits.keep_alive))
        // The first packet of a handshake is repeated after twice this: a peer that starts later than we dial is
        // found soon.
        .initial_rtt(Duration::from_millis(50))
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(3))
        .receive_window(VarInt::from_u32(16 << 10))
        // Nothing here uses datagrams.
        .datagram_receive_buffer_size(None);
    Ok(config)
}

fn endpoint_config(identity: &SigningKey, random: &Arc<Random>) -> quinn::EndpointConfig {
    // Derived from the identity: after a restart the peers of connections that are gone are told so by stateless
    // resets at once, instead of waiting for the idle time-out.
    let reset_key = blake3::derive_key("polder 2026 stateless reset", &identity.seed());
    let mut config = quinn::EndpointConfig::new(Arc::new(ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &reset_key)));
    let random = Arc::clone(random);
    config.rng_seed(Some(random.array()));
    config.cid_generator(move || Box::new(Ids(Arc::clone(&random))));
    config
}

fn server_config(
    tls: &Tls,
    transport: &Arc<quinn::TransportConfig>,
    random: &Random,
    limits: &Limits,
) -> Result<quinn::ServerConfig, SetupError> {
    let token_key = ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, &[]).extract(&random.array::<64>());
    let mut config = quinn::ServerConfig::new(Arc::new(tls.server()?), Arc::new(token_key));
    config
        .transport_config(Arc::clone(transport))
        .time_source(tls.clock())
        // Replicas and clients stay where they are; who moves connects again.
        .migration(false)
        .max_incoming(limits.handshakes_max)
        .incoming_buffer_size(64 << 10)
        .incoming_buffer_size_total(4 << 20);
    Ok(config)
}

/// Connection ids from the endpoint's randomness.
struct Ids(Arc<Random>);

impl quinn::ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&self.0.array::<8>())
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
