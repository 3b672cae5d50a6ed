//! The seam to the world: socket, runtime, clock, names and randomness are arguments.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use quinn::Runtime as _;

/// The addresses of a host and port, on their way.
pub type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Finds the addresses of `host:port`; asked anew at every attempt to connect, so that a changed name is seen.
pub type Resolve = Arc<dyn Fn(&str) -> Resolving + Send + Sync>;

/// Where an endpoint gets its packets, its time, its names and its randomness from.
///
/// All time that the transport waits for passes on tokio's clock, which a simulation pauses. With a seed, all that
/// the transport does follows from the seed and the packets; only the bytes of the TLS key exchange do not, unless
/// `key_exchange` is given too.
#[derive(Clone)]
pub struct Wiring {
    /// The UDP socket.
    pub socket: Arc<dyn quinn::AsyncUdpSocket>,
    /// Timers, tasks and the monotonic clock.
    pub runtime: Arc<dyn quinn::Runtime>,
    /// What all randomness is derived from; none: the operating system's.
    pub seed: Option<[u8; 32]>,
    /// The key exchange of TLS; none: X25519 with the operating system's randomness.
    pub key_exchange: Option<&'static dyn rustls::crypto::SupportedKxGroup>,
    /// The wall clock; nothing depends on it but the age of address tokens.
    pub wall_clock: Arc<dyn Fn() -> SystemTime + Send + Sync>,
    /// Host names.
    pub resolve: Resolve,
}

impl Wiring {
    /// The real world, on a UDP socket bound to `address`. To be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// When the address cannot be bound.
    pub fn real(address: SocketAddr) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind(address)?;
        let runtime = Arc::new(quinn::TokioRuntime);
        Ok(Self {
            socket: runtime.wrap_udp_socket(socket)?,
            runtime,
            seed: None,
            key_exchange: None,
            wall_clock: Arc::new(SystemTime::now),
            resolve: Arc::new(|address| {
                let address = address.to_owned();
                Box::pin(async move { Ok(tokio::net::lookup_host(address).await?.collect()) })
            }),
        })
    }

    /// The real world, on any free port, for who only dials. To be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// When no port can be bound.
    pub fn real_dialing() -> io::Result<Self> {
        // On a socket of IPv6 one can dial IPv4 too; a machine without IPv6 has only the other.
        let any: SocketAddr = (Ipv6Addr::UNSPECIFIED, 0).into();
        Self::real(any).or_else(|_| Self::real((Ipv4Addr::UNSPECIFIED, 0).into()))
    }
}

impl fmt::Debug for Wiring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wiring")
            .field("socket", &self.socket)
            .field("seeded", &self.seed.is_some())
            .finish_non_exhaustive()
    }
}
