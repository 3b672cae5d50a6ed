//! What replicas say to one another, and how it becomes verified.

use std::sync::Arc;

use polder_checkpoint::transfer;
use polder_consensus::{BadMessage, Header, Message, Phase, Seen, VerifiedMessage, ViewChange, Vote};
use polder_types::{Checkpoint, Constants, Keyring, ReplicaId, Signed, Verified, encode};
use serde::{Deserialize, Serialize};

/// What replicas say to one another, as it travels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PeerMessage {
    /// About the order.
    Ordering(Message),
    /// CHECKPOINT (R29).
    Checkpoint(Signed<Checkpoint>),
    /// State transfer (C12).
    Transfer(transfer::Message),
    /// MEMORY?: what do you hold that I signed? (R18)
    MemoryAsk {
        /// Drawn by this start of the asker.
        nonce: u64,
    },
    /// MEMORY: the asker's own highest signed statements (R18).
    Memory {
        /// The nonce asked with.
        nonce: u64,
        /// What is remembered of the asker.
        remembered: Remembered,
    },
}

/// The highest statements of one replica that another has seen signed (R18). What leaves by `Send` never counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// The highest PREPARE, by view and slot.
    pub prepare: Option<Signed<Vote>>,
    /// The highest COMMIT, by view and slot.
    pub commit: Option<Signed<Vote>>,
    /// The VIEW-CHANGE for the highest view.
    pub view_change: Option<Signed<ViewChange>>,
    /// The CHECKPOINT of the highest cut.
    pub checkpoint: Option<Signed<Checkpoint>>,
}

/// A peer's message, every signature in it checked; or one of the own. Cheap to clone.
#[derive(Clone, Debug)]
pub enum VerifiedPeer {
    /// About the order.
    Ordering(Arc<VerifiedMessage>),
    /// CHECKPOINT.
    Checkpoint(Verified<Signed<Checkpoint>>),
    /// State transfer: each chunk is checked against the certified root on arrival, not here.
    Transfer(Arc<transfer::Message>),
    /// MEMORY?
    MemoryAsk {
        /// Drawn by this start of the asker.
        nonce: u64,
    },
    /// MEMORY. Only what verifies under the asker's key counts, which is the receiver: it checks that itself.
    Memory {
        /// The nonce asked with.
        nonce: u64,
        /// What is remembered of the asker.
        remembered: Arc<Remembered>,
    },
}

impl VerifiedPeer {
    /// The form in which it travels.
    #[must_use]
    pub fn to_message(&self) -> PeerMessage {
        match self {
            Self::Ordering(message) => PeerMessage::Ordering(message.message().clone()),
            Self::Checkpoint(signed) => PeerMessage::Checkpoint((**signed).clone()),
            Self::Transfer(message) => PeerMessage::Transfer((**message).clone()),
            Self::MemoryAsk { nonce } => PeerMessage::MemoryAsk { nonce: *nonce },
            Self::Memory { nonce, remembered } => {
                PeerMessage::Memory { nonce: *nonce, remembered: (**remembered).clone() }
            }
        }
    }

    /// Its bytes on the wire.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(&self.to_message())
    }

    /// On which lane it travels.
    #[must_use]
    pub fn lane(&self) -> Lane {
        match self {
            Self::Transfer(_) => Lane::Transfer,
            _ => Lane::Ordering,
        }
    }
}

/// Which lane a message takes: ordering never waits behind state transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Votes, proposals, notices.
    Ordering,
    /// Chunks of state.
    Transfer,
}

impl PeerMessage {
    /// What can be said about it before any signature is checked; none when nothing in it is signed by replicas.
    #[must_use]
    pub fn header(&self) -> Option<Header> {
        match self {
            Self::Ordering(message) => Some(message.header()),
            _ => None,
        }
    }
}

/// Checks every signature in a peer's message. Needs no state of the replica (R12), so it runs on any thread.
///
/// # Errors
///
/// [`BadMessage`]: drop it, and count it against the peer whose channel carried it.
pub fn verify_peer(
    keyring: &Keyring,
    constants: &Constants,
    seen: &mut Seen,
    message: PeerMessage,
) -> Result<VerifiedPeer, BadMessage> {
    match message {
        PeerMessage::Ordering(message) => {
            polder_consensus::verify(keyring, constants, seen, message).map(|m| VerifiedPeer::Ordering(Arc::new(m)))
        }
        PeerMessage::Checkpoint(signed) => {
            signed.verify(keyring).map(VerifiedPeer::Checkpoint).map_err(|_| BadMessage::Signature)
        }
        PeerMessage::Transfer(message) => Ok(VerifiedPeer::Transfer(Arc::new(message))),
        PeerMessage::MemoryAsk { nonce } => Ok(VerifiedPeer::MemoryAsk { nonce }),
        PeerMessage::Memory { nonce, remembered } => {
            Ok(VerifiedPeer::Memory { nonce, remembered: Arc::new(remembered) })
        }
    }
}

impl Remembered {
    /// Takes note of a signed vote or view change; says whether it is higher than what was remembered.
    pub fn note(&mut self, message: &Message) -> bool {
        match message {
            Message::Vote(vote) => {
                let kept = match vote.statement.phase {
                    Phase::Prepare => &mut self.prepare,
                    Phase::Commit => &mut self.commit,
                };
                replace_if_higher(kept, vote, |vote| (vote.view, vote.slot))
            }
            Message::ViewChange(change, _) => replace_if_higher(&mut self.view_change, change, |change| change.view),
            _ => false,
        }
    }

    /// Takes note of a signed checkpoint statement; says whether it is higher than what was remembered.
    pub fn note_checkpoint(&mut self, signed: &Signed<Checkpoint>) -> bool {
        replace_if_higher(&mut self.checkpoint, signed, |checkpoint| checkpoint.seq)
    }

    /// Only what verifies under the key of `by` counts: a bare claim is an empty answer (R18).
    #[must_use]
    pub fn verified(self, by: ReplicaId, keyring: &Keyring) -> Self {
        Self {
            prepare: only_verified(self.prepare, by, keyring),
            commit: only_verified(self.commit, by, keyring),
            view_change: only_verified(self.view_change, by, keyring),
            checkpoint: only_verified(self.checkpoint, by, keyring),
        }
    }
}

fn replace_if_higher<S: Clone, K: Ord>(kept: &mut Option<Signed<S>>, new: &Signed<S>, key: impl Fn(&S) -> K) -> bool {
    let is_higher = kept.as_ref().is_none_or(|kept| key(&kept.statement) < key(&new.statement));
    if is_higher {
        *kept = Some(new.clone());
    }
    is_higher
}

fn only_verified<S: polder_types::Statement>(
    signed: Option<Signed<S>>,
    by: ReplicaId,
    keyring: &Keyring,
) -> Option<Signed<S>> {
    let signed = signed.filter(|signed| signed.by == by)?;
    signed.verify(keyring).ok().map(Verified::into_inner)
}
