//! What a hostile reader found: each was a way to stop the core or to change views at will.

use polder_consensus::{Fetch, Input, Message, Output, Phase, RecoveredLog, SessionWindow};
use polder_types::{
    Batch, Blob, Call, ClientId, Constants, Position, ReplicaId, Request, Seq, SessionId, SignedRequest, SigningKey,
};

use crate::solo::{Solo, batch, vote};
use crate::world::{constants, session};

const WINDOW: Option<SessionWindow> = Some(SessionWindow { ack: 0, high: 1_024 });

fn commands(solo: &Solo, client: u8, ack: u64, first: u64) -> SignedRequest {
    let key = SigningKey::from_seed(&[client; 32]);
    let call = Call::Commands { session: session(), ack, first, commands: vec![Blob::copy(&[1])] };
    Request { client: ClientId(key.public()), call }.sign(solo.keyring.cluster(), &key)
}
fn call(solo: &Solo, client: u8, call: Call) -> SignedRequest {
    let key = SigningKey::from_seed(&[client; 32]);
    Request { client: ClientId(key.public()), call }.sign(solo.keyring.cluster(), &key)
}
fn give(solo: &mut Solo, request: SignedRequest, window: Option<SessionWindow>) {
    let request = request.verify(solo.keyring.cluster()).unwrap();
    solo.step(Input::Request { request, window });
}
fn proposals(solo: &Solo) -> usize {
    solo.sent.iter().filter(|m| matches!(m, Message::Proposal(..))).count()
}

/// R6: one who sends one request to the leader and another to the backups must not change views.
#[test]
fn what_a_backup_arms_the_leader_proposes() {
    let mut backup = Solo::new(4, 1, 1);
    let armed = commands(&backup, 50, 9_999, 10_000);
    give(&mut backup, armed.clone(), WINDOW);
    backup.wait(2_000);
    assert!(backup.suspects(), "the backup arms it");

    let mut leader = Solo::new(4, 1, 0);
    let blocker = commands(&leader, 50, 0, 5_000);
    give(&mut leader, blocker, WINDOW);
    assert_eq!(proposals(&leader), 0);
    give(&mut leader, armed, WINDOW);
    leader.wait(500);
    assert_eq!(proposals(&leader), 1, "the leader proposes what backups arm");
}

/// R6: the same with a CLOSE.
#[test]
fn a_close_behind_a_row_that_is_later() {
    let mut leader = Solo::new(4, 1, 0);
    let blocker = commands(&leader, 50, 0, 5_000);
    give(&mut leader, blocker, WINDOW);
    let close = call(&leader, 50, Call::Close { session: session() });
    let mut backup = Solo::new(4, 1, 1);
    give(&mut backup, close.clone(), WINDOW);
    backup.wait(2_000);
    assert!(backup.suspects(), "the backup arms it");
    give(&mut leader, close, WINDOW);
    leader.wait(500);
    assert_eq!(proposals(&leader), 1);
}

/// R6: a request that was executed below a transferred cut must not stay armed.
#[test]
fn what_a_transferred_state_has_executed_arms_nothing() {
    let mut solo = Solo::new(4, 1, 1);
    let request = commands(&solo, 50, 0, 1);
    give(&mut solo, request, WINDOW);
    let interval = constants().interval_slots;
    let batches: Vec<_> = (1..=4 * interval).map(batch).collect();
    let stable = solo.stable(4 * interval, &batches);
    solo.step(Input::Stable(stable.clone()));
    assert!(solo.others.iter().any(|o| matches!(o, Output::FellBehind(_))));
    solo.step(Input::Restored { certificate: stable });
    assert_eq!(solo.core.status().waiting, 0, "whether it was executed is not known: its client asks again");
}

/// R6: what is decided above a transferred cut, and not executed because a slot before it is missing, does not wait when
/// it comes again: it will be executed without being proposed.
#[test]
fn what_is_decided_above_a_transferred_cut_does_not_wait_again() {
    let mut solo = Solo::new(4, 1, 1);
    let request = commands(&solo, 50, 0, 1);
    let cut = 4 * constants().interval_slots;
    let batches: Vec<_> = (1..=cut).map(batch).collect();
    let stable = solo.stable(cut, &batches);
    solo.step(Input::Stable(stable.clone()));
    let bytes = Batch { ts: crate::solo::WALL, requests: vec![request.clone()] }.to_blob();
    let proof = solo.proof(&[0, 2, 3], &crate::solo::vote(Phase::Commit, 0, cut + 2, &bytes));
    solo.give(2, Message::Committed(proof, bytes));
    solo.step(Input::Restored { certificate: stable });
    give(&mut solo, request, WINDOW);
    assert_eq!(solo.core.status().waiting, 0, "it is decided");
}

