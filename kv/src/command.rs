//! What a client asks for.

use polder_executor::prefix_end;
use polder_types::{Blob, Position};
use serde::{Deserialize, Serialize};

/// The most bytes of a key.
pub const KEY_BYTES_MAX: usize = 4 << 10;
/// The most bytes of a value.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// The most entries that one range is answered with.
pub const RANGE_ENTRIES_MAX: u32 = 10_000;
/// The most comparisons of a transaction, and the most operations of each of its lists.
pub const OPERATIONS_MAX: usize = 128;

/// A command that can never be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, thiserror::Error)]
pub enum KvError {
    /// A key has no bytes.
    #[error("a key must have at least one byte")]
    EmptyKey,
    /// A key is longer than [`KEY_BYTES_MAX`], or a bound of a range longer by more than a byte.
    #[error("a key may have at most {KEY_BYTES_MAX} bytes")]
    KeyTooLong,
    /// A value is longer than [`VALUE_BYTES_MAX`].
    #[error("a value may have at most {VALUE_BYTES_MAX} bytes")]
    ValueTooLong,
    /// A transaction has a list longer than [`OPERATIONS_MAX`].
    #[error("a transaction may have at most {OPERATIONS_MAX} comparisons, and as many operations in each list")]
    TooManyOperations,
}

/// A command. Its constructors refuse what can never be executed; what is made without them is refused when it is
/// executed, by [`crate::Reply::Refused`]; a list that is too long is not even decoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// One operation.
    Do(Operation),
    /// Several, on a condition.
    Transaction(Transaction),
}

/// What is done to one key, or read of a range of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Reads a key.
    Get {
        /// The key.
        key: Blob,
    },
    /// Writes a key.
    Put {
        /// The key.
        key: Blob,
        /// Its new value.
        value: Blob,
    },
    /// Deletes a key.
    Delete {
        /// The key.
        key: Blob,
    },
    /// Writes a key if it has a certain value.
    CompareAndSwap {
        /// The key.
        key: Blob,
        /// The value that it must have; none: it must be absent.
        expected: Option<Blob>,
        /// Its new value.
        value: Blob,
    },
    /// Reads the entries of a range of keys, in order.
    Range {
        /// The first key.
        from: Blob,
        /// The first key beyond; none: to the last key.
        to: Option<Blob>,
        /// The most entries to read; 0, or more than [`RANGE_ENTRIES_MAX`]: that many. Fewer come when the reply is
        /// full; it says where to go on.
        limit: u32,
    },
}

/// Operations on a condition, all at one place in the order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// The condition: all of these hold; at most [`OPERATIONS_MAX`], as the other lists.
    #[serde(deserialize_with = "polder_types::at_most::<OPERATIONS_MAX, _, _>")]
    pub compare: Vec<Compare>,
    /// What is done if so, one after the other.
    #[serde(deserialize_with = "polder_types::at_most::<OPERATIONS_MAX, _, _>")]
    pub then: Vec<Operation>,
    /// What is done if not.
    #[serde(deserialize_with = "polder_types::at_most::<OPERATIONS_MAX, _, _>")]
    pub otherwise: Vec<Operation>,
}

/// A comparison of what is under a key with something given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    /// The key.
    pub key: Blob,
    /// How what is under it must relate to the target.
    pub relation: Relation,
    /// What it is compared with.
    pub target: Target,
}

/// How what is under a key must relate to what is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Relation {
    /// It is equal.
    Equal,
    /// It is not equal.
    NotEqual,
    /// It is less; values are compared byte by byte.
    Less,
    /// It is greater.
    Greater,
}

/// What of a key is compared, and with what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// The value. An absent key has none, and no comparison with it holds.
    Value(Blob),
    /// The writes since the key's creation; 0 for an absent key.
    Version(u64),
    /// The command that created it; zero for an absent key.
    Created(Position),
    /// The command that wrote it last; zero for an absent key.
    Modified(Position),
}

impl Command {
    /// Reads a key.
    ///
    /// # Errors
    ///
    /// When the key is empty or too long.
    pub fn get(key: &[u8]) -> Result<Self, KvError> {
        Operation::get(key).map(Self::Do)
    }

    /// Writes a key.
    ///
    /// # Errors
    ///
    /// When the key is empty, or it or the value is too long.
    pub fn put(key: &[u8], value: &[u8]) -> Result<Self, KvError> {
        Operation::put(key, value).map(Self::Do)
    }

    /// Deletes a key.
    ///
    /// # Errors
    ///
    /// When the key is empty or too long.
    pub fn delete(key: &[u8]) -> Result<Self, KvError> {
        Operation::delete(key).map(Self::Do)
    }

    /// Writes a key if it has the value `expected`, or is absent when that is none.
    ///
    /// # Errors
    ///
    /// When the key is empty, or it or a value is too long.
    pub fn compare_and_swap(key: &[u8], expected: Option<&[u8]>, value: &[u8]) -> Result<Self, KvError> {
        Operation::compare_and_swap(key, expected, value).map(Self::Do)
    }

    /// Reads the entries from the key `from` on, below `to` where there is one, at most `limit` (0: as many as go).
    ///
    /// # Errors
    ///
    /// When a bound is too long for any key.
    pub fn range(from: &[u8], to: Option<&[u8]>, limit: u32) -> Result<Self, KvError> {
        Operation::range(from, to, limit).map(Self::Do)
    }

