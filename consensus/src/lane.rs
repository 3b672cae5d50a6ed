//! One lane of waiting requests, and what decides whether a request could execute (R6, R24, R26).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use polder_types::{Constants, Digest, ReplicaId, Seq, SignedRequest, Verified};

use crate::SessionWindow;

/// What a request asks for, as far as its place in the order matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// OPEN, fresh up to `K` cuts after this one.
    Open {
        /// The cut that it names.
        cut: Seq,
    },
    /// Commands `first..=last`; everything up to `ack` is acknowledged.
    Commands {
        /// The acknowledged number.
        ack: u64,
        /// The first number.
        first: u64,
        /// The last number.
        last: u64,
    },
    /// CLOSE: after all commands of its session.
    Close,
}

/// Whether a request could execute in the next slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chance {
    /// Yes.
    Now,
    /// Nothing is known of its session: it may be ordered, but arms nothing.
    Unknown,
    /// Not yet.
    Later,
    /// Not now, and not later.
    Never,
}

impl Ask {
    /// Its place in its lane.
    pub(crate) fn order(self) -> u64 {
        match self {
            Self::Open { .. } => 0,
            Self::Commands { first, .. } => first,
            Self::Close => u64::MAX,
        }
    }

    /// Whether it could execute in slot `next`, given its session's window at the last decided slot.
    pub(crate) fn chance(self, window: Option<SessionWindow>, next: Seq, constants: &Constants) -> Chance {
        match (self, window) {
            // R24: fresh iff the cut is a multiple of I, below the slot, and at most K cuts before it.
            (Self::Open { cut }, _) => {
                let interval = constants.interval_slots;
                let until = cut.plus(interval.saturating_mul(constants.open_fresh_cuts));
                if !cut.0.is_multiple_of(interval) || next > until {
                    Chance::Never
                } else if cut >= next {
                    Chance::Later
                } else {
                    Chance::Now
                }
            }
            // Of a session that is not known, or not open here yet.
            (_, None | Some(SessionWindow { high: 0, .. })) => Chance::Unknown,
            // A request's own acknowledgement moves the window before its commands are looked at.
            (Self::Commands { ack, first, last }, Some(window)) => {
                let high = window.high.max(ack.saturating_add(constants.session_window));
                if last <= window.ack.max(ack) {
                    Chance::Never
                } else if first > high {
                    Chance::Later
                } else {
                    Chance::Now
                }
            }
            (Self::Close, Some(_)) => Chance::Now,
        }
    }
}

/// On which way a request came that was taken regardless of the caps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// From its client.
    Direct,
    /// This backup forwarded it.
    Forwarded(ReplicaId),
}

/// What a waiting request counts for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weight {
    pub(crate) bytes: u64,
    /// On which way it came, of a row outside the caps.
    pub(crate) spare: Option<Way>,
}

/// A waiting request.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) request: Verified<SignedRequest>,
    /// The bytes that it takes in a batch.
    pub(crate) bytes: u64,
    pub(crate) ask: Ask,
    /// Its numbers that no decided request has used: ranges, ends included.
    undecided: Vec<(u64, u64)>,
    /// Whether it is in a proposal of the current view.
    pub(crate) proposed: bool,
    /// On which way it came, if it was taken regardless of the caps (R6).
    pub(crate) spare: Option<Way>,
    /// What is left of its time, once it is armed.
    pub(crate) left_ms: Option<u64>,
    /// How it stands with its forwards in the current view.
    pub(crate) forward: Forward,
    /// Since when a tick has found its session unknown, by the logical clock; none if none has.
    pub(crate) unknown_ms: Option<u64>,
}

/// The forwards of a request to the leader of the current view (R6).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Forward {
    /// Since or from when one is due, by the logical clock; none before a tick has seen it.
    pub(crate) due_ms: Option<u64>,
    /// Whether it was forwarded.
    pub(crate) is_done: bool,
    /// Whether one was due at the last tick and had to wait for its turn.
    pub(crate) is_put_off: bool,
}

impl Forward {
    /// It has come, and has to wait for its turn.
    pub(crate) fn put_off(now_ms: u64) -> Self {
        Self { due_ms: Some(now_ms), is_done: false, is_put_off: true }
    }

    /// It was forwarded now: again after `T/4`.
    pub(crate) fn done(now_ms: u64, timeout_ms: u64) -> Self {
        Self { due_ms: Some(now_ms.saturating_add(timeout_ms / 4)), is_done: true, is_put_off: false }
    }
}

