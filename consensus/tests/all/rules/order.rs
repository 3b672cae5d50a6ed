//! Ordering, healing, bounds.

use polder_consensus::{Fetch, Input, Message, Output, Phase, RecoveredLog, Suspect};
use polder_types::{Batch, Call, ClientId, Epoch, Proof, ReplicaId, Request, Seq, SigningKey, View};

use super::{WINDOW, decide, empty_status, forged_batch};
use crate::solo::{Solo, WALL, batch, vote, voted};
use crate::world::constants;

#[test]
fn the_three_phases_of_the_normal_case() {
    let mut solo = Solo::new(4, 1, 1);
    let bytes = batch(1);
    solo.give(0, solo.propose(0, 1, &bytes));
    assert!(solo.has_sent(voted(Phase::Prepare, 1)) && !solo.has_sent(voted(Phase::Commit, 1)));
    solo.give(0, solo.vote(0, Phase::Prepare, 0, 1, &bytes));
    assert!(!solo.has_sent(voted(Phase::Commit, 1)), "two PREPAREs are no quorum of four");
    solo.give(2, solo.vote(2, Phase::Prepare, 0, 1, &bytes));
    assert!(solo.has_sent(voted(Phase::Commit, 1)));
    solo.give(0, solo.vote(0, Phase::Commit, 0, 1, &bytes));
    assert!(solo.delivered.is_empty());
    solo.give(2, solo.vote(2, Phase::Commit, 0, 1, &bytes));
    assert_eq!(solo.delivered, [(Seq(1), Batch::digest(&bytes))]);
}

#[test]
fn r1_without_liars_the_prepare_phase_is_skipped() {
    let mut solo = Solo::new(3, 0, 1);
    let bytes = batch(1);
    solo.give(0, solo.propose(0, 1, &bytes));
    assert!(solo.has_sent(voted(Phase::Commit, 1)) && !solo.has_sent(voted(Phase::Prepare, 1)));
    solo.give(0, solo.vote(0, Phase::Commit, 0, 1, &bytes));
    assert_eq!(solo.delivered.len(), 1);
}

#[test]
fn batches_are_delivered_in_slot_order_once() {
    let mut solo = Solo::new(4, 1, 1);
    let batches: Vec<_> = (1..=3).map(batch).collect();
    for slot in [3, 2, 1, 2] {
        decide(&mut solo, slot, &batches[slot as usize - 1]);
    }
    let slots: Vec<_> = solo.delivered.iter().map(|(slot, _)| slot.0).collect();
    assert_eq!(slots, [1, 2, 3]);
}

/// The requests in each batch that was proposed.
fn proposed(solo: &Solo) -> Vec<usize> {
    let size = |message: &Message| match message {
        Message::Proposal(_, bytes) => Batch::from_blob(bytes, usize::MAX).map(|batch| batch.requests.len()).ok(),
        _ => None,
    };
    solo.sent.iter().filter_map(size).collect()
}

#[test]
fn beside_what_is_in_flight_only_a_larger_batch_is_opened_at_once() {
    let mut solo = Solo::new(4, 1, 0);
    let ask = |solo: &mut Solo, client: u8| {
        let request = solo.request(client, 1).verify(solo.keyring.cluster()).unwrap();
        solo.step(Input::Request { request, window: WINDOW });
    };
    (50..53).for_each(|client| ask(&mut solo, client));
    assert_eq!(proposed(&solo), [1, 2], "the first waits for nobody, the third makes two");
    (53..55).for_each(|client| ask(&mut solo, client));
    assert_eq!(proposed(&solo), [1, 2]);
    ask(&mut solo, 55);
    assert_eq!(proposed(&solo), [1, 2, 3]);
    ask(&mut solo, 56);
    assert_eq!(proposed(&solo), [1, 2, 3]);
    solo.wait(30);
    assert_eq!(proposed(&solo), [1, 2, 3, 1], "nothing is held back for long");
}

#[test]
fn r11_fresh_slots_up_to_contiguous_committed_plus_f() {
    let mut solo = Solo::new(4, 1, 1);
    solo.give(0, solo.propose(0, 8, &batch(8)));
    solo.give(0, solo.propose(0, 9, &batch(9)));
    assert!(solo.has_sent(voted(Phase::Prepare, 8)) && !solo.has_sent(voted(Phase::Prepare, 9)));
    decide(&mut solo, 1, &batch(1));
    solo.give(0, solo.propose(0, 9, &batch(9)));
    assert!(solo.has_sent(voted(Phase::Prepare, 9)));
}

#[test]
fn r11_commit_waits_for_the_body() {
    let mut solo = Solo::new(4, 1, 1);
    let bytes = batch(1);
    for by in [0, 2, 3] {
        solo.give(by, solo.vote(by, Phase::Prepare, 0, 1, &bytes));
        solo.give(by, solo.vote(by, Phase::Commit, 0, 1, &bytes));
    }
    assert!(!solo.has_sent(voted(Phase::Commit, 1)) && solo.delivered.is_empty());
    solo.give(3, Message::Body(bytes));
    assert!(solo.has_sent(voted(Phase::Commit, 1)), "the certificate is enough, without the proposal");
    assert_eq!(solo.delivered.len(), 1);
}

