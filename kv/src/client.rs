//! The typed client.

use std::fmt;

use polder_client::{Builder, Client, ConnectError, Token};
use polder_types::{Blob, ClusterFile, SigningKey};

use crate::{Command, KeyValue, Kv, KvError, Outcome, Reply, Revision, Transaction, Versioned};

/// A client of the key-value service. Clone it freely: all clones share one session, and what they call at the same
/// time is packed into few requests.
///
/// Each method has one command executed exactly once, and returns what it came to. Reads are ordered like writes: they
/// see every write that was answered before they were called.
///
/// # Cancel safety
///
/// Of every method, as of [`Client::call`]: dropping the future does not cancel the command. Once it was polled, the
/// command may be executed, exactly once, and nobody learns what it came to.
///
/// ```no_run
/// use polder_kv::KvClient;
/// # use polder_types::{ClusterFile, SigningKey};
///
/// # async fn example(cluster: ClusterFile, key: SigningKey) -> Result<(), Box<dyn std::error::Error>> {
/// let kv = KvClient::connect(cluster, key).await?;
/// kv.put(b"lamp", b"on").await?;
/// let lamp = kv.get(b"lamp").await?;
/// assert_eq!(lamp.map(|lamp| lamp.value.to_vec()), Some(b"on".to_vec()));
/// match kv.compare_and_swap(b"lamp", Some(b"on"), b"off").await? {
///     Ok(revision) => println!("switched off, by {}", revision.modified),
///     Err(found) => println!("somebody else was there: {found:?}"),
/// }
/// kv.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct KvClient(Client<Kv>);

/// A part of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The entries, in order of their keys.
    pub entries: Vec<KeyValue>,
    /// The first key of the range that did not fit; none at its end.
    pub next: Option<Blob>,
}

/// What a transaction came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionOutcome {
    /// Whether all comparisons held.
    pub succeeded: bool,
    /// What the operations of the list that ran came to, in their order.
    pub outcomes: Vec<Outcome>,
}

/// A call without a reply. The predicates say what is known of the command.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallError {
    /// No such command can be executed: a key or value of the wrong size, or too many operations.
    Refused(KvError),
    /// As the client says.
    Client(polder_client::CallError),
}

impl KvClient {
    /// Connects to the cluster that the file describes, with the default settings, and opens a session.
    ///
    /// # Errors
    ///
    /// As [`Builder::connect`].
    pub async fn connect(cluster: ClusterFile, key: SigningKey) -> Result<Self, ConnectError> {
        Ok(Self(Builder::new(cluster, key).connect().await?))
    }

    /// The typed client over an untyped one, for other settings than the default ones.
    #[must_use]
    pub fn new(client: Client<Kv>) -> Self {
        Self(client)
    }

    /// What is under a key.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn get(&self, key: &[u8]) -> Result<Option<Versioned>, CallError> {
        match self.operation(Command::get(key)).await? {
            Outcome::Value(value) => Ok(value),
            _ => Err(CallError::bad_reply()),
        }
    }

    /// Writes a key, and returns its new revision.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn put(&self, key: &[u8], value: &[u8]) -> Result<Revision, CallError> {
        match self.operation(Command::put(key, value)).await? {
            Outcome::Written(revision) => Ok(revision),
            _ => Err(CallError::bad_reply()),
        }
    }

    /// Deletes a key, and returns the revision that it had; none if it was absent.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn delete(&self, key: &[u8]) -> Result<Option<Revision>, CallError> {
        match self.operation(Command::delete(key)).await? {
            Outcome::Deleted(revision) => Ok(revision),
            _ => Err(CallError::bad_reply()),
        }
    }

    /// Writes a key if it has the value `expected`, or is absent when that is none. Returns the new revision, or else
    /// what is there instead.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn compare_and_swap(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        value: &[u8],
    ) -> Result<Result<Revision, Option<Versioned>>, CallError> {
        match self.operation(Command::compare_and_swap(key, expected, value)).await? {
            Outcome::Written(revision) => Ok(Ok(revision)),
            Outcome::Differs(found) => Ok(Err(found)),
            _ => Err(CallError::bad_reply()),
        }
    }

    /// The entries from the key `from` on, below `to` where there is one; at most `limit`, or as many as fit into a
    /// reply (`limit` 0). To read on, call again from the page's `next`; what others write in between is seen.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn range(&self, from: &[u8], to: Option<&[u8]>, limit: u32) -> Result<Page, CallError> {
        self.page(Command::range(from, to, limit)).await
    }

    /// The entries whose keys start with `prefix`, as [`KvClient::range`].
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn prefix(&self, prefix: &[u8], limit: u32) -> Result<Page, CallError> {
        self.page(Command::prefix(prefix, limit)).await
    }

    /// As [`KvClient::prefix`], from the key `from` on: the `next` of the page before.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn prefix_after(&self, prefix: &[u8], from: &[u8], limit: u32) -> Result<Page, CallError> {
        self.page(Command::prefix_after(prefix, from, limit)).await
    }

    /// Several operations on a condition, all at one place in the order.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn transaction(&self, transaction: Transaction) -> Result<TransactionOutcome, CallError> {
        match self.call(Command::transaction(transaction)).await? {
            Reply::Transaction { succeeded, outcomes } => Ok(TransactionOutcome { succeeded, outcomes }),
            Reply::Done(_) | Reply::Refused(_) => Err(CallError::bad_reply()),
        }
    }

    /// Closes the session, as [`Client::close`].
    pub async fn close(&self) {
        self.0.close().await;
    }

    async fn page(&self, command: Result<Command, KvError>) -> Result<Page, CallError> {
        match self.operation(command).await? {
            Outcome::Range { entries, next } => Ok(Page { entries, next }),
            _ => Err(CallError::bad_reply()),
        }
    }

    async fn operation(&self, command: Result<Command, KvError>) -> Result<Outcome, CallError> {
        match self.call(command).await? {
            Reply::Done(outcome) => Ok(outcome),
            Reply::Transaction { .. } | Reply::Refused(_) => Err(CallError::bad_reply()),
        }
    }

    async fn call(&self, command: Result<Command, KvError>) -> Result<Reply, CallError> {
        let command = command.map_err(CallError::Refused)?;
        match self.0.call(&command).await.map_err(CallError::Client)? {
            Reply::Refused(error) => Err(CallError::Refused(error)),
            reply => Ok(reply),
        }
    }
}

impl CallError {
    /// Whether the command was certainly not executed, and will not be by this call. Calling again is safe.
    #[must_use]
    pub fn is_not_executed(&self) -> bool {
        match self {
            Self::Refused(_) => true,
            Self::Client(error) => error.is_not_executed(),
        }
    }

    /// Whether it is not known if the command was executed, or it was and its reply is lost.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::Client(error) if error.is_outcome_unknown())
    }

    /// With what [`Builder::resolve`], of [`Kv`], learns later what became of the command, if its outcome is unknown and
    /// can be learned: as [`polder_client::CallError::token`].
    #[must_use]
    pub fn token(&self) -> Option<&Token> {
        match self {
            Self::Refused(_) => None,
            Self::Client(error) => error.token(),
        }
    }

    /// Whether time ran out, before or after the command was sent.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Client(error) if error.is_timeout())
    }

    /// A reply of another kind than the command's: the cluster runs another service.
    fn bad_reply() -> Self {
        Self::Client(polder_client::CallError::BadReply)
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => error.fmt(f),
            Self::Client(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CallError {}
