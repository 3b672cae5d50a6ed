//! A replica alone, driven step by step: what a client gets that repeats a request.

use std::collections::BTreeSet;
use std::sync::Arc;

use polder_checkpoint::{Durability, MemStore, Store};
use polder_consensus::Now;
use polder_executor::{Access, Footprint, Service, Span};
use polder_types::{
    Answer, Application, Blob, Call, ClientAccess, ClientId, FaultModel, Genesis, Member, NodeFrame, ReplicaId, Reply,
    Request, Seq, SessionId, SigningKey, Timestamp, encode,
};

use crate::replica::{Action, Disk, Event, Replica, ReplicaConfig, Start};

/// Answers with as many bytes as it is asked for.
struct Echo;

impl Application for Echo {
    type Command = u32;
    type Reply = Blob;
}

impl Service for Echo {
    fn footprint(&self, _: &u32) -> Footprint {
        Footprint::writes(vec![Span::Key(b"key".to_vec())])
    }

    fn execute(&self, _: Timestamp, bytes: &u32, _: &mut Access<'_>) -> Blob {
        Blob::from(vec![0; *bytes as usize])
    }
}

/// The only replica of a cluster, and its client.
struct Alone {
    replica: Replica<Echo>,
    stores: [MemStore; 2],
    genesis: Arc<Genesis>,
    client: SigningKey,
    now_ms: u64,
}

impl Alone {
    fn new() -> Self {
        let key = |seed| SigningKey::from_seed(&[seed; 32]);
        let genesis = Arc::new(Genesis {
            nonce: Default::default(),
            replicas: vec![Member { identity: key(1).public(), signing: key(2).public() }],
            fault_model: FaultModel::Crash,
            constants: Default::default(),
            clients: ClientAccess { open: true, keys: Vec::new() },
        });
        let config = ReplicaConfig {
            genesis: genesis.clone(),
            me: ReplicaId(0),
            key: key(2),
            pipeline_slots: 4,
            nonce: 1,
            #[cfg(polder_mutations)]
            mutation: None,
        };
        let stores = [MemStore::new(), MemStore::new()];
        let (replica, actions) = Replica::open(config, Arc::new(Echo), &stores[0], &stores[1], Start::Genesis).unwrap();
        let mut alone = Self { replica, stores, genesis, client: key(3), now_ms: 0 };
        assert!(alone.carry_out(actions).is_empty());
        alone
    }

    /// Gives the replica an event; returns the replies.
    fn step(&mut self, event: Event) -> Vec<Reply> {
        let now = Now { monotonic_ms: self.now_ms, wall: Timestamp(1_000_000 + self.now_ms) };
        let mut actions = Vec::new();
        self.replica.step(now, event, &mut actions);
        self.carry_out(actions)
    }

    fn carry_out(&mut self, actions: Vec<Action>) -> Vec<Reply> {
        let mut replies = Vec::new();
        for action in actions {
            match action {
                Action::Write { disk, writes, ticket, .. } => {
                    self.stores[usize::from(disk == Disk::State)].apply(&writes, Durability::Synced).unwrap();
                    replies.extend(self.step(Event::Written { disk, ticket }));
                }
                Action::Reply { frame: NodeFrame::Replies(more), .. } => replies.extend(more),
                _ => {}
            }
        }
        replies
    }

    fn tick(&mut self) -> Vec<Reply> {
        self.now_ms += 10;
        self.step(Event::Tick)
    }

    fn send(&mut self, call: &Call) -> Vec<Reply> {
        let request = Request { client: ClientId(self.client.public()), call: call.clone() };
        let cluster = self.genesis.cluster();
        let signed = request.sign(cluster, &self.client).verify(cluster).unwrap();
        self.step(Event::Request(signed))
    }

    /// Sends it, and waits for so many replies.
    fn call(&mut self, call: &Call, count: usize) -> Vec<Reply> {
        let mut replies = self.send(call);
        for _ in 0..1_000 {
            if replies.len() >= count {
                break;
            }
            replies.extend(self.tick());
        }
        assert_eq!(replies.len(), count);
        replies
    }
}

/// The numbers answered, and the bytes of the answers.
fn sum(replies: &[Reply]) -> (BTreeSet<u64>, usize) {
    let bytes = |reply: &Reply| if let Answer::Done(bytes) = &reply.answer { bytes.len() } else { 0 };
    (replies.iter().map(|reply| reply.number).collect(), replies.iter().map(bytes).sum())
}

#[test]
fn r23_who_repeats_a_request_gets_a_bounded_part_of_its_answers_a_tick_and_in_the_end_all() {
    let mut alone = Alone::new();
    let opened = alone.call(&Call::Open { nonce: [1; 16], cut: Seq::ZERO }, 1);
    let Answer::Opened(session) = opened[0].answer else { unreachable!() };
    let session: SessionId = session;
    let commands = vec![Blob::from(encode(&1_000_000u32)); 12];
    let call = Call::Commands { session, ack: 0, first: 1, commands };
    let (numbers, bytes) = sum(&alone.call(&call, 12));
    assert_eq!(numbers.len(), 12);
    assert!(bytes >= 12_000_000);

    let mut given = BTreeSet::new();
    for _ in 0..4 {
        alone.tick();
        let replies: Vec<Reply> = (0..100).flat_map(|_| alone.send(&call)).collect();
        let (numbers, bytes) = sum(&replies);
        assert!(bytes <= (4 << 20) + 1_000_100, "{bytes}");
        given.extend(numbers);
    }
    assert_eq!(given.len(), 12);
}
