//! State transfer between one that fetches and three that serve, over a network that a test makes hostile (C12).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use common::{Cluster, INTERVAL, Numbers, bent, cluster, cluster_named, states};
use polder_checkpoint::CertifiedState;
use polder_checkpoint::transfer::{Blame, Fetch, FetchConfig, Input, Message, Output, Serve, ServeConfig};
use polder_executor::Frozen;
use polder_types::{Blob, PartitionId, ReplicaId, Seq};

const ME: ReplicaId = ReplicaId(3);
const TICK_MS: u64 = 10;
const DEADLINE_MS: u64 = 400;

/// What a source does with an answer before it leaves; none: it stays silent.
type Lie = Box<dyn FnMut(u64, Message) -> Option<Message>>;

struct Network<'a> {
    cluster: &'a Cluster,
    sources: BTreeMap<ReplicaId, (Serve, Vec<CertifiedState>)>,
    lies: BTreeMap<ReplicaId, Lie>,
    numbers: Numbers,
    /// Messages lost, of a thousand.
    loss: u64,
    now_ms: u64,
    fetch: Fetch,
    in_flight: VecDeque<(u64, Wire)>,
    blamed: Vec<(ReplicaId, Blame)>,
    asked: BTreeMap<ReplicaId, u64>,
    asked_partitions: Vec<(Seq, PartitionId)>,
    restored: Option<CertifiedState>,
    words: Option<String>,
}

enum Wire {
    Question(ReplicaId, Message),
    Answer(ReplicaId, Message),
}

impl<'a> Network<'a> {
    fn new(cluster: &'a Cluster, held: &[Frozen], target: &Frozen, own: Option<Frozen>) -> Self {
        Self::with(cluster, held, target, own, |_| {})
    }

    fn with(
        cluster: &'a Cluster,
        held: &[Frozen],
        target: &Frozen,
        own: Option<Frozen>,
        change: impl FnOnce(&mut FetchConfig),
    ) -> Self {
        let states: Vec<CertifiedState> = held.iter().map(|frozen| cluster.certified(frozen)).collect();
        let serve = ServeConfig { chunk_bytes: 500, ..ServeConfig::default() };
        let sources = (0..3).map(|id| (ReplicaId(id), (Serve::new(serve), states.clone()))).collect();
        let partitions = cluster.constants.partitions_in_all();
        let mut config = FetchConfig::new(ME, Arc::clone(&cluster.keyring), partitions, 1 << 20);
        config.deadline_ms = DEADLINE_MS;
        config.bytes_per_deadline = 400;
        change(&mut config);
        let mut out = Vec::new();
        let target = cluster.certify(&cluster.statement(target));
        let fetch = Fetch::start(config, 0, target, own, &mut out);
        let mut network = Self {
            cluster,
            sources,
            lies: BTreeMap::new(),
            numbers: Numbers(1),
            loss: 0,
            now_ms: 0,
            fetch,
            in_flight: VecDeque::new(),
            blamed: Vec::new(),
            asked: BTreeMap::new(),
            asked_partitions: Vec::new(),
            restored: None,
            words: None,
        };
        network.take(out);
        network
    }

    fn lie(&mut self, replica: u8, lie: impl FnMut(u64, Message) -> Option<Message> + 'static) {
        self.lies.insert(ReplicaId(replica), Box::new(lie));
    }

    fn hold(&mut self, replica: u8, frozen: &[Frozen]) {
        let states = frozen.iter().map(|frozen| self.cluster.certified(frozen)).collect();
        self.sources.get_mut(&ReplicaId(replica)).unwrap().1 = states;
    }

