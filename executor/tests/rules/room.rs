//! R24, R25, R27: what clients make every replica hold is bounded, and so is what one slot undoes of it.

use std::sync::Arc;

use polder_executor::{Executed, Executor};
use polder_types::{Answer, Blob, Call, Constants, Failure, Seq, SessionId, Timestamp};

use crate::script::{Scripted, append, writes};
use crate::world::{World, answers, failed, genesis};

/// `rows` of the reply cache in all, of which a session's own are `rows / 2 / sessions_max`, and the rest is shared.
fn constants(rows: u64, sessions_max: u32) -> Constants {
    let reply_cache_bytes_max = rows * 512;
    Constants { reply_cache_bytes_max, sessions_max, partitions: 3, session_partitions: 2, ..Constants::default() }
}

/// An OPEN that nobody has sent before.
fn open(world: &World, by: u8, nonce: u64) -> polder_types::SignedRequest {
    let interval = world.config.genesis.constants.interval_slots;
    let cut = Seq(world.executor.executed().0 / interval * interval);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&nonce.to_le_bytes());
    world.sign(by, Call::Open { nonce: bytes, cut })
}

fn session(world: &mut World, by: u8, nonce: u64) -> SessionId {
    let request = open(world, by, nonce);
    match answers(&world.slot([request]))[..] {
        [Answer::Opened(session)] => session,
        ref other => panic!("no session: {other:?}"),
    }
}

/// Numbers `first..first + count` of a session, empty commands; how many were taken.
fn take(world: &mut World, by: u8, session: SessionId, ack: u64, first: u64, count: usize) -> usize {
    let commands = vec![Blob::default(); count];
    let request = world.sign(by, Call::Commands { session, ack, first, commands });
    let answers = answers(&world.slot([request]));
    let refused = answers.iter().position(|answer| *answer == failed(Failure::NoRoom)).unwrap_or(count);
    assert!(answers[refused..].iter().all(|answer| *answer == failed(Failure::NoRoom)), "{answers:?}");
    refused
}

fn effects(executed: &Executed) -> usize {
    executed.effects.values().map(Vec::len).sum()
}

#[test]
fn r25_rows_are_bounded_in_all_and_no_key_has_more_than_its_share() {
    // 64 shared, 4 of a key, and 4 a session's own.
    let mut world = World::new(constants(128, 16));
    let mut rows = 0;
    for by in 20..36 {
        let session = session(&mut world, by, by.into());
        let taken = take(&mut world, by, session, 0, 1, 1_024);
        assert_eq!(taken, 8, "of key {by}");
        // And nothing more in other words.
        assert_eq!(take(&mut world, by, session, 0, 500, 10), 0);
        rows += taken;
    }
    assert_eq!(rows, 128);
}

#[test]
fn r25_who_acknowledges_gets_on_however_full_the_table_is() {
    let mut world = World::new(constants(128, 64));
    // Sixteen keys hold all that is shared, four each and one of their own.
    for by in 20..36 {
        let hoard = session(&mut world, by, by.into());
        assert_eq!(take(&mut world, by, hoard, 0, 1, 1_024), 5);
    }
    let own = session(&mut world, 1, 0);
    for number in 1..100 {
        // A hole must not be filled from above: the lowest number is its own, others are not.
        assert_eq!(take(&mut world, 1, own, number - 1, number + 1, 3), 0);
        assert_eq!(take(&mut world, 1, own, number - 1, number, 3), 1);
    }
}

