//! Polder's shared words: what two rooms that may not import each other both need.
//!
//! This crate knows nothing of sockets, disks, clocks, threads or of how anything is ordered or executed. It holds
//! the arithmetic of quorums ([`Quorum`], [`Tally`]), the way in which a claim hardens ([`Signed`] → [`Verified`],
//! [`Tally`] → [`Certificate`], [`Proof`] → [`Certificate`]), requests and replies, the checkpoint statement, the
//! genesis configuration, and the encoding of bytes that travel or rest ([`Wire`]).
#![no_std]
#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod application;
mod batch;
mod blob;
mod bounded;
mod checkpoint;
mod cluster_file;
mod digest;
mod frame;
mod genesis;
mod hex;
mod ids;
mod keys;
mod merkle;
mod quorum;
mod request;
mod statement;
mod tally;
mod wire;

pub use application::Application;
pub use batch::Batch;
pub use blob::Blob;
pub use bounded::at_most;
pub use checkpoint::{Checkpoint, history_after, history_genesis};
pub use cluster_file::{ClusterFile, ReplicaEntry};
pub use digest::{Digest, Domain, Hasher};
pub use frame::{ClientFrame, NodeFrame, NodeStatus};
pub use genesis::{ClientAccess, ClientKey, Constants, Genesis, GenesisError, Member, Role};
pub use hex::Nonce;
pub use ids::{ClientId, ClusterId, Epoch, PartitionId, Position, ReplicaId, Seq, SessionId, Timestamp, View};
pub use keys::{BadSignature, Keyring, PublicKey, Signature, SigningKey};
pub use merkle::{MerklePath, merkle_path, merkle_root};
pub use quorum::{FaultModel, Quorum, QuorumError};
pub use request::{Answer, Call, Failure, Reply, Request, SignedRequest};
pub use statement::{Certificate, Proof, Signed, Statement, Verified, signing_bytes};
pub use tally::{Added, Tally};
pub use wire::{DecodeError, Wire, decode, encode};
