//! What is too long is refused in words, by the constructors and at execution; replies stay within their bound.

use polder_kv::{
    Command, Compare, KEY_BYTES_MAX, KvError, OPERATIONS_MAX, Operation, Outcome, RANGE_ENTRIES_MAX, Reply,
    Transaction, VALUE_BYTES_MAX,
};
use polder_types::{Answer, Blob, Constants, DecodeError, Failure, Wire as _};

use crate::world::World;

#[test]
fn what_cannot_be_is_refused_by_the_constructors_and_at_execution() {
    let (long_key, long_value) = (vec![1; KEY_BYTES_MAX + 1], vec![1; VALUE_BYTES_MAX + 1]);
    let blob = |bytes: &[u8]| Blob::copy(bytes);
    let key = blob(&long_key);
    let none = Blob::default();
    let cases = [
        (Command::get(b""), Command::Do(Operation::Get { key: none.clone() }), KvError::EmptyKey),
        (Command::get(&long_key), Command::Do(Operation::Get { key: key.clone() }), KvError::KeyTooLong),
        (Command::delete(&long_key), Command::Do(Operation::Delete { key: key.clone() }), KvError::KeyTooLong),
        (
            Command::put(&long_key, b""),
            Command::Do(Operation::Put { key: key.clone(), value: none.clone() }),
            KvError::KeyTooLong,
        ),
        (
            Command::put(b"k", &long_value),
            Command::Do(Operation::Put { key: blob(b"k"), value: blob(&long_value) }),
            KvError::ValueTooLong,
        ),
        (
            Command::compare_and_swap(b"k", Some(&long_value), b""),
            Command::Do(Operation::CompareAndSwap { key: blob(b"k"), expected: Some(blob(&long_value)), value: none }),
            KvError::ValueTooLong,
        ),
        (
            Command::range(b"", Some(&vec![1; KEY_BYTES_MAX + 2]), 1),
            Command::Do(Operation::Range { from: blob(b""), to: Some(blob(&vec![1; KEY_BYTES_MAX + 2])), limit: 1 }),
            KvError::KeyTooLong,
        ),
        (
            Command::transaction(Transaction { compare: vec![Compare::absent(b"")], ..Transaction::default() }),
            Command::Transaction(Transaction { compare: vec![Compare::absent(b"")], ..Transaction::default() }),
            KvError::EmptyKey,
        ),
    ];
    let mut world = World::new();
    for (constructed, by_hand, error) in cases {
        assert_eq!(constructed, Err(error));
        assert_eq!(world.run(&by_hand), Reply::Refused(error));
        assert!(!error.to_string().is_empty());
    }
}

/// A list of a few bytes an element must not become many in memory: what is too long is refused while it is decoded.
#[test]
fn a_list_that_is_too_long_is_refused_by_the_constructor_and_not_decoded() {
    let many = |count| Transaction {
        otherwise: vec![Operation::Get { key: Blob::copy(b"k") }; count],
        ..Transaction::default()
    };
    assert_eq!(Command::transaction(many(OPERATIONS_MAX + 1)), Err(KvError::TooManyOperations));
    let decoded = |count| Command::from_wire(&Command::Transaction(many(count)).to_wire());
    assert_eq!(decoded(OPERATIONS_MAX + 1), Err(DecodeError::Malformed));
    assert_eq!(decoded(OPERATIONS_MAX), Ok(Command::Transaction(many(OPERATIONS_MAX))));
}

#[test]
fn the_longest_key_and_value_go() {
    let mut world = World::new();
    let (key, value) = (vec![1; KEY_BYTES_MAX], vec![2; VALUE_BYTES_MAX]);
    assert!(matches!(world.outcome(&Command::put(&key, &value).expect("a command")), Outcome::Written(_)));
    let Outcome::Value(Some(found)) = world.outcome(&Command::get(&key).expect("a command")) else { panic!("found") };
    assert_eq!(found.value[..], value);
    // Also as the only one that fits into a page.
    world.run(&Command::put(b"zz", &value).expect("a command"));
    let Outcome::Range { entries, next } = world.outcome(&Command::range(b"", None, 0).expect("a command")) else {
        panic!("a range")
    };
    assert_eq!((entries.len(), next.as_deref()), (1, Some(&b"zz"[..])));
    // The first key after the longest one.
    let after = [&key[..], &[0]].concat();
    assert!(matches!(world.run(&Command::range(&after, None, 0).expect("a command")), Reply::Done(_)));
}

