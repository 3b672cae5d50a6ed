//! R23, R25, R26: a command executes once, and its answer is given as often as it is asked for.

use polder_executor::{Lookup, Share};
use polder_types::{Answer, Blob, Call, Constants, Failure, Position, Reply, Request, Seq, SessionId, SignedRequest};

use crate::script::{Does, Saw, append, put, writes};
use crate::world::{World, answers, constants, failed, id, read, replies, saw};

fn request(signed: &SignedRequest) -> Request {
    signed.request().expect("a request")
}

#[test]
fn r23_a_copy_gets_the_cached_answer_and_changes_nothing() {
    let mut world = World::new(constants());
    let session = world.open(1);
    let request = world.commands(1, session, 0, 1, [writes(vec![append("log", "x")])]);
    let first = world.slot([request.clone()]);
    let copy = world.slot([request]);
    assert_eq!(first.replies, copy.replies);
    assert_eq!((first.commands, copy.commands), (1, 0));
    assert_eq!(world.value("log"), Some(Blob::copy(b"x")));
}

#[test]
fn r26_a_copy_in_the_same_slot_waits_for_the_first_ones_answer() {
    let mut world = World::new(constants());
    let session = world.open(1);
    let request = world.commands(1, session, 0, 1, [writes(vec![append("log", "x")])]);
    let executed = world.slot([request.clone(), request]);
    assert_eq!(executed.replies[0], executed.replies[1]);
    assert_eq!(saw(&executed.replies[0].1.answer), vec![Saw::Version(1)]);
    assert_eq!(executed.commands, 1);
}

#[test]
fn r25_numbers_execute_in_any_order_within_the_window_and_not_beyond_it() {
    let mut world = World::new(constants());
    let session = world.open(1);
    for number in [3, 1, 4] {
        let request = world.commands(1, session, 0, number, [writes(vec![append("log", &number.to_string())])]);
        assert!(matches!(answers(&world.slot([request]))[..], [Answer::Done(_)]));
    }
    let beyond = world.commands(1, session, 0, 5, [writes(vec![append("log", "5")])]);
    assert_eq!(answers(&world.slot([beyond.clone()])), [failed(Failure::OutsideWindow)]);
    assert_eq!(world.value("log"), Some(Blob::copy(b"314")));
    // What the window refused took no number: once more is acknowledged, it executes.
    let acknowledging = world.commands(1, session, 1, 2, [writes(vec![append("log", "2")])]);
    world.slot([acknowledging, beyond]);
    assert_eq!(world.value("log"), Some(Blob::copy(b"31425")));
}

#[test]
fn r25_what_is_acknowledged_is_forgotten_and_never_executes_again() {
    let mut world = World::new(constants());
    let session = world.open(1);
    let first = world.commands(1, session, 0, 1, [writes(vec![append("log", "x"), Does::Answer(1_000)])]);
    world.slot([first.clone()]);
    let held = world.session_bytes();
    let second = world.commands(1, session, 1, 2, [writes(vec![append("log", "y")])]);
    assert_eq!(world.slot([second]).windows, [(id(1), session, Some((1, 5)))]);
    assert!(world.session_bytes() + 900 < held);
    assert_eq!(answers(&world.slot([first])), [failed(Failure::OutsideWindow)]);
    // An acknowledgement never goes back.
    let late = world.commands(1, session, 0, 2, [writes(vec![append("log", "y")])]);
    assert_eq!(world.slot([late]).windows, [(id(1), session, Some((1, 5)))]);
    assert_eq!(world.value("log"), Some(Blob::copy(b"xy")));
}

#[test]
fn r25_a_number_reused_with_other_bytes_answers_so() {
    let mut world = World::new(constants());
    let session = world.open(1);
    let one = world.commands(1, session, 0, 1, [writes(vec![append("log", "x")])]);
    let other = world.commands(1, session, 0, 1, [writes(vec![append("log", "y")])]);
    world.slot([one]);
    assert_eq!(answers(&world.slot([other])), [failed(Failure::NumberReused)]);
    assert_eq!(world.value("log"), Some(Blob::copy(b"x")));
}