    fn take(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Send { to, message } => {
                    if let Message::AskPartition { cut, partition, .. } = message {
                        *self.asked.entry(to).or_default() += 1;
                        self.asked_partitions.push((cut, partition));
                    }
                    self.post(Wire::Question(to, message));
                }
                Output::Blame { replica, why } => self.blamed.push((replica, why)),
                Output::Restored(state) => {
                    assert!(self.restored.replace(state).is_none(), "it ends once");
                }
                Output::Unusable { why, .. } => self.words = Some(why),
            }
        }
    }

    fn post(&mut self, wire: Wire) {
        if self.numbers.below(1_000) >= self.loss {
            let at = self.now_ms + 1 + self.numbers.below(15);
            self.in_flight.push_back((at, wire));
        }
    }

    fn tick(&mut self) {
        self.now_ms += TICK_MS;
        let (due, later): (Vec<_>, Vec<_>) = self.in_flight.drain(..).partition(|(at, _)| *at <= self.now_ms);
        self.in_flight.extend(later);
        for (_, wire) in due {
            match wire {
                Wire::Question(to, message) => self.serve(to, Input::Message { from: ME, message }),
                Wire::Answer(from, message) => self.give(Input::Message { from, message }),
            }
        }
        (0..3).for_each(|id| self.serve(ReplicaId(id), Input::Tick));
        self.give(Input::Tick);
    }

    fn give(&mut self, input: Input) {
        let mut out = Vec::new();
        self.fetch.step(self.now_ms, input, &mut out);
        self.take(out);
    }

    fn serve(&mut self, id: ReplicaId, input: Input) {
        let (serve, states) = self.sources.get_mut(&id).unwrap();
        let mut answers = Vec::new();
        serve.step(self.now_ms, input, states, &mut answers);
        for (_, answer) in answers {
            let answer = match self.lies.get_mut(&id) {
                Some(lie) => lie(self.now_ms, answer),
                None => Some(answer),
            };
            if let Some(answer) = answer {
                self.post(Wire::Answer(id, answer));
            }
        }
    }

    /// Runs until the state is there; returns how long it took.
    fn run(&mut self, at_most_ms: u64) -> u64 {
        while self.restored.is_none() && self.words.is_none() {
            assert!(self.now_ms < at_most_ms, "not done after {at_most_ms} ms: {:?}", self.fetch.progress());
            self.tick();
        }
        self.now_ms
    }

    fn is_restored_to(&self, frozen: &Frozen) {
        let state = self.restored.as_ref().unwrap();
        assert_eq!((state.cut(), state.frozen().root()), (frozen.seq(), frozen.root()));
    }
}

fn at(cluster: &Cluster, cut: u64) -> Frozen {
    states(cluster, 1, cut * INTERVAL).pop().unwrap()
}

#[test]
fn c12_a_wiped_replica_fetches_everything_from_all_peers_at_once() {
    let cluster = cluster();
    let state = at(&cluster, 10);
    let mut network = Network::new(&cluster, std::slice::from_ref(&state), &state, None);
    network.run(2_000);
    network.is_restored_to(&state);
    assert_eq!(network.blamed, vec![]);
    assert_eq!(network.asked.len(), 3, "every peer had a share");
}

#[test]
fn c12_what_does_not_differ_from_the_own_state_is_not_fetched() {
    let cluster = cluster();
    let (own, state) = (at(&cluster, 9), at(&cluster, 10));
    let differing = own.digests().iter().zip(state.digests()).filter(|(own, other)| *own != other).count();
    assert!(differing < 6);
    let mut network = Network::new(&cluster, std::slice::from_ref(&state), &state, Some(own));
    network.lie(0, |_, message| match message {
        Message::Chunk { partition, .. } if partition.0 >= 3 => panic!("{partition} is the same"),
        message => Some(message),
    });
    network.run(2_000);
    network.is_restored_to(&state);
    // The own state is the certified one: nothing at all is asked for.
    let mut network = Network::new(&cluster, std::slice::from_ref(&state), &state, Some(state.clone()));
    network.run(500);
    assert_eq!(network.asked, BTreeMap::new());
}

