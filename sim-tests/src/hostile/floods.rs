//! Those who flood. Each runs until it is dropped, with a key of its own, against the first node or all of them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use polder_consensus::{Fetch, Message, StatusMessage};
use polder_kv::KvClient;
use polder_node::replica::{Mark, PeerMessage};
use polder_transport::{Connection, Endpoint, Inbox, Lane, Lanes, Wiring};
use polder_types::{
    Answer, Batch, Blob, Call, ClientFrame, ClientId, ClusterFile, Digest, NodeFrame, ReplicaEntry, Request, Seq,
    SessionId, SigningKey, decode, encode,
};

use super::silent::Silent;
use super::{client_key, dialer, identity};

/// Whom it is aimed at.
pub type Victim = Arc<ClusterFile>;

/// A flood on its way.
pub type Flooding = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One kind of flood.
#[derive(Clone, Copy)]
pub struct Flood {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub what: &'static str,
    /// Whether it comes from a replica, whose node must not run then: the last one.
    pub is_replica: bool,
    /// Starts it.
    pub start: fn(Victim) -> Flooding,
}

/// All of them.
pub const FLOODS: &[Flood] = &[
    Flood {
        name: "handshakes",
        what: "connects and leaves, as often as it can, each time with another key",
        is_replica: false,
        start: |victim| Box::pin(many(32, victim, handshakes)),
    },
    Flood {
        name: "half-open",
        what: "begins handshakes and falls silent at any point of them",
        is_replica: false,
        start: |victim| Box::pin(many(64, victim, half_open)),
    },
    Flood {
        name: "giant-frames",
        what: "sends frames of 64 MiB",
        is_replica: false,
        start: |victim| Box::pin(many(8, victim, giant_frames)),
    },
    Flood {
        name: "trickle",
        what: "many connections, each with a large frame that never ends",
        is_replica: false,
        start: |victim| Box::pin(many(48, victim, trickle)),
    },
    Flood {
        name: "requests",
        what: "sends good requests to every replica, as fast as they are taken",
        is_replica: false,
        start: |victim| Box::pin(requests(victim)),
    },
    Flood {
        name: "eager",
        what: "a thousand callers of one honest client, which puts as much as it may",
        is_replica: false,
        start: |victim| Box::pin(eager(victim)),
    },
    Flood {
        name: "questions",
        what: "asks where the nodes are and how, on many connections, as fast as it is taken, and reads the answers",
        is_replica: false,
        start: |victim| Box::pin(many(16, victim, questions)),
    },
    Flood {
        name: "bad-signatures",
        what: "signs badly, and comes back as often as it is turned out",
        is_replica: false,
        start: |victim| Box::pin(many(4, victim, bad_signatures)),
    },
    Flood {
        name: "never-reads",
        what: "asks for much, and reads nothing of it",
        is_replica: false,
        start: |victim| Box::pin(never_reads(victim)),
    },
    Flood {
        name: "replica",
        what: "a replica that sends what is valid and of no use, as fast as it is taken",
        is_replica: true,
        start: |victim| Box::pin(replica(victim)),
    },
];

/// The same, so many at once.
async fn many<F>(times: u32, victim: Victim, one: fn(u32, Victim) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    // Dropped with this future.
    let mut set = tokio::task::JoinSet::new();
    for number in 0..times {
        set.spawn(one(number, victim.clone()));
    }
    while set.join_next().await.is_some() {}
}

/// Something that goes wrong in a flood is no reason to stop, but for a moment, lest a loop of failures burns the machine
/// that the others are measured on.
async fn breathe() {
    let mut moment = tokio::time::interval(Duration::from_millis(20));
    moment.tick().await;
    moment.tick().await;
}

fn first(victim: &ClusterFile) -> Option<&ReplicaEntry> {
    victim.replicas.first()
}

async fn handshakes(number: u32, victim: Victim) {
    for again in 0_u32.. {
        let key = client_key(1_000_000 + number * 10_000 + again % 10_000);
        let Ok(endpoint) =
            Wiring::real_dialing().map_err(drop).and_then(|wiring| dialer(&victim, key, wiring, false).map_err(drop))
        else {
            breathe().await;
            continue;
        };
        let Some(entry) = first(&victim) else { return };
        if endpoint.connect(&entry.address, entry.identity, Lanes::CLIENT).await.is_err() {
            breathe().await;
        }
    }
}

async fn half_open(number: u32, victim: Victim) {
    for again in 0_u32.. {
        let key = client_key(2_000_000 + number);
        // One packet of a handshake, or two, up to the hello.
        let bytes = 1_200 * (1 + (number + again) as usize % 6);
        let Ok(wiring) = Wiring::real_dialing() else { return };
        let Ok(endpoint) = dialer(&victim, key, Silent::after(wiring, bytes, 0), false) else { return };
        let Some(entry) = first(&victim) else { return };
        // It waits for answers that it does not answer.
        drop(endpoint.connect(&entry.address, entry.identity, Lanes::CLIENT).await);
    }
}

