//! A replica that says again what it, or others, said long ago: in earlier views, of earlier slots (ByzzFuzz, OOPSLA
//! 2023).

use polder_node::replica::{Event, PeerMessage, VerifiedPeer};
use polder_types::ReplicaId;

use super::{Actor, Plot, Said};
use crate::random::Random;

/// Messages that it remembers.
const OLD_MAX: usize = 256;

/// See the module.
pub(super) struct Replays {
    at_once_max: u64,
    old: Vec<PeerMessage>,
}

impl Replays {
    pub(super) fn new(random: &mut Random) -> Self {
        Self { at_once_max: random.range(1, 6), old: Vec::new() }
    }

    /// Old ones stay for long: a replay across several views is the interesting one.
    fn remember(&mut self, plot: &mut Plot<'_>, message: &PeerMessage) {
        if self.old.len() < OLD_MAX {
            self.old.push(message.clone());
        } else if plot.random.chance(100) {
            let index = plot.random.below(OLD_MAX);
            self.old.get_mut(index).into_iter().for_each(|old| *old = message.clone());
        }
    }
}

impl Actor for Replays {
    fn name(&self) -> &'static str {
        "replays"
    }

    fn hears(&mut self, plot: &mut Plot<'_>, event: &Event) -> (bool, Said) {
        if let Event::Peer { message: message @ (VerifiedPeer::Ordering(..) | VerifiedPeer::Checkpoint(..)), .. } =
            event
            && plot.random.chance(300)
        {
            self.remember(plot, &message.to_message());
        }
        (true, Vec::new())
    }

    fn outgoing(&mut self, plot: &mut Plot<'_>, _to: ReplicaId, message: PeerMessage) -> Vec<PeerMessage> {
        if plot.random.chance(100) {
            self.remember(plot, &message);
        }
        vec![message]
    }

    fn make_up(&mut self, plot: &mut Plot<'_>) -> Said {
        let others: Vec<ReplicaId> = plot.others().collect();
        let count = plot.random.range(0, self.at_once_max);
        let pick = |_| Some((plot.random.pick(&others).copied()?, plot.random.pick(&self.old)?.clone()));
        (0..count).filter_map(pick).collect()
    }
}