#[test]
fn c12_a_source_that_lies_in_a_chunk_is_named_dropped_and_replaced() {
    let cluster = cluster();
    let state = at(&cluster, 10);
    let lies: Vec<fn(Message) -> Message> = vec![
        |message| bend(message, |entries, _, _| entries[0].1.value = common::blob("lie")),
        |message| bend(message, |entries, _, _| entries[0].1.version += 1),
        |message| bend(message, |entries, _, _| entries.truncate(entries.len() - 1)),
        |message| bend(message, |entries, _, _| entries.reverse()),
        |message| bend(message, |entries, _, _| entries.insert(0, entries[0].clone())),
        |message| bend(message, |_, last_delete, _| last_delete.index += 1),
        |message| bend(message, |_, _, done| *done = true),
        |message| bend(message, |entries, _, done| (entries.clear(), *done = false).0),
    ];
    for (index, lie) in lies.into_iter().enumerate() {
        let mut network = Network::new(&cluster, std::slice::from_ref(&state), &state, None);
        network.lie(1, move |_, message| Some(lie(message)));
        network.run(3_000);
        network.is_restored_to(&state);
        assert_eq!(network.blamed.len(), 1, "lie {index}: {:?}", network.blamed);
        assert!(matches!(network.blamed[0], (ReplicaId(1), Blame::Partition(_))), "lie {index}");
    }
}

/// Changes a chunk that has something in it.
fn bend(
    mut message: Message,
    change: impl FnOnce(&mut Vec<(Blob, polder_executor::Entry)>, &mut polder_types::Position, &mut bool),
) -> Message {
    if let Message::Chunk { entries, last_delete, done, .. } = &mut message
        && entries.len() > 1
    {
        change(entries, last_delete, done);
    }
    message
}

#[test]
fn c12_an_offer_that_no_quorum_certified_is_blamed_and_no_manifest_is_trusted() {
    let cluster = cluster();
    let (state, newer) = (at(&cluster, 10), at(&cluster, 11));
    let foreign = cluster_named(2);
    let forged = foreign.certified(&bent(&newer, &[0]));
    let offers: Vec<Message> = vec![
        Message::Offer { certificate: forged.certificate().proof().clone(), digests: forged.digests() },
        Message::Offer {
            certificate: cluster.certified(&state).certificate().proof().clone(),
            digests: bent(&state, &[2]).digests(),
        },
        Message::Offer { certificate: cluster.certified(&state).certificate().proof().clone(), digests: vec![] },
    ];
    for offer in offers {
        let mut network = Network::new(&cluster, std::slice::from_ref(&state), &state, None);
        network.lie(0, move |_, message| match message {
            Message::Offer { .. } => Some(offer.clone()),
            message => Some(message),
        });
        network.run(2_000);
        network.is_restored_to(&state);
        assert!(network.blamed.iter().all(|blamed| *blamed == (ReplicaId(0), Blame::Offer)), "{:?}", network.blamed);
        assert!(!network.asked.contains_key(&ReplicaId(0)) || network.blamed.is_empty(), "it is not asked again");
    }
}

#[test]
fn c12_digests_that_are_not_under_the_certified_root_are_refused_before_anything_is_fetched() {
    let cluster = cluster();
    let state = cluster.certified(&at(&cluster, 10));
    let config = FetchConfig::new(ME, Arc::clone(&cluster.keyring), 6, 1 << 20);
    let mut out = Vec::new();
    let mut fetch = Fetch::start(config, 0, state.certificate().clone(), None, &mut out);
    let mut offer = |from, digests| {
        out.clear();
        let certificate = state.certificate().proof().clone();
        let message = Message::Offer { certificate, digests };
        fetch.step(1, Input::Message { from: ReplicaId(from), message }, &mut out);
        std::mem::take(&mut out)
    };
    let wrong = bent(state.frozen(), &[2]).digests();
    let outputs = offer(0, wrong);
    assert!(matches!(outputs[..], [Output::Blame { replica: ReplicaId(0), why: Blame::Offer }]), "{outputs:?}");
    assert!(offer(0, state.digests()).is_empty(), "it is not heard any more");
    assert!(offer(1, state.digests()).is_empty(), "q−1 others must answer first");
    assert!(offer(2, state.digests()).len() >= 3);
}

