//! What replicas say to one another about the order (the table of docs/protocol.md).

use alloc::vec::Vec;
use core::fmt;

use polder_types::{
    Blob, Certificate, Checkpoint, Constants, Digest, Domain, Epoch, Proof, Quorum, ReplicaId, Seq, Signed,
    SignedRequest, Statement, View, encode,
};
use serde::{Deserialize, Serialize};

/// Which phase a vote is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Phase {
    /// PREPARE.
    Prepare,
    /// COMMIT.
    Commit,
}

/// PREPARE or COMMIT: leaves by [`crate::Output::Persist`] only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Vote {
    /// The phase.
    pub phase: Phase,
    /// The epoch.
    pub epoch: Epoch,
    /// The view.
    pub view: View,
    /// The slot.
    pub slot: Seq,
    /// The batch.
    pub digest: Digest,
}

impl Statement for Vote {
    const KIND: &'static str = "vote";

    fn write(&self, out: &mut Vec<u8>) {
        out.push(match self.phase {
            Phase::Prepare => 1,
            Phase::Commit => 2,
        });
        write_slot(out, self.epoch, self.view, self.slot, &self.digest);
    }
}

/// PRE-PREPARE: the leader's proposal of a batch for a slot, never a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Proposal {
    /// The epoch.
    pub epoch: Epoch,
    /// The view.
    pub view: View,
    /// The slot.
    pub slot: Seq,
    /// The batch.
    pub digest: Digest,
}

impl Statement for Proposal {
    const KIND: &'static str = "pre-prepare";

    fn write(&self, out: &mut Vec<u8>) {
        write_slot(out, self.epoch, self.view, self.slot, &self.digest);
    }
}

/// SUSPECT: signed once a view, stands until the view ends (R4). `q` of them end the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Suspect {
    /// The epoch.
    pub epoch: Epoch,
    /// The view that should end.
    pub view: View,
}

impl Statement for Suspect {
    const KIND: &'static str = "suspect";

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.epoch.0.to_le_bytes());
        out.extend_from_slice(&self.view.0.to_le_bytes());
    }
}

/// ABDICATE: the leader of a view gives it up, as after a restart in it (R8); a reason to suspect (R6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Abdicate {
    /// The epoch.
    pub epoch: Epoch,
    /// The view.
    pub view: View,
}

impl Statement for Abdicate {
    const KIND: &'static str = "abdicate";

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.epoch.0.to_le_bytes());
        out.extend_from_slice(&self.view.0.to_le_bytes());
    }
}

/// What is signed of a VIEW-CHANGE: its body by digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ViewChange {
    /// The epoch.
    pub epoch: Epoch,
    /// The view that its sender enters.
    pub view: View,
    /// [`ViewChangeBody::digest`].
    pub body: Digest,
}

impl Statement for ViewChange {
    const KIND: &'static str = "view-change";

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.epoch.0.to_le_bytes());
        out.extend_from_slice(&self.view.0.to_le_bytes());
        out.extend_from_slice(&self.body.0);
    }
}

/// What a VIEW-CHANGE says (R9).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewChangeBody {
    /// The certificate that the view before it ended: `SC(v−1)`.
    pub suspects: Proof<Suspect>,
    /// The sender's low watermark.
    pub low: Seq,
    /// The certificate of `low`; none at genesis.
    pub stable: Option<Proof<Checkpoint>>,
    /// At most one entry a slot of `(low, low+L]`, in order of slot.
    #[serde(deserialize_with = "polder_types::at_most::<{ Constants::WINDOW_SLOTS_MAX }, _, _>")]
    pub entries: Vec<Entry>,
}

/// A slot that the sender of a VIEW-CHANGE prepared (`r > 0`) or accepted (`r = 0`), in the highest view in which it
/// did, with the body durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The slot.
    pub slot: Seq,
    /// The view in which it was prepared or accepted.
    pub view: View,
    /// The batch.
    pub digest: Digest,
    /// The prepared certificate; none with `r = 0`.
    pub prepared: Option<Proof<Vote>>,
}

impl ViewChangeBody {
    /// The digest that is signed.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(Domain::ViewChange, &encode(self))
    }
}

/// NEW-VIEW: the VIEW-CHANGEs from which everybody computes how the view starts (R9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NewView {
    /// The epoch.
    pub epoch: Epoch,
    /// The view that starts.
    pub view: View,
    /// The digest of the enclosed VIEW-CHANGEs.
    pub body: Digest,
}

impl NewView {
    /// The digest of enclosed VIEW-CHANGEs.
    #[must_use]
    pub fn body_digest(enclosed: &[(Signed<ViewChange>, ViewChangeBody)]) -> Digest {
        Digest::of(Domain::NewView, &encode(enclosed))
    }
}

