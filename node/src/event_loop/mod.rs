//! The one loop around the replica: it turns frames, completions and time into events, steps the replica, and carries
//! out what it asks for.
//!
//! A *turn* takes everything that waits, gives the replica one event after the other, and then does all that was asked
//! for in one batch: one sync covers all writes, one frame carries all replies to a client, one encoding serves all
//! replicas. Ticks come after what was there before them (R7). All channels of the node are made in this file:
//!
//! | channel | of | bound | when full |
//! | --- | --- | --- | --- |
//! | `inbound` | decoded frames | 1 024 frames, 64 MiB of memory | connections are not read, the peer's window closes |
//! | `links` | ups and downs of links, which take no frames | 256 | the links wait |
//! | a worker's `jobs` | batches to verify | what a worker may have | never: the loop counts |
//! | `checked` | verdicts | 64 batches | the workers wait |
//! | a disk's `jobs` | writes | log 4 096, state 16 384 | the loop takes less, and then nothing, before ([`room`]); beyond, it waits |
//! | `slow` | digests, images | 1 024 | the loop waits |
//! | `done` | completions of slow jobs | 64 | the threads wait |
//! | `written`, `report`, `stop` | the newest value | 1 | replaced |
//! | `evidence` | all there is | five a replica and epoch (R41) | never |

mod act;
mod complaints;
mod inbound;
mod room;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use polder_checkpoint::Store;
use polder_consensus::{Evidence, Now};
use polder_executor::Service;
use polder_transport::{Endpoint, Lanes, Link, LinkConfig, LinkEvent, Listener};
use polder_types::{ClientId, Keyring, ReplicaId};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::Instant;

use crate::admission::{Admission, Checked};
use crate::clients::Clients;
use crate::disk::{self, DiskJob, Done, SlowJob};
use crate::disk_space::Reserve;
use crate::metrics::{DiskMetrics, Metrics};
use crate::node::{NodeConfig, NodeError, Stores, Threads, WallClock};
use crate::receive::{self, Inbound, Inlet, Permits, Shunned};
use crate::replica::{Action, Disk, Event, Replica};
use crate::report::Report;
use crate::verify_pool::{BATCHES_PER_WORKER_MAX, Checker, Pool, Worker};

use complaints::Complaints;
use room::Backlog;

/// The period of ticks.
const TICK: Duration = Duration::from_millis(10);

/// A report is made every so many ticks.
const TICKS_PER_REPORT: u32 = 10;

/// So often the turns of refused frames are given back, in ticks.
const TICKS_PER_GIVING_BACK: u32 = 10;

/// Frames taken in one turn.
const FRAMES_PER_TURN_MAX: usize = 512;

/// How long a node that shuts down waits for what it has taken.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// How long a node that has failed waits for its threads.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// What a loop owns.
pub(crate) struct EventLoop<S: Service> {
    replica: Replica<S>,
    started: Instant,
    wall_clock: WallClock,
    next_tick: Instant,
    tick_delay_max: Duration,
    ticks_to_report: u32,
    reserve: Reserve,
    ticks_to_measure: u32,
    quorum: usize,
    metrics: Arc<Metrics>,
    admission: Admission,
    pool: Pool,
    clients: Clients,
    peers: Vec<Peer>,
    complaints: Complaints,
    log: DiskEnd,
    state: DiskEnd,
    slow: Slow,
    stores: Stores,
    /// What happened and was not given to the replica yet.
    events: VecDeque<Event>,
    actions: Vec<Action>,
    inbound: mpsc::Receiver<(Inbound, Permits)>,
    shunned: Arc<Shunned>,
    /// The turns of frames that were refused lately: who floods is read no faster.
    refused: Vec<OwnedSemaphorePermit>,
    ticks_to_give_back: u32,
    /// What clients have asked since the last tick, but for requests, and the turns of those frames.
    questions: BTreeMap<ClientId, u32>,
    turns_of_tick: Vec<OwnedSemaphorePermit>,
    links: mpsc::Receiver<LinkEvent>,
    checked: mpsc::Receiver<(usize, Vec<Checked>)>,
    done: mpsc::Receiver<Done>,
    stop: watch::Receiver<bool>,
    drain_until: Option<Instant>,
    report: watch::Sender<Option<Arc<Report>>>,
    evidence: watch::Sender<Vec<Arc<Evidence>>>,
    endpoint: Endpoint,
    threads: Vec<JoinHandle<()>>,
}