#[test]
fn c12_a_lost_chunk_is_asked_for_again_and_nobody_is_late() {
    let cluster = cluster();
    let state = at(&cluster, 10);
    let mut network = Network::new(&cluster, std::slice::from_ref(&state), &state, None);
    for id in 0..3 {
        let mut count = 0;
        network.lie(id, move |_, message| {
            count += u64::from(matches!(message, Message::Chunk { .. }));
            (count % 3 != 1 || !matches!(message, Message::Chunk { .. })).then_some(message)
        });
    }
    network.run(5_000);
    network.is_restored_to(&state);
    assert_eq!(network.blamed, vec![]);
}

#[test]
fn c12_a_source_that_falls_silent_is_replaced_within_one_deadline() {
    let cluster = cluster();
    let state = at(&cluster, 10);
    let mut network = Network::new(&cluster, std::slice::from_ref(&state), &state, None);
    network.lie(2, |_, message| (!matches!(message, Message::Chunk { .. })).then_some(message));
    let ms = network.run(3 * DEADLINE_MS);
    network.is_restored_to(&state);
    assert!(ms < 2 * DEADLINE_MS + 200, "{ms} ms");
    assert!(network.blamed.iter().all(|blamed| matches!(blamed, (ReplicaId(2), Blame::Late(_)))));
    assert!(!network.blamed.is_empty());
}

#[test]
fn c12_a_source_that_trickles_is_replaced() {
    let cluster = cluster();
    let state = at(&cluster, 10);
    let mut network = Network::with(&cluster, std::slice::from_ref(&state), &state, None, |config| {
        config.bytes_per_deadline = 600;
        config.at_once_per_peer = 1;
    });
    // One entry at a time, each just within the deadline.
    let mut last_ms = 0;
    network.lie(0, move |now_ms, message| match message {
        Message::Chunk { cut, partition, after, mut entries, last_delete, done } => {
            if now_ms < last_ms + DEADLINE_MS * 3 / 4 {
                return None;
            }
            last_ms = now_ms;
            let is_more = entries.len() > 1;
            entries.truncate(1);
            Some(Message::Chunk { cut, partition, after, entries, last_delete, done: done && !is_more })
        }
        message => Some(message),
    });
    network.run(8 * DEADLINE_MS);
    network.is_restored_to(&state);
    assert!(network.blamed.iter().any(|blamed| matches!(blamed, (ReplicaId(0), Blame::Late(_)))));
}

#[test]
fn c12_when_the_cut_is_gone_a_newer_one_is_taken_and_what_did_not_change_is_kept() {
    let cluster = cluster();
    let (first, second) = (at(&cluster, 9), at(&cluster, 10));
    let mut network = Network::new(&cluster, std::slice::from_ref(&first), &first, None);
    // Chunks of the hot partitions are held back until the sources have moved on.
    for id in 0..3 {
        network.lie(id, move |_, message| match message {
            Message::Chunk { cut: Seq(36), partition, .. } if partition.0 < 3 => None,
            message => Some(message),
        });
    }
    while network.fetch.progress().partitions_done < 3 {
        network.tick();
    }
    (0..3).for_each(|id| network.hold(id, std::slice::from_ref(&second)));
    network.asked.clear();
    network.run(6_000);
    network.is_restored_to(&second);
    assert!(network.fetch.progress().retargets >= 1);
    let asked: Vec<PartitionId> =
        network.asked_partitions.iter().filter(|(cut, _)| *cut == Seq(40)).map(|(_, partition)| *partition).collect();
    assert!(!asked.is_empty() && asked.iter().all(|partition| partition.0 < 3), "{asked:?}: the others are the same");
}

#[test]
fn c12_when_the_cut_is_gone_everywhere_but_at_a_dead_source_a_newer_one_is_taken() {
    let cluster = cluster();
    let (first, second) = (at(&cluster, 9), at(&cluster, 10));
    let mut network = Network::new(&cluster, std::slice::from_ref(&first), &first, None);
    for id in 0..3 {
        network.lie(id, move |_, message| (!matches!(message, Message::Chunk { cut: Seq(36), .. })).then_some(message));
    }
    (0..20).for_each(|_| network.tick());
    network.lie(2, |_, _| None);
    (0..2).for_each(|id| network.hold(id, std::slice::from_ref(&second)));
    network.run(10 * DEADLINE_MS);
    network.is_restored_to(&second);
    assert!(network.fetch.progress().retargets >= 1);
}

