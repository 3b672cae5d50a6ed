//! Proof that the alarms ring: each planted bug is caught within a bounded number of seeds. Compiled under
//! `--cfg polder_mutations` only, in a target folder of its own.
#![cfg(polder_mutations)]

use polder_consensus::Mutation;
use polder_sim_tests::run::{Setup, run_many};

/// Seeds within which each must be caught.
const SEEDS_MAX: u64 = 400;

/// Planted, but not caught by so few seeds yet: this list may only shrink. The rule tests of the core catch them.
const NOT_CAUGHT_YET: [&str; 10] = [
    "vote-after-view-change",
    "most-common-instead-of-highest",
    "timers-restart",
    "status-silent-when-idle",
    "suspect-sent-once",
    "sc-not-durable",
    "commit-without-body",
    "gap-counts-as-lag",
    "bodies-of-all-views-kept",
    "new-view-judged-by-held",
];

#[test]
fn every_planted_bug_is_caught() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut missed = Vec::new();
    for &mutation in Mutation::ALL.iter().filter(|mutation| !NOT_CAUGHT_YET.contains(&mutation.name())) {
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
