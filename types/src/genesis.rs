//! The configuration that a cluster starts from: the same on all replicas, under the root, hashed into the cluster id.

use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    BadSignature, ClientId, ClusterId, Digest, Domain, FaultModel, Keyring, Nonce, PublicKey, Quorum, QuorumError,
    encode,
};

/// The constants of an epoch (the table of docs/protocol.md), the same on all replicas. Times in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Constants {
    /// `L`: slots between the watermarks.
    pub window_slots: u64,
    /// `I`: slots between cuts; at most `L/2`.
    pub interval_slots: u64,
    /// The most bytes of a signed request.
    pub request_bytes_max: u32,
    /// The most bytes of a batch; above `request_bytes_max`.
    pub batch_bytes_max: u32,
    /// `M_adm`: admitted, unproposed requests of one client.
    pub admitted_per_client_max: u32,
    /// `M_adm`: admitted, unproposed requests in all.
    pub admitted_max: u32,
    /// Admitted bytes of one client.
    pub admitted_bytes_per_client_max: u64,
    /// Admitted bytes in all.
    pub admitted_bytes_max: u64,
    /// `T₀`: the first time-out.
    pub timeout_first_ms: u64,
    /// `T_max`: the last time-out.
    pub timeout_max_ms: u64,
    /// `F`: fresh slots accepted beyond contiguous committed.
    pub fresh_slots_max: u64,
    /// `τ`: the period of STATUS.
    pub status_period_ms: u64,
    /// `T_idle`: a tail that stands this long is filled.
    pub idle_ms: u64,
    /// `δ`: how far ahead of the own clock a batch's time may be.
    pub clock_ahead_max_ms: u64,
    /// `W`: commands in flight in a session.
    pub session_window: u64,
    /// `B`: bytes of any reply.
    pub reply_bytes_max: u32,
    /// Sessions of one client key.
    pub sessions_per_client_max: u32,
    /// Sessions in all.
    pub sessions_max: u32,
    /// A session unused for so long, by the session clock, expires.
    pub session_expiry_ms: u64,
    /// Cached reply bytes of one session.
    pub reply_cache_per_session_bytes_max: u64,
    /// Cached reply bytes in all. For each 512 of them one command may be executed and not acknowledged (R25).
    pub reply_cache_bytes_max: u64,
    /// `K`: cuts for which an OPEN stays fresh.
    pub open_fresh_cuts: u64,
    /// Key partitions of the state.
    pub partitions: u16,
    /// Session partitions of the state.
    pub session_partitions: u16,
    /// Bytes of all key partitions together, beyond which only shrinking commands run.
    pub state_bytes_max: u64,
    /// `M`: a turn, at which images are written, is every so many cuts (C2).
    pub turn_cuts: u64,
}

impl Default for Constants {
    fn default() -> Self {
        Self {
            window_slots: 256,
            interval_slots: 128,
            request_bytes_max: 5 << 18,
            batch_bytes_max: 3 << 19,
            admitted_per_client_max: 64,
            admitted_max: 4_096,
            admitted_bytes_per_client_max: 8 << 20,
            admitted_bytes_max: 64 << 20,
            timeout_first_ms: 500,
            timeout_max_ms: 10_000,
            fresh_slots_max: 32,
            status_period_ms: 100,
            idle_ms: 1_000,
            clock_ahead_max_ms: 500,
            session_window: 1_024,
            reply_bytes_max: 5 << 18,
            sessions_per_client_max: 64,
            sessions_max: 65_536,
            session_expiry_ms: 3_600_000,
            reply_cache_per_session_bytes_max: 16 << 20,
            reply_cache_bytes_max: 1 << 30,
            open_fresh_cuts: 8,
            partitions: 64,
            session_partitions: 8,
            state_bytes_max: 16 << 30,
            turn_cuts: 8,
        }
    }
}