/// Two that fetch the same state ask each other first, and neither has it: that must not hide the one that has it and was
/// late before.
#[test]
fn c12_the_only_source_is_asked_though_it_was_late_once_and_another_says_at_once_that_it_has_nothing() {
    let cluster = cluster();
    let (own, state) = (at(&cluster, 9), at(&cluster, 10));
    let held = std::slice::from_ref(&state);
    let mut network = Network::with(&cluster, held, &state, Some(own), |config| config.at_once_per_peer = 8);
    network.hold(0, &[]);
    network.lie(1, |_, _| None);
    network.lie(2, |_, message| (!matches!(message, Message::Chunk { .. })).then_some(message));
    while !network.blamed.iter().any(|blamed| matches!(blamed, (ReplicaId(2), Blame::Late(_)))) {
        assert!(network.now_ms < 10 * DEADLINE_MS);
        network.tick();
    }
    network.lie(2, |_, message| Some(message));
    let late_ms = network.now_ms;
    network.run(late_ms + 10 * DEADLINE_MS);
    network.is_restored_to(&state);
}

/// Each cut is gone before a dead source is given up: it must not be given a part of every one.
#[test]
fn c12_it_ends_with_a_dead_source_though_cuts_pass_faster_than_its_deadline() {
    let cluster = cluster();
    let cuts: Vec<Frozen> = (1..=100).map(|cut| at(&cluster, cut)).collect();
    let mut network = Network::with(&cluster, &cuts[..2], &cuts[1], None, |config| config.at_once_per_peer = 1);
    network.lie(0, |_, _| None);
    network.lie(1, |_, _| None);
    // The two newest are held, and a new one comes every half deadline.
    let mut held = 0;
    while network.restored.is_none() {
        assert!(network.now_ms < 15_000, "not done: {:?}", network.fetch.progress());
        let newest = (network.now_ms / (DEADLINE_MS / 2)) as usize;
        if newest > held {
            held = newest;
            (0..3).for_each(|id| network.hold(id, &cuts[newest..newest + 2]));
        }
        network.tick();
    }
    network.is_restored_to(&cuts[network.fetch.cut().0 as usize / INTERVAL as usize - 1]);
}

#[test]
fn c12_an_idle_cluster_serves_a_laggard_and_no_leader_matters() {
    // FIELD: traffic stops at a checkpoint, and late replicas can never get one to fetch. The sources here do nothing
    // but hold their last stable cut, for an hour.
    let cluster = cluster();
    let state = at(&cluster, 10);
    let mut network = Network::new(&cluster, &[], &state, None);
    for _ in 0..360_000 / 10 {
        network.tick();
    }
    assert!(network.restored.is_none());
    (0..3).for_each(|id| network.hold(id, std::slice::from_ref(&state)));
    let started_ms = network.now_ms;
    network.run(started_ms + 1_000);
    network.is_restored_to(&state);
}

#[test]
fn c12_the_newest_cut_that_one_who_does_not_lie_can_serve_is_taken() {
    let cluster = cluster();
    let (old, new) = (at(&cluster, 9), at(&cluster, 10));
    // Two of three hold the newer one.
    let mut network = Network::new(&cluster, &[old.clone(), new.clone()], &old, None);
    network.hold(0, std::slice::from_ref(&old));
    network.run(2_000);
    assert!([old.root(), new.root()].contains(&network.restored.as_ref().unwrap().frozen().root()));
    // A single one that is ahead of all is not made the only source.
    let mut network = Network::new(&cluster, std::slice::from_ref(&old), &old, None);
    network.hold(0, &[old.clone(), new.clone()]);
    network.lie(0, |_, message| (!matches!(message, Message::Chunk { .. })).then_some(message));
    network.run(3_000);
    network.is_restored_to(&old);
}

