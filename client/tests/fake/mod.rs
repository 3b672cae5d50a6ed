//! A small cluster that answers clients: four listeners over real sockets, and one shared order in the middle. No
//! consensus: a working fake. A replica can be told to lie, to be busy, or to say nothing.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use polder_transport::{Config, Connection, Endpoint, Inbox, Lane, Lanes, Limits, Listener, Wiring};
use polder_types::{
    Answer, Application, Blob, Call, ClientAccess, ClientFrame, ClientId, ClusterFile, ClusterId, Constants, Epoch,
    Failure, FaultModel, NodeFrame, NodeStatus, Nonce, Position, ReplicaEntry, ReplicaId, Reply, Seq, SessionId,
    SignedRequest, SigningKey, View, Wire as _, decode, encode,
};

/// Adds to a total.
pub(crate) struct Counter;

impl Application for Counter {
    type Command = u64;
    type Reply = u64;
}

pub(crate) const REPLICAS: u8 = 4;

/// How a replica behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Manner {
    #[default]
    Honest,
    /// Answers every command with another total.
    Lies,
    /// Takes no request, and says so, this many times.
    Busy(u32),
    /// Receives and says nothing.
    Silent,
    /// Receives, and its replies are lost.
    Mute,
}

/// What is lost of requests with commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// Nothing arrives.
    Request,
    /// They are executed, and nobody hears of it.
    Reply,
}

/// What all replicas agree on.
#[derive(Default)]
pub(crate) struct State {
    slot: u64,
    pub(crate) total: u64,
    pub(crate) view: u64,
    sessions: BTreeMap<SessionId, Session>,
    opened: BTreeMap<Blob, SessionId>,
    pub(crate) manners: [Manner; REPLICAS as usize],
    connections: Vec<(u8, ClientId, Connection)>,
    /// After so many different requests with commands all others are lost so, copies too.
    cut: Option<(usize, Lost)>,
    /// The requests with commands since it was cut.
    bodies: Vec<Blob>,
    /// Commands executed and refused, requests seen (copies included), and the most commands in one of them.
    pub(crate) executed: u64,
    pub(crate) refused: u64,
    pub(crate) requests: u64,
    pub(crate) packed_max: usize,
    pub(crate) opens: u64,
    pub(crate) closes: u64,
}

struct Session {
    client: ClientId,
    ack: u64,
    replies: BTreeMap<u64, (Blob, Answer)>,
}

pub(crate) struct Cluster {
    pub(crate) file: ClusterFile,
    state: Arc<Mutex<State>>,
    endpoints: Vec<Endpoint>,
}

pub(crate) fn identity(replica: u8) -> SigningKey {
    SigningKey::from_seed(&[replica + 1; 32])
}

pub(crate) fn client_key() -> SigningKey {
    SigningKey::from_seed(&[200; 32])
}

impl Cluster {
    pub(crate) fn start() -> Self {
        Self::with(Arc::new(|_| Some(Lanes::CLIENT)))
    }

    /// A cluster that lets nobody in.
    pub(crate) fn start_closed() -> Self {
        Self::with(Arc::new(|_| None))
    }

