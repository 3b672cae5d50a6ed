//! R26, R29, C3: what is written is all there is; restored and redone states are the same, bit for bit.

use std::sync::Arc;

use polder_executor::{
    Effect, Entry, Executor, ExecutorConfig, Frozen, FrozenPartition, PartitionBuilder, RestoreError,
};
use polder_types::{Batch, Blob, Constants, Epoch, PartitionId, Position, Seq};

use crate::script::{Scripted, append, delete, put, writes};
use crate::world::{World, constants, genesis, redo};

fn filled() -> World {
    let mut world = World::new(constants());
    let session = world.open(1);
    for number in 1..=3 {
        let key = format!("k{number}");
        world.run(1, session, number, &writes(vec![append("log", "x"), put(&key, "v"), delete("k2")]));
    }
    world
}

#[test]
fn r29_genesis_follows_from_the_configuration_alone() {
    let root = World::new(constants()).executor.freeze().root();
    assert_eq!(World::new(constants()).executor.freeze().root(), root);
    assert_ne!(World::new(Constants { sessions_max: 6, ..constants() }).executor.freeze().root(), root);
}

#[test]
fn r29_equal_content_has_equal_digests_whatever_its_history() {
    let frozen = filled().executor.freeze();
    for partition in frozen.partitions() {
        // Backwards, by way of other values, and with a key that is deleted again.
        let mut builder = PartitionBuilder::new(partition.id());
        let entries = partition.chunk(None, usize::MAX).entries;
        for (key, entry) in entries.iter().rev() {
            let mut other = entry.clone();
            other.version += 1;
            builder.put(key.clone(), other);
            builder.put(key.clone(), entry.clone());
            builder.put(Blob::copy(b"other"), entry.clone());
        }
        let at = Position::default();
        builder.apply(&Effect::Delete { key: Blob::copy(b"other"), at });
        builder.set_last_delete(partition.last_delete());
        let rebuilt = builder.finish();
        assert_eq!(rebuilt.digest(), partition.digest());
        assert_eq!((rebuilt.len(), rebuilt.bytes()), (partition.len(), partition.bytes()));
    }
}

#[test]
fn r29_the_digest_covers_key_value_positions_version_and_last_delete() {
    let frozen = filled().executor.freeze();
    let partition =
        frozen.partitions().iter().find(|partition| !partition.is_empty()).expect("one that holds something");
    let (key, entry) = partition.chunk(None, 1).entries.remove(0);
    let changed = |change: &dyn Fn(&mut PartitionBuilder)| {
        let mut builder = PartitionBuilder::from(partition);
        change(&mut builder);
        builder.finish().digest()
    };
    let with = |change: &dyn Fn(&mut Entry)| {
        changed(&|builder| {
            let mut entry = entry.clone();
            change(&mut entry);
            builder.put(key.clone(), entry);
        })
    };
    assert_eq!(with(&|_| {}), partition.digest());
    let at = Position { slot: Seq(99), index: 7 };
    let different = [
        with(&|entry| entry.value = Blob::copy(b"else")),
        with(&|entry| entry.created = at),
        with(&|entry| entry.modified = at),
        with(&|entry| entry.version += 1),
        changed(&|builder| builder.put(Blob::copy(b"more"), entry.clone())),
        changed(&|builder| builder.set_last_delete(at)),
        partition.digest(),
    ];
    for (index, digest) in different.iter().enumerate() {
        assert!(!different[index + 1..].contains(digest), "{index}");
    }
}

#[test]
fn r29_a_partition_knows_its_last_delete_and_what_never_was_is_not_deleted() {
    let mut world = World::new(constants());
    let session = world.open(1);
    world.run(1, session, 1, &writes(vec![put("a", "1"), put("b", "1")]));
    let last_delete = |world: &World| {
        let keys = usize::from(constants().partitions);
        world.executor.freeze().partitions()[..keys].iter().map(FrozenPartition::last_delete).max()
    };
    // Of what is not there, and of what the command itself put there.
    world.run(1, session, 2, &writes(vec![delete("c"), put("d", "1"), delete("d")]));
    assert_eq!(last_delete(&world), Some(Position::default()));
    for (number, key) in [(3, "a"), (4, "b")] {
        world.run(1, session, number, &writes(vec![delete(key)]));
        let at = Position { slot: world.executor.executed(), index: 0 };
        assert_eq!(last_delete(&world), Some(at));
    }
    // Redoing an old one does not bring back its time.
    let frozen = world.executor.freeze();
    let deleted = |partition: &&FrozenPartition| partition.last_delete() > Position::default();
    let partition = frozen.partitions().iter().find(deleted).expect("one with a delete");
    let mut builder = PartitionBuilder::from(partition);
    builder.apply(&Effect::Delete { key: Blob::copy(b"a"), at: Position::default() });
    assert_eq!(builder.finish().last_delete(), partition.last_delete());
}

