//! **Equal roots.** All correct replicas say the same about the same cut (state root, history, time), a replica never
//! takes back what it said, and no certificate says anything else.
//!
//! Promise 6; R29, R33.

use std::collections::BTreeMap;

use polder_types::{Checkpoint, Digest, ReplicaId, Seq};

use super::{Verdict, violation};

/// The name of this checker.
pub const NAME: &str = "equal-roots";

/// What was said about each cut.
#[derive(Clone, Debug, Default)]
pub struct EqualRoots {
    cuts: BTreeMap<Seq, (Checkpoint, String)>,
}

impl EqualRoots {
    /// A correct replica signed a statement about a cut.
    ///
    /// # Errors
    ///
    /// When another statement about that cut was signed by a correct replica or certified.
    pub fn announced(&mut self, by: ReplicaId, checkpoint: &Checkpoint) -> Verdict {
        self.said(checkpoint, || by.to_string())
    }

    /// A certificate for a cut was seen.
    ///
    /// # Errors
    ///
    /// As [`EqualRoots::announced`].
    pub fn certified(&mut self, checkpoint: &Checkpoint) -> Verdict {
        self.said(checkpoint, || "a certificate".to_string())
    }

    fn said(&mut self, checkpoint: &Checkpoint, by: impl Fn() -> String) -> Verdict {
        match self.cuts.get(&checkpoint.seq) {
            None => {
                self.cuts.insert(checkpoint.seq, (checkpoint.clone(), by()));
                Ok(())
            }
            Some((said, _)) if said == checkpoint => Ok(()),
            Some((said, first)) => violation(
                NAME,
                format!(
                    "{} says root {} history {} time {} of {}, {first} said root {} history {} time {}",
                    by(),
                    checkpoint.root,
                    checkpoint.history,
                    checkpoint.time,
                    checkpoint.seq,
                    said.root,
                    said.history,
                    said.time
                ),
            ),
        }
    }

    /// Whether nothing else was said of a cut than this root.
    #[must_use]
    pub fn agrees(&self, cut: Seq, root: Digest) -> bool {
        self.cuts.get(&cut).is_none_or(|(said, _)| said.root == root)
    }

    /// How many cuts were announced.
    #[must_use]
    pub fn cuts(&self) -> usize {
        self.cuts.len()
    }
}

#[cfg(test)]
mod tests {
    use polder_types::{Epoch, Timestamp};

    use super::*;

    fn checkpoint(root: u8) -> Checkpoint {
        Checkpoint {
            epoch: Epoch(0),
            seq: Seq(4),
            root: Digest([root; 32]),
            history: Digest::ZERO,
            time: Timestamp(1),
            config: Digest::ZERO,
            pending: Digest::ZERO,
        }
    }

    #[test]
    fn two_roots_of_one_cut_are_caught() {
        let mut roots = EqualRoots::default();
        assert_eq!(roots.announced(ReplicaId(0), &checkpoint(1)), Ok(()));
        assert_eq!(roots.announced(ReplicaId(1), &checkpoint(1)), Ok(()));
        assert_eq!(roots.certified(&checkpoint(1)), Ok(()));
        assert!(roots.announced(ReplicaId(2), &checkpoint(2)).is_err());
        assert!(roots.certified(&checkpoint(2)).is_err());
        assert_eq!(roots.cuts(), 1);
    }
}
