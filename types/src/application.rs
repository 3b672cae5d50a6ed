//! Where client and executor meet, and the only place where they do.

use crate::Wire;

/// The commands and replies of a replicated service, as its clients see them.
///
/// ```
/// # use polder_types::Application;
/// struct Counter;
/// impl Application for Counter {
///     type Command = u64; // add this much
///     type Reply = u64;   // the new total
/// }
/// ```
pub trait Application: 'static {
    /// What a client asks for. At most `request_bytes_max` bytes encoded.
    type Command: Wire + Send + Sync + 'static;
    /// What it is answered. At most `reply_bytes_max` bytes encoded (R25).
    type Reply: Wire + Send + Sync + 'static;
}