#[test]
fn r11_bodies_of_a_view_that_was_left_go_unless_they_are_entries() {
    let mut solo = Solo::new(4, 1, 1);
    let [prepared, accepted] = [batch(1), batch(2)];
    solo.give(0, solo.propose(0, 1, &prepared));
    solo.give(0, solo.propose(0, 2, &accepted));
    [0, 2].into_iter().for_each(|by| solo.give(by, solo.vote(by, Phase::Prepare, 0, 1, &prepared)));
    solo.leave(0);
    solo.sent.clear();
    [&prepared, &accepted].into_iter().for_each(|b| solo.give(3, Message::Fetch(Fetch::Body(Batch::digest(b)))));
    assert_eq!(solo.sent, [Message::Body(prepared)]);
}

#[test]
fn r14_who_asks_for_a_truncated_slot_gets_the_certificate() {
    let mut solo = Solo::new(4, 1, 1);
    let batches: Vec<_> = (1..=16).map(batch).collect();
    (1..=16).for_each(|slot| decide(&mut solo, slot, &batches[slot as usize - 1]));
    solo.step(Input::Stable(solo.stable(16, &batches)));
    solo.sent.clear();
    solo.give(2, Message::Fetch(Fetch::Committed(Seq(3))));
    assert!(matches!(solo.sent[..], [Message::Stable(_)]));
    solo.sent.clear();
    solo.give(2, Message::Fetch(Fetch::Committed(Seq(12))));
    assert!(matches!(solo.sent[..], [Message::Committed(..)]), "one interval is kept for laggards");
}

#[test]
fn r15_a_proposal_that_status_shows_missing_is_sent_again() {
    let mut solo = Solo::new(4, 1, 0);
    let request = solo.request(50, 1).verify(solo.keyring.cluster()).unwrap();
    solo.step(Input::Request { request, window: WINDOW });
    solo.wait(100);
    solo.sent.clear();
    solo.give(2, empty_status());
    assert!(solo.has_sent(|message| matches!(message, Message::Proposal(..))));
    assert!(solo.has_sent(voted(Phase::Prepare, 1)));
    solo.sent.clear();
    solo.give(2, empty_status());
    assert!(solo.sent.is_empty(), "once in half a period");
}

#[test]
fn r16_filler_that_is_due_and_missing() {
    let mut solo = Solo::new(4, 1, 1);
    let request = solo.request(50, 1);
    decide(&mut solo, 1, &Batch { ts: WALL, requests: vec![request] }.to_blob());
    let mut quiet = Solo::new(4, 1, 1);
    decide(&mut quiet, 1, &batch(1));
    for solo in [&mut solo, &mut quiet] {
        for _ in 0..10 {
            solo.wait(50);
            solo.give(0, Message::Fetch(Fetch::Committed(Seq(9))));
        }
    }
    assert!(solo.suspects(), "T_idle and T after a slot with requests");
    assert!(!quiet.suspects(), "slots without requests make no tail");
}

#[test]
fn r20_a_fresh_proposal_with_a_forged_request_is_the_leaders_fault() {
    let mut solo = Solo::new(4, 1, 1);
    let bytes = forged_batch(&solo);
    solo.give(0, solo.propose(0, 1, &bytes));
    assert!(solo.suspects() && !solo.has_sent(voted(Phase::Prepare, 1)));
    assert!(matches!(solo.others[..], [Output::Misled(ReplicaId(0))]));
}

#[test]
fn r27_a_batch_from_the_future_is_held_until_it_is_not() {
    let mut solo = Solo::new(4, 1, 1);
    solo.give(0, solo.propose(0, 1, &batch(600)));
    assert!(!solo.has_sent(voted(Phase::Prepare, 1)) && !solo.suspects());
    solo.wait(100);
    assert!(solo.has_sent(voted(Phase::Prepare, 1)));
}

/// Seed 2000569: the leader's clock leapt for a moment, and the one client that had asked it went away.
#[test]
fn r27_a_batch_that_stays_far_in_the_future_is_a_reason_to_suspect() {
    let mut solo = Solo::new(4, 1, 1);
    let far = solo.propose(0, 1, &batch(1_000_000));
    solo.give(0, far.clone());
    solo.wait(700);
    // Its copies do not begin anew.
    solo.give(0, far);
    assert!(!solo.suspects());
    solo.wait(300);
    assert!(solo.suspects() && !solo.has_sent(voted(Phase::Prepare, 1)));
}

#[test]
fn r27_a_clock_that_stays_behind_is_a_reason_to_suspect() {
    let mut solo = Solo::new(4, 1, 1);
    let old = |at: u64| Batch { ts: WALL.minus(10_000).plus(at), requests: Vec::new() }.to_blob();
    for slot in 1..=7 {
        decide(&mut solo, slot, &old(slot));
        assert!(!solo.suspects());
        solo.wait(120);
    }
    decide(&mut solo, 8, &old(8));
    assert!(solo.suspects());
}

