//! A replica that says different things about one cut, and speaks of cuts that are not there yet.

use polder_node::replica::PeerMessage;
use polder_types::{Digest, ReplicaId, Seq, Timestamp};

use super::{Actor, Plot};

/// See the module.
pub(super) struct FalseCheckpoints;

impl Actor for FalseCheckpoints {
    fn name(&self) -> &'static str {
        "false-checkpoints"
    }

    fn outgoing(&mut self, plot: &mut Plot<'_>, _to: ReplicaId, message: PeerMessage) -> Vec<PeerMessage> {
        let PeerMessage::Checkpoint(signed, mark) = &message else { return vec![message] };
        if signed.by != plot.me {
            return vec![message];
        }
        let mut statement = signed.statement.clone();
        match plot.random.range(0, 4) {
            0 => return Vec::new(),
            1 => statement.root = Digest(plot.random.bytes()),
            2 => statement.history = Digest(plot.random.bytes()),
            3 => statement.time = Timestamp(statement.time.0 + 1),
            _ => statement.seq = Seq(statement.seq.0 + plot.random.range(1, 64)),
        }
        let lie = PeerMessage::Checkpoint(plot.sign(statement), *mark);
        if plot.random.chance(500) { vec![lie, message] } else { vec![lie] }
    }
}
