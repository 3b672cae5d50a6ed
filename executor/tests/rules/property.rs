//! Random batches against small bounds: redone effects are the state, restored executors go on alike, and no number of
//! a session is executed twice.

use std::collections::BTreeSet;
use std::sync::Arc;

use polder_executor::{Executed, Executor, Frozen};
use polder_types::{Answer, Batch, Blob, Call, Constants, Seq, SessionId, SignedRequest, encode};
use proptest::prelude::*;

use crate::script::{Declares, Does, Script, Scripted, append};
use crate::world::{World, constants, redo};

#[derive(Clone, Debug)]
enum Ask {
    Open { by: u8, nonce: u8, cuts_ago: u64 },
    Close { by: u8, session: usize },
    Commands { by: u8, session: usize, ack: u64, first: u64, scripts: Vec<(u8, Script)> },
    Again { request: usize },
}

fn key() -> impl Strategy<Value = String> {
    (0..6).prop_map(|key| format!("k{key}"))
}

fn does() -> impl Strategy<Value = Does> {
    prop_oneof![
        4 => (key(), "[a-z]{0,9}").prop_map(|(key, value)| Does::Put(key.into_bytes(), Blob::copy(value.as_bytes()))),
        2 => key().prop_map(|key| Does::Delete(key.into_bytes())),
        2 => key().prop_map(|key| Does::Get(key.into_bytes())),
        1 => (key(), 0u32..4).prop_map(|(from, entries_max)| Does::Range {
            from: from.into_bytes(), to: None, entries_max, bytes_max: 200
        }),
        1 => Just(Does::Now),
        1 => Just(Does::Panic),
        1 => (0u32..300).prop_map(Does::Answer),
    ]
}

fn script() -> impl Strategy<Value = (u8, Script)> {
    let declares = prop_oneof![3 => Just(Declares::Writes), 1 => Just(Declares::Reads), 1 => Just(Declares::Shrinks)];
    let prefix = prop_oneof![6 => Just(vec![]), 1 => Just(b"k1".to_vec())];
    let script = (declares, prefix, prop::collection::vec(does(), 0..4));
    (any::<u8>(), script.prop_map(|(declares, prefix, does)| Script { declares, prefix, does }))
}

fn ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        2 => (1u8..4, 0u8..6, 0u64..4).prop_map(|(by, nonce, cuts_ago)| Ask::Open { by, nonce, cuts_ago }),
        1 => (1u8..4, 0usize..64).prop_map(|(by, session)| Ask::Close { by, session }),
        9 => (1u8..4, 0usize..64, 0u64..6, 0u64..6, prop::collection::vec(script(), 1..4)).prop_map(
            |(by, session, ack, first, scripts)| Ask::Commands { by, session, ack, first: ack + first, scripts }
        ),
        3 => (0usize..64).prop_map(|request| Ask::Again { request }),
    ]
}

/// Slots: by how much time moves, and what is asked.
fn slots() -> impl Strategy<Value = Vec<(u64, Vec<Ask>)>> {
    let ts = prop_oneof![3 => 0u64..50, 1 => 500u64..4_000];
    prop::collection::vec((ts, prop::collection::vec(ask(), 0..6)), 12..36)
}

fn bounds() -> Constants {
    Constants {
        session_expiry_ms: 6_000,
        reply_cache_per_session_bytes_max: 160,
        // Three numbers of four are a session's own, and of what is shared a key may have one.
        reply_cache_bytes_max: 16 * 1_024,
        reply_bytes_max: 250,
        state_bytes_max: 400,
        ..constants()
    }
}

/// Turns what is asked into requests, with the sessions that there are by now. Every command that writes and is known
/// to reach the service says so first, in a log of its own session and number.
struct Asker {
    sessions: Vec<(u8, SessionId)>,
    requests: Vec<SignedRequest>,
}

impl Asker {
    fn request(&mut self, world: &World, ask: &Ask) -> Option<SignedRequest> {
        let interval = world.config.genesis.constants.interval_slots;
        let request = match ask {
            Ask::Open { by, nonce, cuts_ago } => {
                let cut = Seq((world.executor.executed().0 / interval).saturating_sub(*cuts_ago) * interval);
                world.sign(*by, Call::Open { nonce: [*nonce; 16], cut })
            }
            Ask::Close { by, session } => {
                let (_, session) = self.session(*session)?;
                world.sign(*by, Call::Close { session })
            }
            Ask::Commands { by, session, ack, first, scripts } => {
                let (owner, session) = self.session(*session)?;
                // Mostly the owner.
                let by = if scripts[0].0 < 240 { owner } else { *by };
                let first = *first.max(&1);
                let commands = (first..).zip(scripts).map(|(number, (tag, script))| {
                    let mut script = script.clone();
                    if script.declares == Declares::Writes && script.prefix.is_empty() {
                        let log = format!("log {session} {number}");
                        script.does.insert(0, append(&log, &format!("{}", tag % 2)));
                    }
                    Blob::from(encode(&script))
                });
                world.sign(by, Call::Commands { session, ack: *ack, first, commands: commands.collect() })
            }
            Ask::Again { request } => self.requests.get(request % self.requests.len().max(1))?.clone(),
        };
        self.requests.push(request.clone());
        Some(request)
    }

