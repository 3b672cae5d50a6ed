//! Crashes at every write of images, frontiers and bases: what is left is always a certified state (C3, C8, C10).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeSet;

use common::{
    CHUNK, Cluster, INTERVAL, Replica, TURN_CUTS, bent, blob, cluster, cluster_named, effects_of, entry, put, recover,
    rows_by_partition, states,
};
use polder_checkpoint::recovery::{self, RecoveryError};
use polder_checkpoint::{Durability, Family, MemStore, Store, Writes, effects_log, images, install};
use polder_executor::{Effect, Effects, Frozen};
use polder_types::{PartitionId, Position, Seq, decode, encode};

/// What a crash may keep of what was not synced: nothing, the first, half, all.
fn keeps(store: &MemStore) -> BTreeSet<usize> {
    let unsynced = store.unsynced();
    BTreeSet::from([0, 1.min(unsynced), unsynced / 2, unsynced])
}

/// The image rows on disk are exactly those of one image each of some partitions.
fn assert_no_leftovers(store: &MemStore, cluster: &Cluster) {
    let recovered = recover(cluster, store);
    let rows = rows_by_partition(store, Family::Images);
    for (id, count) in rows {
        let image = recovered.images.get(&PartitionId(id)).unwrap_or_else(|| panic!("rows of no image of p{id}"));
        let generations: BTreeSet<Vec<u8>> = store
            .rows(Family::Images)
            .into_iter()
            .filter(|(key, _)| key[..2] == id.to_be_bytes())
            .map(|(key, _)| key[2..10].to_vec())
            .collect();
        assert_eq!(generations.len(), 1, "{count} rows of p{id}, imaged at {}", image.cut);
    }
}

#[test]
fn c3_c8_a_crash_at_any_write_leaves_a_certified_state_no_older_than_what_was_durable() {
    let cluster = cluster();
    let (middle, last) = (9 * INTERVAL, 14 * INTERVAL);
    let oracle = states(&cluster, 1, last);
    let (mut crashes, mut imaged) = (0, 0);
    for nth in 1.. {
        let store = MemStore::new();
        store.fail_at(nth);
        let mut replica = Replica::open_fallible(&cluster, &store, 1);
        let persisted = match &mut replica {
            Some(replica) => {
                let ended = replica.run(middle);
                assert_eq!(ended.is_err(), store.has_failed());
                replica.persisted
            }
            None => Seq::ZERO,
        };
        if !store.has_failed() {
            assert!(nth > 60, "the loop reached the end of the run");
            break;
        }
        for keep in keeps(&store) {
            let store = store.snapshot();
            store.crash(keep);
            crashes += 1;
            // C8: the newest synced frontier whose certificate is durable, and its very state.
            let recovered = recover(&cluster, &store);
            assert!(recovered.cut() >= persisted, "write {nth}, kept {keep}: durable means recoverable");
            if let Some(state) = &recovered.state {
                let expected = &oracle[state.cut().0 as usize];
                assert_eq!(state.frozen().root(), expected.root(), "write {nth}, kept {keep}");
            }
            imaged += recovered.images.len();
            assert_no_leftovers(&store, &cluster);
            // It goes on as if nothing had happened, and a second crash finds nothing amiss.
            let mut again = Replica::open(&cluster, &store, 1);
            again.run(last).unwrap();
            again.settle().unwrap();
            assert_eq!(again.state.root(), oracle[last as usize].root());
            store.crash(0);
            let recovered = recover(&cluster, &store);
            assert_eq!(recovered.cut(), Seq(last));
            assert_eq!(recovered.state.unwrap().frozen().root(), oracle[last as usize].root());
        }
    }
    assert!(crashes > 150 && imaged > 300, "{crashes} crashes, {imaged} images");
}

