//! Plain runs: every shape of cluster orders, survives its leader, and recovers.

use polder_types::{ReplicaId, Seq};

use crate::world::{World, constants};

pub const SHAPES: [(usize, u8); 6] = [(1, 0), (3, 0), (4, 1), (5, 0), (6, 1), (7, 2)];

fn answered(world: &mut World, ms: u64) {
    let done = world.run_until(ms, World::all_answered);
    let lines: Vec<_> = world.up().map(|replica| world.core(replica).status().to_string()).collect();
    assert!(done, "requests are answered: {lines:#?}");
}

#[test]
fn every_shape_orders_and_moves_its_window() {
    for (n, r) in SHAPES {
        let mut world = World::new(n, r, 1, constants());
        (0..3).for_each(|_| world.add_client(40));
        answered(&mut world, 20_000);
        world.run_for(1_000);
        for replica in world.up().collect::<Vec<_>>() {
            let status = world.core(replica).status();
            assert_eq!(status.view.0, 0, "{n} {r}: no view change in fair weather: {status}");
            assert!(status.low >= Seq(16), "{n} {r}: the window moved: {status}");
            assert_eq!(status.executed, status.low, "r16: the tail was filled to its cut: {status}");
        }
    }
}

#[test]
fn every_shape_survives_its_leader() {
    for (n, r) in SHAPES.into_iter().filter(|(n, _)| *n > 1) {
        let mut world = World::new(n, r, 2, constants());
        (0..3).for_each(|_| world.add_client(30));
        world.run_for(100);
        world.crash(0);
        answered(&mut world, 30_000);
        let views: Vec<_> = world.up().map(|replica| world.core(replica).status().view.0).collect();
        assert!(views.iter().all(|view| *view >= 1), "{n} {r}: {views:?}");
    }
}

#[test]
fn r8_a_restarted_leader_abdicates_and_the_cluster_goes_on() {
    for (n, r) in SHAPES {
        let mut world = World::new(n, r, 3, constants());
        (0..2).for_each(|_| world.add_client(30));
        world.run_for(150);
        world.crash(0);
        world.restart_after(0, 20);
        answered(&mut world, 30_000);
        assert!(world.core(0).status().view.0 >= 1, "{n} {r}");
        assert!(world.run_until(5_000, |world| {
            let executed: Vec<_> = world.up().map(|replica| world.core(replica).status().executed).collect();
            executed.iter().all(|slot| *slot == executed[0])
        }));
    }
}

#[test]
fn all_crash_and_all_come_back() {
    for (n, r) in SHAPES {
        let mut world = World::new(n, r, 4, constants());
        (0..2).for_each(|_| world.add_client(40));
        world.run_for(200);
        for replica in 0..n as u8 {
            world.crash(replica);
            world.restart_after(replica, 50 + u64::from(replica));
        }
        answered(&mut world, 30_000);
    }
}

#[test]
fn r14_who_missed_more_than_peers_keep_gets_the_state() {
    for (n, r) in [(3, 0), (4, 1), (7, 2)] {
        let mut world = World::new(n, r, 5, constants());
        let last = n as u8 - 1;
        for other in 0..last {
            world.weather.cut.extend([(last, other), (other, last)]);
        }
        world.add_client(80);
        answered(&mut world, 20_000);
        world.weather.cut.clear();
        let caught_up =
            world.run_until(5_000, |world| world.core(last).status().executed == world.core(0).status().executed);
        assert!(caught_up, "{}", world.core(last).status());
        assert!(world.nodes[usize::from(last)].delivered < 40, "most of it came as state");
        assert_eq!(world.core(0).status().view.0, 0, "r5: one that is cut off changes no view");
    }
}

#[test]
fn r15_who_missed_a_little_gets_the_batches() {
    for (n, r) in [(3, 0), (4, 1), (7, 2)] {
        let mut world = World::new(n, r, 6, constants());
        let last = n as u8 - 1;
        for other in 0..last {
            world.weather.cut.extend([(last, other), (other, last)]);
        }
        world.add_client(6);
        answered(&mut world, 20_000);
        world.weather.cut.clear();
        let caught_up =
            world.run_until(5_000, |world| world.core(last).status().executed == world.core(0).status().executed);
        assert!(caught_up, "{}", world.core(last).status());
        assert_eq!(world.nodes[usize::from(last)].delivered, world.core(0).status().delivered.0);
    }
}

#[test]
fn a_lone_request_to_a_backup_is_forwarded() {
    let mut world = World::new(4, 1, 7, constants());
    world.run_for(50);
    let key = polder_types::SigningKey::from_seed(&[77; 32]);
    let request = world.request(&key, 1);
    world.submit(ReplicaId(2), request);
    world.run_for(100);
    assert_eq!(world.batches.get(&Seq(1)), Some(&1));
}
