//! The same seed twice gives the same trace, whatever thread it runs on.

use polder_sim_tests::run::{Setup, run};
use polder_sim_tests::trace::Trace;

const SEEDS: std::ops::Range<u64> = 1_000..1_100;

fn hashes() -> Vec<(u64, Option<polder_types::Digest>)> {
    SEEDS.map(|seed| (seed, run(seed, &Setup::default(), Trace::default()).trace)).collect()
}

#[test]
fn a_hundred_seeds_give_the_same_traces_twice() {
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(hashes);
        let second = scope.spawn(hashes);
        (first.join().unwrap_or_default(), second.join().unwrap_or_default())
    });
    assert_eq!(first.len(), 100);
    assert_eq!(first, second);
    let distinct: std::collections::BTreeSet<_> = first.iter().map(|(_, hash)| hash.map(|hash| hash.0)).collect();
    assert_eq!(distinct.len(), 100, "different seeds give different traces");
}