/// R6: what the log shows as decided, and a slot before it is missing, does not wait when it comes again.
#[test]
fn what_is_decided_in_the_log_does_not_wait_again_after_a_restart() {
    let mut solo = Solo::new(4, 1, 1);
    let request = commands(&solo, 50, 0, 1);
    let bytes = Batch { ts: crate::solo::WALL, requests: vec![request.clone()] }.to_blob();
    let proof = solo.proof(&[0, 2, 3], &crate::solo::vote(Phase::Commit, 0, 2, &bytes));
    solo.give(2, Message::Committed(proof, bytes));
    let log = RecoveredLog { records: solo.log.clone(), base: None };
    let mut again = Solo::with(4, 1, 1, constants(), Some(log));
    give(&mut again, request, WINDOW);
    assert_eq!(again.core.status().waiting, 0, "it is decided");
}

/// R6: a copy of a read is ordered anew after the read was executed. A new view that forces the old slot once more does
/// not count as its proposal.
#[test]
fn a_slot_that_is_forced_again_after_its_decision_proposes_nothing() {
    let mut solo = Solo::new(4, 1, 1);
    let request = commands(&solo, 50, 0, 1);
    let bytes = Batch { ts: crate::solo::WALL, requests: vec![request.clone()] }.to_blob();
    let proof = solo.proof(&[0, 2, 3], &crate::solo::vote(Phase::Commit, 0, 1, &bytes));
    solo.give(2, Message::Committed(proof, bytes.clone()));
    give(&mut solo, request, WINDOW);
    assert_eq!(solo.core.status().waiting, 1, "it is executed; the copy waits to be read again");
    solo.leave(0);
    for by in [0, 2, 3] {
        let (signed, body) = solo.change(by, 1, None, vec![solo.entry(0, 1, &bytes)]);
        solo.give(by, Message::ViewChange(signed, body));
    }
    assert!(solo.core.status().entered && solo.core.status().is_leader);
    assert_eq!(proposals(&solo), 1, "the new leader proposes the copy");
}

/// R6: requests that were taken outside the caps are proposed, also when a new view brings back two of them.
#[test]
fn two_rows_outside_the_caps_are_both_proposed_in_a_new_view() {
    let mut solo = Solo::with(4, 1, 1, Constants { admitted_per_client_max: 1, ..constants() }, None);
    let session = |slot: u64| SessionId(Position { slot: Seq(slot), index: 0 });
    let ask = |solo: &Solo, slot: u64| {
        let call = Call::Commands { session: session(slot), ack: 0, first: 1, commands: vec![Blob::copy(&[1])] };
        self::call(solo, 50, call)
    };
    // One within the caps, one outside; the leader proposes the latter, so that another is taken outside.
    let (first, second, third) = (ask(&solo, 1), ask(&solo, 2), ask(&solo, 3));
    give(&mut solo, first, WINDOW);
    give(&mut solo, second.clone(), WINDOW);
    let bytes = Batch { ts: crate::solo::WALL, requests: vec![second] }.to_blob();
    solo.give(0, solo.propose(0, 1, &bytes));
    give(&mut solo, third, WINDOW);
    assert_eq!(solo.core.status().waiting, 3);
    solo.leave(0);
    for by in [0, 2, 3] {
        let (signed, body) = solo.change(by, 1, None, Vec::new());
        solo.give(by, Message::ViewChange(signed, body));
    }
    solo.wait(1_000);
    let of = |message: &Message| match message {
        Message::Proposal(_, bytes) => Batch::from_blob(bytes, usize::MAX).map_or(0, |batch| batch.requests.len()),
        _ => 0,
    };
    assert_eq!(solo.sent.iter().map(of).sum::<usize>(), 3, "all that waited");
}

/// R42: rows that cannot execute before the far future must not keep others out.
#[test]
fn rows_for_the_far_future_are_not_held_for_ever() {
    let mut solo = Solo::new(4, 1, 0);
    let interval = constants().interval_slots;
    let most = constants().admitted_max as u64;
    let per = constants().admitted_per_client_max as u64;
    for client in 0..=(most / per) {
        for n in 0..per {
            let cut = Seq(interval * (1 << 40) + interval * n);
            let open = call(&solo, 60 + client as u8, Call::Open { nonce: [n as u8; 16], cut });
            give(&mut solo, open, None);
        }
    }
    let honest = call(&solo, 10, Call::Open { nonce: [1; 16], cut: Seq(0) });
    give(&mut solo, honest, None);
    assert_eq!(solo.core.status().waiting, 1, "the honest one alone");
}

