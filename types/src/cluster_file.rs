//! What `cluster.toml` says: the genesis configuration, and where the replicas listen.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::{ClientAccess, Constants, FaultModel, Genesis, Member, Nonce, PublicKey};

/// What `cluster.toml` says. It is public. Whoever reads it parses it with a TOML library; this crate does no I/O.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterFile {
    /// Random bits, so that two clusters of the same members differ.
    pub nonce: Nonce,
    /// How many replicas may lie.
    pub fault_model: FaultModel,
    /// The constants of epoch 0.
    #[serde(default)]
    pub constants: Constants,
    /// Who may connect as a client.
    #[serde(default)]
    pub clients: ClientAccess,
    /// The replicas, in order of their ids.
    pub replicas: Vec<ReplicaEntry>,
}

/// One replica in `cluster.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicaEntry {
    /// Where it listens: `host:port`. Not part of the genesis: a replica is its key, wherever it listens.
    pub address: String,
    /// The key by which the transport knows it.
    pub identity: PublicKey,
    /// The key that signs its statements.
    pub signing: PublicKey,
}

impl ClusterFile {
    /// The genesis configuration in it; [`Genesis::check`] says whether it can be.
    #[must_use]
    pub fn genesis(&self) -> Genesis {
        let members = self.replicas.iter().map(|entry| Member { identity: entry.identity, signing: entry.signing });
        Genesis {
            nonce: self.nonce,
            replicas: members.collect(),
            fault_model: self.fault_model,
            constants: self.constants.clone(),
            clients: self.clients.clone(),
        }
    }
}
