//! What runs beside the event loop on threads of its own: writing to the two stores, digests, images.
//!
//! A writer takes everything that waits, merges it into one change and syncs once for all of it (group commit).
//! Completions are a number that only grows, so that telling them never waits for the loop.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;

use polder_checkpoint::{CertifiedState, Durability, Store, StoreError, Writes, images, install as base};
use polder_executor::{Frozen, FrozenPartition};
use polder_types::Seq;
use tokio::sync::{mpsc, watch};

use crate::metrics::DiskMetrics;

/// One merged change is closed beyond this size: a vote must not wait for a whole backlog of state.
const MERGED_BYTES_MAX: usize = 8 << 20;

/// Bytes of rows that an image is written in at a time.
pub(crate) const IMAGE_CHUNK_BYTES: usize = 1 << 20;

/// What a writer is given, in order.
#[derive(Debug)]
pub(crate) enum DiskJob {
    /// Apply.
    Write(PendingWrite),
    /// Write a transferred state as a new base, after all that came before.
    Install { state: CertifiedState },
}

/// Writes that wait, and what their completion is called.
#[derive(Debug)]
pub(crate) struct PendingWrite {
    pub(crate) writes: Writes,
    pub(crate) durability: Durability,
    pub(crate) ticket: u64,
}

/// Work that no vote and no command waits for.
#[derive(Debug)]
pub(crate) enum SlowJob {
    /// Compute and cache the digests of a snapshot.
    Digest { frozen: Frozen },
    /// Write images.
    WriteImages { cut: Seq, partitions: Vec<FrozenPartition> },
}

/// What is done.
#[derive(Debug)]
pub(crate) enum Done {
    Digested {
        frozen: Frozen,
    },
    ImagesWritten {
        cut: Seq,
    },
    BaseInstalled {
        cut: Seq,
    },
    /// A store failed: the process must end.
    Failed(StoreError),
}

/// Merges what waits behind `first`, as one change: one sync for all that waited.
fn merge(first: PendingWrite, jobs: &Receiver<DiskJob>) -> (PendingWrite, u64, Option<DiskJob>) {
    let mut merged = first;
    let mut count = 1;
    let mut bytes = merged.writes.bytes();
    while bytes < MERGED_BYTES_MAX {
        match jobs.try_recv() {
            Ok(DiskJob::Write(next)) => {
                bytes += next.writes.bytes();
                count += 1;
                merged.writes.append(next.writes);
                merged.ticket = next.ticket;
                if next.durability == Durability::Synced {
                    merged.durability = Durability::Synced;
                }
            }
            Ok(other) => return (merged, count, Some(other)),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
        }
    }
    (merged, count, None)
}

/// The life of a writer: until the jobs' other end is gone and all of them are done, or the store fails.
pub(crate) fn write_all(
    store: &dyn Store,
    jobs: &Receiver<DiskJob>,
    written: &watch::Sender<u64>,
    done: &mpsc::Sender<Done>,
    metrics: &DiskMetrics,
) {
    let mut next = None;
    while let Some(job) = next.take().or_else(|| jobs.recv().ok()) {
        let outcome = match job {
            DiskJob::Write(first) => {
                let (merged, count, behind) = merge(first, jobs);
                next = behind;
                apply(store, merged, count, metrics).map(|ticket| {
                    written.send_replace(ticket);
                    None
                })
            }
            DiskJob::Install { state } => install(store, &state).map(Some),
        };
        let told = match outcome {
            Ok(None) => continue,
            Ok(Some(finished)) => done.blocking_send(finished).is_ok(),
            // R19: nothing is retried over a failure.
            Err(error) => {
                let _loop_is_gone = done.blocking_send(Done::Failed(error));
                false
            }
        };
        if !told {
            return;
        }
    }
}

/// Applies one merged change; returns the highest ticket in it.
pub(crate) fn apply(
    store: &dyn Store,
    pending: PendingWrite,
    count: u64,
    metrics: &DiskMetrics,
) -> Result<u64, StoreError> {
    let started = Instant::now();
    store.apply(&pending.writes, pending.durability)?;
    if pending.durability == Durability::Synced {
        metrics.sync_seconds.observe(started.elapsed().as_secs_f64());
    }
    metrics.merged_writes.observe(count as f64);
    metrics.written_bytes.inc_by(pending.writes.bytes() as u64);
    Ok(pending.ticket)
}

