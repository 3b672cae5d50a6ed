//! A replica whose bytes are broken: flipped, cut off, put twice. What still decodes arrives, and is judged as any other.

use polder_node::replica::PeerMessage;
use polder_types::{ReplicaId, decode, encode};

use super::{Actor, Plot};
use crate::random::Random;

/// Beyond this a message is left alone: what is broken in it is all too often the body.
const BYTES_MAX: usize = 64 << 10;

/// See the module.
pub(super) struct Garbage {
    per_mille: u64,
}

impl Garbage {
    pub(super) fn new(random: &mut Random) -> Self {
        Self { per_mille: random.range(10, 150) }
    }
}

impl Actor for Garbage {
    fn name(&self) -> &'static str {
        "garbage"
    }

    fn outgoing(&mut self, plot: &mut Plot<'_>, _to: ReplicaId, message: PeerMessage) -> Vec<PeerMessage> {
        if !plot.random.chance(self.per_mille) {
            return vec![message];
        }
        let mut bytes = encode(&message);
        if bytes.is_empty() || bytes.len() > BYTES_MAX {
            return vec![message];
        }
        for _ in 0..plot.random.range(1, 3) {
            let at = plot.random.below(bytes.len());
            match plot.random.range(0, 5) {
                0 => bytes.truncate(at),
                1 => bytes.extend_from_within(at..),
                2 => bytes.insert(at, 0),
                // Mostly a small number that has become another one.
                _ => bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << plot.random.range(0, 7)),
            }
        }
        decode::<PeerMessage>(&bytes, BYTES_MAX * 2).into_iter().collect()
    }
}
