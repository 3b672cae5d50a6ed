//! The replicated data: partitions, each an ordered map from keys to entries. One shape for the service's keys, the
//! sessions and the system's own records, so that effects, images, transfer and digests treat all alike (R29).

mod effects;
mod frozen;
mod key;
mod layout;
mod partition;

use effects::SlotEffects;
pub use effects::{Effect, Effects};
pub use frozen::{Chunk, Frozen, FrozenPartition, PartitionBuilder, RestoreError};
pub(crate) use layout::Layout;
pub use partition::Entry;
pub(crate) use partition::Partition;

use polder_types::{Blob, PartitionId, Position, Seq, Timestamp};

/// The living state. Whatever changes it notes the effect in the same call, so that no change is without its effect.
#[derive(Debug)]
pub(crate) struct State {
    layout: Layout,
    partitions: Vec<Partition>,
    /// Of the slot that is being executed.
    effects: SlotEffects,
}

impl State {
    pub(crate) fn empty(layout: Layout) -> Self {
        let partitions = (0..layout.len()).map(|index| Partition::new(PartitionId(index as u16))).collect();
        Self { layout, partitions, effects: SlotEffects::new(layout.len()) }
    }

    pub(crate) fn thaw(layout: Layout, frozen: &Frozen) -> Result<Self, RestoreError> {
        if frozen.partitions().len() != layout.len() {
            return Err(RestoreError::Partitions);
        }
        let partitions = frozen.partitions().iter().map(|frozen| frozen.partition().clone()).collect();
        Ok(Self { layout, partitions, effects: SlotEffects::new(layout.len()) })
    }

    pub(crate) fn freeze(&self, seq: Seq, time: Timestamp) -> Frozen {
        Frozen::new(seq, time, &self.partitions)
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    pub(crate) fn partition(&self, id: PartitionId) -> &Partition {
        // `Layout`, the only source of ids, yields none beyond the partitions that it counts.
        &self.partitions[usize::from(id.0)]
    }

    /// The partitions with the service's keys.
    pub(crate) fn key_partitions(&self) -> &[Partition] {
        &self.partitions[..self.layout.key_partitions()]
    }

    /// The bytes of all key partitions together: what `state_bytes_max` bounds.
    pub(crate) fn bytes(&self) -> u64 {
        self.key_partitions().iter().map(Partition::bytes).sum()
    }

    /// Writes a value under a key, as one more version of what is there.
    pub(crate) fn write(&mut self, partition: PartitionId, key: Blob, value: Blob, at: Position) {
        let entry = Entry::after(self.partition(partition).get(&key), value, at);
        self.put(partition, key, entry);
    }

    /// Puts an entry that was made from what is there.
    pub(crate) fn put(&mut self, partition: PartitionId, key: Blob, entry: Entry) {
        self.partitions[usize::from(partition.0)].put(&key, entry.clone());
        self.effects.push(partition, Effect::Put { key, entry });
    }

    /// Writes a value under a key that is absent.
    pub(crate) fn create(&mut self, partition: PartitionId, key: Blob, value: Blob, at: Position) {
        self.put(partition, key, Entry::after(None, value, at));
    }

    /// Deletes what is under a key.
    pub(crate) fn delete(&mut self, partition: PartitionId, key: Blob, at: Position) {
        self.partitions[usize::from(partition.0)].delete(&key, at);
        self.effects.push(partition, Effect::Delete { key, at });
    }

    /// The effects since they were last taken: those of one slot.
    pub(crate) fn take_effects(&mut self) -> Effects {
        std::mem::replace(&mut self.effects, SlotEffects::new(self.layout.len())).finish()
    }
}
