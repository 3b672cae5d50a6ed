//! Small slips, of which each was planted once and seen by no other test.

use polder_consensus::{Abdicate, Fetch, Input, Message, Output, Phase, StatusMessage, Ticket, Why};
use polder_types::{Epoch, Seq, View};

use super::{decide, empty_status};
use crate::solo::{Solo, batch, vote, voted};
use crate::world::constants;

/// STATUS of view 0 that shows nothing, of another view.
fn status(view: u64) -> Message {
    match empty_status() {
        Message::Status(status) => Message::Status(StatusMessage { view: View(view), ..status }),
        other => other,
    }
}

fn is_new_view(message: &Message) -> bool {
    matches!(message, Message::NewView(..))
}

#[test]
fn r4_who_has_suspected_may_suspect_again_in_the_next_view() {
    let mut solo = Solo::new(4, 1, 2);
    let abdicate = solo.sign(0, Abdicate { epoch: Epoch(0), view: View(0) });
    solo.give(0, Message::Abdicate(abdicate));
    assert!(solo.suspects());
    solo.leave(0);
    assert!(!solo.suspects());
}

#[test]
fn r4_the_certificate_that_is_relayed_is_that_of_the_last_view() {
    let mut solo = Solo::new(4, 1, 2);
    solo.leave(0);
    solo.leave(1);
    solo.sent.clear();
    solo.give(3, status(0));
    let ends = |message: &Message| matches!(message, Message::Suspects(proof) if proof.statement.view == View(1));
    assert!(solo.has_sent(ends));
}

#[test]
fn r6_only_the_leaders_own_abdication_is_a_reason_to_suspect() {
    for (by, is_reason) in [(3, false), (0, true)] {
        let mut solo = Solo::new(4, 1, 2);
        let abdicate = solo.sign(by, Abdicate { epoch: Epoch(0), view: View(0) });
        solo.give(by, Message::Abdicate(abdicate));
        assert_eq!(solo.suspects(), is_reason, "r{by}");
    }
}

#[test]
fn r6_a_second_new_view_is_proof_of_the_leaders_fault() {
    let mut solo = Solo::new(4, 1, 2);
    solo.give(1, solo.empty_new_view(1));
    assert!(!solo.suspects());
    let other = solo.new_view(1, (1..4).map(|by| solo.change(by, 1, None, Vec::new())).collect());
    solo.give(1, other);
    assert!(solo.suspects());
}

#[test]
fn r7_moving_over_several_views_doubles_the_time_out_as_often_and_a_new_view_lasts_from_its_start() {
    let first_ms = constants().timeout_first_ms;
    let constants = polder_types::Constants { timeout_max_ms: 64 * first_ms, ..constants() };
    let mut solo = Solo::with(4, 1, 2, constants, None);
    solo.wait(60 * first_ms);
    solo.leave(2);
    assert_eq!(solo.core.status().timeout_ms, 8 * first_ms);
    solo.wait(10 * first_ms);
    assert_eq!(solo.core.status().timeout_ms, 8 * first_ms, "64·T of this view have not passed");
}

#[test]
fn r8_a_record_of_an_earlier_view_does_not_let_the_leader_of_a_later_one_speak() {
    let mut solo = Solo::new(4, 1, 2);
    solo.syncs = false;
    solo.leave(0);
    solo.leave(1);
    for by in [0, 1, 3] {
        let (signed, body) = solo.change(by, 2, None, Vec::new());
        solo.give(by, Message::ViewChange(signed, body));
    }
    solo.step(Input::Synced(Ticket::Entered(View(1))));
    assert!(!solo.has_sent(is_new_view));
    solo.step(Input::Synced(Ticket::Entered(View(2))));
    assert!(solo.has_sent(is_new_view));
}

#[test]
fn r8_a_view_change_that_is_not_durable_is_not_sent_again_either() {
    let mut solo = Solo::new(4, 1, 2);
    solo.syncs = false;
    solo.leave(0);
    solo.give(1, status(1));
    let is_change = |message: &Message| matches!(message, Message::ViewChange(..));
    assert!(!solo.has_sent(is_change));
    solo.step(Input::Synced(Ticket::Entered(View(1))));
    solo.wait(constants().status_period_ms);
    solo.give(1, status(1));
    assert!(solo.has_sent(is_change));
}