/// R14: a fetch that began for an older cut, and ends when the batches have come after all, is over: what is missing
/// meanwhile is asked for again.
#[test]
fn a_fetch_that_ends_too_late_is_followed_by_another() {
    let mut solo = Solo::new(4, 1, 1);
    let interval = constants().interval_slots;
    let batches: Vec<_> = (1..=3 * interval).map(batch).collect();
    let cuts: Vec<_> = (1..=3).map(|k| solo.stable(k * interval, &batches[..(k * interval) as usize])).collect();
    let fell = |solo: &Solo| solo.others.iter().filter(|o| matches!(o, Output::FellBehind(_))).count();
    solo.step(Input::Stable(cuts[0].clone()));
    solo.wait(600);
    assert_eq!(fell(&solo), 1, "a fetch of the first cut begins, and is slow");
    // Meanwhile peers send the batches.
    for slot in 1..=interval + 1 {
        let bytes = &batches[slot as usize - 1];
        let proof = solo.proof(&[0, 2, 3], &crate::solo::vote(Phase::Commit, 0, slot, bytes));
        solo.give(2, Message::Committed(proof, bytes.clone()));
    }
    solo.step(Input::Stable(cuts[1].clone()));
    solo.step(Input::Stable(cuts[2].clone()));
    solo.others.clear();
    solo.sent.clear();
    solo.step(Input::Restored { certificate: cuts[0].clone() });
    solo.wait(60_000);
    let pulls = solo.sent.iter().filter(|m| matches!(m, Message::Fetch(Fetch::Committed(_)))).count();
    assert!(pulls > 0 || fell(&solo) > 0, "it lags, and asks again");
}

/// R6: "its sessions in turn": what backups arm the leader takes, however fast the client itself keeps its own rows there
/// full. One who sends a stream to the leader and one request to the backups must not change views.
#[test]
fn a_clients_own_stream_to_the_leader_does_not_keep_out_what_backups_arm() {
    let small = Constants { admitted_per_client_max: 4, ..constants() };
    let session = |slot: u64| SessionId(Position { slot: Seq(slot), index: 0 });
    let ask = |solo: &Solo, slot: u64, first: u64| {
        let call = Call::Commands { session: session(slot), ack: first - 1, first, commands: vec![Blob::copy(&[1])] };
        self::call(solo, 50, call)
    };
    let wide = Some(SessionWindow { ack: 0, high: 1 << 20 });
    // The backup arms the one request that it got.
    let mut backup = Solo::with(4, 1, 1, small.clone(), None);
    let armed = ask(&backup, 1, 1);
    give(&mut backup, armed.clone(), wide);
    backup.wait(1_000);
    let forwards = backup.sent.iter().filter(|m| matches!(m, Message::Request(_))).count();
    assert!(backup.suspects() && forwards >= 3, "the backup arms it, forwards it {forwards} times, and suspects");

    // The leader, with its pipeline full (4 slots under way), and the client's own rows of other sessions at the caps and
    // one outside them. Whenever a slot is decided, its place is taken by the next of the client's own.
    let mut leader = Solo::with(4, 1, 0, small, None);
    let (mut next, mut own) = (1u64, 2u64);
    let fill = |leader: &mut Solo, own: &mut u64| {
        for _ in 0..6 {
            let request = ask(leader, *own, 1);
            *own += 1;
            give(leader, request, wide);
        }
    };
    for _ in 0..10 {
        fill(&mut leader, &mut own);
        leader.wait(30);
    }
    let holds = |leader: &Solo| {
        leader.sent.iter().any(|message| match message {
            Message::Proposal(_, bytes) => {
                Batch::from_blob(bytes, usize::MAX).is_ok_and(|batch| batch.requests.contains(&armed))
            }
            _ => false,
        })
    };
    for _ in 0..40 {
        // Each backup forwards it, every T/4; the client's stream is always there first.
        fill(&mut leader, &mut own);
        for backup in 1..4 {
            leader.give(backup, Message::Request(armed.clone()));
        }
        if holds(&leader) {
            return;
        }
        // A slot is decided.
        let bytes = leader.sent.iter().find_map(|message| match message {
            Message::Proposal(signed, bytes) if signed.statement.slot == Seq(next) => Some(bytes.clone()),
            _ => None,
        });
        if let Some(bytes) = bytes {
            let proof = leader.proof(&[1, 2, 3], &vote(Phase::Commit, 0, next, &bytes));
            let verified = leader.verified(Message::Committed(proof, bytes));
            // In the same turn of the event loop the stream goes on.
            leader.step(Input::Message { from: ReplicaId(1), message: verified });
            next += 1;
        }
        leader.wait(30);
    }
    assert!(
        holds(&leader),
        "40 times each of three backups has forwarded it, {} slots were proposed, and it is in none",
        proposals(&leader)
    );
}
