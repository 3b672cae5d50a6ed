//! **Exactly once.** A command that a client saw succeed is never lost and was executed once, at the place that the
//! answer names; one that a client saw rejected was not executed; one without an answer was executed at most once; a
//! command over two keys took effect on both or on neither.
//!
//! Promise 2; R24 to R26, R28.

use std::collections::BTreeMap;

use polder_types::{Answer, Failure, Wire as _};

use super::{Verdict, violation};
use crate::history::{Command, History, Operation, Reply};

/// The name of this checker.
pub const NAME: &str = "exactly-once";

/// Judges a history whose final lists were read.
///
/// # Errors
///
/// When a command was lost, executed twice, half, or at another place than its answer says.
pub fn check(history: &History) -> Verdict {
    let places = places(history)?;
    for operation in &history.operations {
        if let Some((_, answer)) = &operation.answered {
            judge_answer(operation, answer)?;
        }
        if let Some((id, keys)) = operation.command.appends() {
            judge_append(history, &places, operation, id, &keys)?;
        }
    }
    Ok(())
}

/// Where each id stands in the list of each key.
fn places(history: &History) -> Result<BTreeMap<(u64, u64), u64>, super::Violation> {
    let mut places = BTreeMap::new();
    for (key, list) in &history.lists {
        for (place, id) in list.iter().enumerate() {
            if let Some(first) = places.insert((*key, *id), place as u64) {
                violation(NAME, format!("{id} was appended to k{key} twice, at {first} and {place}"))?;
            }
        }
    }
    Ok(places)
}

/// What kind of answer a command may get at all.
fn judge_answer(operation: &Operation, answer: &Answer) -> Verdict {
    let reply = match answer {
        Answer::Done(bytes) => Reply::from_wire(bytes).ok(),
        _ => None,
    };
    let fits = match (&operation.command, answer, &reply) {
        (Command::Append { .. }, _, Some(Reply::Appended(places))) => places.len() == 1,
        (Command::AppendBoth { .. }, _, Some(Reply::Appended(places))) => places.len() == 2,
        (Command::Read { .. }, _, Some(Reply::List(_))) => true,
        (Command::Panic { .. }, Answer::Failed(Failure::Panicked), _) => true,
        (Command::Undeclared { .. }, Answer::Failed(Failure::Undeclared), _) => true,
        // The reply cache may be too small for it: executed, and the answer says so.
        (_, Answer::Failed(Failure::ReplyNotKept), _) => true,
        _ => false,
    };
    if fits {
        return Ok(());
    }
    let (client, command) = (operation.client, operation.command);
    violation(NAME, format!("client {client} asked to {command} and was answered {answer:?} ({reply:?})"))
}

fn judge_append(
    history: &History,
    places: &BTreeMap<(u64, u64), u64>,
    operation: &Operation,
    id: u64,
    keys: &[u64],
) -> Verdict {
    let found: Vec<Option<u64>> = keys.iter().map(|key| places.get(&(*key, id)).copied()).collect();
    if keys.iter().any(|key| !history.lists.contains_key(key)) {
        return Ok(());
    }
    if found.iter().any(Option::is_some) && found.iter().any(Option::is_none) {
        return violation(NAME, format!("{id} was appended to some of k{keys:?} only"));
    }
    let Some((_, answer)) = &operation.answered else { return Ok(()) };
    let executed = found.iter().all(Option::is_some);
    match answer {
        Answer::Done(bytes) if executed => match Reply::from_wire(bytes) {
            Ok(Reply::Appended(said)) if said.iter().copied().map(Some).take(found.len()).eq(found.iter().copied()) => {
                Ok(())
            }
            reply => violation(NAME, format!("{id} stands at {found:?} in k{keys:?}, but the answer was {reply:?}")),
        },
        Answer::Done(_) | Answer::Failed(Failure::ReplyNotKept) if !executed => {
            violation(NAME, format!("{id} was acknowledged, but k{keys:?} do not hold it"))
        }
        Answer::Failed(failure) if executed && failure.is_rejection() => {
            violation(NAME, format!("{id} was rejected ({failure}), but k{keys:?} hold it"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use polder_types::Blob;

    use super::*;

    fn append(key: u64, id: u64, answer: Option<Answer>) -> Operation {
        let command = Command::Append { key, id };
        Operation { client: 0, command, invoked_us: 0, answered: answer.map(|answer| (1, answer)) }
    }

    fn done(places: &[u64]) -> Option<Answer> {
        Some(Answer::Done(Blob::from(Reply::Appended(places.to_vec()).to_wire())))
    }

    fn history(operations: Vec<Operation>, list: &[u64]) -> History {
        History { operations, lists: [(1, list.to_vec())].into(), ..History::default() }
    }

    #[test]
    fn what_happened_once_where_the_answer_says_is_fine() {
        let operations = vec![append(1, 7, done(&[0])), append(1, 8, None), append(1, 9, done(&[1]))];
        assert_eq!(check(&history(operations.clone(), &[7, 9])), Ok(()));
        assert_eq!(check(&history(operations, &[7, 9, 8])), Ok(()));
    }

    #[test]
    fn a_lost_acknowledged_command_is_caught() {
        assert!(check(&history(vec![append(1, 7, done(&[0]))], &[])).is_err());
    }

    #[test]
    fn a_second_execution_is_caught_answered_or_not() {
        assert!(check(&history(vec![append(1, 7, done(&[0]))], &[7, 7])).is_err());
        assert!(check(&history(vec![append(1, 7, None)], &[7, 7])).is_err());
    }

    #[test]
    fn another_place_than_answered_is_caught() {
        assert!(check(&history(vec![append(1, 7, done(&[1])), append(1, 8, None)], &[7, 8])).is_err());
    }

    #[test]
    fn a_rejected_command_that_was_executed_is_caught() {
        let answer = Some(Answer::Failed(Failure::NotPermitted));
        assert!(check(&history(vec![append(1, 7, answer)], &[7])).is_err());
    }

    #[test]
    fn half_a_command_is_caught() {
        let command = Command::AppendBoth { first: 1, second: 2, id: 7 };
        let operations = vec![Operation { client: 0, command, invoked_us: 0, answered: None }];
        let mut history = History { operations, lists: [(1, vec![7]), (2, vec![])].into(), ..History::default() };
        assert!(check(&history).is_err());
        history.lists.insert(2, vec![7]);
        assert_eq!(check(&history), Ok(()));
    }

    #[test]
    fn an_answer_that_does_not_fit_is_caught() {
        let command = Command::Panic { key: 1 };
        let answered = done(&[0]).map(|answer| (1, answer));
        let operations = vec![Operation { client: 0, command, invoked_us: 0, answered }];
        assert!(check(&history(operations, &[])).is_err());
    }
}
