//! What a replica is given and what it asks for. The event loop and the simulator drive it by these alone.

use std::fmt;
use std::sync::Arc;

use polder_checkpoint::{CertifiedState, Durability, Writes};
use polder_consensus::{Evidence, To};
use polder_executor::{Frozen, FrozenPartition};
use polder_types::{ClientId, Digest, NodeFrame, ReplicaId, Seq, SignedRequest, Verified};

use super::message::VerifiedPeer;

/// Which of the two stores (R19).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Disk {
    /// The ordering log: votes, batches, identity.
    Log,
    /// The state: effects, images, certificates.
    State,
}

/// What a replica is given, in one order.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time has passed. To be given every 10 ms or so; each counts for at most `τ` (R7).
    Tick,
    /// A peer's message. (The own ones come back by the replica's own road.)
    Peer {
        /// From whose channel.
        from: ReplicaId,
        /// The message.
        message: VerifiedPeer,
    },
    /// A client's request, from the client itself.
    Request(Verified<SignedRequest>),
    /// The [`Action::Write`] with this ticket is done, synced if it asked for it, and so are all before it on that disk.
    Written {
        /// The disk.
        disk: Disk,
        /// The ticket.
        ticket: u64,
    },
    /// The digests that [`Action::Digest`] asked for are computed and cached in the snapshot.
    Digested {
        /// The snapshot.
        frozen: Frozen,
    },
    /// What [`Action::WriteImages`] asked for is written, synced and declared.
    ImagesWritten {
        /// The cut.
        cut: Seq,
    },
    /// What [`Action::InstallBase`] asked for is written, synced and declared.
    BaseInstalled {
        /// The cut.
        cut: Seq,
    },
    /// Whether little space is left on the disk (C10): while it is, no command is taken that was not before, and no images
    /// are asked for. Said when it changes.
    Space {
        /// Whether it is.
        is_low: bool,
    },
}

/// What a replica asks for, to be carried out in this order. The driver owes what each variant says.
#[derive(Clone, Debug)]
pub enum Action {
    /// Send, or drop: STATUS restores what matters (R15). Never to oneself.
    Send {
        /// To whom.
        to: To,
        /// What; [`VerifiedPeer::lane`] says on which lane.
        message: VerifiedPeer,
    },
    /// Send to a client, if it is connected.
    Reply {
        /// The client.
        client: ClientId,
        /// What.
        frame: NodeFrame,
    },
    /// Apply these writes, after all earlier ones on that disk; then give [`Event::Written`]. Many may be merged into
    /// one write and one sync. After a failed write or sync the process ends.
    Write {
        /// The disk.
        disk: Disk,
        /// The writes.
        writes: Writes,
        /// Whether they must be synced before [`Event::Written`].
        durability: Durability,
        /// Increases by one with each write on that disk, from 1.
        ticket: u64,
    },
    /// Compute the digests of the snapshot, off the path of commands; then give [`Event::Digested`].
    Digest {
        /// The snapshot.
        frozen: Frozen,
    },
    /// Write these images with `polder_checkpoint::images::write` on the state store, off the loop; then give
    /// [`Event::ImagesWritten`].
    WriteImages {
        /// The cut.
        cut: Seq,
        /// The partitions.
        partitions: Vec<FrozenPartition>,
    },
    /// Write a transferred state as a new base with `polder_checkpoint::install::write` on the state store, after all
    /// earlier writes on it, off the loop; then give [`Event::BaseInstalled`]. No write of effects follows until then.
    InstallBase {
        /// The state and its certificate.
        state: CertifiedState,
    },
    /// A slot was executed: a fact, for metrics and checkers. In slot order; again after a restart.
    Executed {
        /// The slot.
        slot: Seq,
        /// The batch.
        digest: Digest,
        /// The chain over the batches up to this one.
        history: Digest,
        /// Commands executed, copies left out.
        commands: u32,
    },
    /// Record and report.
    Evidence(Evidence),
    /// This peer sent what a correct replica does not send: limit its rate (R20), and name it.
    Misled(ReplicaId),
    /// Stop for good and print why. Nothing follows.
    Halt(Arc<str>),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tick => f.write_str("tick"),
            Self::Peer { from, message } => write!(f, "{from}: {message}"),
            Self::Request(request) => write!(f, "request {}", request.digest()),
            Self::Written { disk, ticket } => write!(f, "written {disk:?} {ticket}"),
            Self::Digested { frozen } => write!(f, "digested {}", frozen.seq()),
            Self::ImagesWritten { cut } => write!(f, "images written {cut}"),
            Self::BaseInstalled { cut } => write!(f, "base installed {cut}"),
            Self::Space { is_low } => write!(f, "space low={is_low}"),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send { to: To::All, message } => write!(f, "all <- {message}"),
            Self::Send { to: To::One(to), message } => write!(f, "{to} <- {message}"),
            Self::Reply { client, frame } => match frame {
                NodeFrame::Replies(replies) => write!(f, "{client} <- {} replies", replies.len()),
                NodeFrame::Busy { request, .. } => write!(f, "{client} <- busy {request}"),
                NodeFrame::At { view, cut, .. } => write!(f, "{client} <- at {view} {cut}"),
                NodeFrame::Status(_) => write!(f, "{client} <- status"),
            },
            Self::Write { disk, durability, ticket, .. } => write!(f, "write {disk:?} {ticket} {durability:?}"),
            Self::Digest { frozen } => write!(f, "digest {}", frozen.seq()),
            Self::WriteImages { cut, partitions } => write!(f, "write {} images of {cut}", partitions.len()),
            Self::InstallBase { state } => write!(f, "install base {}", state.cut()),
            Self::Executed { slot, digest, commands, .. } => write!(f, "executed {slot} {digest} {commands} commands"),
            Self::Evidence(evidence) => write!(f, "evidence against {}", evidence.culprit()),
            Self::Misled(by) => write!(f, "misled by {by}"),
            Self::Halt(why) => write!(f, "halt: {why}"),
        }
    }
}

impl fmt::Display for VerifiedPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ordering(message, _) => message.message().fmt(f),
            Self::Checkpoint(signed, _) => write!(f, "CHECKPOINT {} {}", signed.by, signed.statement.seq),
            Self::Transfer(message) => write!(f, "TRANSFER {message}"),
            Self::MemoryAsk { .. } => f.write_str("MEMORY?"),
            Self::Memory { .. } => f.write_str("MEMORY"),
        }
    }
}