/// What the loop knows of another replica.
struct Peer {
    id: ReplicaId,
    link: Link,
    heard: Option<Instant>,
    is_up: bool,
}

/// The loop's end of a disk.
struct DiskEnd {
    disk: Disk,
    /// None: the loop writes itself.
    jobs: Option<SyncSender<DiskJob>>,
    written: watch::Receiver<u64>,
    metrics: DiskMetrics,
    asked: u64,
    told: u64,
    /// The bytes of what waits, oldest first.
    waiting: VecDeque<(u64, usize)>,
    bytes: usize,
}

/// Where digests and images are made; none: the loop makes them itself.
struct Slow {
    digests: Option<SyncSender<SlowJob>>,
    images: Option<SyncSender<SlowJob>>,
}

/// What the node keeps of a loop.
pub(crate) struct Started {
    pub(crate) task: tokio::task::JoinHandle<Result<(), NodeError>>,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) report: watch::Receiver<Option<Arc<Report>>>,
    pub(crate) evidence: watch::Receiver<Vec<Arc<Evidence>>>,
}

/// Starts a loop around an opened replica. `events` are what it is to be told first, `actions` what it asked for at its
/// start.
pub(crate) fn start<S: Service>(
    config: &NodeConfig,
    keyring: &Keyring,
    (replica, events, actions): (Replica<S>, VecDeque<Event>, Vec<Action>),
    stores: Stores,
    (endpoint, listener): (Endpoint, Listener),
    metrics: Arc<Metrics>,
) -> Result<Started, NodeError> {
    let genesis = Arc::new(config.cluster.genesis());
    let (inbound_sender, inbound) = mpsc::channel(1_024);
    let (links_sender, links) = mpsc::channel(256);
    let (checked_sender, checked) = mpsc::channel(64);
    let (done_sender, done) = mpsc::channel(64);
    let (stop_sender, stop) = watch::channel(false);
    let (report_sender, report) = watch::channel(None);
    let (evidence_sender, evidence) = watch::channel(Vec::new());
    let mut threads = Threading { own: config.threads, started: Vec::new() };
    let checkers = |_| Checker::new(keyring.clone(), genesis.clone());
    let pool = threads.pool(checkers, &checked_sender)?;
    let log = threads.disk(Disk::Log, &stores.log, &metrics.log, &done_sender)?;
    let state = threads.disk(Disk::State, &stores.state, &metrics.state, &done_sender)?;
    let digests = threads.slow("polder-digest", &stores.state, &done_sender)?;
    let images = threads.slow("polder-image", &stores.state, &done_sender)?;
    let shunned = Arc::new(Shunned::default());
    let inlet = Inlet::new(inbound_sender, shunned.clone());
    tokio::spawn(receive::accept(listener, genesis.clone(), inlet));
    let peers = (0u8..).zip(&config.cluster.replicas).filter(|(id, _)| *id != config.me.0).map(|(id, entry)| {
        let link = LinkConfig {
            address: entry.address.clone(),
            identity: entry.identity,
            lanes: Lanes::REPLICA,
            tag: id.into(),
            // Replicas speak on the connections that they made themselves.
            takes_frames: false,
        };
        let link = Link::spawn(&endpoint, link, links_sender.clone());
        Peer { id: ReplicaId(id), link, heard: None, is_up: false }
    });
    let now = Instant::now();
    let event_loop = EventLoop {
        replica,
        started: now,
        wall_clock: config.wall_clock.clone(),
        next_tick: now + TICK,
        tick_delay_max: Duration::from_millis(genesis.constants.status_period_ms),
        ticks_to_report: 0,
        reserve: Reserve::new(config.disk_reserve_bytes),
        ticks_to_measure: 0,
        quorum: keyring.quorum().quorum(),
        admission: Admission::new(&genesis.constants),
        pool,
        clients: Clients::default(),
        peers: peers.collect(),
        complaints: Complaints::default(),
        log,
        state,
        slow: Slow { digests, images },
        stores,
        events,
        actions,
        inbound,
        shunned,
        refused: Vec::new(),
        ticks_to_give_back: TICKS_PER_GIVING_BACK,
        questions: BTreeMap::new(),
        turns_of_tick: Vec::new(),
        links,
        checked,
        done,
        stop,
        drain_until: None,
        report: report_sender,
        evidence: evidence_sender,
        endpoint,
        threads: threads.started,
        metrics,
    };
    Ok(Started { task: tokio::spawn(event_loop.run()), stop: stop_sender, report, evidence })
}

