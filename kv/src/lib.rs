//! A replicated key-value store: the service that ships with Polder, written as anybody would write one.
//!
//! Keys are 1 byte to 4 KiB, values up to 1 MiB. Every key carries a [`Revision`]: the commands that created and last
//! wrote it, and how often it was written. Beside single operations there are transactions over several keys: if all
//! comparisons hold, one list of operations runs, else the other.
//!
//! ```
//! use polder_kv::{Command, Compare, KvError, Operation, Transaction};
//!
//! # fn main() -> Result<(), KvError> {
//! let put = Command::put(b"lamp", b"on")?;
//! // Take a lock that nobody holds, or see who does.
//! let lock = Command::transaction(Transaction {
//!     compare: vec![Compare::absent(b"lock")],
//!     then: vec![Operation::put(b"lock", b"me")?],
//!     otherwise: vec![Operation::get(b"lock")?],
//! })?;
//! assert_eq!(Command::get(b""), Err(KvError::EmptyKey));
//! # let _ = (put, lock);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod client;
mod command;
mod reply;
mod service;

pub use client::{CallError, KvClient, Page, TransactionOutcome};
pub use command::{
    Command, Compare, KEY_BYTES_MAX, KvError, OPERATIONS_MAX, Operation, RANGE_ENTRIES_MAX, Relation, Target,
    Transaction, VALUE_BYTES_MAX,
};
pub use reply::{KeyValue, Outcome, Reply, Revision, Versioned};
pub use service::Kv;
