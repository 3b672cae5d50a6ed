//! A donor of state that sends wrong chunks, or trickles.

use polder_checkpoint::transfer;
use polder_node::replica::PeerMessage;
use polder_types::{Blob, ReplicaId};

use super::{Actor, Plot};

/// See the module.
pub(super) struct WrongChunks;

impl Actor for WrongChunks {
    fn name(&self) -> &'static str {
        "wrong-chunks"
    }

    fn outgoing(&mut self, plot: &mut Plot<'_>, _to: ReplicaId, message: PeerMessage) -> Vec<PeerMessage> {
        let PeerMessage::Transfer(transfer) = message else { return vec![message] };
        let lie = match (plot.random.range(0, 3), transfer) {
            (0, _) => return Vec::new(),
            (1, transfer::Message::Chunk { cut, partition, after, mut entries, last_delete, done }) => {
                if entries.is_empty() {
                    return vec![PeerMessage::Transfer(transfer::Message::Gone { cut })];
                }
                let index = plot.random.below(entries.len());
                if let Some((_, entry)) = entries.get_mut(index) {
                    entry.value = Blob::copy(b"wrong");
                }
                transfer::Message::Chunk { cut, partition, after, entries, last_delete, done }
            }
            (2, transfer::Message::Chunk { cut, partition, after, entries, last_delete, .. }) => {
                transfer::Message::Chunk { cut, partition, after, entries, last_delete, done: true }
            }
            (_, other) => other,
        };
        vec![PeerMessage::Transfer(lie)]
    }
}