#[test]
fn c3_a_crash_at_any_write_of_an_install_leaves_the_old_state_or_the_new_base() {
    let cluster = cluster();
    let (old, cut) = (5 * INTERVAL, 20 * INTERVAL);
    let before = MemStore::new();
    let mut replica = Replica::open(&cluster, &before, 1);
    // Executed beyond its last cut: effects that the base must void.
    replica.run(old + 3).unwrap();
    replica.settle().unwrap();
    let persisted = replica.persisted;
    assert_eq!(persisted, Seq(old));
    // Another life: most of it differs from what the own log would lead to, the cold partition does not.
    let base = cluster.certified(&states(&cluster, 2, cut)[cut as usize]);
    let mut outcomes = BTreeSet::new();
    for nth in 1.. {
        let store = before.snapshot();
        store.fail_at(nth);
        if let Ok(written) = install::write(&store, &base, CHUNK) {
            assert!(nth > 5);
            assert_eq!(written.relabelled, 3, "what has the digest already is kept");
            // At once, not only at the next start.
            assert_eq!(store.rows(Family::Effects), vec![], "the effects of the life before are void");
            let entries = base.frozen().partitions().iter().map(|partition| partition.len()).sum::<usize>();
            assert_eq!(store.rows(Family::Images).len(), entries, "the images of the life before are gone");
            break;
        }
        for keep in keeps(&store) {
            let store = store.snapshot();
            store.crash(keep);
            let recovered = recover(&cluster, &store);
            let state = recovered.state.unwrap();
            outcomes.insert(state.cut());
            assert!([Seq(old), Seq(cut)].contains(&state.cut()), "write {nth}, kept {keep}: {}", state.cut());
            if state.cut() == Seq(cut) {
                assert_eq!(state.frozen().root(), base.frozen().root());
                assert!(recovered.images.values().all(|image| image.cut == Seq(cut)));
                assert_eq!(store.rows(Family::Effects), vec![], "the effects of the life before are void");
            }
            assert_no_leftovers(&store, &cluster);
            // Either way it goes on in the life that its disk leads to.
            let (life, last) = if state.cut() == Seq(cut) { (2, cut + 9) } else { (1, old + 9) };
            let mut again = Replica::open(&cluster, &store, life);
            again.run(last).unwrap();
            store.crash(0);
            let recovered = recover(&cluster, &store);
            let expected = &states(&cluster, life, last)[recovered.cut().0 as usize];
            assert_eq!(recovered.state.unwrap().frozen().root(), expected.root());
        }
    }
    assert_eq!(outcomes, BTreeSet::from([Seq(old), Seq(cut)]));
}

#[test]
fn c3_a_wiped_disk_takes_a_base_and_an_equal_cut_may_be_installed_beside_its_own_image() {
    let cluster = cluster();
    let cut = 8 * INTERVAL;
    let base = cluster.certified(&states(&cluster, 1, cut)[cut as usize]);
    let store = MemStore::new();
    install::write(&store, &base, CHUNK).unwrap();
    store.crash(0);
    assert_eq!(recover(&cluster, &store).state.unwrap().frozen().root(), base.frozen().root());
    // A second base of the same cut: everything is there already.
    let rows = store.applied().rows.get(&Family::Images).copied();
    assert_eq!(install::write(&store, &base, CHUNK).unwrap().images, 0);
    assert_eq!(store.applied().rows.get(&Family::Images).copied(), rows);
    // An older one is refused.
    let older = cluster.certified(&states(&cluster, 1, INTERVAL)[INTERVAL as usize]);
    assert!(install::write(&store, &older, CHUNK).is_err());
}

#[test]
fn c5_cold_partitions_cost_metadata_only() {
    let cluster = cluster();
    let (first, second) = (TURN_CUTS * INTERVAL, 2 * TURN_CUTS * INTERVAL);
    let store = MemStore::new();
    let mut replica = Replica::open(&cluster, &store, 1);
    replica.run(first + INTERVAL - 1).unwrap();
    replica.settle().unwrap();
    let cold: Vec<_> = store.rows(Family::Images).into_iter().filter(|(key, _)| key[1] >= 3).collect();
    assert!(cold.len() >= 3);
    let written = store.applied();
    replica.run(second + INTERVAL - 1).unwrap();
    replica.settle().unwrap();
    // The cold partitions' rows are the same ones, and nothing was put for them.
    let still: Vec<_> = store.rows(Family::Images).into_iter().filter(|(key, _)| key[1] >= 3).collect();
    assert_eq!(cold, still);
    let hot = store.rows(Family::Images).len() - still.len();
    let put = store.applied().rows[&Family::Images] - written.rows[&Family::Images];
    assert_eq!(put as usize, hot);
    // Yet their images are of the new cut, and so their effects are gone.
    let recovered = recover(&cluster, &store);
    assert!(recovered.images.values().all(|image| image.cut == Seq(second)));
}

