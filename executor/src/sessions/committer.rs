//! Records, in slot order, what the front decided and what came of it (R26). Alone it writes session partitions.

use std::collections::BTreeMap;
use std::ops::Bound;

use polder_types::{Answer, Blob, Constants, Digest, Failure, PartitionId, Position, SessionId, decode, encode};

use super::record::{open_key, row_key, session_key};
use super::{Meta, Opened, Outcome, Row};
use crate::state::State;

/// Writes the session partitions.
#[derive(Debug)]
pub(crate) struct Committer {
    session_bytes_max: u64,
    bytes_max: u64,
    /// The bytes of each session's rows, as its [`Meta`] will say at the end of the slot.
    cached_bytes: BTreeMap<SessionId, u64>,
    total_bytes: u64,
}

impl Committer {
    pub(crate) fn new(constants: &Constants) -> Self {
        Self {
            session_bytes_max: constants.reply_cache_per_session_bytes_max,
            bytes_max: constants.reply_cache_bytes_max,
            cached_bytes: BTreeMap::new(),
            total_bytes: 0,
        }
    }

    /// Takes in a session from the session partitions, as after a restart.
    pub(crate) fn restore_session(&mut self, session: SessionId, meta: &Meta) {
        self.cached_bytes.insert(session, meta.cached_bytes);
        self.total_bytes = self.total_bytes.saturating_add(meta.cached_bytes);
    }

    /// Records that an OPEN opened a session. The session itself is written with all that were used in the slot.
    pub(crate) fn opened(&mut self, state: &mut State, request: &Digest, opened: Opened, at: Position) {
        self.cached_bytes.insert(opened.session, 0);
        let partition = state.layout().of_open(request);
        state.write(partition, Blob::copy(&open_key(request)), Blob::from(encode(&opened)), at);
    }

    /// Forgets an OPEN.
    pub(crate) fn forgot(&mut self, state: &mut State, request: &Digest, at: Position) {
        let partition = state.layout().of_open(request);
        state.delete(partition, Blob::copy(&open_key(request)), at);
    }

    /// Forgets the replies to all numbers up to `ack` (R25).
    pub(crate) fn acknowledged(&mut self, state: &mut State, session: SessionId, ack: u64, at: Position) {
        let freed = delete_up_to(state, session, &row_key(session, ack), at);
        self.total_bytes = self.total_bytes.saturating_sub(freed);
        if let Some(bytes) = self.cached_bytes.get_mut(&session) {
            *bytes = bytes.saturating_sub(freed);
        }
    }

    /// Records that a session ended: nothing of it is kept.
    pub(crate) fn ended(&mut self, state: &mut State, session: SessionId, at: Position) {
        delete_up_to(state, session, &row_key(session, u64::MAX), at);
        let meta = Blob::copy(&session_key(session));
        let partition = state.layout().of_session(session);
        if state.partition(partition).get(&meta).is_some() {
            state.delete(partition, meta, at);
        }
        let freed = self.cached_bytes.remove(&session).unwrap_or_default();
        self.total_bytes = self.total_bytes.saturating_sub(freed);
    }

    /// Records what became of a number. Beyond the caps the number and the digest stay, the reply goes (R25).
    pub(crate) fn executed(&mut self, state: &mut State, session: SessionId, number: u64, mut row: Row, at: Position) {
        let Some(cached_bytes) = self.cached_bytes.get_mut(&session) else { return };
        let mut value = encode(&row);
        if matches!(row.outcome, Outcome::Answer(Answer::Done(_))) {
            let bytes = value.len() as u64;
            let fits = cached_bytes.saturating_add(bytes) <= self.session_bytes_max
                && self.total_bytes.saturating_add(bytes) <= self.bytes_max;
            if !fits {
                row.outcome = Outcome::NotKept;
                value = encode(&row);
            }
        }
        *cached_bytes = cached_bytes.saturating_add(value.len() as u64);
        self.total_bytes = self.total_bytes.saturating_add(value.len() as u64);
        let partition = state.layout().of_session(session);
        // The front lets a number be taken once.
        state.create(partition, Blob::copy(&row_key(session, number)), Blob::from(value), at);
    }

    /// Records a session that was used in the slot, at the end of it.
    pub(crate) fn used(&mut self, state: &mut State, session: SessionId, mut meta: Meta, at: Position) {
        let Some(cached_bytes) = self.cached_bytes.get(&session) else { return };
        meta.cached_bytes = *cached_bytes;
        let partition = state.layout().of_session(session);
        state.write(partition, Blob::copy(&session_key(session)), Blob::from(encode(&meta)), at);
    }

    /// What became of a number, if it is recorded.
    pub(crate) fn row(state: &State, session: SessionId, number: u64) -> Option<Row> {
        let partition = state.layout().of_session(session);
        decode(&state.partition(partition).get(&row_key(session, number))?.value, usize::MAX).ok()
    }
}

impl Outcome {
    /// The answer to a copy; none when it is to be read again.
    pub(crate) fn answer(self) -> Option<Answer> {
        match self {
            Self::Answer(answer) => Some(answer),
            Self::Read => None,
            Self::NotKept => Some(Answer::Failed(Failure::ReplyNotKept)),
        }
    }
}

/// Deletes the rows of a session up to this key, and returns the bytes of their values.
fn delete_up_to(state: &mut State, session: SessionId, last: &[u8], at: Position) -> u64 {
    let partition: PartitionId = state.layout().of_session(session);
    let first = row_key(session, 0);
    let rows = state.partition(partition).range(Bound::Included(&first));
    let rows: Vec<(Blob, u64)> = rows
        .take_while(|(key, _)| *key <= last)
        .map(|(key, entry)| (Blob::copy(key), entry.value.len() as u64))
        .collect();
    let mut freed = 0;
    for (key, bytes) in rows {
        freed += bytes;
        state.delete(partition, key, at);
    }
    freed
}
