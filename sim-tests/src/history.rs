//! What clients asked for and what they came to believe: the history that the checkers judge.

use std::fmt;

use polder_types::Answer;
use serde::{Deserialize, Serialize};

/// A command of the simulated service: lists of ids, one a key. An id is appended by one command only, so that a list
/// tells which commands were executed, how often and in which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Appends an id to the list of a key.
    Append {
        /// The key.
        key: u64,
        /// The id.
        id: u64,
    },
    /// Appends an id to the lists of two keys, both or none.
    AppendBoth {
        /// One key.
        first: u64,
        /// The other.
        second: u64,
        /// The id.
        id: u64,
    },
    /// Reads the list of a key.
    Read {
        /// The key.
        key: u64,
    },
    /// Makes the service panic after it wrote (R28): an error, and no effects.
    Panic {
        /// The key that it writes first.
        key: u64,
    },
    /// Writes a key that its footprint does not name (R28): an error, and no effects.
    Undeclared {
        /// The key that it writes.
        key: u64,
    },
}

impl Command {
    /// The id that it appends, and the keys to whose lists.
    #[must_use]
    pub fn appends(&self) -> Option<(u64, Vec<u64>)> {
        match *self {
            Self::Append { key, id } => Some((id, vec![key])),
            Self::AppendBoth { first, second, id } if first == second => Some((id, vec![first])),
            Self::AppendBoth { first, second, id } => Some((id, vec![first, second])),
            Self::Read { .. } | Self::Panic { .. } | Self::Undeclared { .. } => None,
        }
    }
}

/// What the simulated service answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Appended: the place of the id in the list of each key, from 0, in the order of the command.
    Appended(Vec<u64>),
    /// The list.
    List(Vec<u64>),
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Append { key, id } => write!(f, "append {id} to k{key}"),
            Self::AppendBoth { first, second, id } => write!(f, "append {id} to k{first} and k{second}"),
            Self::Read { key } => write!(f, "read k{key}"),
            Self::Panic { key } => write!(f, "panic on k{key}"),
            Self::Undeclared { key } => write!(f, "write k{key} undeclared"),
        }
    }
}

/// One command of one client.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// The client.
    pub client: usize,
    /// What it asked for.
    pub command: Command,
    /// When it first sent it, in microseconds.
    pub invoked_us: u64,
    /// When it believed an answer, and which; none while it does not.
    pub answered: Option<(u64, Answer)>,
}

/// All commands of all clients, in the order in which they were first sent.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The commands.
    pub operations: Vec<Operation>,
    /// Those, by their place, that their client gave up, and when, in microseconds: whatever becomes of them, it asks no more.
    pub abandoned: std::collections::BTreeMap<usize, u64>,
    /// The final list of each key, as read after everything was answered.
    pub lists: std::collections::BTreeMap<u64, Vec<u64>>,
}

impl History {
    /// How many commands were answered up to a time.
    #[must_use]
    pub fn answered_by(&self, at_us: u64) -> usize {
        self.operations
            .iter()
            .filter(|operation| operation.answered.as_ref().is_some_and(|(at, _)| *at <= at_us))
            .count()
    }

    /// How many are not answered yet.
    #[must_use]
    pub fn open(&self) -> usize {
        self.operations.iter().filter(|operation| operation.answered.is_none()).count()
    }
}