#[test]
fn r25_a_copy_of_a_read_reads_again_and_no_reply_of_one_is_kept() {
    let mut world = World::new(constants());
    let session = world.open(1);
    let writer = world.open(2);
    world.run(2, writer, 1, &writes(vec![put("k", &"1".repeat(1_000))]));
    let held = world.session_bytes();
    let request = world.commands(1, session, 0, 1, [read("k")]);
    world.slot([request.clone()]);
    assert!(world.session_bytes() < held + 300);
    world.run(2, writer, 2, &writes(vec![put("k", "2")]));
    let again = world.slot([request]);
    assert_eq!(saw(&again.replies[0].1.answer), [Saw::Value(Some(Blob::copy(b"2")))]);
    assert_eq!(again.commands, 1);
}

#[test]
fn r25_beyond_the_caps_the_effects_stand_and_the_reply_goes() {
    for constants in [
        Constants { reply_cache_per_session_bytes_max: 1_500, ..constants() },
        Constants { reply_cache_bytes_max: 1_500, ..constants() },
    ] {
        let mut world = World::new(constants);
        let session = world.open(1);
        let script = writes(vec![append("log", "x"), Does::Answer(1_000)]);
        let requests: Vec<_> = (1..=2).map(|number| world.commands(1, session, 0, number, [script.clone()])).collect();
        let executed = world.slot(&requests[..]);
        // Those who hear it now hear it whole.
        assert!(answers(&executed).iter().all(|answer| matches!(answer, Answer::Done(_))));
        let copies = world.slot(&requests[..]);
        assert_eq!(copies.replies[0], executed.replies[0]);
        assert_eq!(answers(&copies)[1], failed(Failure::ReplyNotKept));
        assert_eq!(world.value("log"), Some(Blob::copy(b"xx")));
        // What is acknowledged makes room.
        let third = world.commands(1, session, 2, 3, [script]);
        let executed = world.slot([third.clone()]);
        assert_eq!(world.slot([third]).replies, executed.replies);
    }
}

#[test]
fn a_session_is_its_clients_alone() {
    let mut world = World::new(constants());
    let session = world.open(1);
    let theft = world.commands(2, session, 3, 1, [writes(vec![append("log", "x")])]);
    let closing = world.sign(2, Call::Close { session });
    let executed = world.slot([theft, closing]);
    assert_eq!(answers(&executed), [failed(Failure::NoSession), Answer::Closed]);
    assert_eq!(executed.windows, []);
    assert!(matches!(world.run(1, session, 1, &writes(vec![append("log", "y")])), Answer::Done(_)));
    assert_eq!(world.value("log"), Some(Blob::copy(b"y")));
}

#[test]
fn r24_a_closed_session_is_gone_for_good() {
    let mut world = World::new(constants());
    let empty = world.session_bytes();
    let session = world.open(1);
    let opened = world.session_bytes();
    world.run(1, session, 1, &writes(vec![append("log", "x")]));
    let closing = world.sign(1, Call::Close { session });
    let executed = world.slot([closing.clone()]);
    assert_eq!(answers(&executed), [Answer::Closed]);
    assert_eq!(executed.windows, [(id(1), session, None)]);
    // Only the remembered OPEN is left.
    assert!(empty < world.session_bytes() && world.session_bytes() < opened);
    assert_eq!(world.run(1, session, 2, &writes(vec![append("log", "y")])), failed(Failure::NoSession));
    assert_eq!(answers(&world.slot([closing])), [Answer::Closed]);
    assert_eq!(world.value("log"), Some(Blob::copy(b"x")));
}

#[test]
fn r26_within_a_slot_every_request_sees_those_before_it() {
    let mut world = World::new(constants());
    let opening = world.opening(1);
    let session = SessionId(Position { slot: Seq(1), index: 0 });
    let run = world.commands(1, session, 0, 1, [writes(vec![append("log", "x")])]);
    let acknowledge = world.commands(1, session, 1, 2, [writes(vec![append("log", "y")])]);
    let close = world.sign(1, Call::Close { session });
    let executed = world.slot([opening, run.clone(), acknowledge, run.clone(), close, run]);
    let answers = answers(&executed);
    assert_eq!(answers[0], Answer::Opened(session));
    assert!(matches!(answers[1..3], [Answer::Done(_), Answer::Done(_)]));
    assert_eq!(answers[3..], [failed(Failure::OutsideWindow), Answer::Closed, failed(Failure::NoSession)]);
    assert_eq!(executed.windows, [(id(1), session, None)]);
    assert_eq!(world.value("log"), Some(Blob::copy(b"xy")));
}

