//! Whole nodes over real sockets, with stores in memory: with threads of their own, and with none, as in a simulation.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use polder_checkpoint::{Durability, Family, MemStore, Rows, Store, StoreError, Writes};
use polder_executor::{Access, Footprint, Service, Span};
use polder_node::replica::Start;
use polder_node::{Node, NodeConfig, NodeError, Stores, Threads};
use polder_transport::{Config, Connection, Endpoint, Inbox, Lane, Lanes, Limits, Wiring};
use polder_types::{
    Answer, Application, Blob, Call, ClientAccess, ClientFrame, ClientId, ClusterFile, Constants, FaultModel,
    NodeFrame, ReplicaEntry, ReplicaId, Reply, Request, Seq, Signature, SignedRequest, SigningKey, Timestamp, decode,
    encode,
};

/// Longer than anything here takes, unless it is stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// A store in memory whose writes wait while it is stalled.
#[derive(Default)]
struct Stalling {
    store: MemStore,
    is_stalled: Mutex<bool>,
    changed: Condvar,
}

impl Stalling {
    fn stall(&self, is_stalled: bool) {
        *self.is_stalled.lock().unwrap() = is_stalled;
        self.changed.notify_all();
    }
}

impl Store for Stalling {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.get(family, key)
    }

    fn scan(&self, family: Family, from: &[u8], to: &[u8], limit: usize) -> Result<Rows, StoreError> {
        self.store.scan(family, from, to, limit)
    }

    fn apply(&self, writes: &Writes, durability: Durability) -> Result<(), StoreError> {
        drop(self.changed.wait_while(self.is_stalled.lock().unwrap(), |is_stalled| *is_stalled).unwrap());
        self.store.apply(writes, durability)
    }

    fn bytes_on_disk(&self) -> u64 {
        self.store.bytes_on_disk()
    }

    fn free_bytes(&self) -> Option<u64> {
        self.store.free_bytes()
    }
}

/// From this number on a command of [`Counter`] also writes [`LARGE_BYTES`].
const LARGE: u64 = 1_000_000;
const LARGE_BYTES: usize = 3 << 20;

/// One counter: a command adds to it and is answered the sum.
#[derive(Default)]
struct Counter;

impl Application for Counter {
    type Command = u64;
    type Reply = u64;
}

impl Service for Counter {
    fn footprint(&self, _: &u64) -> Footprint {
        Footprint::writes(vec![Span::Key(b"sum".to_vec()), Span::Key(b"large".to_vec())])
    }

    fn execute(&self, _: Timestamp, add: &u64, state: &mut Access<'_>) -> u64 {
        let before = state.get(b"sum").map_or(0, |entry| decode::<u64>(&entry.value, 10).unwrap());
        state.put(b"sum", Blob::from(encode(&(before + add))));
        if *add >= LARGE {
            state.put(b"large", Blob::from(vec![0; LARGE_BYTES]));
        }
        before + add
    }
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

/// Four nodes, and what a client needs to know.
struct Net {
    cluster: ClusterFile,
    nodes: Vec<Node>,
    logs: Vec<Arc<MemStore>>,
    states: Vec<Arc<Stalling>>,
}

impl Net {
    fn start(threads: Threads, change: impl FnOnce(&mut Constants)) -> Self {
        let wirings: Vec<Wiring> = (0..4).map(|_| Wiring::real(([127, 0, 0, 1], 0).into()).unwrap()).collect();
        let entry = |(id, wiring): (u8, &Wiring)| ReplicaEntry {
            address: wiring.socket.local_addr().unwrap().to_string(),
            identity: key(10 + id).public(),
            signing: key(20 + id).public(),
        };
        let mut constants = Constants::default();
        change(&mut constants);
        let cluster = ClusterFile {
            nonce: Default::default(),
            fault_model: FaultModel::Byzantine,
            constants,
            clients: ClientAccess { open: true, keys: Vec::new() },
            replicas: (0..).zip(&wirings).map(entry).collect(),
        };
        let logs: Vec<Arc<MemStore>> = (0..4).map(|_| Arc::default()).collect();
        let states: Vec<Arc<Stalling>> = (0..4).map(|_| Arc::default()).collect();
        let nodes = (0..).zip(wirings).zip(logs.iter().zip(&states)).map(|((id, wiring), (log, state))| {
            let config = NodeConfig {
                me: ReplicaId(id),
                cluster: cluster.clone(),
                identity: key(10 + id),
                signing: key(20 + id),
                pipeline_slots: 4,
                start: Start::Genesis,
                nonce: id.into(),
                threads,
                disk_reserve_bytes: 1 << 20,
                wall_clock: Arc::new(|| Timestamp(1_000)),
            };
            let stores = Stores { log: log.clone() as Arc<dyn Store>, state: state.clone() as Arc<dyn Store> };
            Node::start(&config, Arc::new(Counter), wiring, stores, || Ok(())).unwrap()
        });
        Self { nodes: nodes.collect(), cluster, logs, states }
    }

