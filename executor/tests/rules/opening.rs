//! R24: sessions are opened once, afresh, and never come back.

use std::sync::Arc;

use polder_executor::{Lookup, Share};
use polder_types::{Answer, Call, ClientAccess, Constants, Failure, Genesis, Position, Seq, SessionId, SignedRequest};

use crate::script::{append, writes};
use crate::world::{World, answers, constants, failed, genesis, id, read, replies};

fn open(world: &World, by: u8, nonce: u8, cut: u64) -> SignedRequest {
    world.sign(by, Call::Open { nonce: [nonce; 16], cut: Seq(cut) })
}

#[test]
fn an_open_is_fresh_by_arithmetic_alone() {
    // I = 4, K = 2: a cut c is fresh in slots c+1..=c+8.
    for (cut, slot, fresh) in [
        (0, 1, true),
        (0, 8, true),
        (0, 9, false),
        (4, 4, false),
        (4, 5, true),
        (4, 12, true),
        (4, 13, false),
        (8, 5, false),
        (3, 5, false),
        (u64::MAX - 3, 5, false),
    ] {
        let mut world = World::new(constants());
        world.idle_to(slot - 1);
        let executed = world.slot([open(&world, 1, 1, cut)]);
        let expected = if fresh {
            Answer::Opened(SessionId(Position { slot: Seq(slot), index: 0 }))
        } else {
            failed(Failure::StaleOpen)
        };
        assert_eq!(answers(&executed), [expected], "cut {cut}, slot {slot}");
    }
}

#[test]
fn a_copy_of_an_open_is_answered_with_the_first_ones_session_while_it_is_fresh() {
    let mut world = World::new(constants());
    let opening = open(&world, 1, 1, 0);
    let first = world.slot([opening.clone(), opening.clone()]);
    assert_eq!(first.replies[0], first.replies[1]);
    assert_eq!(world.executor.sessions(), 1);
    assert_eq!(
        world.executor.lookup(&opening.request().unwrap(), &mut { Share::ALL }),
        Lookup::Answered(replies(&first)[..1].to_vec())
    );
    let Answer::Opened(session) = first.replies[0].1.answer else { panic!("opened") };
    // Also when the session is closed meanwhile: a second one under this OPEN would execute its commands again.
    world.slot([world.sign(1, Call::Close { session })]);
    let bytes = world.session_bytes();
    world.idle_to(7);
    assert_eq!(world.slot([opening.clone()]).replies[0], first.replies[0]);
    assert_eq!(world.session_bytes(), bytes);
    // From then on the arithmetic refuses it, and nothing of it is kept.
    assert_eq!(answers(&world.slot([opening])), [failed(Failure::StaleOpen)]);
    assert_eq!(world.session_bytes(), 0);
}

#[test]
fn an_open_beyond_the_keys_cap_closes_its_longest_unused_session() {
    let mut world = World::new(constants());
    let other = world.open(2);
    world.now = world.now.plus(10);
    let first = world.open(1);
    world.now = world.now.plus(10);
    let second = world.open(1);
    world.now = world.now.plus(10);
    world.run(1, first, 1, &read("k"));
    let opening = world.opening(1);
    let executed = world.slot([opening]);
    let Answer::Opened(third) = executed.replies[0].1.answer else { panic!("opened") };
    assert_eq!(executed.windows, [(id(1), second, None), (id(1), third, Some((0, 4)))]);
    assert_eq!(world.run(1, second, 1, &read("k")), failed(Failure::NoSession));
    for (by, session, number) in [(1, first, 2), (1, third, 1), (2, other, 1)] {
        assert!(matches!(world.run(by, session, number, &read("k")), Answer::Done(_)));
    }
}

#[test]
fn an_open_beyond_the_cap_in_all_is_refused_and_evicts_nobody() {
    let mut world = World::new(constants());
    for by in [1, 1, 2, 2, 3] {
        world.open(by);
    }
    let mut refused = [world.opening(4), world.opening(3)];
    let executed = world.slot(&refused[..]);
    assert_eq!(answers(&executed), vec![failed(Failure::TooManySessions); 2]);
    assert_eq!((world.executor.sessions(), executed.windows), (5, vec![]));
    // Who has reached his own cap makes room himself.
    refused[0] = world.opening(1);
    assert!(matches!(answers(&world.slot(&refused[..1]))[..], [Answer::Opened(_)]));
    assert_eq!(world.executor.sessions(), 5);
}

#[test]
fn the_session_clock_must_run_while_the_table_is_above_half() {
    let mut world = World::new(Constants { sessions_max: 4, ..constants() });
    for (by, above) in [(1, false), (2, false), (3, true)] {
        world.open(by);
        assert_eq!(world.executor.session_clock_must_run(), above);
    }
}

#[test]
fn who_is_not_listed_opens_nothing_and_a_reader_writes_nothing() {
    let genesis = genesis(constants());
    let clients = ClientAccess { open: false, keys: genesis.clients.keys.clone() };
    let mut world = World::with(Arc::new(Genesis { clients, ..(*genesis).clone() }));
    let stranger = world.opening(1);
    assert!(matches!(world.executor.lookup(&stranger.request().unwrap(), &mut { Share::ALL }), Lookup::Never(_)));
    assert_eq!(answers(&world.slot([stranger])), [failed(Failure::NotPermitted)]);
    let session = world.open(9);
    assert!(matches!(world.run(9, session, 1, &read("k")), Answer::Done(_)));
    assert_eq!(world.run(9, session, 2, &writes(vec![append("k", "x")])), failed(Failure::NotPermitted));
    // By what it declares, not by what it does.
    assert_eq!(world.run(9, session, 3, &writes(vec![])), failed(Failure::NotPermitted));
    assert_eq!(world.value("k"), None);
}
