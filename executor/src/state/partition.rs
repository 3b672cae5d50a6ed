//! One partition: an ordered map that is copied only where it is written while somebody holds an older version.

use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use imbl::OrdMap;
use polder_types::{Blob, Digest, Domain, Hasher, PartitionId, Position};
use serde::{Deserialize, Serialize};

use super::Effect;
use super::key::Key;

/// What the state holds under a key: the value, and what the digest says about its history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The value.
    pub value: Blob,
    /// The command that created it, after the key was absent.
    pub created: Position,
    /// The command that wrote it last.
    pub modified: Position,
    /// Writes since its creation, that one included: 1 when it is new.
    pub version: u64,
}

impl Entry {
    /// What an entry takes beside the bytes of its key and value, in every count of bytes that replicas must agree on.
    pub const OVERHEAD_BYTES: u64 = 64;

    /// The entry that a write of `value` at `at` makes of what was there before.
    #[must_use]
    pub(crate) fn after(before: Option<&Entry>, value: Blob, at: Position) -> Self {
        let (created, version) = before.map_or((at, 1), |entry| (entry.created, entry.version.saturating_add(1)));
        Self { value, created, modified: at, version }
    }

    /// The bytes that this entry counts for under a key.
    #[must_use]
    pub fn bytes(&self, key: &[u8]) -> u64 {
        key.len() as u64 + self.value.len() as u64 + Self::OVERHEAD_BYTES
    }
}

/// An entry with its digest, computed when somebody first asks: never on the way of a command.
#[derive(Debug)]
struct Cell {
    entry: Entry,
    leaf: OnceLock<Digest>,
}

impl Cell {
    fn new(entry: Entry) -> Self {
        Self { entry, leaf: OnceLock::new() }
    }

    fn leaf(&self, key: &[u8]) -> &Digest {
        self.leaf.get_or_init(|| {
            let Entry { value, created, modified, version } = &self.entry;
            let hasher = Hasher::new(Domain::Entry).sized(key);
            let hasher = position(position(hasher, *created), *modified);
            hasher.u64(*version).sized(value).finish()
        })
    }
}

fn position(hasher: Hasher, position: Position) -> Hasher {
    hasher.u64(position.slot.0).u64(position.index.into())
}

/// One version of a partition. Cloning costs the same whatever is in it; a write copies the nodes that older versions
/// still hold and changes the others in place.
#[derive(Clone, Debug)]
pub(crate) struct Partition {
    pub(crate) id: PartitionId,
    entries: OrdMap<Key, Arc<Cell>>,
    bytes: u64,
    last_delete: Position,
    /// The digest of this very content, shared by all clones of it; a write starts another.
    digest: Arc<OnceLock<Digest>>,
}

impl Partition {
    pub(crate) fn new(id: PartitionId) -> Self {
        Self { id, entries: OrdMap::new(), bytes: 0, last_delete: Position::default(), digest: Arc::default() }
    }

    pub(crate) fn put(&mut self, key: &[u8], entry: Entry) {
        self.changed();
        self.bytes += entry.bytes(key);
        if let Some(replaced) = self.entries.insert(Key::new(key), Arc::new(Cell::new(entry))) {
            self.bytes -= replaced.entry.bytes(key);
        }
    }

    /// Removes what is under `key`. The time of the last delete moves also when nothing is there, so that redoing is
    /// idempotent.
    pub(crate) fn delete(&mut self, key: &[u8], at: Position) {
        self.changed();
        self.last_delete = self.last_delete.max(at);
        if let Some(cell) = self.entries.remove(key) {
            self.bytes -= cell.entry.bytes(key);
        }
    }

    pub(crate) fn apply(&mut self, effect: &Effect) {
        match effect {
            Effect::Put { key, entry } => self.put(key, entry.clone()),
            Effect::Delete { key, at } => self.delete(key, *at),
        }
    }

    pub(crate) fn set_last_delete(&mut self, at: Position) {
        self.changed();
        self.last_delete = at;
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Entry> {
        self.entries.get(key).map(|cell| &cell.entry)
    }

    /// The entries from `from` on, in order of their keys.
    pub(crate) fn range<'a>(&'a self, from: Bound<&[u8]>) -> impl Iterator<Item = (&'a [u8], &'a Entry)> + use<'a> {
        self.entries.range::<_, [u8]>((from, Bound::Unbounded)).map(|(key, cell)| (key.bytes(), &cell.entry))
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn last_delete(&self) -> Position {
        self.last_delete
    }

    /// The digest of the content: every key, value, version and position, and the last delete. Equal content has an
    /// equal digest whatever its history. Costs the entries' number, and the bytes of those that changed since the
    /// last one; a radix tree over the keys' hashes (R36) will make it cost the changed ones only.
    pub(crate) fn digest(&self) -> Digest {
        *self.digest.get_or_init(|| {
            let mut hasher = position(Hasher::new(Domain::Partition).u64(self.entries.len() as u64), self.last_delete);
            for (key, cell) in &self.entries {
                hasher.update(&cell.leaf(key.bytes()).0);
            }
            hasher.finish()
        })
    }

    /// From here on this version has a content, and so a digest, of its own.
    fn changed(&mut self) {
        match Arc::get_mut(&mut self.digest) {
            Some(digest) => {
                digest.take();
            }
            None => self.digest = Arc::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_computed_once_for_all_versions_of_equal_content() {
        let mut living = Partition::new(PartitionId(0));
        let entry = Entry::after(None, Blob::copy(b"v"), Position::default());
        living.put(b"k", entry.clone());
        let (first, second) = (living.clone(), living.clone());
        let digest = first.digest();
        assert_eq!((second.digest.get(), living.digest.get()), (Some(&digest), Some(&digest)));
        // A write parts the living one from them, and what it did not touch keeps its leaf.
        living.put(b"j", entry);
        assert_eq!((living.digest.get(), first.digest.get()), (None, Some(&digest)));
        assert!(living.entries.get(&b"k"[..]).is_some_and(|cell| cell.leaf.get().is_some()));
        assert_ne!(living.digest(), digest);
    }

    #[test]
    fn bytes_follow_every_write() {
        let mut partition = Partition::new(PartitionId(0));
        let entry = |value: &[u8]| Entry::after(None, Blob::copy(value), Position::default());
        for (value, bytes) in [(&b"12"[..], 67), (b"1234", 69), (b"", 65)] {
            partition.put(b"k", entry(value));
            assert_eq!(partition.bytes(), bytes);
            // Also while an older version shares the entry.
            let _older = partition.clone();
        }
        partition.delete(b"k", Position::default());
        partition.delete(b"k", Position::default());
        assert_eq!((partition.bytes(), partition.len()), (0, 0));
    }
}
