//! Start-up: from genesis, or from what the two stores remember (R8, R18, C8).

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use polder_checkpoint::planner::PlannerConfig;
use polder_checkpoint::{Planner, Store, StoreError, Writes, recovery, transfer};
use polder_consensus::{Config, Core, Record, RecoveredLog};
use polder_executor::{Executor, ExecutorConfig, Service};
use polder_types::{
    Certificate, Checkpoint, ClusterId, Epoch, Genesis, GenesisError, Keyring, ReplicaId, Seq, Signed, SigningKey,
    Verified, history_genesis,
};

use super::Replica;
use super::catch_up::CatchUp;
use super::copies::Copies;
use super::cuts::{Digesting, Statements};
use super::event::Action;
use super::log::{FIRST_TICKET, Log};
use super::memory::Memory;
use super::message::Mark;

/// What a replica is told at its start.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// The configuration that the cluster started from.
    pub genesis: Arc<Genesis>,
    /// Which replica this is.
    pub me: ReplicaId,
    /// The key that signs its statements.
    pub key: SigningKey,
    /// Fresh slots it keeps uncommitted as a leader; local, at most `fresh_slots_max`.
    pub pipeline_slots: u64,
    /// Drawn anew for each start: answers to an earlier start's question do not count (R18).
    pub nonce: u64,
    /// A planted bug, for the simulator only.
    #[cfg(polder_mutations)]
    pub mutation: Option<polder_consensus::Mutation>,
}

/// Whether a replica starts for the first time. The driver knows: an empty disk must never look like genesis (R18).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The first start: the stores must be empty.
    Genesis,
    /// Any later one: the log must be this replica's own, unbroken.
    Memory,
}

/// Why a replica cannot start from its data.
#[derive(Debug)]
pub enum OpenError {
    /// The genesis configuration cannot be.
    Genesis(GenesisError),
    /// A store could not be read.
    Store(StoreError),
    /// A first start, but the stores are not empty.
    NotEmpty,
    /// Not the first start, but there is no log: the disk was lost or emptied (R17, R18).
    NoMemory,
    /// The data of another cluster or of another replica.
    Foreign {
        /// Whose cluster.
        cluster: ClusterId,
        /// Which replica.
        replica: ReplicaId,
    },
    /// Something in the log is damaged before its end.
    Damaged(&'static str),
    /// The state cannot be recovered.
    Recovery(recovery::RecoveryError),
    /// The state on disk is gone, or older than what the log has forgotten (C8).
    StateLost {
        /// The cut that the state on disk leads to; 0 is genesis.
        state: Seq,
        /// The first slot of which the log still knows all.
        log: Seq,
    },
    /// The recovered state is not one that the executor can go on from.
    Restore(polder_executor::RestoreError),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Genesis(error) => write!(f, "the cluster's configuration cannot be: {error}"),
            Self::Store(error) => write!(f, "the data folder cannot be read: {error}"),
            Self::NotEmpty => f.write_str(
                "the data folder is marked as new but holds a log already: it was put together from two folders. \
                 Start from the folder that this replica last ran with",
            ),
            Self::NoMemory => f.write_str(
                "the data folder has lost its log (R18), so this replica no longer knows what it promised and must not \
                 vote. Put back the folder that it last ran with; a copy that is older will be refused",
            ),
            Self::Foreign { cluster, replica } => {
                write!(f, "the data folder belongs to {replica} of {cluster}. Start this replica from its own folder")
            }
            Self::Damaged(what) => write!(
                f,
                "{what} is damaged before the end of the log, so this replica no longer knows what it promised and \
                 must not vote (R18). Put back an intact copy of the folder as it last was"
            ),
            Self::Recovery(error) => write!(f, "the state cannot be recovered: {error}"),
            Self::StateLost { state, log } => write!(
                f,
                "the state in the data folder leads to slot {} only, but the log has forgotten what was before slot {}: \
                 the state is gone or older than the log. Put back the whole folder as this replica left it last; \
                 until then the others go on without it, as long as no more fail than the cluster tolerates",
                state.0, log.0
            ),
            Self::Restore(error) => write!(f, "the recovered state cannot be executed from: {error}"),
        }
    }
}

impl std::error::Error for OpenError {}

