//! Evidence as values: what no correct replica signs, whatever crashes and restarts (R41). It proves what it says by its
//! bytes alone, to whoever knows the cluster's keys.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use polder_types::{Epoch, Keyring, ReplicaId, Seq, Signed, Statement, View, decode, encode};
use serde::{Deserialize, Serialize};

use crate::{NewView, Phase, Proposal, ViewChange, ViewChangeBody, Vote};

/// The longest evidence, in bytes: a VIEW-CHANGE of a full window, with a certificate a slot.
pub const EVIDENCE_BYTES_MAX: usize = 4 << 20;

/// Two signed statements that no correct replica makes both (R41). Encoded as any record; one a replica, kind and epoch
/// is reported by a core, and [`verify_evidence`] judges it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Evidence {
    /// Two proposals for one slot of one view.
    Proposals(Signed<Proposal>, Signed<Proposal>),
    /// Two votes of one phase for one slot of one view.
    Votes(Signed<Vote>, Signed<Vote>),
    /// Two VIEW-CHANGEs for one view.
    ViewChanges(Signed<ViewChange>, Signed<ViewChange>),
    /// Two NEW-VIEWs for one view.
    NewViews(Signed<NewView>, Signed<NewView>),
    /// A COMMIT, and a VIEW-CHANGE for a later view that leaves it out or contradicts it.
    Forgotten(Signed<Vote>, Box<(Signed<ViewChange>, ViewChangeBody)>),
}

/// What evidence is of. In the order of the variants of [`Evidence`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EvidenceKind {
    /// Two proposals for one slot of one view.
    Proposals,
    /// Two votes of one phase for one slot of one view.
    Votes,
    /// Two VIEW-CHANGEs for one view.
    ViewChanges,
    /// Two NEW-VIEWs for one view.
    NewViews,
    /// A COMMIT, and a later VIEW-CHANGE that forgets it.
    Forgotten,
}

impl EvidenceKind {
    /// All of them: a core reports each once a replica and epoch.
    pub const ALL: [Self; 5] = [Self::Proposals, Self::Votes, Self::ViewChanges, Self::NewViews, Self::Forgotten];
}

impl fmt::Display for EvidenceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Proposals => "two proposals for one slot of one view",
            Self::Votes => "two votes of one phase for one slot of one view",
            Self::ViewChanges => "two VIEW-CHANGEs for one view",
            Self::NewViews => "two NEW-VIEWs for one view",
            Self::Forgotten => "a COMMIT, and a later VIEW-CHANGE that forgets it",
        })
    }
}

/// What evidence proves, once it is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misdeed {
    /// Who signed both.
    pub culprit: ReplicaId,
    /// What it is.
    pub kind: EvidenceKind,
    /// In which epoch.
    pub epoch: Epoch,
    /// The view of the first statement.
    pub view: View,
    /// The slot that both are about; none for VIEW-CHANGEs and NEW-VIEWs.
    pub slot: Option<Seq>,
}

impl fmt::Display for Misdeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { culprit, kind, epoch, view, slot } = self;
        write!(f, "{culprit} signed {kind}: epoch {}, {view}", epoch.0)?;
        slot.map_or(Ok(()), |slot| write!(f, ", {slot}"))
    }
}

/// Why bytes are no evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotEvidence {
    /// They do not decode.
    Malformed,
    /// A signature is not that replica's in this cluster, or the body of the VIEW-CHANGE is not the one that was signed.
    Signature,
    /// One replica may well have signed both statements, or two replicas signed one each.
    NoContradiction,
}

impl fmt::Display for NotEvidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "these bytes are no evidence",
            Self::Signature => "a signature is not that replica's in this cluster",
            Self::NoContradiction => "a correct replica may have signed both statements",
        })
    }
}

impl core::error::Error for NotEvidence {}