#[test]
fn c12_partitions_that_do_not_fit_together_are_fetched_one_after_the_other() {
    let cluster = cluster();
    let state = at(&cluster, 10);
    let largest = state.partitions().iter().map(|partition| partition.bytes()).max().unwrap();
    let mut network = Network::with(&cluster, std::slice::from_ref(&state), &state, None, |config| {
        config.unchecked_bytes_max = largest;
    });
    network.run(5_000);
    network.is_restored_to(&state);
    assert_eq!(network.blamed, vec![], "nobody is blamed for what others sent");
    // Who sends more than could ever be is.
    let mut network = Network::with(&cluster, std::slice::from_ref(&state), &state, None, |config| {
        config.unchecked_bytes_max = 2 * largest;
        config.alone_bytes_max = 2 * largest;
    });
    network.lie(0, endless());
    network.run(60_000);
    network.is_restored_to(&state);
    assert!(network.blamed.iter().any(|blamed| matches!(blamed, (ReplicaId(0), Blame::Partition(_)))));
}

/// Whoever writes chooses keys: all that the state may hold may be in one partition, and it is transferred all the same.
#[test]
fn c12_one_partition_may_hold_what_the_whole_state_may_hold() {
    let cluster = cluster();
    let state = at(&cluster, 10);
    let largest = state.partitions().iter().map(|partition| partition.bytes()).max().unwrap();
    let mut network = Network::with(&cluster, std::slice::from_ref(&state), &state, None, |config| {
        config.unchecked_bytes_max = largest / 3;
        config.alone_bytes_max = largest;
    });
    network.run(60_000);
    network.is_restored_to(&state);
    assert_eq!(network.blamed, vec![], "nobody is blamed for what a client has written");
    // What one alone says is so large is not held.
    let mut network = Network::with(&cluster, std::slice::from_ref(&state), &state, None, |config| {
        config.unchecked_bytes_max = 2 * largest;
        config.alone_bytes_max = u64::MAX;
    });
    network.lie(0, endless());
    network.run(60_000);
    network.is_restored_to(&state);
    assert!(network.blamed.iter().all(|(replica, _)| *replica == ReplicaId(0)) && !network.blamed.is_empty());
}

/// A source that sends more and more of every partition.
fn endless() -> impl FnMut(u64, Message) -> Option<Message> {
    let mut count = 0;
    move |_, message| match message {
        Message::Chunk { cut, partition, after, last_delete, .. } => {
            count += 1;
            let key = Blob::copy(format!("{:08}", count).as_bytes());
            let key = if after.as_ref().is_none_or(|after| *after < key) { key } else { Blob::copy(&[0xff; 9]) };
            let entries = vec![(key, common::entry(1, &"junk".repeat(50)))];
            Some(Message::Chunk { cut, partition, after, entries, last_delete, done: false })
        }
        message => Some(message),
    }
}

#[test]
fn c12_over_a_lossy_network_with_a_liar_it_ends_and_only_the_liar_is_blamed_for_lying() {
    let cluster = cluster();
    for seed in 0..150 {
        let mut numbers = Numbers(seed);
        let cut = 5 + numbers.below(6);
        let own = (numbers.below(2) == 0).then(|| at(&cluster, 1 + numbers.below(4)));
        let (target, state) = (at(&cluster, 5), at(&cluster, cut));
        let mut network = Network::new(&cluster, std::slice::from_ref(&state), &target, own);
        network.numbers = Numbers(seed + 1_000);
        network.loss = numbers.below(300);
        let liar = numbers.below(3) as u8;
        let mut lies = Numbers(seed + 2_000);
        network.lie(liar, move |_, message| match lies.below(4) {
            0 => None,
            1 => Some(bend(message, |entries, _, _| entries[1].1.version += 7)),
            2 => Some(Message::Gone { cut: Seq(cut * INTERVAL) }),
            _ => Some(message),
        });
        network.run(120_000);
        network.is_restored_to(&state);
        for (replica, why) in &network.blamed {
            assert!(*replica == ReplicaId(liar) || matches!(why, Blame::Late(_)), "seed {seed}: {replica} {why:?}");
        }
    }
}

