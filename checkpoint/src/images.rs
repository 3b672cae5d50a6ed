//! Images: the state of a partition on disk, as of a certified cut (C3, C5, C10).
//!
//! An image is written beside the one before it and takes its place by one synced change, so that a crash at any write
//! leaves one that is whole:
//!
//! 1. the begin mark, synced; with it goes whatever an unfinished job left behind;
//! 2. the entries, synced;
//! 3. the declaration in place of the begin mark, synced: from here on this is the image;
//! 4. only then the entries of the one before are deleted.
//!
//! These rows are written by a worker while the effects of later slots are appended to the same store. The two share no
//! row, and no order between them matters: the planner asks for images of a cut only when its certificate and its
//! frontier are durable, and for the removal of effects only when the images are declared.

use std::collections::BTreeMap;

use polder_executor::FrozenPartition;
use polder_types::{PartitionId, Seq, encode};

use crate::rows::{self, Begun, Declared};
use crate::store::{Durability, Family, Store, StoreError, Writes};

/// Images are begun and declared in groups of about so many bytes: a sync each for small ones would cost more than
/// their bytes, and what was replaced is deleted early.
const GROUP_BYTES: u64 = 16 << 20;

/// What a job did: facts to be counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Images written whole.
    pub images: u64,
    /// Images that only got a newer cut, because their partition did not change (C5).
    pub relabelled: u64,
    /// Partitions that have an image of this cut or a newer one already.
    pub skipped: u64,
    /// Bytes of keys and entries written.
    pub bytes: u64,
}

/// The image of a partition, as the planner knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// The certified cut that it is of.
    pub cut: Seq,
    /// About how many bytes it takes.
    pub bytes: u64,
}

/// Writes and declares images of these partitions as of a certified cut. On return all of them are durable.
///
/// The certificate of the cut and the effects up to it must be durable, and the digests known: that is so for what
/// [`crate::planner::Output::WriteImages`] hands out. Calls for one store come one after the other. Holds about
/// `chunk_bytes` in memory at a time.
///
/// # Errors
///
/// When the store fails. The process then stops; what was begun is taken up by recovery.
pub fn write(
    store: &dyn Store,
    cut: Seq,
    partitions: &[FrozenPartition],
    chunk_bytes: usize,
) -> Result<Written, StoreError> {
    let mut written = Written::default();
    let mut relabel = Writes::new();
    let mut jobs = Vec::new();
    for partition in partitions {
        let id = partition.id();
        let (begun, declared) = (rows::begun(store, id)?, rows::declared(store, id)?);
        // C3: no byte of a partition is written for a cut below any begun or declared one of it.
        if begun.is_some_and(|begun| begun.cut > cut) || declared.is_some_and(|declared| declared.cut >= cut) {
            written.skipped += 1;
            continue;
        }
        match declared {
            // C5: cold data cost nothing. Never with an unfinished job, which must be abandoned first (C4).
            Some(declared) if begun.is_none() && declared.digest == partition.digest() => {
                let declared = Declared { cut, ..declared };
                relabel.put(Family::Meta, rows::declared_key(id), rows::write(&declared));
                written.relabelled += 1;
            }
            _ => jobs.push(Job::new(partition, cut, begun, declared, false)),
        }
    }
    if !relabel.is_empty() {
        store.apply(&relabel, Durability::Synced)?;
    }
    for group in groups(&jobs) {
        begin(store, group)?;
        let declared = write_entries(store, group, chunk_bytes)?;
        declare(store, group, &declared)?;
        written.images += group.len() as u64;
        written.bytes += declared.values().map(|declared| declared.bytes).sum::<u64>();
    }
    Ok(written)
}

/// One image to be written.
pub(crate) struct Job<'a> {
    partition: &'a FrozenPartition,
    begun: Begun,
    /// What an unfinished job left behind, and the image before this one.
    abandoned: Option<Begun>,
    replaced: Option<Declared>,
}

impl<'a> Job<'a> {
    pub(crate) fn new(
        partition: &'a FrozenPartition,
        cut: Seq,
        abandoned: Option<Begun>,
        replaced: Option<Declared>,
        base: bool,
    ) -> Self {
        let newest = abandoned.map(|begun| begun.generation).max(replaced.map(|declared| declared.generation));
        let generation = newest.map_or(0, |newest| newest.saturating_add(1));
        Self { partition, begun: Begun { cut, generation, base }, abandoned, replaced }
    }

