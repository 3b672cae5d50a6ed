//! The full stack, simulated: real nodes, clients and transport, over a network that is turmoil's. Each scenario is a
//! function from a world to what it must come to; every test plays one with several seeds, all time in it is simulated,
//! and what must hold at the end of each is in one place, `judge`. See README.md, "The full stack".
#![allow(clippy::indexing_slicing)]

mod crashes;
mod judge;
mod load;
mod machine;
mod network;
mod noise;
mod splits;
mod strangers;
mod world;

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use polder_sim_tests::random::{Purpose, Random};
use polder_types::Digest;

use network::Network;
use world::{Options, Outcome, World};

/// What goes wrong.
type Scenario = fn(&mut World) -> Outcome;

/// All scenarios, by name.
const SCENARIOS: &[(&str, Scenario)] = &[
    ("split_and_heal", splits::split_and_heal),
    ("one_way_split", splits::one_way_split),
    ("hold_and_release", splits::hold_and_release),
    ("client_cut_from_the_leader", splits::client_cut_from_the_leader),
    ("crash_and_bounce", crashes::crash_and_bounce),
    ("all_down_and_up", crashes::all_down_and_up),
    ("leader_paused", crashes::leader_paused),
    ("clocks", crashes::clocks),
    ("short_of_space", crashes::short_of_space),
    ("reconnect_storm", crashes::reconnect_storm),
    ("loss", noise::loss),
    ("copies", noise::copies),
    ("damage", noise::damage),
    ("narrow", noise::narrow),
    ("flood", strangers::flood),
    ("stranger", strangers::stranger),
    ("mismatch", strangers::mismatch),
];

/// The seeds of a test, unless `POLDER_TURMOIL_SEEDS` names others (`17..18`).
const SEEDS: Range<u64> = 0..3;

fn seeds() -> Range<u64> {
    let Ok(named) = std::env::var("POLDER_TURMOIL_SEEDS") else { return SEEDS };
    let range = named.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    range.expect("POLDER_TURMOIL_SEEDS is a range of seeds: 17..18")
}

/// Plays a scenario with one seed; says what it came to, and the hash over all packets and events.
fn play(name: &str, seed: u64) -> (Outcome, (Option<Digest>, u64)) {
    let (_, scenario) = SCENARIOS.iter().find(|(known, _)| *known == name).expect("a scenario of this name");
    let mut random = Random::new(seed, Purpose::Swarm);
    let options = Options::drawn(&mut random, name == "flood");
    let mut world = World::new(seed, options, std::env::var_os("POLDER_TURMOIL_TRACE").is_some());
    let _watch = Watch::over(format!("{name}, seed {seed}"), &world.network);
    let outcome = world.run_until_answered(5_000, 1, "at the start");
    let outcome = outcome.and_then(|()| scenario(&mut world)).and_then(|()| judge::judge(&mut world));
    // What was seen first says most.
    let outcome = outcome.map_err(|why| match world.book.complaints().first() {
        Some(first) if *first != why => format!("{first}; and then: {why}"),
        _ => why,
    });
    (outcome, world.network.hash())
}

/// Ends the process, in words, when a run stands still: a task that never waits lets no simulated time pass, and no
/// bound of a scenario is ever reached. Dropped with the run.
struct Watch {
    _over: mpsc::Sender<()>,
}

impl Watch {
    /// No simulated millisecond takes a hundredth of it.
    const PATIENCE: Duration = Duration::from_secs(60);

    fn over(run: String, network: &Arc<Network>) -> Self {
        let (over, ended) = mpsc::channel();
        let network = Arc::clone(network);
        std::thread::spawn(move || {
            let mut before = None;
            while ended.recv_timeout(Self::PATIENCE) == Err(RecvTimeoutError::Timeout) {
                let now_ms = network.now_ms();
                if before == Some(now_ms) {
                    eprintln!("{run}: something spins at {now_ms} ms and lets no time pass");
                    std::process::abort();
                }
                before = Some(now_ms);
            }
        });
        Self { _over: over }
    }
}

/// Plays a scenario with all seeds.
#[track_caller]
fn holds(name: &str) {
    for seed in seeds() {
        let (outcome, _) = play(name, seed);
        if let Err(why) = outcome {
            let again = format!("POLDER_TURMOIL_SEEDS={seed}..{} POLDER_TURMOIL_TRACE=1", seed + 1);
            let test = format!("cargo test --release -p polder-sim-tests --test turmoil {name} -- --nocapture");
            unreachable!("{name}, seed {seed}: {why}\n  again: {again} {test}");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_packets_and_events() {
    for (name, seed) in [("split_and_heal", 7), ("crash_and_bounce", 8), ("damage", 9)] {
        let one = std::thread::spawn(move || play(name, seed));
        let other = play(name, seed);
        let one = one.join().expect("the other run ends");
        assert_eq!(one, other, "{name}, seed {seed}");
        assert!(other.1.1 > 1_000, "{name}: only {} datagrams", other.1.1);
    }
    assert_ne!(play("stranger", 1).1, play("stranger", 2).1, "another seed is another run");
}

#[test]
fn split_and_heal() {
    holds("split_and_heal");
}

#[test]
fn one_way_split() {
    holds("one_way_split");
}

#[test]
fn hold_and_release() {
    holds("hold_and_release");
}

#[test]
fn client_cut_from_the_leader() {
    holds("client_cut_from_the_leader");
}

#[test]
fn crash_and_bounce() {
    holds("crash_and_bounce");
}

#[test]
fn all_down_and_up() {
    holds("all_down_and_up");
}

#[test]
fn leader_paused() {
    holds("leader_paused");
}

#[test]
fn clocks() {
    holds("clocks");
}

#[test]
fn short_of_space() {
    holds("short_of_space");
}

#[test]
fn reconnect_storm() {
    holds("reconnect_storm");
}

#[test]
fn loss() {
    holds("loss");
}

#[test]
fn copies() {
    holds("copies");
}

#[test]
fn damage() {
    holds("damage");
}

#[test]
fn narrow() {
    holds("narrow");
}

#[test]
fn flood() {
    holds("flood");
}

#[test]
fn stranger() {
    holds("stranger");
}

#[test]
fn mismatch() {
    holds("mismatch");
}
