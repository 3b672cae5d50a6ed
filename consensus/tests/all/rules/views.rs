//! Leaving a view and entering the next.

use polder_consensus::{
    Evidence, Fetch, Input, Message, Output, Phase, Record, RecoveredLog, SessionWindow, Ticket, Why,
};
use polder_types::{Batch, Epoch, Position, ReplicaId, Seq, SessionId, View};

use super::{WINDOW, decide, empty_status, forged_batch, is_suspect};
use crate::solo::{Solo, batch, voted};
use crate::world::{constants, session};

#[test]
fn r4_joins_at_u_plus_1_moves_at_q_and_votes_on_meanwhile() {
    // n = 7, r = 2: u = 2, q = 5.
    let mut solo = Solo::new(7, 2, 1);
    for by in [2, 3] {
        solo.give(by, solo.suspect(by, 0));
    }
    assert!(!solo.suspects(), "u are not enough to join");
    solo.give(4, solo.suspect(4, 0));
    assert!(solo.suspects() && solo.has_sent(is_suspect));
    assert_eq!(solo.core.status().view, View(0), "three and the own are no quorum");
    let bytes = batch(1);
    solo.give(0, solo.propose(0, 1, &bytes));
    assert!(solo.has_sent(voted(Phase::Prepare, 1)), "who suspects goes on voting");
    solo.give(4, solo.suspect(4, 0));
    assert_eq!(solo.core.status().view, View(0), "nobody is counted twice");
    solo.give(5, solo.suspect(5, 0));
    assert_eq!(solo.core.status().view, View(1));
    assert!(solo.has_sent(|message| matches!(message, Message::Suspects(_))), "the certificate is relayed");
    assert!(solo.has_sent(|message| matches!(message, Message::ViewChange(..))));
}

#[test]
fn r4_r_plus_1_are_not_enough_to_join() {
    // n = 6, r = 1: u = 2, q = 4.
    let mut solo = Solo::new(6, 1, 1);
    for by in [2, 3] {
        solo.give(by, solo.suspect(by, 0));
    }
    assert!(!solo.suspects());
    solo.give(4, solo.suspect(4, 0));
    assert_eq!(solo.core.status().view, View(1));
}

#[test]
fn r4_a_suspect_that_status_shows_missing_is_sent_again() {
    let mut solo = Solo::new(4, 1, 1);
    solo.wait(900);
    assert!(solo.suspects());
    solo.sent.clear();
    solo.give(2, empty_status());
    assert!(solo.has_sent(is_suspect));
}

#[test]
fn r4_after_a_restart_the_certificate_is_still_held_and_relayed() {
    let mut solo = Solo::new(4, 1, 2);
    solo.leave(0);
    let log = RecoveredLog { records: solo.log.clone(), base: None };
    let mut again = Solo::with(4, 1, 2, constants(), Some(log));
    assert_eq!(again.core.status().view, View(1));
    again.give(3, empty_status());
    assert!(again.has_sent(|message| matches!(message, Message::Suspects(_))));
}

#[test]
fn r4_a_certificate_is_valid_for_ever_and_skips_views() {
    let mut solo = Solo::new(4, 1, 1);
    solo.leave(6);
    assert_eq!(solo.core.status().view, View(7));
    solo.leave(3);
    assert_eq!(solo.core.status().view, View(7), "never back");
}

#[test]
fn r6_a_request_that_is_not_decided_in_time() {
    let mut solo = Solo::new(4, 1, 1);
    let request = solo.request(50, 1).verify(solo.keyring.cluster()).unwrap();
    solo.step(Input::Request { request, window: WINDOW });
    assert!(solo.has_sent(|message| matches!(message, Message::Request(_))), "a backup forwards it");
    // Batches without it, from a leader that starves it.
    for slot in 1..=3 {
        solo.wait(50);
        decide(&mut solo, slot, &batch(slot * 50));
        assert!(!solo.suspects());
    }
    solo.wait(80);
    assert!(solo.suspects(), "no progress restarts a deadline");
}

