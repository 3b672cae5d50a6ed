//! One machine: a replica while it runs, its two disks, its clocks, and what it does beside the loop.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use polder_checkpoint::{CertifiedState, MemStore, Store as _, images, install};
use polder_consensus::Now;
use polder_executor::FrozenPartition;
use polder_node::replica::{Event, Replica};
use polder_types::{ReplicaId, Seq, Timestamp, View};

use super::damage::Damage;
use super::point::Doom;
use super::strays::Manner;
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
    /// How much faster than it should its monotonic clock runs, in thousandths, and its wall clock.
    pub drift_per_mille: [i64; 2],
    /// What its wall clock shows while it stands, in milliseconds.
    pub frozen_wall_ms: Option<u64>,
    /// The last view whose leader it suspected. Others keep its SUSPECT, though it may have forgotten it in a crash.
    pub suspected: Option<View>,
    /// When its process started, in microseconds.
    pub started_us: u64,
    /// How long a digest takes, at most.
    pub digest_us_max: u64,
    /// Until when it stands still.
    pub paused_until_us: u64,
    /// Until when it gets few steps.
    pub starved_until_us: u64,
    /// Until when a starved one is busy with its last step.
    pub busy_until_us: u64,
    /// What arrived while it stood still or was busy.
    pub backlog: VecDeque<Event>,
    /// Whether a tick is among that.
    pub has_tick: bool,
    /// How its connections fail when it is left alone.
    pub manner: Option<Manner>,
    /// Set when it is to crash.
    pub doom: Option<Doom>,
    /// When it lies: how.
    pub liar: Option<Liar>,
    /// What it is held to when it does not lie.
    pub standing: Standing,
    /// What happened to its folder, until it starts from it.
    pub damage: Option<Damage>,
    /// An older copy of its two disks.
    pub saved: Option<[MemStore; 2]>,
    /// Whether it never comes back.
    pub is_gone: bool,
    /// What it writes beside the loop.
    pub jobs: BTreeMap<u64, Job>,
    next_job: u64,
}

/// What a replica that does not lie is held to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It is correct.
    #[default]
    Correct,
    /// Its log was set back, and others can show it: it signs nothing, and halts.
    MustHalt,
    /// Its log was set back, and perhaps nobody can show it: it counts in `r`.
    Excused,
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
            drift_per_mille: [0; 2],
            frozen_wall_ms: None,
            suspected: None,
            started_us: 0,
            digest_us_max: 5_000,
            paused_until_us: 0,
            starved_until_us: 0,
            busy_until_us: 0,
            backlog: VecDeque::new(),
            has_tick: false,
            manner: None,
            doom: None,
            liar,
            standing: Standing::Correct,
            damage: None,
            saved: None,
            is_gone: false,
            jobs: BTreeMap::new(),
            next_job: 0,
        }
    }

    /// Its two clocks.
    #[must_use]
    pub fn clocks(&self, now_us: u64) -> Now {
        let [monotonic, wall] = self.drift_per_mille;
        let wall_ms = (WALL_START_MS + stretched(now_us, wall) / 1_000).saturating_add_signed(self.skew_ms);
        let monotonic_ms = stretched(now_us - self.started_us, monotonic) / 1_000;
        Now { monotonic_ms, wall: Timestamp(self.frozen_wall_ms.unwrap_or(wall_ms)) }
    }

    /// Its wall clock is set right again, but for this skew, and runs as it should.
    pub fn set_clock(&mut self, skew_ms: u64) {
        self.skew_ms = skew_ms as i64;
        self.drift_per_mille[1] = 0;
        self.frozen_wall_ms = None;
    }

    /// Whether it is running, paused or not.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.replica.is_some()
    }

    /// Whether it does what the protocol says, and nothing else.
    #[must_use]
    pub fn is_correct(&self) -> bool {
        self.liar.is_none() && self.standing == Standing::Correct
    }

    /// Whether its log has never held anything: then nothing was ever promised, and it starts for the first time.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.log.store().bytes_on_disk() == 0
    }

    /// Its disks are as they should be again.
    pub fn mend_disks(&mut self) {
        for disk in [&mut self.log, &mut self.state] {
            (disk.slowness, disk.stalled_until_us, disk.trouble) = (1, 0, None);
        }
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
        self.has_tick = false;
        self.paused_until_us = 0;
        self.busy_until_us = 0;
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
        if self.is_blank() && self.damage.is_none() {
            // A first start that nobody will ever know of.
            self.state = Disk::default();
        }
    }
}

/// How long a clock shows for that long.
fn stretched(us: u64, drift_per_mille: i64) -> u64 {
    us / 1_000 * 1_000u64.saturating_add_signed(drift_per_mille)
}
