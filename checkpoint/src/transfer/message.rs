//! What replicas say to one another about state transfer. Nothing here is signed: what is told is checked against a
//! certificate, or it is only a hint.

use std::fmt;

use polder_executor::Entry;
use polder_types::{Blob, Checkpoint, Constants, Digest, PartitionId, Position, Proof, Seq};
use serde::{Deserialize, Serialize};

/// A message of state transfer, on a lane of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Which certified state above this cut can you serve?
    Ask {
        /// The cut.
        above: Seq,
    },
    /// I can serve this one.
    Offer {
        /// The claimed certificate.
        certificate: Proof<Checkpoint>,
        /// The digests of all partitions, in order. Their Merkle root must be the certified one, so this list needs
        /// no trust.
        #[serde(deserialize_with = "polder_types::at_most::<{ Constants::PARTITIONS_MAX }, _, _>")]
        digests: Vec<Digest>,
    },
    /// I have none above that cut.
    Nothing {
        /// The cut that was asked about.
        above: Seq,
    },
    /// Send entries of a partition as of a cut.
    AskPartition {
        /// The cut.
        cut: Seq,
        /// The partition.
        partition: PartitionId,
        /// Those after this key; none: from the first on.
        after: Option<Blob>,
    },
    /// Entries of a partition as of a cut.
    Chunk {
        /// The cut.
        cut: Seq,
        /// The partition.
        partition: PartitionId,
        /// The key that was asked with.
        after: Option<Blob>,
        /// The entries after that key, in order; at most [`Message::CHUNK_ENTRIES_MAX`].
        #[serde(deserialize_with = "polder_types::at_most::<{ Message::CHUNK_ENTRIES_MAX }, _, _>")]
        entries: Vec<(Blob, Entry)>,
        /// The partition's last delete.
        last_delete: Position,
        /// Whether these are the last ones.
        done: bool,
    },
    /// I do not hold the state of that cut, or no longer.
    Gone {
        /// The cut.
        cut: Seq,
    },
    /// Which digests have the partitions at this cut? Asked by a replica whose own state differs (R35).
    AskDigests {
        /// The cut.
        cut: Seq,
    },
    /// These.
    Digests {
        /// The cut.
        cut: Seq,
        /// In order of partition.
        #[serde(deserialize_with = "polder_types::at_most::<{ Constants::PARTITIONS_MAX }, _, _>")]
        digests: Vec<Digest>,
    },
}

impl Message {
    /// The most entries of a chunk: as many as a chunk of 1 MiB can have, for each counts its overhead.
    pub const CHUNK_ENTRIES_MAX: usize = (1 << 20) / Entry::OVERHEAD_BYTES as usize;

    /// Whether this is a question, for [`super::Serve`]; else it is an answer, for [`super::Fetch`] (or, of
    /// [`Message::Digests`], for the planner).
    #[must_use]
    pub fn is_question(&self) -> bool {
        matches!(self, Self::Ask { .. } | Self::AskPartition { .. } | Self::AskDigests { .. })
    }

    /// About how many bytes it takes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let bytes = match self {
            Self::Offer { certificate, digests } => 32 * digests.len() + 65 * certificate.signers.len(),
            Self::Digests { digests, .. } => 32 * digests.len(),
            Self::Chunk { entries, .. } => entries.iter().map(|(key, entry)| key.len() + entry.value.len() + 32).sum(),
            _ => 0,
        };
        bytes as u64 + 64
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ask { above } => write!(f, "ask above {above}"),
            Self::Offer { certificate, .. } => write!(f, "offer {}", certificate.statement.seq),
            Self::Nothing { above } => write!(f, "nothing above {above}"),
            Self::AskPartition { cut, partition, after: None } => write!(f, "ask {partition} of {cut}"),
            Self::AskPartition { cut, partition, .. } => write!(f, "ask more of {partition} of {cut}"),
            Self::Chunk { cut, partition, entries, done, .. } => {
                write!(f, "{} entries of {partition} of {cut}{}", entries.len(), if *done { ", done" } else { "" })
            }
            Self::Gone { cut } => write!(f, "gone {cut}"),
            Self::AskDigests { cut } => write!(f, "ask digests of {cut}"),
            Self::Digests { cut, .. } => write!(f, "digests of {cut}"),
        }
    }
}
