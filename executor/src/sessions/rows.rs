//! How many numbers may be taken and not acknowledged (R25). Each is a row on every replica, whatever became of its
//! command, so their number is bounded: a few for each session, which nobody can take from it, and a share of the rest.

use std::collections::BTreeMap;

use polder_types::{ClientId, Constants};

/// The rows that sessions hold beyond what is theirs in any case. A function of the ordered requests alone (R26).
#[derive(Debug)]
pub(crate) struct Rows {
    /// A number at most this far above its session's acknowledged one is always taken: however full the table is,
    /// whoever acknowledges what was answered gets on.
    own: u64,
    shared_max: u64,
    shared_per_client_max: u64,
    shared: u64,
    shared_by_client: BTreeMap<ClientId, u64>,
}

impl Rows {
    /// What a row is counted as: about what it takes in memory beside its reply (370 bytes, measured), and some.
    const ROW_BYTES: u64 = 512;

    /// The share of a key in what is shared, as a divisor. By default so much that no key reaches it: as many rows as
    /// all the windows of all the sessions that a key may have.
    const SHARES: u64 = 16;

    /// Half of as many rows as the reply cache has room for goes to the sessions in equal parts, half is shared.
    pub(crate) fn new(constants: &Constants) -> Self {
        let half = constants.reply_cache_bytes_max / Self::ROW_BYTES / 2;
        let own = half / u64::from(constants.sessions_max).max(1);
        Self {
            own: own.min(constants.session_window).max(1),
            shared_max: half.max(1),
            shared_per_client_max: (half / Self::SHARES).max(1),
            shared: 0,
            shared_by_client: BTreeMap::new(),
        }
    }

    /// So many numbers above the acknowledged one are a session's own.
    pub(super) fn own(&self) -> u64 {
        self.own
    }

    /// Whether a client may take one more of what is shared.
    pub(super) fn has_room(&self, client: ClientId) -> bool {
        let held = self.shared_by_client.get(&client).copied().unwrap_or_default();
        self.shared < self.shared_max && held < self.shared_per_client_max
    }

    /// Takes one of what is shared.
    pub(super) fn take(&mut self, client: ClientId) {
        self.shared = self.shared.saturating_add(1);
        let held = self.shared_by_client.entry(client).or_default();
        *held = held.saturating_add(1);
    }

    /// Gives so many back.
    pub(super) fn give_back(&mut self, client: ClientId, count: u64) {
        self.shared = self.shared.saturating_sub(count);
        if let Some(held) = self.shared_by_client.get_mut(&client) {
            *held = held.saturating_sub(count);
            if *held == 0 {
                self.shared_by_client.remove(&client);
            }
        }
    }
}
