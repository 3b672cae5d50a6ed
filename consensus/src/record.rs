//! What a core makes durable (R8). Recovery reads these and nothing else.

use core::fmt;

use polder_types::{Blob, Checkpoint, Epoch, Proof, Seq, Signed, View};
use serde::{Deserialize, Serialize};

use crate::{Proposal, ViewChange, ViewChangeBody, Vote};

/// What a core makes durable, in order. Recovery reads these and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// View 0 of an epoch was entered. (Views above are entered by their VIEW-CHANGE.)
    Entered {
        /// The epoch.
        epoch: Epoch,
        /// The view.
        view: View,
    },
    /// A proposal was accepted: with its leader's signature, its body, and the own vote that leaves then (PREPARE, or
    /// COMMIT with `r = 0`), which names view, slot and batch.
    Accepted {
        /// The proposal; none for a slot that the view's NEW-VIEW forces: that is no proposal of the leader's own.
        proposal: Option<Signed<Proposal>>,
        /// The body, when no record of this slot before it has it. The body of a no-op is never written.
        body: Option<Blob>,
        /// The own vote.
        vote: Signed<Vote>,
    },
    /// A slot was prepared: the certificate, the body when no record before it has it, and the own COMMIT.
    Prepared {
        /// The prepared certificate.
        certificate: Proof<Vote>,
        /// The body, when no record of this slot before it has it.
        body: Option<Blob>,
        /// The own COMMIT.
        vote: Signed<Vote>,
    },
    /// A slot is decided: kept so that a restart need not ask for it. Needs no sync of its own.
    Committed {
        /// The commit certificate.
        certificate: Proof<Vote>,
        /// The body, when no record of this slot before it has it.
        body: Option<Blob>,
    },
    /// The exact VIEW-CHANGE: the record of having entered its view, re-sent for ever. It holds the certificate that
    /// ended the view before.
    ViewChange {
        /// What was signed.
        signed: Signed<ViewChange>,
        /// What it says.
        body: ViewChangeBody,
    },
    /// A cut is stable. Also carries forward what older records said and what must outlive them, so that everything
    /// before it about slots `≤ h` can go: the highest view entered, and the own VIEW-CHANGE of it (none in view 0).
    Stable {
        /// The certificate.
        certificate: Proof<Checkpoint>,
        /// The highest view entered.
        view: View,
        /// The own VIEW-CHANGE of that view.
        view_change: Option<(Signed<ViewChange>, ViewChangeBody)>,
    },
    /// Stands for a record that a planted bug forgets to write.
    #[cfg(polder_mutations)]
    Volatile,
}

impl Record {
    /// The slot that a record is about: it can go once that slot is certified and recoverable otherwise. None for
    /// records that the next [`Record::Stable`] carries forward.
    #[must_use]
    pub fn slot(&self) -> Option<Seq> {
        match self {
            Self::Accepted { vote, .. } => Some(vote.statement.slot),
            Self::Prepared { certificate, .. } | Self::Committed { certificate, .. } => {
                Some(certificate.statement.slot)
            }
            Self::Entered { .. } | Self::ViewChange { .. } | Self::Stable { .. } => None,
            #[cfg(polder_mutations)]
            Self::Volatile => None,
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entered { view, .. } => write!(f, "entered {view}"),
            Self::Accepted { vote, .. } => write!(f, "accepted {} {}", vote.statement.view, vote.statement.slot),
            Self::Prepared { certificate, .. } => {
                write!(f, "prepared {} {}", certificate.statement.view, certificate.statement.slot)
            }
            Self::Committed { certificate, .. } => {
                write!(f, "committed {}", certificate.statement.slot)
            }
            Self::ViewChange { signed, .. } => write!(f, "view-change {}", signed.statement.view),
            Self::Stable { certificate, .. } => write!(f, "stable {}", certificate.statement.seq),
            #[cfg(polder_mutations)]
            Self::Volatile => f.write_str("nothing"),
        }
    }
}
