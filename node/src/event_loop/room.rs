//! How far the disks may fall behind before less is taken in.
//!
//! Nothing is voted before its record is durable, so nothing is taken while the *log* is behind. Votes do not wait for
//! the *state*: a store that stalls, as in a compaction, stops only new requests (R19). What is executed meanwhile waits
//! in memory, up to a bound of its own; beyond it nothing is taken here either, and the others go on without this one.
//!
//! How much is free on the disks is measured here too; what follows from it, the replica decides (C10).

use polder_checkpoint::Store as _;
use polder_executor::Service;

use super::{DiskEnd, EventLoop};
use crate::replica::Event;

/// What is free on the disks is measured every so many ticks.
const TICKS_PER_MEASURE: u32 = 100;

/// Writes that wait for a disk: no new requests are taken from here on, and of the log's, nothing.
const WRITES_WAITING_MAX: u64 = 2_048;

/// Bytes of such writes, likewise.
const WRITE_BYTES_WAITING_MAX: usize = 64 << 20;

/// Writes that wait for the state store: nothing is taken from here on.
const STATE_WRITES_WAITING_MAX: u64 = 12_288;

/// Bytes of such writes, likewise: the memory that a stalled state store costs at most, and what one turn adds.
const STATE_BYTES_WAITING_MAX: usize = 256 << 20;

/// Writes that the channel to the log's thread holds: what may wait, and what one turn adds.
pub(super) const LOG_WRITES_MAX: usize = 4_096;

/// Writes that the channel to the state's thread holds.
pub(super) const STATE_WRITES_MAX: usize = 16_384;

/// What waits for a disk.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backlog {
    pub(super) writes: u64,
    pub(super) bytes: usize,
}

impl Backlog {
    pub(super) fn of(disk: &DiskEnd) -> Self {
        Self { writes: disk.asked.saturating_sub(disk.told), bytes: disk.bytes }
    }

    fn is_below(self, writes_max: u64, bytes_max: usize) -> bool {
        self.writes < writes_max && self.bytes < bytes_max
    }
}

/// Whether anything new may be taken.
pub(super) fn for_messages(log: Backlog, state: Backlog) -> bool {
    log.is_below(WRITES_WAITING_MAX, WRITE_BYTES_WAITING_MAX)
        && state.is_below(STATE_WRITES_WAITING_MAX, STATE_BYTES_WAITING_MAX)
}

/// Whether new requests of clients may be taken.
pub(super) fn for_requests(log: Backlog, state: Backlog) -> bool {
    [log, state].iter().all(|backlog| backlog.is_below(WRITES_WAITING_MAX, WRITE_BYTES_WAITING_MAX))
}

impl<S: Service> EventLoop<S> {
    /// Once a second: what is free on the disks.
    pub(super) fn measure(&mut self) {
        self.ticks_to_measure = self.ticks_to_measure.saturating_sub(1);
        if self.ticks_to_measure > 0 {
            return;
        }
        self.ticks_to_measure = TICKS_PER_MEASURE;
        let free = [self.stores.log.free_bytes(), self.stores.state.free_bytes()];
        let Some(space) = self.reserve.measured(free) else { return };
        if space.is_low {
            tracing::warn!("{space}: no new commands are taken and no images are written until there is more");
        } else {
            tracing::info!("{space}: new commands are taken again");
        }
        self.events.push_back(Event::Space { is_low: space.is_low });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Backlog = Backlog { writes: 0, bytes: 0 };

    #[test]
    fn r19_while_the_state_is_behind_votes_are_taken_and_requests_are_not() {
        for behind in [
            Backlog { writes: WRITES_WAITING_MAX, bytes: 0 },
            Backlog { writes: 1, bytes: WRITE_BYTES_WAITING_MAX },
            Backlog { writes: STATE_WRITES_WAITING_MAX - 1, bytes: STATE_BYTES_WAITING_MAX - 1 },
        ] {
            assert!(for_messages(NONE, behind) && !for_requests(NONE, behind), "{behind:?}");
            assert!(!for_messages(behind, NONE) && !for_requests(behind, NONE), "{behind:?}");
        }
        assert!(for_messages(NONE, NONE) && for_requests(NONE, NONE));
    }

    #[test]
    fn what_waits_for_the_state_is_bounded() {
        assert!(!for_messages(NONE, Backlog { writes: STATE_WRITES_WAITING_MAX, bytes: 0 }));
        assert!(!for_messages(NONE, Backlog { writes: 1, bytes: STATE_BYTES_WAITING_MAX }));
        // The loop never waits for a channel: there is room for what one more turn asks for.
        assert!(STATE_WRITES_WAITING_MAX as usize + LOG_WRITES_MAX <= STATE_WRITES_MAX);
    }
}
