//! Splits that are made on purpose: any fixed `u` replicas, sending and hearing anything, cost a quorum that is connected
//! and has a correct leader no view (R5).

use polder_sim_tests::hazards::Hazards;
use polder_sim_tests::swarm::{FaultOptions, Options};
use polder_sim_tests::world::World;
use polder_types::{FaultModel, ReplicaId, View};

/// How long a split lasts, in microseconds: many time-outs.
const SPLIT_US: u64 = 20_000_000;

/// A cluster in which nothing fails by itself.
fn calm(seed: u64, replicas: usize, fault_model: FaultModel) -> Options {
    let mut options = Options::draw(seed, None);
    (options.replicas, options.fault_model, options.liars) = (replicas, fault_model, 0);
    options.hazards = Hazards::default();
    options.faults = FaultOptions { crash_gap_ms: 0, ..options.faults };
    options.faults.skew_ms_max = 0;
    options.network.delay_us_mean = options.network.delay_us_mean.min(3_000);
    options.network.loss_per_mille = 0;
    options.network.slow_per_mille = 0;
    options.disk.sync_us_mean = 500;
    options.disk.stall_per_mille = 0;
    options.disk.digest_us_max = 5_000;
    options.constants.timeout_first_ms = 400;
    options.constants.timeout_max_ms = 1_600;
    options.load.is_endless = false;
    options.load.mischief_gap_ms = 0;
    options.load.think_ms = 40;
    options
}

/// Runs through a split, and says which of these replicas have left view 0 or suspect its leader.
fn disturbed(world: &mut World, watched: &[u8]) -> Result<Vec<String>, String> {
    let until_us = world.now_us() + SPLIT_US;
    while world.now_us() < until_us {
        world.advance(world.now_us() + 50_000).map_err(|violation| violation.to_string())?;
        let hosts = watched.iter().filter_map(|id| world.hosts.get(usize::from(*id)));
        let statuses = hosts.filter_map(|host| host.replica.as_ref()).map(|replica| replica.status());
        let disturbed = statuses.filter(|status| status.core.view != View::ZERO || status.core.suspects);
        let disturbed: Vec<String> = disturbed.map(|status| format!("{} us: {status}", world.now_us())).collect();
        if !disturbed.is_empty() {
            return Ok(disturbed);
        }
    }
    Ok(Vec::new())
}

/// r3 and r4 have lost the leader, r0, and nobody else: both suspect it, each for ever, and r1 and r2 hear of it.
fn split_of_five(mut world: World) -> Result<World, String> {
    world.begin();
    world.advance(300_000).map_err(|violation| violation.to_string())?;
    for lost in [3, 4] {
        world.cut(ReplicaId(0), ReplicaId(lost));
    }
    Ok(world)
}

fn five(seed: u64) -> Result<World, String> {
    World::new(calm(seed, 5, FaultModel::Crash)).map_err(|why| why.to_string())
}

#[test]
fn r5_two_of_five_that_have_lost_the_leader_change_no_view() -> Result<(), String> {
    for seed in 0..6 {
        let mut world = split_of_five(five(seed)?)?;
        assert_eq!(disturbed(&mut world, &[0, 1, 2])?, Vec::<String>::new(), "seed {seed}");
        let done = world.clients.iter().filter(|client| client.is_done()).count();
        assert_eq!(done, world.clients.len(), "seed {seed}: everything is answered");
        // What they cannot hear from the leader comes from the others (R15).
        let status = |host: &polder_sim_tests::world::Host| host.replica.as_ref().map(|replica| replica.status());
        let executed: Vec<_> = world.hosts.iter().filter_map(status).map(|status| status.executed).collect();
        assert!(executed.iter().all(|slot| Some(slot) == executed.iter().max()), "seed {seed}: {executed:?}");
        assert!(world.hosts.iter().filter_map(status).any(|status| status.core.suspects), "the split is felt");
    }
    Ok(())
}

#[test]
fn r5_any_u_that_hear_and_are_heard_by_anybody_change_no_view() -> Result<(), String> {
    let clusters = [
        (3, FaultModel::Crash),
        (4, FaultModel::Byzantine),
        (5, FaultModel::Crash),
        (6, FaultModel::Hybrid { byzantine: 1 }),
        (7, FaultModel::Byzantine),
        (13, FaultModel::Byzantine),
    ];
    for (replicas, fault_model) in clusters {
        for seed in 0..2 {
            let mut world = World::new(calm(seed, replicas, fault_model)).map_err(|why| why.to_string())?;
            world.begin();
            world.advance(300_000).map_err(|violation| violation.to_string())?;
            let well = world.stray_last();
            assert_eq!(disturbed(&mut world, &well)?, Vec::<String>::new(), "n={replicas} seed {seed}");
            assert!(world.clients.iter().all(|client| client.is_done()), "n={replicas} seed {seed}");
        }
    }
    Ok(())
}

/// Proof that this test can fail: one that joins others' suspicion too early turns the split into view changes.
#[cfg(polder_mutations)]
#[test]
fn r5_a_replica_that_joins_at_r_plus_1_is_caught_by_the_split_of_five() -> Result<(), String> {
    let mut world = five(0)?;
    world.mutation = Some(polder_consensus::Mutation::JoinAtWeak);
    let mut world = split_of_five(world)?;
    assert_ne!(disturbed(&mut world, &[0, 1, 2])?, Vec::<String>::new());
    Ok(())
}