    async fn wait_until_ready(&self) {
        for node in &self.nodes {
            let mut report = node.report();
            let ready = report.wait_for(|report| report.as_ref().is_some_and(|report| report.ready().is_ok()));
            tokio::time::timeout(PATIENCE, ready).await.unwrap().unwrap();
        }
    }

    async fn client(&self, seed: u8) -> Client {
        let cluster = self.cluster.genesis().cluster();
        let config = Config { identity: key(seed), cluster, limits: Limits::new(&self.cluster.constants) };
        let endpoint = Endpoint::dialing(config, Wiring::real_dialing().unwrap()).unwrap();
        let mut connections = Vec::new();
        for entry in &self.cluster.replicas {
            let connected = endpoint.connect(&entry.address, entry.identity, Lanes::CLIENT).await.unwrap();
            connections.push(connected);
        }
        Client { key: key(seed), cluster, connections, _endpoint: endpoint }
    }
}

/// A client that does nothing by itself.
struct Client {
    key: SigningKey,
    cluster: polder_types::ClusterId,
    connections: Vec<(Connection, Inbox)>,
    _endpoint: Endpoint,
}

impl Client {
    fn sign(&self, call: Call) -> SignedRequest {
        Request { client: ClientId(self.key.public()), call }.sign(self.cluster, &self.key)
    }

    fn send(&self, replica: usize, frame: &ClientFrame) {
        self.connections[replica].0.try_send(Lane::Client, Bytes::from(encode(frame))).unwrap();
    }

    async fn next(&mut self, replica: usize) -> Option<NodeFrame> {
        let frame = tokio::time::timeout(PATIENCE, self.connections[replica].1.recv()).await.unwrap();
        frame.map(|(_, frame)| decode(&frame, usize::MAX).unwrap())
    }