#[test]
fn r6_a_request_that_cannot_execute_arms_nothing() {
    let mut solo = Solo::new(4, 1, 1);
    let early = solo.request_in(50, session(), 5_000, 0).verify(solo.keyring.cluster()).unwrap();
    let to_come = SessionId(Position { slot: Seq(1), index: 0 });
    let unopened = solo.request_in(51, to_come, 1, 0).verify(solo.keyring.cluster()).unwrap();
    solo.step(Input::Request { request: early, window: WINDOW });
    solo.step(Input::Request { request: unopened, window: Some(SessionWindow { ack: 0, high: 0 }) });
    for _ in 0..30 {
        solo.wait(100);
        solo.give(0, Message::Fetch(Fetch::Committed(Seq(9))));
    }
    assert!(!solo.suspects());
    assert_eq!(solo.core.status().waiting, 1, "the one whose session may be opened by a slot that is still to come");
}

#[test]
fn r6_nothing_at_all_from_the_leader_for_4t() {
    let mut solo = Solo::new(4, 1, 1);
    solo.wait(790);
    assert!(!solo.suspects());
    solo.wait(20);
    assert!(solo.suspects());
}

#[test]
fn r6_a_new_view_that_is_missing_for_t() {
    let mut solo = Solo::new(4, 1, 2);
    solo.leave(0);
    // T doubled with the view.
    solo.wait(390);
    assert!(!solo.suspects());
    solo.wait(20);
    assert!(solo.suspects());
}

#[test]
fn r6_every_deadline_starts_afresh_with_the_view() {
    let mut solo = Solo::new(4, 1, 2);
    solo.leave(0);
    solo.wait(350);
    solo.give(1, solo.empty_new_view(1));
    solo.wait(350);
    assert!(!solo.suspects());
}

#[test]
fn r6_while_it_lags_requests_do_not_count() {
    let mut solo = Solo::new(4, 1, 1);
    let request = solo.request(50, 1).verify(solo.keyring.cluster()).unwrap();
    solo.step(Input::Request { request: request.clone(), window: WINDOW });
    let stable = solo.stable(8, &(1..=8).map(batch).collect::<Vec<_>>());
    solo.step(Input::Stable(stable.clone()));
    assert!(solo.core.status().lagging);
    for _ in 0..10 {
        solo.wait(100);
        solo.give(0, Message::Fetch(Fetch::Committed(Seq(9))));
    }
    assert!(!solo.suspects());
    solo.step(Input::Restored { certificate: stable });
    solo.step(Input::Request { request, window: WINDOW });
    solo.wait(250);
    assert!(solo.suspects());
}

#[test]
fn r6_a_gap_in_the_window_is_no_lag() {
    let mut solo = Solo::new(4, 1, 1);
    let request = solo.request(50, 1).verify(solo.keyring.cluster()).unwrap();
    solo.step(Input::Request { request, window: WINDOW });
    solo.give(0, solo.propose(0, 3, &batch(3)));
    solo.wait(250);
    assert!(solo.suspects());
}

#[test]
fn r7_the_time_out_is_bounded_whatever_the_view() {
    let mut solo = Solo::new(4, 1, 2);
    (0..12).for_each(|view| solo.leave(view));
    assert_eq!(solo.core.status().timeout_ms, constants().timeout_max_ms);
}

#[test]
fn r8_nothing_is_voted_in_a_view_that_was_left() {
    for (n, r) in [(4, 1), (3, 0)] {
        let mut solo = Solo::new(n, r, 1);
        let bytes = batch(1);
        if r > 0 {
            solo.give(0, solo.propose(0, 1, &bytes));
        }
        solo.leave(0);
        solo.sent.clear();
        solo.give(0, solo.propose(0, 1, &bytes));
        for by in [0, 1, 2] {
            solo.give(by, solo.vote(by, Phase::Prepare, 0, 1, &bytes));
        }
        assert!(!solo.has_sent(|message| matches!(message, Message::Vote(_))), "{n} {r}");
    }
}

