//! Disks with damaged rows: a replica that is started from them is refused in words, or has what it had.

use polder_checkpoint::{Durability, Family, MemStore, Store as _, Writes, recovery};
use polder_consensus::Now;
use polder_executor::{Executor, ExecutorConfig};
use polder_node::replica::{Event, Replica, ReplicaConfig, Start};
use polder_types::{Epoch, ReplicaId, SigningKey, Timestamp};
use std::sync::Arc;

use super::{Target, Verdict, counting, holds, mutate, samples};
use crate::random::Random;
use crate::service::Lists;

/// What opening may hold at once: so many times the bytes on the disk, and so many beside.
const BYTES_PER_BYTE: usize = 256;
const BYTES_BESIDE: usize = 8 << 20;

/// The targets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "log-rows",
        what: "rows of the ordering log: a damaged row is found (R18), and what starts holds its invariants",
        iterations: 400,
        run: |random| log_rows(random),
    },
    Target {
        name: "state-rows",
        what: "effects, images, certificates, declarations: what is recovered is certified (C8)",
        iterations: 800,
        run: |random| state_rows(random),
    },
];

/// What was done to a disk.
struct Damage {
    family: Family,
    /// Whether one row has another value, and no more was done.
    is_other_value: bool,
    words: String,
}

/// Changes a row of the store.
fn damage(store: &MemStore, families: &[Family], random: &mut Random) -> Result<Option<Damage>, String> {
    let Some(family) = random.pick(families).copied() else { return Ok(None) };
    let rows = store.rows(family);
    let at = random.below(rows.len());
    let Some((key, value)) = rows.get(at).cloned() else { return Ok(None) };
    let other = random.pick(&rows).cloned().unwrap_or_default();
    let mut writes = Writes::new();
    let (words, is_other_value) = match random.range(0, 9) {
        0 => {
            writes.delete(family, key.clone());
            ("removed", false)
        }
        1 => {
            let mut moved = key.clone();
            mutate::bytes(&mut moved, random, &other.0);
            writes.delete(family, key.clone());
            writes.put(family, moved, value.clone());
            ("moved", false)
        }
        2 => {
            let mut added = key.clone();
            mutate::bytes(&mut added, random, &other.0);
            writes.put(family, added, other.1.clone());
            ("added", false)
        }
        3 => {
            writes.put(family, key.clone(), other.1.clone());
            ("another's", other.1 != value)
        }
        _ => {
            let mut changed = value.clone();
            mutate::bytes(&mut changed, random, &other.1);
            writes.put(family, key.clone(), changed.clone());
            ("changed", changed != value)
        }
    };
    store.apply(&writes, Durability::Synced).map_err(|error| error.to_string())?;
    Ok(Some(Damage { family, is_other_value, words: format!("a row of {family:?} is {words}: {key:02x?}") }))
}

/// A replica's disks, as they were left.
fn disks(random: &mut Random) -> Result<(ReplicaId, MemStore, MemStore), String> {
    let disks = &samples::get().disks;
    let (me, log, state) = random.pick(disks).ok_or("no disks")?;
    Ok((*me, log.snapshot(), state.snapshot()))
}

fn log_rows(random: &mut Random) -> Verdict {
    let (me, log, state) = disks(random)?;
    let Some(damage) = damage(&log, &[Family::Log, Family::Log, Family::Meta], random)? else { return Ok(()) };
    let samples = samples::get();
    let config = ReplicaConfig {
        genesis: samples.genesis.clone(),
        me,
        // Its key signs nothing that is judged here.
        key: SigningKey::from_seed(&[9; 32]),
        pipeline_slots: 4,
        nonce: random.bits(),
        #[cfg(polder_mutations)]
        mutation: None,
    };
    let bytes_max = BYTES_PER_BYTE * (log.bytes_on_disk() + state.bytes_on_disk()) as usize + BYTES_BESIDE;
    let (opened, peak) = counting::peak_of(|| Replica::open(config, Arc::new(Lists), &log, &state, Start::Memory));
    holds(peak <= bytes_max, || format!("{}: it held {peak} bytes", damage.words))?;
    let (mut replica, mut actions) = match opened {
        Ok(opened) => opened,
        Err(why) => return holds(!why.to_string().is_empty(), || "it is refused without a word".to_owned()),
    };
    // R18: the chain finds every other value of a row of the log.
    let is_hidden = damage.family == Family::Log && damage.is_other_value;
    holds(!is_hidden, || format!("{}, and the replica starts", damage.words))?;
    replica.check();
    for tick in 1..=20 {
        let now = Now { monotonic_ms: 50 * tick, wall: Timestamp(1_700_000_000_000 + 50 * tick) };
        replica.step(now, Event::Tick, &mut actions);
        replica.check();
    }
    Ok(())
}

fn state_rows(random: &mut Random) -> Verdict {
    let (_, _, state) = disks(random)?;
    let families = [Family::Meta, Family::Effects, Family::Images, Family::Certificates];
    let Some(damage) = damage(&state, &families, random)? else { return Ok(()) };
    let samples = samples::get();
    let config = ExecutorConfig { genesis: samples.genesis.clone(), epoch: Epoch::ZERO };
    let genesis = Executor::genesis(Arc::new(Lists), config.clone()).freeze();
    let bytes_max = BYTES_PER_BYTE * state.bytes_on_disk() as usize + BYTES_BESIDE;
    let (recovered, peak) = counting::peak_of(|| recovery::recover(&state, &samples.keyring, &genesis));
    holds(peak <= bytes_max, || format!("{}: it held {peak} bytes", damage.words))?;
    let recovered = match recovered {
        Ok(recovered) => recovered,
        Err(why) => return holds(!why.to_string().is_empty(), || "it is refused without a word".to_owned()),
    };
    let Some(state) = recovered.state else { return Ok(()) };
    // C8: what is recovered is what the certificate says, whatever the rows say; and it can be executed from.
    let (frozen, certified) = (state.frozen(), state.certificate().statement());
    let root = polder_types::merkle_root(&frozen.digests());
    holds(root == certified.root && frozen.seq() == certified.seq, || {
        format!("{}, and another state is recovered", damage.words)
    })?;
    let restored = Executor::restore(Arc::new(Lists), config, frozen);
    restored.map(drop).map_err(|why| format!("{}: a certified state cannot be executed from: {why}", damage.words))
}