impl Constants {
    /// The most bytes that the entries of a NEW-VIEW may take (R13): a frame between replicas has room for them.
    pub const NEW_VIEW_BYTES_MAX: u64 = 4 << 20;

    /// The largest window that a configuration may have: with one replica, by the bound on a NEW-VIEW.
    pub const WINDOW_SLOTS_MAX: usize = (Self::NEW_VIEW_BYTES_MAX / (88 + 65)) as usize;

    /// The most partitions that a configuration may have, of all kinds.
    pub const PARTITIONS_MAX: usize = 4_096 + 256 + 1;

    /// The most bytes that the entries of a NEW-VIEW take: it may enclose the VIEW-CHANGEs of all `n`, each with a
    /// certificate of `q` signatures for each of `L` slots.
    #[must_use]
    pub fn new_view_bytes(&self, quorum: Quorum) -> u64 {
        let (n, q) = (quorum.replicas() as u64, quorum.quorum() as u64);
        self.window_slots.saturating_mul(88 + 65 * q).saturating_mul(n)
    }

    /// `k_max = ⌈log2(T_max/T₀)⌉`: the most doublings of the time-out (R7).
    #[must_use]
    pub fn doublings_max(&self) -> u32 {
        let ratio = self.timeout_max_ms.div_ceil(self.timeout_first_ms.max(1)).max(1);
        u64::BITS - (ratio - 1).leading_zeros()
    }

    /// Whether a slot is a cut: every `I` slots (R33).
    #[must_use]
    pub fn is_cut(&self, slot: crate::Seq) -> bool {
        slot.0 > 0 && slot.0.is_multiple_of(self.interval_slots)
    }

    /// The partitions of the state in all: keys, sessions, and the system partition.
    #[must_use]
    pub fn partitions_in_all(&self) -> u16 {
        self.partitions.saturating_add(self.session_partitions).saturating_add(1)
    }

    fn check(&self, quorum: Quorum) -> Result<(), GenesisError> {
        let rules: [(bool, &'static str); 14] = [
            (self.window_slots >= 2 && self.window_slots <= 1 << 16, "window_slots must be from 2 to 65536"),
            (self.interval_slots >= 1, "interval_slots must be at least 1"),
            (
                self.interval_slots.saturating_mul(2) <= self.window_slots,
                "interval_slots must be at most half of window_slots",
            ),
            // R13: a NEW-VIEW must fit into a frame.
            (
                self.new_view_bytes(quorum) <= Self::NEW_VIEW_BYTES_MAX,
                "window_slots is too large for so many replicas: window_slots·(88+65·q)·n must be at most 4 MiB",
            ),
            (self.request_bytes_max >= 1_024, "request_bytes_max must be at least 1024"),
            (
                self.batch_bytes_max >= self.request_bytes_max.saturating_add(1_024) && self.batch_bytes_max <= 2 << 20,
                "batch_bytes_max must be at least 1024 above request_bytes_max, and at most 2 MiB",
            ),
            (
                self.fresh_slots_max >= 1 && self.fresh_slots_max <= self.window_slots,
                "fresh_slots_max must be from 1 to window_slots",
            ),
            (
                self.timeout_first_ms >= 1 && self.timeout_first_ms <= self.timeout_max_ms,
                "timeout_first_ms must be from 1 to timeout_max_ms",
            ),
            (
                self.status_period_ms >= 1 && self.status_period_ms <= self.timeout_first_ms,
                "status_period_ms must be from 1 to timeout_first_ms",
            ),
            (self.session_window >= 1 && self.session_window <= 1 << 16, "session_window must be from 1 to 65536"),
            (self.partitions >= 1 && self.partitions <= 4_096, "partitions must be from 1 to 4096"),
            (
                self.session_partitions >= 1 && self.session_partitions <= 256,
                "session_partitions must be from 1 to 256",
            ),
            (self.turn_cuts >= 1, "turn_cuts must be at least 1"),
            (
                self.admitted_per_client_max >= 1
                    && self.admitted_max >= 1
                    && self.admitted_bytes_per_client_max >= self.request_bytes_max.into()
                    && self.admitted_bytes_max >= self.request_bytes_max.into()
                    && self.sessions_per_client_max >= 1
                    && self.sessions_max >= 1
                    && self.open_fresh_cuts >= 1,
                "every limit on admission and sessions must admit at least one request and one session",
            ),
        ];
        rules.iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, why)| Err(GenesisError::Constants(why)))
    }
}