/// Starts what runs beside the loop, or nothing.
struct Threading {
    own: Threads,
    started: Vec<JoinHandle<()>>,
}

impl Threading {
    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), NodeError> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(NodeError::Thread)?;
        self.started.push(thread);
        Ok(())
    }

    fn pool(
        &mut self,
        checkers: impl Fn(usize) -> Checker,
        checked: &mpsc::Sender<(usize, Vec<Checked>)>,
    ) -> Result<Pool, NodeError> {
        let Threads::Own { verify } = self.own else { return Ok(Pool::Inline(Box::new(checkers(0)))) };
        let mut workers = Vec::new();
        for index in 0..verify.max(1) {
            let (jobs, given) = sync_channel(BATCHES_PER_WORKER_MAX);
            let (checker, checked) = (checkers(index), checked.clone());
            self.spawn("polder-verify", move || checker.run(index, &given, &checked))?;
            workers.push(Worker { jobs, outstanding: 0 });
        }
        Ok(Pool::Workers(workers))
    }

    fn disk(
        &mut self,
        disk: Disk,
        store: &Arc<dyn Store>,
        metrics: &DiskMetrics,
        done: &mpsc::Sender<Done>,
    ) -> Result<DiskEnd, NodeError> {
        let (written_sender, written) = watch::channel(0);
        let jobs = match self.own {
            Threads::Inline => None,
            Threads::Own { .. } => {
                let (jobs, given) = sync_channel(match disk {
                    Disk::Log => room::LOG_WRITES_MAX,
                    Disk::State => room::STATE_WRITES_MAX,
                });
                let (store, done, metrics) = (store.clone(), done.clone(), metrics.clone());
                let name = if disk == Disk::Log { "polder-log" } else { "polder-state" };
                self.spawn(name, move || disk::write_all(store.as_ref(), &given, &written_sender, &done, &metrics))?;
                Some(jobs)
            }
        };
        let metrics = metrics.clone();
        Ok(DiskEnd { disk, jobs, written, metrics, asked: 0, told: 0, waiting: VecDeque::new(), bytes: 0 })
    }

    fn slow(
        &mut self,
        name: &str,
        state: &Arc<dyn Store>,
        done: &mpsc::Sender<Done>,
    ) -> Result<Option<SyncSender<SlowJob>>, NodeError> {
        if self.own == Threads::Inline {
            return Ok(None);
        }
        let (jobs, given) = sync_channel(1_024);
        let (state, done) = (state.clone(), done.clone());
        self.spawn(name, move || disk::work(&state, &given, &done))?;
        Ok(Some(jobs))
    }
}

