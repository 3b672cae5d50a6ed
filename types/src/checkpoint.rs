//! The statement about a cut (R29) and the chain over the ordered batches.

use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::{ClusterId, Digest, Domain, Epoch, Hasher, Seq, Statement, Timestamp};

/// The statement about a cut: all commands `≤ seq` lead to this state (R29). The cluster is in the signed prefix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The epoch in which the cut lies.
    pub epoch: Epoch,
    /// The cut: the last slot that is in the state.
    pub seq: Seq,
    /// The Merkle root over all partitions.
    pub root: Digest,
    /// The chain over the batches `1..=seq`.
    pub history: Digest,
    /// The time of slot `seq` (R27).
    pub time: Timestamp,
    /// The digest of the epoch configuration.
    pub config: Digest,
    /// The digest of a pending reconfiguration, or [`Digest::ZERO`].
    pub pending: Digest,
}

impl Statement for Checkpoint {
    const KIND: &'static str = "checkpoint";

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.epoch.0.to_le_bytes());
        out.extend_from_slice(&self.seq.0.to_le_bytes());
        out.extend_from_slice(&self.root.0);
        out.extend_from_slice(&self.history.0);
        out.extend_from_slice(&self.time.0.to_le_bytes());
        out.extend_from_slice(&self.config.0);
        out.extend_from_slice(&self.pending.0);
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "checkpoint {} root {}", self.seq, self.root)
    }
}

/// `history_0`: the cluster id (R29).
#[must_use]
pub fn history_genesis(cluster: ClusterId) -> Digest {
    cluster.0
}

/// `history_s = H(history_{s−1} ‖ s ‖ batch digest)` (R29). Neither view nor epoch enters: a re-proposal changes
/// nothing.
#[must_use]
pub fn history_after(before: &Digest, slot: Seq, batch: &Digest) -> Digest {
    Hasher::new(Domain::History).digest(before).u64(slot.0).digest(batch).finish()
}