#[test]
fn serving_is_capped_for_each_peer_and_questions_that_wait_are_bounded() {
    let cluster = cluster();
    let sources = [cluster.certified(&at(&cluster, 10))];
    let config = ServeConfig { chunk_bytes: 200, bytes_per_second: 2_000, waiting_max: 4 };
    let mut serve = Serve::new(config);
    let mut served = BTreeMap::<ReplicaId, u64>::new();
    let mut out = Vec::new();
    for now_ms in (0..10_000).step_by(10) {
        for partition in 0..6 {
            // One peer floods, another asks now and then.
            let message = Message::AskPartition { cut: Seq(40), partition: PartitionId(partition), after: None };
            serve.step(now_ms, Input::Message { from: ReplicaId(0), message }, &sources, &mut out);
        }
        if now_ms % 1_000 == 0 {
            let message = Message::Ask { above: Seq(0) };
            serve.step(now_ms, Input::Message { from: ReplicaId(1), message }, &sources, &mut out);
        }
        serve.step(now_ms, Input::Tick, &sources, &mut out);
        for (to, message) in out.drain(..) {
            *served.entry(to).or_default() += message.bytes();
        }
    }
    let flooded = served[&ReplicaId(0)];
    assert!((15_000..25_000).contains(&flooded), "{flooded} bytes in ten seconds");
    assert!(served[&ReplicaId(1)] > 10 * 64, "the other is not starved");
}

#[test]
fn questions_about_what_is_not_there_are_answered_or_ignored_and_never_more() {
    let cluster = cluster();
    let sources = [cluster.certified(&at(&cluster, 10))];
    let mut serve = Serve::new(ServeConfig::default());
    let mut out = Vec::new();
    let mut ask = |message: Message| {
        serve.step(0, Input::Message { from: ReplicaId(0), message }, &sources, &mut out);
        std::mem::take(&mut out).pop().map(|(_, answer)| answer.to_string())
    };
    assert_eq!(ask(Message::Ask { above: Seq(40) }), Some("nothing above s40".to_string()));
    assert_eq!(ask(Message::Ask { above: Seq(39) }), Some("offer s40".to_string()));
    assert_eq!(ask(Message::AskDigests { cut: Seq(40) }), Some("digests of s40".to_string()));
    assert_eq!(ask(Message::AskDigests { cut: Seq(36) }), Some("gone s36".to_string()));
    let partition = |cut, id| Message::AskPartition { cut: Seq(cut), partition: PartitionId(id), after: None };
    assert_eq!(ask(partition(36, 0)), Some("gone s36".to_string()));
    assert_eq!(ask(partition(40, 6)), None);
    assert_eq!(ask(partition(40, u16::MAX)), None);
    assert_eq!(ask(Message::Gone { cut: Seq(40) }), None, "no question");
}

#[test]
fn a_certified_state_whose_time_is_not_its_own_is_reported_in_words() {
    let cluster = cluster();
    let state = at(&cluster, 10);
    let mut statement = cluster.statement(&state);
    statement.time = statement.time.next();
    let certificate = cluster.certify(&statement);
    assert!(CertifiedState::new(certificate.clone(), state.clone()).is_none());
    let mut out = Vec::new();
    let config = FetchConfig::new(ME, Arc::clone(&cluster.keyring), 6, 1 << 20);
    let mut fetch = Fetch::start(config, 0, certificate.clone(), Some(state.clone()), &mut out);
    for from in [0, 1] {
        let message = Message::Offer { certificate: certificate.proof().clone(), digests: state.digests() };
        fetch.step(1, Input::Message { from: ReplicaId(from), message }, &mut out);
    }
    assert!(matches!(out.last(), Some(Output::Unusable { why, .. }) if why.contains("time")));
}
