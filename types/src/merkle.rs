//! A Merkle tree over a fixed list of digests: the state root over the partitions (R29).
//!
//! Leaves and nodes have distinct tags (R2). An odd node is carried up as it is; since the number of leaves is fixed
//! by the configuration, no two lists of the same length share a root.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::{Digest, Domain, Hasher};

/// The root over `leaves`; the root of no leaves is zero.
#[must_use]
pub fn merkle_root(leaves: &[Digest]) -> Digest {
    let mut level: Vec<Digest> = leaves.iter().map(leaf).collect();
    while level.len() > 1 {
        level = parents(&level);
    }
    level.first().copied().unwrap_or(Digest::ZERO)
}

/// The path from leaf `index` to the root over `leaves`; none when there is no such leaf.
#[must_use]
pub fn merkle_path(leaves: &[Digest], index: usize) -> Option<MerklePath> {
    leaves.get(index)?;
    let mut level: Vec<Digest> = leaves.iter().map(leaf).collect();
    let mut at = index;
    let mut siblings = Vec::new();
    while level.len() > 1 {
        siblings.push(level.get(at ^ 1).copied());
        level = parents(&level);
        at /= 2;
    }
    Some(MerklePath { index: index as u32, siblings })
}

/// The way from one leaf to the root: what an inclusion proof consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MerklePath {
    /// The leaf's index.
    pub index: u32,
    /// The sibling on each level, from the leaf up; none where a node has no sibling.
    pub siblings: Vec<Option<Digest>>,
}

impl MerklePath {
    /// The root that this path leads to from `digest`.
    #[must_use]
    pub fn root(&self, digest: &Digest) -> Digest {
        let mut at = self.index;
        self.siblings.iter().fold(leaf(digest), |below, sibling| {
            let is_right = at % 2 == 1;
            at /= 2;
            match sibling {
                Some(sibling) if is_right => node(sibling, &below),
                Some(sibling) => node(&below, sibling),
                None => below,
            }
        })
    }
}

fn leaf(digest: &Digest) -> Digest {
    Hasher::new(Domain::Leaf).digest(digest).finish()
}

fn node(left: &Digest, right: &Digest) -> Digest {
    Hasher::new(Domain::Node).digest(left).digest(right).finish()
}

fn parents(level: &[Digest]) -> Vec<Digest> {
    let pairs = level.chunks(2);
    pairs
        .filter_map(|pair| match pair {
            [left, right] => Some(node(left, right)),
            [odd] => Some(*odd),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(count: u8) -> Vec<Digest> {
        (0..count).map(|index| Digest([index; 32])).collect()
    }

    #[test]
    fn every_leaf_of_every_length_has_a_path_to_the_root_and_no_other_leaf_has() {
        for count in 1..70 {
            let leaves = leaves(count);
            let root = merkle_root(&leaves);
            for (index, digest) in leaves.iter().enumerate() {
                let path = merkle_path(&leaves, index);
                assert_eq!(path.as_ref().map(|path| path.root(digest)), Some(root));
                assert_ne!(path.map(|path| path.root(&Digest([255; 32]))), Some(root));
            }
            assert_eq!(merkle_path(&leaves, leaves.len()), None);
        }
    }

    #[test]
    fn r2_a_node_is_no_leaf() {
        let leaves = leaves(2);
        let inner = merkle_root(&leaves);
        assert_ne!(merkle_root(&[inner]), inner);
    }
}
