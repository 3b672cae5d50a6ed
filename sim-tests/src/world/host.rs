//! One machine: a replica while it runs, its two disks, its clocks, and what it does beside the loop.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use polder_checkpoint::{CertifiedState, Store as _, images, install};
use polder_consensus::Message;
use polder_consensus::Now;
use polder_executor::FrozenPartition;
use polder_node::replica::{Action, Event, Replica, VerifiedPeer};
use polder_types::{ReplicaId, Seq, Timestamp, View};

use crate::byzantine::Liar;
use crate::disk::Disk;
use crate::random::Random;
use crate::service::Lists;

/// The wall clock at the start of every run, in milliseconds.
const WALL_START_MS: u64 = 1_700_000_000_000;

/// One machine.
pub struct Host {
    /// Which replica.
    pub id: ReplicaId,
    /// The replica; none while it is down.
    pub replica: Option<Replica<Lists>>,
    /// Counts its starts: what was under way for an earlier one never arrives.
    pub life: u64,
    /// The ordering log's disk.
    pub log: Disk,
    /// The state's disk.
    pub state: Disk,
    /// How its wall clock differs, in milliseconds.
    pub skew_ms: i64,
    /// The last view whose leader it suspected. Others keep its SUSPECT, though it may have forgotten it in a crash.
    pub suspected: Option<View>,
    /// When its process started, in microseconds.
    pub started_us: u64,
    /// How long a digest takes, at most.
    pub digest_us_max: u64,
    /// Until when it stands still.
    pub paused_until_us: u64,
    /// What arrived while it stood still.
    pub backlog: VecDeque<Event>,
    /// Set when it is to crash.
    pub doom: Option<Doom>,
    /// When it lies: how.
    pub liar: Option<Liar>,
    /// Whether it never comes back.
    pub is_gone: bool,
    /// What it writes beside the loop.
    pub jobs: BTreeMap<u64, Job>,
    next_job: u64,
}

/// When a replica is to crash: in the middle of what it does next, or of something rarer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doom {
    /// In the middle of what.
    pub point: Point,
    /// After this time, in the middle of anything.
    pub latest_us: u64,
}

/// The point at which a crash strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Anything.
    Anywhere,
    /// Leaving or entering a view.
    ViewChange,
    /// A cut: its digest, its statement, its images, a new base.
    Cut,
    /// A proposal.
    Proposal,
}

/// What is written beside the loop.
pub enum Job {
    /// Images, a partition a time.
    Images {
        /// The cut.
        cut: Seq,
        /// What is still to be written.
        partitions: VecDeque<FrozenPartition>,
    },
    /// A transferred state.
    Base {
        /// The state.
        state: Box<CertifiedState>,
        /// It starts when this write on the state's disk is done.
        after: Option<u64>,
    },
}

impl Host {
    /// A machine that was never started.
    #[must_use]
    pub fn new(id: ReplicaId, liar: Option<Liar>) -> Self {
        Self {
            id,
            replica: None,
            life: 0,
            log: Disk::default(),
            state: Disk::default(),
            skew_ms: 0,
            suspected: None,
            started_us: 0,
            digest_us_max: 5_000,
            paused_until_us: 0,
            backlog: VecDeque::new(),
            doom: None,
            liar,
            is_gone: false,
            jobs: BTreeMap::new(),
            next_job: 0,
        }
    }

    /// Its two clocks.
    #[must_use]
    pub fn clocks(&self, now_us: u64) -> Now {
        let wall_ms = (WALL_START_MS + now_us / 1_000).saturating_add_signed(self.skew_ms);
        Now { monotonic_ms: (now_us - self.started_us) / 1_000, wall: Timestamp(wall_ms) }
    }

    /// Whether it is running, paused or not.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.replica.is_some()
    }

    /// Whether its log has never held anything: then nothing was ever promised, and it starts for the first time.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.log.store().bytes_on_disk() == 0
    }

    /// Adds a job; returns its number.
    pub fn add_job(&mut self, job: Job) -> u64 {
        self.next_job += 1;
        self.jobs.insert(self.next_job, job);
        self.next_job
    }

    /// The job to work at now: one comes after the other, and a new base after the writes that came before it.
    #[must_use]
    pub fn job(&self) -> Option<u64> {
        let (job, what) = self.jobs.first_key_value()?;
        let may_start = match what {
            Job::Base { after: Some(after), .. } => self.state.done().is_some_and(|done| done >= *after),
            _ => true,
        };
        may_start.then_some(*job)
    }

    /// Does one part of a job. Returns the event that ends it, when it is done.
    ///
    /// # Errors
    ///
    /// When the store fails.
    pub fn work(&mut self, job: u64, chunk_bytes: usize) -> Result<Option<Event>, polder_checkpoint::StoreError> {
        let store = Arc::clone(self.state.store());
        match self.jobs.get_mut(&job) {
            None => Ok(None),
            Some(Job::Images { cut, partitions }) => {
                let cut = *cut;
                if let Some(partition) = partitions.pop_front() {
                    images::write(store.as_ref(), cut, &[partition], chunk_bytes)?;
                }
                if !partitions.is_empty() {
                    return Ok(None);
                }
                self.jobs.remove(&job);
                Ok(Some(Event::ImagesWritten { cut }))
            }
            Some(Job::Base { state, .. }) => {
                let cut = state.cut();
                install::write(store.as_ref(), state, chunk_bytes)?;
                self.jobs.remove(&job);
                Ok(Some(Event::BaseInstalled { cut }))
            }
        }
    }

    /// The process and its machine crash: all that is not synced may be lost; a job stops in the middle.
    pub fn crash(&mut self, random: &mut Random) {
        self.replica = None;
        self.life += 1;
        self.doom = None;
        self.backlog.clear();
        self.paused_until_us = 0;
        if let Some(job) = self.job()
            && random.chance(700)
        {
            self.state.store().fail_at(random.range(1, 12));
            // It fails: that is the point.
            drop(self.work(job, random.range(64, 512) as usize));
        }
        self.jobs.clear();
        self.log.crash(random);
        self.state.crash(random);
        if self.is_blank() {
            // A first start that nobody will ever know of.
            self.state = Disk::default();
        }
    }
}

impl Doom {
    /// Whether these actions are the ones in whose middle it strikes.
    #[must_use]
    pub fn strikes(&self, now_us: u64, actions: &[Action]) -> bool {
        let point = if now_us >= self.latest_us { Point::Anywhere } else { self.point };
        match point {
            Point::Anywhere => !actions.is_empty(),
            Point::ViewChange => actions.iter().any(|action| {
                matches!(ordering(action), Some(Message::ViewChange(..) | Message::NewView(..) | Message::Suspects(..)))
            }),
            Point::Proposal => actions.iter().any(|action| matches!(ordering(action), Some(Message::Proposal(..)))),
            Point::Cut => actions.iter().any(|action| {
                matches!(
                    action,
                    Action::Digest { .. }
                        | Action::WriteImages { .. }
                        | Action::InstallBase { .. }
                        | Action::Send { message: VerifiedPeer::Checkpoint(..), .. }
                )
            }),
        }
    }
}

fn ordering(action: &Action) -> Option<&Message> {
    match action {
        Action::Send { message: VerifiedPeer::Ordering(message, _), .. } => Some(message.message()),
        _ => None,
    }
}