impl<S: Service> EventLoop<S> {
    /// Runs until told to stop, or until something ends the node.
    async fn run(mut self) -> Result<(), NodeError> {
        let outcome = self.turns().await;
        let Err(error) = outcome else {
            self.publish();
            self.clients.flush();
            return self.close("the node is shutting down").await;
        };
        tracing::error!(%error, "the node ends");
        // RocksDB does not bear that the process ends while a thread is inside it. One that waits for a disk for ever is
        // not waited for.
        let closing = self.close("the node has failed");
        if tokio::time::timeout(CLOSE_MAX, closing).await.is_err() {
            tracing::warn!("a thread still waits for its disk");
        }
        Err(error)
    }

    /// Takes turns until all is done that was taken before the node was told to stop.
    async fn turns(&mut self) -> Result<(), NodeError> {
        self.carry_out()?;
        loop {
            self.wait().await?;
            let started = std::time::Instant::now();
            self.take_in()?;
            self.step();
            self.carry_out()?;
            self.metrics.turn_seconds.observe(started.elapsed().as_secs_f64());
            if self.is_drained() {
                return Ok(());
            }
        }
    }

    /// Waits until there is something to do. What is received here is kept; the rest is taken without waiting.
    async fn wait(&mut self) -> Result<(), NodeError> {
        if !self.events.is_empty() {
            tokio::task::yield_now().await;
            return Ok(());
        }
        let has_room = self.has_room();
        // A tick that is overdue waits for input that is being checked: its verdict wakes the loop.
        let wake = self.next_tick.max(Instant::now() + Duration::from_millis(1));
        tokio::select! {
            biased;
            // The sender is gone with the node's handle: as good as being told.
            told = self.stop.changed(), if self.drain_until.is_none() => {
                if told.is_err() || *self.stop.borrow() {
                    self.drain_until = Some(Instant::now() + DRAIN_MAX);
                }
            }
            // Told by `take_in`; an error is a writer that ended, which it says in `done`.
            Ok(()) = self.log.written.changed() => {}
            Ok(()) = self.state.written.changed() => {}
            Some(done) = self.done.recv() => self.slow_done(done)?,
            Some((worker, checked)) = self.checked.recv() => self.verdicts(worker, checked),
            Some((inbound, permits)) = self.inbound.recv(), if has_room => self.received(inbound, permits),
            Some(event) = self.links.recv() => self.link(event),
            () = tokio::time::sleep_until(wake) => {}
        }
        Ok(())
    }

    /// Whether the disks keep up: if they do not, nothing new is taken.
    fn has_room(&self) -> bool {
        room::for_messages(Backlog::of(&self.log), Backlog::of(&self.state))
    }

    /// Whether they keep up so well that new requests of clients are taken.
    fn has_room_for_requests(&self) -> bool {
        room::for_requests(Backlog::of(&self.log), Backlog::of(&self.state))
    }

    /// Takes all that waits, within bounds, and turns it into events; a tick comes after what was there before it.
    fn take_in(&mut self) -> Result<(), NodeError> {
        while let Ok(done) = self.done.try_recv() {
            self.slow_done(done)?;
        }
        self.events.extend(self.log.news());
        self.events.extend(self.state.news());
        while let Ok((worker, checked)) = self.checked.try_recv() {
            self.verdicts(worker, checked);
        }
        if self.has_room() {
            for _ in 0..FRAMES_PER_TURN_MAX {
                let Ok((inbound, permits)) = self.inbound.try_recv() else { break };
                self.received(inbound, permits);
            }
        }
        while let Ok(event) = self.links.try_recv() {
            self.link(event);
        }
        self.feed()?;
        self.tick();
        Ok(())
    }