#[test]
fn r27_a_proposal_whose_time_ends_its_view_is_not_accepted_in_the_next() {
    let mut solo = Solo::new(3, 0, 1);
    solo.give(2, solo.suspect(2, 0));
    let old = |at: u64| Batch { ts: WALL.minus(10_000).plus(at), requests: Vec::new() }.to_blob();
    for slot in 1..=8 {
        solo.wait(120);
        solo.sent.clear();
        solo.give(0, solo.propose(0, slot, &old(slot)));
        solo.give(0, solo.vote(0, Phase::Commit, 0, slot, &old(slot)));
        if solo.core.status().view == View(1) {
            assert!(!solo.has_sent(voted(Phase::Commit, slot)), "of a view that has ended");
            return;
        }
    }
    panic!("the view ends");
}

#[test]
fn r30_after_a_restart_a_certified_history_commits_local_batches() {
    let mut solo = Solo::new(4, 1, 1);
    let batches: Vec<_> = (1..=8).map(batch).collect();
    for slot in 1..=8 {
        solo.give(0, solo.propose(0, slot, &batches[slot as usize - 1]));
        for by in [0, 2] {
            solo.give(by, solo.vote(by, Phase::Prepare, 0, slot, &batches[slot as usize - 1]));
        }
    }
    assert!(solo.delivered.is_empty());
    let log = RecoveredLog { records: solo.log.clone(), base: None };
    let mut again = Solo::with(4, 1, 1, constants(), Some(log));
    again.step(Input::Stable(again.stable(8, &batches)));
    assert_eq!(again.delivered.len(), 8);
    // Recorded before the restart, it does the same.
    solo.executes = false;
    solo.step(Input::Stable(solo.stable(8, &batches)));
    let log = RecoveredLog { records: solo.log.clone(), base: None };
    assert_eq!(Solo::with(4, 1, 1, constants(), Some(log)).delivered.len(), 8);
    // Another history proves nothing.
    let log = RecoveredLog { records: again.log[..17].to_vec(), base: None };
    let mut other = Solo::with(4, 1, 1, constants(), Some(log));
    other.step(Input::Stable(other.stable(8, &batches[1..])));
    assert!(other.delivered.is_empty());
}

#[test]
fn r42_what_is_out_of_bounds_is_dropped_before_its_signatures_are_checked() {
    let mut solo = Solo::new(4, 1, 1);
    let bytes = batch(1);
    assert!(!solo.offer(2, solo.vote(2, Phase::Prepare, 0, 17, &bytes)), "above h+L");
    assert!(!solo.offer(2, solo.vote(2, Phase::Prepare, 0, 0, &bytes)), "not above h");
    assert!(!solo.offer(2, solo.vote(2, Phase::Prepare, 1, 1, &bytes)), "of a view that nothing proves");
    assert!(!solo.offer(1, solo.propose(1, 1, &bytes)));
    assert!(solo.offer(2, solo.suspect(2, u64::MAX)), "a SUSPECT of any later view is kept, the newest one");
    assert!(!solo.offer(2, solo.suspect(2, 5)));
    for by in [0, 2, 3] {
        assert!(solo.offer(by, solo.vote(by, Phase::Commit, 0, 1, &bytes)));
        assert!(!solo.offer(by, solo.vote(by, Phase::Commit, 0, 1, &bytes)), "twice");
    }
    let late = solo.sign(1, vote(Phase::Commit, 0, 1, &bytes));
    assert!(!solo.core.wants(&Message::Vote(late).header()), "never after the quorum");
    let huge = Suspect { epoch: Epoch(0), view: View(u64::MAX) };
    let proof: Proof<Suspect> = solo.proof(&[0, 1, 2], &huge);
    solo.give(2, Message::Suspects(proof));
    assert_eq!(solo.core.status().view, View(u64::MAX), "checked arithmetic: no wrap");
}

#[test]
fn r42_garbage_from_a_stranger_or_of_another_epoch_is_ignored() {
    let mut solo = Solo::new(4, 1, 1);
    solo.give(99, solo.suspect(2, 0));
    let other = solo.sign(2, Suspect { epoch: Epoch(7), view: View(0) });
    solo.give(2, Message::Suspect(other));
    assert_eq!(solo.core.status().ignored.values().sum::<u64>(), 2);
}

#[test]
fn r24_only_an_open_that_is_fresh_now_is_taken() {
    let mut solo = Solo::new(4, 1, 0);
    let key = SigningKey::from_seed(&[60; 32]);
    let open = |cut: u64| {
        let call = Call::Open { nonce: [cut as u8; 16], cut: Seq(cut) };
        Request { client: ClientId(key.public()), call }.sign(solo.keyring.cluster(), &key)
    };
    let (fresh, early, odd) = (open(0), open(8), open(3));
    for request in [fresh, early, odd] {
        let request = request.verify(solo.keyring.cluster()).unwrap();
        solo.step(Input::Request { request, window: None });
    }
    let proposed: Vec<_> = solo.sent.iter().filter(|message| matches!(message, Message::Proposal(..))).collect();
    assert_eq!(proposed.len(), 1, "only the one that is fresh");
    assert_eq!(solo.core.status().waiting, 1, "the one that will be is its client's to send again");
}
