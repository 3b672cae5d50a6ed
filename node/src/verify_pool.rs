//! Checking signatures: on threads beside the loop, or at once by the caller.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

use polder_consensus::Seen;
use polder_types::{Genesis, Keyring};
use tokio::sync::mpsc;

use crate::admission::{Checked, Job};
use crate::replica::verify_peer;

/// Jobs that travel to a worker, and back, at once.
const JOBS_PER_BATCH_MAX: usize = 16;

/// Jobs that a worker has at once: enough to keep it busy while the loop does something else.
const JOBS_PER_WORKER_MAX: usize = 2 * JOBS_PER_BATCH_MAX;

/// Batches that a worker's channel holds; as many as there can be.
pub(crate) const BATCHES_PER_WORKER_MAX: usize = JOBS_PER_WORKER_MAX;

/// Checks signatures: what a worker is, wherever it runs.
pub(crate) struct Checker {
    keyring: Keyring,
    genesis: Arc<Genesis>,
    seen: Seen,
}

impl Checker {
    pub(crate) fn new(keyring: Keyring, genesis: Arc<Genesis>) -> Self {
        let seen = Seen::for_cluster(&keyring, &genesis.constants);
        Self { keyring, genesis, seen }
    }

    fn check(&mut self, job: Job) -> Checked {
        match job {
            Job::Peer { from, message } => {
                let outcome = verify_peer(&self.keyring, &self.genesis.constants, &mut self.seen, *message);
                Checked::Peer { from, outcome }
            }
            Job::Client { connection, client, request, .. } => {
                let bytes = request.bytes();
                Checked::Client { connection, client, bytes, outcome: request.verify(self.keyring.cluster()) }
            }
        }
    }

    /// The life of a worker's thread: until the jobs' other end is gone.
    pub(crate) fn run(
        mut self,
        worker: usize,
        jobs: &Receiver<Vec<Job>>,
        checked: &mpsc::Sender<(usize, Vec<Checked>)>,
    ) {
        while let Ok(batch) = jobs.recv() {
            let verdicts = batch.into_iter().map(|job| self.check(job)).collect();
            if checked.blocking_send((worker, verdicts)).is_err() {
                return;
            }
        }
    }
}

/// Where signatures are checked: on threads, or at once by the caller.
pub(crate) enum Pool {
    Inline(Box<Checker>),
    Workers(Vec<Worker>),
}

/// A thread of the node has panicked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThreadGone;

/// The loop's end of a worker.
pub(crate) struct Worker {
    pub(crate) jobs: SyncSender<Vec<Job>>,
    /// Jobs that it has.
    pub(crate) outstanding: usize,
}

impl Pool {
    /// Gives the workers what they have room for; returns the verdicts that are there at once.
    ///
    /// # Errors
    ///
    /// When a worker's thread is gone, which only a bug can cause.
    pub(crate) fn feed(&mut self, mut next: impl FnMut() -> Option<Job>) -> Result<Vec<Checked>, ThreadGone> {
        match self {
            Self::Inline(checker) => Ok(std::iter::from_fn(next).map(|job| checker.check(job)).collect()),
            Self::Workers(workers) => {
                while let Some(worker) = workers.iter_mut().min_by_key(|worker| worker.outstanding)
                    && worker.outstanding + JOBS_PER_BATCH_MAX <= JOBS_PER_WORKER_MAX
                {
                    let batch: Vec<Job> = std::iter::from_fn(&mut next).take(JOBS_PER_BATCH_MAX).collect();
                    if batch.is_empty() {
                        break;
                    }
                    worker.outstanding += batch.len();
                    // Never full: the channel has room for as many batches as a worker can have jobs.
                    worker.jobs.try_send(batch).map_err(|_| ThreadGone)?;
                }
                Ok(Vec::new())
            }
        }
    }

    /// A worker has finished so many jobs.
    pub(crate) fn finished(&mut self, worker: usize, jobs: usize) {
        if let Self::Workers(workers) = self
            && let Some(worker) = workers.get_mut(worker)
        {
            worker.outstanding = worker.outstanding.saturating_sub(jobs);
        }
    }

    /// Whether nothing is being checked.
    pub(crate) fn is_idle(&self) -> bool {
        match self {
            Self::Inline(_) => true,
            Self::Workers(workers) => workers.iter().all(|worker| worker.outstanding == 0),
        }
    }
}