    /// The first reply that a replica sends.
    async fn reply(&mut self, replica: usize) -> Reply {
        loop {
            if let NodeFrame::Replies(mut replies) = self.next(replica).await.unwrap() {
                assert_eq!(replies.len(), 1);
                return replies.remove(0);
            }
        }
    }
}

async fn four_nodes_answer_alike(threads: Threads) {
    let net = Net::start(threads, |constants| constants.interval_slots = 2);
    net.wait_until_ready().await;
    let mut client = net.client(1).await;
    // Sent to the leader alone; every replica answers.
    client.send(0, &ClientFrame::Request(client.sign(Call::Open { nonce: [7; 16], cut: Seq::ZERO })));
    let opened = client.reply(0).await.answer;
    let Answer::Opened(session) = opened else { unreachable!("{opened:?}") };
    for replica in 1..4 {
        assert_eq!(client.reply(replica).await.answer, opened);
    }
    for number in 1..=10u64 {
        let commands = vec![Blob::from(encode(&number))];
        let call = Call::Commands { session, ack: number - 1, first: number, commands };
        client.send(0, &ClientFrame::Request(client.sign(call)));
        let sum = Answer::Done(Blob::from(encode(&(number * (number + 1) / 2))));
        for replica in 0..4 {
            assert_eq!(client.reply(replica).await.answer, sum);
        }
    }
    // Cuts were certified, and what a client is told of them comes from the same report.
    for node in &net.nodes {
        let mut report = node.report();
        let stable = report.wait_for(|report| report.as_ref().is_some_and(|report| report.status.stable >= Seq(8)));
        tokio::time::timeout(PATIENCE, stable).await.unwrap().unwrap();
    }
    for mut node in net.nodes {
        node.stop();
        tokio::time::timeout(PATIENCE, node.ended()).await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn four_nodes_with_threads_of_their_own_answer_alike_and_end_when_told() {
    four_nodes_answer_alike(Threads::Own { verify: 2 }).await;
}

#[tokio::test]
async fn four_nodes_without_threads_answer_alike_and_end_when_told() {
    four_nodes_answer_alike(Threads::Inline).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r20_a_bad_signature_closes_the_channel_and_disturbs_nobody() {
    let net = Net::start(Threads::Own { verify: 1 }, |_| {});
    net.wait_until_ready().await;
    let (mut liar, mut other) = (net.client(1).await, net.client(2).await);
    for replica in 0..4 {
        let mut request = liar.sign(Call::Open { nonce: [1; 16], cut: Seq::ZERO });
        request.signature = Signature([3; 64]);
        liar.send(replica, &ClientFrame::Request(request));
        while liar.next(replica).await.is_some() {}
        let ended = tokio::time::timeout(PATIENCE, liar.connections[replica].0.closed()).await.unwrap().to_string();
        assert!(ended.contains("the signature does not verify"), "{ended}");
    }
    other.send(0, &ClientFrame::Request(other.sign(Call::Open { nonce: [2; 16], cut: Seq::ZERO })));
    assert!(matches!(other.reply(3).await.answer, Answer::Opened(_)));
    for node in &net.nodes {
        assert_eq!(node.report().borrow().as_ref().unwrap().status.core.view_changes, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_says_where_and_how_it_is() {
    let net = Net::start(Threads::Own { verify: 1 }, |_| {});
    net.wait_until_ready().await;
    let mut client = net.client(1).await;
    assert!(matches!(client.next(2).await, Some(NodeFrame::At { cut: Seq::ZERO, .. })), "unasked");
    client.send(2, &ClientFrame::Status);
    let Some(NodeFrame::Status(status)) = client.next(2).await else { unreachable!() };
    assert_eq!((status.replica, status.is_leader, status.is_ready()), (ReplicaId(2), false, true));
}

/// A replica that no connection of the key asked answers the newest alone, and one that was asked answers where it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_reply_goes_to_the_connection_that_asked_or_to_the_newest() {
    let net = Net::start(Threads::Own { verify: 1 }, |_| {});
    net.wait_until_ready().await;
    let (mut older, mut newer) = (net.client(1).await, net.client(1).await);
    for replica in 0..4 {
        // Both are known there.
        assert!(matches!(older.next(replica).await, Some(NodeFrame::At { .. })));
        assert!(matches!(newer.next(replica).await, Some(NodeFrame::At { .. })));
    }
    older.send(0, &ClientFrame::Request(older.sign(Call::Open { nonce: [7; 16], cut: Seq::ZERO })));
    let opened = older.reply(0).await.answer;
    assert_eq!(newer.reply(1).await.answer, opened);
    // The older one hears of it no more than what it asks for.
    older.send(1, &ClientFrame::Status);
    assert!(matches!(older.next(1).await, Some(NodeFrame::Status(_))));
}

/// A quorum that needs a replica whose state store stalls goes on ordering: images and effects never stand in front of a
/// vote.
#[tokio::test(flavor = "multi_thread")]
async fn r19_votes_go_on_while_the_state_store_stalls() {
    let mut net = Net::start(Threads::Own { verify: 1 }, |_| {});
    net.wait_until_ready().await;
    let mut client = net.client(1).await;
    client.send(0, &ClientFrame::Request(client.sign(Call::Open { nonce: [7; 16], cut: Seq::ZERO })));
    let Answer::Opened(session) = client.reply(0).await.answer else { unreachable!() };
    net.nodes[3].stop();
    tokio::time::timeout(PATIENCE, net.nodes[3].ended()).await.unwrap().unwrap();
    net.states[1].stall(true);
    // More than may wait for the disk before new requests do.
    for number in 1..=30u64 {
        let commands = vec![Blob::from(encode(&LARGE))];
        let call = Call::Commands { session, ack: number - 1, first: number, commands };
        client.send(0, &ClientFrame::Request(client.sign(call)));
        assert!(matches!(client.reply(0).await.answer, Answer::Done(_)));
    }
    // The stalled one says so to clients.
    let call = Call::Commands { session, ack: 30, first: 31, commands: vec![Blob::from(encode(&LARGE))] };
    client.send(1, &ClientFrame::Request(client.sign(call)));
    while !matches!(client.next(1).await, Some(NodeFrame::Busy { .. })) {}
    net.states[1].stall(false);
}

impl Net {
    /// From now on so much is free on a replica's disk; waits until the replica says it.
    async fn set_free(&self, replica: usize, bytes: u64) {
        self.states[replica].store.set_free_bytes(Some(bytes));
        let mut report = self.nodes[replica].report();
        let said = report.wait_for(|report| {
            let space = report.as_ref().and_then(|report| report.space);
            space.is_some_and(|space| space.free_bytes == bytes)
        });
        tokio::time::timeout(PATIENCE, said).await.unwrap().unwrap();
    }
}

/// C10: a leader without space takes no commands, from clients or from others, and is replaced by one that has some; with
/// no space anywhere nothing is taken and nobody is blamed; and all of it ends by itself.
#[tokio::test(flavor = "multi_thread")]
async fn c10_who_is_short_of_space_takes_no_new_commands_until_there_is_some() {
    let net = Net::start(Threads::Own { verify: 1 }, |constants| constants.timeout_first_ms = 200);
    net.wait_until_ready().await;
    let mut client = net.client(1).await;
    let open = |nonce| Call::Open { nonce: [nonce; 16], cut: Seq::ZERO };
    net.set_free(0, (1 << 20) - 1).await;
    let why = net.nodes[0].report().borrow().as_ref().unwrap().ready().unwrap_err();
    assert!(why.contains("disk_reserve_bytes wants 1 MiB") && why.contains("takes no new commands"), "{why}");
    client.send(0, &ClientFrame::Request(client.sign(open(1))));
    while !matches!(client.next(0).await, Some(NodeFrame::Busy { .. })) {}
    for replica in 1..4 {
        client.send(replica, &ClientFrame::Request(client.sign(open(1))));
    }
    // It executes what another orders, and answers from what it knows.
    for replica in 0..4 {
        assert!(matches!(client.reply(replica).await.answer, Answer::Opened(_)));
    }
    client.send(0, &ClientFrame::Request(client.sign(open(1))));
    assert!(matches!(client.reply(0).await.answer, Answer::Opened(_)));

    for replica in 1..4 {
        net.set_free(replica, 0).await;
    }
    let views = || net.nodes.iter().map(|node| node.report().borrow().as_ref().unwrap().status.core.view_changes);
    let before: Vec<u64> = views().collect();
    for replica in 0..4 {
        client.send(replica, &ClientFrame::Request(client.sign(open(2))));
        while !matches!(client.next(replica).await, Some(NodeFrame::Busy { .. })) {}
    }
    for replica in 0..4 {
        net.set_free(replica, 2 << 20).await;
    }
    assert_eq!(views().collect::<Vec<_>>(), before);
    net.wait_until_ready().await;
    for replica in 0..4 {
        client.send(replica, &ClientFrame::Request(client.sign(open(2))));
    }
    for replica in 0..4 {
        assert!(matches!(client.reply(replica).await.answer, Answer::Opened(_)));
    }
}

/// R19: nothing is retried over a failed write, and the others go on.
async fn a_failed_write_ends_the_node(threads: Threads) {
    let mut net = Net::start(threads, |_| {});
    net.wait_until_ready().await;
    let mut client = net.client(1).await;
    // Also while nothing is asked a replica may have something to write: only now, or the client finds nobody.
    net.logs[3].fail_at(1);
    client.send(0, &ClientFrame::Request(client.sign(Call::Open { nonce: [7; 16], cut: Seq::ZERO })));
    let ended = tokio::time::timeout(PATIENCE, net.nodes[3].ended()).await.unwrap();
    assert!(matches!(ended, Err(NodeError::Store(_))), "{ended:?}");
    // The process may end now: no thread is inside a store any more.
    assert_eq!([Arc::strong_count(&net.logs[3]), Arc::strong_count(&net.states[3])], [1, 1]);
    for replica in 0..3 {
        assert!(matches!(client.reply(replica).await.answer, Answer::Opened(_)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r19_a_failed_write_ends_a_node_with_threads() {
    a_failed_write_ends_the_node(Threads::Own { verify: 1 }).await;
}

#[tokio::test]
async fn r19_a_failed_write_ends_a_node_without_threads() {
    a_failed_write_ends_the_node(Threads::Inline).await;
}
