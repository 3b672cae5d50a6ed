//! What the session partitions hold.
//!
//! | key | value |
//! | --- | --- |
//! | `s` ‖ session id | [`Meta`] |
//! | `s` ‖ session id ‖ number | [`Row`] |
//! | `o` ‖ request digest | [`Opened`] |
//!
//! Numbers are big-endian, so that a session's rows follow it in order.

use polder_types::{Answer, Blob, ClientId, Digest, Epoch, Position, Seq, SessionId, decode};
use serde::{Deserialize, Serialize};

use crate::state::Partition;

/// A session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    /// Whose it is.
    pub(crate) client: ClientId,
    /// R25: numbers up to this one are acknowledged.
    pub(crate) ack: u64,
    /// R27: the session clock when it was used last.
    pub(crate) used_ms: u64,
    /// The bytes of its rows' values.
    pub(crate) cached_bytes: u64,
}

/// What became of a number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// The epoch in which the command was ordered.
    pub(crate) epoch: Epoch,
    /// The command's digest: a copy is known by it, and so is another command under the same number.
    pub(crate) command: Digest,
    /// What there is to answer.
    pub(crate) outcome: Outcome,
}

/// What there is to answer to a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    /// This.
    Answer(Answer),
    /// Read again (R25): the command is read-only.
    Read,
    /// It was executed, the reply was beyond the caps (R25).
    NotKept,
}

/// A remembered OPEN (R24).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Opened {
    /// The session that it opened.
    pub(crate) session: SessionId,
    /// Whose it is: also when that session is long closed.
    pub(crate) client: ClientId,
    /// The last slot at which a copy of it is fresh.
    pub(crate) until: Seq,
}

const SESSION: u8 = b's';
const OPEN: u8 = b'o';
const ID_BYTES: usize = 12;

/// A record of a session partition, with what its key says.
#[derive(Debug)]
pub(crate) enum Record {
    Session(SessionId, Meta),
    Row(SessionId, u64, Row),
    Opened(Digest, Opened),
}

pub(super) fn session_key(session: SessionId) -> [u8; 1 + ID_BYTES] {
    let mut key = [SESSION; 1 + ID_BYTES];
    key[1..9].copy_from_slice(&session.0.slot.0.to_be_bytes());
    key[9..].copy_from_slice(&session.0.index.to_be_bytes());
    key
}

pub(super) fn row_key(session: SessionId, number: u64) -> [u8; 9 + ID_BYTES] {
    let mut key = [0; 9 + ID_BYTES];
    key[..=ID_BYTES].copy_from_slice(&session_key(session));
    key[1 + ID_BYTES..].copy_from_slice(&number.to_be_bytes());
    key
}

pub(super) fn open_key(request: &Digest) -> [u8; 33] {
    let mut key = [OPEN; 33];
    key[1..].copy_from_slice(&request.0);
    key
}

/// The records of a session partition; none when one of them cannot be read.
pub(crate) fn read_partition(partition: &Partition) -> impl Iterator<Item = Option<Record>> + '_ {
    partition.range(std::ops::Bound::Unbounded).map(|(key, entry)| read(key, &entry.value))
}

fn read(key: &[u8], value: &Blob) -> Option<Record> {
    let (kind, rest) = key.split_first()?;
    match *kind {
        OPEN => Some(Record::Opened(Digest(rest.try_into().ok()?), decode(value, usize::MAX).ok()?)),
        SESSION => {
            let (id, number) = rest.split_at_checked(ID_BYTES)?;
            let (slot, index) = id.split_at_checked(8)?;
            let slot = Seq(u64::from_be_bytes(slot.try_into().ok()?));
            let session = SessionId(Position { slot, index: u32::from_be_bytes(index.try_into().ok()?) });
            if number.is_empty() {
                return Some(Record::Session(session, decode(value, usize::MAX).ok()?));
            }
            let number = u64::from_be_bytes(number.try_into().ok()?);
            Some(Record::Row(session, number, decode(value, usize::MAX).ok()?))
        }
        _ => None,
    }
}
