//! Digests with a domain each, so that no two kinds of thing ever share a preimage (R2).

use core::fmt;

use serde::{Deserialize, Serialize};

/// A BLAKE3 digest, 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// All zeros: stands for *nothing*, as the `pending` of a checkpoint without a pending reconfiguration (R29).
    pub const ZERO: Self = Self([0; 32]);

    /// The digest of `bytes` in `domain`.
    #[must_use]
    pub fn of(domain: Domain, bytes: &[u8]) -> Self {
        Hasher::new(domain).bytes(bytes).finish()
    }
}

impl fmt::Display for Digest {
    /// The first four bytes in hexadecimal: enough to tell digests apart in a trace.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a digest is of. The tag is the first byte that is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Domain {
    /// A Merkle leaf.
    Leaf = 0,
    /// A Merkle node.
    Node = 1,
    /// A batch: its time and its requests, signatures included.
    Batch = 2,
    /// One command of a request.
    Command = 3,
    /// A whole request, without its signature.
    Request = 4,
    /// The chain over the ordered batches (R29).
    History = 5,
    /// A genesis configuration.
    Genesis = 6,
    /// The body of a VIEW-CHANGE.
    ViewChange = 7,
    /// The body of a NEW-VIEW.
    NewView = 8,
    /// A key, to find its partition and its place in it.
    Key = 9,
    /// The content of a partition.
    Partition = 10,
    /// A link of the vote log's hash chain (R18).
    Log = 11,
    /// A reply, as compared by clients.
    Reply = 12,
    /// Something checked before, remembered by its bytes (R13).
    Seen = 13,
    /// An entry of a partition: its key, value, positions and version.
    Entry = 14,
    /// The chain over the records that an import has read.
    Import = 15,
    /// How many rows a replica's vote log had, under its secret key: only itself can tell (R18).
    Mark = 16,
    /// A client's token, so that damage to its text is seen.
    Token = 17,
}

/// Hashes several parts in one domain. Variable-length parts go through [`Hasher::sized`].
#[derive(Clone)]
pub struct Hasher(blake3::Hasher);

impl Hasher {
    /// Starts a hash in `domain`.
    #[must_use]
    pub fn new(domain: Domain) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[domain as u8]);
        Self(hasher)
    }

    /// Adds bytes of a length that the domain fixes.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.update(bytes);
        self
    }

    /// Adds bytes of any length, their length first.
    #[must_use]
    pub fn sized(self, bytes: &[u8]) -> Self {
        self.u64(bytes.len() as u64).bytes(bytes)
    }

    /// Adds a number, little-endian.
    #[must_use]
    pub fn u64(self, number: u64) -> Self {
        self.bytes(&number.to_le_bytes())
    }

    /// Adds a digest.
    #[must_use]
    pub fn digest(self, digest: &Digest) -> Self {
        self.bytes(&digest.0)
    }

    /// Adds bytes in place, for loops.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest.
    #[must_use]
    pub fn finish(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}