    pub(crate) fn id(&self) -> PartitionId {
        self.partition.id()
    }

    /// Adds the removal of the image that this one replaces, and of all before.
    pub(crate) fn remove_replaced(&self, writes: &mut Writes) {
        if self.replaced.is_some() {
            let (from, to) = rows::images_range(self.id(), 0, self.begun.generation);
            writes.delete_range(Family::Images, from, to);
        }
    }
}

fn groups<'a, 'b>(jobs: &'b [Job<'a>]) -> impl Iterator<Item = &'b [Job<'a>]> {
    let mut bytes = 0;
    jobs.chunk_by(move |left, _| {
        bytes += left.partition.bytes();
        let is_full = bytes >= GROUP_BYTES;
        if is_full {
            bytes = 0;
        }
        !is_full
    })
}

/// C4: a job begins by durably abandoning every unfinished one of its partition.
pub(crate) fn begin(store: &dyn Store, jobs: &[Job<'_>]) -> Result<(), StoreError> {
    let mut writes = Writes::new();
    for job in jobs {
        if let Some(abandoned) = job.abandoned {
            remove_begun(&mut writes, job.id(), abandoned);
        }
        writes.put(Family::Meta, rows::begun_key(job.id()), rows::write(&job.begun));
    }
    store.apply(&writes, Durability::Synced)
}

/// Adds the removal of what an unfinished job left behind, its mark included.
pub(crate) fn remove_begun(writes: &mut Writes, partition: PartitionId, begun: Begun) {
    let (from, to) = rows::images_range(partition, begun.generation, begun.generation.saturating_add(1));
    writes.delete_range(Family::Images, from, to).delete(Family::Meta, rows::begun_key(partition));
}

/// Writes the entries and syncs them. Returns the declarations to be made.
pub(crate) fn write_entries(
    store: &dyn Store,
    jobs: &[Job<'_>],
    chunk_bytes: usize,
) -> Result<BTreeMap<PartitionId, Declared>, StoreError> {
    let mut declared = BTreeMap::new();
    // What is applied last must carry the sync, so a chunk waits until the next one is there.
    let mut waiting = Writes::new();
    for job in jobs {
        let (id, generation) = (job.id(), job.begun.generation);
        let (mut entries, mut bytes) = (0, 0);
        let mut after = None;
        loop {
            let chunk = job.partition.chunk(after.as_deref(), chunk_bytes);
            if waiting.bytes() >= chunk_bytes {
                store.apply(&waiting, Durability::Lazy)?;
                waiting = Writes::new();
            }
            for (key, entry) in &chunk.entries {
                let value = encode(entry);
                entries += 1;
                bytes += (key.len() + value.len()) as u64;
                waiting.put(Family::Images, rows::image_key(id, generation, key), value);
            }
            match chunk.entries.last() {
                Some((last, _)) if !chunk.done => after = Some(last.clone()),
                _ => break,
            }
        }
        let (digest, last_delete) = (job.partition.digest(), job.partition.last_delete());
        declared.insert(id, Declared { cut: job.begun.cut, generation, digest, last_delete, entries, bytes });
    }
    if !waiting.is_empty() {
        store.apply(&waiting, Durability::Synced)?;
    }
    Ok(declared)
}

/// C10: the entries are synced; now the switch, synced; only then what was replaced goes.
fn declare(store: &dyn Store, jobs: &[Job<'_>], declared: &BTreeMap<PartitionId, Declared>) -> Result<(), StoreError> {
    let mut switch = Writes::new();
    for (id, declared) in declared {
        switch.put(Family::Meta, rows::declared_key(*id), rows::write(declared));
        switch.delete(Family::Meta, rows::begun_key(*id));
    }
    store.apply(&switch, Durability::Synced)?;
    let mut old = Writes::new();
    jobs.iter().for_each(|job| job.remove_replaced(&mut old));
    if !old.is_empty() {
        store.apply(&old, Durability::Lazy)?;
    }
    Ok(())
}
