//! Random operations against a map that anybody can read.

use std::collections::BTreeMap;

use polder_kv::{Command, Compare, KeyValue, Operation, Outcome, Reply, Revision, Transaction, Versioned};
use polder_types::{Blob, Position};
use proptest::prelude::*;

use crate::world::World;

type Model = BTreeMap<Vec<u8>, (Vec<u8>, Revision)>;

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![Just(0u8), Just(b'a'), Just(255)], 1..4)
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        bytes().prop_map(|key| Operation::get(&key)),
        (bytes(), bytes()).prop_map(|(key, value)| Operation::put(&key, &value)),
        bytes().prop_map(|key| Operation::delete(&key)),
        (bytes(), prop::option::of(bytes()), bytes()).prop_map(|(key, expected, value)| Operation::compare_and_swap(
            &key,
            expected.as_deref(),
            &value
        )),
        (bytes(), prop::option::of(bytes()), 0u32..5).prop_map(|(from, to, limit)| Operation::range(
            &from,
            to.as_deref(),
            limit
        )),
    ]
    .prop_map(|operation| operation.expect("an operation"))
}

fn command() -> impl Strategy<Value = Command> {
    let compare = bytes().prop_map(|key| Compare::absent(&key));
    let operations = || prop::collection::vec(operation(), 0..5);
    prop_oneof![
        3 => operation().prop_map(Command::Do),
        1 => (prop::collection::vec(compare, 0..2), operations(), operations())
            .prop_map(|(compare, then, otherwise)| Command::Transaction(Transaction { compare, then, otherwise })),
    ]
}

fn versioned((value, revision): &(Vec<u8>, Revision)) -> Versioned {
    Versioned { value: Blob::copy(value), revision: *revision }
}

fn write(model: &mut Model, key: &[u8], value: &[u8], at: Position) -> Outcome {
    let entry = model.entry(key.to_vec()).or_insert((vec![], Revision { created: at, modified: at, version: 0 }));
    entry.0 = value.to_vec();
    entry.1.modified = at;
    entry.1.version += 1;
    Outcome::Written(entry.1)
}

fn apply(model: &mut Model, operation: &Operation, at: Position) -> Outcome {
    match operation {
        Operation::Get { key } => Outcome::Value(model.get(&key[..]).map(versioned)),
        Operation::Put { key, value } => write(model, key, value, at),
        Operation::Delete { key } => Outcome::Deleted(model.remove(&key[..]).map(|(_, revision)| revision)),
        Operation::CompareAndSwap { key, expected, value } => {
            let found = model.get(&key[..]);
            if found.map(|(value, _)| &value[..]) == expected.as_deref() {
                write(model, key, value, at)
            } else {
                Outcome::Differs(found.map(versioned))
            }
        }
        Operation::Range { from, to, limit } => {
            let all = model.range(from.to_vec()..).take_while(|(key, _)| to.as_ref().is_none_or(|to| key[..] < to[..]));
            let mut all = all.map(|(key, (value, revision))| KeyValue {
                key: Blob::copy(key),
                value: Blob::copy(value),
                revision: *revision,
            });
            let limit = if *limit == 0 { usize::MAX } else { *limit as usize };
            let entries = all.by_ref().take(limit).collect();
            Outcome::Range { entries, next: all.next().map(|entry| entry.key) }
        }
    }
}

proptest! {
    #[test]
    fn the_service_is_the_map(commands in prop::collection::vec(command(), 1..40)) {
        let mut world = World::new();
        let mut model = Model::new();
        for command in &commands {
            let at = world.next();
            let expected = match command {
                Command::Do(operation) => Reply::Done(apply(&mut model, operation, at)),
                Command::Transaction(Transaction { compare, then, otherwise }) => {
                    let succeeded = compare.iter().all(|compare| !model.contains_key(&compare.key[..]));
                    let operations = if succeeded { then } else { otherwise };
                    let outcomes = operations.iter().map(|operation| apply(&mut model, operation, at)).collect();
                    Reply::Transaction { succeeded, outcomes }
                }
            };
            prop_assert_eq!(world.run(command), expected, "{:?}", command);
        }
    }
}