#[test]
fn r8_a_leader_says_nothing_before_its_view_is_durable() {
    let mut solo = Solo::with(4, 1, 0, constants(), None);
    assert!(matches!(solo.log[0], Record::Entered { .. }), "view 0 included");
    let mut unsynced = Solo::new(4, 1, 1);
    unsynced.syncs = false;
    unsynced.leave(0);
    for by in [0, 2, 3] {
        let (signed, body) = unsynced.change(by, 1, None, Vec::new());
        unsynced.give(by, Message::ViewChange(signed, body));
    }
    let is_new_view = |message: &Message| matches!(message, Message::NewView(..));
    assert!(!unsynced.has_sent(is_new_view));
    unsynced.step(Input::Synced(Ticket::Entered(View(1))));
    assert!(unsynced.has_sent(is_new_view));
    let request = solo.request(50, 1).verify(solo.keyring.cluster()).unwrap();
    solo.step(Input::Request { request, window: WINDOW });
    assert!(solo.has_sent(|message| matches!(message, Message::Proposal(..))));
}

#[test]
fn r8_a_restarted_leader_abdicates_and_votes_as_before() {
    let mut solo = Solo::new(4, 1, 0);
    let request = solo.request(50, 1).verify(solo.keyring.cluster()).unwrap();
    solo.step(Input::Request { request: request.clone(), window: WINDOW });
    let log = RecoveredLog { records: solo.log.clone(), base: None };
    let mut again = Solo::with(4, 1, 0, constants(), Some(log));
    again.step(Input::Request { request, window: WINDOW });
    again.wait(100);
    assert!(again.has_sent(|message| matches!(message, Message::Abdicate(_))));
    assert!(!again.has_sent(|message| matches!(message, Message::Proposal(..))), "it proposes nothing in that view");
    // Its vote is what it was, and is sent to whom it is missing.
    let before = solo.sent.iter().find(|message| voted(Phase::Prepare, 1)(message)).cloned();
    again.give(2, empty_status());
    assert!(before.is_some() && again.sent.contains(&before.unwrap()));
}

#[test]
fn r9_a_backup_computes_the_start_itself_and_pulls_what_it_lacks_before_it_votes() {
    for (n, r, phase) in [(4, 1, Phase::Prepare), (3, 0, Phase::Commit)] {
        let mut solo = Solo::new(n, r, 2);
        solo.leave(2);
        let bytes = batch(1);
        let entries = vec![solo.entry(1, 2, &bytes)];
        let q = solo.keyring.quorum().quorum() as u8;
        let enclosed = (0..q).map(|by| solo.change(by, 3, None, if by == 1 { entries.clone() } else { Vec::new() }));
        let new_view = solo.new_view(3, enclosed.collect());
        solo.give(3 % n as u8, new_view);
        assert!(solo.has_sent(voted(phase, 1)), "a hole is a no-op, whose body everybody has");
        assert!(!solo.has_sent(voted(phase, 2)));
        let asks = |message: &Message| *message == Message::Fetch(Fetch::Body(Batch::digest(&bytes)));
        assert!(solo.has_sent(asks));
        solo.give(1, Message::Body(bytes.clone()));
        assert!(solo.has_sent(voted(phase, 2)));
        // Fresh slots come after the last entry.
        solo.sent.clear();
        solo.give(3 % n as u8, solo.propose(3, 2, &batch(7)));
        solo.give(3 % n as u8, solo.propose(3, 3, &batch(8)));
        assert!(solo.has_sent(voted(phase, 3)) && !solo.has_sent(voted(phase, 2)));
    }
}

