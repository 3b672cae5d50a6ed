//! Admission, turns, deadlines of waiting requests.

use super::*;
use polder_types::{Blob, ClusterId, Position, ReplicaId, SigningKey};
use std::vec;

const CLUSTER: ClusterId = ClusterId(Digest([3; 32]));
const WINDOW: Option<SessionWindow> = Some(SessionWindow { ack: 0, high: 1_024 });

fn constants() -> Constants {
    Constants { admitted_per_client_max: 4, admitted_max: 6, ..Constants::default() }
}

fn request(client: u8, session: u32, first: u64, commands: usize) -> Verified<SignedRequest> {
    request_of(client, session, first, vec![Blob::copy(&[client]); commands])
}

fn request_of(client: u8, session: u32, first: u64, commands: Vec<Blob>) -> Verified<SignedRequest> {
    let key = SigningKey::from_seed(&[client; 32]);
    let session = SessionId(Position { slot: Seq(1), index: session });
    let call = Call::Commands { session, ack: 0, first, commands };
    let signed = Request { client: ClientId(key.public()), call }.sign(CLUSTER, &key);
    match signed.verify(CLUSTER) {
        Ok(request) => request,
        Err(bad) => unreachable!("{bad}"),
    }
}

fn admit(requests: &mut Requests, request: &Verified<SignedRequest>) -> Admission {
    admit_by(requests, Way::Direct, WINDOW, request)
}

fn admit_by(
    requests: &mut Requests,
    way: Way,
    window: Option<SessionWindow>,
    request: &Verified<SignedRequest>,
) -> Admission {
    let admission = requests.admit(request.clone(), way, window, Seq(10), Seq(256));
    requests.check();
    admission
}

fn batch(requests: &[&Verified<SignedRequest>]) -> (Batch, Vec<Digest>) {
    let requests: Vec<SignedRequest> = requests.iter().map(|request| (***request).clone()).collect();
    let digests = requests.iter().map(SignedRequest::digest).collect();
    (Batch { ts: polder_types::Timestamp(1), requests }, digests)
}

fn tick(requests: &mut Requests, elapsed_ms: u64) -> Ticked {
    tick_at(requests, elapsed_ms, 0)
}

fn tick_at(requests: &mut Requests, elapsed_ms: u64, now_ms: u64) -> Ticked {
    let tick = Tick {
        elapsed_ms,
        now_ms,
        timeout_ms: 500,
        next: Seq(10),
        executed: Seq(9),
        forwards: true,
        #[cfg(polder_mutations)]
        time_all: false,
    };
    requests.tick(&tick)
}

#[test]
fn clients_and_their_sessions_are_served_in_turns_and_each_session_in_order() {
    let mut requests = Requests::new(&Constants::default());
    for (client, session, first) in [(1, 0, 2), (1, 0, 1), (1, 0, 3), (1, 5, 1), (2, 0, 1)] {
        admit(&mut requests, &request(client, session, first, 1));
    }
    let room = 32 + 3 * request(1, 0, 1, 1).bytes();
    let order = |taken: Vec<SignedRequest>| -> Vec<(u8, u32, u64)> {
        let calls = taken.iter().filter_map(|signed| signed.request().ok());
        calls
            .filter_map(|request| match request.call {
                Call::Commands { session, first, commands, .. } => {
                    Some((commands.first()?.first().copied()?, session.0.index, first))
                }
                _ => None,
            })
            .collect()
    };
    let first = order(requests.take(Seq(10), room));
    let second = order(requests.take(Seq(11), room));
    requests.check();
    assert_eq!(first.len() + second.len(), 5, "a batch is closed when it is full");
    assert!(first.contains(&(2, 0, 1)), "another client is served before a client's second round: {first:?}");
    assert!(first.contains(&(1, 5, 1)), "another session before a session's second request: {first:?}");
    let of_session: Vec<_> = first.iter().chain(&second).filter(|row| row.0 == 1 && row.1 == 0).collect();
    assert_eq!(of_session, [&(1, 0, 1), &(1, 0, 2), &(1, 0, 3)]);
    assert!(requests.take(Seq(12), room).is_empty());
}

