//! What a core says of itself.

use alloc::collections::BTreeMap;
use core::fmt;

use polder_types::{Epoch, ReplicaId, Seq, View};

use crate::Ignored;

/// What a core says of itself. Prints as one short line: `r2 v3 h=100 s=104 exec=103 stable=100 L`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Which replica.
    pub me: ReplicaId,
    /// The epoch.
    pub epoch: Epoch,
    /// The view.
    pub view: View,
    /// The leader of the view.
    pub leader: ReplicaId,
    /// Whether that is this replica.
    pub is_leader: bool,
    /// Whether the view has started here: its NEW-VIEW is accepted (view 0 needs none).
    pub entered: bool,
    /// The low watermark `h`.
    pub low: Seq,
    /// All slots up to this one are decided.
    pub committed: Seq,
    /// All slots up to this one were delivered.
    pub delivered: Seq,
    /// All slots up to this one were executed.
    pub executed: Seq,
    /// Fresh slots that this leader has proposed and that are undecided.
    pub in_flight: u64,
    /// Requests held that are undecided.
    pub waiting: usize,
    /// The newest certified cut; none at genesis.
    pub stable: Option<Seq>,
    /// Whether a certified cut is above what was executed (R6).
    pub lagging: bool,
    /// Whether this replica suspects the leader of its view.
    pub suspects: bool,
    /// The time-out `T` of the view, in milliseconds.
    pub timeout_ms: u64,
    /// Views that this core has left since its start.
    pub view_changes: u64,
    /// How long ago this replica last took part in a quorum, in milliseconds of the logical clock: decided slots went
    /// on here, or nothing waited that could execute and `q` replicas showed the same view and slot. None: never since
    /// its start.
    pub took_part_ms_ago: Option<u64>,
    /// Slots that were not executed here and that others have decided, as `r+1` of them say.
    pub behind_slots: u64,
    /// Inputs ignored, by reason.
    pub ignored: BTreeMap<Ignored, u64>,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { me, view, low, committed, executed, .. } = self;
        write!(f, "{me} {view} h={} s={} exec={}", low.0, committed.0, executed.0)?;
        write!(f, " stable={}", self.stable.unwrap_or_default().0)?;
        let flags = [(self.is_leader, " L"), (!self.entered, " awaiting"), (self.suspects, " suspects")];
        flags.iter().filter(|(on, _)| *on).try_for_each(|(_, flag)| f.write_str(flag))
    }
}
