//! Who is let in, and how many.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use polder_types::PublicKey;
use rustls::pki_types::CertificateDer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

use crate::budget::{Budget, Budgets};
use crate::endpoint::Inner;
use crate::hello::{Code, Hello, Refusal, describe, end};
use crate::seats::{SeatId, Seats};
use crate::tls::public_key;
use crate::{Connection, Inbox, Lane, Lanes, Limits};

/// Which lanes a key may use; none: it may not connect. Asked at every connection, so that it may change.
pub type Allow = Arc<dyn Fn(&PublicKey) -> Option<Lanes> + Send + Sync>;

/// Hands out the connections that peers make, once their identity, version and cluster are checked. When it is
/// dropped, no new ones are taken.
#[derive(Debug)]
pub struct Listener {
    accepted: mpsc::Receiver<Accepted>,
    door: Arc<Door>,
}

#[derive(Debug)]
struct Accepted {
    connection: Connection,
    inbox: Inbox,
    /// Given back when the connection is taken: what nobody takes counts as a handshake.
    _handshake: OwnedSemaphorePermit,
}

/// What a listener did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenerStats {
    /// Connections of replicas that are open now.
    pub replica_connections: u64,
    /// Connections of clients that are open now.
    pub client_connections: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections refused in words: version, cluster, key, or too many.
    pub refused: u64,
    /// Connections closed because a newer one took their seat.
    pub displaced: u64,
    /// Handshakes that failed, or were turned away because too many were under way.
    pub handshakes_failed: u64,
}

impl Listener {
    pub(crate) fn start(endpoint: &Arc<Inner>, allow: Allow) -> Self {
        let limits = endpoint.limits.clone();
        // Each connection in the channel holds a handshake's permit: it is never full.
        let (sender, accepted) = mpsc::channel(limits.handshakes_max.max(1));
        let door = Arc::new(Door {
            hello: endpoint.hello,
            budgets: Budgets {
                sending: Budget::new(limits.client_send_bytes_max),
                receiving: Budget::new(limits.client_receive_bytes_max),
            },
            limits,
            allow,
            seats: Mutex::default(),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            displaced: AtomicU64::new(0),
            handshakes_failed: AtomicU64::new(0),
            complaints: Mutex::default(),
        });
        tokio::spawn(accept_all(endpoint.quic.clone(), Arc::clone(&door), sender));
        Self { accepted, door }
    }

    /// The next connection; none when the endpoint is closed. Cancel safe.
    pub async fn accept(&mut self) -> Option<(Connection, Inbox)> {
        let Accepted { connection, inbox, _handshake } = self.accepted.recv().await?;
        Some((connection, inbox))
    }

    /// What the listener did so far.
    #[must_use]
    pub fn stats(&self) -> ListenerStats {
        let (replicas, clients) = self.door.seats().counts();
        ListenerStats {
            replica_connections: replicas as u64,
            client_connections: clients as u64,
            accepted: self.door.accepted.load(Ordering::Relaxed),
            refused: self.door.refused.load(Ordering::Relaxed),
            displaced: self.door.displaced.load(Ordering::Relaxed),
            handshakes_failed: self.door.handshakes_failed.load(Ordering::Relaxed),
        }
    }
}

/// The door: what decides who is let in.
struct Door {
    hello: Hello,
    limits: Limits,
    allow: Allow,
    seats: Mutex<Seats<quinn::Connection>>,
    /// For what waits to be sent to clients, and what they sent and nobody has read.
    budgets: Budgets,
    accepted: AtomicU64,
    refused: AtomicU64,
    displaced: AtomicU64,
    handshakes_failed: AtomicU64,
    complaints: Mutex<Complaints>,
}

/// When the last refusal was logged, and how many were not since.
#[derive(Debug, Default)]
struct Complaints {
    last: Option<Instant>,
    silent: u64,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").field("seats", &self.seats().counts()).finish_non_exhaustive()
    }
}

/// An open connection's place among all; given back when it is dropped.
struct Seat {
    door: Arc<Door>,
    key: PublicKey,
    id: SeatId,
}

impl Door {
    fn seats(&self) -> MutexGuard<'_, Seats<quinn::Connection>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the connection a seat, or says in words why not. An older one may lose its own, and is told why.
    fn admit(
        self: &Arc<Self>,
        quic: &quinn::Connection,
        key: PublicKey,
        theirs: Hello,
    ) -> Result<(Lanes, Seat), Refusal> {
        if let Some(refusal) = self.hello.refuse(theirs) {
            return Err(refusal);
        }
        let Some(lanes) = (self.allow)(&key) else {
            let words = format!("the key {} is not among those that may connect", key.to_hex());
            return Err(Refusal { code: Code::NotAllowed, words });
        };
        let is_client = lanes.contains(Lane::Client);
        let taken = self.seats().take(key, is_client, quic.clone(), &self.limits);
        let (id, displaced) = taken.map_err(|words| Refusal { code: Code::TooMany, words })?;
        if let Some(displaced) = displaced {
            self.displaced.fetch_add(1, Ordering::Relaxed);
            end(&displaced.connection, Code::TooMany, &displaced.words);
        }
        Ok((lanes, Seat { door: Arc::clone(self), key, id }))
    }

    /// Logs a refusal, at most one a second: a stranger must not fill the log.
    fn complain(&self, words: &str, address: std::net::SocketAddr) {
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if complaints.last.is_some_and(|last| now.duration_since(last) < Duration::from_secs(1)) {
            complaints.silent += 1;
            return;
        }
        tracing::warn!(%address, why = words, not_logged = complaints.silent, "refused a connection");
        *complaints = Complaints { last: Some(now), silent: 0 };
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.door.seats().give_back(&self.key, self.id);
    }
}

