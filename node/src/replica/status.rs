//! What a replica says of itself. Status never lies: a replica that lags says so, and by how much.

use std::fmt;
use std::sync::Arc;

use polder_checkpoint::planner::PlannerStatus;
use polder_checkpoint::transfer::Progress;
use polder_executor::Service;
use polder_types::{Digest, Epoch, ReplicaId, Seq, Timestamp, View};

use super::Replica;

/// What a replica is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It waits for others to say what they remember of it (R18); it signs nothing.
    Remembering {
        /// Answers that it cannot do without and that are still missing. With none missing it waits a moment for those
        /// who have not answered yet.
        answers_missing: usize,
    },
    /// It orders and executes.
    Running,
    /// It fetches the state as of a cut; it orders meanwhile.
    Fetching(Progress),
    /// It writes the state that it fetched to its disk.
    Installing {
        /// The cut.
        cut: Seq,
    },
    /// Its own state is not the one that a quorum certified for this cut (R35): it answers nobody and is about to halt.
    Diverged {
        /// The cut.
        cut: Seq,
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
    /// The newest stable cut known here, 0 at genesis: others may have got there first.
    pub stable: Seq,
    /// The newest cut at which the own state is the certified one, 0 at genesis.
    pub certified: Seq,
    /// The root of the own state at `certified`; none at genesis.
    pub root: Option<Digest>,
    /// The planner.
    pub planner: PlannerStatus,
    /// Rows in the vote log.
    pub log_rows: usize,
    /// Open sessions.
    pub sessions: usize,
    /// Bytes of the state that `state_bytes_max` bounds.
    pub state_bytes: u64,
}

impl<S: Service> Replica<S> {
    /// What the replica says of itself.
    #[must_use]
    pub fn status(&self) -> ReplicaStatus {
        let stable = self.planner.stable().map(polder_types::Certificate::statement);
        let own = self.planner.sources().last().map(|state| state.certificate().statement());
        ReplicaStatus {
            me: self.me,
            phase: self.phase(),
            core: self.core.status(),
            executed: self.executor.executed(),
            history: self.history,
            time: self.executor.time(),
            stable: stable.map_or(Seq::ZERO, |checkpoint| checkpoint.seq),
            certified: own.map_or(Seq::ZERO, |checkpoint| checkpoint.seq),
            root: own.map(|checkpoint| checkpoint.root),
            planner: self.planner.status(),
            log_rows: self.log.rows(),
            sessions: self.executor.sessions(),
            state_bytes: self.executor.state_bytes(),
        }
    }

    /// Its epoch, its view, and the last cut that it knows certified: what clients are told.
    #[must_use]
    pub fn position(&self) -> (Epoch, View, Seq) {
        let (epoch, view) = self.core.position();
        (epoch, view, self.planner.stable().map_or(Seq::ZERO, |stable| stable.statement().seq))
    }

    /// See [`polder_consensus::Core::held_bytes`].
    #[must_use]
    pub fn held_bytes(&self) -> (u64, u64) {
        self.core.held_bytes()
    }

    fn phase(&self) -> Phase {
        if let Some(why) = &self.halted {
            return Phase::Halted(why.clone());
        }
        if !self.has_begun() {
            return Phase::Remembering { answers_missing: self.memory.answers_missing() };
        }
        if let Some(divergence) = self.planner.divergence() {
            return Phase::Diverged { cut: divergence.cut() };
        }
        if let Some(state) = self.catch_up.installing() {
            return Phase::Installing { cut: state.cut() };
        }
        self.catch_up.progress().map_or(Phase::Running, Phase::Fetching)
    }
}

impl fmt::Display for ReplicaStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.core)?;
        match &self.phase {
            Phase::Remembering { answers_missing } => write!(f, " remembering ({answers_missing} answers missing)"),
            Phase::Running => Ok(()),
            Phase::Fetching(Progress { cut, partitions_done, partitions, .. }) => {
                write!(f, " fetching {cut} ({partitions_done}/{partitions} partitions)")
            }
            Phase::Installing { cut } => write!(f, " installing {cut}"),
            Phase::Diverged { cut } => write!(f, " diverged at {cut}"),
            Phase::Halted(why) => write!(f, " halted: {why}"),
        }
    }
}
