//! The state at one slot, held still.

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use polder_types::{Blob, Digest, PartitionId, Position, Seq, Timestamp, merkle_root};

use super::{Effect, Entry, Partition};
use crate::system::{self, Clock};

/// The state after one slot. Cheap to clone and to keep: it shares with the living state whatever has not changed since.
#[derive(Clone, Debug)]
pub struct Frozen {
    seq: Seq,
    time: Timestamp,
    partitions: Arc<[FrozenPartition]>,
}

/// A state that cannot be gone on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreError {
    /// The partitions are not those of the configuration, each once and in order.
    Partitions,
    /// The system partition lacks a record, or holds one that cannot be read.
    System,
    /// A session partition holds a record that cannot be read.
    Sessions(PartitionId),
    /// The state belongs to a cluster with another configuration.
    Configuration,
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partitions => f.write_str("the state has not the partitions that the configuration names"),
            Self::System => f.write_str("the system partition cannot be read"),
            Self::Sessions(partition) => write!(f, "session partition {partition} cannot be read"),
            Self::Configuration => f.write_str("the state belongs to a cluster with another configuration"),
        }
    }
}

impl std::error::Error for RestoreError {}

impl Frozen {
    pub(crate) fn new(seq: Seq, time: Timestamp, partitions: &[Partition]) -> Self {
        Self { seq, time, partitions: partitions.iter().cloned().map(FrozenPartition).collect() }
    }

    /// The state after slot `seq` that these partitions are; its time is read from the last of them, the system
    /// partition.
    ///
    /// # Errors
    ///
    /// [`RestoreError::Partitions`] when their ids are not `0, 1, …` in this order, [`RestoreError::System`] when the
    /// last of them does not hold a time. Whether the state is the certified one is for the caller to check.
    pub fn assemble(seq: Seq, partitions: Vec<FrozenPartition>) -> Result<Self, RestoreError> {
        let ordered = partitions.iter().enumerate().all(|(index, partition)| usize::from(partition.id().0) == index);
        let system = partitions.last().filter(|_| ordered).ok_or(RestoreError::Partitions)?;
        let clock: Clock = system::read(system.get(system::CLOCK)).ok_or(RestoreError::System)?;
        Ok(Self { seq, time: clock.time, partitions: partitions.into() })
    }

    /// The slot after which this is the state.
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// The time of that slot (R27).
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// The partitions, in order of their ids.
    #[must_use]
    pub fn partitions(&self) -> &[FrozenPartition] {
        &self.partitions
    }

    /// The digests of the partitions. What did not change since it was last asked for costs nothing; the rest costs
    /// time in proportion to its size, so ask away from where commands execute.
    #[must_use]
    pub fn digests(&self) -> Vec<Digest> {
        self.partitions.iter().map(FrozenPartition::digest).collect()
    }

    /// The state root: the Merkle root over the digests (R29).
    #[must_use]
    pub fn root(&self) -> Digest {
        merkle_root(&self.digests())
    }
}

/// One partition, held still.
#[derive(Clone, Debug)]
pub struct FrozenPartition(Partition);

/// Some entries of a partition, in order of their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The entries.
    pub entries: Vec<(Blob, Entry)>,
    /// Whether no entry comes after these.
    pub done: bool,
}

impl FrozenPartition {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> PartitionId {
        self.0.id
    }

    /// The digest of its content; kept once computed.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.0.digest()
    }

    /// How many entries it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    /// The bytes of its entries, as [`Entry::bytes`] counts them.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    /// The last command that deleted something here; zero when none did.
    #[must_use]
    pub fn last_delete(&self) -> Position {
        self.0.last_delete()
    }

    /// What is under a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&Entry> {
        self.0.get(key)
    }

    /// The entries after the key `after` (from the first on when there is none): as many as fit into `bytes_max`, as
    /// [`Entry::bytes`] counts them, but at least one.
    #[must_use]
    pub fn chunk(&self, after: Option<&[u8]>, bytes_max: usize) -> Chunk {
        let mut entries = Vec::new();
        let mut bytes = 0;
        for (key, entry) in self.0.range(after.map_or(Bound::Unbounded, Bound::Excluded)) {
            bytes += entry.bytes(key);
            if bytes > bytes_max as u64 && !entries.is_empty() {
                return Chunk { entries, done: false };
            }
            entries.push((Blob::copy(key), entry.clone()));
        }
        Chunk { entries, done: true }
    }

    pub(crate) fn partition(&self) -> &Partition {
        &self.0
    }
}

/// A partition in the making: from an image, a transfer, or by redoing effects on an older one.
#[derive(Debug)]
pub struct PartitionBuilder(Partition);

impl PartitionBuilder {
    /// An empty partition.
    #[must_use]
    pub fn new(id: PartitionId) -> Self {
        Self(Partition::new(id))
    }

    /// Adds an entry, or replaces the one under this key.
    pub fn put(&mut self, key: Blob, entry: Entry) {
        self.0.put(&key, entry);
    }

    /// Redoes one effect.
    pub fn apply(&mut self, effect: &Effect) {
        self.0.apply(effect);
    }

    /// Sets what [`FrozenPartition::last_delete`] says, as an image or a transfer names it.
    pub fn set_last_delete(&mut self, at: Position) {
        self.0.set_last_delete(at);
    }

    /// The partition.
    #[must_use]
    pub fn finish(self) -> FrozenPartition {
        FrozenPartition(self.0)
    }
}

impl From<&FrozenPartition> for PartitionBuilder {
    /// Starts from a partition; shares with it what will not change.
    fn from(partition: &FrozenPartition) -> Self {
        Self(partition.0.clone())
    }
}
