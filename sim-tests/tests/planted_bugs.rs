//! Proof that the alarms ring: each planted bug is caught within a bounded number of seeds. Compiled under
//! `--cfg polder_mutations` only, in a target folder of its own.
#![cfg(polder_mutations)]

use std::path::Path;

use polder_consensus::Mutation;
use polder_sim_tests::run::{Setup, run_many};
use polder_sim_tests::script;
use polder_sim_tests::swarm::Model;

/// Seeds within which each must be caught.
const SEEDS_MAX: u64 = 2_000;

/// Bugs of a replica's memory (R18), and the script that each changes: nothing but a folder set back to a copy shows them.
const BY_SCRIPT: [(Mutation, &str); 1] = [(Mutation::WipedVotesAtOnce, "rolled_back_disk")];

#[test]
fn bugs_of_memory_change_what_their_scripts_print() {
    for (mutation, name) in BY_SCRIPT {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("testdata/{name}.txt"));
        let text = std::fs::read_to_string(&path).expect("a script");
        let blocks = script::parse(&text);
        let printed = script::run(&blocks).map(|ran| script::print(&ran));
        assert_eq!(printed.as_deref(), Ok(text.as_str()), "{name} without a bug");
        let planted = script::run_planted(&blocks, mutation).map(|ran| script::print(&ran));
        assert_ne!(planted, printed, "{} changes nothing in {name}", mutation.name());
    }
}

/// `POLDER_PLANT=name` plants only that one.
#[test]
fn every_planted_bug_is_caught() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let only = std::env::var("POLDER_PLANT").ok();
    let mut missed = Vec::new();
    let by_seeds = |mutation: &&Mutation| BY_SCRIPT.iter().all(|(other, _)| other != *mutation);
    let chosen = |mutation: &&Mutation| only.as_ref().is_none_or(|only| only == mutation.name());
    for &mutation in Mutation::ALL.iter().filter(by_seeds).filter(chosen) {
        let setup = Setup { mutation: Some(mutation), ..Setup::default() };
        let report = run_many(0..SEEDS_MAX, &setup, threads, true, &|_, _| {});
        let (name, seeds, core_s) = (mutation.name(), report.seeds, report.core_s);
        match report.failures.first() {
            Some(found) => println!("{name}: {seeds} seeds, {core_s:.1} s: seed {}: {:?}", found.seed, found.violation),
            None => missed.push(name),
        }
    }
    assert!(missed.is_empty(), "not caught within {SEEDS_MAX} seeds: {missed:?}");
}

/// A canary that must fail: it is caught at once, by a checker, not by luck.
#[test]
fn the_canary_is_caught_in_every_cluster_that_two_agree_in() {
    let setup = Setup { model: Some(Model::Byzantine), mutation: Some(Mutation::Canary), ..Setup::default() };
    let report = run_many(0..8, &setup, 1, false, &|_, _| {});
    assert_eq!(report.failures.len(), 8);
}

/// The other canary: without a bug the very same build finds nothing, so what it finds above is the bug.
#[test]
fn without_a_bug_nothing_is_caught() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let report = run_many(0..50, &Setup::default(), threads, false, &|_, _| {});
    assert!(report.failures.is_empty(), "{:?}", report.failures);
}
