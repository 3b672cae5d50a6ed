//! Whole replicas, one of which says what it says a little differently: its messages are taken apart, changed, mixed with
//! older ones, and signed again in its own name. The simulator's checkers judge, after every step: agreement, evidence
//! against none but the liar, bounded tables, the replicas' own invariants, progress after the healing.

use super::{Target, Verdict};
use crate::random::Random;
use crate::swarm::{Model, Options};
use crate::world::World;

/// The targets.
pub const TARGETS: &[Target] = &[Target {
    name: "replica",
    what: "replicas and clients, given changed messages of a liar that signs them: all that the simulator checks",
    iterations: 8,
    run: |random| replica(random),
}];

fn replica(random: &mut Random) -> Verdict {
    let seed = random.bits() >> 16;
    let model = if random.chance(300) { Model::Hybrid } else { Model::Byzantine };
    let mut options = Options::draw(seed, Some(model));
    let quorum = polder_types::Quorum::new(options.replicas, options.fault_model).map_err(|why| why.to_string())?;
    if quorum.liars() == 0 {
        return Ok(());
    }
    options.liars = options.liars.clamp(1, quorum.liars());
    options.lies = vec![crate::byzantine::CHANGED_MESSAGES];
    options.chaos_ms = random.range(500, 2_500);
    options.load.requests = options.load.requests.min(20);
    let mut world = World::new(options).map_err(|why| why.to_string())?;
    world.run().map_err(|violation| violation.to_string())
}
