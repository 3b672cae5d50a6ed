//! A small cluster without ordering: keys that sign, states made slot by slot, and one replica on a memory store.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use polder_checkpoint::planner::{Input, Output, PlannerConfig};
use polder_checkpoint::recovery::{self, Recovered};
use polder_checkpoint::{CertifiedState, Durability, Family, MemStore, Planner, Store, StoreError, Writes};
use polder_checkpoint::{effects_log, images};
use polder_executor::{Access, Effect, Effects, Entry, Executor, ExecutorConfig, Footprint, Frozen, FrozenPartition};
use polder_executor::{PartitionBuilder, Service};
use polder_types::{
    Application, Blob, Certificate, Checkpoint, ClientAccess, Constants, Digest, Epoch, FaultModel, Genesis, Keyring,
    Member, Nonce, PartitionId, Position, ReplicaId, Seq, Signed, SigningKey, Tally, Timestamp, Verified,
    history_genesis,
};

/// `I`.
pub const INTERVAL: u64 = 4;
/// `M`.
pub const TURN_CUTS: u64 = 2;
/// Bytes of a chunk: small, so that there are several to a partition.
pub const CHUNK: usize = 300;

/// A sequence of numbers that is the same in every run.
#[derive(Clone)]
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

struct Nothing;

impl Application for Nothing {
    type Command = ();
    type Reply = ();
}

impl Service for Nothing {
    fn footprint(&self, (): &()) -> Footprint {
        Footprint::default()
    }

    fn execute(&self, _: Timestamp, (): &(), _: &mut Access<'_>) {}
}

/// The keys and the genesis state of a cluster of four, one of whom may lie.
pub struct Cluster {
    pub keys: Vec<SigningKey>,
    pub keyring: Arc<Keyring>,
    pub constants: Constants,
    pub genesis: Frozen,
}

pub fn cluster() -> Cluster {
    cluster_named(1)
}

pub fn cluster_named(nonce: u8) -> Cluster {
    let keys: Vec<SigningKey> = (0..4).map(|index| SigningKey::from_seed(&[index + 1; 32])).collect();
    let member = |(index, key): (usize, &SigningKey)| Member {
        identity: SigningKey::from_seed(&[index as u8 + 101; 32]).public(),
        signing: key.public(),
    };
    let constants = Constants {
        window_slots: 4 * INTERVAL,
        interval_slots: INTERVAL,
        fresh_slots_max: INTERVAL,
        turn_cuts: TURN_CUTS,
        partitions: 4,
        session_partitions: 1,
        ..Constants::default()
    };
    let genesis = Genesis {
        nonce: Nonce([nonce; 16]),
        replicas: keys.iter().enumerate().map(member).collect(),
        fault_model: FaultModel::Byzantine,
        constants: constants.clone(),
        clients: ClientAccess::default(),
    };
    let keyring = Arc::new(genesis.check().unwrap());
    let config = ExecutorConfig { genesis: Arc::new(genesis), epoch: Epoch::ZERO };
    let genesis = Executor::genesis(Arc::new(Nothing), config).freeze();
    Cluster { keys, keyring, constants, genesis }
}

impl Cluster {
    pub fn statement(&self, frozen: &Frozen) -> Checkpoint {
        Checkpoint {
            epoch: Epoch::ZERO,
            seq: frozen.seq(),
            root: frozen.root(),
            history: history_genesis(self.keyring.cluster()),
            time: frozen.time(),
            config: Digest::ZERO,
            pending: Digest::ZERO,
        }
    }

    pub fn vote(&self, by: u8, statement: &Checkpoint) -> Verified<Signed<Checkpoint>> {
        Signed::sign(ReplicaId(by), statement.clone(), self.keyring.cluster(), &self.keys[usize::from(by)])
    }

    pub fn certify(&self, statement: &Checkpoint) -> Certificate<Checkpoint> {
        let mut tally = Tally::default();
        for by in 0..3 {
            tally.add(&self.vote(by, statement));
        }
        tally.certificate(statement, 3).unwrap()
    }

    pub fn certified(&self, frozen: &Frozen) -> CertifiedState {
        CertifiedState::new(self.certify(&self.statement(frozen)), frozen.clone()).unwrap()
    }

