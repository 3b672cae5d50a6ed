//! What a core is told at its start.

use polder_types::{Constants, Epoch, Keyring, ReplicaId, SigningKey};

/// What a core is told at its start. `genesis.check()` made the keyring; the constants were checked by it.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which replica this is.
    pub me: ReplicaId,
    /// The epoch.
    pub epoch: Epoch,
    /// The replicas' keys and quorums.
    pub keyring: Keyring,
    /// The key that signs this replica's statements.
    pub key: SigningKey,
    /// The constants of the epoch.
    pub constants: Constants,
    /// Fresh slots a leader keeps uncommitted; what more arrives waits and packs. Local; at most `fresh_slots_max`.
    pub pipeline_slots: u64,
    /// The planted bug, if any: only in the simulator's build for them.
    #[cfg(polder_mutations)]
    pub mutation: Option<crate::Mutation>,
}
