//! The planner: what is certified, what is written when, what may go (C1 to C4, C10, R33, R35, R42).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{Cluster, INTERVAL, TURN_CUTS, bent, cluster, states};
use polder_checkpoint::planner::{Divergence, Input, Output};
use polder_checkpoint::recovery::Recovered;
use polder_checkpoint::{CertifiedState, Planner, Write};
use polder_executor::Frozen;
use polder_types::{PartitionId, Seq};

/// A planner, and the outputs of one step at a time.
struct Bench<'a> {
    cluster: &'a Cluster,
    planner: Planner,
    states: Vec<Frozen>,
}

impl<'a> Bench<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        let (planner, outputs) = Planner::new(cluster.planner_config(), Recovered::default());
        assert!(outputs.is_empty());
        Self { cluster, planner, states: states(cluster, 1, 40 * INTERVAL) }
    }

    fn step(&mut self, input: Input) -> Vec<Output> {
        let mut outputs = Vec::new();
        self.planner.step(input, &mut outputs);
        self.planner.check();
        outputs
    }

    fn state(&self, cut: u64) -> Frozen {
        self.states[(cut * INTERVAL) as usize].clone()
    }

    /// The own state at the `cut`-th cut.
    fn digested(&mut self, cut: u64) -> Vec<Output> {
        let frozen = self.state(cut);
        let checkpoint = self.cluster.statement(&frozen);
        self.step(Input::Digested { frozen, checkpoint })
    }

    /// A replica's statement about it.
    fn vote(&mut self, by: u8, cut: u64) -> Vec<Output> {
        let statement = self.cluster.statement(&self.state(cut));
        self.step(Input::Vote(self.cluster.vote(by, &statement)))
    }

    fn certified(&mut self, cut: u64) -> Vec<Output> {
        let statement = self.cluster.statement(&self.state(cut));
        self.step(Input::Certified(self.cluster.certify(&statement)))
    }

    fn persisted(&mut self, cut: u64) -> Vec<Output> {
        self.step(Input::Persisted { cut: Seq(cut * INTERVAL) })
    }

    fn images_written(&mut self, cut: u64) -> Vec<Output> {
        self.step(Input::ImagesWritten { cut: Seq(cut * INTERVAL) })
    }

    /// The whole way of a cut, up to the certificate being durable.
    fn pass(&mut self, cut: u64) -> Vec<Output> {
        self.digested(cut);
        self.certified(cut);
        self.persisted(cut)
    }
}

/// The outputs as short lines.
fn lines(outputs: &[Output]) -> Vec<String> {
    outputs.iter().map(ToString::to_string).collect()
}

#[test]
fn c10_while_little_space_is_left_no_image_is_asked_for_and_what_was_due_is_made_up_for() {
    let cluster = cluster();
    let mut bench = Bench::new(&cluster);
    assert!(bench.step(Input::Space { is_low: true }).is_empty());
    let is_image = |output: &&Output| matches!(output, Output::WriteImages { .. });
    let mut truncated = 0;
    for cut in 1..=2 * TURN_CUTS {
        let outputs = bench.pass(cut);
        assert_eq!(outputs.iter().find(is_image).map(ToString::to_string), None, "cut {cut}");
        truncated += outputs.iter().filter(|output| matches!(output, Output::TruncateLog { .. })).count();
    }
    assert!(truncated > 0, "what the log holds is in durable effects: it goes on being truncated");
    let outputs = bench.step(Input::Space { is_low: false });
    let images = outputs.iter().filter(is_image).map(|output| match output {
        Output::WriteImages { cut, .. } => cut.0,
        _ => 0,
    });
    assert_eq!(images.collect::<Vec<_>>(), [2 * TURN_CUTS * INTERVAL]);
    assert!(bench.step(Input::Space { is_low: false }).is_empty(), "once");
}

