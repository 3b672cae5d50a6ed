//! What one slot orders.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::{Blob, DecodeError, Digest, Domain, SignedRequest, Timestamp, decode, encode};

/// What one slot orders: a time and a list of requests. Its bytes, encoded once, are what travels, what rests in the
/// log and what its digest is over; so the digest, the one in votes, covers `ts`, the requests and their signatures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The leader's wall clock; 0 in a no-op (R27).
    pub ts: Timestamp,
    /// The requests, in order; at most [`Batch::REQUESTS_MAX`].
    #[serde(deserialize_with = "crate::at_most::<{ Batch::REQUESTS_MAX }, _, _>")]
    pub requests: Vec<SignedRequest>,
}

impl Batch {
    /// More requests than fit into the largest batch that a configuration may allow: 2 MiB, each with its signature.
    pub const REQUESTS_MAX: usize = (2 << 20) / 64;

    /// The batch of a slot that a new view fills with nothing (R9).
    #[must_use]
    pub fn no_op() -> Self {
        Self { ts: Timestamp::ZERO, requests: Vec::new() }
    }

    /// The bytes of the batch.
    #[must_use]
    pub fn to_blob(&self) -> Blob {
        Blob::from(encode(self))
    }

    /// The batch of these bytes.
    ///
    /// # Errors
    ///
    /// When the bytes are more than `bytes_max` or no canonical encoding of a batch.
    pub fn from_blob(bytes: &[u8], bytes_max: usize) -> Result<Self, DecodeError> {
        decode(bytes, bytes_max)
    }

    /// The digest of a batch's bytes.
    #[must_use]
    pub fn digest(bytes: &[u8]) -> Digest {
        Digest::of(Domain::Batch, bytes)
    }
}