async fn connected(
    victim: &ClusterFile,
    key: SigningKey,
    replica: usize,
    wide: bool,
) -> Option<(Endpoint, Connection, Inbox)> {
    let endpoint = dialer(victim, key, Wiring::real_dialing().ok()?, wide).ok()?;
    let entry = victim.replicas.get(replica)?;
    let (connection, inbox) = endpoint.connect(&entry.address, entry.identity, Lanes::CLIENT).await.ok()?;
    Some((endpoint, connection, inbox))
}

async fn giant_frames(number: u32, victim: Victim) {
    let giant = Bytes::from(vec![0; 64 << 20]);
    loop {
        let Some((_endpoint, connection, _inbox)) = connected(&victim, client_key(3_000_000 + number), 0, true).await
        else {
            breathe().await;
            continue;
        };
        let _ended = connection.send(Lane::Client, giant.clone()).await;
        drop(connection.closed().await);
    }
}

async fn trickle(number: u32, victim: Victim) {
    loop {
        let key = client_key(4_000_000 + number / 24);
        let Ok(wiring) = Wiring::real_dialing() else { return };
        // Most of a frame leaves at once; after that one packet in a hundred.
        let Ok(endpoint) = dialer(&victim, key, Silent::after(wiring, 1_300_000, 100), false) else { return };
        let Some(entry) = first(&victim) else { return };
        let Ok((connection, _inbox)) = endpoint.connect(&entry.address, entry.identity, Lanes::CLIENT).await else {
            breathe().await;
            continue;
        };
        let _ended = connection.send(Lane::Client, Bytes::from(vec![0; 1_300_000])).await;
        drop(connection.closed().await);
    }
}

async fn questions(number: u32, victim: Victim) {
    let frames = [ClientFrame::Where, ClientFrame::Status].map(|frame| Bytes::from(encode(&frame)));
    loop {
        let replica = number as usize % victim.replicas.len().max(1);
        let Some((_endpoint, connection, mut inbox)) = connected(&victim, client_key(10_000_000), replica, false).await
        else {
            breathe().await;
            continue;
        };
        let asking = async {
            for frame in frames.iter().cycle() {
                if connection.send(Lane::Client, frame.clone()).await.is_err() {
                    return;
                }
            }
        };
        let reading = async { while inbox.recv().await.is_some() {} };
        tokio::join!(asking, reading);
    }
}

/// A client of its own making: connections to all, and a session.
struct Client {
    key: SigningKey,
    cluster: polder_types::ClusterId,
    _endpoint: Endpoint,
    connections: Vec<Connection>,
    inboxes: Vec<Inbox>,
    session: SessionId,
}

impl Client {
    async fn open(victim: &ClusterFile, key: SigningKey) -> Option<Self> {
        let endpoint = dialer(victim, key.clone(), Wiring::real_dialing().ok()?, false).ok()?;
        let (mut connections, mut inboxes) = (Vec::new(), Vec::new());
        for entry in &victim.replicas {
            let (connection, inbox) = endpoint.connect(&entry.address, entry.identity, Lanes::CLIENT).await.ok()?;
            connections.push(connection);
            inboxes.push(inbox);
        }
        let cluster = victim.genesis().cluster();
        let session = SessionId::default();
        let mut this = Self { key, cluster, _endpoint: endpoint, connections, inboxes, session };
        // Every replica says where it is, unasked.
        let (_, at) = this.inboxes.first_mut()?.recv().await?;
        let Ok(NodeFrame::At { cut, .. }) = decode(&at, usize::MAX) else { return None };
        let nonce: [u8; 16] = std::array::from_fn(|index| this.key.public().0[index]);
        let open = this.sign(Call::Open { nonce, cut });
        for connection in &this.connections {
            let _ended = connection.try_send(Lane::Client, open.clone());
        }
        while let Some((_, frame)) = this.inboxes.first_mut()?.recv().await {
            if let Ok(NodeFrame::Replies(replies)) = decode(&frame, usize::MAX)
                && let Some(Answer::Opened(session)) = replies.first().map(|reply| &reply.answer)
            {
                this.session = *session;
                return Some(this);
            }
        }
        None
    }

    fn sign(&self, call: Call) -> Bytes {
        let request = Request { client: ClientId(self.key.public()), call }.sign(self.cluster, &self.key);
        Bytes::from(encode(&ClientFrame::Request(request)))
    }

    fn commands(&self, first: u64, ack: u64, commands: Vec<Blob>) -> Bytes {
        self.sign(Call::Commands { session: self.session, ack, first, commands })
    }
}