/// R6: what the backups have armed, of sessions of which nothing is known here.
#[test]
fn r6_what_a_backup_forwards_has_room_of_its_own_one_row_a_session() {
    let mut requests = Requests::new(&Constants { sessions_per_client_max: 3, ..constants() });
    for first in [11, 12, 13, 14, 9] {
        assert_eq!(admit(&mut requests, &request(1, 0, first, 1)), Admission::Taken);
    }
    let by = |requests: &mut Requests, backup, session, first| {
        admit_by(requests, Way::Forwarded(ReplicaId(backup)), None, &request(1, session, first, 1))
    };
    for session in 1..=3 {
        assert_eq!(by(&mut requests, 1, session, 1), Admission::Taken);
        assert_eq!(by(&mut requests, 1, session, 2), Admission::Busy, "the first of each");
    }
    assert_eq!(by(&mut requests, 1, 4, 1), Admission::Busy, "as many as a client may have sessions");
    assert_eq!(by(&mut requests, 2, 4, 1), Admission::Taken, "each backup its own");
    assert_eq!(requests.take(Seq(10), 1 << 20).len(), 9);
    assert_eq!(by(&mut requests, 1, 5, 1), Admission::Taken, "only the unproposed count");
    requests.enter_view();
    requests.check();
    assert_eq!(requests.take(Seq(10), 1 << 20).len(), 10);
    assert!(requests.spares.is_empty());
}

#[test]
fn r6_what_a_backup_forwards_is_bounded_in_bytes() {
    let mut requests = Requests::new(&Constants { admitted_per_client_max: 0, ..constants() });
    let mut taken = |backup, client, bytes: usize| {
        let way = Way::Forwarded(ReplicaId(backup));
        let request = request_of(client, 0, 1, vec![Blob::from(vec![0; bytes])]);
        admit_by(&mut requests, way, None, &request) == Admission::Taken
    };
    let large = 1_200_000;
    let of_one = (1..=40).filter(|client| taken(1, *client, large)).count();
    assert_eq!(of_one, (16 << 20) / large);
    assert!(taken(2, 41, large), "another's room is another's");
}

#[test]
fn r6_caps_refuse_all_but_the_first_of_a_session_one_a_client() {
    let mut requests = Requests::new(&constants());
    for first in [11, 12, 13, 14] {
        assert_eq!(admit(&mut requests, &request(1, 0, first, 1)), Admission::Taken);
    }
    assert_eq!(admit(&mut requests, &request(1, 0, 15, 1)), Admission::Busy);
    assert_eq!(admit(&mut requests, &request(1, 0, 9, 1)), Admission::Taken, "regardless of the caps");
    assert_eq!(admit(&mut requests, &request(1, 0, 8, 1)), Admission::Busy, "one a client");
    assert_eq!(admit(&mut requests, &request(1, 7, 1, 1)), Admission::Busy, "its sessions in turn");
    for client in [2, 3, 4] {
        assert_eq!(admit(&mut requests, &request(client, 0, 1, 1)), Admission::Taken);
    }
    assert_eq!(admit(&mut requests, &request(2, 0, 2, 1)), Admission::Busy, "full in all");
    assert_eq!(requests.take(Seq(10), 1 << 20).len(), 8, "what was taken regardless is proposed, too");
    assert_eq!(admit(&mut requests, &request(1, 0, 15, 1)), Admission::Taken, "only the unproposed count");
    requests.enter_view();
    requests.check();
    assert_eq!(requests.take(Seq(10), 1 << 20).len(), 9, "in a new view everything waits again");
}

#[test]
fn r6_only_the_first_of_a_session_is_timed_and_keeps_its_time() {
    let mut requests = Requests::new(&Constants::default());
    let [first, second] = [request(1, 0, 1, 1), request(1, 0, 2, 1)];
    admit(&mut requests, &second);
    assert_eq!(tick(&mut requests, 10).forward.len(), 1);
    tick(&mut requests, 400);
    // A lower number comes: the other one pauses, and goes on where it was.
    admit(&mut requests, &first);
    tick(&mut requests, 400);
    assert!(!tick(&mut requests, 400).overdue);
    let (batch, digests) = batch(&[&first]);
    requests.decide(Seq(10), &batch, &digests);
    assert!(!tick(&mut requests, 60).overdue);
    assert!(tick(&mut requests, 60).overdue);
    requests.start_afresh();
    assert!(!tick(&mut requests, 400).overdue);
}

#[test]
fn r6_a_copy_of_what_is_decided_does_not_wait() {
    let mut requests = Requests::new(&Constants::default());
    let one = request(1, 0, 1, 1);
    admit(&mut requests, &one);
    assert_eq!(admit(&mut requests, &one), Admission::Again);
    let (batch, digests) = batch(&[&one]);
    requests.decide(Seq(10), &batch, &digests);
    assert_eq!(admit(&mut requests, &one), Admission::Settled);
    requests.execute(Seq(10), Vec::new());
    assert_eq!(requests.waiting(), 0);
    assert!(!requests.is_known(&one.digest()), "from then on the cache answers");
}

