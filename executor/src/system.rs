//! The records of the system partition: all that later slots read and that is neither a key's nor a session's (R29).

use polder_types::{Blob, Constants, Digest, Position, Seq, Timestamp, decode, encode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::state::{Entry, RestoreError, State};

/// The key of the [`Clock`].
pub(crate) const CLOCK: &[u8] = b"clock";
/// The key of the digest of the epoch configuration.
const CONFIGURATION: &[u8] = b"configuration";
/// The key of the [`Totals`].
const TOTALS: &[u8] = b"totals";

/// Time, as the order makes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Clock {
    /// R27: the time of the last slot.
    pub(crate) time: Timestamp,
    /// R27: the clock by which sessions expire, in milliseconds since genesis. An outage hardly moves it.
    pub(crate) session_ms: u64,
}

impl Clock {
    /// The clock of a slot whose batch says `ts` (R27): time never goes back, and the session clock advances with it,
    /// but by at most `2·T_idle` a slot.
    #[must_use]
    pub(crate) fn advance(self, ts: Timestamp, idle_ms: u64) -> Self {
        let time = self.time.max(ts);
        let passed_ms = (time.0 - self.time.0).min(idle_ms.saturating_mul(2));
        Self { time, session_ms: self.session_ms.saturating_add(passed_ms) }
    }
}

/// The bytes of the state at the last three cuts, oldest first (R28).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Totals(Vec<(Seq, u64)>);

impl Totals {
    const KEPT: usize = 3;

    /// Notes the total at a cut.
    pub(crate) fn note(&mut self, cut: Seq, bytes: u64) {
        self.0.push((cut, bytes));
        let surplus = self.0.len().saturating_sub(Self::KEPT);
        self.0.drain(..surplus);
    }

    /// Whether the state was full at the last cut `≤ slot − 2I` (R28): a total that every front knows, however far it
    /// runs ahead of what executes.
    #[must_use]
    pub(crate) fn full(&self, slot: Seq, constants: &Constants) -> bool {
        let Some(newest) = slot.0.checked_sub(constants.interval_slots.saturating_mul(2)) else { return false };
        let known = self.0.iter().rev().find(|(cut, _)| cut.0 <= newest);
        known.is_some_and(|(_, bytes)| *bytes >= constants.state_bytes_max)
    }
}

/// The value of a record; none when it is absent or no encoding of this type.
pub(crate) fn read<T: Serialize + DeserializeOwned>(entry: Option<&Entry>) -> Option<T> {
    decode(&entry?.value, usize::MAX).ok()
}

/// The system partition's records, as the executor holds them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct System {
    pub(crate) clock: Clock,
    pub(crate) totals: Totals,
}

impl System {
    /// Writes the records of genesis.
    pub(crate) fn genesis(state: &mut State, configuration: &Digest) -> Self {
        let this = Self::default();
        write(state, CONFIGURATION, configuration, Position::default());
        write(state, CLOCK, &this.clock, Position::default());
        write(state, TOTALS, &this.totals, Position::default());
        this
    }

    /// Reads the records of a state, which must be of this configuration.
    pub(crate) fn restore(state: &State, configuration: &Digest) -> Result<Self, RestoreError> {
        let system = state.partition(state.layout().system());
        if read::<Digest>(system.get(CONFIGURATION)).ok_or(RestoreError::System)? != *configuration {
            return Err(RestoreError::Configuration);
        }
        let clock = read(system.get(CLOCK)).ok_or(RestoreError::System)?;
        let totals = read(system.get(TOTALS)).ok_or(RestoreError::System)?;
        Ok(Self { clock, totals })
    }

    /// Moves the clock to that of a slot.
    pub(crate) fn set_clock(&mut self, state: &mut State, clock: Clock, slot: Seq) {
        if clock != self.clock {
            self.clock = clock;
            write(state, CLOCK, &clock, Position { slot, index: 0 });
        }
    }

    /// Notes, at the end of a cut, what the state holds.
    pub(crate) fn note_total(&mut self, state: &mut State, cut: Seq) {
        self.totals.note(cut, state.bytes());
        write(state, TOTALS, &self.totals, Position { slot: cut, index: 0 });
    }
}

fn write<T: Serialize>(state: &mut State, key: &[u8], value: &T, at: Position) {
    let partition = state.layout().system();
    state.write(partition, Blob::copy(key), Blob::from(encode(value)), at);
}
