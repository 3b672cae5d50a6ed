//! Seats: how many connections may be open, in all and a key. A key's newest connection wins; and while all seats are
//! taken, who has many gives way to who has few, so that few keys cannot keep the others out.

use std::collections::{BTreeMap, VecDeque};

use polder_types::PublicKey;

use crate::Limits;

/// Open connections, counted by key.
#[derive(Debug)]
pub(crate) struct Seats<C> {
    replicas: Kind<C>,
    clients: Kind<C>,
    next: SeatId,
}

/// A seat's number; never used again.
pub(crate) type SeatId = u64;

/// The seats of replicas, or those of clients: neither takes the other's.
#[derive(Debug)]
struct Kind<C> {
    /// A key's connections, the oldest first; no key without one.
    by_key: BTreeMap<PublicKey, VecDeque<(SeatId, C)>>,
    count: usize,
}

/// A connection that lost its seat, and what it is told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Displaced<C> {
    pub(crate) connection: C,
    pub(crate) words: String,
}

impl<C> Default for Seats<C> {
    fn default() -> Self {
        let kind = || Kind { by_key: BTreeMap::new(), count: 0 };
        Self { replicas: kind(), clients: kind(), next: 0 }
    }
}

impl<C> Seats<C> {
    /// Gives a connection a seat, and says which one lost its own for that; an error is why there is none, in words.
    pub(crate) fn take(
        &mut self,
        key: PublicKey,
        is_client: bool,
        connection: C,
        limits: &Limits,
    ) -> Result<(SeatId, Option<Displaced<C>>), String> {
        let (kind, per_key_max, all_max) = match is_client {
            true => (&mut self.clients, limits.client_connections_per_key_max, limits.client_connections_max),
            // There are at most as many keys as replicas.
            false => (&mut self.replicas, limits.replica_connections_per_key_max, usize::MAX),
        };
        let own = kind.by_key.get(&key).map_or(0, VecDeque::len);
        let mut displaced = None;
        if own >= per_key_max.max(1) {
            let words = format!("a newer connection of this key took its seat: a key has at most {per_key_max}");
            displaced = kind.pop_oldest(&key).map(|connection| Displaced { connection, words });
        } else if kind.count >= all_max {
            let richest = kind.richest().filter(|(_, seats)| *seats >= own + 2);
            let Some((richest, _)) = richest else {
                return Err(format!("{all_max} connections of clients are open, and no more are taken"));
            };
            let words = format!("all {all_max} seats are taken, and a key with fewer than this one needs one");
            displaced = kind.pop_oldest(&richest).map(|connection| Displaced { connection, words });
        }
        let id = self.next;
        self.next += 1;
        kind.by_key.entry(key).or_default().push_back((id, connection));
        kind.count += 1;
        Ok((id, displaced))
    }

    /// A connection has ended. One that was displaced has no seat to give back.
    pub(crate) fn give_back(&mut self, key: &PublicKey, seat: SeatId) {
        self.replicas.remove(key, |id| id == seat);
        self.clients.remove(key, |id| id == seat);
    }

    /// Connections of replicas, and of clients.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.replicas.count, self.clients.count)
    }
}

impl<C> Kind<C> {
    /// The key with the most seats, and how many these are.
    fn richest(&self) -> Option<(PublicKey, usize)> {
        self.by_key.iter().map(|(key, held)| (*key, held.len())).max_by_key(|(_, seats)| *seats)
    }

    fn pop_oldest(&mut self, key: &PublicKey) -> Option<C> {
        let (oldest, _) = self.by_key.get(key)?.front()?;
        let oldest = *oldest;
        self.remove(key, |id| id == oldest)
    }

    fn remove(&mut self, key: &PublicKey, is_it: impl Fn(SeatId) -> bool) -> Option<C> {
        let held = self.by_key.get_mut(key)?;
        let place = held.iter().position(|(id, _)| is_it(*id))?;
        let (_, connection) = held.remove(place)?;
        if held.is_empty() {
            self.by_key.remove(key);
        }
        self.count -= 1;
        Some(connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> PublicKey {
        PublicKey([seed; 32])
    }

    fn limits(per_key: usize, all: usize) -> Limits {
        Limits {
            client_connections_per_key_max: per_key,
            replica_connections_per_key_max: per_key,
            client_connections_max: all,
            ..Limits::default()
        }
    }

    /// Who lost a seat.
    fn take(seats: &mut Seats<u32>, by: u8, connection: u32, limits: &Limits) -> Result<Option<u32>, String> {
        let (_, displaced) = seats.take(key(by), true, connection, limits)?;
        Ok(displaced.map(|displaced| displaced.connection))
    }

    #[test]
    fn the_newest_connection_of_a_key_wins() {
        let limits = limits(2, 100);
        let mut seats = Seats::default();
        assert_eq!(take(&mut seats, 1, 10, &limits), Ok(None));
        assert_eq!(take(&mut seats, 1, 11, &limits), Ok(None));
        assert_eq!(take(&mut seats, 1, 12, &limits), Ok(Some(10)));
        assert_eq!(take(&mut seats, 2, 20, &limits), Ok(None));
        assert_eq!(seats.counts(), (0, 3));
        let (_, displaced) = seats.take(key(1), true, 13, &limits).expect("a seat");
        assert!(displaced.is_some_and(|displaced| displaced.words.contains("newer connection of this key")));
    }

    #[test]
    fn who_has_many_gives_way_to_who_has_none_and_nobody_loses_the_only_one() {
        let limits = limits(8, 4);
        let mut seats = Seats::default();
        for (by, connection) in [(1, 10), (1, 11), (1, 12), (2, 20)] {
            assert_eq!(take(&mut seats, by, connection, &limits), Ok(None));
        }
        assert_eq!(take(&mut seats, 3, 30, &limits), Ok(Some(10)));
        assert_eq!(take(&mut seats, 4, 40, &limits), Ok(Some(11)));
        assert!(take(&mut seats, 5, 50, &limits).is_err_and(|words| words.contains("4 connections of clients")));
        assert!(take(&mut seats, 1, 13, &limits).is_err(), "a second is no reason to take somebody's only one");
        assert_eq!(seats.counts(), (0, 4));
    }

    #[test]
    fn clients_and_replicas_do_not_take_each_others_seats() {
        let limits = limits(1, 1);
        let mut seats = Seats::default();
        assert_eq!(take(&mut seats, 1, 10, &limits), Ok(None));
        assert!(seats.take(key(2), false, 20, &limits).is_ok());
        assert!(seats.take(key(3), false, 30, &limits).is_ok());
        assert!(take(&mut seats, 4, 40, &limits).is_err());
        assert_eq!(seats.counts(), (2, 1));
    }

    #[test]
    fn a_seat_is_given_back_once_and_not_by_who_lost_it() {
        let limits = limits(1, 100);
        let mut seats = Seats::default();
        let (first, _) = seats.take(key(1), true, 10, &limits).expect("a seat");
        let (second, displaced) = seats.take(key(1), true, 11, &limits).expect("a seat");
        assert!(displaced.is_some());
        seats.give_back(&key(1), first);
        assert_eq!(seats.counts(), (0, 1));
        seats.give_back(&key(1), second);
        seats.give_back(&key(1), second);
        assert_eq!(seats.counts(), (0, 0));
        assert!(seats.clients.by_key.is_empty());
    }
}
