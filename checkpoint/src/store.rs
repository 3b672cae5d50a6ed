//! The one seam at which disks fail: a small ordered key-value store with families, as RocksDB has them.

use std::fmt;
use std::sync::Arc;

/// A family of rows. The ordering log and its identity rows live in one store, all others in a second one (R19); a
/// store may hold any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Records of the ordering log. Log store.
    Log,
    /// Small rows: in the log store identity and counters, in the state store frontiers and the declarations of
    /// images.
    Meta,
    /// Puts and deletes, a row for each partition and slot (C7). State store.
    Effects,
    /// Entries of images, a row each. State store.
    Images,
    /// Certificates of cuts with the digests under their root. State store.
    Certificates,
}

impl Family {
    /// All families.
    pub const ALL: [Self; 5] = [Self::Log, Self::Meta, Self::Effects, Self::Images, Self::Certificates];
}

/// One change to a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Sets a row.
    Put {
        /// The family.
        family: Family,
        /// The key.
        key: Vec<u8>,
        /// The value.
        value: Vec<u8>,
    },
    /// Removes a row, if it is there.
    Delete {
        /// The family.
        family: Family,
        /// The key.
        key: Vec<u8>,
    },
    /// Removes all rows of `from ≤ key < to`.
    DeleteRange {
        /// The family.
        family: Family,
        /// The first key that goes.
        from: Vec<u8>,
        /// The first key after them that stays.
        to: Vec<u8>,
    },
}

/// Changes that are applied as one, in this order: after a crash all of them are there or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writes(Vec<Write>);

impl Writes {
    /// No changes yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the setting of a row.
    pub fn put(&mut self, family: Family, key: Vec<u8>, value: Vec<u8>) -> &mut Self {
        self.0.push(Write::Put { family, key, value });
        self
    }

    /// Adds the removal of a row.
    pub fn delete(&mut self, family: Family, key: Vec<u8>) -> &mut Self {
        self.0.push(Write::Delete { family, key });
        self
    }

    /// Adds the removal of all rows of `from ≤ key < to`.
    pub fn delete_range(&mut self, family: Family, from: Vec<u8>, to: Vec<u8>) -> &mut Self {
        self.0.push(Write::DeleteRange { family, from, to });
        self
    }

    /// Adds all changes of `other` after the own ones: they are then applied as one.
    pub fn append(&mut self, mut other: Self) -> &mut Self {
        self.0.append(&mut other.0);
        self
    }

    /// The changes, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Write> {
        self.0.iter()
    }

    /// How many changes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes of all keys and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let bytes = |write: &Write| match write {
            Write::Put { key, value, .. } => key.len() + value.len(),
            Write::Delete { key, .. } => key.len(),
            Write::DeleteRange { from, to, .. } => from.len() + to.len(),
        };
        self.0.iter().map(bytes).sum()
    }
}

impl<'a> IntoIterator for &'a Writes {
    type Item = &'a Write;
    type IntoIter = std::slice::Iter<'a, Write>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// When changes survive a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// On return, with everything that was applied to this store before.
    Synced,
    /// With the next [`Durability::Synced`] of the same store. A crash before keeps a prefix of what was applied.
    Lazy,
}

/// Why a store cannot do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// A read, a write or a sync failed. The process ends; nothing is retried over it (R19).
    Failed(String),
    /// A row is not what was written: the disk or another program changed it.
    Damaged(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(what) => write!(f, "the disk failed: {what}"),
            Self::Damaged(what) => write!(f, "the data on disk is damaged: {what}"),
        }
    }
}

impl std::error::Error for StoreError {}

/// An ordered store of rows, first in, first out: whatever is applied later is durable later or at the same time. A
/// [`Writes`] is atomic. Several threads may use a store at once; each sees its own changes at once.
pub trait Store: Send + Sync {
    /// The value of a row.
    ///
    /// # Errors
    ///
    /// When reading fails, or the row does not match its checksum.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Rows of `from ≤ key < to` in order of key, at most `limit` of them.
    ///
    /// # Errors
    ///
    /// As [`Store::get`].
    fn scan(&self, family: Family, from: &[u8], to: &[u8], limit: usize) -> Result<Rows, StoreError>;

    /// Applies changes.
    ///
    /// # Errors
    ///
    /// When writing or syncing fails: whether the changes survive is then unknown, and the caller stops.
    fn apply(&self, writes: &Writes, durability: Durability) -> Result<(), StoreError>;

    /// The bytes that the store takes on disk.
    fn bytes_on_disk(&self) -> u64;

    /// The bytes that are free on the disk of the store for whoever runs this, as of now; none where nobody can tell.
    /// Costs one call of the system, and never waits for the disk.
    fn free_bytes(&self) -> Option<u64> {
        None
    }
}

/// Keys and values, in order of key.
pub type Rows = Vec<(Vec<u8>, Vec<u8>)>;

impl<T: Store + ?Sized> Store for Arc<T> {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.as_ref().get(family, key)
    }

    fn scan(&self, family: Family, from: &[u8], to: &[u8], limit: usize) -> Result<Rows, StoreError> {
        self.as_ref().scan(family, from, to, limit)
    }

    fn apply(&self, writes: &Writes, durability: Durability) -> Result<(), StoreError> {
        self.as_ref().apply(writes, durability)
    }

    fn bytes_on_disk(&self) -> u64 {
        self.as_ref().bytes_on_disk()
    }

    fn free_bytes(&self) -> Option<u64> {
        self.as_ref().free_bytes()
    }
}
