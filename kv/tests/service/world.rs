//! One session of one client, a command a slot.

use std::sync::Arc;

use polder_executor::{Executor, ExecutorConfig};
use polder_kv::{Command, Kv, Outcome, Reply};
use polder_types::{
    Answer, Batch, Blob, Call, ClientAccess, ClientId, Constants, Epoch, FaultModel, Genesis, Nonce, Position, Request,
    Seq, SessionId, SigningKey, Timestamp, decode, encode,
};

pub(crate) struct World {
    executor: Executor<Kv>,
    config: ExecutorConfig,
    key: SigningKey,
    number: u64,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(Constants { partitions: 4, ..Constants::default() })
    }

    pub(crate) fn with(constants: Constants) -> Self {
        let clients = ClientAccess { open: true, keys: vec![] };
        let (nonce, fault_model) = (Nonce([1; 16]), FaultModel::Byzantine);
        let genesis = Genesis { nonce, replicas: vec![], fault_model, constants, clients };
        let config = ExecutorConfig { genesis: Arc::new(genesis), epoch: Epoch(0) };
        let executor = Executor::genesis(Arc::new(Kv), config.clone());
        let mut this = Self { executor, config, key: SigningKey::from_seed(&[1; 32]), number: 0 };
        let opened = this.slot(Call::Open { nonce: [1; 16], cut: Seq(0) });
        assert_eq!(opened, Answer::Opened(this.session()));
        this
    }

    /// The slot that the next command runs in.
    pub(crate) fn next(&self) -> Position {
        Position { slot: self.executor.executed().next(), index: 0 }
    }

    pub(crate) fn answer(&mut self, command: &Command) -> Answer {
        self.number += 1;
        let (session, first) = (self.session(), self.number);
        let commands = vec![Blob::from(encode(command))];
        self.slot(Call::Commands { session, ack: first - 1, first, commands })
    }

    pub(crate) fn run(&mut self, command: &Command) -> Reply {
        match self.answer(command) {
            Answer::Done(reply) => decode(&reply, usize::MAX).expect("a reply"),
            other => panic!("not done: {other:?}"),
        }
    }

    pub(crate) fn outcome(&mut self, command: &Command) -> Outcome {
        match self.run(command) {
            Reply::Done(outcome) => outcome,
            other => panic!("no outcome: {other:?}"),
        }
    }

    fn session(&self) -> SessionId {
        SessionId(Position { slot: Seq(1), index: 0 })
    }

    fn slot(&mut self, call: Call) -> Answer {
        let client = ClientId(self.key.public());
        let request = Request { client, call }.sign(self.config.genesis.cluster(), &self.key);
        let batch = Batch { ts: Timestamp(1), requests: vec![request] };
        self.executor.execute(self.executor.executed().next(), &batch).replies.remove(0).1.answer
    }
}