#[test]
fn r25_what_had_no_room_took_no_number_and_executes_once_there_is_room() {
    let mut world = World::new(constants(2, 2));
    let (own, other) = (session(&mut world, 1, 1), session(&mut world, 2, 2));
    let logged = |number: u64| writes(vec![append("log", &number.to_string())]);
    // One is its own, one is shared.
    let request = world.commands(1, own, 0, 1, [logged(1), logged(2), logged(3)]);
    let executed = world.slot([request.clone()]);
    assert!(matches!(answers(&executed)[..2], [Answer::Done(_), Answer::Done(_)]));
    assert_eq!(answers(&executed)[2], failed(Failure::NoRoom));
    assert_eq!(executed.commands, 2);
    // Nor for another client, whose first number is its own.
    let beside = world.commands(2, other, 0, 1, [logged(7), logged(8)]);
    assert_eq!(answers(&world.slot([beside]))[1], failed(Failure::NoRoom));
    // Copies are answered as they were; and what was refused is not barred for another command either.
    assert_eq!(world.slot([request.clone()]).replies, executed.replies);
    // A request's own acknowledgement makes room for its commands, and for others'.
    let acknowledging = world.commands(1, own, 2, 3, [logged(3)]);
    let beside = world.commands(2, other, 0, 2, [logged(8)]);
    assert!(answers(&world.slot([acknowledging, beside])).iter().all(|answer| matches!(answer, Answer::Done(_))));
    assert_eq!(answers(&world.slot([request]))[..2], [failed(Failure::OutsideWindow), failed(Failure::OutsideWindow)]);
    assert_eq!(world.value("log"), Some(Blob::copy(b"12738")));
}

#[test]
fn r25_sessions_that_end_give_back_what_they_held() {
    let mut world = World::new(Constants { session_expiry_ms: 3_000, ..constants(2, 2) });
    for round in 0..6 {
        let own = session(&mut world, 1, round);
        assert_eq!(take(&mut world, 1, own, 0, 1, 3), 2, "round {round}");
        if round % 2 == 0 {
            world.slot([world.sign(1, Call::Close { session: own })]);
        } else {
            for _ in 0..2 {
                world.now = world.now.plus(2_000);
                world.slot([]);
            }
        }
        assert_eq!(world.executor.sessions(), 0);
    }
}

#[test]
fn r26_a_restored_executor_has_room_for_the_same() {
    let mut world = World::new(constants(64, 8));
    let sessions: Vec<SessionId> = (0..3).map(|index| session(&mut world, 1, index)).collect();
    take(&mut world, 1, sessions[0], 0, 2, 5);
    take(&mut world, 1, sessions[1], 3, 6, 4);
    let config = world.config.clone();
    let mut restored = Executor::restore(Arc::new(Scripted), config, &world.executor.freeze()).expect("its own state");
    for (index, ack) in [(2, 0), (0, 4), (1, 3), (2, 1), (0, 6), (1, 9)] {
        let call = Call::Commands { session: sessions[index], ack, first: ack + 1, commands: vec![Blob::default(); 9] };
        let batch = polder_types::Batch { ts: world.now, requests: vec![world.sign(1, call)] };
        let slot = world.executor.executed().next();
        assert_eq!(restored.execute(slot, &batch), world.executor.execute(slot, &batch));
    }
}

/// By default a key may have all the windows of all its sessions full, as it could before there was this bound.
#[test]
fn r25_by_default_no_key_alone_is_ever_refused() {
    let mut world = World::with(genesis(Constants::default()));
    let constants = Constants::default();
    for index in 0..constants.sessions_per_client_max {
        let own = session(&mut world, 1, index.into());
        assert_eq!(take(&mut world, 1, own, 0, 1, 1_024), 1_024);
    }
}

#[test]
fn r24_opens_are_forgotten_a_few_a_slot_the_longest_stale_first() {
    let mut world = World::new(Constants { interval_slots: 64, open_fresh_cuts: 1, ..constants(1 << 20, 1_000) });
    let mut held = Vec::new();
    for slot in 0..64 {
        let opens: Vec<_> = (0..50).map(|open_of| open(&world, 1 + slot % 4, u64::from(slot) * 50 + open_of)).collect();
        held.extend(opens.clone());
        assert!(answers(&world.slot(opens)).iter().all(|answer| matches!(answer, Answer::Opened(_))));
    }
    // 3 200 of one cut go in four slots. Forgotten or not, a copy opens nothing any more.
    let late = world.slot(&held[3_196..]);
    let is_old = |answer: &Answer| matches!(answer, Answer::Opened(_)) || *answer == failed(Failure::StaleOpen);
    assert!(answers(&late).iter().all(is_old) && late.windows.is_empty());
    let went: Vec<usize> = std::iter::once(effects(&late)).chain((0..4).map(|_| effects(&world.slot([])))).collect();
    assert_eq!(went, [1_024, 1_024, 1_024, 128, 0]);
    let copies = world.slot(&held[..4]);
    assert_eq!(answers(&copies), vec![failed(Failure::StaleOpen); 4]);
}

