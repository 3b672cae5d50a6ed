//! The first exchange: version and cluster. Who does not fit is told why, in words.

use bytes::Bytes;
use polder_types::{ClusterId, Digest};
use quinn::{ConnectionError, VarInt};

use crate::ConnectError;

/// What both sides say first. Its bytes are the same in all versions for ever: `polder`, the version (two bytes,
/// little-endian), the cluster id (32 bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) version: u16,
    pub(crate) cluster: ClusterId,
}

const MAGIC: &[u8; 6] = b"polder";

impl Hello {
    pub(crate) const BYTES: usize = 40;

    pub(crate) fn encode(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let parts = MAGIC.iter().copied().chain(self.version.to_le_bytes()).chain(self.cluster.0.0);
        bytes.iter_mut().zip(parts).for_each(|(byte, part)| *byte = part);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, cluster) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<2>()?;
        Some(Self { version: u16::from_le_bytes(*version), cluster: ClusterId(Digest(cluster.try_into().ok()?)) })
    }

    /// Why a peer that says `theirs` is refused by one that says `self`.
    pub(crate) fn refuse(self, theirs: Self) -> Option<Refusal> {
        if self.version != theirs.version {
            let words = format!("version {} was met by version {}", theirs.version, self.version);
            return Some(Refusal { code: Code::WrongVersion, words });
        }
        if self.cluster != theirs.cluster {
            let words = format!("{} was met by {}", theirs.cluster, self.cluster);
            return Some(Refusal { code: Code::WrongCluster, words });
        }
        None
    }
}

/// A connection that one side ends, with words for the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) words: String,
}

impl Refusal {
    pub(crate) fn end(&self, connection: &quinn::Connection) {
        end(connection, self.code, &self.words);
    }
}

/// The kinds of ends, as QUIC's application error codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// The connection is no longer needed, or the process ends.
    Goodbye,
    WrongVersion,
    WrongCluster,
    NotAllowed,
    TooMany,
    /// Too much waits to be sent to this peer.
    TooSlow,
    /// The peer did what no correct peer does.
    Violation,
}

impl Code {
    const ALL: [Self; 7] = [
        Self::Goodbye,
        Self::WrongVersion,
        Self::WrongCluster,
        Self::NotAllowed,
        Self::TooMany,
        Self::Violation,
        Self::TooSlow,
    ];

    const fn number(self) -> u32 {
        match self {
            Self::Goodbye => 0,
            Self::WrongVersion => 1,
            Self::WrongCluster => 2,
            Self::NotAllowed => 3,
            Self::TooMany => 4,
            Self::Violation => 5,
            Self::TooSlow => 6,
        }
    }

    fn of(number: VarInt) -> Option<Self> {
        Self::ALL.into_iter().find(|code| VarInt::from_u32(code.number()) == number)
    }
}

/// Ends a connection, with words for the other side. One that has ended keeps the reason for which it did.
pub(crate) fn end(connection: &quinn::Connection, code: Code, words: &str) {
    if connection.close_reason().is_none() {
        connection.close(VarInt::from_u32(code.number()), words.as_bytes());
    }
}

/// The words of a peer: at most 200 characters, nothing that moves a terminal's cursor.
fn words(reason: &Bytes) -> String {
    let words: String = String::from_utf8_lossy(reason).chars().filter(|c| !c.is_control()).take(200).collect();
    if words.is_empty() { "it did not say why".to_owned() } else { words }
}

/// Why a connection ended, in words.
pub(crate) fn describe(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            format!("the peer closed the connection: {}", words(&close.reason))
        }
        ConnectionError::ConnectionClosed(close) => format!("the peer's QUIC closed the connection: {close}"),
        ConnectionError::TimedOut => "the peer gave no sign of life".to_owned(),
        ConnectionError::Reset => "the peer was restarted".to_owned(),
        ConnectionError::LocallyClosed => "the connection was closed on this side".to_owned(),
        other => other.to_string(),
    }
}

