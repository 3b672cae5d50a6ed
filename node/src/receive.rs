//! From connections to the loop: one task a connection, which decodes what it reads and waits while the loop has no
//! room, so that the peer's window closes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use polder_transport::{Allow, Connection, Inbox, Lanes, Listener};
use polder_types::{ClientFrame, ClientId, Genesis, PublicKey, ReplicaId, Request, decode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

use crate::replica::PeerMessage;
use crate::weight;

/// Bytes of decoded frames that wait for the loop, or are being received by it.
const INBOUND_BYTES_MAX: u32 = 64 << 20;

/// Frames of one client's connection that are on their way to the loop, or were refused by it lately while the client
/// floods: beyond them the connection is not read.
const TURNS_PER_CONNECTION: usize = 16;

/// For so long nothing is read from a client that has signed badly, on whichever connection (R20).
const SHUNNED: Duration = Duration::from_secs(1);

/// Clients that are shunned at once, at most; beyond them the one that was shunned first is read again.
const SHUNNED_MAX: usize = 4_096;

/// Clients that have signed badly, and until when nothing is read from them.
#[derive(Debug, Default)]
pub(crate) struct Shunned(Mutex<BTreeMap<ClientId, Instant>>);

impl Shunned {
    /// This client has signed badly.
    pub(crate) fn add(&self, client: ClientId) {
        let now = Instant::now();
        let mut shunned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shunned.retain(|_, until| *until > now);
        if shunned.len() >= SHUNNED_MAX
            && let Some(oldest) = shunned.iter().min_by_key(|(_, until)| **until).map(|(client, _)| *client)
        {
            shunned.remove(&oldest);
        }
        shunned.insert(client, now + SHUNNED);
    }

    fn until(&self, client: ClientId) -> Option<Instant> {
        let shunned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shunned.get(&client).copied().filter(|until| *until > Instant::now())
    }
}

/// What is given back when a frame was received: its bytes, and its turn among the frames of its connection.
#[derive(Debug)]
pub(crate) struct Permits {
    _bytes: OwnedSemaphorePermit,
    /// Of a client's connection. One whose frame is refused gets it back with the next tick.
    pub(crate) turn: Option<OwnedSemaphorePermit>,
}

/// The way to the loop: bounded in frames by the channel and in bytes of memory by the permits, which the loop gives
/// back.
#[derive(Clone, Debug)]
pub(crate) struct Inlet {
    inbound: mpsc::Sender<(Inbound, Permits)>,
    bytes: Arc<Semaphore>,
    shunned: Arc<Shunned>,
}

/// The loop has ended.
struct LoopGone;

impl Inlet {
    pub(crate) fn new(inbound: mpsc::Sender<(Inbound, Permits)>, shunned: Arc<Shunned>) -> Self {
        Self { inbound, bytes: Arc::new(Semaphore::new(INBOUND_BYTES_MAX as usize)), shunned }
    }

    /// Waits for room; both waits are first come, first served, so that nobody's flood keeps others out.
    async fn send(&self, next: Inbound, bytes: usize, turn: Option<OwnedSemaphorePermit>) -> Result<(), LoopGone> {
        // Nothing is larger than all there is: it would wait for ever.
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX).min(INBOUND_BYTES_MAX);
        let permit = self.bytes.clone().acquire_many_owned(permits).await.map_err(|_| LoopGone)?;
        self.inbound.send((next, Permits { _bytes: permit, turn })).await.map_err(|_| LoopGone)
    }
}

/// What arrives.
#[derive(Debug)]
pub(crate) enum Inbound {
    /// A replica's message, and the bytes that it takes in memory.
    Peer { from: ReplicaId, message: Box<PeerMessage>, bytes: usize },
    /// A replica sent what is no message.
    BadPeer { from: ReplicaId },
    /// A client has connected.
    Up { id: u64, client: ClientId, connection: Connection },
    /// A client asks something other than a request.
    Client { id: u64, client: ClientId, frame: ClientFrame },
    /// A client's request, its body decoded, its signature not yet checked.
    Request { id: u64, client: ClientId, request: Request, signed: polder_types::SignedRequest },
    /// A client's connection has ended.
    Down { id: u64 },
}

