//! A machine: a runtime with a clock of its own, plugged into the network, that can be switched off, paused, and run a
//! little too fast or too slow. Nothing in it has a thread.

use std::future::Future;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use polder_checkpoint::{MemStore, Store};
use polder_client::Builder;
use polder_node::replica::Start;
use polder_node::{Metrics, Node, NodeConfig, Report, Stores, Threads};
use polder_sim_tests::random::{Purpose, Random};
use polder_sim_tests::service::Lists;
use polder_transport::Wiring;
use polder_types::{ClusterFile, ReplicaId, SigningKey, Timestamp};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::network::{Names, Network, Port};

/// The step of every clock.
const TICK: Duration = Duration::from_millis(1);

/// What a replica wants to stay free on its disks.
pub(crate) const DISK_RESERVE_BYTES: u64 = 1 << 20;

/// A machine, whatever runs on it.
pub(crate) struct Machine {
    pub(crate) name: String,
    pub(crate) network: Arc<Network>,
    plug: Plug,
    /// None while it is off.
    runtime: Option<Runtime>,
    /// How much faster than time its clock runs, in parts per thousand.
    fast: i64,
    debt: i64,
    paused_ms: Option<u64>,
}

/// What is drawn of a machine, and what connects it to the network.
#[derive(Clone)]
pub(crate) struct Plug {
    port: Arc<Port>,
    names: Arc<Names>,
    /// How far the wall clock is ahead.
    ahead_ms: Arc<AtomicI64>,
    random: Arc<Mutex<Random>>,
}

impl Plug {
    fn random(&self) -> MutexGuard<'_, Random> {
        self.random.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream of randomness for something that runs on the machine.
    pub(crate) fn stream(&self, purpose: Purpose) -> Random {
        Random::new(self.random().bits(), purpose)
    }

    /// A wiring into the network, with randomness of its own; the one before it is dead.
    pub(crate) fn wiring(&self) -> Wiring {
        let seed = self.random().bytes();
        self.port.plug(&self.names, &self.ahead_ms, seed)
    }

    /// A client's builder, with nothing of it drawn from elsewhere than the seed.
    pub(crate) fn client(&self, cluster: &ClusterFile, key: &SigningKey) -> Builder {
        let mut nonces = self.stream(Purpose::Keys);
        Builder::new(cluster.clone(), key.clone()).wiring(self.wiring()).nonces(move || nonces.bytes())
    }
}

impl Machine {
    /// A machine that is off. Its clocks differ a little from those of others.
    pub(crate) fn new(port: &Arc<Port>, names: &Arc<Names>, mut random: Random) -> Self {
        let (fast, ahead_ms) = (random.range(0, 20) as i64 - 10, random.range(0, 200) as i64 - 100);
        let (port, names, random) = (Arc::clone(port), Arc::clone(names), Arc::new(Mutex::new(random)));
        let ahead_ms = Arc::new(AtomicI64::new(ahead_ms));
        Self {
            name: port.name.clone(),
            network: Arc::clone(&port.network),
            plug: Plug { port, names, ahead_ms, random },
            runtime: None,
            fast,
            debt: 0,
            paused_ms: None,
        }
    }

    /// What connects what runs on it to the network.
    pub(crate) fn plug(&self) -> Plug {
        self.plug.clone()
    }

    pub(crate) fn is_on(&self) -> bool {
        self.runtime.is_some()
    }

    /// Switches it on, with this to do first.
    pub(crate) fn boot<T>(&mut self, first: impl Future<Output = T>) -> T {
        self.network.note(format_args!("{} boots", self.name));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime without threads");
        let done = runtime.block_on(first);
        self.runtime = Some(runtime);
        done
    }

    /// Takes its power away: whatever it did ends in the middle.
    pub(crate) fn cut_power(&mut self) {
        self.network.note(format_args!("{} is off", self.name));
        self.paused_ms = None;
        // First the cable, so that what is dropped with the runtime says nothing any more.
        self.plug.port.unplug();
        self.runtime = None;
    }

    /// Sets its wall clock, in one leap, by so much forwards or back: as an operator does, or a bad time server.
    pub(crate) fn shift_clock(&self, by_ms: i64) {
        self.network.note(format_args!("the wall clock of {} leaps by {by_ms} ms", self.name));
        self.plug.ahead_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// Stops all that runs on it, as SIGSTOP does; its clock goes on.
    pub(crate) fn pause(&mut self) {
        self.network.note(format_args!("{} is paused", self.name));
        self.paused_ms = Some(0);
    }

    /// Lets it go on: it finds that time has passed.
    pub(crate) fn resume(&mut self) {
        let Some(paused_ms) = self.paused_ms.take() else { return };
        self.network.note(format_args!("{} goes on", self.name));
        if let Some(runtime) = &self.runtime {
            runtime.block_on(async { tokio::time::advance(Duration::from_millis(paused_ms)).await });
        }
    }

    /// A millisecond passes.
    pub(crate) fn tick(&mut self) {
        if let Some(paused_ms) = &mut self.paused_ms {
            *paused_ms += 1;
            return;
        }
        self.debt += 1_000 + self.fast;
        while self.debt >= 1_000 {
            self.debt -= 1_000;
            if let Some(runtime) = &self.runtime {
                runtime.block_on(async { tokio::time::sleep_until(Instant::now() + TICK).await });
            }
        }
    }

    /// Starts something on the running machine.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.runtime {
            runtime.spawn(task);
        }
    }
}

