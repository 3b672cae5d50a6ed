//! Real nodes over real sockets on the loopback interface, in one process, with stores in memory; and those who flood them.
//! What a flood costs a node is measured beside: [`crate::fuzz::counting`] for its memory, the benchmark `hostile_clients`
//! for the throughput that it leaves others.

pub mod floods;
pub mod silent;

use std::sync::Arc;
use std::time::{Duration, Instant};

use polder_checkpoint::{MemStore, Store};
use polder_kv::{Kv, KvClient};
use polder_node::replica::Start;
use polder_node::{Node, NodeConfig, NodeError, Stores, Threads};
use polder_transport::{Config, Endpoint, Limits, SetupError, Wiring};
use polder_types::{ClientAccess, ClusterFile, Constants, FaultModel, ReplicaEntry, ReplicaId, SigningKey, Timestamp};

/// Longer than anything here takes, unless it is stuck.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Why a net could not be started.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// A socket cannot be opened.
    #[error("a socket: {0}")]
    Socket(#[from] std::io::Error),
    /// A node does not start.
    #[error("a node: {0}")]
    Node(#[from] NodeError),
}

/// A cluster of four on the loopback interface. It ends when it is dropped.
#[derive(Debug)]
pub struct Net {
    /// What clients know of it.
    pub cluster: ClusterFile,
    /// The nodes that run: those of replica 0 on.
    pub nodes: Vec<Node>,
}

/// The key by which a replica is known.
#[must_use]
pub fn identity(replica: u8) -> SigningKey {
    SigningKey::from_seed(&[100 + replica; 32])
}

/// The key that signs its statements.
#[must_use]
pub fn signing(replica: u8) -> SigningKey {
    SigningKey::from_seed(&[150 + replica; 32])
}

/// A client's key; replicas have others.
#[must_use]
pub fn client_key(number: u32) -> SigningKey {
    let mut seed = [0; 32];
    seed[..4].copy_from_slice(&number.to_le_bytes());
    SigningKey::from_seed(&seed)
}

impl Net {
    /// Starts so many of four replicas, open to any client; each verifies on one thread. To be called within a runtime.
    ///
    /// # Errors
    ///
    /// When a socket or a node cannot be started.
    pub fn start(running: u8, constants: Constants) -> Result<Self, NetError> {
        let wirings = (0..4).map(|_| Wiring::real(([127, 0, 0, 1], 0).into())).collect::<Result<Vec<_>, _>>()?;
        let entry = |(id, wiring): (u8, &Wiring)| -> std::io::Result<ReplicaEntry> {
            Ok(ReplicaEntry {
                address: wiring.socket.local_addr()?.to_string(),
                identity: identity(id).public(),
                signing: signing(id).public(),
            })
        };
        let cluster = ClusterFile {
            nonce: Default::default(),
            fault_model: FaultModel::Byzantine,
            constants,
            clients: ClientAccess { open: true, keys: Vec::new() },
            replicas: (0..).zip(&wirings).map(entry).collect::<Result<_, _>>()?,
        };
        let mut nodes = Vec::new();
        for (id, wiring) in (0..running).zip(wirings) {
            let config = NodeConfig {
                me: ReplicaId(id),
                cluster: cluster.clone(),
                identity: identity(id),
                signing: signing(id),
                pipeline_slots: 4,
                start: Start::Genesis,
                nonce: id.into(),
                threads: Threads::Own { verify: 1 },
                disk_reserve_bytes: 0,
                wall_clock: Arc::new(wall_clock),
            };
            let store = || Arc::new(MemStore::new()) as Arc<dyn Store>;
            let stores = Stores { log: store(), state: store() };
            nodes.push(Node::start(&config, Arc::new(Kv), wiring, stores, || Ok(()))?);
        }
        Ok(Self { cluster, nodes })
    }

    /// Waits until every node serves; false when that takes too long.
    pub async fn is_ready(&self) -> bool {
        for node in &self.nodes {
            let mut report = node.report();
            let ready = report.wait_for(|report| report.as_ref().is_some_and(|report| report.ready().is_ok()));
            if !tokio::time::timeout(PATIENCE, ready).await.is_ok_and(|ready| ready.is_ok()) {
                return false;
            }
        }
        true
    }

    /// View changes so far, of all nodes.
    #[must_use]
    pub fn view_changes(&self) -> u64 {
        let of = |node: &Node| node.report().borrow().as_ref().map_or(0, |report| report.status.core.view_changes);
        self.nodes.iter().map(of).sum()
    }
}

fn wall_clock() -> Timestamp {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(now.as_millis() as u64)
}

/// An endpoint that dials, with bounds of its own that no correct one has.
///
/// # Errors
///
/// When no socket can be opened.
pub fn dialer(cluster: &ClusterFile, key: SigningKey, wiring: Wiring, wide: bool) -> Result<Endpoint, SetupError> {
    let mut limits = Limits::new(&cluster.constants);
    if wide {
        limits.client_frame_bytes_max = 1 << 30;
        limits.replica_frame_bytes_max = 1 << 30;
    }
    let cluster = cluster.genesis().cluster();
    Endpoint::dialing(Config { identity: key, cluster, limits }, wiring)
}

/// So many callers put values of 128 bytes, each the next once the last is answered, until the time is over. Returns how
/// many puts were answered; one that fails ends its caller's turn.
pub async fn puts(client: &KvClient, callers: usize, time: Duration) -> u64 {
    let until = Instant::now() + time;
    let calls = (0..callers).map(|caller| {
        let client = client.clone();
        tokio::spawn(async move {
            let mut answered = 0_u64;
            while Instant::now() < until {
                let key = format!("caller/{caller}/{}", answered % 256);
                if client.put(key.as_bytes(), &[7; 128]).await.is_err() {
                    break;
                }
                answered += 1;
            }
            answered
        })
    });
    let mut answered = 0;
    for call in calls.collect::<Vec<_>>() {
        answered += call.await.unwrap_or_default();
    }
    answered
}