#[test]
fn r24_a_key_and_all_keys_open_so_many_sessions_in_k_cuts_and_no_more() {
    let constants =
        Constants { interval_slots: 8, open_fresh_cuts: 1, sessions_per_client_max: 2, ..constants(1 << 20, 20) };
    let mut world = World::new(constants);
    let open_many = |world: &mut World, by: u8, count: u64| {
        let opens: Vec<_> = (0..count).map(|nonce| open(world, by, nonce)).collect();
        let answers = answers(&world.slot(opens));
        answers.iter().filter(|answer| matches!(answer, Answer::Opened(_))).count()
    };
    // A key opens and closes as it likes, but at most 32 times as many as it may have.
    assert_eq!(open_many(&mut world, 1, 70), 64);
    assert_eq!(open_many(&mut world, 1, 70), 64, "copies are answered as the first ones were");
    // All together at most four times as many as there may be.
    assert_eq!(open_many(&mut world, 2, 70), 16);
    assert_eq!(open_many(&mut world, 3, 1), 0);
    // Once they are stale there is room again.
    world.idle_to(9);
    assert_eq!(open_many(&mut world, 3, 1), 1);
}

#[test]
fn r27_sessions_that_expire_together_end_a_few_a_slot_the_longest_unused_first() {
    let mut world = World::new(Constants { session_expiry_ms: 1_500, ..constants(1 << 22, 1_000) });
    world.now = Timestamp(1_000_000);
    let mut sessions = Vec::new();
    for index in 0..6 {
        let own = session(&mut world, 1, index);
        assert_eq!(take(&mut world, 1, own, 0, 1, 600), 600);
        sessions.push(own);
        world.now = world.now.plus(1);
    }
    // The first is used once more, so it is the last to end, and the restored executor knows.
    take(&mut world, 1, sessions[0], 0, 1, 1);
    let config = world.config.clone();
    let mut restored = Executor::restore(Arc::new(Scripted), config, &world.executor.freeze()).expect("its own state");
    world.now = world.now.plus(1_900);
    let mut ended = Vec::new();
    for _ in 0..5 {
        let batch = polder_types::Batch { ts: world.now, requests: vec![] };
        let executed = world.executor.execute(world.executor.executed().next(), &batch);
        assert_eq!(restored.execute(executed.slot, &batch), executed);
        // Two sessions with their rows, and the clock.
        assert!(effects(&executed) <= 2 * 601 + 1, "{} effects", effects(&executed));
        ended.push(executed.windows.iter().map(|(_, session, _)| *session).collect::<Vec<_>>());
    }
    let pair = |one: usize, other: usize| vec![sessions[one], sessions[other]];
    assert_eq!(ended, [pair(1, 2), pair(3, 4), pair(0, 5), vec![], vec![]]);
}

/// One that is past its time and not ended yet goes on when it is used.
#[test]
fn r27_who_comes_before_its_turn_to_end_goes_on() {
    let mut world = World::new(Constants { session_expiry_ms: 1_500, ..constants(1 << 22, 1_000) });
    let first = session(&mut world, 1, 1);
    take(&mut world, 1, first, 0, 1, 1_024);
    world.now = world.now.plus(1);
    let second = session(&mut world, 1, 2);
    take(&mut world, 1, second, 0, 1, 5);
    world.now = world.now.plus(1_900);
    assert_eq!(take(&mut world, 1, second, 5, 6, 1), 1);
    assert_eq!(world.executor.sessions(), 1);
    world.slot([]);
    assert_eq!(world.executor.sessions(), 1);
}
