//! The façade: slots in, replies and effects out.

use std::collections::BTreeMap;
use std::sync::Arc;

use polder_types::{Batch, ClientId, Epoch, Failure, Genesis, Reply, Request, Seq, SessionId, Timestamp};

use crate::Service;
use crate::state::{Effects, Frozen, Layout, RestoreError, SlotEffects, State};
use crate::system::System;

/// What an executor must know.
#[derive(Clone, Debug)]
pub struct ExecutorConfig {
    /// The configuration that the cluster started from.
    pub genesis: Arc<Genesis>,
    /// The epoch, which replies carry (R23).
    pub epoch: Epoch,
}

/// Executes the ordered batches, one slot after the other.
#[derive(Debug)]
pub struct Executor<S: Service> {
    service: Arc<S>,
    config: ExecutorConfig,
    state: State,
    system: System,
    executed: Seq,
}

/// What became of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executed {
    /// The slot.
    pub slot: Seq,
    /// Its time (R27).
    pub time: Timestamp,
    /// The answers, in the order of the commands.
    pub replies: Vec<(ClientId, Reply)>,
    /// What changed.
    pub effects: Effects,
    /// The sessions that changed: the acknowledged number and the highest that would execute now; none for a session
    /// that is gone (R26).
    pub windows: Vec<(ClientId, SessionId, Option<(u64, u64)>)>,
    /// Commands of the service that ran, read again or failing ones included, copies that were answered from the cache
    /// not.
    pub commands: u32,
    /// How many answers were failures, by their code.
    pub failures: BTreeMap<Failure, u32>,
}

/// What to do with a request before it is ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Do not order it: everything that it asks for was done, and these are the answers.
    Answered(Vec<Reply>),
    /// Order it.
    Order {
        /// The session's acknowledged number and the highest that would execute now; none for an OPEN. `(0, 0)` for a
        /// session that is not open here yet: nothing of it would execute now.
        window: Option<(u64, u64)>,
        /// Answers to those of its commands that were done before.
        known: Vec<Reply>,
    },
    /// Do not order it: what of it was not done can never execute any more. These are the answers.
    Never(Vec<Reply>),
}

impl<S: Service> Executor<S> {
    /// The executor of a cluster that has executed nothing. Its state follows from the genesis configuration alone.
    #[must_use]
    pub fn genesis(service: Arc<S>, config: ExecutorConfig) -> Self {
        let layout = Layout::new(&config.genesis.constants);
        let mut state = State::empty(layout);
        let mut effects = SlotEffects::new(layout.len());
        let system = System::genesis(&mut state, &mut effects, &config.genesis.digest());
        Self { service, config, state, system, executed: Seq::ZERO }
    }

    /// The executor that goes on from a state.
    ///
    /// # Errors
    ///
    /// [`RestoreError`] when the state is not one of this configuration or cannot be read.
    pub fn restore(service: Arc<S>, config: ExecutorConfig, frozen: &Frozen) -> Result<Self, RestoreError> {
        let state = State::thaw(Layout::new(&config.genesis.constants), frozen)?;
        let system = System::restore(&state, &config.genesis.digest())?;
        Ok(Self { service, config, state, system, executed: frozen.seq() })
    }

    /// The last slot that was executed.
    #[must_use]
    pub fn executed(&self) -> Seq {
        self.executed
    }

    /// The time of that slot (R27).
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.system.clock.time
    }

    /// The state as it is now. Costs the number of partitions, whatever is in them.
    #[must_use]
    pub fn freeze(&self) -> Frozen {
        self.state.freeze(self.executed, self.time())
    }

    /// Executes the next slot.
    ///
    /// # Panics
    ///
    /// When `slot` is not the one after [`Executor::executed`]: a caller that skips a slot must not go on.
    pub fn execute(&mut self, slot: Seq, batch: &Batch) -> Executed {
        assert_eq!(slot, self.executed.next(), "slots are executed in order, each once");
        self.executed = slot;
        let _ = (batch, &self.service, &self.config);
        Executed {
            slot,
            time: self.time(),
            replies: vec![],
            effects: Effects::new(),
            windows: vec![],
            commands: 0,
            failures: BTreeMap::new(),
        }
    }

    /// What to do with a request before it is ordered.
    #[must_use]
    pub fn lookup(&self, request: &Request) -> Lookup {
        let _ = request;
        Lookup::Order { window: None, known: vec![] }
    }
}
