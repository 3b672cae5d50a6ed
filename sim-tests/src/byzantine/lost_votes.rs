//! No liar's work but the network's, which the adversary rules until it is healed: for long stretches no vote arrives
//! anywhere, so that leader after leader proposes and nothing is decided (R11: bodies of views that ended go).

use polder_node::replica::Event;

use super::{Actor, Cut, Plot, Said};

/// How long a stretch lasts, in microseconds.
const STRETCH_US: u64 = 4_000_000;

/// When the first begins, in microseconds.
const FIRST_US: u64 = 300_000;

/// See the module.
#[derive(Default)]
pub(super) struct LostVotes {
    until_us: u64,
}

impl Actor for LostVotes {
    fn name(&self) -> &'static str {
        "lost-votes"
    }

    fn hears(&mut self, plot: &mut Plot<'_>, _event: &Event) -> (bool, Said) {
        if plot.now_us >= self.until_us + FIRST_US {
            self.until_us = plot.now_us + STRETCH_US;
            let all = u128::MAX;
            plot.cut(vec![Cut { from: all, to: all, only_votes: true, until_us: self.until_us }]);
        }
        (true, Vec::new())
    }
}
