//! The slots between the watermarks, what is decided around them, and the cursors.
//!
//! ```text
//!        keep            h                 committed              h+L
//!  ───────┬──────────────┬─────────────────────┬───────────────────┬────▶ slots
//!         │   archive    │       decided       │     undecided     │
//!         │ for laggards │   slots: votes, accepted, prepared      │
//!  executed ≤ delivered ≤ committed;   h ≤ committed ≤ h+L
//! ```
//!
//! `delivered` is usually at `committed`; it is below `h` when a certificate moved the window past batches that are
//! still missing (R14).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;

use polder_types::{Certificate, Checkpoint, Constants, Digest, Seq, Signed, Tally, View};

use crate::{Proposal, VerifiedMessage, Vote};

/// A batch accepted for a slot.
#[derive(Clone, Debug)]
pub(crate) struct Accepted {
    /// In which view.
    pub(crate) view: View,
    pub(crate) digest: Digest,
    /// The leader's proposal with its body, to be sent again; none where the NEW-VIEW forced the slot.
    pub(crate) proposal: Option<Arc<VerifiedMessage>>,
    /// The proposal alone: what two of make evidence.
    pub(crate) signed: Option<Signed<Proposal>>,
    /// When, by the logical clock.
    pub(crate) at_ms: u64,
}

/// What is known of one slot of `(h, h+L]`.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    /// The batch accepted in the highest view in which one was. With `r > 0` only that of the current view matters.
    pub(crate) accepted: Option<Accepted>,
    /// The prepared certificate of the highest view in which there was one, its body held and durable (R9).
    pub(crate) prepared: Option<Certificate<Vote>>,
    /// PREPAREs of the current view.
    pub(crate) prepares: Tally<Vote>,
    /// COMMITs of the current view.
    pub(crate) commits: Tally<Vote>,
    /// COMMITs of the last earlier view that had any: only to catch who forgets one (R41).
    pub(crate) earlier_commits: Tally<Vote>,
    /// A fresh proposal that is too far ahead of the own clock, and since when, by the logical clock (R27).
    pub(crate) held: Option<(Arc<VerifiedMessage>, u64)>,
    /// A commit certificate whose body is missing.
    pub(crate) certified: Option<Certificate<Vote>>,
    /// The bodies that the log has in a record of this slot.
    pub(crate) logged: BTreeSet<Digest>,
    /// Planted bugs only: PREPAREs of the view before, and whether a COMMIT came twice.
    #[cfg(polder_mutations)]
    pub(crate) planted: crate::planted::Planted,
}

impl Slot {
    /// What was accepted in this very view.
    pub(crate) fn accepted_in(&self, view: View) -> Option<&Accepted> {
        self.accepted.as_ref().filter(|accepted| accepted.view == view)
    }

    /// Whether it was prepared in this very view.
    pub(crate) fn prepared_in(&self, view: View) -> bool {
        self.prepared.as_ref().is_some_and(|certificate| certificate.statement().view == view)
    }

    /// What this replica would expect to be decided: of what it accepted or prepared, that of the highest view (R30).
    pub(crate) fn candidate(&self) -> Option<Digest> {
        let accepted = self.accepted.as_ref().map(|accepted| (accepted.view, accepted.digest));
        let prepared = self.prepared.as_ref().map(|c| (c.statement().view, c.statement().digest));
        accepted.max(prepared).map(|(_, digest)| digest)
    }

    /// All batches that something here refers to.
    pub(crate) fn digests(&self) -> impl Iterator<Item = Digest> + '_ {
        let accepted = self.accepted.iter().map(|accepted| accepted.digest);
        let prepared = self.prepared.iter().map(|certificate| certificate.statement().digest);
        let certified = self.certified.iter().map(|certificate| certificate.statement().digest);
        accepted.chain(prepared).chain(certified)
    }

    /// Forgets what was of the view that ended. With `r > 0` what was only accepted promises nothing any more (R11).
    fn leave_view(&mut self, has_prepare_phase: bool) {
        if self.commits.voters() > 0 {
            self.earlier_commits = core::mem::take(&mut self.commits);
        }
        self.prepares = Tally::default();
        self.held = None;
        if has_prepare_phase {
            self.accepted = None;
        }
        let kept: BTreeSet<Digest> = self.digests().collect();
        self.logged.retain(|digest| kept.contains(digest));
    }
}

/// A decided slot.
#[derive(Debug)]
pub(crate) struct Decided {
    pub(crate) digest: Digest,
    /// The commit certificate; none where a certified history proved the batch (R30).
    pub(crate) certificate: Option<Certificate<Vote>>,
    /// When it was decided here, by the logical clock.
    pub(crate) at_ms: u64,
    /// The chain up to here, once delivered.
    pub(crate) history: Option<Digest>,
}

