//! An executor, its clients, and the slots that it executes.

use std::sync::Arc;

use polder_executor::{Effect, Executed, Executor, ExecutorConfig, Frozen, PartitionBuilder};
use polder_types::{
    Answer, Batch, Blob, Call, ClientAccess, ClientId, ClientKey, Constants, Epoch, Failure, FaultModel, Genesis,
    Nonce, Reply, Request, Role, Seq, SessionId, SignedRequest, SigningKey, Timestamp, decode, encode,
};

use crate::script::{Does, Saw, Script, Scripted, reads};

pub(crate) fn client(index: u8) -> SigningKey {
    SigningKey::from_seed(&[index; 32])
}

pub(crate) fn id(index: u8) -> ClientId {
    ClientId(client(index).public())
}

/// Constants so small that every bound is met soon.
pub(crate) fn constants() -> Constants {
    Constants {
        interval_slots: 4,
        window_slots: 8,
        session_window: 4,
        sessions_per_client_max: 2,
        sessions_max: 5,
        session_expiry_ms: 10_000,
        open_fresh_cuts: 2,
        partitions: 3,
        session_partitions: 2,
        ..Constants::default()
    }
}

pub(crate) fn genesis(constants: Constants) -> Arc<Genesis> {
    let clients = ClientAccess { open: true, keys: vec![ClientKey { key: client(9).public(), role: Role::Read }] };
    let (nonce, fault_model) = (Nonce([1; 16]), FaultModel::Byzantine);
    Arc::new(Genesis { nonce, replicas: vec![], fault_model, constants, clients })
}

pub(crate) struct World {
    pub(crate) executor: Executor<Scripted>,
    pub(crate) config: ExecutorConfig,
    pub(crate) now: Timestamp,
    nonce: u8,
}

impl World {
    pub(crate) fn new(constants: Constants) -> Self {
        Self::with(genesis(constants))
    }

    pub(crate) fn with(genesis: Arc<Genesis>) -> Self {
        let config = ExecutorConfig { genesis, epoch: Epoch(0) };
        let executor = Executor::genesis(Arc::new(Scripted), config.clone());
        Self { executor, config, now: Timestamp(1_000_000), nonce: 0 }
    }

    /// Executes these requests in the next slot.
    pub(crate) fn slot(&mut self, requests: impl Into<Vec<SignedRequest>>) -> Executed {
        let batch = Batch { ts: self.now, requests: requests.into() };
        self.executor.execute(self.executor.executed().next(), &batch)
    }

    pub(crate) fn sign(&self, by: u8, call: Call) -> SignedRequest {
        Request { client: id(by), call }.sign(self.config.genesis.cluster(), &client(by))
    }

    /// An OPEN that names the newest cut, never the same twice.
    pub(crate) fn opening(&mut self, by: u8) -> SignedRequest {
        self.nonce += 1;
        let interval = self.config.genesis.constants.interval_slots;
        let cut = Seq(self.executor.executed().0 / interval * interval);
        self.sign(by, Call::Open { nonce: [self.nonce; 16], cut })
    }

    /// Opens a session in a slot of its own.
    pub(crate) fn open(&mut self, by: u8) -> SessionId {
        let request = self.opening(by);
        match answers(&self.slot([request]))[..] {
            [Answer::Opened(session)] => session,
            ref other => panic!("no session: {other:?}"),
        }
    }

    pub(crate) fn commands(
        &self,
        by: u8,
        session: SessionId,
        ack: u64,
        first: u64,
        scripts: impl Into<Vec<Script>>,
    ) -> SignedRequest {
        let commands = scripts.into().iter().map(|script| Blob::from(encode(script))).collect();
        self.sign(by, Call::Commands { session, ack, first, commands })
    }

    /// Executes one command in a slot of its own.
    pub(crate) fn run(&mut self, by: u8, session: SessionId, number: u64, script: &Script) -> Answer {
        let request = self.commands(by, session, number - 1, number, [script.clone()]);
        let mut answers = answers(&self.slot([request]));
        assert_eq!(answers.len(), 1);
        answers.remove(0)
    }

    /// Empty slots up to this one.
    pub(crate) fn idle_to(&mut self, slot: u64) {
        while self.executor.executed().0 < slot {
            self.slot([]);
        }
    }

    /// What is under a key of the service, by its partitions.
    pub(crate) fn value(&self, key: &str) -> Option<Blob> {
        let frozen = self.executor.freeze();
        let partitions = usize::from(self.config.genesis.constants.partitions);
        let found = frozen.partitions()[..partitions].iter().find_map(|partition| partition.get(key.as_bytes()));
        found.map(|entry| entry.value.clone())
    }

    pub(crate) fn session_bytes(&self) -> u64 {
        let constants = &self.config.genesis.constants;
        let (first, last) = (usize::from(constants.partitions), usize::from(constants.session_partitions));
        self.executor.freeze().partitions()[first..first + last].iter().map(|partition| partition.bytes()).sum()
    }
}

/// The effects of slots, redone on what they started from.
pub(crate) fn redo(before: &Frozen, slots: &[Executed]) -> Frozen {
    let mut builders: Vec<PartitionBuilder> = before.partitions().iter().map(PartitionBuilder::from).collect();
    for (partition, effect) in slots
        .iter()
        .flat_map(|slot| &slot.effects)
        .flat_map(|(id, effects)| effects.iter().map(move |effect: &Effect| (*id, effect)))
    {
        builders[usize::from(partition.0)].apply(effect);
    }
    let seq = slots.last().map_or(before.seq(), |slot| slot.slot);
    Frozen::assemble(seq, builders.into_iter().map(PartitionBuilder::finish).collect()).expect("all partitions")
}

pub(crate) fn answers(executed: &Executed) -> Vec<Answer> {
    executed.replies.iter().map(|(_, reply)| reply.answer.clone()).collect()
}

pub(crate) fn replies(executed: &Executed) -> Vec<Reply> {
    executed.replies.iter().map(|(_, reply)| reply.clone()).collect()
}

pub(crate) fn failed(failure: Failure) -> Answer {
    Answer::Failed(failure)
}

/// What a script that succeeded saw.
pub(crate) fn saw(answer: &Answer) -> Vec<Saw> {
    match answer {
        Answer::Done(bytes) => decode(bytes, usize::MAX).expect("a reply of the script"),
        other => panic!("not done: {other:?}"),
    }
}

/// A read of one key.
pub(crate) fn read(key: &str) -> Script {
    reads(vec![Does::Get(key.as_bytes().to_vec())])
}
