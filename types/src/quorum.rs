//! The arithmetic of quorums: the only place that does it (R1).

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::{ReplicaId, View};

/// How many of `n` replicas may lie, in the words of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultModel {
    /// As many as possible may lie: `r = ⌊(n−1)/3⌋`, `n = 3f+1`.
    Byzantine,
    /// None lies: `r = 0`, `n = 2f+1`.
    Crash,
    /// This many may lie; more may crash.
    Hybrid {
        /// `r`.
        byzantine: u8,
    },
}

/// A pair of `n` and `r` that no quorum arithmetic allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuorumError {
    /// `n` is 0 or above [`Quorum::REPLICAS_MAX`].
    Replicas {
        /// The `n` asked for.
        replicas: usize,
    },
    /// Byzantine with fewer than four replicas would tolerate no liar.
    TooFewToLie {
        /// The `n` asked for.
        replicas: usize,
    },
    /// More liars than faults: `r > u`.
    TooManyLiars {
        /// The `n` asked for.
        replicas: usize,
        /// The `r` asked for.
        byzantine: u8,
    },
}

impl fmt::Display for QuorumError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replicas { replicas } => {
                write!(f, "{replicas} replicas: a cluster has 1 to {}", Quorum::REPLICAS_MAX)
            }
            Self::TooFewToLie { replicas } => write!(
                f,
                "{replicas} replicas cannot tolerate a liar: byzantine needs at least 4 (use crash for fewer)"
            ),
            Self::TooManyLiars { replicas, byzantine } => write!(
                f,
                "{replicas} replicas cannot tolerate {byzantine} liars: at least {} are needed",
                3 * usize::from(*byzantine) + 1
            ),
        }
    }
}

impl core::error::Error for QuorumError {}

/// `n` replicas of which `r` may lie; everything else follows (R1).
///
/// `u = ⌊(n−r−1)/2⌋` may fail in any way, `q = n−u` is a quorum, and any two quorums share `r+1` replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quorum {
    n: u8,
    r: u8,
}

impl Quorum {
    /// The most replicas a cluster may have: sets of them are masks of 128 bits.
    pub const REPLICAS_MAX: usize = 100;

    /// The quorums of `replicas` under a fault model.
    ///
    /// # Errors
    ///
    /// When `replicas` is out of range, when `byzantine` would tolerate no liar, or when `hybrid` names more liars
    /// than faults can be tolerated.
    pub fn new(replicas: usize, model: FaultModel) -> Result<Self, QuorumError> {
        if replicas == 0 || replicas > Self::REPLICAS_MAX {
            return Err(QuorumError::Replicas { replicas });
        }
        let n = u8::try_from(replicas).map_err(|_| QuorumError::Replicas { replicas })?;
        let r = match model {
            FaultModel::Byzantine => (n - 1) / 3,
            FaultModel::Crash => 0,
            FaultModel::Hybrid { byzantine } => byzantine,
        };
        if model == FaultModel::Byzantine && r == 0 {
            return Err(QuorumError::TooFewToLie { replicas });
        }
        if r >= n || usize::from(r) > usize::from((n - r - 1) / 2) {
            return Err(QuorumError::TooManyLiars { replicas, byzantine: r });
        }
        Ok(Self { n, r })
    }

    /// `n`: the replicas.
    #[must_use]
    pub fn replicas(self) -> usize {
        usize::from(self.n)
    }

    /// `r`: how many may lie.
    #[must_use]
    pub fn liars(self) -> usize {
        usize::from(self.r)
    }

    /// `u = ⌊(n−r−1)/2⌋`: how many may fail in any way.
    #[must_use]
    pub fn faults(self) -> usize {
        (self.replicas() - self.liars() - 1) / 2
    }

    /// `q = n−u`: a quorum.
    #[must_use]
    pub fn quorum(self) -> usize {
        self.replicas() - self.faults()
    }

    /// `r+1`: among so many is one that does not lie.
    #[must_use]
    pub fn weak(self) -> usize {
        self.liars() + 1
    }

    /// `u+1`: among so many is one that will still be there.
    #[must_use]
    pub fn holders(self) -> usize {
        self.faults() + 1
    }

    /// `n−q`: so many may be busy at once and a quorum is undisturbed.
    #[must_use]
    pub fn writers(self) -> usize {
        self.replicas() - self.quorum()
    }

    /// Whether the prepare phase is needed: with `r = 0` nobody equivocates.
    #[must_use]
    pub fn has_prepare_phase(self) -> bool {
        self.r > 0
    }

    /// The leader of a view: replica `v mod n`.
    #[must_use]
    pub fn leader(self, view: View) -> ReplicaId {
        ReplicaId((view.0 % u64::from(self.n)) as u8)
    }

    /// All replicas.
    pub fn members(self) -> impl Iterator<Item = ReplicaId> {
        (0..self.n).map(ReplicaId)
    }

    /// Whether this is one of the replicas.
    #[must_use]
    pub fn is_member(self, replica: ReplicaId) -> bool {
        replica.0 < self.n
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = Quorum> {
        (1..=Quorum::REPLICAS_MAX)
            .flat_map(|n| (0..n as u8).filter_map(move |r| Quorum::new(n, FaultModel::Hybrid { byzantine: r }).ok()))
    }

    #[test]
    fn r1_quorums_intersect_in_one_that_does_not_lie_for_all_n_up_to_100() {
        let mut checked = 0;
        for quorum in all() {
            let (n, r, u, q) = (quorum.replicas(), quorum.liars(), quorum.faults(), quorum.quorum());
            assert!(2 * q - n > r, "two quorums share r+1 (n={n} r={r})");
            assert!(q - u > r, "a quorum without the faulty still has r+1 (n={n} r={r})");
            assert!(q - r > u, "a quorum without the liars still has u+1 (n={n} r={r})");
            assert_eq!(q, (n + r + 1).div_ceil(2), "q is the smallest such (n={n} r={r})");
            assert_eq!(quorum.writers(), u);
            checked += 1;
        }
        assert!(checked > 1_000);
    }

    #[test]
    fn r1_models_that_would_tolerate_nothing_they_promise_are_refused() {
        for replicas in 1..4 {
            assert_eq!(Quorum::new(replicas, FaultModel::Byzantine), Err(QuorumError::TooFewToLie { replicas }));
        }
        assert!(Quorum::new(4, FaultModel::Hybrid { byzantine: 2 }).is_err());
        assert!(Quorum::new(0, FaultModel::Crash).is_err());
        assert!(Quorum::new(101, FaultModel::Crash).is_err());
        assert!(Quorum::new(255, FaultModel::Hybrid { byzantine: 255 }).is_err());
    }

    #[test]
    fn the_usual_clusters() {
        let four = Quorum::new(4, FaultModel::Byzantine).map(|q| (q.liars(), q.faults(), q.quorum()));
        assert_eq!(four, Ok((1, 1, 3)));
        let three = Quorum::new(3, FaultModel::Crash).map(|q| (q.liars(), q.faults(), q.quorum()));
        assert_eq!(three, Ok((0, 1, 2)));
        let hybrid = Quorum::new(6, FaultModel::Hybrid { byzantine: 1 }).map(|q| (q.faults(), q.quorum()));
        assert_eq!(hybrid, Ok((2, 4)));
    }
}