#[test]
fn c2_q_equal_statements_make_a_cut_stable_and_then_its_certificate_is_written() {
    let cluster = cluster();
    let mut bench = Bench::new(&cluster);
    let root = bench.state(1).root();
    assert_eq!(lines(&bench.digested(1)), [format!("announce checkpoint s4 root {root}")]);
    assert!(bench.vote(0, 1).is_empty());
    assert!(bench.vote(0, 1).is_empty(), "the same signer counts once");
    assert!(bench.vote(3, 1).is_empty());
    assert_eq!(lines(&bench.vote(1, 1)), ["stable s4", "persist s4"]);
    assert!(bench.vote(2, 1).is_empty(), "votes at or below h are dropped");
    assert_eq!(bench.planner.sources().len(), 1);
    assert_eq!(bench.planner.status().frontier, Seq(0), "certified is not durable (C1)");
    bench.persisted(1);
    assert_eq!(bench.planner.status().frontier, Seq(4));
}

#[test]
fn c2_statements_that_differ_are_not_added_up() {
    let cluster = cluster();
    let mut bench = Bench::new(&cluster);
    bench.digested(1);
    let other = cluster.statement(&bent(&bench.state(1), &[0]));
    bench.vote(0, 1);
    assert!(bench.step(Input::Vote(cluster.vote(1, &other))).is_empty());
    assert!(bench.step(Input::Vote(cluster.vote(2, &other))).is_empty());
    // Who says two things is counted for the first alone.
    assert!(bench.vote(1, 1).is_empty());
    assert_eq!(bench.planner.status().conflicts, 1);
    // R35: two to one, and one left: still possible; two to two: no quorum can agree.
    assert_eq!(bench.planner.status().undecidable, None);
    assert!(bench.vote(3, 1).is_empty());
    assert_eq!(bench.planner.status().undecidable, Some(Seq(4)));
}

#[test]
fn r42_votes_outside_the_window_or_beside_the_cuts_are_dropped() {
    let cluster = cluster();
    let mut bench = Bench::new(&cluster);
    bench.pass(2);
    let window = 2 * cluster.constants.window_slots / INTERVAL;
    for cut in [1, 2, 2 + window + 1, 30] {
        for by in 0..4 {
            assert!(bench.vote(by, cut).is_empty(), "cut {cut}");
        }
    }
    // R33: a cut is every I slots and nothing else.
    let mut beside = cluster.statement(&bench.state(3));
    beside.seq = Seq(3 * INTERVAL + 1);
    for by in 0..4 {
        assert!(bench.step(Input::Vote(cluster.vote(by, &beside))).is_empty());
    }
    for by in 0..2 {
        bench.vote(by, 2 + window);
    }
    assert_eq!(lines(&bench.vote(2, 2 + window)), [format!("stable s{}", (2 + window) * INTERVAL)]);
}

#[test]
fn r14_a_certificate_moves_h_at_once_and_the_own_state_is_compared_when_execution_gets_there() {
    let cluster = cluster();
    let mut bench = Bench::new(&cluster);
    assert_eq!(lines(&bench.certified(2)), ["stable s8"]);
    assert_eq!(lines(&bench.certified(1)), Vec::<String>::new(), "an older one is kept, h does not move back");
    assert_eq!(lines(&bench.digested(1)), ["persist s4"], "nobody waits for a statement about a stable cut");
    bench.persisted(1);
    assert_eq!(lines(&bench.digested(2)), ["persist s8"]);
    // A cut that was skipped by h and has no certificate at hand is no use to anybody.
    assert_eq!(lines(&bench.certified(5)), ["stable s20"]);
    assert!(bench.digested(3).is_empty());
}

#[test]
fn c3_one_certificate_is_written_at_a_time_and_the_newest_next() {
    let cluster = cluster();
    let mut bench = Bench::new(&cluster);
    bench.digested(1);
    assert_eq!(lines(&bench.certified(1)), ["stable s4", "persist s4"]);
    for cut in 2..=4 {
        bench.digested(cut);
        assert_eq!(lines(&bench.certified(cut)), [format!("stable s{}", cut * INTERVAL)]);
    }
    assert!(bench.persisted(3).is_empty(), "nobody asked for that one");
    let outputs = lines(&bench.persisted(1));
    assert_eq!(outputs.last().map(String::as_str), Some("persist s16"));
    assert_eq!(bench.planner.sources().len(), 2, "two stable cuts are held, not more (C12)");
}

