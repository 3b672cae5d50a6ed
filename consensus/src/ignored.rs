//! Why a core ignored an input.

use core::fmt;

/// Why a core ignored an input. Counted by reason in the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ignored {
    /// Of another epoch.
    OtherEpoch,
    /// Of a view that has ended.
    StaleView,
    /// Of a view whose predecessor's SUSPECT certificate is not held (R42).
    UnprovedView,
    /// Outside `(h, h+L]`, or beyond what may be accepted now.
    OutsideWindow,
    /// Not from the leader of its view.
    NotLeader,
    /// A copy of what is there.
    Duplicate,
    /// A second, different one, where only one is allowed: also reported as evidence.
    Conflict,
    /// It does not follow from what it encloses.
    Invalid,
    /// The request can never be executed, or was ordered already.
    Settled,
    /// Nobody asked for it.
    Unasked,
    /// Too much of it from this peer.
    Flood,
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherEpoch => "other-epoch",
            Self::StaleView => "stale-view",
            Self::UnprovedView => "unproved-view",
            Self::OutsideWindow => "outside-window",
            Self::NotLeader => "not-leader",
            Self::Duplicate => "duplicate",
            Self::Conflict => "conflict",
            Self::Invalid => "invalid",
            Self::Settled => "settled",
            Self::Unasked => "unasked",
            Self::Flood => "flood",
        })
    }
}