    /// R7: no timer overtakes input that was there before it, so a tick waits while there is some, but not longer than
    /// the time it can count for; and a pause counts as one tick: those that were missed are not made up for.
    fn tick(&mut self) {
        let now = Instant::now();
        let is_behind = self.admission.has_peers_waiting() || !self.has_room();
        if now >= self.next_tick && (!is_behind || now >= self.next_tick + self.tick_delay_max) {
            self.next_tick = now + TICK;
            self.admission.tick();
            self.questions.clear();
            self.turns_of_tick.clear();
            self.ticks_to_give_back = self.ticks_to_give_back.saturating_sub(1);
            if self.ticks_to_give_back == 0 {
                self.ticks_to_give_back = TICKS_PER_GIVING_BACK;
                self.refused.clear();
            }
            self.measure();
            self.events.push_back(Event::Tick);
            self.ticks_to_report = self.ticks_to_report.saturating_sub(1);
        }
    }

    /// Gives the verify pool what it has room for.
    fn feed(&mut self) -> Result<(), NodeError> {
        let Self { admission, pool, replica, metrics, .. } = self;
        let next = || admission.next(|header| replica.wants(header), || metrics.peer_messages_unwanted.inc());
        let verdicts = pool.feed(next).map_err(|_| NodeError::Bug("a thread that checks signatures has panicked"))?;
        self.verdicts(0, verdicts);
        Ok(())
    }

    fn slow_done(&mut self, done: Done) -> Result<(), NodeError> {
        self.events.push_back(match done {
            Done::Digested { frozen } => Event::Digested { frozen },
            Done::ImagesWritten { cut } => Event::ImagesWritten { cut },
            Done::BaseInstalled { cut } => Event::BaseInstalled { cut },
            Done::Failed(error) => return Err(NodeError::Store(error)),
        });
        Ok(())
    }

    fn link(&mut self, event: LinkEvent) {
        let mut set = |tag: usize, is_up: bool| {
            let peer = self.peers.iter_mut().find(|peer| usize::from(peer.id.0) == tag);
            peer.map(|peer| (peer.id, std::mem::replace(&mut peer.is_up, is_up)))
        };
        match event {
            LinkEvent::Up { tag } => {
                if let Some((peer, _)) = set(tag, true) {
                    tracing::info!(%peer, "connected");
                }
            }
            LinkEvent::Down { tag, why } => match set(tag, false) {
                Some((peer, true)) => tracing::info!(%peer, %why, "disconnected"),
                Some((peer, false)) if why.is_permanent() => tracing::warn!(%peer, %why, "cannot connect"),
                Some((peer, false)) => tracing::debug!(%peer, %why, "cannot connect"),
                None => {}
            },
            // There are none: the link takes no frames.
            LinkEvent::Frame { .. } => {}
        }
    }

    /// Gives the replica all events, in order.
    fn step(&mut self) {
        let now = Now {
            monotonic_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            wall: (self.wall_clock)(),
        };
        self.metrics.events_per_turn.observe(self.events.len() as f64);
        for event in self.events.drain(..) {
            self.replica.step(now, event, &mut self.actions);
        }
    }

    /// Whether the node was told to stop, and has done what it had taken, or waited long enough for it.
    fn is_drained(&self) -> bool {
        self.drain_until.is_some_and(|until| {
            let has_nothing_waiting = self.events.is_empty()
                && self.pool.is_idle()
                && self.log.asked == self.log.told
                && self.state.asked == self.state.told
                && self.replica.status().core.waiting == 0;
            has_nothing_waiting || Instant::now() >= until
        })
    }

    /// The end: what was asked of the disks is written, the peers are told.
    async fn close(self, reason: &str) -> Result<(), NodeError> {
        self.endpoint.close(reason).await;
        let Self { log, state, slow, pool, threads, done, checked, .. } = self;
        // The threads end when nobody can ask them for anything, or listens to them, any more.
        drop((log, state, slow, pool, done, checked));
        for thread in threads {
            let ended = tokio::task::spawn_blocking(|| thread.join()).await;
            if !matches!(ended, Ok(Ok(()))) {
                return Err(NodeError::Bug("a thread has panicked"));
            }
        }
        Ok(())
    }
}
