//! How much of what was answered before leaves again (R23): who repeats a small request with large answers must not
//! make this replica copy, hold and send them all each time. What one copy is not given, later ones are.

use std::collections::BTreeMap;

use polder_executor::Share;
use polder_types::{Call, ClientId, Request, SessionId};

/// Bytes of such answers that one client is given in a tick; one answer may exceed them.
const CLIENT_BYTES_MAX: u64 = 4 << 20;

/// Bytes of such answers that all clients together are given in a tick; one answer may exceed them.
const ALL_BYTES_MAX: u64 = 64 << 20;

/// No client takes more than this part of what is left for all, so that there is some for those that come later.
const PART_OF_REST: u64 = 16;

/// Ticks after which it is forgotten where the next copy of a request goes on: longer than a client waits with it.
const REMEMBERED_TICKS: u32 = 1_000;

/// Requests of which that is remembered.
const REMEMBERED_MAX: usize = 65_536;

/// A request by what all its copies have in common: its session, and the number of its first command.
type Copied = (ClientId, SessionId, u64);

/// What was given in this tick, and where the next copies go on.
#[derive(Clone, Debug, Default)]
pub(super) struct Copies {
    given: u64,
    given_to: BTreeMap<ClientId, u64>,
    /// The number behind which the next copy goes on, and for how many ticks more.
    after: BTreeMap<Copied, (u64, u32)>,
}

impl Copies {
    /// What this copy of a request may be given.
    pub(super) fn share(&self, request: &Request) -> Share {
        let own = self.given_to.get(&request.client).copied().unwrap_or(0);
        let rest = ALL_BYTES_MAX.saturating_sub(self.given).div_ceil(PART_OF_REST);
        let after = copied(request).and_then(|copied| self.after.get(&copied)).map(|(after, _)| *after);
        Share { bytes: CLIENT_BYTES_MAX.saturating_sub(own).min(rest), after }
    }

    /// This copy was given that, and left so much of its share.
    pub(super) fn given(&mut self, request: &Request, bytes: u64, left: Share) {
        if bytes > 0 {
            *self.given_to.entry(request.client).or_insert(0) += bytes;
            self.given += bytes;
        }
        let Some(copied) = copied(request) else { return };
        match left.after {
            None => drop(self.after.remove(&copied)),
            Some(after) => {
                if bytes > 0 && (self.after.len() < REMEMBERED_MAX || self.after.contains_key(&copied)) {
                    self.after.insert(copied, (after, REMEMBERED_TICKS));
                }
            }
        }
    }

    /// Time has passed.
    pub(super) fn tick(&mut self) {
        self.given = 0;
        self.given_to.clear();
        self.after.retain(|_, (_, ticks)| {
            *ticks -= 1;
            *ticks > 0
        });
    }
}

fn copied(request: &Request) -> Option<Copied> {
    match request.call {
        Call::Commands { session, first, .. } => Some((request.client, session, first)),
        Call::Open { .. } | Call::Close { .. } => None,
    }
}

#[cfg(test)]
mod alone;

#[cfg(test)]
mod tests {
    use polder_types::{Blob, PublicKey};

    use super::*;

    fn request(client: u8, first: u64) -> Request {
        let client = ClientId(PublicKey([client; 32]));
        let commands = vec![Blob::default()];
        Request { client, call: Call::Commands { session: SessionId::default(), ack: 0, first, commands } }
    }

    /// Takes all that one copy may be given; returns how much that was.
    fn take(copies: &mut Copies, request: &Request, after: Option<u64>) -> u64 {
        let share = copies.share(request);
        copies.given(request, share.bytes, Share { bytes: 0, after });
        share.bytes
    }

    #[test]
    fn r23_a_client_that_repeats_requests_is_given_so_much_a_tick() {
        let mut copies = Copies::default();
        let taken: u64 = (0..512).map(|first| take(&mut copies, &request(1, first), None)).sum();
        assert_eq!(taken, CLIENT_BYTES_MAX);
        assert!(copies.share(&request(2, 1)).bytes > 0, "another is given its own");
        copies.tick();
        assert_eq!(take(&mut copies, &request(1, 1), None), CLIENT_BYTES_MAX);
    }

    #[test]
    fn all_clients_together_are_given_so_much_a_tick_and_the_last_is_given_some() {
        let mut copies = Copies::default();
        let taken: Vec<u64> = (0..200).map(|client| take(&mut copies, &request(client, 1), None)).collect();
        assert!(taken.iter().sum::<u64>() <= ALL_BYTES_MAX);
        assert!(taken.iter().all(|bytes| *bytes > 0));
    }

    #[test]
    fn where_the_next_copy_goes_on_is_remembered_a_request_and_for_a_while() {
        let mut copies = Copies::default();
        take(&mut copies, &request(1, 1), Some(7));
        take(&mut copies, &request(2, 1), Some(9));
        assert_eq!(copies.share(&request(1, 1)).after, Some(7));
        assert_eq!(copies.share(&request(1, 2)).after, None);
        copies.tick();
        take(&mut copies, &request(1, 1), None);
        assert_eq!(copies.share(&request(1, 1)).after, None, "it was given all");
        for _ in 0..REMEMBERED_TICKS {
            copies.tick();
        }
        assert!(copies.after.is_empty());
    }

    /// Whoever is given nothing is not remembered: made-up requests must not fill the table.
    #[test]
    fn only_who_was_given_something_is_remembered() {
        let mut copies = Copies::default();
        copies.given(&request(1, 1), 0, Share { bytes: 0, after: Some(3) });
        assert!(copies.after.is_empty());
    }
}
