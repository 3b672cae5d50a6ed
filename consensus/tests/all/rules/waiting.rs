//! Requests that wait at a backup: of sessions that are not open, and many at once.

use std::collections::BTreeMap;

use polder_consensus::{Input, Message, Output, SessionWindow};
use polder_types::{
    Blob, Call, ClientId, Constants, Position, Request, Seq, SessionId, SignedRequest, SigningKey, Verified,
};

use super::standing::status;
use super::{WINDOW, decide};
use crate::solo::{Solo, batch};

/// As the replica gives it: of a session that is not open, in a slot above the executed ones.
const UNOPENED: Option<SessionWindow> = Some(SessionWindow { ack: 0, high: 0 });

/// A session that slot 1 may open.
const FIRST: SessionId = SessionId(Position { slot: Seq(1), index: 0 });

fn of_first(solo: &Solo, client: u8) -> Verified<SignedRequest> {
    solo.request_in(client, FIRST, 1, 0).verify(solo.keyring.cluster()).unwrap()
}

fn requests(solo: &Solo) -> usize {
    solo.sent.iter().filter(|message| matches!(message, Message::Request(_))).count()
}

/// Lets time pass while the others show view 0 and slot 0.
fn wait_among_others(solo: &mut Solo, ms: u64) {
    for _ in 0..ms / 50 {
        solo.wait(50);
        [0, 2, 3].into_iter().for_each(|by| solo.give(by, status(0, 0)));
    }
}

/// What the leader did not get, it gets again: its frame was dropped, or its client's caps were used up there.
#[test]
fn r6_a_request_of_a_session_that_is_not_known_is_forwarded_again_and_waits_for_a_bounded_time() {
    let mut solo = Solo::new(4, 1, 1);
    let request = of_first(&solo, 50);
    solo.step(Input::Request { request, window: UNOPENED });
    assert_eq!(requests(&solo), 1);
    solo.sent.clear();
    wait_among_others(&mut solo, 1_000);
    assert_eq!(requests(&solo), 20, "every T/4");
    assert_eq!(solo.core.status().took_part_ms_ago, Some(0), "what cannot execute is no sign of a fault");
    let forgets_ms = 4 * solo.genesis.constants.timeout_max_ms;
    wait_among_others(&mut solo, forgets_ms - 1_050);
    assert_eq!(solo.core.status().waiting, 1);
    wait_among_others(&mut solo, 100);
    assert_eq!(solo.core.status().waiting, 0);
    assert!(!solo.suspects(), "it arms nothing");
}

#[test]
fn r6_a_request_of_a_session_that_is_not_known_is_forwarded_once_the_view_starts() {
    let mut solo = Solo::new(4, 1, 2);
    solo.leave(0);
    let request = of_first(&solo, 50);
    solo.step(Input::Request { request, window: UNOPENED });
    solo.give(1, solo.empty_new_view(1));
    assert_eq!(requests(&solo), 0);
    solo.wait(10);
    assert_eq!(requests(&solo), 1);
}

#[test]
fn r6_a_request_goes_once_the_slot_that_its_session_names_has_not_opened_it() {
    let mut solo = Solo::new(4, 1, 1);
    let [never, opened] = [50, 51].map(|client| of_first(&solo, client));
    let owner = opened.request().unwrap().client;
    for request in [never, opened.clone()] {
        solo.step(Input::Request { request, window: UNOPENED });
    }
    solo.executes = false;
    decide(&mut solo, 1, &batch(1));
    solo.wait(10);
    assert_eq!(solo.core.status().waiting, 2, "it is decided, not executed");
    let windows = vec![(owner, FIRST, WINDOW)];
    solo.step(Input::Executed { slot: Seq(1), windows });
    solo.wait(10);
    assert_eq!(solo.core.status().waiting, 1);
    assert!(solo.core.is_waiting(&opened.digest()));
}

/// Who lags behind its client says `Busy`, not that there is no such session: with `r = 0` it would be believed.
#[test]
fn r6_a_request_of_a_session_that_no_slot_of_the_window_opens_is_not_kept() {
    let mut solo = Solo::new(4, 1, 1);
    let high = solo.core.status().low.0 + solo.genesis.constants.window_slots;
    for (slot, waiting) in [(high + 1, 0), (high, 1)] {
        let session = SessionId(Position { slot: Seq(slot), index: 0 });
        let request = solo.request_in(50, session, 1, 0).verify(solo.keyring.cluster()).unwrap();
        solo.step(Input::Request { request, window: UNOPENED });
        assert_eq!(solo.core.status().waiting, waiting);
        assert!(matches!(solo.others.as_slice(), [Output::Refused { .. }]));
    }
}

/// Forwards share their way with the votes, whose queue holds 8 MiB.
#[test]
fn r6_forwards_leave_room_for_votes_and_take_turns() {
    let mut solo = Solo::with(4, 1, 1, Constants::default(), None);
    // Eight keys within their caps.
    for (client, index) in (0..8u8).flat_map(|client| (0..6).map(move |index| (client, index))) {
        let session = SessionId(Position { slot: Seq(1), index: u32::from(client) * 6 + index });
        let key = SigningKey::from_seed(&[100 + client; 32]);
        let call = Call::Commands { session, ack: 0, first: 1, commands: vec![Blob::from(vec![client; 1_200_000])] };
        let request = Request { client: ClientId(key.public()), call }.sign(solo.keyring.cluster(), &key);
        let request = request.verify(solo.keyring.cluster()).unwrap();
        solo.step(Input::Request { request, window: WINDOW });
    }
    assert_eq!(solo.core.status().waiting, 48);
    assert_eq!(requests(&solo), 1, "not all at once when they come");
    let mut sent = BTreeMap::new();
    let mut ms = 0;
    while sent.len() < 48 && ms < 10_000 {
        solo.wait(10);
        ms += 10;
        let forwards = solo.sent.drain(..).filter_map(|message| match message {
            Message::Request(request) => Some(request),
            _ => None,
        });
        let forwards: Vec<_> = forwards.collect();
        assert!(forwards.len() <= 2, "{} in one tick", forwards.len());
        for request in forwards {
            *sent.entry(request.digest()).or_insert(0) += 1;
        }
    }
    assert_eq!(sent.len(), 48, "each has its turn");
    assert!(sent.values().all(|times| *times <= 1), "and none a second one before");
}