#[test]
fn c5_a_state_that_does_not_change_writes_no_image_byte() {
    let cluster = cluster();
    let store = MemStore::new();
    let partitions = cluster.genesis.partitions();
    let first = images::write(&store, Seq(8), partitions, CHUNK).unwrap();
    assert_eq!((first.images, first.relabelled), (6, 0));
    let applied = store.applied();
    let second = images::write(&store, Seq(16), partitions, CHUNK).unwrap();
    assert_eq!((second.images, second.relabelled, second.bytes), (0, 6, 0));
    assert_eq!(store.applied().applies, applied.applies + 1, "one change for all of them");
}

#[test]
fn c3_nothing_is_written_below_a_begun_or_declared_image() {
    let cluster = cluster();
    let states = states(&cluster, 1, 16);
    let store = MemStore::new();
    images::write(&store, Seq(8), states[8].partitions(), CHUNK).unwrap();
    let before = store.rows(Family::Images);
    for cut in [Seq(4), Seq(8)] {
        assert_eq!(images::write(&store, cut, states[4].partitions(), CHUNK).unwrap().skipped, 6);
    }
    // A job at 16 that is begun and stops: nothing below it may begin.
    store.fail_at(2);
    assert!(images::write(&store, Seq(16), states[16].partitions(), CHUNK).is_err());
    store.crash(usize::MAX);
    let written = images::write(&store, Seq(12), states[12].partitions(), CHUNK).unwrap();
    assert!(written.skipped >= 1);
    assert!(before.iter().all(|row| store.rows(Family::Images).contains(row)), "the declared images are whole");
}

#[test]
fn c4_a_partition_with_an_unfinished_job_is_never_relabelled() {
    let cluster = cluster();
    let store = MemStore::new();
    let state = &states(&cluster, 1, 8)[8];
    images::write(&store, Seq(8), state.partitions(), CHUNK).unwrap();
    // A job of another content stops after its first bytes; then the partition is what it was.
    store.fail_at(2);
    assert!(images::write(&store, Seq(12), bent(state, &[0]).partitions(), CHUNK).is_err());
    store.crash(usize::MAX);
    let written = images::write(&store, Seq(16), state.partitions(), CHUNK).unwrap();
    assert_eq!((written.images, written.relabelled), (1, 5), "written anew, the leftovers abandoned");
    let generations: BTreeSet<Vec<u8>> = store
        .rows(Family::Images)
        .into_iter()
        .filter(|(key, _)| key[..2] == [0, 0])
        .map(|(key, _)| key[2..10].to_vec())
        .collect();
    assert_eq!(generations.len(), 1);
}

#[test]
fn c4_a_job_begins_by_abandoning_the_unfinished_one() {
    let cluster = cluster();
    let store = MemStore::new();
    // The very first job stops after its entries; no image is declared yet.
    store.fail_at(3);
    assert!(images::write(&store, Seq(8), states(&cluster, 1, 8)[8].partitions(), CHUNK).is_err());
    store.crash(usize::MAX);
    assert!(!store.rows(Family::Images).is_empty());
    let state = &states(&cluster, 1, 12)[12];
    images::write(&store, Seq(12), state.partitions(), CHUNK).unwrap();
    let entries: usize = state.partitions().iter().map(|partition| partition.len()).sum();
    assert_eq!(store.rows(Family::Images).len(), entries, "what the other job left is gone");
}

/// Three slots on partition 0 whose order matters, a frontier, and a certificate.
fn three_slots(cluster: &Cluster) -> (MemStore, Frozen) {
    let at = |slot| Position { slot: Seq(slot), index: 0 };
    let put_a = |slot, value| Effect::Put { key: blob("a"), entry: entry(slot, value) };
    let slots = [
        vec![put_a(1, "one"), Effect::Put { key: blob("b"), entry: entry(1, "b") }],
        vec![Effect::Delete { key: blob("a"), at: at(2) }, put_a(2, "two")],
        vec![put_a(3, "three"), Effect::Delete { key: blob("b"), at: at(3) }],
        vec![],
    ];
    let store = MemStore::new();
    let mut state = cluster.genesis.clone();
    for (index, effects) in slots.into_iter().enumerate() {
        let effects = Effects::from([(PartitionId(0), effects)]);
        state = common::after(&state, &effects);
        let mut writes = Writes::new();
        effects_log::append(&mut writes, Seq(index as u64 + 1), &effects);
        put(&store, &writes, Durability::Lazy);
    }
    let mut writes = Writes::new();
    effects_log::frontier(&mut writes, Seq(4));
    put(&store, &writes, Durability::Lazy);
    persist(cluster, &store, &state);
    (store, state)
}