/// Judges evidence by its bytes alone (R41): both statements are signed by one replica of this cluster, and no correct
/// replica signs both.
///
/// # Errors
///
/// [`NotEvidence`]: it proves nothing.
pub fn verify_evidence(keyring: &Keyring, bytes: &[u8]) -> Result<Misdeed, NotEvidence> {
    let evidence: Evidence = decode(bytes, EVIDENCE_BYTES_MAX).map_err(|_| NotEvidence::Malformed)?;
    evidence.verify(keyring)
}

impl Evidence {
    /// Its bytes: what [`verify_evidence`] takes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    /// Whose statements these are.
    #[must_use]
    pub fn culprit(&self) -> ReplicaId {
        match self {
            Self::Proposals(first, _) => first.by,
            Self::Votes(first, _) => first.by,
            Self::ViewChanges(first, _) => first.by,
            Self::NewViews(first, _) => first.by,
            Self::Forgotten(commit, _) => commit.by,
        }
    }

    /// What it is of.
    #[must_use]
    pub fn kind(&self) -> EvidenceKind {
        match self {
            Self::Proposals(..) => EvidenceKind::Proposals,
            Self::Votes(..) => EvidenceKind::Votes,
            Self::ViewChanges(..) => EvidenceKind::ViewChanges,
            Self::NewViews(..) => EvidenceKind::NewViews,
            Self::Forgotten(..) => EvidenceKind::Forgotten,
        }
    }

    /// As [`verify_evidence`], of a value.
    ///
    /// # Errors
    ///
    /// As [`verify_evidence`].
    pub fn verify(&self, keyring: &Keyring) -> Result<Misdeed, NotEvidence> {
        let (epoch, view, slot) = match self {
            Self::Proposals(first, second) => {
                pair(keyring, first, second)?;
                let (a, b) = (first.statement, second.statement);
                contradict((a.epoch, a.view, a.slot) == (b.epoch, b.view, b.slot) && a.digest != b.digest)?;
                (a.epoch, a.view, Some(a.slot))
            }
            Self::Votes(first, second) => {
                pair(keyring, first, second)?;
                let (a, b) = (first.statement, second.statement);
                let is_same = (a.epoch, a.phase, a.view, a.slot) == (b.epoch, b.phase, b.view, b.slot);
                contradict(is_same && a.digest != b.digest)?;
                (a.epoch, a.view, Some(a.slot))
            }
            Self::ViewChanges(first, second) => {
                pair(keyring, first, second)?;
                let (a, b) = (first.statement, second.statement);
                contradict((a.epoch, a.view) == (b.epoch, b.view) && a.body != b.body)?;
                (a.epoch, a.view, None)
            }
            Self::NewViews(first, second) => {
                pair(keyring, first, second)?;
                let (a, b) = (first.statement, second.statement);
                contradict((a.epoch, a.view) == (b.epoch, b.view) && a.body != b.body)?;
                (a.epoch, a.view, None)
            }
            Self::Forgotten(commit, change) => {
                let (change, body) = &**change;
                signed(keyring, commit)?;
                signed(keyring, change)?;
                (body.digest() == change.statement.body).then_some(()).ok_or(NotEvidence::Signature)?;
                contradict(is_forgotten(commit, change, body))?;
                (commit.statement.epoch, commit.statement.view, Some(commit.statement.slot))
            }
        };
        Ok(Misdeed { culprit: self.culprit(), kind: self.kind(), epoch, view, slot })
    }
}

/// Both are signed, and by one replica.
fn pair<S: Statement>(keyring: &Keyring, first: &Signed<S>, second: &Signed<S>) -> Result<(), NotEvidence> {
    contradict(first.by == second.by)?;
    signed(keyring, first)?;
    signed(keyring, second)
}

fn signed<S: Statement>(keyring: &Keyring, statement: &Signed<S>) -> Result<(), NotEvidence> {
    statement.clone().verify(keyring).map(drop).map_err(|_| NotEvidence::Signature)
}

fn contradict(do_they: bool) -> Result<(), NotEvidence> {
    do_they.then_some(()).ok_or(NotEvidence::NoContradiction)
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
    use alloc::vec;
    use polder_types::{Digest, Proof, Signature};

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