#[test]
fn r25_a_range_stops_before_its_reply_is_too_large_and_says_where_to_go_on() {
    let mut world = World::with(Constants { reply_bytes_max: 20_000, ..Constants::default() });
    let keys: Vec<String> = (0..100).map(|key| format!("k{key:02}")).collect();
    for key in &keys {
        world.run(&Command::put(key.as_bytes(), &[7; 600]).expect("a command"));
    }
    let (mut from, mut seen, mut pages) = (b"k".to_vec(), Vec::new(), 0);
    loop {
        let page = world.outcome(&Command::prefix_after(b"k", &from, 0).expect("a command"));
        let Outcome::Range { entries, next } = page else { panic!("a range") };
        seen.extend(entries.iter().map(|entry| String::from_utf8(entry.key.to_vec()).expect("text")));
        pages += 1;
        match next {
            Some(next) => from = next.to_vec(),
            None => break,
        }
    }
    assert_eq!(seen, keys);
    // Full, but not wastefully.
    assert!((4..=6).contains(&pages), "{pages}");

    // In a transaction, what came before takes its share; the operations in it stay one reply.
    let operation = || Operation::range(b"k", None, 0).expect("an operation");
    let then = vec![operation(), operation(), operation()];
    let Reply::Transaction { outcomes, .. } =
        world.run(&Command::transaction(Transaction { then, ..Transaction::default() }).expect("a command"))
    else {
        panic!("a transaction")
    };
    let lengths: Vec<usize> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Outcome::Range { entries, next: Some(_) } => entries.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(lengths[0] > 15 && lengths[1..] == [1, 1], "{lengths:?}");

    // What a transaction gets whole must fit whole.
    let then = vec![Operation::get(b"k00").expect("an operation"); 40];
    let command = Command::transaction(Transaction { then, ..Transaction::default() }).expect("a command");
    assert_eq!(world.answer(&command), Answer::Failed(Failure::ReplyTooLarge));
}

#[test]
fn a_limit_is_kept_and_its_absence_is_the_most() {
    let mut world = World::new();
    for key in 0..5 {
        world.run(&Command::put(&[b'k', key], b"").expect("a command"));
    }
    for (limit, expected) in [(0, 5), (1, 1), (4, 4), (5, 5), (RANGE_ENTRIES_MAX + 1, 5)] {
        let Outcome::Range { entries, next } = world.outcome(&Command::prefix(b"k", limit).expect("a command")) else {
            panic!("a range")
        };
        assert_eq!((entries.len(), next.is_none()), (expected, expected == 5), "{limit}");
    }
}

#[test]
fn r28_only_what_shrinks_runs_when_the_state_is_full() {
    let mut world = World::with(Constants { interval_slots: 1, state_bytes_max: 100, ..Constants::default() });
    let command = |operation: &Operation| Command::Do(operation.clone());
    let put = Operation::put(b"k", &[1; 100]).expect("an operation");
    let delete = Operation::delete(b"k").expect("an operation");
    world.run(&command(&put));
    let get = Command::get(b"k").expect("a command");
    world.run(&get);
    let full = Answer::Failed(Failure::StateFull);
    let both = Transaction { then: vec![put.clone(), delete.clone()], ..Transaction::default() };
    let deletes = Transaction { then: vec![delete.clone()], ..Transaction::default() };
    let swap = Command::compare_and_swap(b"k", None, b"").expect("a command");
    assert_eq!(world.answer(&command(&put)), full);
    assert_eq!(world.answer(&swap), full);
    assert_eq!(world.answer(&Command::Transaction(both)), full);
    assert!(matches!(world.answer(&get), Answer::Done(_)));
    assert!(matches!(world.answer(&Command::Transaction(deletes)), Answer::Done(_)));
    assert!(matches!(world.answer(&command(&delete)), Answer::Done(_)));
}
