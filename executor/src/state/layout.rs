//! Which partition holds what.

use polder_types::{Constants, Digest, Domain, PartitionId, SessionId};

/// The partitions of the state: key partitions first, then session partitions, then the system partition (R29).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    keys: u16,
    sessions: u16,
}

impl Layout {
    pub(crate) fn new(constants: &Constants) -> Self {
        Self { keys: constants.partitions.max(1), sessions: constants.session_partitions.max(1) }
    }

    /// The partition of a key of the service: by its hash, so that nobody fills one of his choice cheaply.
    pub(crate) fn of_key(&self, key: &[u8]) -> PartitionId {
        PartitionId(share(&Digest::of(Domain::Key, key), self.keys))
    }

    /// The partition of a session and of all its records.
    pub(crate) fn of_session(&self, session: SessionId) -> PartitionId {
        let spread = session.0.slot.0.wrapping_add(session.0.index.into()) % u64::from(self.sessions);
        PartitionId(self.keys + spread as u16)
    }

    /// The partition of a remembered OPEN (R24).
    pub(crate) fn of_open(&self, request: &Digest) -> PartitionId {
        PartitionId(self.keys + share(request, self.sessions))
    }

    pub(crate) fn system(&self) -> PartitionId {
        PartitionId(self.keys + self.sessions)
    }

    pub(crate) fn key_partitions(&self) -> usize {
        self.keys.into()
    }

    pub(crate) fn session_partitions(&self) -> impl Iterator<Item = PartitionId> + use<> {
        (self.keys..self.keys + self.sessions).map(PartitionId)
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.keys) + usize::from(self.sessions) + 1
    }
}

fn share(digest: &Digest, of: u16) -> u16 {
    let [first, second, third, fourth, ..] = digest.0;
    (u32::from_le_bytes([first, second, third, fourth]) % u32::from(of)) as u16
}
