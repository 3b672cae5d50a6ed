//! R27: time comes from the order and never goes back; an outage expires nobody.

use polder_types::{Answer, Constants, Failure, Timestamp};

use crate::script::{Does, Saw, reads};
use crate::world::{World, constants, failed, id, read, saw};

#[test]
fn the_time_of_a_slot_is_the_highest_so_far() {
    let mut world = World::new(constants());
    let session = world.open(1);
    for (number, (ts, time)) in
        [(2_000_000, 2_000_000), (1_500_000, 2_000_000), (0, 2_000_000), (2_000_001, 2_000_001)].into_iter().enumerate()
    {
        world.now = Timestamp(ts);
        let answer = world.run(1, session, number as u64 + 1, &reads(vec![Does::Now]));
        assert_eq!(saw(&answer), [Saw::Time(Timestamp(time))]);
        assert_eq!(world.executor.time(), Timestamp(time));
        assert_eq!(world.executor.freeze().time(), Timestamp(time));
    }
}

#[test]
fn a_session_expires_by_the_session_clock_and_not_by_an_outage() {
    let constants = Constants { session_expiry_ms: 10_000, idle_ms: 1_000, ..constants() };
    let mut world = World::new(constants);
    let used = world.open(1);
    let unused = world.open(2);
    // A year without a slot: the session clock moves by two seconds.
    world.now = world.now.plus(365 * 24 * 3_600_000);
    world.slot([]);
    assert_eq!(world.executor.sessions(), 2);
    for number in 1..=4 {
        world.now = world.now.plus(3_600_000);
        assert!(matches!(world.run(1, used, number, &read("k")), Answer::Done(_)));
    }
    // Ten seconds since its last use: not yet more than that.
    assert_eq!(world.executor.sessions(), 2);
    world.now = world.now.plus(1);
    let executed = world.slot([]);
    assert_eq!(executed.windows, [(id(2), unused, None)]);
    assert_eq!(world.run(2, unused, 1, &read("k")), failed(Failure::NoSession));
    assert!(matches!(world.run(1, used, 5, &read("k")), Answer::Done(_)));
}

#[test]
fn a_session_that_expires_leaves_nothing() {
    let mut world = World::new(Constants { open_fresh_cuts: 1, ..constants() });
    let session = world.open(1);
    world.run(1, session, 1, &read("k"));
    for _ in 0..6 {
        world.now = world.now.plus(3_600_000);
        world.slot([]);
    }
    assert_eq!((world.executor.sessions(), world.session_bytes()), (0, 0));
}

#[test]
fn a_slot_at_which_nothing_happens_has_no_effects() {
    let mut world = World::new(constants());
    world.slot([]);
    let executed = world.slot([]);
    assert!(executed.effects.is_empty());
}