/// A machine with a replica on it, and disks that outlive its crashes.
pub(crate) struct Replica {
    pub(crate) machine: Machine,
    pub(crate) id: ReplicaId,
    pub(crate) cluster: ClusterFile,
    identity: SigningKey,
    signing: SigningKey,
    pub(crate) log: Arc<MemStore>,
    pub(crate) state: Arc<MemStore>,
    /// Whether a first start came so far that the next one must remember.
    has_begun: Arc<Mutex<bool>>,
    running: Option<Running>,
}

/// What is seen of a running node.
struct Running {
    report: watch::Receiver<Option<Arc<Report>>>,
    metrics: Arc<Metrics>,
    ended: Arc<Mutex<Option<String>>>,
}

impl Replica {
    pub(crate) fn new(
        machine: Machine,
        id: ReplicaId,
        cluster: &ClusterFile,
        (identity, signing): (SigningKey, SigningKey),
    ) -> Self {
        let (log, state) = (Arc::default(), Arc::default());
        let (cluster, has_begun) = (cluster.clone(), Arc::default());
        Self { machine, id, cluster, identity, signing, log, state, has_begun, running: None }
    }

    /// Starts the node from what is on its disks. An error is what it said.
    pub(crate) fn start(&mut self) -> Result<(), String> {
        let plug = self.machine.plug();
        let (network, ahead_ms) = (Arc::clone(&self.machine.network), Arc::clone(&plug.ahead_ms));
        let has_begun = *self.has_begun.lock().unwrap_or_else(PoisonError::into_inner);
        let config = NodeConfig {
            me: self.id,
            cluster: self.cluster.clone(),
            identity: self.identity.clone(),
            signing: self.signing.clone(),
            pipeline_slots: 4,
            start: if has_begun { Start::Memory } else { Start::Genesis },
            nonce: plug.random().bits(),
            threads: Threads::Inline,
            disk_reserve_bytes: DISK_RESERVE_BYTES,
            wall_clock: Arc::new(move || {
                let now = network.wall_clock(ahead_ms.load(Ordering::Relaxed)).as_millis();
                Timestamp(u64::try_from(now).unwrap_or(u64::MAX))
            }),
        };
        let wiring = plug.wiring();
        let stores = Stores { log: Arc::clone(&self.log) as Arc<dyn Store>, state: Arc::clone(&self.state) as _ };
        let begun = Arc::clone(&self.has_begun);
        let remembered = move || {
            *begun.lock().unwrap_or_else(PoisonError::into_inner) = true;
            Ok(())
        };
        let node = self.machine.boot(async { Node::start(&config, Arc::new(Lists), wiring, stores, remembered) });
        let mut node = node.map_err(|error| error.to_string())?;
        let ended = Arc::new(Mutex::new(None));
        self.running = Some(Running { report: node.report(), metrics: node.metrics(), ended: Arc::clone(&ended) });
        self.machine.spawn(async move {
            let outcome = node.ended().await;
            let words = outcome.map_or_else(|error| error.to_string(), |()| "it was told to".to_owned());
            *ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(words);
        });
        Ok(())
    }

    /// The machine loses its power; what the disks had not synced may be lost.
    pub(crate) fn crash(&mut self) {
        self.machine.cut_power();
        self.running = None;
        for disk in [&self.log, &self.state] {
            let kept = self.machine.plug.random().below(disk.unsynced() + 1);
            disk.crash(kept);
        }
    }

    /// New, empty disks, for a replica that was never started.
    pub(crate) fn forget(&mut self) {
        (self.log, self.state) = (Arc::default(), Arc::default());
        self.has_begun = Arc::default();
    }

    /// Why the node has ended by itself, if it has.
    pub(crate) fn ended(&self) -> Option<String> {
        self.running.as_ref()?.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What it said of itself last.
    pub(crate) fn report(&self) -> Option<Arc<Report>> {
        self.running.as_ref()?.report.borrow().clone()
    }

    /// The same, once each time that it says it.
    pub(crate) fn news(&mut self) -> Option<Arc<Report>> {
        let report = &mut self.running.as_mut()?.report;
        report.has_changed().unwrap_or(false).then(|| report.borrow_and_update().clone())?
    }

    /// A counter of its metrics, of this start and of one peer.
    pub(crate) fn counted(&self, name: &str, peer: ReplicaId) -> u64 {
        let Some(running) = &self.running else { return 0 };
        let text = running.metrics.text();
        let label = format!("peer=\"{}\"", peer.0);
        let line = text.lines().find(|line| line.starts_with(name) && line.contains(&label));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
    }
}