/// What a client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Commands that declare no write.
    Read,
    /// All commands.
    Write,
    /// All commands, and what changes the cluster.
    Admin,
}

/// Who may connect as a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientAccess {
    /// Whether any key may connect, as [`Role::Write`].
    pub open: bool,
    /// The keys that may connect, with their roles.
    pub keys: Vec<ClientKey>,
}

/// A client's key and what it may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientKey {
    /// The key.
    pub key: PublicKey,
    /// What it may do.
    pub role: Role,
}

impl ClientAccess {
    /// The role of a client; none when it may not connect.
    #[must_use]
    pub fn role(&self, client: ClientId) -> Option<Role> {
        let listed = self.keys.iter().find(|listed| listed.key == client.0).map(|listed| listed.role);
        listed.or(self.open.then_some(Role::Write))
    }
}

/// A genesis configuration that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GenesisError {
    /// The number of replicas does not fit the fault model.
    Quorum(QuorumError),
    /// A constant is out of its bounds.
    Constants(&'static str),
    /// A replica's key is no Ed25519 key, or one is used twice.
    Key,
}

impl fmt::Display for GenesisError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quorum(error) => error.fmt(f),
            Self::Constants(why) => f.write_str(why),
            Self::Key => f.write_str("a replica's key is not an Ed25519 public key, or a key is used twice"),
        }
    }
}

impl core::error::Error for GenesisError {}

impl From<QuorumError> for GenesisError {
    fn from(error: QuorumError) -> Self {
        Self::Quorum(error)
    }
}

impl From<BadSignature> for GenesisError {
    fn from(_: BadSignature) -> Self {
        Self::Key
    }
}

/// A replica, as the configuration names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The key by which the transport knows it, for life.
    pub identity: PublicKey,
    /// The key that signs its statements, in this epoch (R40).
    pub signing: PublicKey,
}

/// What a cluster starts from. Addresses are not in it: a replica is its key, wherever it listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Genesis {
    /// Random bits, so that two clusters of the same members differ.
    pub nonce: Nonce,
    /// The replicas, in order of [`crate::ReplicaId`].
    pub replicas: Vec<Member>,
    /// How many of them may lie.
    pub fault_model: FaultModel,
    /// The constants.
    pub constants: Constants,
    /// The clients.
    pub clients: ClientAccess,
}

impl Genesis {
    /// Checks the whole and returns the keyring of epoch 0.
    ///
    /// # Errors
    ///
    /// [`GenesisError`], in words, when anything in it cannot be.
    pub fn check(&self) -> Result<Keyring, GenesisError> {
        let quorum = Quorum::new(self.replicas.len(), self.fault_model)?;
        self.constants.check(quorum)?;
        let mut sorted: Vec<PublicKey> =
            self.replicas.iter().flat_map(|member| [member.identity, member.signing]).collect();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.len() != 2 * self.replicas.len() {
            return Err(GenesisError::Key);
        }
        let signing: Vec<PublicKey> = self.replicas.iter().map(|member| member.signing).collect();
        Ok(Keyring::new(self.cluster(), quorum, &signing)?)
    }

    /// The cluster id: the hash of this configuration (R2).
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        ClusterId(self.digest())
    }

    /// The digest of this configuration, as checkpoint statements carry it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(Domain::Genesis, &encode(self))
    }
}