/// The slots and the cursors.
#[derive(Debug)]
pub(crate) struct Window {
    /// `h`.
    pub(crate) low: Seq,
    /// The certificate of `h`; none at genesis.
    pub(crate) stable: Option<Certificate<Checkpoint>>,
    pub(crate) slots: BTreeMap<Seq, Slot>,
    pub(crate) decided: BTreeMap<Seq, Decided>,
    /// Contiguous committed, never below `h`.
    pub(crate) committed: Seq,
    pub(crate) delivered: Seq,
    pub(crate) executed: Seq,
    /// The chain up to `delivered`.
    pub(crate) history: Digest,
    /// The last delivered slot with requests since the last cut (R16).
    pub(crate) tail: Option<Seq>,
    /// Whether the session clock must run by itself, as of the last executed slot (R24).
    pub(crate) session_clock_must_run: bool,
    /// The cut that the driver was told to fetch.
    pub(crate) transfer: Option<Seq>,
    /// `L`.
    pub(crate) length: u64,
    /// `I`.
    pub(crate) interval: u64,
}

impl Window {
    /// The window of a state as of `base`, or of genesis, whose history is `history`.
    pub(crate) fn new(constants: &Constants, base: Option<Certificate<Checkpoint>>, genesis: Digest) -> Self {
        let at = base.as_ref().map_or(Seq::ZERO, |certificate| certificate.statement().seq);
        let history = base.as_ref().map_or(genesis, |certificate| certificate.statement().history);
        Self {
            low: at,
            stable: base,
            slots: BTreeMap::new(),
            decided: BTreeMap::new(),
            committed: at,
            delivered: at,
            executed: at,
            history,
            tail: None,
            session_clock_must_run: false,
            transfer: None,
            length: constants.window_slots,
            interval: constants.interval_slots,
        }
    }

    /// `h+L`.
    pub(crate) fn high(&self) -> Seq {
        self.low.plus(self.length)
    }

    /// Whether a slot is in `(h, h+L]`.
    pub(crate) fn contains(&self, slot: Seq) -> bool {
        slot > self.low && slot <= self.high()
    }

    /// The slot, if it is in the window.
    pub(crate) fn slot_mut(&mut self, slot: Seq) -> Option<&mut Slot> {
        self.contains(slot).then(|| self.slots.entry(slot).or_default())
    }

    /// Notes a decision, and how far the decided slots now reach without a gap.
    pub(crate) fn decide(&mut self, slot: Seq, decided: Decided) {
        self.decided.insert(slot, decided);
        self.extend();
    }

    fn extend(&mut self) {
        while self.decided.contains_key(&self.committed.next()) {
            self.committed = self.committed.next();
        }
    }

    /// Moves the window up to a certified cut (R14); returns the slots that it leaves behind.
    pub(crate) fn raise(&mut self, certificate: Certificate<Checkpoint>) -> BTreeMap<Seq, Slot> {
        self.low = certificate.statement().seq;
        self.stable = Some(certificate);
        let inside = self.slots.split_off(&self.low.next());
        self.committed = self.committed.max(self.low);
        self.extend();
        core::mem::replace(&mut self.slots, inside)
    }

    /// Batches above this slot are kept: one interval below `h` for laggards, and what is undelivered, but at most
    /// `2L` in all (R14).
    pub(crate) fn keep_above(&self) -> Seq {
        let laggards = self.low.minus(self.interval);
        self.low.minus(self.length).max(laggards.min(self.delivered))
    }

    /// Drops what need not be kept; returns whether anything was.
    pub(crate) fn prune(&mut self) -> bool {
        let from = self.keep_above().next();
        let drops = self.decided.keys().next().is_some_and(|first| *first < from);
        if drops {
            self.decided = self.decided.split_off(&from);
        }
        drops
    }

    /// The slots below `h` that are missing and worth pulling, in order.
    pub(crate) fn missing(&self) -> impl Iterator<Item = Seq> + '_ {
        let from = self.delivered.max(self.transfer.unwrap_or_default());
        (from.0.saturating_add(1)..=self.low.0).map(Seq).filter(|slot| !self.decided.contains_key(slot))
    }

    /// Whether a stable certificate is for a cut above what was executed (R6).
    pub(crate) fn lags(&self) -> bool {
        self.executed < self.low
    }

    /// The cut at or after a slot (R33).
    pub(crate) fn cut_at_or_after(&self, slot: Seq) -> Seq {
        Seq(slot.0.div_ceil(self.interval).saturating_mul(self.interval))
    }

    /// Forgets the votes of the view that ended.
    pub(crate) fn leave_view(&mut self, has_prepare_phase: bool) {
        self.slots.values_mut().for_each(|slot| slot.leave_view(has_prepare_phase));
    }
}