impl Statement for NewView {
    const KIND: &'static str = "new-view";

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.epoch.0.to_le_bytes());
        out.extend_from_slice(&self.view.0.to_le_bytes());
        out.extend_from_slice(&self.body.0);
    }
}

/// STATUS (R15): what its sender has, so that others re-send what it lacks. Authenticated by the channel only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The epoch.
    pub epoch: Epoch,
    /// The view.
    pub view: View,
    /// The body digest of the NEW-VIEW accepted in it; none while it is awaited (view 0 needs none).
    pub new_view: Option<Digest>,
    /// The low watermark `h`.
    pub low: Seq,
    /// Contiguous committed.
    pub committed: Seq,
    /// Executed.
    pub executed: Seq,
    /// Whose SUSPECTs of `view` are held, a bit each.
    pub suspects: u128,
    /// Whose VIEW-CHANGEs for `view` are held, a bit each: shown by its leader until it has formed the NEW-VIEW.
    pub view_changes: u128,
    /// Slots above `committed`, in order; at most `L`.
    #[serde(deserialize_with = "polder_types::at_most::<{ Constants::WINDOW_SLOTS_MAX }, _, _>")]
    pub slots: Vec<SlotStatus>,
}

/// What is held of one slot in the sender's view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotStatus {
    /// The slot.
    pub slot: Seq,
    /// The batch accepted in this view.
    pub accepted: Option<Digest>,
    /// Whose PREPAREs for it are held, a bit each.
    pub prepares: u128,
    /// Whose COMMITs for it are held, a bit each.
    pub commits: u128,
}

/// A request for what is missing (R15). Answered with the matching [`Message`], rate-limited per peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Fetch {
    /// The body of a batch: answered by [`Message::Body`].
    Body(Digest),
    /// The commit certificate and body of a slot: answered by [`Message::Committed`], or by [`Message::Stable`] when
    /// the slot was truncated (R14).
    Committed(Seq),
}

/// What replicas send to one another about the order. The large ones are boxed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// A client's request, forwarded by a backup.
    Request(SignedRequest),
    /// PRE-PREPARE, the batch beside it.
    Proposal(Signed<Proposal>, Blob),
    /// PREPARE or COMMIT.
    Vote(Signed<Vote>),
    /// SUSPECT.
    Suspect(Signed<Suspect>),
    /// `q` SUSPECTs of one view.
    Suspects(Proof<Suspect>),
    /// ABDICATE.
    Abdicate(Signed<Abdicate>),
    /// VIEW-CHANGE.
    ViewChange(Signed<ViewChange>, ViewChangeBody),
    /// NEW-VIEW.
    NewView(
        Signed<NewView>,
        #[serde(deserialize_with = "polder_types::at_most::<{ Quorum::REPLICAS_MAX }, _, _>")]
        Vec<(Signed<ViewChange>, ViewChangeBody)>,
    ),
    /// STATUS.
    Status(Status),
    /// FETCH.
    Fetch(Fetch),
    /// The body of a batch.
    Body(Blob),
    /// A commit certificate with its batch.
    Committed(Proof<Vote>, Blob),
    /// The certificate of a cut.
    Stable(Proof<Checkpoint>),
}

impl Message {
    /// A commit certificate with its batch, as it travels.
    #[must_use]
    pub fn committed(certificate: &Certificate<Vote>, batch: Blob) -> Self {
        Self::Committed(certificate.proof().clone(), batch)
    }