impl Waiting {
    pub(crate) fn new(request: Verified<SignedRequest>, ask: Ask) -> Self {
        let undecided = match ask {
            Ask::Commands { first, last, .. } => alloc::vec![(first, last)],
            Ask::Open { .. } | Ask::Close => Vec::new(),
        };
        Self {
            bytes: request.bytes() as u64,
            request,
            ask,
            undecided,
            proposed: false,
            spare: None,
            left_ms: None,
            forward: Forward::default(),
            unknown_ms: None,
        }
    }

    /// What it counts for, while it is unproposed.
    pub(crate) fn weight(&self) -> Weight {
        Weight { bytes: self.bytes, spare: self.spare }
    }

    /// Numbers `first..=last` were used by another request. Returns whether none is left.
    fn decide(&mut self, first: u64, last: u64) -> bool {
        if !matches!(self.ask, Ask::Commands { .. }) {
            return false;
        }
        let left = |&(from, to): &(u64, u64)| {
            let below = (from < first).then(|| (from, to.min(first.saturating_sub(1))));
            let above = (to > last).then(|| (from.max(last.saturating_add(1)), to));
            below.into_iter().chain(above)
        };
        self.undecided = self.undecided.iter().flat_map(left).collect();
        self.undecided.is_empty()
    }
}

/// The waiting requests of a session, or one OPEN.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    /// The window of the session at the last slot that the front has decided, once known.
    pub(crate) window: Option<SessionWindow>,
    /// By order, then digest.
    pub(crate) waiting: BTreeMap<(u64, Digest), Waiting>,
}

impl Lane {
    /// Whether a row outside the caps that came on this way waits to be proposed.
    pub(crate) fn has_spare(&self, way: Way) -> bool {
        self.waiting.values().any(|waiting| waiting.spare == Some(way) && !waiting.proposed)
    }

    /// Takes a newer window.
    pub(crate) fn learn(&mut self, window: Option<SessionWindow>) {
        let is_newer = |new: &SessionWindow| self.window.is_none_or(|old| (old.ack, old.high) < (new.ack, new.high));
        if let Some(window) = window.filter(is_newer) {
            self.window = Some(window);
        }
    }

    /// Whether a request of this order would come before all others that could execute in slot `next`.
    pub(crate) fn would_be_first(&self, order: u64, next: Seq, constants: &Constants) -> bool {
        self.first_executable(next, constants).is_none_or(|(first, _)| order < first)
    }

    /// The first that could execute in slot `next`: the one that arms at the backups. One that could not never stands
    /// in the way of one that could, or a client would have backups arm what the leader passes over (R6).
    pub(crate) fn first_executable(&self, next: Seq, constants: &Constants) -> Option<(u64, Digest)> {
        let is_now = |row: &Waiting| row.ask.chance(self.window, next, constants) == Chance::Now;
        self.waiting.iter().find(|(_, row)| is_now(row)).map(|(key, _)| *key)
    }

    /// Those of which nothing tells whether they could execute in slot `next`: what their session allows is unknown.
    pub(crate) fn unknown(&self, next: Seq, constants: &Constants) -> Vec<(u64, Digest)> {
        let is_unknown = |row: &Waiting| row.ask.chance(self.window, next, constants) == Chance::Unknown;
        self.waiting.iter().filter(|(_, row)| is_unknown(row)).map(|(key, _)| *key).collect()
    }

    /// The first that is in no proposal and could execute in slot `next`, as far as is known.
    pub(crate) fn next_unproposed(&self, next: Seq, constants: &Constants) -> Option<Digest> {
        let may_execute =
            |row: &Waiting| matches!(row.ask.chance(self.window, next, constants), Chance::Now | Chance::Unknown);
        let mut rows = self.waiting.iter();
        rows.find(|(_, row)| !row.proposed && may_execute(row)).map(|((_, digest), _)| *digest)
    }

    /// Numbers `first..=last` are decided; returns the requests that have none left.
    pub(crate) fn decide(&mut self, first: u64, last: u64) -> Vec<Digest> {
        let overlapping = self.waiting.iter_mut().take_while(|((order, _), _)| *order <= last);
        overlapping.filter_map(|((_, digest), row)| row.decide(first, last).then_some(*digest)).collect()
    }

    /// The requests that cannot execute: not any more, or not yet. Those that cannot yet are their clients' to send again.
    pub(crate) fn beyond_hope(&self, next: Seq, constants: &Constants) -> Vec<Digest> {
        let never =
            |row: &Waiting| matches!(row.ask.chance(self.window, next, constants), Chance::Never | Chance::Later);
        self.waiting.iter().filter(|(_, row)| never(row)).map(|((_, digest), _)| *digest).collect()
    }
}