#[test]
fn c3_c4_images_of_a_turn_are_asked_for_when_its_certificate_is_durable_and_not_before() {
    let cluster = cluster();
    let mut bench = Bench::new(&cluster);
    assert!(bench.pass(1).iter().all(|output| !matches!(output, Output::WriteImages { .. })), "no turn");
    bench.digested(TURN_CUTS);
    assert_eq!(lines(&bench.certified(TURN_CUTS)), ["stable s8", "persist s8"]);
    assert!(lines(&bench.persisted(TURN_CUTS)).contains(&"write 6 images of s8".to_string()));
    assert_eq!(bench.planner.status().oldest_image, None);
    // Effects go only when the images are declared.
    let outputs = bench.images_written(TURN_CUTS);
    assert_eq!(bench.planner.status().oldest_image, Some(Seq(8)));
    let deletes_effects = |outputs: &[Output]| {
        outputs.iter().any(|output| match output {
            Output::Truncate { writes } => writes
                .iter()
                .any(|write| matches!(write, Write::DeleteRange { family: polder_checkpoint::Family::Effects, .. })),
            _ => false,
        })
    };
    assert!(deletes_effects(&outputs));
    assert!(!deletes_effects(&bench.pass(TURN_CUTS + 1)));
}

#[test]
fn c4_a_turn_that_comes_while_images_are_being_written_waits_and_is_made_up_for() {
    let cluster = cluster();
    let mut bench = Bench::new(&cluster);
    bench.pass(TURN_CUTS);
    let outputs = bench.pass(2 * TURN_CUTS);
    assert!(outputs.iter().all(|output| !matches!(output, Output::WriteImages { .. })), "one job at a time");
    bench.pass(2 * TURN_CUTS + 1);
    // The missed turn takes the newest durable cut.
    let outputs = lines(&bench.images_written(TURN_CUTS));
    assert!(outputs.contains(&"write 6 images of s20".to_string()), "{outputs:?}");
    assert!(bench.images_written(4).is_empty(), "nobody asked for that one");
    assert_eq!(bench.planner.status().writing, Some(Seq(20)));
    let outputs = bench.images_written(5);
    assert!(outputs.iter().all(|output| !matches!(output, Output::WriteImages { .. })));
}

#[test]
fn c10_the_log_is_kept_above_the_oldest_state_that_is_served_and_twice_the_pipeline_below() {
    let cluster = cluster();
    let mut bench = Bench::new(&cluster);
    assert!(lines(&bench.pass(1)).contains(&"truncate log below s3".to_string()));
    // The pin: cut 1 is still served.
    assert!(lines(&bench.pass(2)).iter().all(|line| !line.starts_with("truncate log")));
    assert!(lines(&bench.pass(3)).contains(&"truncate log below s7".to_string()));
    // Certified is not enough: nothing goes before the certificate is durable.
    bench.digested(4);
    assert_eq!(lines(&bench.certified(4)), ["stable s16", "persist s16"]);
    assert_eq!(bench.planner.status().log_from, Seq(7));
}

#[test]
fn r35_a_state_that_is_not_the_certified_one_is_reported_with_its_partitions_and_goes_nowhere() {
    let cluster = cluster();
    let mut bench = Bench::new(&cluster);
    bench.pass(1);
    let good = bench.state(2);
    let frozen = bent(&good, &[1, 4]);
    let checkpoint = cluster.statement(&frozen);
    bench.step(Input::Digested { frozen: frozen.clone(), checkpoint: checkpoint.clone() });
    let outputs = bench.certified(2);
    assert_eq!(lines(&outputs), ["stable s8", "diverged at s8"], "ordering goes on");
    let Output::Diverged(divergence) = &outputs[1] else { panic!() };
    assert_eq!((&divergence.own, divergence.certified.statement()), (&checkpoint, &cluster.statement(&good)));
    assert_eq!(divergence.partitions, None);
    // Lists that are not under the certified root name nobody.
    let digests = |frozen: &Frozen| Input::Digests { cut: Seq(8), digests: frozen.digests() };
    assert!(bench.step(digests(&frozen)).is_empty());
    assert!(bench.step(Input::Digests { cut: Seq(8), digests: vec![] }).is_empty());
    assert!(bench.step(Input::Digests { cut: Seq(4), digests: good.digests() }).is_empty());
    let outputs = bench.step(digests(&good));
    let Some(Output::Diverged(divergence)) = outputs.first() else { panic!() };
    assert_eq!(divergence.partitions, Some(vec![PartitionId(1), PartitionId(4)]));
    let words = divergence.to_string();
    assert!(words.contains("differing partitions: p1, p4"), "{words}");
    assert!(words.contains(&checkpoint.root.to_string()) && words.contains(&good.root().to_string()), "{words}");
    // From now on no statements, no certificates written, no images.
    assert!(bench.digested(3).is_empty());
    assert_eq!(lines(&bench.certified(3)), ["stable s12"]);
    assert_eq!(bench.planner.status().diverged, Some(Seq(8)));
    assert_eq!(bench.planner.divergence().map(Divergence::cut), Some(Seq(8)));
}

