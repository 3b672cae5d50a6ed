//! Lanes: streams that do not wait for each other.

use std::fmt;

/// A stream of frames in one direction. Frames of one lane arrive in order; lanes do not wait for each other, and of
/// two that have something to send, ordering goes first and transfer last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Between replicas: what the order waits for.
    Ordering,
    /// Between a client and a replica.
    Client,
    /// Between replicas: state on its way to one that lags.
    Transfer,
}

impl Lane {
    /// All lanes, the most urgent first.
    pub const ALL: [Self; 3] = [Self::Ordering, Self::Client, Self::Transfer];

    /// The byte that names the lane at the head of its stream.
    pub(crate) const fn tag(self) -> u8 {
        match self {
            Self::Ordering => 0,
            Self::Client => 1,
            Self::Transfer => 2,
        }
    }

    /// The lane of that byte.
    pub(crate) fn of_tag(tag: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| lane.tag() == tag)
    }

    /// Its place in [`Lane::ALL`].
    pub(crate) const fn index(self) -> usize {
        self.tag() as usize
    }

    /// QUIC's priority: the higher goes first.
    pub(crate) const fn priority(self) -> i32 {
        match self {
            Self::Ordering => 2,
            Self::Client => 1,
            Self::Transfer => 0,
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ordering => "ordering",
            Self::Client => "client",
            Self::Transfer => "transfer",
        })
    }
}

/// The lanes that a connection may use, in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lanes(u8);

impl Lanes {
    /// What two replicas use: ordering and transfer.
    pub const REPLICA: Self = Self(1 << Lane::Ordering.tag() | 1 << Lane::Transfer.tag());
    /// What a client and a replica use.
    pub const CLIENT: Self = Self(1 << Lane::Client.tag());

    /// Whether a lane is among them.
    #[must_use]
    pub const fn contains(self, lane: Lane) -> bool {
        self.0 & 1 << lane.tag() != 0
    }

    /// The lanes, the most urgent first.
    pub fn iter(self) -> impl Iterator<Item = Lane> {
        Lane::ALL.into_iter().filter(move |lane| self.contains(*lane))
    }
}