impl<S: Service> Replica<S> {
    /// Opens a replica from its two stores. Nothing in them is changed but what unfinished images left behind, once the
    /// state is checked. The first action writes and syncs the log, also when it is not the first start.
    ///
    /// # Errors
    ///
    /// [`OpenError`], in words that say what to do: nothing is repaired by guess.
    pub fn open(
        config: ReplicaConfig,
        service: Arc<S>,
        log_store: &dyn Store,
        state_store: &dyn Store,
        start: Start,
    ) -> Result<(Self, Vec<Action>), OpenError> {
        let keyring = config.genesis.check().map_err(OpenError::Genesis)?;
        let cluster = keyring.cluster();
        let opened = match start {
            Start::Genesis => Log::create(log_store, cluster, config.me)?,
            Start::Memory => Log::open(log_store, cluster, config.me, keyring.quorum().members())?,
        };
        let executor_config = ExecutorConfig { genesis: config.genesis.clone(), epoch: Epoch::ZERO };
        let mut executor = Executor::genesis(service.clone(), executor_config.clone());
        let recovered = recovery::recover(state_store, &keyring, &executor.freeze()).map_err(OpenError::Recovery)?;
        // R29, C8: the own disk leads to what this replica signed: its state, and from there the batches in its log.
        if recovered.cut().next() < opened.truncated_below() {
            return Err(OpenError::StateLost { state: recovered.cut(), log: opened.truncated_below() });
        }
        if let Some(state) = &recovered.state {
            executor =
                Executor::restore(service.clone(), executor_config, state.frozen()).map_err(OpenError::Restore)?;
        }
        let base: Option<Certificate<Checkpoint>> = recovered.state.as_ref().map(|state| state.certificate().clone());
        let history = base.as_ref().map_or(history_genesis(cluster), |base| base.statement().history);
        let core_config = core_config(&config, &keyring);
        let newest = newest_certificate(&opened.records, &keyring)?;
        let (core, held_back) = match start {
            Start::Genesis => Core::new(core_config),
            Start::Memory => Core::recover(core_config, RecoveredLog { records: opened.records, base: base.clone() }),
        };
        let stable = base.as_ref().map_or(Seq::ZERO, |base| base.statement().seq);
        let planner_config = PlannerConfig::new(&config.genesis.constants, keyring.quorum(), config.pipeline_slots);
        let (planner, planned) = Planner::new(planner_config, recovered);
        let statements = verified_statements(opened.checkpoints, stable, &keyring)?;
        let status_period_ms = config.genesis.constants.status_period_ms;
        let memory = Memory::new(config.me, &keyring, config.nonce, opened.log.next(), opened.heard, status_period_ms);
        let mut replica = Self {
            me: config.me,
            key: config.key,
            constants: config.genesis.constants.clone(),
            config_digest: config.genesis.digest(),
            keyring,
            service,
            genesis: config.genesis,
            core,
            executor,
            copies: Copies::default(),
            planner,
            catch_up: CatchUp::default(),
            serve: transfer::Serve::new(transfer::ServeConfig::default()),
            log: opened.log,
            memory,
            mark: Mark::default(),
            session_clock_must_run: false,
            queue: VecDeque::new(),
            held_back: Some(held_back),
            state_writes: Writes::default(),
            state_ticket: FIRST_TICKET,
            frontiers: BTreeMap::new(),
            digesting: Digesting::default(),
            history,
            statements: Statements::recovered(statements),
            images_in_flight: false,
            diverged: None,
            is_space_low: false,
            since_status_ms: 0,
            last_tick_ms: 0,
            halted: None,
            #[cfg(polder_mutations)]
            mutation: config.mutation,
        };
        let mut out = Vec::new();
        replica.carry_out_plan(planned, &mut out);
        // The log may know of a newer stable cut than the one that the state was restored from.
        if let Some(certificate) = newest {
            replica.certified(certificate, &mut out);
        }
        replica.tell_session_clock();
        replica.start(&mut out);
        Ok((replica, out))
    }

    /// The first actions: the question after what was signed, and the identity row, with which all of the log is synced
    /// (R18).
    fn start(&mut self, out: &mut Vec<Action>) {
        if !self.memory.is_proven() {
            out.push(Action::Send { to: polder_consensus::To::All, message: self.memory.question() });
        }
        self.flush(out);
    }
}

/// The newest stable certificate in the log.
fn newest_certificate(records: &[Record], keyring: &Keyring) -> Result<Option<Certificate<Checkpoint>>, OpenError> {
    let proofs = records.iter().filter_map(|record| match record {
        Record::Stable { certificate, .. } => Some(certificate),
        _ => None,
    });
    let Some(newest) = proofs.max_by_key(|proof| proof.statement.seq) else { return Ok(None) };
    let verified = newest.clone().verify(keyring, keyring.quorum().quorum());
    verified.map(Some).map_err(|_| OpenError::Damaged("the certificate of a stable cut"))
}

/// The own statements above the restored cut: what is in the own log was signed here, and is sent again.
fn verified_statements(
    checkpoints: Vec<Signed<Checkpoint>>,
    stable: Seq,
    keyring: &Keyring,
) -> Result<Vec<Verified<Signed<Checkpoint>>>, OpenError> {
    let above = checkpoints.into_iter().filter(|signed| signed.statement.seq > stable);
    let verified = above.map(|signed| signed.verify(keyring).map_err(|_| OpenError::Damaged("a checkpoint statement")));
    verified.collect()
}

fn core_config(config: &ReplicaConfig, keyring: &Keyring) -> Config {
    Config {
        me: config.me,
        epoch: Epoch::ZERO,
        keyring: keyring.clone(),
        key: config.key.clone(),
        constants: config.genesis.constants.clone(),
        pipeline_slots: config.pipeline_slots,
        #[cfg(polder_mutations)]
        mutation: config.mutation,
    }
}
