//! Proof that the alarms ring: each planted bug is caught within a bounded number of seeds. Compiled under
//! `--cfg polder_mutations` only, in a target folder of its own.
#![cfg(polder_mutations)]

use polder_consensus::Mutation;
use polder_sim_tests::run::{Setup, run_many};

/// Seeds within which each must be caught.
const SEEDS_MAX: u64 = 400;

/// Bugs that no seed has shown so far, and why: what they break is mended by another way, or takes more coincidences
/// than a bias draws. A seed that catches one is welcome: then it leaves this list.
const NOT_REACHED: [(Mutation, &str); 5] = [
    (Mutation::StatusSilentWhenIdle, "the filler goes to the next cut, whose statements are sent again: all catch up"),
    (Mutation::ScNotDurable, "every VIEW-CHANGE carries the certificate, and the last one is durable"),
    (Mutation::CommitWithoutBody, "needs two liars that lead one after the other and a batch that only they hold"),
    (Mutation::BodiesOfAllViewsKept, "needs more than 5L batches proposed and not one decided"),
    (Mutation::MostCommonInsteadOfHighest, "needs an entry of a lower view at more replicas than a decided one"),
];

#[test]
fn every_planted_bug_is_caught() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut missed = Vec::new();
    for &mutation in Mutation::ALL {
        if NOT_REACHED.iter().any(|(not_reached, _)| *not_reached == mutation) {
            continue;
        }
        let setup = Setup { model: None, mutation: Some(mutation) };
        let report = run_many(0..SEEDS_MAX, &setup, threads, true, &|_, _| {});
        match report.failures.first() {
            Some(failure) => println!("{}: seed {}: {:?}", mutation.name(), failure.seed, failure.violation),
            None => missed.push(mutation.name()),
        }
    }
    assert!(missed.is_empty(), "not caught within {SEEDS_MAX} seeds: {missed:?}");
}

/// The canary: without a bug the very same build finds nothing, so what it finds above is the bug.
#[test]
fn without_a_bug_nothing_is_caught() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let report = run_many(0..50, &Setup::default(), threads, false, &|_, _| {});
    assert!(report.failures.is_empty(), "{:?}", report.failures);
}