    pub fn planner_config(&self) -> PlannerConfig {
        PlannerConfig::new(&self.constants, self.keyring.quorum(), 1)
    }
}

pub fn blob(text: &str) -> Blob {
    Blob::copy(text.as_bytes())
}

pub fn entry(slot: u64, value: &str) -> Entry {
    let at = Position { slot: Seq(slot), index: 0 };
    Entry { value: blob(value), created: at, modified: at, version: 1 }
}

/// What a slot does: puts and deletes on partitions 0 to 2, chosen by the slot alone; partition 3 changes in the first
/// slots only, and partitions beyond never.
pub fn effects_of(life: u64, slot: u64) -> Effects {
    let mut numbers = Numbers(slot.wrapping_mul(7_919) ^ life);
    let mut effects = Effects::new();
    if slot <= 3 {
        let put = Effect::Put { key: blob(&format!("cold{slot}")), entry: entry(slot, "stays") };
        effects.insert(PartitionId(3), vec![put]);
    }
    for index in 0..1 + numbers.below(4) as u32 {
        let partition = PartitionId(numbers.below(3) as u16);
        let key = blob(&format!("key{}", numbers.below(12)));
        let at = Position { slot: Seq(slot), index };
        let effect = if numbers.below(3) == 0 {
            Effect::Delete { key, at }
        } else {
            let value = blob(&format!("{life}/{slot}/{index}").repeat(1 + numbers.below(20) as usize));
            Effect::Put { key, entry: Entry { value, created: at, modified: at, version: slot } }
        };
        effects.entry(partition).or_default().push(effect);
    }
    effects
}

/// The state one slot later.
pub fn after(state: &Frozen, effects: &Effects) -> Frozen {
    let partitions = state.partitions().iter().map(|partition| {
        let Some(effects) = effects.get(&partition.id()) else { return partition.clone() };
        let mut builder = PartitionBuilder::from(partition);
        effects.iter().for_each(|effect| builder.apply(effect));
        builder.finish()
    });
    Frozen::assemble(state.seq().next(), partitions.collect()).unwrap()
}

/// The states of slots `0..=last` of a life, from genesis.
pub fn states(cluster: &Cluster, life: u64, last: u64) -> Vec<Frozen> {
    let mut states = vec![cluster.genesis.clone()];
    for slot in 1..=last {
        let state = after(&states[slot as usize - 1], &effects_of(life, slot));
        states.push(state);
    }
    states
}

/// The same state with one entry changed in these partitions.
pub fn bent(state: &Frozen, partitions: &[u16]) -> Frozen {
    let bend = |partition: &FrozenPartition| {
        if !partitions.contains(&partition.id().0) {
            return partition.clone();
        }
        let mut builder = PartitionBuilder::from(partition);
        builder.put(blob("bent"), entry(1, "x"));
        builder.finish()
    };
    Frozen::assemble(state.seq(), state.partitions().iter().map(bend).collect()).unwrap()
}

pub fn put(store: &MemStore, writes: &Writes, durability: Durability) {
    store.apply(writes, durability).unwrap();
}

pub fn recover(cluster: &Cluster, store: &MemStore) -> Recovered {
    recovery::recover(store, &cluster.keyring, &cluster.genesis).unwrap_or_else(|error| panic!("{error}"))
}

/// How many rows of a family a store holds, by the first bytes of their keys.
pub fn rows_by_partition(store: &MemStore, family: Family) -> BTreeMap<u16, usize> {
    let mut rows = BTreeMap::new();
    for (key, _) in store.rows(family) {
        *rows.entry(u16::from_be_bytes([key[0], key[1]])).or_default() += 1;
    }
    rows
}

/// One replica whose statements all others share: what a node does with a planner's outputs, in small. The loop's
/// writes and the worker's are applied in an order that differs from slot to slot.
pub struct Replica<'a> {
    pub cluster: &'a Cluster,
    pub store: &'a MemStore,
    pub planner: Planner,
    pub state: Frozen,
    pub life: u64,
    /// The newest cut that was told to be durable.
    pub persisted: Seq,
    pub log_from: Seq,
    jobs: VecDeque<(u64, Seq, Vec<FrozenPartition>)>,
    outputs: VecDeque<Output>,
}

