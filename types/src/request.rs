//! What a client signs, and what it is answered.

use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    BadSignature, Blob, ClientId, ClusterId, DecodeError, Digest, Domain, Epoch, Seq, SessionId, Signature, SigningKey,
    Verified, decode, encode,
};

/// What a client session signs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Who signs it.
    pub client: ClientId,
    /// What it asks for.
    pub call: Call,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Call {
    /// Opens a session (R24).
    Open {
        /// 128 random bits drawn for this session; only a re-send by the process that drew them repeats them.
        nonce: [u8; 16],
        /// A cut number: the OPEN is fresh at slot `s` iff it is a multiple of `I`, below `s`, and `s ≤ cut + K·I`.
        cut: Seq,
    },
    /// Runs commands in a session, numbered from `first` upwards.
    Commands {
        /// The session.
        session: SessionId,
        /// Every number up to this one was answered; the replicas may forget those replies (R25).
        ack: u64,
        /// The number of the first command; numbers start at 1.
        first: u64,
        /// The commands, encoded; at most [`Request::COMMANDS_MAX`].
        #[serde(deserialize_with = "crate::at_most::<{ Request::COMMANDS_MAX }, _, _>")]
        commands: Vec<Blob>,
    },
    /// Ends a session.
    Close {
        /// The session.
        session: SessionId,
    },
}

impl Request {
    /// The most commands one request may carry.
    pub const COMMANDS_MAX: usize = 1_024;

    /// Signs the request.
    #[must_use]
    pub fn sign(&self, cluster: ClusterId, key: &SigningKey) -> SignedRequest {
        let body = Blob::from(encode(self));
        let signature = key.sign(&request_signing_bytes(cluster, &body));
        SignedRequest { body, signature }
    }
}

/// A request as it travels and rests: its bytes, and the client's signature over them. What was received is digested
/// over the received bytes (R2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedRequest {
    /// The encoded [`Request`].
    pub body: Blob,
    /// The client's signature over `polder/v1/request\0 ‖ cluster id ‖ body`.
    pub signature: Signature,
}

impl SignedRequest {
    /// The request in the body.
    ///
    /// # Errors
    ///
    /// When the body is no canonical encoding of a request, or carries no command or more than
    /// [`Request::COMMANDS_MAX`].
    pub fn request(&self) -> Result<Request, DecodeError> {
        let request: Request = decode(&self.body, usize::MAX)?;
        match &request.call {
            Call::Commands { commands, first, .. }
                if commands.is_empty()
                    || commands.len() > Request::COMMANDS_MAX
                    || *first == 0
                    || first.checked_add(commands.len() as u64).is_none() =>
            {
                Err(DecodeError::Malformed)
            }
            _ => Ok(request),
        }
    }

    /// The digest of the request: of its body, not of its signature, of which a client can make many.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(Domain::Request, &self.body)
    }

    /// Checks the client's signature (R20).
    ///
    /// # Errors
    ///
    /// [`BadSignature`] when the body is no request or the signature is not that client's.
    pub fn verify(self, cluster: ClusterId) -> Result<Verified<Self>, BadSignature> {
        Verified::by(self, |this| this.check(cluster))
    }

    /// As [`SignedRequest::verify`], by reference.
    ///
    /// # Errors
    ///
    /// As [`SignedRequest::verify`].
    pub fn check(&self, cluster: ClusterId) -> Result<(), BadSignature> {
        let request = self.request().map_err(|_| BadSignature)?;
        request.client.0.verify(&request_signing_bytes(cluster, &self.body), &self.signature)
    }

    /// Bytes that this request takes in a batch, at most.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.body.len() + 64 + 5
    }
}

fn request_signing_bytes(cluster: ClusterId, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64 + body.len());
    bytes.extend_from_slice(b"polder/v1/request\0");
    bytes.extend_from_slice(&cluster.0.0);
    bytes.extend_from_slice(body);
    bytes
}

/// What one replica answers to one command. A client believes it on `r+1` equal ones (R23).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reply {
    /// The epoch in which the command was ordered.
    pub epoch: Epoch,
    /// The session; none in the answer to an OPEN.
    pub session: Option<SessionId>,
    /// The number of the command; 0 in the answer to an OPEN or a CLOSE.
    pub number: u64,
    /// The digest of the command (of the whole request for an OPEN or a CLOSE).
    pub command: Digest,
    /// The answer.
    pub answer: Answer,
}

impl Reply {
    /// The digest of a command, as replies carry it.
    #[must_use]
    pub fn command_digest(command: &[u8]) -> Digest {
        Digest::of(Domain::Command, command)
    }
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Answer {
    /// The session was opened.
    Opened(SessionId),
    /// The session was closed, or there was none.
    Closed,
    /// It was executed; the application's reply, encoded.
    Done(Blob),
    /// It was not executed, or its reply cannot be given; the same on all replicas.
    Failed(Failure),
}

/// Why a command has no reply of the application. Codes, no free text (R28).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Failure {
    /// There is no such session of this client: never opened, closed, or expired. Whether an earlier copy of the
    /// command was executed is unknown (R27).
    NoSession,
    /// The number is at or below the acknowledged ones, or beyond the window (R25).
    OutsideWindow,
    /// This number was used before for other bytes.
    NumberReused,
    /// The client may not do this.
    NotPermitted,
    /// The bytes are no command of this application.
    Malformed,
    /// The service panicked; nothing was changed (R28).
    Panicked,
    /// The service touched what its footprint does not declare; nothing was changed.
    Undeclared,
    /// The command touched or wrote more than a command may; nothing was changed.
    TooMuch,
    /// The reply is larger than a reply may be; nothing was changed (R25).
    ReplyTooLarge,
    /// The state is full and the command might make it grow; nothing was changed (R28).
    StateFull,
    /// It was executed and its effects stand, but the reply is no longer kept (R25).
    ReplyNotKept,
    /// The OPEN came too late or names no cut (R24).
    StaleOpen,
    /// There are too many sessions in all, or too many were opened lately, by this client or in all (R24).
    TooManySessions,
    /// So many commands of this client, or of all, are executed and not acknowledged that there is no room for one more
    /// (R25). It has not taken its number: once more is acknowledged, the same command is taken under it.
    NoRoom,
}

impl Failure {
    /// Whether the command is known not to have been executed, neither now nor in an earlier copy, and never to be under
    /// this number.
    #[must_use]
    pub fn is_rejection(self) -> bool {
        !matches!(self, Self::NoSession | Self::ReplyNotKept | Self::OutsideWindow | Self::NoRoom)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSession => "the session is unknown or has expired",
            Self::OutsideWindow => "the command's number is outside its session's window",
            Self::NumberReused => "the command's number was used for another command",
            Self::NotPermitted => "this client may not do that",
            Self::Malformed => "not a command of this service",
            Self::Panicked => "the service failed on this command; nothing was changed",
            Self::Undeclared => "the command touched what it had not declared; nothing was changed",
            Self::TooMuch => "the command exceeds the limits of one command; nothing was changed",
            Self::ReplyTooLarge => "the reply would be larger than a reply may be; nothing was changed",
            Self::StateFull => "the state is full; nothing was changed",
            Self::ReplyNotKept => "the command was executed, but its reply is no longer kept",
            Self::StaleOpen => "the request to open a session came too late",
            Self::TooManySessions => "there are too many open sessions",
            Self::NoRoom => "too many commands are not acknowledged yet",
        })
    }
}
