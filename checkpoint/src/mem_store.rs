//! A store in memory that can be crashed: for simulations and tests, and small enough to be read in one go.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::{Durability, Family, Rows, Store, StoreError, Write, Writes};

/// A [`Store`] in memory. Nothing of it outlives the process; what a crash of a machine would lose of a real one,
/// [`MemStore::crash`] loses of this one.
#[derive(Debug, Default)]
pub struct MemStore(Mutex<Inner>);

/// What was applied to a [`MemStore`] since it was made. Crashing does not lower it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Calls of [`Store::apply`].
    pub applies: u64,
    /// How many of them asked for a sync.
    pub syncs: u64,
    /// Rows set, by family.
    pub rows: BTreeMap<Family, u64>,
    /// Bytes of keys and values set, by family.
    pub bytes: BTreeMap<Family, u64>,
}

type Key = (Family, Vec<u8>);

/// What a row held before a change; none when there was no such row.
type Before = (Key, Option<Vec<u8>>);

#[derive(Clone, Debug, Default)]
struct Inner {
    rows: BTreeMap<Key, Vec<u8>>,
    bytes: u64,
    /// How to take back what is not synced, a list for each [`Writes`], oldest first.
    undo: Vec<Vec<Before>>,
    /// Applies until one fails, and all after it.
    fails_in: Option<u64>,
    failed: bool,
    /// Rows whose bits have changed on the disk.
    damaged: BTreeSet<Key>,
    /// What is said to be free.
    free_bytes: Option<u64>,
    applied: Applied,
}

impl MemStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Crashes the machine: of what is not synced only the oldest `keep` [`Writes`] survive, whole. Faults asked for
    /// by [`MemStore::fail_at`] are gone.
    pub fn crash(&self, keep: usize) {
        let mut inner = self.lock();
        while inner.undo.len() > keep {
            inner.undo_last();
        }
        inner.undo.clear();
        inner.fails_in = None;
        inner.failed = false;
    }

    /// How many [`Writes`] are not synced: the most that [`MemStore::crash`] can lose.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        self.lock().undo.len()
    }

    /// Makes the `nth` apply from now on fail (1 is the next one), and all after it: a store that failed once stays
    /// failed. What failed may or may not have reached the disk: it counts as not synced, and [`MemStore::crash`]
    /// decides.
    pub fn fail_at(&self, nth: u64) {
        self.lock().fails_in = Some(nth);
    }

    /// Whether the apply that [`MemStore::fail_at`] named has come.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.lock().failed
    }

    /// Bits of a row change on the disk: whoever reads it is told so, until it is written anew or deleted.
    pub fn damage(&self, family: Family, key: &[u8]) {
        self.lock().damaged.insert((family, key.to_vec()));
    }

    /// From now on so much is said to be free on its disk; none: it cannot tell. Writes do not change it.
    pub fn set_free_bytes(&self, bytes: Option<u64>) {
        self.lock().free_bytes = bytes;
    }

    /// A copy of the whole store, unsynced changes included: for tests that set a disk back.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        Self(Mutex::new(self.lock().clone()))
    }

    /// Sets the store back to a copy.
    pub fn restore(&self, snapshot: &Self) {
        let inner = snapshot.lock().clone();
        *self.lock() = inner;
    }

    /// What was applied so far.
    #[must_use]
    pub fn applied(&self) -> Applied {
        self.lock().applied.clone()
    }

    /// All rows of a family: what a test compares or damages.
    #[must_use]
    pub fn rows(&self, family: Family) -> Rows {
        let inner = self.lock();
        let rows = inner.rows.iter().filter(|((of, _), _)| *of == family);
        rows.map(|((_, key), value)| (key.clone(), value.clone())).collect()
    }

    /// The one lock: held for a call, never while another is taken. A panic elsewhere leaves the rows as they are.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemStore {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let (inner, key) = (self.lock(), (family, key.to_vec()));
        inner.intact(&key)?;
        Ok(inner.rows.get(&key).cloned())
    }

    fn scan(&self, family: Family, from: &[u8], to: &[u8], limit: usize) -> Result<Rows, StoreError> {
        if from >= to {
            return Ok(Rows::new());
        }
        let inner = self.lock();
        let rows = inner.rows.range((family, from.to_vec())..(family, to.to_vec())).take(limit);
        rows.map(|(key, value)| inner.intact(key).map(|()| (key.1.clone(), value.clone()))).collect()
    }

    fn apply(&self, writes: &Writes, durability: Durability) -> Result<(), StoreError> {
        let mut inner = self.lock();
        if inner.failed {
            return Err(fault());
        }
        inner.apply(writes);
        inner.fails_in = inner.fails_in.map(|applies| applies.saturating_sub(1));
        if inner.fails_in == Some(0) {
            inner.failed = true;
            return Err(fault());
        }
        if durability == Durability::Synced {
            inner.applied.syncs += 1;
            inner.undo.clear();
        }
        Ok(())
    }

    fn bytes_on_disk(&self) -> u64 {
        self.lock().bytes
    }

    fn free_bytes(&self) -> Option<u64> {
        self.lock().free_bytes
    }
}

fn fault() -> StoreError {
    StoreError::Failed("a fault that a test asked for".to_string())
}

impl Inner {
    fn apply(&mut self, writes: &Writes) {
        self.applied.applies += 1;
        let mut undo = Vec::with_capacity(writes.len());
        for write in writes {
            match write {
                Write::Put { family, key, value } => {
                    *self.applied.rows.entry(*family).or_default() += 1;
                    *self.applied.bytes.entry(*family).or_default() += (key.len() + value.len()) as u64;
                    let key = (*family, key.clone());
                    let before = self.set(key.clone(), Some(value.clone()));
                    undo.push((key, before));
                }
                Write::Delete { family, key } => {
                    let key = (*family, key.clone());
                    let before = self.set(key.clone(), None);
                    undo.push((key, before));
                }
                Write::DeleteRange { family, from, to } => self.delete_range(*family, from, to, &mut undo),
            }
        }
        self.undo.push(undo);
    }

