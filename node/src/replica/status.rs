//! What a replica says of itself. Status never lies: a replica that lags says so, and by how much.

use std::fmt;
use std::sync::Arc;

use polder_executor::Service;
use polder_types::{Digest, ReplicaId, Seq, Timestamp};

use super::Replica;

/// What a replica is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It waits for so many others to say what they remember of it (R18); it signs nothing.
    Remembering {
        /// Answers still missing.
        answers_missing: usize,
    },
    /// It orders and executes.
    Running,
    /// It fetches the state as of this cut; it orders meanwhile.
    Fetching {
        /// The cut.
        cut: Seq,
        /// Partitions that are there.
        partitions_done: usize,
        /// Partitions in all.
        partitions: usize,
    },
    /// It has stopped for good, for this reason.
    Halted(Arc<str>),
}

/// What a replica says of itself. Cheap: taken after every step in simulations.
#[derive(Clone, Debug)]
pub struct ReplicaStatus {
    /// Which replica.
    pub me: ReplicaId,
    /// What it is doing.
    pub phase: Phase,
    /// The ordering core.
    pub core: polder_consensus::Status,
    /// The last slot executed.
    pub executed: Seq,
    /// The chain over the batches up to `executed`.
    pub history: Digest,
    /// The time of slot `executed`.
    pub time: Timestamp,
    /// The newest stable cut known here, 0 at genesis.
    pub stable: Seq,
    /// The certified root at `stable`; none at genesis.
    pub root: Option<Digest>,
    /// The newest cut that this replica could recover to from its own disk.
    pub durable: Seq,
    /// Rows in the vote log.
    pub log_rows: usize,
    /// Snapshots held as sources of transfer or until they are certified.
    pub snapshots: usize,
}

impl<S: Service> Replica<S> {
    /// What the replica says of itself.
    #[must_use]
    pub fn status(&self) -> ReplicaStatus {
        let stable = self.planner.stable().map(polder_types::Certificate::statement);
        ReplicaStatus {
            me: self.me,
            phase: self.phase(),
            core: self.core.status(),
            executed: self.executor.executed(),
            history: self.history,
            time: self.executor.time(),
            stable: stable.map_or(Seq::ZERO, |checkpoint| checkpoint.seq),
            root: stable.map(|checkpoint| checkpoint.root),
            durable: self.planner.durable(),
            log_rows: self.log.rows(),
            snapshots: self.planner.snapshots(),
        }
    }

    fn phase(&self) -> Phase {
        if let Some(why) = &self.halted {
            return Phase::Halted(why.clone());
        }
        if !self.memory.is_proven() {
            return Phase::Remembering { answers_missing: self.memory.answers_missing() };
        }
        match self.catch_up.progress() {
            Some((cut, partitions_done, partitions)) => Phase::Fetching { cut, partitions_done, partitions },
            None => Phase::Running,
        }
    }
}

impl fmt::Display for ReplicaStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.core)?;
        match &self.phase {
            Phase::Remembering { answers_missing } => write!(f, " remembering ({answers_missing} answers missing)"),
            Phase::Running => Ok(()),
            Phase::Fetching { cut, partitions_done, partitions } => {
                write!(f, " fetching {cut} ({partitions_done}/{partitions} partitions)")
            }
            Phase::Halted(why) => write!(f, " halted: {why}"),
        }
    }
}