    /// Reads the entries whose keys start with `prefix`, at most `limit` (0: as many as go). To go on where a reply
    /// stopped, see [`Command::prefix_after`].
    ///
    /// # Errors
    ///
    /// When the prefix is too long for any key.
    pub fn prefix(prefix: &[u8], limit: u32) -> Result<Self, KvError> {
        Self::prefix_after(prefix, prefix, limit)
    }

    /// As [`Command::prefix`], but from the key `from` on: a reply's `next`.
    ///
    /// # Errors
    ///
    /// When the prefix or `from` is too long for any key.
    pub fn prefix_after(prefix: &[u8], from: &[u8], limit: u32) -> Result<Self, KvError> {
        Self::range(from.max(prefix), prefix_end(prefix).as_deref(), limit)
    }

    /// Several operations on a condition.
    ///
    /// # Errors
    ///
    /// When a list is too long, or one of the operations or comparisons is refused.
    pub fn transaction(transaction: Transaction) -> Result<Self, KvError> {
        Self::Transaction(transaction).checked()
    }

    /// Whether the command can be executed.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn check(&self) -> Result<(), KvError> {
        match self {
            Self::Do(operation) => operation.check(),
            Self::Transaction(Transaction { compare, then, otherwise }) => {
                if [compare.len(), then.len(), otherwise.len()].iter().any(|length| *length > OPERATIONS_MAX) {
                    return Err(KvError::TooManyOperations);
                }
                compare.iter().try_for_each(Compare::check)?;
                then.iter().chain(otherwise).try_for_each(Operation::check)
            }
        }
    }

    fn checked(self) -> Result<Self, KvError> {
        self.check().map(|()| self)
    }
}

impl Operation {
    /// As [`Command::get`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn get(key: &[u8]) -> Result<Self, KvError> {
        Self::Get { key: Blob::copy(key) }.checked()
    }

    /// As [`Command::put`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn put(key: &[u8], value: &[u8]) -> Result<Self, KvError> {
        Self::Put { key: Blob::copy(key), value: Blob::copy(value) }.checked()
    }

    /// As [`Command::delete`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn delete(key: &[u8]) -> Result<Self, KvError> {
        Self::Delete { key: Blob::copy(key) }.checked()
    }

    /// As [`Command::compare_and_swap`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn compare_and_swap(key: &[u8], expected: Option<&[u8]>, value: &[u8]) -> Result<Self, KvError> {
        Self::CompareAndSwap { key: Blob::copy(key), expected: expected.map(Blob::copy), value: Blob::copy(value) }
            .checked()
    }

    /// As [`Command::range`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn range(from: &[u8], to: Option<&[u8]>, limit: u32) -> Result<Self, KvError> {
        Self::Range { from: Blob::copy(from), to: to.map(Blob::copy), limit }.checked()
    }

    fn check(&self) -> Result<(), KvError> {
        match self {
            Self::Get { key } | Self::Delete { key } => check_key(key),
            Self::Put { key, value } => check_key(key).and_then(|()| check_value(value)),
            Self::CompareAndSwap { key, expected, value } => {
                check_key(key)?;
                expected.iter().chain([value]).try_for_each(|value| check_value(value))
            }
            Self::Range { from, to, .. } => [Some(from), to.as_ref()].into_iter().flatten().try_for_each(|bound| {
                // The first key after `k` is `k ‖ 0`.
                if bound.len() > KEY_BYTES_MAX + 1 { Err(KvError::KeyTooLong) } else { Ok(()) }
            }),
        }
    }

    fn checked(self) -> Result<Self, KvError> {
        self.check().map(|()| self)
    }
}

impl Compare {
    /// The key is absent.
    #[must_use]
    pub fn absent(key: &[u8]) -> Self {
        Self { key: Blob::copy(key), relation: Relation::Equal, target: Target::Version(0) }
    }

    /// The key is there.
    #[must_use]
    pub fn present(key: &[u8]) -> Self {
        Self { key: Blob::copy(key), relation: Relation::Greater, target: Target::Version(0) }
    }

    /// The key has this value.
    #[must_use]
    pub fn value(key: &[u8], value: &[u8]) -> Self {
        Self { key: Blob::copy(key), relation: Relation::Equal, target: Target::Value(Blob::copy(value)) }
    }

    /// The key was last written by this command, and so is what it was then.
    #[must_use]
    pub fn unmodified(key: &[u8], modified: Position) -> Self {
        Self { key: Blob::copy(key), relation: Relation::Equal, target: Target::Modified(modified) }
    }

    fn check(&self) -> Result<(), KvError> {
        check_key(&self.key)?;
        match &self.target {
            Target::Value(value) => check_value(value),
            Target::Version(_) | Target::Created(_) | Target::Modified(_) => Ok(()),
        }
    }
}

fn check_key(key: &[u8]) -> Result<(), KvError> {
    match key.len() {
        0 => Err(KvError::EmptyKey),
        1..=KEY_BYTES_MAX => Ok(()),
        _ => Err(KvError::KeyTooLong),
    }
}

fn check_value(value: &[u8]) -> Result<(), KvError> {
    if value.len() > VALUE_BYTES_MAX { Err(KvError::ValueTooLong) } else { Ok(()) }
}