impl<'a> Replica<'a> {
    pub fn open(cluster: &'a Cluster, store: &'a MemStore, life: u64) -> Self {
        Self::open_fallible(cluster, store, life).unwrap()
    }

    /// None when the store fails meanwhile.
    pub fn open_fallible(cluster: &'a Cluster, store: &'a MemStore, life: u64) -> Option<Self> {
        let recovered = match recovery::recover(store, &cluster.keyring, &cluster.genesis) {
            Err(_) if store.has_failed() => return None,
            recovered => recovered.unwrap_or_else(|error| panic!("{error}")),
        };
        let state = recovered.state.as_ref().map_or(&cluster.genesis, |state| state.frozen()).clone();
        let persisted = recovered.cut();
        let (planner, outputs) = Planner::new(cluster.planner_config(), recovered);
        let (jobs, outputs) = (VecDeque::new(), outputs.into());
        Some(Self { cluster, store, planner, state, life, persisted, log_from: Seq(1), jobs, outputs })
    }

    /// Executes slots up to `last`.
    pub fn run(&mut self, last: u64) -> Result<(), StoreError> {
        self.carry_out()?;
        while self.state.seq().0 < last {
            self.execute()?;
            self.work(1)?;
        }
        Ok(())
    }

    /// Ends all jobs.
    pub fn settle(&mut self) -> Result<(), StoreError> {
        while !self.jobs.is_empty() {
            self.work(usize::MAX)?;
        }
        Ok(())
    }

    fn execute(&mut self) -> Result<(), StoreError> {
        let slot = self.state.seq().next();
        let effects = effects_of(self.life, slot.0);
        self.state = after(&self.state, &effects);
        let mut writes = Writes::new();
        effects_log::append(&mut writes, slot, &effects);
        self.store.apply(&writes, Durability::Lazy)?;
        if slot.0.is_multiple_of(INTERVAL) {
            let mut writes = Writes::new();
            effects_log::frontier(&mut writes, slot);
            self.store.apply(&writes, Durability::Lazy)?;
            let checkpoint = self.cluster.statement(&self.state);
            self.step(Input::Digested { frozen: self.state.clone(), checkpoint });
            self.carry_out()?;
        }
        Ok(())
    }

    /// Writes the images of at most so many partitions of the oldest job, once two slots have passed since it was
    /// asked for.
    fn work(&mut self, partitions: usize) -> Result<(), StoreError> {
        let Some((waiting, cut, job)) = self.jobs.front_mut() else { return Ok(()) };
        if *waiting > 0 && partitions == 1 {
            *waiting -= 1;
            return Ok(());
        }
        let rest = job.split_off(partitions.min(job.len()));
        images::write(self.store, *cut, &std::mem::replace(job, rest), CHUNK)?;
        if job.is_empty() {
            let cut = *cut;
            self.jobs.pop_front();
            self.step(Input::ImagesWritten { cut });
            self.carry_out()?;
        }
        Ok(())
    }

    pub fn step(&mut self, input: Input) {
        let mut outputs = Vec::new();
        self.planner.step(input, &mut outputs);
        self.planner.check();
        self.outputs.extend(outputs);
    }

    pub fn carry_out(&mut self) -> Result<(), StoreError> {
        while let Some(output) = self.outputs.pop_front() {
            match output {
                Output::Announce(statement) => {
                    for by in 0..4 {
                        self.step(Input::Vote(self.cluster.vote(by, &statement)));
                    }
                }
                Output::Persist { cut, writes } => {
                    self.store.apply(&writes, Durability::Synced)?;
                    self.persisted = cut;
                    self.step(Input::Persisted { cut });
                }
                Output::WriteImages { cut, partitions } => self.jobs.push_back((2, cut, partitions)),
                Output::Truncate { writes } => self.store.apply(&writes, Durability::Lazy)?,
                Output::TruncateLog { below } => self.log_from = below,
                Output::Stable(_) => {}
                Output::Diverged(divergence) => panic!("{divergence}"),
            }
        }
        Ok(())
    }
}
