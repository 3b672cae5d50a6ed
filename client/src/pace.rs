//! When what waits becomes a request. A request costs its signature at every replica however little is in it, so many
//! callers share one; a caller that is alone never waits. Pure.

/// How long commands are held back at most while others are under way: little beside a distant round trip.
const HOLD_MS: u64 = 25;

/// How long callers that were just answered are waited for: most call again at once.
const RETURN_MS: u64 = 1;

/// Holds back what waits, for a moment, when more is likely to join it.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Since when something waits.
    held_since_ms: Option<u64>,
    /// Callers that were answered last and have not called again, and when that was.
    returning: usize,
    answered_ms: u64,
}

impl Pace {
    /// So many callers were answered.
    pub(crate) fn answered(&mut self, now_ms: u64, calls: usize) {
        self.expire(now_ms);
        self.returning += calls;
        self.answered_ms = now_ms;
    }

    /// A caller has come.
    pub(crate) fn submitted(&mut self) {
        self.returning = self.returning.saturating_sub(1);
    }

    /// Something was sent.
    pub(crate) fn sent(&mut self) {
        self.held_since_ms = None;
    }

    /// Whether what waits should not be sent yet: while callers that were just answered may come again, and beside what is
    /// under way unless it is more than that (Nagle's idea).
    pub(crate) fn holds_back(&mut self, now_ms: u64, waiting: usize, pending: usize) -> bool {
        self.expire(now_ms);
        if waiting == 0 {
            return false;
        }
        let until_ms = self.held_since_ms.get_or_insert(now_ms).saturating_add(HOLD_MS);
        (self.returning > 0 || waiting <= pending) && now_ms < until_ms
    }

    /// When to look again, even if nothing happens.
    pub(crate) fn release_ms(&self) -> Option<u64> {
        let returning = (self.returning > 0).then_some(self.answered_ms.saturating_add(RETURN_MS + 1));
        let held = self.held_since_ms.map(|since_ms| since_ms.saturating_add(HOLD_MS));
        [returning, held].into_iter().flatten().min()
    }

    fn expire(&mut self, now_ms: u64) {
        if now_ms > self.answered_ms.saturating_add(RETURN_MS) {
            self.returning = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_never_waits() {
        let mut pace = Pace::default();
        for now_ms in [5, 6, 7] {
            pace.submitted();
            assert!(!pace.holds_back(now_ms, 1, 0));
            pace.sent();
            pace.answered(now_ms, 1);
        }
    }

    #[test]
    fn callers_that_were_answered_together_are_waited_for_together() {
        let mut pace = Pace::default();
        pace.answered(10, 3);
        pace.submitted();
        assert!(pace.holds_back(10, 1, 0));
        pace.submitted();
        assert!(pace.holds_back(11, 2, 0));
        assert_eq!(pace.release_ms(), Some(12));
        pace.submitted();
        assert!(!pace.holds_back(11, 3, 0));
    }

    #[test]
    fn who_does_not_call_again_is_not_waited_for_long() {
        let mut pace = Pace::default();
        pace.answered(10, 3);
        pace.submitted();
        assert!(pace.holds_back(11, 1, 0));
        assert!(!pace.holds_back(12, 1, 0));
        pace.sent();
        assert_eq!(pace.release_ms(), None);
    }

    #[test]
    fn beside_what_is_under_way_only_more_is_sent_at_once() {
        let mut pace = Pace::default();
        assert!(pace.holds_back(0, 4, 4));
        assert!(!pace.holds_back(1, 5, 4));
        assert!(pace.holds_back(24, 4, 4));
        assert!(!pace.holds_back(25, 4, 4));
        pace.sent();
        assert!(pace.holds_back(26, 4, 4));
    }

    #[test]
    fn callers_that_are_answered_again_and_again_hold_nobody_back_for_ever() {
        let mut pace = Pace::default();
        let held = |now_ms| {
            pace.answered(now_ms, 1);
            pace.holds_back(now_ms, 1, 0)
        };
        assert_eq!((10..100).map(held).take_while(|is_held| *is_held).count(), 25);
    }
}
