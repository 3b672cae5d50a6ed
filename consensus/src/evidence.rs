//! Evidence as values: what no correct replica signs, whatever crashes and restarts (R41).

use polder_types::Signed;

use crate::{Evidence, Phase, ViewChange, ViewChangeBody, Vote};

/// The kind of two proposals for one slot and view.
pub(crate) const PROPOSALS: u8 = 0;
/// The kind of two votes of one phase, slot and view.
pub(crate) const VOTES: u8 = 1;
/// The kind of two VIEW-CHANGEs for one view.
pub(crate) const VIEW_CHANGES: u8 = 2;
/// The kind of two NEW-VIEWs for one view.
pub(crate) const NEW_VIEWS: u8 = 3;

impl Evidence {
    /// The kind, as a small number.
    pub(crate) fn kind(&self) -> u8 {
        match self {
            Self::Proposals(..) => PROPOSALS,
            Self::Votes(..) => VOTES,
            Self::ViewChanges(..) => VIEW_CHANGES,
            Self::NewViews(..) => NEW_VIEWS,
            Self::Forgotten(..) => 4,
        }
    }
}

/// Whether a VIEW-CHANGE leaves out, or contradicts, what a COMMIT of the same signer for an earlier view promised: its
/// `h` is below the slot, and its entry for the slot is absent, of an earlier view, or of that view with another batch.
pub(crate) fn is_forgotten(commit: &Signed<Vote>, change: &Signed<ViewChange>, body: &ViewChangeBody) -> bool {
    let Vote { phase, epoch, view, slot, digest } = commit.statement;
    let is_about = phase == Phase::Commit
        && commit.by == change.by
        && epoch == change.statement.epoch
        && view < change.statement.view
        && body.low < slot;
    let keeps = |entry: &crate::Entry| entry.view > view || entry.view == view && entry.digest == digest;
    is_about && !body.entries.iter().any(|entry| entry.slot == slot && keeps(entry))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Entry, Suspect};
    use alloc::{vec, vec::Vec};
    use polder_types::{Digest, Epoch, Proof, ReplicaId, Seq, Signature, View};

    fn signed<S>(by: u8, statement: S) -> Signed<S> {
        Signed { by: ReplicaId(by), statement, signature: Signature([0; 64]) }
    }

    fn forgotten(by: u8, low: u64, entries: &[(u64, u64, u8)]) -> bool {
        let (slot, digest) = (Seq(5), Digest([5; 32]));
        let commit = Vote { phase: Phase::Commit, epoch: Epoch(0), view: View(2), slot, digest };
        let entry = |&(slot, view, batch): &(u64, u64, u8)| Entry {
            slot: Seq(slot),
            view: View(view),
            digest: Digest([batch; 32]),
            prepared: None,
        };
        let body = ViewChangeBody {
            suspects: Proof { statement: Suspect { epoch: Epoch(0), view: View(3) }, signers: vec![] },
            low: Seq(low),
            stable: None,
            entries: entries.iter().map(entry).collect::<Vec<_>>(),
        };
        let change = ViewChange { epoch: Epoch(0), view: View(4), body: body.digest() };
        is_forgotten(&signed(1, commit), &signed(by, change), &body)
    }

    #[test]
    fn r41_a_view_change_that_forgets_a_commit() {
        assert!(forgotten(1, 4, &[]), "absent");
        assert!(forgotten(1, 4, &[(5, 1, 5)]), "of an earlier view");
        assert!(forgotten(1, 4, &[(5, 2, 9)]), "of that view, another batch");
        assert!(!forgotten(1, 4, &[(5, 2, 5)]), "kept");
        assert!(!forgotten(1, 4, &[(5, 3, 9)]), "superseded");
        assert!(!forgotten(1, 5, &[]), "below the watermark");
        assert!(!forgotten(2, 4, &[]), "another signer");
    }
}