#[test]
fn r9_the_highest_view_wins_over_the_most_common() {
    let mut solo = Solo::new(4, 1, 2);
    let [common, highest] = [batch(1), batch(2)];
    // What it has prepared itself counts for nothing more.
    solo.give(0, solo.propose(0, 1, &common));
    [0, 1].into_iter().for_each(|by| solo.give(by, solo.vote(by, Phase::Prepare, 0, 1, &common)));
    solo.leave(2);
    let (of_0, of_1) = (vec![solo.entry(0, 1, &common)], vec![solo.entry(1, 1, &highest)]);
    let entries = [of_0.clone(), of_1, of_0];
    let enclosed = (0..).zip(entries).map(|(by, entries)| solo.change(by, 3, None, entries)).collect();
    solo.give(3, solo.new_view(3, enclosed));
    [common, highest.clone()].into_iter().for_each(|bytes| solo.give(1, Message::Body(bytes)));
    let digest = Batch::digest(&highest);
    assert!(solo.has_sent(|message| matches!(message, Message::Vote(vote) if vote.statement.digest == digest)));
}

#[test]
fn r9_a_new_view_is_judged_by_what_it_encloses_not_by_what_is_held() {
    let mut solo = Solo::new(4, 1, 2);
    solo.leave(0);
    let bytes = batch(1);
    let (signed, body) = solo.change(3, 1, None, vec![solo.entry(0, 1, &bytes)]);
    solo.offer(3, Message::ViewChange(signed, body));
    solo.give(1, solo.new_view(1, [0, 1, 3].map(|by| solo.change(by, 1, None, Vec::new())).into()));
    assert!(solo.core.status().entered);
}

#[test]
fn r9_the_leader_leaves_out_what_names_a_body_it_cannot_get() {
    let mut solo = Solo::new(4, 1, 1);
    solo.leave(0);
    let bytes = batch(1);
    let entries = vec![solo.entry(0, 1, &bytes)];
    let is_new_view = |message: &Message| matches!(message, Message::NewView(..));
    for by in [0, 2] {
        let listed = if by == 0 { entries.clone() } else { Vec::new() };
        let (signed, body) = solo.change(by, 1, None, listed);
        solo.give(by, Message::ViewChange(signed, body));
    }
    assert!(!solo.has_sent(is_new_view), "with it there is a quorum, but its body is missing");
    assert!(solo.has_sent(|message| matches!(message, Message::Fetch(Fetch::Body(_)))));
    let (signed, body) = solo.change(3, 1, None, Vec::new());
    solo.give(3, Message::ViewChange(signed, body));
    let enclosed = solo.sent.iter().find_map(|message| match message {
        Message::NewView(_, enclosed) => Some(enclosed.iter().map(|(signed, _)| signed.by.0).collect::<Vec<_>>()),
        _ => None,
    });
    assert_eq!(enclosed, Some(vec![1, 2, 3]));
}

#[test]
fn r9_an_equivocated_view_change_blocks_nobody() {
    let mut solo = Solo::new(4, 1, 1);
    solo.leave(0);
    let bytes = batch(1);
    let (first, first_body) = solo.change(3, 1, None, Vec::new());
    let (second, second_body) = solo.change(3, 1, None, vec![solo.entry(0, 1, &bytes)]);
    solo.give(3, Message::ViewChange(first, first_body));
    assert!(solo.offer(3, Message::ViewChange(second, second_body)), "evidence is wanted");
    assert!(matches!(solo.others[..], [Output::Misbehaviour(Evidence::ViewChanges(..))]));
    let (signed, body) = solo.change(0, 1, None, Vec::new());
    solo.give(0, Message::ViewChange(signed, body));
    assert!(solo.core.status().entered);
}

#[test]
fn r9_a_new_view_that_does_not_hold_together_is_ignored() {
    let mut solo = Solo::new(4, 1, 2);
    solo.leave(0);
    let enclosed: Vec<_> = [0, 1, 3].map(|by| solo.change(by, 2, None, Vec::new())).into();
    let by_leader_of_1 = polder_consensus::NewView {
        epoch: Epoch(0),
        view: View(1),
        body: polder_consensus::NewView::body_digest(&enclosed),
    };
    let signed = solo.sign(1, by_leader_of_1);
    solo.give(1, Message::NewView(signed, enclosed));
    assert!(!solo.core.status().entered, "its VIEW-CHANGEs are for another view");
    let Message::NewView(signed, enclosed) = solo.empty_new_view(1) else { return };
    let forged = solo.sign(3, signed.statement);
    solo.give(3, Message::NewView(forged, enclosed));
    assert!(!solo.core.status().entered, "not its leader's");
    solo.give(3, solo.empty_new_view(1));
    assert!(solo.core.status().entered, "whoever relays it");
}