#[test]
fn r26_sessions_that_expire_together_end_in_one_order_wherever_a_replica_was_restored() {
    let mut world = World::new(Constants { session_expiry_ms: 1_000, session_partitions: 1, ..constants() });
    let first = world.open(1);
    world.now = world.now.plus(5);
    world.open(2);
    world.now = world.now.plus(5);
    world.run(1, first, 1, &writes(vec![]));
    let frozen = world.executor.freeze();
    let restored = Executor::restore(Arc::new(Scripted), world.config.clone(), &frozen);
    world.now = world.now.plus(2_000);
    let executed = world.slot([]);
    assert_eq!(executed.windows.len(), 2);
    let batch = Batch { ts: world.now, requests: vec![] };
    assert_eq!(restored.expect("a state of its own").execute(executed.slot, &batch), executed);
}

#[test]
fn a_frozen_state_stays_what_it_was() {
    let mut world = filled();
    let frozen = world.executor.freeze();
    let late = frozen.clone();
    let root = frozen.root();
    let session = world.open(2);
    world.run(2, session, 1, &writes(vec![append("log", "y"), delete("k1")]));
    assert_ne!(world.executor.freeze().root(), root);
    // Also when the digests are asked for only now.
    assert_eq!(late.root(), root);
    let again: Vec<FrozenPartition> = frozen
        .partitions()
        .iter()
        .map(|partition| {
            let mut builder = PartitionBuilder::new(partition.id());
            let entries = partition.chunk(None, usize::MAX).entries;
            entries.into_iter().for_each(|(key, entry)| builder.put(key, entry));
            builder.set_last_delete(partition.last_delete());
            builder.finish()
        })
        .collect();
    assert_eq!(Frozen::assemble(frozen.seq(), again).expect("all partitions").root(), root);
}

#[test]
fn chunks_of_any_size_make_the_partition_again() {
    let frozen = filled().executor.freeze();
    for bytes_max in [0, 100, 300, usize::MAX] {
        for partition in frozen.partitions() {
            let mut builder = PartitionBuilder::new(partition.id());
            let mut after: Option<Blob> = None;
            loop {
                let chunk = partition.chunk(after.as_deref(), bytes_max);
                after = chunk.entries.last().map(|(key, _)| key.clone());
                assert!(chunk.done || !chunk.entries.is_empty());
                chunk.entries.into_iter().for_each(|(key, entry)| builder.put(key, entry));
                if chunk.done {
                    break;
                }
            }
            builder.set_last_delete(partition.last_delete());
            assert_eq!(builder.finish().digest(), partition.digest());
        }
    }
}

#[test]
fn c7_redoing_effects_once_more_changes_nothing() {
    let mut world = filled();
    let before = world.executor.freeze();
    let session = world.open(2);
    let request = world.commands(2, session, 0, 1, [writes(vec![append("log", "y"), delete("k1"), put("k1", "w")])]);
    let after = world.slot([request]);
    let once = redo(&world.executor.freeze(), std::slice::from_ref(&after));
    assert_eq!(once.root(), world.executor.freeze().root());
    assert_ne!(before.root(), once.root());
}

#[test]
fn a_state_of_other_partitions_or_another_configuration_is_refused() {
    let frozen = filled().executor.freeze();
    let restore = |constants: Constants, frozen: &Frozen| {
        let config = ExecutorConfig { genesis: genesis(constants), epoch: Epoch(0) };
        Executor::restore(Arc::new(Scripted), config, frozen).map(|executor| executor.executed())
    };
    assert_eq!(restore(constants(), &frozen), Ok(frozen.seq()));
    let other = Constants { sessions_max: 6, ..constants() };
    assert_eq!(restore(other, &frozen), Err(RestoreError::Configuration));
    let other = Constants { partitions: 4, ..constants() };
    assert_eq!(restore(other, &frozen), Err(RestoreError::Partitions));

    let mut partitions = frozen.partitions().to_vec();
    partitions.swap(0, 1);
    assert!(matches!(Frozen::assemble(frozen.seq(), partitions), Err(RestoreError::Partitions)));
    assert!(matches!(Frozen::assemble(Seq(1), vec![]), Err(RestoreError::Partitions)));
    let mut partitions = frozen.partitions().to_vec();
    let system = PartitionId(partitions.len() as u16 - 1);
    partitions[usize::from(system.0)] = PartitionBuilder::new(system).finish();
    assert!(matches!(Frozen::assemble(frozen.seq(), partitions), Err(RestoreError::System)));

    // A record that cannot be read.
    let mut partitions = frozen.partitions().to_vec();
    let session = usize::from(constants().partitions);
    let mut builder = PartitionBuilder::from(&partitions[session]);
    let entry = frozen.partitions()[usize::from(system.0)].chunk(None, 1).entries.remove(0).1;
    builder.put(Blob::copy(b"s"), entry);
    partitions[session] = builder.finish();
    let bad = Frozen::assemble(frozen.seq(), partitions).expect("all partitions");
    assert_eq!(restore(constants(), &bad), Err(RestoreError::Sessions(PartitionId(session as u16))));
}
