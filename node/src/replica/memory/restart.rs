//! A replica that starts again, driven step by step: when it begins to speak, and with which mark.

use std::sync::Arc;

use polder_checkpoint::{Durability, MemStore, Store};
use polder_consensus::Now;
use polder_executor::{Access, Footprint, Service};
use polder_types::{Application, FaultModel, Genesis, Member, ReplicaId, SigningKey, Timestamp};

use crate::replica::{Action, Disk, Event, Mark, Replica, ReplicaConfig, Start, VerifiedPeer};

struct Nothing;

impl Application for Nothing {
    type Command = u32;
    type Reply = u32;
}

impl Service for Nothing {
    fn footprint(&self, _: &u32) -> Footprint {
        Footprint::writes(Vec::new())
    }

    fn execute(&self, _: Timestamp, number: &u32, _: &mut Access<'_>) -> u32 {
        *number
    }
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

/// The leader of view 0 of three replicas, at its start with this nonce.
fn open(stores: &[MemStore; 2], start: Start, nonce: u64) -> (Replica<Nothing>, Vec<Action>) {
    let member = |index: u8| Member { identity: key(100 + index).public(), signing: key(index).public() };
    let genesis = Genesis {
        nonce: Default::default(),
        replicas: (0..3).map(member).collect(),
        fault_model: FaultModel::Crash,
        constants: Default::default(),
        clients: Default::default(),
    };
    let config = ReplicaConfig {
        genesis: Arc::new(genesis),
        me: ReplicaId(0),
        key: key(0),
        pipeline_slots: 4,
        nonce,
        #[cfg(polder_mutations)]
        mutation: None,
    };
    Replica::open(config, Arc::new(Nothing), &stores[0], &stores[1], start).unwrap()
}

fn step(replica: &mut Replica<Nothing>, event: Event) -> Vec<Action> {
    let mut actions = Vec::new();
    replica.step(Now { monotonic_ms: 0, wall: Timestamp(1_000_000) }, event, &mut actions);
    actions
}

/// Both others answer, and know nothing.
fn answer(replica: &mut Replica<Nothing>, nonce: u64) -> Vec<Action> {
    let answer =
        |from| Event::Peer { from: ReplicaId(from), message: VerifiedPeer::Memory { nonce, mark: Mark::default() } };
    [1, 2].into_iter().flat_map(|from| step(replica, answer(from))).collect()
}

/// Applies what is to be written; returns the events that say so.
fn write(stores: &[MemStore; 2], actions: Vec<Action>) -> Vec<Event> {
    let written = |action| match action {
        Action::Write { disk, writes, ticket, .. } => {
            stores[usize::from(disk == Disk::State)].apply(&writes, Durability::Synced).unwrap();
            Some(Event::Written { disk, ticket })
        }
        _ => None,
    };
    actions.into_iter().filter_map(written).collect()
}

/// The marks beside what is said about the order.
fn marks(actions: &[Action]) -> Vec<Mark> {
    let mark = |action: &Action| match action {
        Action::Send { message: VerifiedPeer::Ordering(_, mark), .. } => Some(*mark),
        _ => None,
    };
    actions.iter().filter_map(mark).collect()
}

/// What was read at a start may never have been synced, and a mark that does not count it would not be remembered.
#[test]
fn r8_r18_nothing_is_said_out_of_the_log_before_it_is_durable_and_in_the_mark() {
    let stores = [MemStore::new(), MemStore::new()];
    let (mut replica, actions) = open(&stores, Start::Genesis, 1);
    for event in write(&stores, actions) {
        step(&mut replica, event);
    }
    let entered = answer(&mut replica, 1);
    assert_eq!(write(&stores, entered).len(), 1, "view 0 is entered");

    let (mut replica, actions) = open(&stores, Start::Memory, 2);
    let answered = answer(&mut replica, 2);
    assert_eq!(marks(&answered), [], "the write of the start is not done");
    let said: Vec<Action> = write(&stores, actions).into_iter().flat_map(|event| step(&mut replica, event)).collect();
    let marks = marks(&said);
    assert!(!marks.is_empty(), "a leader that starts again gives its view up");
    assert!(marks.iter().all(|mark| *mark == Mark::new(1, 2, &key(0))), "{marks:?}");
}