    fn delete_range(&mut self, family: Family, from: &[u8], to: &[u8], undo: &mut Vec<Before>) {
        if from >= to {
            return;
        }
        let range = (Bound::Included((family, from.to_vec())), Bound::Excluded((family, to.to_vec())));
        let keys: Vec<Key> = self.rows.range(range).map(|(key, _)| key.clone()).collect();
        for key in keys {
            let before = self.set(key.clone(), None);
            undo.push((key, before));
        }
    }

    fn undo_last(&mut self) {
        for (key, before) in self.undo.pop().into_iter().flatten().rev() {
            self.set(key, before);
        }
    }

    fn intact(&self, key: &Key) -> Result<(), StoreError> {
        if self.damaged.is_empty() || !self.damaged.contains(key) {
            return Ok(());
        }
        Err(StoreError::Damaged(format!("a row of {:?} does not match its checksum", key.0)))
    }

    /// Sets or removes a row; returns what it held.
    fn set(&mut self, key: Key, value: Option<Vec<u8>>) -> Option<Vec<u8>> {
        self.damaged.remove(&key);
        let key_bytes = key.1.len() as u64;
        self.bytes += value.as_ref().map_or(0, |value| key_bytes + value.len() as u64);
        let before = match value {
            Some(value) => self.rows.insert(key, value),
            None => self.rows.remove(&key),
        };
        self.bytes -= before.as_ref().map_or(0, |before| key_bytes + before.len() as u64);
        before
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn put(key: u8, value: u8) -> Writes {
        let mut writes = Writes::new();
        writes.put(Family::Meta, vec![key], vec![value]);
        writes
    }

    fn apply(store: &MemStore, writes: &Writes, durability: Durability) {
        store.apply(writes, durability).unwrap();
    }

    #[test]
    fn a_crash_keeps_what_is_synced_and_a_prefix_of_whole_writes() {
        for keep in 0..=3 {
            let store = MemStore::new();
            apply(&store, &put(0, 1), Durability::Lazy);
            apply(&store, &put(1, 1), Durability::Synced);
            let mut two = put(0, 2);
            two.delete(Family::Meta, vec![1]);
            apply(&store, &two, Durability::Lazy);
            apply(&store, &put(2, 1), Durability::Lazy);
            let mut range = Writes::new();
            range.delete_range(Family::Meta, vec![0], vec![3]);
            apply(&store, &range, Durability::Lazy);
            assert_eq!(store.unsynced(), 3);
            store.crash(keep);
            let expected: Rows = match keep {
                0 => vec![(vec![0], vec![1]), (vec![1], vec![1])],
                1 => vec![(vec![0], vec![2])],
                2 => vec![(vec![0], vec![2]), (vec![2], vec![1])],
                _ => vec![],
            };
            assert_eq!(store.bytes_on_disk(), 2 * expected.len() as u64);
            assert_eq!(store.rows(Family::Meta), expected);
        }
    }

    #[test]
    fn a_failed_apply_may_or_may_not_survive_and_nothing_works_after_it() {
        for keep in 0..=1 {
            let store = MemStore::new();
            store.fail_at(2);
            apply(&store, &put(0, 1), Durability::Synced);
            assert!(store.apply(&put(1, 1), Durability::Synced).is_err());
            assert!(store.has_failed());
            assert!(store.apply(&put(2, 1), Durability::Synced).is_err());
            store.crash(keep);
            assert_eq!(store.rows(Family::Meta).len(), 1 + keep);
            apply(&store, &put(2, 1), Durability::Synced);
        }
    }

    #[test]
    fn a_snapshot_sets_the_disk_back() {
        let store = MemStore::new();
        apply(&store, &put(0, 1), Durability::Synced);
        let snapshot = store.snapshot();
        apply(&store, &put(0, 2), Durability::Synced);
        store.restore(&snapshot);
        assert_eq!(store.get(Family::Meta, &[0]), Ok(Some(vec![1])));
    }

    #[test]
    fn a_damaged_row_is_told_to_whoever_reads_it_until_it_is_written_anew() {
        let store = MemStore::new();
        for key in 0..3 {
            apply(&store, &put(key, 1), Durability::Synced);
        }
        store.damage(Family::Meta, &[1]);
        assert!(matches!(store.get(Family::Meta, &[1]), Err(StoreError::Damaged(_))));
        assert!(store.scan(Family::Meta, &[0], &[9], 9).is_err());
        assert_eq!(store.scan(Family::Meta, &[2], &[9], 9).unwrap().len(), 1);
        apply(&store, &put(1, 2), Durability::Synced);
        assert_eq!(store.get(Family::Meta, &[1]), Ok(Some(vec![2])));
    }

    #[test]
    fn a_scan_is_half_open_and_keeps_to_its_family_and_limit() {
        let store = MemStore::new();
        let mut writes = Writes::new();
        for key in 0..10 {
            writes.put(Family::Meta, vec![key], vec![]).put(Family::Log, vec![key], vec![]);
        }
        apply(&store, &writes, Durability::Lazy);
        let keys = |limit| -> Vec<u8> {
            let rows = store.scan(Family::Meta, &[3], &[7], limit).unwrap();
            rows.iter().map(|(key, _)| key[0]).collect()
        };
        assert_eq!(keys(100), [3, 4, 5, 6]);
        assert_eq!(keys(2), [3, 4]);
        assert_eq!(store.scan(Family::Meta, &[7], &[3], 1), Ok(vec![]));
    }
}
