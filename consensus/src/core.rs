//! The core: its parts, and which part handles which input.

use alloc::vec::Vec;

use polder_types::{Certificate, Checkpoint};

use crate::{Config, Header, Input, Now, Output, Record, Status};

/// What a restarted replica finds on its disk.
#[derive(Clone, Debug, Default)]
pub struct RecoveredLog {
    /// The records, in the order of the log.
    pub records: Vec<Record>,
    /// The cut that the restored state is of; none for the state of genesis.
    pub base: Option<Certificate<Checkpoint>>,
}

/// The ordering core of one replica.
#[derive(Debug)]
pub struct Core {
    config: Config,
}

impl Core {
    /// The core of a replica that has never run.
    #[must_use]
    pub fn new(config: Config) -> (Self, Vec<Output>) {
        (Self { config }, Vec::new())
    }

    /// The core of a replica that ran before.
    #[must_use]
    pub fn recover(config: Config, _log: RecoveredLog) -> (Self, Vec<Output>) {
        (Self { config }, Vec::new())
    }

    /// Takes one input; appends what follows from it.
    pub fn step(&mut self, _now: Now, _input: Input, _out: &mut Vec<Output>) {}

    /// Whether a message is worth checking its signatures.
    #[must_use]
    pub fn wants(&self, _header: &Header) -> bool {
        true
    }

    /// What there is to say.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            me: self.config.me,
            epoch: self.config.epoch,
            view: Default::default(),
            leader: Default::default(),
            is_leader: false,
            entered: true,
            low: Default::default(),
            committed: Default::default(),
            delivered: Default::default(),
            executed: Default::default(),
            in_flight: 0,
            waiting: 0,
            stable: None,
            lagging: false,
            suspects: false,
            timeout_ms: 0,
            view_changes: 0,
            ignored: Default::default(),
        }
    }

    /// Asserts the invariants.
    pub fn check(&self) {}
}
