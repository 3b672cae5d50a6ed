//! What is left of a call whose outcome is unknown: enough to ask for it later.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use polder_types::{
    Application, Blob, ClientId, ClusterId, DecodeError, Digest, Domain, Reply, SessionId, Wire as _, decode, encode,
};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::SessionState;

/// What is left of a call whose outcome is unknown. With it, later and from any process that has the client's key,
/// [`Builder::resolve`](crate::Builder::resolve) learns what became of the command.
///
/// It names the cluster, the client, the session and the command's number in it, and it holds the command: keep it as
/// you would keep that. It holds no secret of the client's. It is good for as long as the session is open: until it
/// expires (`session_expiry_ms` of the cluster, an hour unless told, of its own clock), or the client that made the call
/// goes on long enough ([`CallError::token`](crate::CallError::token)).
///
/// As text, which [`fmt::Display`] writes and [`FromStr`] reads, it is one word without characters that mean something
/// to a shell, about 250 characters and four for every three bytes of the command; at most [`Token::TEXT_BYTES_MAX`].
/// In formats for people serde writes the same text.
///
/// ```
/// use polder_client::Token;
///
/// assert!("polder1.what-somebody-mistyped".parse::<Token>().is_err());
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Box<Parts>);

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Parts {
    cluster: ClusterId,
    client: ClientId,
    session: SessionId,
    /// What was acknowledged by the request that carried the command: its window begins there (R25).
    ack: u64,
    number: u64,
    command: Blob,
}

/// Text or bytes that are no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It does not begin as a token does, or is longer than any.
    #[error("no token: one begins with {}", Token::PREFIX)]
    NotOne,
    /// It begins as a token, and what follows was changed, or is not whole.
    #[error("a damaged token: a character was changed, or some are missing; copy it whole")]
    Damaged,
}

impl Token {
    /// What the text of a token begins with.
    pub const PREFIX: &str = "polder1.";
    /// The most bytes of the text of a token.
    pub const TEXT_BYTES_MAX: usize = 3 << 20;
    /// Bytes of the digest by which damage is seen: asking about another number than was meant would bar that number.
    const CHECK_BYTES: usize = 8;

    /// The token of the command that was sent in this session (`state`, as the request acknowledged) as this number.
    pub(crate) fn new(state: SessionState, number: u64, command: Blob) -> Self {
        let SessionState { cluster, client, session, acknowledged: ack } = state;
        Self(Box::new(Parts { cluster, client, session, ack, number, command }))
    }

    /// Its cluster.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.0.cluster
    }

    /// Its client: the public half of the key that can resolve it.
    #[must_use]
    pub fn client(&self) -> ClientId {
        self.0.client
    }

    /// Its session.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.0.session
    }

    /// The number of the command in its session.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.0.number
    }

    /// The digest of the command, as replies carry it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Reply::command_digest(&self.0.command)
    }

    /// The command.
    ///
    /// # Errors
    ///
    /// When it is not one of this application.
    pub fn command<A: Application>(&self) -> Result<A::Command, DecodeError> {
        A::Command::from_wire(&self.0.command)
    }

    pub(crate) fn command_bytes(&self) -> &Blob {
        &self.0.command
    }

    /// The session, to go on in it as it was when the command was sent.
    pub(crate) fn state(&self) -> SessionState {
        let Parts { cluster, client, session, ack, .. } = *self.0;
        SessionState { cluster, client, session, acknowledged: ack }
    }

    fn checked(parts: Parts) -> Result<Self, TokenError> {
        // A number that was sent is above what the same request acknowledged.
        if parts.number > parts.ack { Ok(Self(Box::new(parts))) } else { Err(TokenError::Damaged) }
    }

    fn check(bytes: &[u8]) -> [u8; Self::CHECK_BYTES] {
        let mut check = [0; Self::CHECK_BYTES];
        check.iter_mut().zip(Digest::of(Domain::Token, bytes).0).for_each(|(byte, digest)| *byte = digest);
        check
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = encode(&*self.0);
        bytes.extend(Self::check(&bytes));
        write!(f, "{}{}", Self::PREFIX, BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        if text.len() > Self::TEXT_BYTES_MAX {
            return Err(TokenError::NotOne);
        }
        let text = text.trim().strip_prefix(Self::PREFIX).ok_or(TokenError::NotOne)?;
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Damaged)?;
        let at = bytes.len().checked_sub(Self::CHECK_BYTES).ok_or(TokenError::Damaged)?;
        let (bytes, check) = bytes.split_at(at);
        if Self::check(bytes) != check {
            return Err(TokenError::Damaged);
        }
        decode(bytes, usize::MAX).map_err(|_| TokenError::Damaged).and_then(Self::checked)
    }
}

impl fmt::Debug for Token {
    /// In short, without the command, for a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({} number {} of {} B)", self.session(), self.number(), self.0.command.len())
    }
}

impl Serialize for Token {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse()
        } else {
            Self::checked(Parts::deserialize(deserializer)?)
        };
        read.map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use polder_types::{Position, PublicKey, Seq};

    use super::*;

    fn token(command: &[u8]) -> Token {
        let state = SessionState {
            cluster: ClusterId(Digest([1; 32])),
            client: ClientId(PublicKey([2; 32])),
            session: SessionId(Position { slot: Seq(3), index: 4 }),
            acknowledged: 5,
        };
        Token::new(state, 6, Blob::copy(command))
    }

    #[test]
    fn a_token_is_read_back_from_its_text_and_from_its_bytes() {
        for command in [&b""[..], b"put", &[0xff; 70_000]] {
            let token = token(command);
            let text = token.to_string();
            assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)), "{text}");
            assert_eq!(text.parse(), Ok(token.clone()));
            assert_eq!(format!(" {text}\n").parse(), Ok(token.clone()));
            assert_eq!(decode::<Token>(&encode(&token), usize::MAX), Ok(token));
        }
        assert!(token(b"put").to_string().len() < 250);
    }

    /// Else another number than was meant would be barred.
    #[test]
    fn a_token_with_a_character_changed_or_missing_is_refused() {
        let text = token(b"put").to_string();
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert!(String::from_utf8(changed).is_ok_and(|text| text.parse::<Token>().is_err()), "{at}");
            assert!(text[..at].parse::<Token>().is_err(), "{at}");
        }
        assert_eq!(format!("{text}A").parse::<Token>(), Err(TokenError::Damaged));
        assert_eq!("on".parse::<Token>(), Err(TokenError::NotOne));
        assert_eq!("A".repeat(Token::TEXT_BYTES_MAX + 1).parse::<Token>(), Err(TokenError::NotOne));
    }

    #[test]
    fn a_number_that_cannot_have_been_sent_is_refused() {
        let mut parts = *token(b"put").0;
        parts.number = parts.ack;
        assert_eq!(Token(Box::new(parts.clone())).to_string().parse::<Token>(), Err(TokenError::Damaged));
        assert!(decode::<Token>(&encode(&parts), usize::MAX).is_err());
    }
}