/// What the end of a connection means to who was just making it.
pub(crate) fn connect_error(error: &ConnectionError, address: &str) -> ConnectError {
    match error {
        ConnectionError::TimedOut => ConnectError::Unreachable { address: address.to_owned() },
        ConnectionError::LocallyClosed => ConnectError::Closed,
        ConnectionError::ApplicationClosed(close) => {
            let said = words(&close.reason);
            match Code::of(close.error_code) {
                Some(Code::WrongVersion) => ConnectError::WrongVersion(said),
                Some(Code::WrongCluster) => ConnectError::WrongCluster(said),
                Some(Code::NotAllowed) => ConnectError::NotAllowed(said),
                Some(Code::TooMany) => ConnectError::Busy(said),
                Some(Code::Goodbye | Code::Violation | Code::TooSlow) | None => ConnectError::Failed(describe(error)),
            }
        }
        // QUIC's own "connection refused": too many handshakes at once.
        ConnectionError::ConnectionClosed(close)
            if close.error_code == quinn::TransportErrorCode::CONNECTION_REFUSED =>
        {
            ConnectError::Busy("too many handshakes at once".to_owned())
        }
        other => ConnectError::Failed(describe(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: Hello = Hello { version: 1, cluster: ClusterId(Digest([3; 32])) };

    #[test]
    fn a_hello_round_trips_and_nothing_else_is_one() {
        assert_eq!(Hello::decode(&HELLO.encode()), Some(HELLO));
        assert_eq!(Hello::decode(&HELLO.encode()[..39]), None);
        assert_eq!(Hello::decode(b"GET / HTTP/1.1\r\n"), None);
        let mut longer = HELLO.encode().to_vec();
        longer.push(0);
        assert_eq!(Hello::decode(&longer), None);
    }

    /// Whatever is taken says the same bytes again; what is refused is refused with words for the other side.
    #[test]
    fn a_changed_hello_is_another_one_or_none() {
        let random = crate::random::Random::new(Some([8; 32])).expect("a seed");
        let mut taken = 0;
        for _ in 0..20_000 {
            let mut bytes = HELLO.encode().to_vec();
            for _ in 0..random.between(1, 3) {
                let at = random.between(0, bytes.len() as u64) as usize;
                match random.between(0, 5) {
                    0 => bytes.truncate(at),
                    1 => bytes.insert(at, random.between(0, 255) as u8),
                    _ => {
                        if let Some(byte) = bytes.get_mut(at) {
                            *byte = random.between(0, 255) as u8;
                        }
                    }
                }
            }
            let Some(hello) = Hello::decode(&bytes) else {
                assert!(bytes.len() != Hello::BYTES || !bytes.starts_with(MAGIC), "{bytes:?}");
                continue;
            };
            taken += 1;
            assert_eq!(hello.encode().as_slice(), bytes);
            let refusal = HELLO.refuse(hello);
            assert_eq!(refusal.is_none(), hello == HELLO);
            assert!(refusal.is_none_or(|refusal| refusal.words.contains("was met by") && refusal.words.len() < 200));
        }
        assert!(taken > 1_000, "{taken}");
    }

    #[test]
    fn the_version_is_checked_before_the_cluster() {
        let other = Hello { version: 2, cluster: ClusterId(Digest([4; 32])) };
        assert_eq!(HELLO.refuse(HELLO), None);
        assert_eq!(HELLO.refuse(other).map(|refusal| refusal.code), Some(Code::WrongVersion));
        let other = Hello { version: 1, ..other };
        assert_eq!(HELLO.refuse(other).map(|refusal| refusal.code), Some(Code::WrongCluster));
    }

    #[test]
    fn a_peers_words_cannot_move_the_cursor() {
        assert_eq!(words(&Bytes::from_static(b"\x1b[2Jhi\nthere\xff")), "[2Jhithere\u{fffd}");
        assert_eq!(words(&Bytes::new()), "it did not say why");
        assert_eq!(words(&Bytes::from(vec![b'a'; 5_000])).len(), 200);
    }
}
