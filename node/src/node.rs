//! Starting a node, and ending it.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use polder_checkpoint::{Durability, Store, StoreError};
use polder_consensus::Evidence;
use polder_executor::Service;
use polder_transport::{Config, Endpoint, Limits, SetupError, Wiring};
use polder_types::{ClusterFile, GenesisError, ReplicaId, SigningKey, Timestamp};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::event_loop;
use crate::files::FileError;
use crate::metrics::Metrics;
use crate::receive;
use crate::replica::{Action, Disk, Event, OpenError, Replica, ReplicaConfig, Start};
use crate::report::Report;

/// The wall clock, for the times of batches (R27): an argument, so that a simulation gives its own.
pub type WallClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What a node is started with.
#[derive(Clone)]
pub struct NodeConfig {
    /// Which replica it is.
    pub me: ReplicaId,
    /// The cluster: its genesis, and where the replicas listen.
    pub cluster: ClusterFile,
    /// The key by which others know it.
    pub identity: SigningKey,
    /// The key that signs its statements.
    pub signing: SigningKey,
    /// Slots that it keeps uncommitted as a leader: from 1 to `fresh_slots_max`.
    pub pipeline_slots: u64,
    /// Whether this is its first start. An empty disk must never look like one (R18): [`crate::identity`] knows.
    pub start: Start,
    /// Drawn anew for each start (R18).
    pub nonce: u64,
    /// Which threads it has beside the runtime's.
    pub threads: Threads,
    /// Bytes that should stay free on the disks of its stores: below that no new commands are taken (C10).
    pub disk_reserve_bytes: u64,
    /// The wall clock.
    pub wall_clock: WallClock,
}

impl fmt::Debug for NodeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeConfig").field("me", &self.me).field("start", &self.start).finish_non_exhaustive()
    }
}

/// Which threads a node has beside the runtime's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// None: the loop checks, writes and digests by itself. For simulations, where a thread would break replay.
    Inline,
    /// One for each store, one for digests, one for images, and these:
    Own {
        /// Threads that check signatures; at least one.
        verify: usize,
    },
}

/// The two stores of a node (R19).
#[derive(Clone)]
pub struct Stores {
    /// The ordering log.
    pub log: Arc<dyn Store>,
    /// The state.
    pub state: Arc<dyn Store>,
}

impl fmt::Debug for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stores")
    }
}

/// Why a node did not start, or why it ended.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The genesis configuration cannot be.
    #[error("the cluster's configuration cannot be: {0}")]
    Genesis(GenesisError),
    /// The replica cannot be opened from its data.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The transport cannot be set up.
    #[error(transparent)]
    Transport(#[from] SetupError),
    /// The identity file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A store failed. Nothing is retried over it (R19): start the node again once the disk is well.
    #[error("{0}; the node stops here and does not write over it: check the disk, then start the node again")]
    Store(StoreError),
    /// The replica stopped for good.
    #[error("this replica stops for good: {0}")]
    Halted(Arc<str>),
    /// A thread cannot be started.
    #[error("a thread cannot be started: {0}")]
    Thread(io::Error),
    /// A bug: report it.
    #[error("a bug in polder: {0}")]
    Bug(&'static str),
}

// By hand: their words are in these words, and whoever prints all causes of an error would print them twice.
impl From<GenesisError> for NodeError {
    fn from(error: GenesisError) -> Self {
        Self::Genesis(error)
    }
}

impl From<StoreError> for NodeError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A running node. It shuts down when the last handle is dropped or [`Node::stop`] is called.
#[derive(Debug)]
pub struct Node {
    task: JoinHandle<Result<(), NodeError>>,
    stop: watch::Sender<bool>,
    report: watch::Receiver<Option<Arc<Report>>>,
    evidence: watch::Receiver<Vec<Arc<Evidence>>>,
    metrics: Arc<Metrics>,
    address: SocketAddr,
}

impl Node {
    /// Starts a node: opens the replica from its stores, then listens, dials the others and runs. To be called within
    /// a tokio runtime. `remembered` is called when the first row of a first start is durable and before anything
    /// leaves the node: there the identity file is disarmed (R18).
    ///
    /// # Errors
    ///
    /// [`NodeError`], in words that say what to do.
    pub fn start<S: Service>(
        config: &NodeConfig,
        service: Arc<S>,
        wiring: Wiring,
        stores: Stores,
        remembered: impl FnOnce() -> Result<(), FileError>,
    ) -> Result<Self, NodeError> {
        let genesis = Arc::new(config.cluster.genesis());
        let keyring = genesis.check()?;
        let replica_config = ReplicaConfig {
            genesis: genesis.clone(),
            me: config.me,
            key: config.signing.clone(),
            pipeline_slots: config.pipeline_slots,
            nonce: config.nonce,
            #[cfg(polder_mutations)]
            mutation: None,
        };
        let (log, state) = (stores.log.as_ref(), stores.state.as_ref());
        let (replica, actions) = Replica::open(replica_config, service, log, state, config.start)?;
        // What it writes first says whose the log is: nothing leaves before that is durable.
        let mut events = VecDeque::new();
        let mut others = Vec::new();
        for action in actions {
            match action {
                Action::Write { disk, writes, ticket, .. } => {
                    let store = if disk == Disk::Log { log } else { state };
                    store.apply(&writes, Durability::Synced)?;
                    events.push_back(Event::Written { disk, ticket });
                }
                other => others.push(other),
            }
        }
        remembered()?;
        let transport = Config {
            identity: config.identity.clone(),
            cluster: keyring.cluster(),
            limits: Limits::new(&genesis.constants),
        };
        let (endpoint, listener) = Endpoint::listening(transport, wiring, receive::allow(&genesis))?;
        let address = endpoint.local_address().map_err(SetupError::Socket)?;
        let metrics = Metrics::new(config.me).map_err(|_| NodeError::Bug("a metric has a wrong or a second name"))?;
        let metrics = Arc::new(metrics);
        let opened = (replica, events, others);
        let started = event_loop::start(config, &keyring, opened, stores, (endpoint, listener), metrics.clone())?;
        let event_loop::Started { task, stop, report, evidence } = started;
        Ok(Self { task, stop, report, evidence, metrics, address })
    }

    /// The address it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it says of itself, anew ten times a second; none before the first time.
    #[must_use]
    pub fn report(&self) -> watch::Receiver<Option<Arc<Report>>> {
        self.report.clone()
    }

    /// The evidence against other replicas that it has found since its start (R41): at most one a replica, kind and epoch.
    #[must_use]
    pub fn evidence(&self) -> watch::Receiver<Vec<Arc<Evidence>>> {
        self.evidence.clone()
    }

    /// What it counts.
    #[must_use]
    pub fn metrics(&self) -> Arc<Metrics> {
        self.metrics.clone()
    }

    /// Asks it to shut down: it finishes what it has taken, for at most two seconds, and takes nothing new.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until it has ended. Cancel safe: it can be waited for again.
    ///
    /// # Errors
    ///
    /// Why it ended, if nobody asked it to.
    pub async fn ended(&mut self) -> Result<(), NodeError> {
        match (&mut self.task).await {
            Ok(outcome) => outcome,
            Err(_) => Err(NodeError::Bug("the event loop has panicked or its runtime has ended")),
        }
    }
}