/// Who may connect: the replicas of the configuration, and the clients that it lets in.
pub(crate) fn allow(genesis: &Arc<Genesis>) -> Allow {
    let replicas: std::collections::BTreeSet<PublicKey> =
        genesis.replicas.iter().map(|member| member.identity).collect();
    let clients = genesis.clients.clone();
    Arc::new(move |key| {
        if replicas.contains(key) {
            return Some(Lanes::REPLICA);
        }
        clients.role(ClientId(*key)).map(|_| Lanes::CLIENT)
    })
}

/// Accepts connections until the endpoint is closed.
pub(crate) async fn accept(mut listener: Listener, genesis: Arc<Genesis>, inlet: Inlet) {
    let replicas: BTreeMap<PublicKey, ReplicaId> =
        genesis.replicas.iter().zip(0..).map(|(member, id)| (member.identity, ReplicaId(id))).collect();
    let frame_bytes_max = polder_transport::Limits::new(&genesis.constants).replica_frame_bytes_max;
    let request_bytes_max = usize::try_from(genesis.constants.request_bytes_max).unwrap_or(usize::MAX);
    let mut id = 0;
    while let Some((connection, inbox)) = listener.accept().await {
        match replicas.get(&connection.peer()) {
            Some(from) => {
                tokio::spawn(read_replica(*from, connection, inbox, frame_bytes_max, inlet.clone()));
            }
            None => {
                id += 1;
                tokio::spawn(read_client(id, connection, inbox, request_bytes_max, inlet.clone()));
            }
        }
    }
}

async fn read_replica(from: ReplicaId, connection: Connection, mut inbox: Inbox, frame_bytes_max: usize, inlet: Inlet) {
    tracing::debug!(%from, "a replica has connected");
    while let Some((_, frame)) = inbox.recv().await {
        let next = peer_frame(from, &frame, frame_bytes_max);
        let bytes = match &next {
            Inbound::Peer { bytes, .. } => *bytes,
            _ => {
                connection.close("that is no message");
                frame.len()
            }
        };
        drop(frame);
        if inlet.send(next, bytes, None).await.is_err() {
            return;
        }
    }
}

/// Decodes a replica's frame.
fn peer_frame(from: ReplicaId, frame: &[u8], frame_bytes_max: usize) -> Inbound {
    match decode::<PeerMessage>(frame, frame_bytes_max) {
        Ok(message) => Inbound::Peer { from, bytes: weight::of_peer(&message), message: Box::new(message) },
        Err(error) => {
            tracing::debug!(%from, %error, "a replica sent what is no message");
            Inbound::BadPeer { from }
        }
    }
}

async fn read_client(id: u64, connection: Connection, mut inbox: Inbox, request_bytes_max: usize, inlet: Inlet) {
    let client = ClientId(connection.peer());
    if inlet.send(Inbound::Up { id, client, connection: connection.clone() }, 0, None).await.is_err() {
        return;
    }
    let turns = Arc::new(Semaphore::new(TURNS_PER_CONNECTION));
    loop {
        // R20: who signed badly comes back for nothing.
        if let Some(until) = inlet.shunned.until(client) {
            tokio::select! {
                biased;
                // What came before it was closed is not looked at.
                _ended = connection.closed() => break,
                () = tokio::time::sleep_until(until) => {}
            }
        }
        let Ok(turn) = turns.clone().acquire_owned().await else { break };
        let Some((_, frame)) = inbox.recv().await else { break };
        let next = match client_frame(id, client, &frame, request_bytes_max) {
            Ok(next) => next,
            Err(why) => {
                tracing::debug!(%client, why, "a client's frame is refused");
                connection.close(why);
                break;
            }
        };
        let weight = frame.len()
            + match &next {
                Inbound::Request { request, .. } => weight::of_request(request),
                _ => 0,
            };
        drop(frame);
        if inlet.send(next, weight, Some(turn)).await.is_err() {
            return;
        }
    }
    // When the loop is gone there is nobody to tell.
    let _loop_is_gone = inlet.send(Inbound::Down { id }, 0, None).await;
}

