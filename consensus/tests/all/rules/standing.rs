//! While nothing happens, or seems to: the session clock, what is settled, and whether a replica takes part.

use polder_consensus::{Fetch, Input, Message, Phase, StatusMessage};
use polder_types::{ReplicaId, Seq, View};

use super::{WINDOW, decide, empty_status};
use crate::solo::{Solo, batch, voted};

/// `T_idle` and `T` of these tests are 200 ms.
const CLOCK: u64 = 2 * 200;

/// Lets time pass in which the leader says something, but proposes nothing.
fn wait_for_nothing(solo: &mut Solo, ms: u64) {
    for _ in 0..ms / 50 {
        solo.wait(50);
        solo.give(0, Message::Fetch(Fetch::Committed(Seq(9))));
    }
}

fn proposals(solo: &Solo) -> usize {
    solo.sent.iter().filter(|message| matches!(message, Message::Proposal(..))).count()
}

#[test]
fn r24_a_leader_proposes_an_empty_batch_when_the_session_clock_must_run() {
    let mut solo = Solo::new(4, 1, 0);
    solo.wait(2 * CLOCK);
    assert_eq!(proposals(&solo), 0, "an idle cluster orders nothing");
    solo.step(Input::SessionClock { must_run: true });
    solo.wait(CLOCK - 10);
    assert_eq!(proposals(&solo), 0);
    solo.wait(10);
    assert_eq!(proposals(&solo), 1, "one every 2 T_idle");
    solo.wait(100);
    assert_eq!(proposals(&solo), 1, "one slot is enough");
}

#[test]
fn r24_every_slot_moves_the_session_clock() {
    let mut solo = Solo::new(4, 1, 1);
    solo.step(Input::SessionClock { must_run: true });
    for slot in 1..=3 {
        wait_for_nothing(&mut solo, CLOCK + 150);
        decide(&mut solo, slot, &batch(slot * CLOCK * 2));
        assert!(!solo.suspects());
    }
    solo.step(Input::SessionClock { must_run: false });
    wait_for_nothing(&mut solo, 2 * CLOCK);
    assert!(!solo.suspects(), "the table is below half again");
}

#[test]
fn r24_an_empty_batch_that_is_due_and_missing_is_a_reason_to_suspect() {
    let mut solo = Solo::new(4, 1, 1);
    solo.step(Input::SessionClock { must_run: true });
    wait_for_nothing(&mut solo, CLOCK + 150);
    assert!(!solo.suspects());
    wait_for_nothing(&mut solo, 100);
    assert!(solo.suspects());
}

#[test]
fn r24_the_session_clock_starts_afresh_with_the_view() {
    let mut solo = Solo::new(4, 1, 2);
    solo.step(Input::SessionClock { must_run: true });
    solo.wait(CLOCK + 100);
    solo.leave(0);
    solo.give(1, solo.empty_new_view(1));
    // T doubled with the view.
    solo.wait(CLOCK + 380);
    assert!(!solo.suspects());
    solo.wait(30);
    assert!(solo.suspects());
}

#[test]
fn r24_who_has_not_executed_what_is_decided_expects_nothing() {
    let mut solo = Solo::new(4, 1, 1);
    solo.step(Input::SessionClock { must_run: true });
    solo.executes = false;
    decide(&mut solo, 1, &batch(1));
    wait_for_nothing(&mut solo, 4 * CLOCK);
    assert!(!solo.suspects(), "what it knows of the sessions is old");
}

#[test]
fn r24_a_leader_that_fetches_the_state_proposes_what_the_others_may_expect() {
    let mut solo = Solo::new(4, 1, 0);
    solo.executes = false;
    let batches: Vec<_> = (1..=16).map(batch).collect();
    solo.step(Input::Stable(solo.stable(16, &batches)));
    assert_eq!(proposals(&solo), 0);
    solo.wait(CLOCK);
    assert_eq!(proposals(&solo), 1, "it cannot know how many sessions are open");
    solo.wait(4 * CLOCK);
    assert!(proposals(&solo) == 1 && !solo.suspects(), "it expects nothing itself");
}

