//! What each operation answers, revisions included.

use polder_kv::{Command, Compare, Operation, Outcome, Relation, Reply, Revision, Target, Transaction, Versioned};
use polder_types::{Blob, Position};

use crate::world::World;

fn put(key: &[u8], value: &[u8]) -> Command {
    Command::put(key, value).expect("a command")
}

fn get(key: &[u8]) -> Command {
    Command::get(key).expect("a command")
}

fn value(value: &[u8], revision: Revision) -> Outcome {
    Outcome::Value(Some(Versioned { value: Blob::copy(value), revision }))
}

#[test]
fn every_key_carries_who_created_it_who_wrote_it_and_how_often() {
    let mut world = World::new();
    let created = world.next();
    let revision = |modified, version| Revision { created, modified, version };
    assert_eq!(world.outcome(&put(b"k", b"1")), Outcome::Written(revision(created, 1)));
    assert_eq!(world.outcome(&get(b"k")), value(b"1", revision(created, 1)));
    let modified = world.next();
    assert_eq!(world.outcome(&put(b"k", b"2")), Outcome::Written(revision(modified, 2)));
    assert_eq!(world.outcome(&get(b"k")), value(b"2", revision(modified, 2)));
    let delete = Command::delete(b"k").expect("a command");
    assert_eq!(world.outcome(&delete), Outcome::Deleted(Some(revision(modified, 2))));
    assert_eq!(world.outcome(&delete), Outcome::Deleted(None));
    assert_eq!(world.outcome(&get(b"k")), Outcome::Value(None));
    let created = world.next();
    let anew = Revision { created, modified: created, version: 1 };
    assert_eq!(world.outcome(&put(b"k", b"3")), Outcome::Written(anew));
}

#[test]
fn a_swap_happens_only_on_what_was_expected_and_else_says_what_is_there() {
    let mut world = World::new();
    let mut swap = |expected: Option<&[u8]>, new: &[u8]| {
        world.outcome(&Command::compare_and_swap(b"k", expected, new).expect("a command"))
    };
    assert_eq!(swap(Some(b"1"), b"2"), Outcome::Differs(None));
    let Outcome::Written(first) = swap(None, b"1") else { panic!("written") };
    assert_eq!(first.version, 1);
    let differs = Outcome::Differs(Some(Versioned { value: Blob::copy(b"1"), revision: first }));
    assert_eq!(swap(None, b"2"), differs);
    assert_eq!(swap(Some(b"2"), b"3"), differs);
    assert!(matches!(swap(Some(b"1"), b"2"), Outcome::Written(Revision { version: 2, .. })));
    // An empty value is a value.
    assert!(matches!(swap(Some(b"2"), b""), Outcome::Written(_)));
    assert!(matches!(swap(None, b"3"), Outcome::Differs(Some(_))));
    assert!(matches!(swap(Some(b""), b"3"), Outcome::Written(_)));
}

#[test]
fn a_transaction_runs_one_list_whole_at_one_place() {
    let mut world = World::new();
    let lock = |owner: &[u8]| {
        Command::transaction(Transaction {
            compare: vec![Compare::absent(b"lock")],
            then: vec![
                Operation::put(b"lock", owner).expect("an operation"),
                Operation::put(b"log", owner).expect("an operation"),
                Operation::get(b"lock").expect("an operation"),
                Operation::range(b"", None, 0).expect("an operation"),
            ],
            otherwise: vec![Operation::get(b"lock").expect("an operation")],
        })
        .expect("a command")
    };
    let at = world.next();
    let Reply::Transaction { succeeded: true, outcomes } = world.run(&lock(b"me")) else { panic!("succeeded") };
    let revision = Revision { created: at, modified: at, version: 1 };
    assert_eq!(outcomes[..3], [Outcome::Written(revision), Outcome::Written(revision), value(b"me", revision)]);
    let Outcome::Range { entries, next: None } = &outcomes[3] else { panic!("a range") };
    assert_eq!(entries.iter().map(|entry| &entry.key[..]).collect::<Vec<_>>(), [&b"lock"[..], b"log"]);
    let held = Reply::Transaction { succeeded: false, outcomes: vec![value(b"me", revision)] };
    assert_eq!(world.run(&lock(b"you")), held);
    // All comparisons must hold; none is no condition.
    let both = vec![Compare::value(b"lock", b"me"), Compare::unmodified(b"log", Position::default())];
    let transaction = Transaction { compare: both, ..Transaction::default() };
    assert_eq!(
        world.run(&Command::transaction(transaction).expect("a command")),
        Reply::Transaction { succeeded: false, outcomes: vec![] }
    );
    assert_eq!(
        world.run(&Command::transaction(Transaction::default()).expect("a command")),
        Reply::Transaction { succeeded: true, outcomes: vec![] }
    );
}

#[test]
fn comparisons_by_relation_and_target() {
    let mut world = World::new();
    let created = world.next();
    world.run(&put(b"k", b"5"));
    let modified = world.next();
    world.run(&put(b"k", b"6"));
    let mut holds = |key: &[u8], target: &Target| {
        [Relation::Less, Relation::Equal, Relation::NotEqual, Relation::Greater].map(|relation| {
            let compare = vec![Compare { key: Blob::copy(key), relation, target: target.clone() }];
            let transaction = Transaction { compare, ..Transaction::default() };
            let command = Command::transaction(transaction).expect("a command");
            matches!(world.run(&command), Reply::Transaction { succeeded: true, .. })
        })
    };
    let (less, equal, greater) = ([true, false, true, false], [false, true, false, false], [false, false, true, true]);
    for (target, expected) in [
        (Target::Value(Blob::copy(b"7")), less),
        (Target::Value(Blob::copy(b"6")), equal),
        (Target::Value(Blob::copy(b"55")), greater),
        (Target::Version(3), less),
        (Target::Version(2), equal),
        (Target::Version(0), greater),
        (Target::Created(modified), less),
        (Target::Created(created), equal),
        (Target::Modified(modified), equal),
        (Target::Modified(created), greater),
    ] {
        assert_eq!(holds(b"k", &target), expected, "{target:?}");
    }
    // An absent key has version 0, positions zero, and no value.
    for (target, expected) in [
        (Target::Value(Blob::copy(b"")), [false; 4]),
        (Target::Version(0), equal),
        (Target::Version(1), less),
        (Target::Created(Position::default()), equal),
        (Target::Modified(created), less),
    ] {
        assert_eq!(holds(b"absent", &target), expected, "{target:?}");
    }
}