/// Decodes a client's frame; an error is what the client is told when its connection is closed.
fn client_frame(id: u64, client: ClientId, frame: &[u8], request_bytes_max: usize) -> Result<Inbound, &'static str> {
    match decode::<ClientFrame>(frame, usize::MAX).map_err(|_| "that is no frame of a client")? {
        ClientFrame::Request(signed) => {
            if signed.bytes() > request_bytes_max {
                return Err("the request is larger than a request may be");
            }
            let request = signed.request().map_err(|_| "the request's body is no request")?;
            if request.client != client {
                return Err("the request is of another client than the connection");
            }
            Ok(Inbound::Request { id, client, request, signed })
        }
        frame @ (ClientFrame::Where | ClientFrame::Attach(_) | ClientFrame::Status) => {
            Ok(Inbound::Client { id, client, frame })
        }
    }
}

#[cfg(test)]
mod tests {
    use polder_types::{Call, ClientAccess, ClientKey, ClusterId, Digest, Role, Seq, SigningKey, encode};

    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32])
    }

    fn open(by: &SigningKey) -> Vec<u8> {
        let request = Request { client: ClientId(by.public()), call: Call::Open { nonce: [1; 16], cut: Seq::ZERO } };
        encode(&ClientFrame::Request(request.sign(ClusterId(Digest::ZERO), by)))
    }

    #[test]
    fn a_client_may_send_its_own_requests_only() {
        let client = ClientId(key(1).public());
        assert!(matches!(client_frame(1, client, &open(&key(1)), 10_000), Ok(Inbound::Request { .. })));
        let other = client_frame(1, client, &open(&key(2)), 10_000);
        assert_eq!(other.err(), Some("the request is of another client than the connection"));
    }

    #[test]
    fn what_is_too_large_or_no_request_is_refused_in_words() {
        let client = ClientId(key(1).public());
        assert!(client_frame(1, client, &open(&key(1)), 50).is_err_and(|why| why.contains("larger")));
        assert!(client_frame(1, client, &[9, 9, 9], 50).is_err());
        let signature = key(1).sign(b"");
        let junk = polder_types::SignedRequest { body: polder_types::Blob::copy(b"junk"), signature };
        let frame = encode(&ClientFrame::Request(junk));
        assert!(client_frame(1, client, &frame, 10_000).is_err_and(|why| why.contains("no request")));
    }

    /// What waits is bounded by the memory that it takes, and small things on the wire take more.
    #[test]
    fn a_replicas_message_counts_by_the_memory_that_it_takes() {
        let frame = encode(&crate::weight::tests::status(1_000));
        let received = peer_frame(ReplicaId(1), &frame, usize::MAX);
        let Inbound::Peer { bytes, .. } = received else { unreachable!("{received:?}") };
        assert!(
            frame.len() < 5_000 && bytes > 1_000 * size_of::<polder_consensus::SlotStatus>(),
            "{} as {bytes}",
            frame.len()
        );
        assert!(matches!(peer_frame(ReplicaId(1), &frame[1..], usize::MAX), Inbound::BadPeer { .. }));
    }

    #[test]
    fn who_may_connect_is_what_the_configuration_says() {
        let member = polder_types::Member { identity: key(1).public(), signing: key(2).public() };
        let listed = ClientKey { key: key(3).public(), role: Role::Read };
        let mut genesis = Genesis {
            nonce: Default::default(),
            replicas: vec![member],
            fault_model: polder_types::FaultModel::Crash,
            constants: Default::default(),
            clients: ClientAccess { open: false, keys: vec![listed] },
        };
        let closed = allow(&Arc::new(genesis.clone()));
        assert_eq!(closed(&key(1).public()), Some(Lanes::REPLICA));
        assert_eq!(closed(&key(2).public()), None, "a signing key is no identity");
        assert_eq!(closed(&key(3).public()), Some(Lanes::CLIENT));
        assert_eq!(closed(&key(4).public()), None);
        genesis.clients.open = true;
        assert_eq!(allow(&Arc::new(genesis))(&key(4).public()), Some(Lanes::CLIENT));
    }
}