#[test]
fn r12_what_is_no_request_is_passed_over_and_what_is_no_command_takes_its_number() {
    let mut world = World::new(constants());
    let session = world.open(1);
    let signature = world.opening(1).signature;
    let garbage = SignedRequest { body: Blob::copy(b"garbage"), signature };
    let malformed = Call::Commands { session, ack: 0, first: 1, commands: vec![Blob::copy(&[255; 9])] };
    let malformed = world.sign(1, malformed);
    let executed = world.slot([garbage, malformed.clone()]);
    assert_eq!(answers(&executed), [failed(Failure::Malformed)]);
    assert_eq!(executed.failures, [(Failure::Malformed, 1)].into());
    assert_eq!(world.slot([malformed]).replies, executed.replies);
}

/// Whoever asks what became of a number bars it with a command of no bytes, and never takes it from another.
#[test]
fn r25_a_void_takes_a_number_for_ever_unless_a_command_has_it() {
    let mut world = World::new(constants());
    let session = world.open(1);
    let void = |world: &World, number| {
        let call = Call::Commands { session, ack: 0, first: number, commands: vec![Blob::default()] };
        world.sign(1, call)
    };
    let write = |world: &World, number| world.commands(1, session, 0, number, [writes(vec![append("log", "x")])]);
    // In one slot as in several.
    let slot = [void(&world, 1), write(&world, 1), write(&world, 2), void(&world, 2)];
    let first = answers(&world.slot(slot));
    assert!(matches!(first[2], Answer::Done(_)), "{first:?}");
    let reused = failed(Failure::NumberReused);
    assert_eq!((&first[..2], &first[3]), (&[failed(Failure::Malformed), reused.clone()][..], &reused));
    let again = [write(&world, 1), void(&world, 1), void(&world, 2), write(&world, 2)];
    let again = again.map(|request| answers(&world.slot([request])).remove(0));
    assert_eq!(again, [reused.clone(), failed(Failure::Malformed), reused, first[2].clone()]);
    assert_eq!(world.value("log"), Some(Blob::copy(b"x")));
}

#[test]
fn replies_name_what_they_answer() {
    let mut world = World::new(constants());
    let session = world.open(1);
    let scripts = [writes(vec![append("log", "x")]), read("log")];
    let signed = world.commands(1, session, 0, 1, scripts);
    let Call::Commands { commands, .. } = request(&signed).call else { panic!("commands") };
    for (index, reply) in replies(&world.slot([signed])).iter().enumerate() {
        assert_eq!((reply.session, reply.number), (Some(session), index as u64 + 1));
        assert_eq!(reply.command, Reply::command_digest(&commands[index]));
    }
    let opening = world.opening(2);
    assert_eq!(replies(&world.slot([opening.clone()]))[0].command, opening.digest());
}

