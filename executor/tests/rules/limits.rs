//! R28: nothing that a command does stops a replica, splits replicas, or fills them without bound.

use polder_executor::Limits;
use polder_types::{Answer, Blob, Constants, Failure};

use crate::script::{Declares, Does, Saw, Script, append, delete, get, put, reads, shrinks, writes};
use crate::world::{World, answers, constants, failed, read, saw};

/// Runs a script that also writes, and checks that it failed so, for ever, and wrote nothing.
fn fails(constants: Constants, script: Script, failure: Failure) {
    let mut world = World::new(constants);
    let session = world.open(1);
    let request = world.commands(1, session, 0, 1, [script]);
    let executed = world.slot([request.clone()]);
    assert_eq!(answers(&executed), [failed(failure)]);
    assert_eq!(executed.failures, [(failure, 1)].into());
    let keys = world.config.genesis.constants.partitions;
    assert!(executed.effects.keys().all(|partition| partition.0 >= keys), "it has effects");
    assert_eq!(world.executor.state_bytes(), 0);
    assert_eq!(world.slot([request]).replies, executed.replies);
    assert!(matches!(world.run(1, session, 2, &writes(vec![append("log", "x")])), Answer::Done(_)));
}

#[test]
fn a_panic_is_an_answer_without_effects() {
    fails(constants(), writes(vec![put("k", "v"), Does::Panic]), Failure::Panicked);
}

#[test]
fn an_access_that_is_not_declared_is_an_answer_without_effects() {
    let narrow = |does| Script { declares: Declares::Writes, prefix: b"a".to_vec(), does: vec![put("ab", "v"), does] };
    fails(constants(), narrow(get("b")), Failure::Undeclared);
    fails(constants(), narrow(put("b", "v")), Failure::Undeclared);
    fails(constants(), narrow(delete("b")), Failure::Undeclared);
    for to in [None, Some(b"b\0".to_vec())] {
        let range = Does::Range { from: b"a".to_vec(), to, entries_max: 1, bytes_max: 1 };
        fails(constants(), narrow(range), Failure::Undeclared);
    }
    fails(constants(), reads(vec![put("k", "v")]), Failure::Undeclared);
    // Catching it helps nobody.
    fails(constants(), narrow(Does::Catch(Box::new(put("b", "v")))), Failure::Undeclared);
}

#[test]
fn too_many_accesses_and_too_many_bytes_are_an_answer_without_effects() {
    fails(constants(), writes(vec![put("k", "v"), Does::ReadForEver(b"k".to_vec())]), Failure::TooMuch);
    let big = Does::Put(b"k".to_vec(), Blob::from(vec![0; 1 << 20]));
    let enough = Limits::WRITTEN_BYTES_MAX as usize >> 20;
    fails(Constants { reply_bytes_max: 1_000, ..constants() }, writes(vec![big; enough]), Failure::TooMuch);
}

#[test]
fn a_footprint_of_too_many_spans_is_an_answer_without_effects() {
    let keys = |keys| Script { declares: Declares::Keys(keys), prefix: vec![], does: vec![] };
    fails(constants(), keys(Limits::SPANS_MAX as u32 + 1), Failure::TooMuch);
    let mut world = World::new(constants());
    let session = world.open(1);
    assert!(matches!(world.run(1, session, 1, &keys(Limits::SPANS_MAX as u32)), Answer::Done(_)));
}

#[test]
fn a_range_counts_what_it_looks_at() {
    // 4 partitions and 3 entries a range: 7 accesses.
    let mut world = World::new(Constants { partitions: 4, ..constants() });
    let session = world.open(1);
    let mut does: Vec<Does> = ["a", "b", "c"].map(|key| put(key, "")).to_vec();
    let range = Does::Range { from: vec![], to: None, entries_max: 9, bytes_max: 9_000 };
    let ranges = (Limits::ACCESSES_MAX as usize - 3) / 7;
    does.extend(vec![range.clone(); ranges]);
    assert!(matches!(world.run(1, session, 1, &writes(does.clone())), Answer::Done(_)));
    does.push(range);
    assert_eq!(world.run(1, session, 2, &writes(does)), failed(Failure::TooMuch));
}

#[test]
fn r25_a_reply_that_is_too_large_is_an_answer_without_effects() {
    let constants = Constants { reply_bytes_max: 1_000, ..constants() };
    fails(constants.clone(), writes(vec![put("k", "v"), Does::Answer(1_000)]), Failure::ReplyTooLarge);
    let mut world = World::new(constants);
    let session = world.open(1);
    // One number of steps, one kind, two of length.
    assert!(matches!(world.run(1, session, 1, &writes(vec![Does::Answer(996)])), Answer::Done(_)));
}

#[test]
fn a_command_that_says_that_it_shrinks_and_grows_is_an_answer_without_effects() {
    fails(constants(), shrinks(vec![put("k", "v")]), Failure::Undeclared);
    let mut world = World::new(constants());
    let session = world.open(1);
    world.run(1, session, 1, &writes(vec![put("k", "long")]));
    assert!(matches!(world.run(1, session, 2, &shrinks(vec![put("k", "shot")])), Answer::Done(_)));
    assert_eq!(world.run(1, session, 3, &shrinks(vec![put("k", "short")])), failed(Failure::Undeclared));
    assert!(matches!(world.run(1, session, 4, &shrinks(vec![delete("k"), put("j", "long")])), Answer::Done(_)));
}

