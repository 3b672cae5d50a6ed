//! **Views.** Once a quorum is healed and the time-outs have grown, views change for the faulty leaders only, and now and
//! then where an honest delay comes near the longest time-out: how often is bounded.
//!
//! R5 to R7.

use polder_types::{Constants, View};

use super::{Verdict, violation};

/// The name of this checker.
pub const NAME: &str = "views";

/// How many views may be left in so long a time while so many replicas are not healed: each of those once, with one view
/// on the way; and where delays come near `T_max`, one in so many of those.
#[must_use]
pub fn changes_max(constants: &Constants, faulty: usize, is_calm: bool, elapsed_ms: u64) -> u64 {
    let needless =
        if is_calm { elapsed_ms / (8 * constants.timeout_max_ms) } else { elapsed_ms / constants.timeout_max_ms };
    2 * faulty as u64 + 2 + needless
}

/// Judges how many views were left.
///
/// # Errors
///
/// When they are more than allowed.
pub fn check(from: View, to: View, changes_max: u64, elapsed_ms: u64) -> Verdict {
    let changes = to.0.saturating_sub(from.0);
    if changes <= changes_max {
        return Ok(());
    }
    violation(NAME, format!("{changes} view changes in {elapsed_ms} ms after the healing, {changes_max} are allowed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_that_change_for_ever_are_caught() {
        let constants = Constants::default();
        let elapsed_ms = 100 * constants.timeout_max_ms;
        let allowed = changes_max(&constants, 1, true, elapsed_ms);
        assert!(allowed < changes_max(&constants, 1, false, elapsed_ms));
        assert_eq!(check(View(3), View(3 + allowed), allowed, elapsed_ms), Ok(()));
        assert!(check(View(3), View(4 + allowed), allowed, elapsed_ms).is_err());
    }
}
