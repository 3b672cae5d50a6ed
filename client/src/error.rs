//! What a caller is told when a command has no reply, or a client no session.

use polder_types::{Failure, ReplicaId};

/// A client that could not be connected.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The cluster file describes a cluster that cannot be.
    #[error("the cluster file is wrong: {0}")]
    ClusterFile(String),
    /// No socket could be bound.
    #[error("no socket: {0}")]
    Socket(String),
    /// Replicas turned this client away, more than may lie.
    #[error("the cluster turned this client away: {}", words(.0))]
    TurnedAway(Vec<(ReplicaId, String)>),
    /// Too few replicas answered in time.
    #[error("too few replicas answered in time{}", reasons(.0))]
    TimedOut(Vec<(ReplicaId, String)>),
    /// The replicas refuse to open a session.
    #[error("no session: {0}")]
    Refused(Failure),
    /// The session to resume belongs to another cluster or another key.
    #[error("the session to resume is of another {0}")]
    WrongState(&'static str),
}

fn words(reasons: &[(ReplicaId, String)]) -> String {
    let lines: Vec<String> = reasons.iter().map(|(replica, why)| format!("{replica}: {why}")).collect();
    lines.join("; ")
}

fn reasons(reasons: &[(ReplicaId, String)]) -> String {
    if reasons.is_empty() { String::new() } else { format!(": {}", words(reasons)) }
}

/// A command without a reply. The predicates say what is known of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The replicas agree that the command was not executed.
    #[error("rejected: {0}")]
    Rejected(Failure),
    /// The command is larger than a request may be; it was not sent.
    #[error("a command of {bytes} bytes; at most {bytes_max} fit into a request")]
    TooLarge {
        /// Its size, encoded.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The command was never sent, hence not executed.
    #[error("not sent: {0}")]
    NotSent(&'static str),
    /// The command may or may not have been executed, or may yet be.
    #[error("outcome unknown: {0}")]
    OutcomeUnknown(Unknown),
    /// The command was executed, but the replicas' reply is not one of this application.
    #[error("the command was executed, but its reply is not one of this application: is this another service's cluster?")]
    BadReply,
}

/// Why an outcome is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unknown {
    /// No answer in time; the command may still be executed.
    #[error("no answer in time")]
    TimedOut,
    /// The session has expired or was closed (R27).
    #[error("the session is gone")]
    SessionGone,
    /// The replicas say that the number is outside the session's window: it was acknowledged before.
    #[error("the command's number was acknowledged before")]
    Acknowledged,
    /// It was executed, but the reply is no longer kept (R25).
    #[error("the command was executed, but its reply is no longer kept")]
    ReplyNotKept,
    /// The client was closed before the answer came.
    #[error("the client was closed before the answer came")]
    Closed,
}

impl CallError {
    /// Whether the command was certainly not executed and never will be.
    #[must_use]
    pub fn is_not_executed(&self) -> bool {
        matches!(self, Self::Rejected(_) | Self::TooLarge { .. } | Self::NotSent(_))
    }

    /// Whether the command may or may not have been executed, or its effects are known but not its reply. Sending it
    /// again as a new command may execute it twice.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::OutcomeUnknown(_))
    }

    /// Whether time ran out, before or after the command was sent.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::OutcomeUnknown(Unknown::TimedOut) | Self::NotSent(Self::TIMED_OUT))
    }

    pub(crate) const TIMED_OUT: &'static str = "time ran out before it could be sent";
    pub(crate) const CLOSED: &'static str = "the client is closed";
}
