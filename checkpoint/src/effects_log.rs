//! The effects log (C7): what every slot put and deleted, by partition, and the frontiers that close it at cuts.
//!
//! Rows are applied in slot order to the state store, which is first in, first out: when the frontier of a cut is
//! durable, so are all effects up to it, of silent partitions too. Nothing here is on the way of a reply.

use polder_executor::{Effect, Effects, PartitionBuilder};
use polder_types::{PartitionId, Seq, encode};

use crate::rows;
use crate::store::{Family, Store, StoreError, Writes};

/// Adds the effects of a slot. To be applied in slot order, each slot once since the last recovery or install;
/// [`crate::Durability::Lazy`] will do.
pub fn append(writes: &mut Writes, slot: Seq, effects: &Effects) {
    for (partition, effects) in effects {
        // A silent partition costs nothing.
        if !effects.is_empty() {
            writes.put(Family::Effects, rows::effects_key(*partition, slot), encode(effects));
        }
    }
}

/// Adds the frontier of a cut: to be applied after the effects of the cut's own slot and before those of the next.
/// [`crate::Durability::Lazy`] will do: the certificate, synced after it, makes it durable too.
pub fn frontier(writes: &mut Writes, cut: Seq) {
    writes.put(Family::Meta, rows::frontier_key(cut), Vec::new());
}

/// Redoes the effects of slots `(after, through]` on a partition, in slot order (C8). Returns how many slots had any.
pub(crate) fn redo(
    store: &dyn Store,
    builder: &mut PartitionBuilder,
    partition: PartitionId,
    after: Seq,
    through: Seq,
) -> Result<u64, StoreError> {
    let (from, to) = rows::effects_range(partition, after, through);
    let mut slots = 0;
    rows::each(store, Family::Effects, &from, &to, |_, value| {
        let what = || format!("a row of the effects of {partition} in ({after}, {through}]");
        let effects: Vec<Effect> = rows::read(value, what)?;
        effects.iter().for_each(|effect| builder.apply(effect));
        slots += 1;
        Ok(())
    })?;
    Ok(slots)
}

/// Adds the removal of a partition's effects of slots `(after, through]`.
pub(crate) fn remove(writes: &mut Writes, partition: PartitionId, after: Seq, through: Seq) {
    if after < through {
        let (from, to) = rows::effects_range(partition, after, through);
        writes.delete_range(Family::Effects, from, to);
    }
}
