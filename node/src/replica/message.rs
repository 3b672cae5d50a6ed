//! What replicas say to one another, and how it becomes verified.

use std::sync::Arc;

use polder_checkpoint::transfer;
use polder_consensus::{BadMessage, Header, Message, Seen, VerifiedMessage};
use polder_types::{Checkpoint, Constants, Digest, Domain, Hasher, Keyring, Signed, SigningKey, Verified, encode};
use serde::{Deserialize, Serialize};

/// What replicas say to one another, as it travels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PeerMessage {
    /// About the order, and how far the sender's log reaches.
    Ordering(Message, Mark),
    /// CHECKPOINT (R29), and the same.
    Checkpoint(Signed<Checkpoint>, Mark),
    /// State transfer (C12).
    Transfer(transfer::Message),
    /// MEMORY?: how far did my log reach, as far as you have heard? (R18)
    MemoryAsk {
        /// Drawn by this start of the asker.
        nonce: u64,
    },
    /// MEMORY: the asker's own highest mark from before the start that asks (R18).
    Memory {
        /// The nonce asked with.
        nonce: u64,
        /// The highest mark of the asker that was heard and that another start made; one of no rows if none was.
        mark: Mark,
    },
}

/// How far a replica's vote log reached when it said something: a mark stands beside everything that it says about the
/// order and about cuts, others keep the highest, and at its next start the replica asks for it (R18). It names the start
/// that made it: what was said since the own start proves nothing about what was there before. Made under the secret key,
/// so that nobody else can make one; only the replica itself can tell, and nobody else need to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Rows of the log that were durable: the number of the next one.
    pub rows: u64,
    /// The nonce of the start that made it.
    pub start: u64,
    tag: Digest,
}

impl Mark {
    /// The mark of a log of so many rows, made by the start that drew this nonce.
    #[must_use]
    pub fn new(rows: u64, start: u64, key: &SigningKey) -> Self {
        let hasher = Hasher::new(Domain::Mark).bytes(&key.seed());
        let tag = hasher.bytes(&rows.to_le_bytes()).bytes(&start.to_le_bytes()).finish();
        Self { rows, start, tag }
    }

    /// Whether it was made under this key.
    #[must_use]
    pub fn is_of(&self, key: &SigningKey) -> bool {
        *self == Self::new(self.rows, self.start, key)
    }
}

/// A peer's message, every signature in it checked; or one of the own. Cheap to clone.
#[derive(Clone, Debug)]
pub enum VerifiedPeer {
    /// About the order.
    Ordering(Arc<VerifiedMessage>, Mark),
    /// CHECKPOINT.
    Checkpoint(Verified<Signed<Checkpoint>>, Mark),
    /// State transfer: each chunk is checked against the certified root on arrival, not here.
    Transfer(Arc<transfer::Message>),
    /// MEMORY?
    MemoryAsk {
        /// Drawn by this start of the asker.
        nonce: u64,
    },
    /// MEMORY. Only a mark made under the asker's key counts, which is the receiver's: it checks that itself.
    Memory {
        /// The nonce asked with.
        nonce: u64,
        /// The highest mark of the asker that was heard and that another start made.
        mark: Mark,
    },
}

impl VerifiedPeer {
    /// The form in which it travels.
    #[must_use]
    pub fn to_message(&self) -> PeerMessage {
        match self {
            Self::Ordering(message, mark) => PeerMessage::Ordering(message.message().clone(), *mark),
            Self::Checkpoint(signed, mark) => PeerMessage::Checkpoint((**signed).clone(), *mark),
            Self::Transfer(message) => PeerMessage::Transfer((**message).clone()),
            Self::MemoryAsk { nonce } => PeerMessage::MemoryAsk { nonce: *nonce },
            Self::Memory { nonce, mark } => PeerMessage::Memory { nonce: *nonce, mark: *mark },
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
            Self::Ordering(message, _) => Some(message.header()),
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
        PeerMessage::Ordering(message, mark) => {
            let verified = polder_consensus::verify(keyring, constants, seen, message)?;
            Ok(VerifiedPeer::Ordering(Arc::new(verified), mark))
        }
        PeerMessage::Checkpoint(signed, mark) => {
            let verified = signed.verify(keyring).map_err(|_| BadMessage::Signature)?;
            Ok(VerifiedPeer::Checkpoint(verified, mark))
        }
        PeerMessage::Transfer(message) => Ok(VerifiedPeer::Transfer(Arc::new(message))),
        PeerMessage::MemoryAsk { nonce } => Ok(VerifiedPeer::MemoryAsk { nonce }),
        PeerMessage::Memory { nonce, mark } => Ok(VerifiedPeer::Memory { nonce, mark }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r18_a_mark_is_of_the_key_that_made_it_and_of_its_own_rows_and_start() {
        let [mine, other] = [1, 2].map(|seed| SigningKey::from_seed(&[seed; 32]));
        let mark = Mark::new(7, 5, &mine);
        assert!(mark.is_of(&mine) && !mark.is_of(&other));
        assert!(!Mark { rows: 8, ..mark }.is_of(&mine));
        assert!(!Mark { start: 6, ..mark }.is_of(&mine));
        assert!(!Mark::default().is_of(&mine));
    }
}
