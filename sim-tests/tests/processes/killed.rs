//! Replicas that are killed, terminated and paused, under load.

use std::time::{Duration, Instant};

use polder_sim_tests::random::{Purpose, Random};

use crate::cluster::{Cluster, REPLICAS, pause};
use crate::load::Load;
use crate::{chaos, seed};

/// A paused replica misses every time-out, and has all that it missed before it when it goes on.
#[test]
fn a_leader_that_is_paused_for_fifteen_seconds_is_replaced_and_comes_back() {
    let cluster = Cluster::with_short_intervals("paused");
    let load = Load::start(&cluster, 3);
    load.wait_for_answers(100);
    let leader = cluster.leader();
    cluster.signal(leader, "STOP");
    let paused = Instant::now();
    load.wait_for_answers(200);
    pause(Duration::from_secs(15).saturating_sub(paused.elapsed()));
    cluster.signal(leader, "CONT");
    cluster.wait_for_replica(leader);
    load.wait_for_answers(100);
    load.finish(&cluster);
}

/// Whatever a crash leaves of a first start, the next one makes do with.
#[test]
fn r18_first_starts_that_are_killed_are_begun_again() {
    let mut cluster = Cluster::prepare("first-start", &[]);
    let mut random = Random::new(seed(), Purpose::Faults);
    for _ in 0..10 {
        for replica in 0..REPLICAS {
            cluster.restart(replica);
            pause(Duration::from_millis(random.range(0, 60)));
        }
        (0..REPLICAS).for_each(|replica| cluster.kill(replica));
    }
    let cluster = cluster.started();
    cluster.wait("a cluster that is well", |status| status.iter().all(|row| row["ready"] == true));
    cluster.assert_sane();
}

/// Faults drawn from a seed, one replica at a time so that the load must go on, and now and then more than the cluster
/// tolerates: then it may stand still, and must be well again once they are back.
#[test]
fn replicas_are_killed_terminated_and_paused_at_random() {
    let mut cluster = Cluster::with_short_intervals("chaos");
    let seed = seed();
    let mut random = Random::new(seed, Purpose::Faults);
    let load = Load::start(&cluster, seed);
    let (start, duration) = (Instant::now(), chaos(8));
    let mut rounds = 0;
    while rounds < 3 || start.elapsed() < duration {
        let victims = draw(&mut random);
        let fault = ["kill", "kill", "kill", "terminate", "pause"][random.below(5)];
        let [before, between] = [0, 0].map(|_| Duration::from_millis(random.range(0, 300)));
        eprintln!("round {rounds} of seed {seed}: {fault} {victims:?} after {before:?} for {between:?}");
        pause(before);
        match fault {
            "kill" => victims.iter().for_each(|victim| cluster.kill(*victim)),
            "terminate" => victims.iter().for_each(|victim| cluster.stop(*victim)),
            _ => victims.iter().for_each(|victim| cluster.signal(*victim, "STOP")),
        }
        if victims.len() == 1 {
            load.wait_for_answers(20);
        }
        pause(between);
        match fault {
            "pause" => victims.iter().for_each(|victim| cluster.signal(*victim, "CONT")),
            _ => victims.iter().for_each(|victim| cluster.restart(*victim)),
        }
        // Half of the time those that come back are killed once more, somewhere in their recovery.
        if fault != "pause" && random.chance(500) {
            pause(Duration::from_millis(random.range(0, 600)));
            for victim in &victims {
                cluster.kill(*victim);
                cluster.restart(*victim);
            }
        }
        cluster.wait("a cluster that is well", |status| status.iter().all(|row| row["ready"] == true));
        rounds += 1;
    }
    let answered = load.finish(&cluster);
    eprintln!("{rounds} rounds, {answered} commands answered");
}

/// One replica, mostly; sometimes two, or all.
fn draw(random: &mut Random) -> Vec<usize> {
    let first = random.below(REPLICAS);
    match random.range(0, 9) {
        0 => (0..REPLICAS).collect(),
        1 => vec![first, (first + 1 + random.below(REPLICAS - 1)) % REPLICAS],
        _ => vec![first],
    }
}