#[test]
fn r35_the_same_state_under_another_history_is_a_divergence_too() {
    let cluster = cluster();
    let mut bench = Bench::new(&cluster);
    let frozen = bench.state(1);
    let mut checkpoint = cluster.statement(&frozen);
    checkpoint.history = frozen.root();
    bench.step(Input::Digested { frozen: frozen.clone(), checkpoint });
    assert_eq!(lines(&bench.certified(1)), ["stable s4", "diverged at s4"]);
    let outputs = bench.step(Input::Digests { cut: Seq(4), digests: frozen.digests() });
    let Some(Output::Diverged(divergence)) = outputs.first() else { panic!() };
    assert!(divergence.to_string().contains("no partition differs"));
}

#[test]
fn c3_an_installed_base_is_the_frontier_and_images_start_from_it() {
    let cluster = cluster();
    let mut bench = Bench::new(&cluster);
    bench.digested(TURN_CUTS);
    bench.certified(TURN_CUTS);
    // While a base is being installed no images are begun beside it.
    assert!(bench.step(Input::Installing).is_empty());
    let outputs = bench.persisted(TURN_CUTS);
    assert!(outputs.iter().all(|output| !matches!(output, Output::WriteImages { .. })));
    let base = cluster.certified(&bench.state(9));
    let outputs = lines(&bench.step(Input::Installed(base)));
    assert_eq!(outputs.first().map(String::as_str), Some("stable s36"));
    assert!(outputs.contains(&"truncate log below s35".to_string()), "{outputs:?}");
    let status = bench.planner.status();
    assert_eq!((status.frontier, status.oldest_image), (Seq(36), Some(Seq(36))));
    assert_eq!(bench.planner.sources().last().map(CertifiedState::cut), Some(Seq(36)));
    // Late answers about the life before change nothing.
    assert!(bench.persisted(TURN_CUTS).is_empty());
    assert!(bench.images_written(TURN_CUTS).is_empty());
    // The next turn goes its usual way.
    assert!(lines(&bench.pass(10)).contains(&"write 6 images of s40".to_string()));
}

#[test]
fn c3_a_restart_makes_up_for_images_that_a_crash_prevented() {
    let cluster = cluster();
    let state = cluster.certified(&states(&cluster, 1, 5 * INTERVAL)[5 * INTERVAL as usize]);
    let recovered = Recovered { state: Some(state), ..Recovered::default() };
    let (planner, outputs) = Planner::new(cluster.planner_config(), recovered);
    planner.check();
    assert!(lines(&outputs).contains(&"write 6 images of s20".to_string()));
    assert_eq!(planner.sources().len(), 1, "a restarted replica serves what it recovered");
}

#[test]
fn the_status_is_one_short_line() {
    let cluster = cluster();
    let mut bench = Bench::new(&cluster);
    bench.pass(TURN_CUTS);
    assert_eq!(bench.planner.status().to_string(), "stable=8 certified=8 frontier=8 writing=8");
}

#[test]
fn tables_stay_bounded_whatever_arrives() {
    let cluster = cluster();
    let mut bench = Bench::new(&cluster);
    let mut numbers = common::Numbers(5);
    for _ in 0..3_000 {
        let cut = 1 + numbers.below(39);
        match numbers.below(6) {
            0 => drop(bench.digested(cut)),
            1 => drop(bench.certified(cut)),
            2 => drop(bench.persisted(cut)),
            3 => drop(bench.images_written(cut)),
            _ => drop(bench.vote(numbers.below(4) as u8, cut)),
        }
    }
    assert_eq!(bench.planner.status().diverged, None);
}
