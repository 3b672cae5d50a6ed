//! What an application writes.

use polder_types::{Application, Timestamp};

use crate::{Access, Footprint};

/// A replicated service: what its commands do to the state.
///
/// Every replica executes the same commands in the same order and must come to the same state and the same replies, so
/// a command may depend on nothing but itself, the state, and the batch's time. In particular: no clock, no randomness,
/// no iteration over std's `HashMap`, no floating point whose result depends on the machine, nothing kept in `self`
/// that a command changes.
///
/// A service is trusted to terminate and to bound its own memory and stack (R28): a panic, an undeclared access and too
/// much access or output are caught and answered with a [`Failure`](polder_types::Failure), without effects; an endless
/// loop that touches no state, and memory or stack that run out, are not.
///
/// A whole service:
///
/// ```
/// use polder_executor::{Access, Footprint, Service, Span};
/// use polder_types::{Application, Blob, Timestamp};
///
/// /// One counter: a command adds to it and is answered the sum.
/// struct Counter;
///
/// impl Application for Counter {
///     type Command = u64;
///     type Reply = u64;
/// }
///
/// impl Service for Counter {
///     fn footprint(&self, _: &u64) -> Footprint {
///         Footprint::writes(vec![Span::Key(b"sum".to_vec())])
///     }
///
///     fn execute(&self, _: Timestamp, add: &u64, state: &mut Access<'_>) -> u64 {
///         let sum = state.get(b"sum").and_then(|entry| entry.value[..].try_into().ok()).map_or(0, u64::from_le_bytes);
///         state.put(b"sum", Blob::copy(&sum.wrapping_add(*add).to_le_bytes()));
///         sum.wrapping_add(*add)
///     }
/// }
/// ```
pub trait Service: Application + Send + Sync {
    /// What the command may touch: from the command alone, before it runs, and cheaply.
    fn footprint(&self, command: &Self::Command) -> Footprint;

    /// Runs the command at the batch's time.
    fn execute(&self, at: Timestamp, command: &Self::Command, state: &mut Access<'_>) -> Self::Reply;
}