/// Has a planner write the certificate of a state.
fn persist(cluster: &Cluster, store: &MemStore, state: &Frozen) {
    use polder_checkpoint::planner::{Input, Output};
    let (mut planner, _) = polder_checkpoint::Planner::new(cluster.planner_config(), Default::default());
    let mut out = Vec::new();
    let checkpoint = cluster.statement(state);
    planner.step(Input::Certified(cluster.certify(&checkpoint)), &mut out);
    planner.step(Input::Digested { frozen: state.clone(), checkpoint }, &mut out);
    for output in out {
        if let Output::Persist { writes, .. } = output {
            put(store, &writes, Durability::Synced);
        }
    }
}

#[test]
fn c7_c8_effects_are_redone_in_slot_order_and_silent_partitions_cost_no_row() {
    let cluster = cluster();
    let (store, state) = three_slots(&cluster);
    assert_eq!(store.rows(Family::Effects).len(), 3, "the silent slot and the silent partitions have none");
    let recovered = recover(&cluster, &store).state.unwrap();
    assert_eq!(recovered.frozen().root(), state.root());
    assert_eq!(recovered.frozen().partitions()[0].get(b"a").map(|entry| entry.value.to_vec()), Some(b"three".to_vec()));
}

#[test]
fn c8_a_frontier_without_a_certificate_and_a_certificate_without_a_frontier_lead_nowhere() {
    let cluster = cluster();
    let (store, _) = three_slots(&cluster);
    let mut writes = Writes::new();
    effects_log::append(&mut writes, Seq(5), &effects_of(1, 5));
    effects_log::frontier(&mut writes, Seq(8));
    put(&store, &writes, Durability::Synced);
    let recovered = recover(&cluster, &store);
    assert_eq!(recovered.cut(), Seq(4));
    assert_eq!(store.rows(Family::Effects).len(), 3, "what leads beyond is executed again, and removed");
    // Of a first start that ended before its first certificate nothing is left either.
    let store = MemStore::new();
    put(&store, &writes, Durability::Synced);
    assert!(recover(&cluster, &store).state.is_none());
    assert_eq!(store.bytes_on_disk(), 0);
    let (store, _) = three_slots(&cluster);
    let frontier = store.rows(Family::Meta)[0].0.clone();
    let mut writes = Writes::new();
    writes.delete(Family::Meta, frontier);
    put(&store, &writes, Durability::Synced);
    assert_eq!(recover(&cluster, &store).cut(), Seq::ZERO);
}

fn error(cluster: &Cluster, store: &MemStore) -> RecoveryError {
    let before: Vec<_> = Family::ALL.iter().map(|family| store.rows(*family)).collect();
    let error = recovery::recover(store, &cluster.keyring, &cluster.genesis).unwrap_err();
    let after: Vec<_> = Family::ALL.iter().map(|family| store.rows(*family)).collect();
    assert_eq!(before, after, "a recovery that fails changes nothing");
    error
}

#[test]
fn c8_every_damaged_partition_is_named() {
    let cluster = cluster();
    let store = MemStore::new();
    let mut replica = Replica::open(&cluster, &store, 1);
    replica.run(TURN_CUTS * INTERVAL * 2 + 3).unwrap();
    replica.settle().unwrap();
    let whole = store.snapshot();
    let cut = recover(&cluster, &whole).cut();
    let names_only = |store: &MemStore, id: u16| match error(&cluster, store) {
        RecoveryError::Partitions { cut: at, partitions } => {
            assert_eq!((at, partitions), (cut, vec![PartitionId(id)]));
        }
        RecoveryError::Store(_) => {}
        other => panic!("{other}"),
    };
    // A bit of every image row in turn; a row that is gone; a slot's effects that are gone.
    let mut bits = 0;
    for (key, value) in whole.rows(Family::Images) {
        let id = u16::from_be_bytes([key[0], key[1]]);
        for byte in [0, value.len() / 2, value.len() - 1] {
            let store = whole.snapshot();
            let mut value = value.clone();
            value[byte] ^= 4;
            let mut writes = Writes::new();
            writes.put(Family::Images, key.clone(), value);
            put(&store, &writes, Durability::Synced);
            names_only(&store, id);
            bits += 1;
        }
        let store = whole.snapshot();
        let mut writes = Writes::new();
        writes.delete(Family::Images, key);
        put(&store, &writes, Durability::Synced);
        assert!(matches!(error(&cluster, &store), RecoveryError::Store(_)), "not as many as were declared");
    }
    assert!(bits > 30);
    let (store, _) = three_slots(&cluster);
    let row = store.rows(Family::Effects)[2].0.clone();
    let mut writes = Writes::new();
    writes.delete(Family::Effects, row);
    put(&store, &writes, Durability::Synced);
    let error = error(&cluster, &store);
    assert_eq!(error, RecoveryError::Partitions { cut: Seq(4), partitions: vec![PartitionId(0)] });
    assert!(error.to_string().contains("p0 differ"), "{error}");
}