#[test]
fn r6_numbers_that_another_request_has_used_up_never_execute() {
    let mut requests = Requests::new(&Constants::default());
    let [low, high, partly] = [request(1, 0, 1, 3), request(1, 0, 4, 2), request(1, 0, 5, 2)];
    let packed_otherwise = request(1, 0, 1, 5);
    for row in [&low, &high, &partly] {
        admit(&mut requests, row);
    }
    let (batch, digests) = batch(&[&packed_otherwise]);
    requests.decide(Seq(10), &batch, &digests);
    requests.check();
    assert_eq!(requests.waiting(), 1, "number 6 is undecided");
    assert!(requests.is_known(&partly.digest()));
}

#[test]
fn r6_a_request_goes_with_its_session_and_below_its_acknowledgement() {
    let mut requests = Requests::new(&Constants::default());
    let [gone, acknowledged, stays] = [request(1, 0, 1, 1), request(2, 0, 1, 1), request(2, 0, 9, 1)];
    for row in [&gone, &acknowledged, &stays] {
        admit(&mut requests, row);
    }
    let client = |seed: u8| ClientId(SigningKey::from_seed(&[seed; 32]).public());
    let session = SessionId(Position { slot: Seq(1), index: 0 });
    let moved = SessionWindow { ack: 5, high: 1_029 };
    requests.execute(Seq(10), vec![(client(1), session, None), (client(2), session, Some(moved))]);
    requests.check();
    assert_eq!((requests.waiting(), requests.is_known(&stays.digest())), (1, true));
}

/// A megabyte in number 1 of a session: the pace lets one go at once, the next 74 ms later.
fn large(client: u8) -> Verified<SignedRequest> {
    large_of(client, 1)
}

fn large_of(client: u8, first: u64) -> Verified<SignedRequest> {
    let key = SigningKey::from_seed(&[client; 32]);
    let session = SessionId(Position { slot: Seq(1), index: 0 });
    let call = Call::Commands { session, ack: 0, first, commands: vec![Blob::from(vec![client; 1_200_000])] };
    match (Request { client: ClientId(key.public()), call }).sign(CLUSTER, &key).verify(CLUSTER) {
        Ok(request) => request,
        Err(bad) => unreachable!("{bad}"),
    }
}

#[test]
fn r6_what_was_not_forwarded_yet_arms_nothing_at_a_backup() {
    let mut requests = Requests::new(&Constants::default());
    let [one, other] = [large(1), large(2)];
    admit(&mut requests, &one);
    admit(&mut requests, &other);
    assert!(requests.forward_at_once(&one.digest(), 0, 500));
    assert!(!requests.forward_at_once(&other.digest(), 0, 500));
    requests.settle(&one.digest()).unwrap_or_else(|why| unreachable!("{why:?}"));
    for _ in 0..4 {
        assert!(!tick_at(&mut requests, 500, 1).overdue, "the leader was not asked");
    }
    assert_eq!(tick_at(&mut requests, 0, 100).forward, [other]);
    assert!(tick_at(&mut requests, 502, 110).overdue);
}

/// Its forward is what finds out that the own executor has answered it.
#[test]
fn r6_what_waits_for_being_forwarded_again_counts_a_tick_after_that() {
    let mut requests = Requests::new(&Constants::default());
    let [one, other] = [large(1), large(2)];
    admit(&mut requests, &one);
    assert!(requests.forward_at_once(&one.digest(), 0, 500));
    tick_at(&mut requests, 0, 0);
    admit(&mut requests, &other);
    assert!(requests.forward_at_once(&other.digest(), 124, 500));
    assert!(!tick_at(&mut requests, 400, 125).overdue, "due, and put off");
    assert!(!tick_at(&mut requests, 200, 126).overdue);
    assert_eq!(tick_at(&mut requests, 0, 200).forward, [one]);
    assert!(tick_at(&mut requests, 0, 201).overdue);
}

#[test]
fn r6_what_was_put_off_when_it_came_is_forwarded_in_its_turn_and_not_twice() {
    let mut requests = Requests::new(&Constants::default());
    let of_one: Vec<_> = (1..=4).map(|first| large_of(1, first)).collect();
    for request in &of_one {
        admit(&mut requests, request);
    }
    let at_once = of_one.iter().filter(|request| requests.forward_at_once(&request.digest(), 0, 4_000));
    assert_eq!(at_once.count(), 1);
    let mut forwarded = Vec::new();
    for now_ms in (10..=900).step_by(10) {
        let ticked = tick_at(&mut requests, 0, now_ms);
        requests.check();
        assert!(ticked.forward.len() <= 1);
        forwarded.extend(ticked.forward);
    }
    assert_eq!(forwarded.len(), 3, "those behind the first, too");
    assert!(of_one.iter().skip(1).all(|request| forwarded.contains(request)));
}
