//! What a core asks for.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use polder_types::{Batch, Blob, Certificate, Checkpoint, ClientId, Digest, ReplicaId, Seq};

use crate::{Evidence, Record, VerifiedMessage};

/// To whom a message goes. Never to oneself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// All other replicas.
    All,
    /// One other replica.
    One(ReplicaId),
}

/// What a record's durability is needed for, beyond the messages that ride in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ticket {
    /// The view was entered (R8): proposals and NEW-VIEWs of it may leave.
    Entered(polder_types::View),
}

/// A batch that is decided for its slot. Delivered in slot order, each slot once.
#[derive(Clone, Debug)]
pub struct CommittedBatch {
    /// The slot.
    pub slot: Seq,
    /// The digest of the bytes.
    pub digest: Digest,
    /// The bytes, as ordered.
    pub bytes: Blob,
    /// The batch in them. Bytes that a forced slot carries and that are no batch decode to a no-op on every replica.
    pub batch: Arc<Batch>,
    /// The chain over the batches up to this one (R29).
    pub history: Digest,
}

/// Why a request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Too much waits already: try again later.
    Busy,
}

/// Why a core stops for good: a fault outside the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// With `r = 0`, two different batches were accepted for one slot in one view (R9).
    Equivocation {
        /// The slot.
        slot: Seq,
        /// One.
        first: Digest,
        /// The other.
        second: Digest,
    },
    /// Two different batches have commit certificates for one slot: more replicas lie than configured.
    TwoDecisions {
        /// The slot.
        slot: Seq,
        /// One.
        first: Digest,
        /// The other.
        second: Digest,
    },
    /// The own history differs from a certified one.
    History {
        /// The cut.
        seq: Seq,
        /// The own.
        own: Digest,
        /// The certified.
        certified: Digest,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equivocation { slot, first, second } => {
                write!(f, "{slot} was accepted as {first} and as {second} in one view, though no replica may lie")
            }
            Self::TwoDecisions { slot, first, second } => {
                write!(f, "{slot} was decided as {first} and as {second}: more replicas lie than configured")
            }
            Self::History { seq, own, certified } => {
                write!(f, "the history at {seq} is {own}, but {certified} is certified")
            }
        }
    }
}

/// What a core asks for, in this order. The driver owes what each variant says.
// A step has few outputs, and most of them are records: boxing each would cost more than it saves.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug)]
pub enum Output {
    /// Append `record` to the log. When it and all before it are durable: send `then` to all others and give each back
    /// as an [`crate::Input::Message`] from oneself; then give [`crate::Input::Synced`] if there is a ticket. This is
    /// the only way out for a vote (R8).
    Persist {
        /// What to append.
        record: Record,
        /// What leaves then.
        then: Vec<Arc<VerifiedMessage>>,
        /// What else waits for it.
        ticket: Option<Ticket>,
    },
    /// Send now. May be dropped: STATUS restores it (R15).
    Send {
        /// To whom.
        to: To,
        /// What.
        message: Arc<VerifiedMessage>,
    },
    /// Execute. In slot order, each slot once.
    Deliver(CommittedBatch),
    /// A certificate for a cut was learnt from a peer: the planner should have it. The core has adopted it.
    Certified(Certificate<Checkpoint>),
    /// The batches between the executed slot and this cut are not to be had: fetch the state (R14).
    FellBehind(Certificate<Checkpoint>),
    /// Tell the client that its request was not taken.
    Refused {
        /// The client.
        client: ClientId,
        /// The digest of the request.
        request: Digest,
        /// Why.
        why: Refusal,
    },
    /// Record and report.
    Misbehaviour(Evidence),
    /// A replica sent a request with a bad signature, or a bad proposal: limit its rate (R20).
    Misled(ReplicaId),
    /// Stop, print why.
    Halt(Why),
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Persist { record, then, .. } => {
                write!(f, "persist {record}")?;
                then.iter().try_for_each(|message| write!(f, " then {}", message.message()))
            }
            Self::Send { to: To::All, message } => write!(f, "all <- {}", message.message()),
            Self::Send { to: To::One(to), message } => write!(f, "{to} <- {}", message.message()),
            Self::Deliver(batch) => write!(f, "deliver {} {}", batch.slot, batch.digest),
            Self::Certified(certificate) => write!(f, "certified {}", certificate.statement().seq),
            Self::FellBehind(certificate) => {
                write!(f, "fell behind {}", certificate.statement().seq)
            }
            Self::Refused { request, why, .. } => write!(f, "refused {request}: {why:?}"),
            Self::Misbehaviour(evidence) => write!(f, "evidence against {}", evidence.culprit()),
            Self::Misled(by) => write!(f, "misled by {by}"),
            Self::Halt(why) => write!(f, "halt: {why}"),
        }
    }
}
