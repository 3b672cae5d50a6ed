//! What a client is answered.

use polder_executor::Entry;
use polder_types::{Blob, Position};
use serde::{Deserialize, Serialize};

use crate::KvError;

/// The answer to a [`crate::Command`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// What the operation came to.
    Done(Outcome),
    /// What the transaction came to.
    Transaction {
        /// Whether all comparisons held.
        succeeded: bool,
        /// What the operations of the list that ran came to, in their order.
        outcomes: Vec<Outcome>,
    },
    /// The command can never be executed; nothing was changed.
    Refused(KvError),
}

/// What an operation came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Get: what is under the key.
    Value(Option<Versioned>),
    /// Put, or a compare-and-swap that found what it expected: the key's new revision.
    Written(Revision),
    /// Compare-and-swap: the key is not what was expected, but this; nothing was changed.
    Differs(Option<Versioned>),
    /// Delete: the last revision of what was under the key.
    Deleted(Option<Revision>),
    /// Range.
    Range {
        /// The entries, in order of their keys.
        entries: Vec<KeyValue>,
        /// The first key of the range that did not fit; none at its end.
        next: Option<Blob>,
    },
}

/// A key's place in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Revision {
    /// The command that created the key, after it was absent.
    pub created: Position,
    /// The command that wrote it last.
    pub modified: Position,
    /// Writes since its creation, from 1.
    pub version: u64,
}

/// A value with its key's revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versioned {
    /// The value.
    pub value: Blob,
    /// The revision.
    pub revision: Revision,
}

/// An entry of a range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    /// The key.
    pub key: Blob,
    /// The value.
    pub value: Blob,
    /// The key's revision.
    pub revision: Revision,
}

impl From<&Entry> for Revision {
    fn from(entry: &Entry) -> Self {
        Self { created: entry.created, modified: entry.modified, version: entry.version }
    }
}

impl From<Entry> for Versioned {
    fn from(entry: Entry) -> Self {
        Self { revision: Revision::from(&entry), value: entry.value }
    }
}
