//! Authenticated QUIC: bytes in, bytes out.
//!
//! This crate knows nothing of what the bytes mean: not of requests, votes or images. It is the only one that names
//! quinn; its socket, runtime, clocks and randomness are arguments ([`Wiring`]), so that the very same code runs over
//! a simulated network.
//!
//! - An [`Endpoint`] dials; a [`Listener`] accepts. Both sides prove their Ed25519 identity in TLS 1.3 by raw public
//!   keys (RFC 7250): no certificate, no date, no resumption, no early data, one cipher suite.
//! - The first exchange is a hello with the version and the cluster. Whoever does not fit is told why, in words, at
//!   once: [`ConnectError`].
//! - A [`Connection`] sends frames on [`Lane`]s, one stream a lane and direction, so that ordering never waits behind
//!   state transfer. Its queues are bounded in bytes; [`Connection::try_send`] never waits. An [`Inbox`] receives;
//!   who does not read stops the sender by QUIC's flow control.
//! - A [`Link`] keeps one connection to an address and identity alive, with back-off.
//!
//! Everything that a stranger can make this crate hold is in [`Limits`].
//!
//! | queue | of | bound | when full |
//! | --- | --- | --- | --- |
//! | sending, a lane and connection | frames | [`Limits::send_queue_bytes_max`], [`Limits::queue_frames_max`] | `try_send` says [`SendError::Full`], `send` waits |
//! | sending, all connections from clients | bytes | [`Limits::client_send_bytes_max`] | the connection on which most waits is closed |
//! | receiving, a lane and connection | frames | [`Limits::receive_queue_bytes_max`], [`Limits::queue_frames_max`] | the stream is not read: the peer's window closes |
//! | receiving, all connections from clients | bytes | [`Limits::client_receive_bytes_max`] | the connection that sent most of them is closed |
//! | accepted connections | connections | [`Limits::handshakes_max`] | further handshakes are refused |
//! | events of links | [`LinkEvent`] | the channel's, given by the caller | the link's inbox is not read |
#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod budget;
mod connection;
mod endpoint;
mod error;
mod frame;
mod hello;
mod lane;
mod limits;
mod link;
mod listener;
mod queue;
mod random;
mod seats;
mod tls;
mod wiring;

pub use connection::{Connection, ConnectionStats, Inbox};
pub use endpoint::{Config, Endpoint};
pub use error::{ConnectError, Ended, SendError, SetupError};
pub use lane::{Lane, Lanes};
pub use limits::Limits;
pub use link::{Link, LinkConfig, LinkEvent, LinkStatus};
pub use listener::{Allow, Listener, ListenerStats};
pub use wiring::{Resolve, Resolving, Wiring};

/// What a simulated network implements to give a [`Wiring`] its socket, runtime and key exchange.
pub mod seam {
    pub use quinn::udp::{RecvMeta, Transmit};
    pub use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};
    pub use rustls::crypto::{ActiveKeyExchange, GetRandomFailed, SharedSecret, SupportedKxGroup};
    pub use rustls::{Error as TlsError, NamedGroup};
}

/// The version of what Polder's processes say to each other; a peer of another version is refused in words.
pub const VERSION: u16 = 1;