/// Sixteen puts a request, as an honest client packs them, and as many requests as the transport takes.
async fn requests(victim: Victim) {
    let Some(mut client) = Client::open(&victim, client_key(5_000_000)).await else { return };
    let put = polder_kv::Command::put(b"flood", &[1; 64]).map(|command| Blob::from(encode(&command)));
    let Ok(put) = put else { return };
    let (mut first, mut answered) = (1_u64, 0_u64);
    loop {
        let ack = answered.min(first - 1);
        let frame = client.commands(first, ack, vec![put.clone(); 16]);
        // Beyond the window nothing is executed: then the same numbers come again.
        first = if first + 16 > ack + 1_000 { ack + 1 } else { first + 16 };
        for connection in &client.connections {
            let _ended = connection.send(Lane::Client, frame.clone()).await;
        }
        for inbox in &mut client.inboxes {
            while let Some((_, frame)) = inbox.try_recv() {
                if let Ok(NodeFrame::Replies(replies)) = decode(&frame, usize::MAX) {
                    answered = replies.iter().map(|reply| reply.number).fold(answered, u64::max);
                }
            }
        }
        tokio::task::yield_now().await;
    }
}

/// It does what it is told; there is only a great deal of it.
async fn eager(victim: Victim) {
    let Ok(client) = KvClient::connect(ClusterFile::clone(&victim), client_key(9_000_000)).await else { return };
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..1_000 {
        let client = client.clone();
        callers.spawn(async move { while client.put(b"eager", &[1; 128]).await.is_ok() {} });
    }
    while callers.join_next().await.is_some() {}
}

/// Every connection brings as many bad requests as are taken before it is ended.
async fn bad_signatures(number: u32, victim: Victim) {
    let key = client_key(6_000_000);
    let cluster = victim.genesis().cluster();
    let replica = number as usize % victim.replicas.len();
    let frames: Vec<Bytes> = (0..64_u64)
        .map(|first| {
            let commands = vec![Blob::copy(&[1; 64]); 4];
            let call = Call::Commands { session: SessionId::default(), ack: first, first: first + 1, commands };
            let mut request = Request { client: ClientId(key.public()), call }.sign(cluster, &key);
            request.signature.0[7] ^= 1;
            Bytes::from(encode(&ClientFrame::Request(request)))
        })
        .collect();
    loop {
        let Some((_endpoint, connection, _inbox)) = connected(&victim, key.clone(), replica, false).await else {
            breathe().await;
            continue;
        };
        for frame in frames.iter().cycle() {
            if connection.send(Lane::Client, frame.clone()).await.is_err() {
                break;
            }
        }
    }
}

/// Writes a large value, then asks for it again and again.
async fn never_reads(victim: Victim) {
    let Some(client) = Client::open(&victim, client_key(7_000_000)).await else { return };
    let encoded = |command: Result<polder_kv::Command, polder_kv::KvError>| {
        command.map(|command| Blob::from(encode(&command))).unwrap_or_default()
    };
    let put = encoded(polder_kv::Command::put(b"large", &[3; 512 << 10]));
    let get = encoded(polder_kv::Command::get(b"large"));
    for first in 1_u64.. {
        let command = if first == 1 { put.clone() } else { get.clone() };
        let frame = client.commands(first, first - 1, vec![command]);
        for connection in &client.connections {
            let _ended = connection.send(Lane::Client, frame.clone()).await;
        }
        // Nothing is read: whether it was executed is not known, so each is given a moment.
        let mut moment = tokio::time::interval(Duration::from_millis(2));
        moment.tick().await;
        moment.tick().await;
    }
}

/// The last replica's node does not run; its key says this instead.
async fn replica(victim: Victim) {
    let last = victim.replicas.len().saturating_sub(1) as u8;
    let Some(entry) = first(&victim) else { return };
    let Some(wiring) = Wiring::real_dialing().ok() else { return };
    let Ok(endpoint) = dialer(&victim, identity(last), wiring, false) else { return };
    let cluster = victim.genesis().cluster();
    // Requests that a client signed, forwarded; STATUSes that lack everything; questions that cost an answer; a batch
    // that nobody asked for.
    let key = client_key(8_000_000);
    let say = |message: Message| Bytes::from(encode(&PeerMessage::Ordering(message, Mark::default())));
    let mut frames: Vec<Bytes> = (1..=512_u64)
        .map(|first| {
            let call =
                Call::Commands { session: SessionId::default(), ack: 0, first, commands: vec![Blob::copy(&[1; 64])] };
            say(Message::Request(Request { client: ClientId(key.public()), call }.sign(cluster, &key)))
        })
        .collect();
    let status = StatusMessage::default();
    let junk = Batch { ts: polder_types::Timestamp(1), requests: Vec::new() };
    frames.extend((0..64).map(|_| say(Message::Status(status.clone()))));
    frames.extend((0..64).map(|slot| say(Message::Fetch(Fetch::Committed(Seq(slot))))));
    frames.extend((0..64).map(|_| say(Message::Fetch(Fetch::Body(Digest::ZERO)))));
    frames.extend((0..16).map(|_| say(Message::Body(junk.to_blob()))));
    frames.extend((0..4).map(|_| say(Message::Body(Blob::from(vec![0; 1 << 20])))));
    loop {
        let Ok((connection, _inbox)) = endpoint.connect(&entry.address, entry.identity, Lanes::REPLICA).await else {
            breathe().await;
            continue;
        };
        for frame in frames.iter().cycle() {
            if connection.send(Lane::Ordering, frame.clone()).await.is_err() {
                break;
            }
        }
    }
}
