//! What a slot changed, as puts and deletes: redoing them needs no reads, and may be repeated.

use std::collections::BTreeMap;

use polder_types::{Blob, PartitionId, Position};
use serde::{Deserialize, Serialize};

use super::Entry;

/// One change of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// From now on this entry is under the key.
    Put {
        /// The key.
        key: Blob,
        /// The whole entry, its positions and version included.
        entry: Entry,
    },
    /// Nothing is under the key any more.
    Delete {
        /// The key.
        key: Blob,
        /// The command that deleted it: the partition's last delete is never before it.
        at: Position,
    },
}

/// The changes of one slot, a list a partition, each in the order in which they were made. Redoing the lists of the
/// slots `≤ s` on any state of the partition between genesis and `s`, in slot order, gives the partition of `s`, bit for
/// bit: sessions, time and all else that is replicated included (R29, C7).
pub type Effects = BTreeMap<PartitionId, Vec<Effect>>;

/// The effects of a slot in the making.
#[derive(Debug)]
pub(super) struct SlotEffects(Vec<Vec<Effect>>);

impl SlotEffects {
    pub(super) fn new(partitions: usize) -> Self {
        Self(vec![Vec::new(); partitions])
    }

    pub(super) fn push(&mut self, partition: PartitionId, effect: Effect) {
        if let Some(effects) = self.0.get_mut(usize::from(partition.0)) {
            effects.push(effect);
        }
    }

    pub(super) fn finish(self) -> Effects {
        let numbered = self.0.into_iter().enumerate();
        numbered
            .filter(|(_, effects)| !effects.is_empty())
            .map(|(index, effects)| (PartitionId(index as u16), effects))
            .collect()
    }
}