#[test]
fn r9_without_liars_two_entries_of_one_view_stop_it() {
    let mut solo = Solo::new(3, 0, 2);
    solo.leave(0);
    let changes = [batch(1), batch(2)].map(|bytes| vec![solo.entry(0, 1, &bytes)]);
    let [first, second] = changes;
    let new_view = solo.new_view(1, vec![solo.change(0, 1, None, first), solo.change(1, 1, None, second)]);
    solo.give(1, new_view);
    assert!(matches!(solo.others[..], [Output::Halt(Why::Equivocation { slot: Seq(1), .. })]));
}

#[test]
fn r10_a_forced_slot_is_voted_whatever_its_batch_says() {
    let mut solo = Solo::new(4, 1, 2);
    solo.leave(0);
    let bytes = forged_batch(&solo);
    let entries = vec![solo.entry(0, 1, &bytes)];
    let enclosed = [0, 1, 3].map(|by| solo.change(by, 1, None, entries.clone()));
    solo.give(1, solo.new_view(1, enclosed.into()));
    solo.give(1, Message::Body(bytes));
    assert!(solo.has_sent(voted(Phase::Prepare, 1)));
    assert!(!solo.suspects());
}

/// A cut truncates all that was recorded before it, the own VIEW-CHANGE too: its record carries that forward.
#[test]
fn r8_the_proof_that_the_last_view_ended_outlives_a_cut_and_a_restart() {
    let mut solo = Solo::new(4, 1, 2);
    solo.leave(0);
    let cut = solo.stable(8, &[]);
    solo.step(Input::Stable(cut));
    let at = solo.log.iter().position(|record| matches!(record, Record::Stable { .. })).unwrap();
    let records = solo.log[at..].to_vec();
    let mut again = Solo::with(4, 1, 2, constants(), Some(RecoveredLog { records, base: None }));
    assert_eq!(again.core.status().view, View(1));
    again.wait(100);
    again.give(3, empty_status());
    assert!(again.has_sent(|message| matches!(message, Message::Suspects(proof) if proof.statement.view == View(0))));
    let is_own = |message: &Message| matches!(message, Message::ViewChange(signed, _) if signed.by == ReplicaId(2));
    again.give(1, status_of(View(1)));
    assert!(again.has_sent(is_own), "re-sent for ever, to the leader that awaits it");
}

#[test]
fn r9_after_a_restart_the_entry_of_a_slot_is_that_of_the_highest_view() {
    let mut solo = Solo::new(4, 1, 2);
    let bytes = batch(1);
    solo.give(0, solo.propose(0, 1, &bytes));
    for by in [0, 1, 3] {
        solo.give(by, solo.vote(by, Phase::Prepare, 0, 1, &bytes));
    }
    solo.leave(0);
    let enclosed = [0, 1, 3].map(|by| solo.change(by, 1, None, vec![solo.entry(0, 1, &bytes)]));
    solo.give(1, solo.new_view(1, enclosed.to_vec()));
    for by in [0, 1, 3] {
        solo.give(by, solo.vote(by, Phase::Prepare, 1, 1, &bytes));
    }
    let log = RecoveredLog { records: solo.log.clone(), base: None };
    let mut again = Solo::with(4, 1, 2, constants(), Some(log));
    again.leave(1);
    let listed = again.sent.iter().find_map(|message| match message {
        Message::ViewChange(signed, body) if signed.statement.view == View(2) => Some(body.entries.clone()),
        _ => None,
    });
    assert_eq!(listed.unwrap().iter().map(|entry| entry.view).collect::<Vec<_>>(), [View(1)]);
}

fn status_of(view: View) -> Message {
    match empty_status() {
        Message::Status(status) => Message::Status(polder_consensus::StatusMessage { view, ..status }),
        other => other,
    }
}
