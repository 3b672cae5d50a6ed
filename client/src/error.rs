//! What a caller is told when a command has no reply, or a client no session.

use polder_types::{Failure, ReplicaId};

use crate::Token;

/// A client that could not be connected.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The cluster file describes a cluster that cannot be.
    #[error("the cluster file is wrong: {0}")]
    ClusterFile(String),
    /// The key is a replica's: replicas take whoever has it for that replica.
    #[error(
        "this key is the identity of {0}, and replicas would take this client for it: a client needs a key of its own \
         (keygen makes one)"
    )]
    ReplicaKey(ReplicaId),
    /// No socket could be bound, or there is no randomness.
    #[error("this machine does not let the client start: {0}")]
    Local(String),
    /// Replicas turned this client away, in these words, so many that no command could be answered: another
    /// cluster, another version, or a key that is not let in.
    #[error("the cluster turned this client away: {}", words(.0))]
    TurnedAway(Vec<(ReplicaId, String)>),
    /// Too few replicas answered in time.
    #[error("too few replicas answered in time: {}", words(.0))]
    TimedOut(Vec<(ReplicaId, String)>),
    /// The replicas agree that there is no session for this client.
    #[error("the cluster opens no session: {0}")]
    Refused(Failure),
    /// The session to resume is another cluster's or another key's.
    #[error("the session to resume belongs to another {0}")]
    WrongState(&'static str),
}

/// What each replica said, in one line; replicas that said the same are named together.
fn words(reasons: &[(ReplicaId, String)]) -> String {
    let mut said: Vec<(&str, Vec<String>)> = Vec::new();
    for (replica, why) in reasons {
        match said.iter_mut().find(|(words, _)| words == why) {
            Some((_, replicas)) => replicas.push(replica.to_string()),
            None => said.push((why, vec![replica.to_string()])),
        }
    }
    let lines: Vec<String> = said.iter().map(|(why, replicas)| format!("{}: {why}", replicas.join(", "))).collect();
    if lines.is_empty() { "none said anything".to_owned() } else { lines.join("; ") }
}

/// A command without a reply. The predicates say what is known of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// `r+1` replicas agree that the command was not executed, nor ever will be under its number.
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
    /// The command was not sent by this call, and will not be.
    #[error("not sent: {0}")]
    NotSent(&'static str),
    /// Whether the command was executed is not known here, or its reply is lost.
    #[error("outcome unknown: {why}")]
    OutcomeUnknown {
        /// Why.
        why: Unknown,
        /// With it what became of the command can be asked for later; none where nobody could tell.
        token: Option<Token>,
    },
    /// The command was executed, but the replicas' reply is not one of this application.
    #[error("executed, but the reply is not one of this application: does the cluster run another service?")]
    BadReply,
}

/// Why an outcome is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unknown {
    /// No answer in time; the command may have been executed, or may yet be.
    #[error("no answer in time; the command may still be executed")]
    TimedOut,
    /// The session has expired or was closed; the command may have been executed before (R27).
    #[error("the session has expired or was closed; the command may have been executed before")]
    SessionGone,
    /// The number was acknowledged: the command was executed and answered before, or never will be.
    #[error("the command's number was acknowledged before")]
    Acknowledged,
    /// The command was executed; its reply is no longer kept (R25).
    #[error("the command was executed, but its reply is no longer kept")]
    ReplyNotKept,
    /// The client was closed before the answer came; the command may have been executed, or may yet be.
    #[error("the client was closed before the answer came; the command may still be executed")]
    Closed,
}

impl CallError {
    /// Whether the command was certainly not executed, and will not be by this call. Calling again is safe.
    #[must_use]
    pub fn is_not_executed(&self) -> bool {
        matches!(self, Self::Rejected(_) | Self::TooLarge { .. } | Self::NotSent(_))
    }

    /// Whether it is not known if the command was executed, or it was and its reply is lost. Calling again may
    /// execute it twice; [`CallError::token`] finds out.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::OutcomeUnknown { .. })
    }

    /// With what [`Builder::resolve`](crate::Builder::resolve) learns later what became of the command: there whenever the
    /// command was sent and the call ended before its answer.
    ///
    /// For its sake the client does not close its session and keeps the replicas from forgetting the reply, until it has
    /// sent half a window (`session_window` of the cluster, 1 024) of further commands, or those were answered with a
    /// quarter of the bytes that the replicas keep for a session (`reply_cache_per_session_bytes_max`, 16 MiB), or the
    /// replicas have no room for more commands before others are acknowledged.
    #[must_use]
    pub fn token(&self) -> Option<&Token> {
        match self {
            Self::OutcomeUnknown { token, .. } => token.as_ref(),
            _ => None,
        }
    }

    /// An outcome that is unknown, and that nobody can be asked for.
    pub(crate) fn unknown(why: Unknown) -> Self {
        Self::OutcomeUnknown { why, token: None }
    }

    /// Whether time ran out, before or after the command was sent.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::OutcomeUnknown { why: Unknown::TimedOut, .. }) || *self == Self::NotSent(Self::TIMED_OUT)
    }

    pub(crate) const TIMED_OUT: &'static str = "time ran out before it could be sent";
    pub(crate) const CLOSED: &'static str = "the client is closed";
    pub(crate) const BEYOND_WINDOW: &'static str = "the number is beyond the window; acknowledge lower ones first";
    pub(crate) const NUMBER_IN_USE: &'static str = "the number is in use for another command";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_that_say_the_same_are_named_together() {
        let said = |replica, why: &str| (ReplicaId(replica), why.to_owned());
        let error = ConnectError::TimedOut(vec![said(0, "no answer"), said(1, "busy"), said(2, "no answer")]);
        assert_eq!(error.to_string(), "too few replicas answered in time: r0, r2: no answer; r1: busy");
    }

    #[test]
    fn every_error_is_of_one_kind() {
        let rejected = CallError::Rejected(Failure::NotPermitted);
        assert!(rejected.is_not_executed() && !rejected.is_outcome_unknown() && !rejected.is_timeout());
        let unknown = CallError::unknown(Unknown::TimedOut);
        assert!(!unknown.is_not_executed() && unknown.is_outcome_unknown() && unknown.is_timeout());
        let not_sent = CallError::NotSent(CallError::TIMED_OUT);
        assert!(not_sent.is_not_executed() && !not_sent.is_outcome_unknown() && not_sent.is_timeout());
    }
}