#[test]
fn c8_certificates_are_verified_and_the_words_say_what_to_do() {
    let cluster = cluster();
    let (store, _) = three_slots(&cluster);
    // Another cluster's folder.
    let foreign = error(&cluster_named(2), &store);
    assert_eq!(foreign, RecoveryError::Certificate { cut: Seq(4) });
    assert!(foreign.to_string().contains("another cluster's"), "{foreign}");
    assert!(foreign.to_string().contains("data folder"), "{foreign}");
    // A signature less, a digest list of another root.
    type Row = (polder_types::Proof<polder_types::Checkpoint>, Vec<polder_types::Digest>);
    let (key, value) = store.rows(Family::Certificates)[0].clone();
    let row: Row = decode(&value, value.len()).unwrap();
    let with = |row: Row| {
        let store = store.snapshot();
        let mut writes = Writes::new();
        writes.put(Family::Certificates, key.clone(), encode(&row));
        put(&store, &writes, Durability::Synced);
        error(&cluster, &store)
    };
    let mut short = row.clone();
    short.0.signers.pop();
    assert_eq!(with(short), RecoveryError::Certificate { cut: Seq(4) });
    let mut bent = row.clone();
    bent.1[0] = polder_types::Digest::ZERO;
    assert!(matches!(with(bent), RecoveryError::Contradiction { .. }));
    let mut moved = row;
    moved.0.statement.seq = Seq(3);
    assert_eq!(with(moved), RecoveryError::Certificate { cut: Seq(4) });
}

#[test]
fn c3_an_image_ahead_of_every_certificate_is_refused() {
    let cluster = cluster();
    let (store, state) = three_slots(&cluster);
    let late = Frozen::assemble(Seq(12), state.partitions().to_vec()).unwrap();
    images::write(&store, Seq(12), late.partitions(), CHUNK).unwrap();
    assert!(matches!(error(&cluster, &store), RecoveryError::Contradiction { .. }));
}

#[test]
fn c10_disk_use_is_bounded_and_only_what_is_certified_and_recoverable_goes() {
    let cluster = cluster();
    let store = MemStore::new();
    let mut replica = Replica::open(&cluster, &store, 1);
    let (mut most_early, mut most_late) = (0, 0);
    let slots = 60 * TURN_CUTS * INTERVAL;
    for slot in 1..=slots {
        replica.run(slot).unwrap();
        let bytes = store.bytes_on_disk();
        if slot <= slots / 3 {
            most_early = most_early.max(bytes);
        } else {
            most_late = most_late.max(bytes);
        }
        if slot % 5 == 0 {
            // Whatever was deleted, the disk still leads to the newest durable cut.
            let copy = store.snapshot();
            copy.crash(0);
            assert_eq!(recover(&cluster, &copy).cut(), replica.persisted);
        }
        // C10: batches above the frontier, and twice the pipeline below it, are kept.
        assert!(replica.log_from.0 <= replica.persisted.0.saturating_sub(2) + 1);
    }
    assert!(most_late <= most_early + most_early / 4, "{most_early} bytes at most early, {most_late} later");
    let frontiers = store.rows(Family::Meta).into_iter().filter(|(key, _)| key[0] == b'F').count();
    assert_eq!(frontiers, 1, "older frontiers go");
    assert!(store.rows(Family::Certificates).len() <= 2 + TURN_CUTS as usize, "older certificates go");
    let oldest = recover(&cluster, &store).images.values().map(|image| image.cut).min().unwrap();
    for (key, _) in store.rows(Family::Effects) {
        let slot = u64::from_be_bytes(key[2..10].try_into().unwrap());
        assert!(Seq(slot) > oldest, "effects up to the images go");
    }
}
