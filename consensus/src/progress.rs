//! Time: the logical clock, the time-outs, and the timers (R7).

use alloc::collections::BTreeMap;

use polder_types::Constants;

/// Every timer there is. Arming one replaces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// STATUS, and all pulling, are due (R15).
    Status,
    /// The NEW-VIEW is missing (R6 ii).
    NewView,
    /// Nothing at all came from the leader (R6 iv).
    Silent,
    /// A tail has stood: filler is due (R16).
    Tail,
    /// Due filler is missing (R6 ii).
    Filler,
    /// No slot has moved the session clock for long enough: an empty batch is due (R24).
    SessionClock,
    /// That empty batch is missing (R6 ii).
    SessionFiller,
    /// The view has lasted: a shorter time-out will do (R7).
    Calm,
    /// Batches below the watermark could not be had from peers: the state must be (R14).
    Gap,
}

/// The logical clock and what runs on it. It advances by ticks alone, each worth at most `τ`: a pause counts as one
/// tick, and no timer overtakes input that was there before it (R7).
#[derive(Debug)]
pub(crate) struct Progress {
    clock_ms: u64,
    tick_ms: Option<u64>,
    due: BTreeMap<Timer, u64>,
    doublings: u32,
    doublings_max: u32,
    timeout_first_ms: u64,
    timeout_max_ms: u64,
    tick_ms_max: u64,
    /// Since when every fresh batch has been far behind the own wall clock (R27).
    stale_since_ms: Option<u64>,
}

impl Progress {
    pub(crate) fn new(constants: &Constants) -> Self {
        Self {
            clock_ms: 0,
            tick_ms: None,
            due: BTreeMap::new(),
            doublings: 0,
            doublings_max: constants.doublings_max(),
            timeout_first_ms: constants.timeout_first_ms,
            timeout_max_ms: constants.timeout_max_ms,
            tick_ms_max: constants.status_period_ms,
            stale_since_ms: None,
        }
    }

    /// The planted bug of a time-out that nothing bounds.
    #[cfg(polder_mutations)]
    pub(crate) fn unbound(&mut self) {
        self.doublings_max = 40;
        self.timeout_max_ms = u64::MAX;
    }

    /// Advances the clock; returns by how much.
    pub(crate) fn tick(&mut self, monotonic_ms: u64) -> u64 {
        let before = self.tick_ms.replace(monotonic_ms).unwrap_or(monotonic_ms);
        let elapsed_ms = monotonic_ms.saturating_sub(before).min(self.tick_ms_max);
        self.clock_ms = self.clock_ms.saturating_add(elapsed_ms);
        elapsed_ms
    }

    /// The logical clock, in milliseconds since the start of this core.
    pub(crate) fn now_ms(&self) -> u64 {
        self.clock_ms
    }

    /// `T = min(T_max, T₀·2^k)` (R7).
    pub(crate) fn timeout_ms(&self) -> u64 {
        let factor = 1u64.checked_shl(self.doublings).unwrap_or(u64::MAX);
        self.timeout_first_ms.saturating_mul(factor).min(self.timeout_max_ms)
    }

    /// Moving on by so many views adds as much to `k`, to at most `k_max` (R7).
    pub(crate) fn moved(&mut self, views: u64) {
        let views = u32::try_from(views).unwrap_or(u32::MAX);
        self.doublings = self.doublings.saturating_add(views).min(self.doublings_max);
        self.stale_since_ms = None;
    }

    /// `64·T` in one view take 1 off `k` (R7).
    pub(crate) fn calmed(&mut self) {
        self.doublings = self.doublings.saturating_sub(1);
    }

    /// `T_max`.
    pub(crate) fn timeout_max_ms(&self) -> u64 {
        self.timeout_max_ms
    }

    /// How long an armed timer has still to run.
    pub(crate) fn left_ms(&self, timer: Timer) -> Option<u64> {
        self.due.get(&timer).map(|at_ms| at_ms.saturating_sub(self.clock_ms))
    }

    pub(crate) fn arm(&mut self, timer: Timer, after_ms: u64) {
        self.due.insert(timer, self.clock_ms.saturating_add(after_ms));
    }

    pub(crate) fn disarm(&mut self, timer: Timer) {
        self.due.remove(&timer);
    }

    pub(crate) fn is_armed(&self, timer: Timer) -> bool {
        self.due.contains_key(&timer)
    }

    /// Takes the next timer that is due, if any: the one that was due first.
    pub(crate) fn fired(&mut self) -> Option<Timer> {
        let (timer, at_ms) = self.due.iter().map(|(timer, at_ms)| (*timer, *at_ms)).min_by_key(|(_, at_ms)| *at_ms)?;
        (at_ms <= self.clock_ms).then(|| self.due.remove(&timer)).flatten().map(|_| timer)
    }

    /// Notes whether a fresh batch was far behind the own wall clock; whether that has lasted for `4T` (R6, R27).
    pub(crate) fn stale(&mut self, behind: bool) -> bool {
        if !behind {
            self.stale_since_ms = None;
            return false;
        }
        let since_ms = *self.stale_since_ms.get_or_insert(self.clock_ms);
        self.clock_ms.saturating_sub(since_ms) >= self.timeout_ms().saturating_mul(4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress() -> Progress {
        let constants =
            Constants { timeout_first_ms: 500, timeout_max_ms: 10_000, status_period_ms: 100, ..Default::default() };
        Progress::new(&constants)
    }

    #[test]
    fn r7_a_pause_counts_as_one_tick() {
        let mut progress = progress();
        progress.tick(1_000);
        assert_eq!(progress.tick(1_010), 10);
        assert_eq!(progress.tick(100_000), 100);
        assert_eq!(progress.tick(50_000), 0, "a clock that goes back moves nothing");
        assert_eq!(progress.now_ms(), 110);
    }

    #[test]
    fn r7_the_time_out_doubles_by_views_moved_is_bounded_and_shrinks() {
        let mut progress = progress();
        let mut seen = alloc::vec![progress.timeout_ms()];
        for _ in 0..6 {
            progress.moved(1);
            seen.push(progress.timeout_ms());
        }
        assert_eq!(seen, [500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000]);
        progress.moved(u64::MAX);
        progress.calmed();
        assert_eq!(progress.timeout_ms(), 8_000);
    }

    #[test]
    fn timers_fire_once_in_order_and_arming_replaces() {
        let mut progress = progress();
        progress.tick(0);
        progress.arm(Timer::Gap, 50);
        progress.arm(Timer::Status, 10);
        progress.arm(Timer::Gap, 20);
        assert_eq!(progress.fired(), None);
        progress.tick(30);
        assert_eq!(
            (progress.fired(), progress.fired(), progress.fired()),
            (Some(Timer::Status), Some(Timer::Gap), None)
        );
    }

    #[test]
    fn r27_only_a_lasting_run_of_old_times_counts() {
        let mut progress = progress();
        progress.tick(0);
        assert!(!progress.stale(true));
        for at in 1..=20 {
            progress.tick(at * 100);
        }
        assert!(progress.stale(true));
        assert!(!progress.stale(false));
        assert!(!progress.stale(true));
    }
}