    fn with(allow: polder_transport::Allow) -> Self {
        let mut wirings = Vec::new();
        let mut replicas = Vec::new();
        for replica in 0..REPLICAS {
            let wiring = Wiring::real((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
            let address = wiring.socket.local_addr().unwrap().to_string();
            let signing = SigningKey::from_seed(&[replica + 100; 32]).public();
            replicas.push(ReplicaEntry { address, identity: identity(replica).public(), signing });
            wirings.push(wiring);
        }
        let file = ClusterFile {
            nonce: Nonce([5; 16]),
            fault_model: FaultModel::Byzantine,
            constants: Constants::default(),
            clients: ClientAccess { open: true, keys: Vec::new() },
            replicas,
        };
        let cluster = file.genesis().cluster();
        let state = Arc::new(Mutex::new(State { slot: 128, ..State::default() }));
        let mut endpoints = Vec::new();
        for (replica, wiring) in (0..REPLICAS).zip(wirings) {
            let config = Config { identity: identity(replica), cluster, limits: Limits::default() };
            let (endpoint, listener) = Endpoint::listening(config, wiring, Arc::clone(&allow)).unwrap();
            endpoints.push(endpoint);
            tokio::spawn(listen(replica, cluster, listener, Arc::clone(&state)));
        }
        Self { file, state, endpoints }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(crate) fn set_manner(&self, replica: u8, manner: Manner) {
        self.state().manners[usize::from(replica)] = manner;
    }

    /// From now on only so many different requests with commands get through; none: all.
    pub(crate) fn cut(&self, after: Option<(usize, Lost)>) {
        let mut state = self.state();
        (state.cut, state.bodies) = (after, Vec::new());
    }

    /// All replicas forget a session, as if it had expired.
    pub(crate) fn expire_sessions(&self) {
        self.state().sessions.clear();
    }

    pub(crate) async fn stop(&self, replica: u8) {
        self.endpoints[usize::from(replica)].close("the fake replica stops").await;
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn listen(replica: u8, cluster: ClusterId, mut listener: Listener, state: Arc<Mutex<State>>) {
    while let Some((connection, inbox)) = listener.accept().await {
        let client = ClientId(connection.peer());
        lock(&state).connections.push((replica, client, connection.clone()));
        tokio::spawn(serve(replica, cluster, connection, inbox, Arc::clone(&state)));
    }
}

async fn serve(replica: u8, cluster: ClusterId, connection: Connection, mut inbox: Inbox, state: Arc<Mutex<State>>) {
    say(&connection, &lock(&state).at());
    while let Some((_, frame)) = inbox.recv().await {
        let mut state = lock(&state);
        if state.manners[usize::from(replica)] == Manner::Silent {
            continue;
        }
        match decode::<ClientFrame>(&frame, usize::MAX).unwrap() {
            ClientFrame::Where => say(&connection, &state.at()),
            ClientFrame::Attach(_) => {}
            ClientFrame::Status => say(&connection, &state.status(replica)),
            ClientFrame::Request(signed) => {
                assert!(signed.check(cluster).is_ok(), "the client signs well");
                state.receive(replica, &connection, &signed);
            }
        }
    }
    lock(&state).connections.retain(|(_, _, other)| !other.is_closed());
}

fn say(connection: &Connection, frame: &NodeFrame) {
    // A client that is gone hears nothing.
    connection.try_send(Lane::Client, Bytes::from(encode(frame))).ok();
}

impl State {
    fn at(&self) -> NodeFrame {
        NodeFrame::At { epoch: Epoch(0), view: View(self.view), cut: Seq(self.slot - self.slot % 128) }
    }

    fn status(&self, replica: u8) -> NodeFrame {
        NodeFrame::Status(NodeStatus {
            replica: ReplicaId(replica),
            is_leader: self.view % u64::from(REPLICAS) == u64::from(replica),
            not_ready: None,
            view: View(self.view),
            executed: Seq(self.slot),
            committed: Seq(self.slot),
            stable: Seq(self.slot - self.slot % 128),
            root: polder_types::Digest::ZERO,
            log_bytes: 1,
            disk_bytes: 2,
        })
    }

    /// The leader orders; another replica does so for it once the leader is silent, as after a view change.
    fn receive(&mut self, replica: u8, connection: &Connection, signed: &SignedRequest) {
        self.requests += 1;
        if let Manner::Busy(left @ 1..) = &mut self.manners[usize::from(replica)] {
            *left -= 1;
            let busy = NodeFrame::Busy { request: signed.digest(), retry_after_ms: 1 };
            return say(connection, &busy);
        }
        let leader = (self.view % u64::from(REPLICAS)) as usize;
        if leader != usize::from(replica) && self.manners[leader] == Manner::Silent {
            self.view += 1;
        }
        let request = signed.request().unwrap();
        let lost = matches!(request.call, Call::Commands { .. }).then(|| self.lost(signed)).flatten();
        if lost == Some(Lost::Request) {
            return;
        }
        let replies = self.execute(signed, request.client, &request.call);
        if lost.is_none() {
            self.reply(request.client, &replies);
        }
    }

    fn lost(&mut self, signed: &SignedRequest) -> Option<Lost> {
        let (after, lost) = self.cut?;
        if !self.bodies.contains(&signed.body) {
            self.bodies.push(signed.body.clone());
        }
        (self.bodies.iter().position(|body| *body == signed.body) >= Some(after)).then_some(lost)
    }

    fn execute(&mut self, signed: &SignedRequest, client: ClientId, call: &Call) -> Vec<Reply> {
        self.slot += 1;
        let reply = |session, number, command, answer| Reply { epoch: Epoch(0), session, number, command, answer };
        match call {
            Call::Open { cut, .. } => {
                let stale = cut.0 % 128 != 0 || cut.0 >= self.slot || self.slot > cut.0 + 8 * 128;
                let answer = if stale {
                    Answer::Failed(Failure::StaleOpen)
                } else {
                    let next = SessionId(Position { slot: Seq(self.slot), index: 0 });
                    let session = *self.opened.entry(signed.body.clone()).or_insert(next);
                    if session == next {
                        self.opens += 1;
                        self.sessions.insert(session, Session { client, ack: 0, replies: BTreeMap::new() });
                    }
                    Answer::Opened(session)
                };
                vec![reply(None, 0, signed.digest(), answer)]
            }
            Call::Close { session } => {
                self.closes += u64::from(self.sessions.remove(session).is_some());
                vec![reply(Some(*session), 0, signed.digest(), Answer::Closed)]
            }
            Call::Commands { session, ack, first, commands } => {
                self.packed_max = self.packed_max.max(commands.len());
                let run = |(number, command): (u64, &Blob)| {
                    let answer = self.run(client, *session, *ack, number, command);
                    reply(Some(*session), number, Reply::command_digest(command), answer)
                };
                (*first..).zip(commands).map(run).collect()
            }
        }
    }

    fn run(&mut self, client: ClientId, session: SessionId, ack: u64, number: u64, command: &Blob) -> Answer {
        let Some(open) = self.sessions.get_mut(&session).filter(|open| open.client == client) else {
            return Answer::Failed(Failure::NoSession);
        };
        open.ack = open.ack.max(ack);
        let acknowledged = open.ack;
        open.replies.retain(|number, _| *number > acknowledged);
        if number <= open.ack || number > open.ack + 1_024 {
            return Answer::Failed(Failure::OutsideWindow);
        }
        if let Some((before, answer)) = open.replies.get(&number) {
            return if before == command { answer.clone() } else { Answer::Failed(Failure::NumberReused) };
        }
        let answer = match u64::from_wire(command) {
            Ok(amount) => {
                self.total += amount;
                self.executed += 1;
                Answer::Done(Blob::from(self.total.to_wire()))
            }
            Err(_) => {
                self.refused += 1;
                Answer::Failed(Failure::Malformed)
            }
        };
        open.replies.insert(number, (command.clone(), answer.clone()));
        answer
    }

    /// Every replica replies, in its manner.
    fn reply(&self, client: ClientId, replies: &[Reply]) {
        for (replica, of, connection) in &self.connections {
            if *of != client {
                continue;
            }
            match self.manners[usize::from(*replica)] {
                Manner::Silent | Manner::Mute => {}
                Manner::Lies => {
                    let lie = |reply: &Reply| Reply {
                        answer: match reply.answer {
                            Answer::Done(_) => Answer::Done(Blob::from(u64::MAX.to_wire())),
                            _ => Answer::Failed(Failure::TooManySessions),
                        },
                        ..reply.clone()
                    };
                    say(connection, &NodeFrame::Replies(replies.iter().map(lie).collect()));
                }
                Manner::Honest | Manner::Busy(_) => say(connection, &NodeFrame::Replies(replies.to_vec())),
            }
        }
    }
}
