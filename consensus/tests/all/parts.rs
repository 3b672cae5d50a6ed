//! What a world is made of.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use polder_consensus::{Core, Message, Record, SessionWindow, Ticket, VerifiedMessage};
use polder_types::{
    Certificate, Checkpoint, ClientId, Constants, Digest, FaultModel, Position, ReplicaId, Seq, SessionId, Signed,
    SignedRequest, SigningKey, Tally,
};

use crate::liars::Lie;

/// A small generator of numbers (xorshift64*).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What the network and the disks do.
#[derive(Clone, Debug)]
pub struct Weather {
    pub loss_percent: u64,
    pub copy_percent: u64,
    pub delay_ms_max: u64,
    pub sync_ms_max: u64,
    pub cut: BTreeSet<(u8, u8)>,
}

impl Weather {
    pub fn fair() -> Self {
        Self { loss_percent: 0, copy_percent: 0, delay_ms_max: 3, sync_ms_max: 1, cut: BTreeSet::new() }
    }
}

/// The executed state: numbers done by session, and the chain.
#[derive(Clone, Debug)]
pub struct State {
    pub executed: Seq,
    pub history: Digest,
    pub done: BTreeMap<(ClientId, SessionId), (u64, BTreeSet<u64>)>,
}

impl State {
    pub fn window(&self, client: ClientId, session: SessionId) -> SessionWindow {
        let ack = self.done.get(&(client, session)).map_or(0, |(ack, _)| *ack);
        SessionWindow { ack, high: ack + 1_024 }
    }

    pub fn has_done(&self, client: ClientId, session: SessionId, number: u64) -> bool {
        self.done.get(&(client, session)).is_some_and(|(ack, done)| number <= *ack || done.contains(&number))
    }
}

pub struct Write {
    pub record: Record,
    pub then: Vec<Arc<VerifiedMessage>>,
    pub ticket: Option<Ticket>,
}

pub struct Node {
    pub core: Option<Core>,
    pub state: State,
    pub log: Vec<Record>,
    pub unsynced: VecDeque<Write>,
    pub generation: u64,
    pub snapshots: BTreeMap<Seq, State>,
    pub base: Option<Certificate<Checkpoint>>,
    pub cuts: BTreeMap<Seq, Tally<Checkpoint>>,
    pub own_cuts: BTreeMap<Seq, Signed<Checkpoint>>,
    pub skew_ms: u64,
    pub lie: Option<Lie>,
    pub delivered: u64,
}

pub enum Event {
    Message { from: ReplicaId, to: ReplicaId, message: Message },
    Checkpoint { to: ReplicaId, signed: Signed<Checkpoint> },
    Tick(ReplicaId),
    Announce(ReplicaId),
    Sync { replica: ReplicaId, generation: u64, writes: usize },
    Restore { replica: ReplicaId, generation: u64, cut: Seq },
    Restart(ReplicaId),
    Submit { replica: ReplicaId, request: SignedRequest },
    Client(usize),
}

pub struct Client {
    pub key: SigningKey,
    pub number: u64,
    pub request: Option<SignedRequest>,
    pub since_ms: u64,
    pub left: u64,
}

pub fn constants() -> Constants {
    Constants {
        window_slots: 16,
        interval_slots: 8,
        fresh_slots_max: 8,
        request_bytes_max: 2_048,
        batch_bytes_max: 4_096,
        timeout_first_ms: 200,
        timeout_max_ms: 1_600,
        status_period_ms: 40,
        idle_ms: 200,
        ..Constants::default()
    }
}

/// `POLDER_MUTATION=name` plants a bug, in a build for that.
#[cfg(polder_mutations)]
pub fn mutation() -> Option<polder_consensus::Mutation> {
    std::env::var("POLDER_MUTATION").ok().and_then(|name| polder_consensus::Mutation::from_name(&name))
}

pub fn model(r: u8) -> FaultModel {
    if r == 0 { FaultModel::Crash } else { FaultModel::Hybrid { byzantine: r } }
}

pub fn session() -> SessionId {
    SessionId(Position { slot: Seq(0), index: 7 })
}