#[test]
fn a_full_state_is_decided_by_the_total_at_the_last_cut_two_intervals_ago() {
    // I = 4. Written in slot 2, so in the total of cut 4, which decides in the slots from 12 to 15.
    let mut world = World::new(Constants { state_bytes_max: 200, ..constants() });
    let session = world.open(1);
    world.run(1, session, 1, &writes(vec![put("k", &"x".repeat(200))]));
    world.idle_to(10);
    assert!(matches!(world.run(1, session, 2, &writes(vec![put("j", "y")])), Answer::Done(_)), "slot 11");
    assert_eq!(world.run(1, session, 3, &writes(vec![put("j", "z")])), failed(Failure::StateFull), "slot 12");
    // Reads and what shrinks are spared; so it is emptied again.
    assert_eq!(saw(&world.run(1, session, 4, &read("j"))), [Saw::Value(Some(Blob::copy(b"y")))]);
    assert!(matches!(world.run(1, session, 5, &shrinks(vec![delete("k")])), Answer::Done(_)), "slot 14");
    world.idle_to(22);
    assert_eq!(world.run(1, session, 6, &writes(vec![put("j", "z")])), failed(Failure::StateFull), "slot 23");
    assert!(matches!(world.run(1, session, 7, &writes(vec![put("j", "z")])), Answer::Done(_)), "slot 24");
}

#[test]
fn a_command_sees_its_own_writes_and_nothing_of_one_that_failed() {
    let mut world = World::new(constants());
    let session = world.open(1);
    world.run(1, session, 1, &writes(vec![put("b", "1"), put("d", "1")]));
    let range = Does::Range { from: b"a".to_vec(), to: Some(b"e".to_vec()), entries_max: 9, bytes_max: 9_000 };
    let own = writes(vec![put("a", "2"), put("c", "2"), delete("d"), delete("x"), put("c", "3"), range, get("c")]);
    let keys = ["a", "b", "c"].map(|key| Blob::copy(key.as_bytes())).to_vec();
    let expected = [
        Saw::Version(1),
        Saw::Version(1),
        Saw::Value(Some(Blob::copy(b"1"))),
        Saw::Value(None),
        Saw::Version(2),
        Saw::Keys(keys, None),
        Saw::Value(Some(Blob::copy(b"3"))),
    ];
    assert_eq!(saw(&world.run(1, session, 2, &own)), expected);
    // A key that a command makes and deletes was never there.
    let before = world.executor.state_bytes();
    world.run(1, session, 3, &writes(vec![put("e", "4"), delete("e")]));
    assert_eq!(world.executor.state_bytes(), before);
    world.run(1, session, 4, &writes(vec![put("a", "5"), Does::Panic]));
    assert_eq!(world.value("a"), Some(Blob::copy(b"2")));
}

#[test]
fn a_range_stops_where_it_is_full_and_says_where_to_go_on() {
    let mut world = World::new(constants());
    let session = world.open(1);
    let keys: Vec<String> = (0..20).map(|key| format!("k{key:02}")).collect();
    world.run(1, session, 1, &writes(keys.iter().map(|key| put(key, "v")).collect()));
    let range = |from: &[u8], entries_max, bytes_max| Does::Range {
        from: from.to_vec(),
        to: Some(b"k19".to_vec()),
        entries_max,
        bytes_max,
    };
    // 3 bytes of key, 1 of value, 64 beside: three fit into 220.
    for (number, (entries_max, bytes_max, page)) in [(9, 220, 3), (5, 9_000, 5), (9, 0, 1)].into_iter().enumerate() {
        let (mut from, mut seen) = (Blob::copy(b"k"), Vec::new());
        for round in 0u64.. {
            let script = reads(vec![range(&from, entries_max, bytes_max)]);
            let number = 2 + number as u64 * 30 + round;
            let saw = saw(&world.run(1, session, number, &script));
            let [Saw::Keys(keys, next)] = &saw[..] else { panic!("keys") };
            assert!(keys.len() == page || next.is_none());
            seen.extend(keys.iter().map(|key| String::from_utf8(key.to_vec()).unwrap()));
            let Some(next) = next else { break };
            from = next.clone();
        }
        assert_eq!(seen, keys[..19]);
    }
}

#[test]
fn the_replies_of_a_slot_are_bounded_together_copies_included() {
    // Answers of 998 bytes where 1000 are the most: 256 of these fit into a slot, and a small one.
    let constants = Constants { reply_bytes_max: 1_000, session_window: 1_024, ..constants() };
    let mut world = World::new(constants);
    let session = world.open(1);
    let fits = Limits::SLOT_REPLIES_MAX as usize;
    let large = |script: fn(Vec<Does>) -> Script, does: Vec<Does>| script([does, vec![Does::Answer(994)]].concat());
    let mut scripts = vec![large(reads, vec![]); fits - 1];
    scripts.extend([large(writes, vec![]), large(writes, vec![append("log", "x")]), large(reads, vec![]), read("log")]);
    let request = world.commands(1, session, 0, 1, scripts);
    let first = answers(&world.slot([request.clone()]));
    assert!(first[..fits].iter().all(|answer| matches!(answer, Answer::Done(_))));
    assert_eq!(first[fits..fits + 2], [failed(Failure::ReplyNotKept), failed(Failure::TooMuch)]);
    // What is small still goes, and the effects stand.
    assert_eq!(saw(&first[fits + 2]), [Saw::Value(Some(Blob::copy(b"x")))]);
    // Copies are counted too: the reads of this slot leave none for the one that is kept.
    let copy = world.commands(1, session, 0, fits as u64, [large(writes, vec![])]);
    assert_eq!(answers(&world.slot([copy.clone()]))[..], first[fits - 1..fits]);
    let more = world.commands(1, session, 0, 500, vec![large(reads, vec![]); fits]);
    assert_eq!(answers(&world.slot([more, copy.clone()]))[fits], failed(Failure::ReplyNotKept));
    assert_eq!(answers(&world.slot([copy]))[..], first[fits - 1..fits]);
}
