//! The invariants, as one block.

use crate::progress::Timer;
use crate::{Core, EvidenceKind};

impl Core {
    /// Asserts the invariants: cheap enough to be called after every step.
    ///
    /// # Panics
    ///
    /// When one does not hold: a bug in this crate, whatever peers, clients and disks did.
    pub fn check(&self) {
        self.check_window();
        self.check_slots();
        self.check_bounds();
        self.check_timers();
        self.requests.check();
        let (now_ms, timeout_ms) = (self.progress.now_ms(), self.progress.timeout_ms());
        self.requests.check_deadlines(self.term.start.is_some(), now_ms, timeout_ms);
    }

    fn check_window(&self) {
        let window = &self.window;
        assert!(window.low <= window.committed, "h is never above contiguous committed");
        assert!(window.committed <= window.high(), "nothing above h+L is committed");
        assert!(window.delivered <= window.committed, "only what is committed is delivered");
        assert!(window.executed <= window.delivered, "only what is delivered is executed");
        assert!(window.delivered.0 - window.executed.0 <= window.length, "at most L batches wait for execution");
        let stable = window.stable.as_ref().map(|certificate| certificate.statement().seq);
        assert_eq!(stable.unwrap_or_default(), window.low, "h is the cut that the certificate is about");
        assert!(!window.decided.contains_key(&window.committed.next()), "what is decided without a gap is committed");
        let next = window.delivered.next();
        let holds_back = window.delivered.0 - window.executed.0 == window.length;
        assert!(holds_back || !window.decided.contains_key(&next), "what is decided in order is delivered");
        assert!(window.tail.is_none_or(|tail| tail <= window.delivered), "a tail is delivered");
    }

    fn check_slots(&self) {
        let (window, view) = (&self.window, self.term.view);
        for (slot, state) in &window.slots {
            assert!(window.contains(*slot), "slots are in (h, h+L]");
            if let Some(accepted) = &state.accepted {
                assert!(accepted.view <= view, "nothing is accepted ahead of the view");
                assert!(self.bodies.has(&accepted.digest), "what is accepted has its body");
                // What was accepted before a restart may be further than what is known to be committed since (R11).
                let is_fresh = accepted.view == view && accepted.proposal.is_some() && accepted.at_ms > 0;
                let reach = window.committed.plus(self.config.constants.fresh_slots_max);
                assert!(!is_fresh || *slot <= reach, "nothing fresh is accepted beyond committed + F");
            }
            if let Some(certificate) = &state.prepared {
                assert!(certificate.statement().view <= view, "nothing is prepared ahead of the view");
                let planted = mutated!(self, CommitWithoutBody);
                assert!(planted || self.bodies.has(&certificate.statement().digest), "what is prepared has its body");
            }
            let of_view = |voted: &crate::Vote| voted.view == view && voted.slot == *slot;
            assert!(state.prepares.votes().all(|(_, voted)| of_view(voted)), "PREPAREs are of the view and slot");
            assert!(state.commits.votes().all(|(_, voted)| of_view(voted)), "COMMITs are of the view and slot");
        }
        for (slot, decided) in &window.decided {
            assert!(*slot > window.keep_above() && *slot <= window.high(), "decided slots are kept in bounds");
            assert!(self.bodies.has(&decided.digest), "what is decided has its body");
            assert_eq!(decided.history.is_some(), *slot <= window.delivered, "what is delivered has its history");
        }
    }

    /// Whatever may go wrong is waited for by a timer, and none for longer than the rules say (R6, R7, R14, R15).
    fn check_timers(&self) {
        let (progress, timeout_ms) = (&self.progress, self.progress.timeout_ms());
        if self.halted {
            return;
        }
        let within = |timer: Timer, bound_ms: u64| progress.left_ms(timer).is_some_and(|left_ms| left_ms <= bound_ms);
        assert!(within(Timer::Status, self.config.constants.status_period_ms.max(1)), "STATUS is due within a period");
        // A timer that was armed before the time-out became shorter may run on.
        let longest_ms = progress.timeout_max_ms();
        assert!(within(Timer::Calm, longest_ms.saturating_mul(64)), "a view that lasts shortens the time-out");
        let has_suspected = self.suspicion.suspects();
        let idle_ms = self.config.constants.idle_ms;
        if self.term.start.is_some() {
            assert!(!progress.is_armed(Timer::NewView), "a NEW-VIEW that has come is not waited for");
            let hears = self.is_leader() || within(Timer::Silent, longest_ms.saturating_mul(4));
            assert!(hears || has_suspected, "a leader that says nothing is suspected");
            let fills = within(Timer::Tail, idle_ms.max(1)) || within(Timer::Filler, longest_ms);
            assert!(self.window.tail.is_none() || fills || has_suspected, "a tail is filled");
            let runs = within(Timer::SessionClock, idle_ms.saturating_mul(2).max(1));
            assert!(runs || within(Timer::SessionFiller, longest_ms) || has_suspected, "the session clock is watched");
        } else {
            assert!(within(Timer::NewView, timeout_ms) || has_suspected, "a NEW-VIEW that does not come is waited for");
            for timer in [Timer::Silent, Timer::Filler, Timer::SessionClock, Timer::SessionFiller] {
                assert!(!progress.is_armed(timer), "only the NEW-VIEW is waited for before the view starts");
            }
        }
        let window = &self.window;
        let fetches = window.transfer.is_some() || within(Timer::Gap, self.gap_ms());
        assert!(window.delivered >= window.low || fetches, "what is missing below the watermark is pulled or fetched");
    }

    fn check_bounds(&self) {
        let (window, replicas) = (&self.window, self.quorum.replicas());
        let length = usize::try_from(window.length).unwrap_or(usize::MAX);
        assert!(window.slots.len() <= length, "at most L slots");
        assert!(window.decided.len() <= length.saturating_mul(2), "at most 2L decided batches");
        let (held, wanted) = self.bodies.counts();
        // R11: own entries, what the view accepted, what its NEW-VIEW chose; beside it what is decided (R14).
        let listed = self.leading.changes.len().saturating_mul(length);
        assert!(held <= length.saturating_mul(5).saturating_add(listed), "bodies are bounded");
        assert!(wanted <= length.saturating_mul(3), "pulled bodies are bounded");
        assert!(self.leading.changes.len() <= replicas, "one VIEW-CHANGE a replica");
        assert!(
            self.caught.len() <= replicas.saturating_mul(EvidenceKind::ALL.len()),
            "evidence is reported once a replica and kind"
        );
        if let Some(start) = &self.term.start {
            assert!(start.chosen.len() <= length, "a NEW-VIEW forces at most L slots");
        }
        assert!(self.term.abdication.is_none() || self.is_leader(), "only a leader abdicates");
    }
}