#[test]
fn r6_what_the_executor_has_answered_arms_and_is_forwarded_no_more() {
    let mut solo = Solo::new(4, 1, 1);
    let request = solo.request(50, 1).verify(solo.keyring.cluster()).unwrap();
    solo.step(Input::Request { request: request.clone(), window: WINDOW });
    solo.step(Input::Settled { request: request.digest() });
    assert_eq!(solo.core.status().waiting, 0);
    solo.sent.clear();
    wait_for_nothing(&mut solo, 1_000);
    assert!(!solo.suspects() && !solo.has_sent(|message| matches!(message, Message::Request(_))));
}

pub fn status(view: u64, committed: u64) -> Message {
    let Message::Status(status) = empty_status() else { unreachable!("it is a STATUS") };
    Message::Status(StatusMessage { view: View(view), committed: Seq(committed), ..status })
}

#[test]
fn who_was_merely_heard_makes_no_quorum() {
    let mut solo = Solo::new(4, 1, 1);
    let took_part = |solo: &Solo| solo.core.status().took_part_ms_ago;
    assert_eq!(took_part(&solo), None);
    solo.give(0, Message::Fetch(Fetch::Committed(Seq(9))));
    solo.give(2, status(0, 5));
    solo.give(3, status(0, 0));
    assert_eq!(took_part(&solo), None, "two of four are at this slot");
    solo.wait(100);
    solo.give(2, status(0, 0));
    solo.wait(50);
    assert_eq!(took_part(&solo), Some(150), "since the older of the two");
    let request = solo.request(50, 1).verify(solo.keyring.cluster()).unwrap();
    solo.step(Input::Request { request, window: WINDOW });
    assert_eq!(took_part(&solo), Some(150), "what has just come does not undo it");
    solo.wait(50);
    solo.give(2, status(0, 0));
    solo.give(3, status(0, 0));
    assert_eq!(took_part(&solo), Some(200), "something waits, so a slot must be decided");
}

#[test]
fn who_decides_slots_takes_part_unless_far_behind() {
    let mut solo = Solo::new(4, 1, 1);
    decide(&mut solo, 1, &batch(1));
    solo.wait(70);
    assert_eq!(solo.core.status().took_part_ms_ago, Some(70));
    // A slot is missing: what is decided above it changes nothing.
    decide(&mut solo, 3, &batch(3));
    assert_eq!(solo.core.status().took_part_ms_ago, Some(70));
    for by in [0, 2] {
        solo.give(by, status(0, 12));
    }
    let before = solo.core.status();
    assert_eq!((before.behind_slots, before.committed), (11, Seq(1)));
    for phase in [Phase::Prepare, Phase::Commit] {
        for by in [0, 2, 3] {
            solo.offer(by, solo.vote(by, phase, 0, 2, &batch(2)));
        }
    }
    solo.give(0, Message::Body(batch(2)));
    let status = solo.core.status();
    assert_eq!((status.committed, status.behind_slots), (Seq(3), 9));
    assert_eq!(status.took_part_ms_ago, Some(70), "more than F behind: it cannot accept what is ordered now");
    assert!(solo.has_sent(voted(Phase::Commit, 2)) && solo.core.status().me == ReplicaId(1));
}

/// R15: ready iff *within the last 2 s* nothing waited and `q` showed one view and slot.
#[test]
fn r15_a_request_that_has_just_come_does_not_undo_that_the_replica_took_part_a_moment_ago() {
    let mut solo = Solo::new(4, 1, 1);
    decide(&mut solo, 1, &batch(1));
    for _ in 0..100 {
        solo.wait(100);
        solo.give(2, status(0, 1));
        solo.give(3, status(0, 1));
        assert!(solo.core.status().took_part_ms_ago.is_some_and(|ago| ago <= 2_000));
    }
    let request = solo.request(50, 1).verify(solo.keyring.cluster()).unwrap();
    solo.step(Input::Request { request, window: WINDOW });
    let ago = solo.core.status().took_part_ms_ago;
    assert_eq!(ago, Some(0));
}