async fn accept_all(quic: quinn::Endpoint, door: Arc<Door>, accepted: mpsc::Sender<Accepted>) {
    let handshakes = Arc::new(Semaphore::new(door.limits.handshakes_max));
    loop {
        let incoming = tokio::select! {
            biased;
            () = accepted.closed() => break,
            incoming = quic.accept() => incoming,
        };
        let Some(incoming) = incoming else { break };
        let Ok(permit) = Arc::clone(&handshakes).try_acquire_owned() else {
            door.handshakes_failed.fetch_add(1, Ordering::Relaxed);
            incoming.refuse();
            continue;
        };
        let free = handshakes.available_permits();
        let crowded = free < door.limits.handshakes_max - door.limits.handshakes_max / 4;
        if crowded && !incoming.remote_address_validated() && incoming.may_retry() {
            // The peer comes back with a token that proves its address.
            if incoming.retry().is_err() {
                door.handshakes_failed.fetch_add(1, Ordering::Relaxed);
            }
            continue;
        }
        tokio::spawn(let_in(incoming, Arc::clone(&door), accepted.clone(), permit));
    }
    quic.set_server_config(None);
}

/// One handshake, from the first packet to the connection handed out.
async fn let_in(
    incoming: quinn::Incoming,
    door: Arc<Door>,
    accepted: mpsc::Sender<Accepted>,
    permit: OwnedSemaphorePermit,
) {
    let address = incoming.remote_address();
    let outcome = tokio::time::timeout(door.limits.connect_timeout, receive(incoming, &door)).await;
    match outcome {
        Ok(Ok((quic, key, lanes, seat))) => {
            door.accepted.fetch_add(1, Ordering::Relaxed);
            tokio::spawn({
                let quic = quic.clone();
                async move {
                    let why = quic.closed().await;
                    tracing::debug!(%address, peer = %key, why = describe(&why), "a connection ended");
                    drop(seat);
                }
            });
            let budgets = lanes.contains(Lane::Client).then_some(&door.budgets);
            let (connection, inbox) = Connection::start(quic, key, lanes, &door.limits, budgets);
            let handed = accepted.send(Accepted { connection, inbox, _handshake: permit }).await;
            tracing::debug!(%address, peer = %key, taken = handed.is_ok(), "a connection was made");
        }
        Ok(Err(Unmade::Refused(refusal))) => {
            door.refused.fetch_add(1, Ordering::Relaxed);
            door.complain(&refusal.words, address);
        }
        Ok(Err(Unmade::Failed(words))) => {
            door.handshakes_failed.fetch_add(1, Ordering::Relaxed);
            door.complain(&words, address);
        }
        Err(_) => {
            door.handshakes_failed.fetch_add(1, Ordering::Relaxed);
            door.complain("the handshake took too long", address);
        }
    }
}

/// A connection that was not made.
enum Unmade {
    Refused(Refusal),
    Failed(String),
}

async fn receive(
    incoming: quinn::Incoming,
    door: &Arc<Door>,
) -> Result<(quinn::Connection, PublicKey, Lanes, Seat), Unmade> {
    let failed = |error: quinn::ConnectionError| Unmade::Failed(describe(&error));
    let quic = incoming.accept().map_err(failed)?.await.map_err(failed)?;
    let refuse = |refusal: Refusal| {
        refusal.end(&quic);
        Unmade::Refused(refusal)
    };
    let violation = |words: &str| refuse(Refusal { code: Code::Violation, words: words.to_owned() });
    let shown = quic.peer_identity().and_then(|shown| shown.downcast::<Vec<CertificateDer<'static>>>().ok());
    let key = shown.and_then(|shown| shown.first().and_then(|key| public_key(key)));
    let key = key.ok_or_else(|| violation("no Ed25519 identity"))?;
    let (mut send, mut receive) = quic.accept_bi().await.map_err(failed)?;
    let bytes = receive.read_to_end(Hello::BYTES).await.map_err(|_| violation("no hello"))?;
    let theirs = Hello::decode(&bytes).ok_or_else(|| violation("this is no hello of Polder"))?;
    let (lanes, seat) = door.admit(&quic, key, theirs).map_err(refuse)?;
    if send.write_all(&door.hello.encode()).await.is_err() || send.finish().is_err() {
        return Err(Unmade::Failed("the peer left before it was greeted".to_owned()));
    }
    Ok((quic, key, lanes, seat))
}

#[cfg(test)]
mod tests {
    use polder_types::{ClusterId, Digest, SigningKey};

    use super::*;
    use crate::{Config, ConnectError, Endpoint, VERSION, Wiring};

    /// Another version is refused in words, on both sides.
    #[tokio::test]
    async fn another_version_is_refused_in_words() {
        let config = |seed| Config {
            identity: SigningKey::from_seed(&[seed; 32]),
            cluster: ClusterId(Digest([9; 32])),
            limits: Limits::default(),
        };
        let wiring = || Wiring::real(([127, 0, 0, 1], 0).into()).expect("loopback can be bound");
        let allow: Allow = Arc::new(|_| Some(Lanes::CLIENT));
        let newer = Endpoint::listening_as(config(1), wiring(), allow, VERSION + 1);
        let (listening, listener) = newer.expect("an endpoint");
        let dialing = Endpoint::dialing(config(2), wiring()).expect("an endpoint");
        let address = listening.local_address().expect("an address").to_string();
        let outcome = dialing.connect(&address, config(1).identity.public(), Lanes::CLIENT).await;
        let error = outcome.expect_err("refused");
        let words = format!("version {VERSION} was met by version {}", VERSION + 1);
        assert_eq!(error, ConnectError::WrongVersion(words));
        assert_eq!(listener.stats().refused, 1);
    }
}