/// Writes a base.
pub(crate) fn install(store: &dyn Store, state: &CertifiedState) -> Result<Done, StoreError> {
    base::write(store, state, IMAGE_CHUNK_BYTES)?;
    Ok(Done::BaseInstalled { cut: state.cut() })
}

/// The life of a thread for digests or images.
pub(crate) fn work(state: &Arc<dyn Store>, jobs: &Receiver<SlowJob>, done: &mpsc::Sender<Done>) {
    while let Ok(job) = jobs.recv() {
        let finished = run(state.as_ref(), job);
        let failed = matches!(finished, Done::Failed(_));
        if done.blocking_send(finished).is_err() || failed {
            return;
        }
    }
}

/// Does one slow job.
pub(crate) fn run(state: &dyn Store, job: SlowJob) -> Done {
    match job {
        SlowJob::Digest { frozen } => {
            // The digests stay in the snapshot, which is shared.
            let _cached = frozen.digests();
            Done::Digested { frozen }
        }
        SlowJob::WriteImages { cut, partitions } => match images::write(state, cut, &partitions, IMAGE_CHUNK_BYTES) {
            Ok(_) => Done::ImagesWritten { cut },
            Err(error) => Done::Failed(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use polder_checkpoint::{Family, MemStore};

    use super::*;

    fn write(ticket: u64, durability: Durability) -> DiskJob {
        let mut writes = Writes::new();
        writes.put(Family::Log, vec![1], vec![ticket as u8]).put(Family::Log, ticket.to_be_bytes().to_vec(), vec![]);
        DiskJob::Write(PendingWrite { writes, durability, ticket })
    }

    #[test]
    fn one_sync_covers_all_that_waited_in_order() -> Result<(), Box<dyn std::error::Error>> {
        let store = MemStore::new();
        let (jobs, waiting) = sync_channel(16);
        let (written, seen) = watch::channel(0);
        let (done, _completions) = mpsc::channel(1);
        for ticket in 1..=5 {
            let durability = if ticket == 2 { Durability::Synced } else { Durability::Lazy };
            jobs.send(write(ticket, durability))?;
        }
        drop(jobs);
        write_all(&store, &waiting, &written, &done, &DiskMetrics::unregistered());
        assert_eq!(*seen.borrow(), 5);
        assert_eq!(store.applied().applies, 1);
        assert_eq!(store.applied().syncs, 1);
        // The later write of the same row wins, and nothing is left unsynced.
        assert_eq!(store.get(Family::Log, &[1])?, Some(vec![5]));
        assert_eq!(store.unsynced(), 0);
        Ok(())
    }

    #[test]
    fn r19_a_failed_write_is_told_and_nothing_is_tried_after_it() -> Result<(), Box<dyn std::error::Error>> {
        let store = MemStore::new();
        store.fail_at(1);
        let (jobs, waiting) = sync_channel(16);
        let (written, seen) = watch::channel(0);
        let (done, mut completions) = mpsc::channel(1);
        jobs.send(write(1, Durability::Synced))?;
        write_all(&store, &waiting, &written, &done, &DiskMetrics::unregistered());
        assert_eq!(*seen.borrow(), 0);
        assert!(matches!(completions.try_recv(), Ok(Done::Failed(_))));
        Ok(())
    }

    #[test]
    fn lazy_writes_alone_are_not_synced() -> Result<(), Box<dyn std::error::Error>> {
        let store = MemStore::new();
        let (jobs, waiting) = sync_channel(16);
        let (written, seen) = watch::channel(0);
        let (done, _completions) = mpsc::channel(1);
        jobs.send(write(1, Durability::Lazy))?;
        jobs.send(write(2, Durability::Lazy))?;
        drop(jobs);
        write_all(&store, &waiting, &written, &done, &DiskMetrics::unregistered());
        assert_eq!((*seen.borrow(), store.applied().syncs, store.unsynced()), (2, 0, 1));
        Ok(())
    }
}
