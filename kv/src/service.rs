//! What the commands do.

use std::cmp::Ordering;

use polder_executor::{Access, Entry, Footprint, Service, Span};
use polder_types::{Application, Position, Timestamp};

use crate::{
    Command, Compare, KEY_BYTES_MAX, KeyValue, Operation, Outcome, RANGE_ENTRIES_MAX, Relation, Reply, Revision,
    Target, Transaction,
};

/// The key-value service.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kv;

impl Application for Kv {
    type Command = Command;
    type Reply = Reply;
}

impl Service for Kv {
    fn footprint(&self, command: &Command) -> Footprint {
        let mut footprint = Footprint::default();
        if command.check().is_err() {
            // It touches nothing, however much it names.
            return footprint;
        }
        match command {
            Command::Do(operation) => declare(operation, &mut footprint),
            Command::Transaction(Transaction { compare, then, otherwise }) => {
                footprint.reads.extend(compare.iter().map(|compare| Span::Key(compare.key.to_vec())));
                then.iter().chain(otherwise).for_each(|operation| declare(operation, &mut footprint));
            }
        }
        let grows =
            |operation: &Operation| matches!(operation, Operation::Put { .. } | Operation::CompareAndSwap { .. });
        footprint.shrinking = match command {
            Command::Do(operation) => !grows(operation),
            Command::Transaction(transaction) => !transaction.then.iter().chain(&transaction.otherwise).any(grows),
        };
        footprint
    }

    fn execute(&self, _: Timestamp, command: &Command, state: &mut Access<'_>) -> Reply {
        if let Err(error) = command.check() {
            return Reply::Refused(error);
        }
        let mut room = Room::of_reply(state);
        match command {
            Command::Do(operation) => Reply::Done(execute(operation, state, &mut room)),
            Command::Transaction(Transaction { compare, then, otherwise }) => {
                let succeeded = compare.iter().all(|compare| compare.holds(state.get(&compare.key).as_ref()));
                let operations = if succeeded { then } else { otherwise };
                let outcomes = operations.iter().map(|operation| execute(operation, state, &mut room)).collect();
                Reply::Transaction { succeeded, outcomes }
            }
        }
    }
}

fn declare(operation: &Operation, footprint: &mut Footprint) {
    match operation {
        Operation::Get { key } => footprint.reads.push(Span::Key(key.to_vec())),
        Operation::Put { key, .. } | Operation::Delete { key } | Operation::CompareAndSwap { key, .. } => {
            footprint.writes.push(Span::Key(key.to_vec()));
        }
        Operation::Range { from, to, .. } => {
            footprint.reads.push(Span::Range { from: from.to_vec(), to: to.as_ref().map(|to| to.to_vec()) });
        }
    }
}

fn execute(operation: &Operation, state: &mut Access<'_>, room: &mut Room) -> Outcome {
    let outcome = match operation {
        Operation::Get { key } => Outcome::Value(state.get(key).map(Into::into)),
        Operation::Put { key, value } => Outcome::Written(Revision::from(&state.put(key, value.clone()))),
        Operation::Delete { key } => Outcome::Deleted(state.delete(key).as_ref().map(Revision::from)),
        Operation::CompareAndSwap { key, expected, value } => {
            let found = state.get(key);
            if found.as_ref().map(|entry| &entry.value) == expected.as_ref() {
                Outcome::Written(Revision::from(&state.put(key, value.clone())))
            } else {
                Outcome::Differs(found.map(Into::into))
            }
        }
        Operation::Range { from, to, limit } => {
            let limit = if *limit == 0 { RANGE_ENTRIES_MAX } else { RANGE_ENTRIES_MAX.min(*limit) };
            let page = state.range(from, to.as_deref(), limit as usize, room.left_bytes);
            let entries = page.entries.into_iter().map(|(key, entry)| {
                let revision = Revision::from(&entry);
                KeyValue { key, value: entry.value, revision }
            });
            Outcome::Range { entries: entries.collect(), next: page.next }
        }
    };
    room.take(&outcome);
    outcome
}

/// How many bytes a reply still has room for, so that a range stops before it is too large.
struct Room {
    left_bytes: usize,
}

impl Room {
    /// What an outcome takes beside its keys and values, at most; an entry of a range no more than
    /// [`Entry::OVERHEAD_BYTES`].
    const OUTCOME_BYTES: usize = 64;

    fn of_reply(state: &Access<'_>) -> Self {
        let mut this = Self { left_bytes: state.reply_bytes_max() };
        // For the list of outcomes and the first of them, with a key to go on from.
        this.spend(2 * Self::OUTCOME_BYTES + KEY_BYTES_MAX);
        this
    }

    fn take(&mut self, outcome: &Outcome) {
        self.spend(Self::OUTCOME_BYTES);
        match outcome {
            Outcome::Value(found) | Outcome::Differs(found) => {
                self.spend(found.as_ref().map_or(0, |found| found.value.len()));
            }
            Outcome::Written(_) | Outcome::Deleted(_) => {}
            Outcome::Range { entries, next } => {
                self.spend(next.as_ref().map_or(0, |next| next.len()));
                let overhead_bytes = Entry::OVERHEAD_BYTES as usize;
                entries.iter().for_each(|entry| self.spend(entry.key.len() + entry.value.len() + overhead_bytes));
            }
        }
    }

    fn spend(&mut self, bytes: usize) {
        self.left_bytes = self.left_bytes.saturating_sub(bytes);
    }
}

impl Compare {
    fn holds(&self, found: Option<&Entry>) -> bool {
        let position = |of: fn(&Entry) -> Position| found.map_or_else(Position::default, of);
        let order = match &self.target {
            Target::Value(value) => found.map(|entry| entry.value.cmp(value)),
            Target::Version(version) => Some(found.map_or(0, |entry| entry.version).cmp(version)),
            Target::Created(created) => Some(position(|entry| entry.created).cmp(created)),
            Target::Modified(modified) => Some(position(|entry| entry.modified).cmp(modified)),
        };
        order.is_some_and(|order| match self.relation {
            Relation::Equal => order == Ordering::Equal,
            Relation::NotEqual => order != Ordering::Equal,
            Relation::Less => order == Ordering::Less,
            Relation::Greater => order == Ordering::Greater,
        })
    }
}