#[test]
fn r9_fresh_slots_come_after_a_cut_that_no_view_change_knew_of() {
    let mut solo = Solo::new(4, 1, 1);
    solo.leave(0);
    let cut = constants().interval_slots;
    let certificate = solo.stable(cut, &(1..=cut).map(batch).collect::<Vec<_>>());
    solo.step(Input::Stable(certificate));
    for by in [0, 2, 3] {
        let (signed, body) = solo.change(by, 1, None, Vec::new());
        solo.give(by, Message::ViewChange(signed, body));
    }
    assert!(solo.has_sent(is_new_view));
    let request = solo.request(50, 1).verify(solo.keyring.cluster()).unwrap();
    solo.step(Input::Request { request, window: super::WINDOW });
    let is_next = |message: &Message| matches!(message, Message::Proposal(p, _) if p.statement.slot == Seq(cut + 1));
    assert!(solo.has_sent(is_next));
}

#[test]
fn r9_a_new_view_that_contradicts_a_decision_stops_the_replica() {
    let mut solo = Solo::new(4, 1, 2);
    let proof = solo.proof(&[0, 1, 3], &vote(Phase::Commit, 0, 1, &batch(1)));
    solo.give(3, Message::Committed(proof, batch(1)));
    let entry = vec![solo.entry(0, 1, &batch(2))];
    let enclosed = [0, 1, 3].map(|by| solo.change(by, 1, None, entry.clone()));
    solo.give(1, solo.new_view(1, enclosed.into()));
    assert!(solo.others.iter().any(|output| matches!(output, Output::Halt(Why::TwoDecisions { .. }))));
}

#[test]
fn r14_a_cut_that_a_new_view_brings_moves_the_window() {
    let mut solo = Solo::new(4, 1, 2);
    solo.leave(0);
    let cut = constants().interval_slots;
    let stable = solo.stable(cut, &(1..=cut).map(batch).collect::<Vec<_>>());
    let ahead = Some(stable.proof().clone());
    let enclosed = [(0, None), (1, ahead), (3, None)].map(|(by, stable)| solo.change(by, 1, stable, Vec::new()));
    solo.give(1, solo.new_view(1, enclosed.into()));
    assert_eq!(solo.core.status().low, Seq(cut));
}

#[test]
fn r14_r15_who_shows_a_lower_cut_or_asks_for_the_slot_of_the_cut_gets_its_certificate() {
    let cut = constants().interval_slots;
    let is_stable = |message: &Message| matches!(message, Message::Stable(proof) if proof.statement.seq == Seq(cut));
    for asks in [status(0), Message::Fetch(Fetch::Committed(Seq(cut)))] {
        let mut solo = Solo::new(4, 1, 1);
        let certificate = solo.stable(cut, &(1..=cut).map(batch).collect::<Vec<_>>());
        solo.step(Input::Stable(certificate));
        solo.sent.clear();
        solo.give(3, asks);
        assert!(solo.has_sent(is_stable));
    }
}

#[test]
fn r15_what_is_decided_is_sent_to_who_lacks_it() {
    let mut solo = Solo::new(4, 1, 1);
    decide(&mut solo, 1, &batch(1));
    solo.sent.clear();
    for _ in 0..6 {
        solo.wait(constants().status_period_ms);
        solo.give(3, status(0));
    }
    assert!(solo.has_sent(|message| matches!(message, Message::Committed(..))));
}

#[test]
fn r15_the_own_commit_is_sent_again_after_a_restart() {
    let mut solo = Solo::new(4, 1, 1);
    let bytes = batch(1);
    solo.give(0, solo.propose(0, 1, &bytes));
    [0, 2].into_iter().for_each(|by| solo.give(by, solo.vote(by, Phase::Prepare, 0, 1, &bytes)));
    let log = polder_consensus::RecoveredLog { records: solo.log.clone(), base: None };
    let mut solo = Solo::with(4, 1, 1, constants(), Some(log));
    solo.give(3, status(0));
    assert!(solo.has_sent(voted(Phase::Prepare, 1)) && solo.has_sent(voted(Phase::Commit, 1)));
}

#[test]
fn r42_a_body_that_was_not_asked_for_is_not_kept() {
    let mut solo = Solo::new(4, 1, 1);
    solo.give(3, Message::Body(batch(1)));
    assert_eq!(solo.core.held_bytes().0, 0);
}