    /// What can be said about a message before any of its signatures is checked.
    #[must_use]
    pub fn header(&self) -> Header {
        let none = Header { kind: Kind::Other, by: None, epoch: None, view: None, slot: None, digest: None };
        let of_view = |kind, epoch, view| Header { kind, epoch: Some(epoch), view: Some(view), ..none };
        let of_slot = |kind, by, epoch, view, slot, digest| Header {
            by,
            slot: Some(slot),
            digest: Some(digest),
            ..of_view(kind, epoch, view)
        };
        match self {
            Self::Vote(Signed { by, statement: Vote { phase, epoch, view, slot, digest }, .. }) => {
                let kind = if *phase == Phase::Prepare { Kind::Prepare } else { Kind::Commit };
                of_slot(kind, Some(*by), *epoch, *view, *slot, *digest)
            }
            Self::Proposal(Signed { by, statement: Proposal { epoch, view, slot, digest }, .. }, _) => {
                of_slot(Kind::Proposal, Some(*by), *epoch, *view, *slot, *digest)
            }
            Self::Committed(Proof { statement: Vote { epoch, view, slot, digest, .. }, .. }, _) => {
                of_slot(Kind::Committed, None, *epoch, *view, *slot, *digest)
            }
            Self::Suspect(Signed { by, statement: Suspect { epoch, view }, .. }) => {
                Header { by: Some(*by), ..of_view(Kind::Suspect, *epoch, *view) }
            }
            Self::Suspects(proof) => of_view(Kind::Suspects, proof.statement.epoch, proof.statement.view),
            Self::Abdicate(Signed { by, statement: Abdicate { epoch, view }, .. }) => {
                Header { by: Some(*by), ..of_view(Kind::Abdicate, *epoch, *view) }
            }
            Self::ViewChange(Signed { by, statement: ViewChange { epoch, view, body }, .. }, _) => {
                Header { by: Some(*by), digest: Some(*body), ..of_view(Kind::ViewChange, *epoch, *view) }
            }
            Self::NewView(Signed { by, statement: NewView { epoch, view, body }, .. }, _) => {
                Header { by: Some(*by), digest: Some(*body), ..of_view(Kind::NewView, *epoch, *view) }
            }
            Self::Stable(Proof { statement: Checkpoint { epoch, seq, .. }, .. }) => {
                Header { kind: Kind::Stable, epoch: Some(*epoch), slot: Some(*seq), ..none }
            }
            Self::Request(request) => Header { kind: Kind::Request, digest: Some(request.digest()), ..none },
            Self::Status(_) | Self::Fetch(_) | Self::Body(_) => none,
        }
    }
}

/// The kind of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// PREPARE.
    Prepare,
    /// COMMIT.
    Commit,
    /// PRE-PREPARE.
    Proposal,
    /// SUSPECT.
    Suspect,
    /// `q` SUSPECTs.
    Suspects,
    /// ABDICATE.
    Abdicate,
    /// VIEW-CHANGE.
    ViewChange,
    /// NEW-VIEW.
    NewView,
    /// A commit certificate.
    Committed,
    /// A checkpoint certificate.
    Stable,
    /// A forwarded request.
    Request,
    /// What carries no signature.
    Other,
}

/// What can be said about a message before any of its signatures is checked: enough for [`crate::Core::wants`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The kind.
    pub kind: Kind,
    /// Who is said to have signed.
    pub by: Option<ReplicaId>,
    /// The epoch.
    pub epoch: Option<Epoch>,
    /// The view.
    pub view: Option<View>,
    /// The slot.
    pub slot: Option<Seq>,
    /// The digest: of the batch, of the request, of what a VIEW-CHANGE says or a NEW-VIEW encloses.
    pub digest: Option<Digest>,
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(request) => write!(f, "REQUEST {}", request.digest()),
            Self::Proposal(p, _) => {
                write!(f, "PRE-PREPARE {} {} {}", p.statement.view, p.statement.slot, p.statement.digest)
            }
            Self::Vote(v) => {
                let name = if v.statement.phase == Phase::Prepare { "PREPARE" } else { "COMMIT" };
                write!(f, "{name} {} {} {} {}", v.by, v.statement.view, v.statement.slot, v.statement.digest)
            }
            Self::Suspect(s) => write!(f, "SUSPECT {} {}", s.by, s.statement.view),
            Self::Suspects(p) => write!(f, "SUSPECTS {}", p.statement.view),
            Self::Abdicate(a) => write!(f, "ABDICATE {} {}", a.by, a.statement.view),
            Self::ViewChange(s, body) => {
                write!(f, "VIEW-CHANGE {} {} h={} entries={}", s.by, s.statement.view, body.low.0, body.entries.len())
            }
            Self::NewView(s, enclosed) => write!(f, "NEW-VIEW {} {} of {}", s.by, s.statement.view, enclosed.len()),
            Self::Status(s) => {
                write!(f, "STATUS {} h={} committed={} executed={}", s.view, s.low.0, s.committed.0, s.executed.0)
            }
            Self::Fetch(Fetch::Body(digest)) => write!(f, "FETCH body {digest}"),
            Self::Fetch(Fetch::Committed(slot)) => write!(f, "FETCH committed {slot}"),
            Self::Body(bytes) => write!(f, "BODY {}", polder_types::Batch::digest(bytes)),
            Self::Committed(p, _) => {
                write!(f, "COMMITTED {} {}", p.statement.slot, p.statement.digest)
            }
            Self::Stable(p) => write!(f, "STABLE {}", p.statement.seq),
        }
    }
}

fn write_slot(out: &mut Vec<u8>, epoch: Epoch, view: View, slot: Seq, digest: &Digest) {
    out.extend_from_slice(&epoch.0.to_le_bytes());
    out.extend_from_slice(&view.0.to_le_bytes());
    out.extend_from_slice(&slot.0.to_le_bytes());
    out.extend_from_slice(&digest.0);
}