    /// One of the newest.
    fn session(&self, index: usize) -> Option<(u8, SessionId)> {
        self.sessions.iter().rev().take(6).cycle().nth(index).copied()
    }

    fn hear(&mut self, executed: &Executed, batch: &Batch) {
        let by = |client| (1..4).find(|by| crate::world::id(*by) == client);
        for (client, reply) in &executed.replies {
            if let (Answer::Opened(session), Some(by)) = (&reply.answer, by(*client))
                && !self.sessions.contains(&(by, *session))
            {
                self.sessions.push((by, *session));
            }
        }
        assert!(executed.replies.len() >= batch.requests.len(), "every request is answered");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn effects_and_restored_executors_lead_to_the_same_state(slots in slots()) {
        let mut world = World::new(bounds());
        let genesis = world.executor.freeze();
        let mut asker = Asker { sessions: vec![], requests: vec![] };
        let mut run: Vec<(Batch, Executed, Frozen)> = vec![];
        for (passes_ms, asks) in &slots {
            world.now = world.now.plus(*passes_ms);
            let requests = asks.iter().filter_map(|ask| asker.request(&world, ask)).collect();
            let batch = Batch { ts: world.now, requests };
            let executed = world.executor.execute(world.executor.executed().next(), &batch);
            asker.hear(&executed, &batch);
            run.push((batch, executed, world.executor.freeze()));
        }

        // C7: genesis and all effects; and each slot's effects on the state before it, once and twice.
        let executed: Vec<Executed> = run.iter().map(|(_, executed, _)| executed.clone()).collect();
        let mut before = &genesis;
        for (index, (_, slot, after)) in run.iter().enumerate() {
            prop_assert_eq!(redo(&genesis, &executed[..=index]).root(), after.root());
            prop_assert_eq!(redo(before, &[slot.clone(), slot.clone()]).root(), after.root());
            prop_assert_eq!(after.time(), slot.time);
            before = after;
        }

        // R26: an executor restored at any cut answers alike and comes to the same roots.
        for at in (3..run.len()).step_by(4) {
            let mut restored = Executor::restore(
                Arc::new(Scripted), world.config.clone(), &run[at].2,
            ).expect("a state of its own");
            for (batch, executed, after) in &run[at + 1..] {
                prop_assert_eq!(&restored.execute(executed.slot, batch), executed);
                prop_assert_eq!(restored.freeze().root(), after.root());
            }
        }

        // R23: one write a log, whatever was sent how often.
        let partitions = usize::from(world.config.genesis.constants.partitions);
        for (key, entry) in run.last().into_iter().flat_map(|(_, _, frozen)| {
            frozen.partitions()[..partitions].iter().flat_map(|partition| partition.chunk(None, usize::MAX).entries)
        }) {
            if key.starts_with(b"log") {
                prop_assert_eq!(entry.version, 1);
                prop_assert_eq!(entry.value.len(), 1);
            }
        }
    }
}

#[test]
fn the_random_batches_reach_what_they_are_for() {
    // A run with too little in it proves nothing: the same generators must meet every kind of answer.
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut failures = BTreeSet::new();
    let (mut done, mut opened, mut ended) = (0, 0, 0);
    for _ in 0..60 {
        let slots = slots().new_tree(&mut runner).expect("slots").current();
        let mut world = World::new(bounds());
        let mut asker = Asker { sessions: vec![], requests: vec![] };
        for (passes_ms, asks) in &slots {
            world.now = world.now.plus(*passes_ms);
            let requests: Vec<SignedRequest> = asks.iter().filter_map(|ask| asker.request(&world, ask)).collect();
            let executed = world.slot(&requests[..]);
            asker.hear(&executed, &Batch { ts: world.now, requests });
            failures.extend(executed.failures.keys().copied());
            for (_, reply) in &executed.replies {
                done += u32::from(matches!(reply.answer, Answer::Done(_)));
                opened += u32::from(matches!(reply.answer, Answer::Opened(_)));
            }
            ended += executed.windows.iter().filter(|(_, _, window)| window.is_none()).count();
        }
    }
    assert!(done > 500 && opened > 100 && ended > 50, "{done} {opened} {ended}");
    use polder_types::Failure as F;
    let expected = [
        F::NoSession,
        F::OutsideWindow,
        F::NumberReused,
        F::Panicked,
        F::Undeclared,
        F::ReplyTooLarge,
        F::StateFull,
        F::ReplyNotKept,
        F::StaleOpen,
        F::TooManySessions,
        F::NoRoom,
    ];
    for failure in expected {
        assert!(failures.contains(&failure), "{failure:?} never happened");
    }
}