#[test]
fn r23_before_ordering_copies_are_answered_and_what_never_executes_is_not_ordered() {
    let mut world = World::new(constants());
    let session = world.open(1);
    let write = writes(vec![append("log", "x")]);
    let done = world.commands(1, session, 1, 2, [write.clone(), write.clone()]);
    let executed = world.slot([done.clone()]);
    let window = Some((1, 5));
    let lookup = |world: &World, signed: &SignedRequest| world.executor.lookup(&request(signed), &mut { Share::ALL });

    assert_eq!(lookup(&world, &done), Lookup::Answered(replies(&executed)));
    // Partly done: the rest is ordered.
    let partly = world.commands(1, session, 1, 3, [write.clone(), write.clone()]);
    assert_eq!(lookup(&world, &partly), Lookup::Order { window, known: replies(&executed)[1..].to_vec() });
    // Beyond the window: it may execute later.
    let beyond = world.commands(1, session, 1, 6, [write.clone()]);
    assert_eq!(lookup(&world, &beyond), Lookup::Order { window, known: vec![] });
    // Acknowledged, reused, or of a session that is gone: never.
    let never = |world: &World, signed: &SignedRequest| match lookup(world, signed) {
        Lookup::Never(replies) => replies[0].answer.clone(),
        other => panic!("{other:?}"),
    };
    let acknowledged = world.commands(1, session, 1, 1, [write.clone()]);
    assert_eq!(never(&world, &acknowledged), failed(Failure::OutsideWindow));
    let reused = world.commands(1, session, 1, 2, [read("k")]);
    assert_eq!(never(&world, &reused), failed(Failure::NumberReused));
    let gone = world.commands(2, session, 1, 4, [write.clone()]);
    assert_eq!(never(&world, &gone), failed(Failure::NoSession));
    // Of a session that a slot above may open: not now.
    let later = SessionId(Position { slot: Seq(9), index: 0 });
    let early = world.commands(1, later, 0, 1, [write]);
    assert_eq!(lookup(&world, &early), Lookup::Order { window: Some((0, 0)), known: vec![] });
    // A read is ordered again.
    let reading = world.commands(1, session, 1, 4, [read("log")]);
    world.slot([reading.clone()]);
    assert_eq!(lookup(&world, &reading), Lookup::Order { window, known: vec![] });
    // A CLOSE is ordered once.
    let close = world.sign(1, Call::Close { session });
    assert_eq!(lookup(&world, &close), Lookup::Order { window, known: vec![] });
    let closed = world.slot([close.clone()]);
    assert_eq!(lookup(&world, &close), Lookup::Answered(replies(&closed)));
}

/// However often a small request is repeated, a copy of it makes a bounded part of its answers leave, and in the end
/// all of them have left.
#[test]
fn r23_what_a_copy_is_not_given_the_next_ones_are() {
    let mut world = World::new(constants());
    let session = world.open(1);
    let long = "x".repeat(1_000);
    let write = writes(vec![append("log", &long)]);
    let request = world.commands(1, session, 0, 1, [write.clone(), write.clone(), write.clone(), write]);
    let all = replies(&world.slot([request.clone()]));
    let request = request.request().unwrap();
    let given = |share: &mut Share| match world.executor.lookup(&request, share) {
        Lookup::Answered(replies) => replies.iter().map(|reply| reply.number).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(all.len(), 4);
    let mut share = Share { bytes: 0, after: None };
    assert_eq!(given(&mut share), [] as [u64; 0]);
    assert_eq!(share.after, None);
    let mut after = None;
    for expected in [vec![1], vec![2], vec![3], vec![4], vec![1]] {
        let mut share = Share { bytes: 1, after };
        assert_eq!(given(&mut share), expected);
        after = share.after;
    }
    // Behind the last that was given first, then from the start; and once all was given nothing is remembered.
    let mut share = Share { bytes: u64::MAX, after: Some(2) };
    assert_eq!(given(&mut share), [3, 4, 1, 2]);
    assert_eq!(share.after, None);
    assert_eq!(given(&mut Share { bytes: u64::MAX, after: Some(99) }), [1, 2, 3, 4]);
}

#[test]
fn the_last_numbers_that_there_are_stop_nobody() {
    let mut world = World::new(constants());
    let session = world.open(1);
    let far = world.commands(1, session, 0, u64::MAX - 1, [read("k")]);
    assert!(matches!(world.executor.lookup(&request(&far), &mut { Share::ALL }), Lookup::Order { .. }));
    assert_eq!(answers(&world.slot([far])), [failed(Failure::OutsideWindow)]);
    // Who acknowledges them all is left with the rest.
    let last = world.commands(1, session, u64::MAX - 2, u64::MAX - 1, [read("k")]);
    assert!(matches!(answers(&world.slot([last]))[..], [Answer::Done(_)]));
    let last = world.commands(1, session, u64::MAX, u64::MAX - 1, [read("k")]);
    assert_eq!(answers(&world.slot([last])), [failed(Failure::OutsideWindow)]);
}
