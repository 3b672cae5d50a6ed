//! Each kind of lie alone: it breaks nothing, and who forges is not believed.

use polder_sim_tests::byzantine;
use polder_sim_tests::swarm::{Model, Options};
use polder_sim_tests::world::World;

/// Seeds a lie.
const SEEDS: u64 = 3;

/// A run in which all liars that there may be tell this lie all the time.
fn run(lie: &'static str, seed: u64) -> World {
    let mut options = Options::draw(seed, Some(Model::Byzantine));
    options.lies = vec![lie];
    options.liars = (options.replicas - 1) / 3;
    options.chaos_ms = 3_000;
    let mut world = World::new(options).expect("a configuration that can be");
    let verdict = world.run();
    assert_eq!(verdict, Ok(()), "{lie}, seed {seed}: {}", world.options);
    world
}

#[test]
fn every_lie_alone_breaks_nothing() {
    for lie in byzantine::names() {
        let mut forged = 0;
        for seed in 0..SEEDS {
            forged += run(lie, seed).counts.forged;
        }
        // Whoever forges is never believed; whoever does not never tries.
        let forges = ["forged-votes", "stitched-certificates", "garbage"].contains(&lie);
        assert!(!forges || forged > 0, "{lie} forged nothing");
    }
}
