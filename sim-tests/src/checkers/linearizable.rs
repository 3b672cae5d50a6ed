//! **Linearizable.** Commands take effect between their first sending and their answer: a read shows what was
//! acknowledged before it was sent and is a beginning of every later list; what was acknowledged before another
//! command was sent stands before it.
//!
//! Promise 1, as clients see it; Herlihy and Wing (TOPLAS 1990). Lists of ids make the check exact on
//! each key (as the list-append workload of Elle, Kingsbury and Alvaro, VLDB 2020).

use std::collections::BTreeMap;

use polder_types::{Answer, Wire as _};

use super::{Verdict, violation};
use crate::history::{Command, History, Reply};

/// The name of this checker.
pub const NAME: &str = "linearizable";

/// One command on one key: from when to when it may have taken effect, and where it says that it did. A read of `len`
/// ids stands between the places `len−1` and `len`.
struct Span {
    invoked_us: u64,
    answered_us: u64,
    /// Twice the place for an append, plus one; twice the length for a read: so that they sort as they took effect.
    place: u64,
}

/// Judges a history whose final lists were read.
///
/// # Errors
///
/// When a read is no beginning of the final list, or the order of two commands contradicts real time.
pub fn check(history: &History) -> Verdict {
    let mut spans: BTreeMap<u64, Vec<Span>> = BTreeMap::new();
    for operation in &history.operations {
        let Some((answered_us, Answer::Done(bytes))) = &operation.answered else { continue };
        let invoked_us = operation.invoked_us;
        let mut add = |key: u64, place: u64| {
            spans.entry(key).or_default().push(Span { invoked_us, answered_us: *answered_us, place });
        };
        match (&operation.command, Reply::from_wire(bytes)) {
            (Command::Read { key }, Ok(Reply::List(list))) => {
                let last = history.lists.get(key).map_or(&[][..], Vec::as_slice);
                if history.lists.contains_key(key) && !last.starts_with(&list) {
                    return violation(NAME, format!("k{key} was read as {list:?}, but ended as {last:?}"));
                }
                add(*key, 2 * list.len() as u64);
            }
            (command, Ok(Reply::Appended(places))) => {
                let keys = command.appends().map(|(_, keys)| keys).unwrap_or_default();
                keys.iter().zip(places).for_each(|(key, place)| add(*key, 2 * place + 1));
            }
            _ => {}
        }
    }
    spans.into_iter().try_for_each(|(key, spans)| check_key(key, spans))
}

/// Nothing that was sent after an answer may stand before what was answered.
fn check_key(key: u64, mut spans: Vec<Span>) -> Verdict {
    spans.sort_by_key(|span| span.invoked_us);
    let mut answered: Vec<(u64, u64)> = spans.iter().map(|span| (span.answered_us, span.place)).collect();
    answered.sort_unstable();
    let mut highest = 0;
    let mut before = answered.into_iter().peekable();
    for span in &spans {
        while let Some((_, place)) = before.next_if(|(answered_us, _)| *answered_us < span.invoked_us) {
            highest = highest.max(place);
        }
        if span.place < highest {
            let at = span.invoked_us;
            return violation(
                NAME,
                format!(
                    "a command on k{key} sent at {at} us took effect at place {}, after one at place {} was answered",
                    span.place / 2,
                    highest / 2
                ),
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use polder_types::Blob;

    use super::*;
    use crate::history::Operation;

    fn operation(command: Command, from: u64, to: u64, reply: &Reply) -> Operation {
        let answer = Answer::Done(Blob::from(reply.to_wire()));
        Operation { client: 0, command, invoked_us: from, answered: Some((to, answer)) }
    }

    fn append(id: u64, place: u64, from: u64, to: u64) -> Operation {
        operation(Command::Append { key: 1, id }, from, to, &Reply::Appended(vec![place]))
    }

    fn read(list: &[u64], from: u64, to: u64) -> Operation {
        operation(Command::Read { key: 1 }, from, to, &Reply::List(list.to_vec()))
    }

    fn history(operations: Vec<Operation>) -> History {
        History { operations, lists: [(1, vec![7, 8])].into(), ..History::default() }
    }

    #[test]
    fn any_order_of_what_overlaps_is_fine() {
        assert_eq!(check(&history(vec![append(7, 0, 0, 10), append(8, 1, 0, 10), read(&[7], 0, 10)])), Ok(()));
        assert_eq!(check(&history(vec![append(8, 1, 0, 10), append(7, 0, 5, 20), read(&[], 3, 4)])), Ok(()));
    }

    #[test]
    fn a_stale_read_is_caught() {
        assert!(check(&history(vec![append(7, 0, 0, 10), read(&[], 11, 12)])).is_err());
        assert!(check(&history(vec![read(&[7, 8], 0, 10), read(&[7], 11, 12)])).is_err());
    }

    #[test]
    fn a_read_of_another_order_is_caught() {
        assert!(check(&history(vec![read(&[8], 0, 10)])).is_err());
    }

    #[test]
    fn an_append_before_one_that_was_answered_earlier_is_caught() {
        assert!(check(&history(vec![append(8, 1, 0, 10), append(7, 0, 11, 20)])).is_err());
    }
}
