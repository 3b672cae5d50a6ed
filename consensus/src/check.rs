//! The invariants, as one block.

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
        self.requests.check();
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
