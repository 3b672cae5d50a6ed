//! Whoever does not belong here, or belongs here and floods.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use polder_checkpoint::transfer;
use polder_client::{Client, ConnectError};
use polder_consensus::{Fetch, Message, Phase, Proposal, Vote};
use polder_node::replica::{Mark, PeerMessage};
use polder_sim_tests::random::{Purpose, Random};
use polder_sim_tests::service::Lists;
use polder_transport::{Config, Endpoint, Lane, Lanes, Limits};
use polder_types::{
    Blob, Call, ClientId, ClusterFile, Digest, Epoch, Nonce, ReplicaId, Request, Seq, Signature, Signed, SigningKey,
    View, encode,
};
use tokio::time::Instant;

use crate::load::CONNECT_TIMEOUT;
use crate::machine::Plug;
use crate::world::{Outcome, World, ready};

/// An error in words comes within so long, whatever the delays: a look-up, a handshake, a hello.
const AT_ONCE_MS: u64 = 1_500;

/// Frames that the liar sends to each replica in a millisecond.
const FRAMES_PER_MS: usize = 8;

/// A replica's key in the hands of one who sends well-formed junk as fast as it can, and reads no answer. The others go
/// on, under their leader.
pub(crate) fn flood(world: &mut World) -> Outcome {
    let liar = world.options.liar.ok_or("a liar")?;
    world.run(1_000);
    let views = |world: &World| -> Vec<_> { world.reports().iter().map(|report| report.status.core.view).collect() };
    let before = views(world);
    let (keys, cluster, random) = (world.keys().replicas[usize::from(liar.0)].clone(), world.cluster.clone(), {
        Random::new(world.random.bits(), Purpose::Liars)
    });
    let machine = &mut world.replica(liar).machine;
    let plug = machine.plug();
    machine.boot(async {});
    machine.spawn(async move { junk(liar, &cluster, keys, &plug, random) });
    let answered = world.book.answered();
    world.run(2_000);
    if world.book.answered() < answered + 20 {
        return Err(format!("{} answers during a flood; {}", world.book.answered() - answered, world.words()));
    }
    if views(world) != before {
        return Err(format!("a view ended by a flood: {}", world.words()));
    }
    world.ids().into_iter().for_each(|id| world.judge_accusations(id));
    // Whoever takes all of it for good would not count it.
    let counters = ["polder_peer_messages_bad_total", "polder_peer_messages_dropped_total"];
    let ids = world.ids();
    if !ids.iter().any(|id| counters.iter().any(|counter| world.replica(*id).counted(counter, liar) > 0)) {
        return Err("void: nobody noticed a flood".to_owned());
    }
    world.replica(liar).machine.cut_power();
    Ok(())
}

/// Connects to all others and floods them; takes their connections and reads nothing.
fn junk(me: ReplicaId, cluster: &ClusterFile, keys: (SigningKey, SigningKey), plug: &Plug, mut random: Random) {
    let (identity, signing) = keys;
    let genesis = cluster.genesis();
    let config = Config { identity, cluster: genesis.cluster(), limits: Limits::new(&genesis.constants) };
    let made = Endpoint::listening(config, plug.wiring(), Arc::new(|_| Some(Lanes::REPLICA)));
    let (endpoint, mut listener) = made.expect("an endpoint");
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Some(connection) = listener.accept().await {
            kept.push(connection);
        }
    });
    for (id, entry) in (0..).map(ReplicaId).zip(cluster.replicas.clone()).filter(|(id, _)| *id != me) {
        let (endpoint, signing, mut random) =
            (endpoint.clone(), signing.clone(), { Random::new(random.bits() ^ u64::from(id.0), Purpose::Liars) });
        let cluster = genesis.cluster();
        tokio::spawn(async move {
            loop {
                if let Ok((connection, _inbox)) = endpoint.connect(&entry.address, entry.identity, Lanes::REPLICA).await
                {
                    while !connection.is_closed() {
                        for _ in 0..FRAMES_PER_MS {
                            let (lane, message) = frame(me, cluster, &signing, &mut random);
                            // A queue that is full is what a flood wants.
                            let _is_full = connection.try_send(lane, Bytes::from(encode(&message)));
                        }
                        tokio::time::sleep_until(Instant::now() + Duration::from_millis(1)).await;
                    }
                }
                tokio::time::sleep_until(Instant::now() + Duration::from_millis(50)).await;
            }
        });
    }
}

/// Well-formed junk: some with its own good signature, some with none.
fn frame(
    me: ReplicaId,
    cluster: polder_types::ClusterId,
    signing: &SigningKey,
    random: &mut Random,
) -> (Lane, PeerMessage) {
    let (view, slot) = (View(random.range(0, 3)), Seq(random.range(0, 200)));
    let digest = Digest(random.bytes());
    let mark = Mark::new(random.bits(), random.bits(), signing);
    let ordering = |message| (Lane::Ordering, PeerMessage::Ordering(message, mark));
    match random.range(0, 7) {
        0 => (Lane::Ordering, PeerMessage::MemoryAsk { nonce: random.bits() }),
        1 => {
            let vote = Vote { phase: Phase::Commit, epoch: Epoch(0), view, slot, digest };
            ordering(Message::Vote(Signed::sign(me, vote, cluster, signing).into_inner()))
        }
        2 => {
            let statement = Vote { phase: Phase::Prepare, epoch: Epoch(0), view, slot, digest };
            ordering(Message::Vote(Signed { by: me, statement, signature: Signature([7; 64]) }))
        }
        3 => {
            let proposal = Proposal { epoch: Epoch(0), view, slot, digest };
            let signed = Signed::sign(me, proposal, cluster, signing).into_inner();
            ordering(Message::Proposal(signed, Blob::from(vec![0; 200])))
        }
        4 => {
            let call = Call::Open { nonce: random.bytes(), cut: Seq::ZERO };
            let stranger = SigningKey::from_seed(&random.bytes());
            let request = Request { client: ClientId(stranger.public()), call };
            ordering(Message::Request(request.sign(cluster, &stranger)))
        }
        5 => ordering(Message::Fetch(Fetch::Committed(slot))),
        6 => (Lane::Transfer, PeerMessage::Transfer(transfer::Message::Ask { above: Seq::ZERO })),
        _ => (Lane::Transfer, PeerMessage::Transfer(transfer::Message::AskDigests { cut: slot })),
    }
}

/// One attempt of the guest to connect; what came of it, and after how long.
fn attempt(world: &mut World, cluster: &ClusterFile, key: &SigningKey) -> Result<(ConnectError, u64), String> {
    let outcome = Arc::new(Mutex::new(None));
    let machine = &mut world.guest;
    let plug = machine.plug();
    let (cluster, key, told) = (cluster.clone(), key.clone(), Arc::clone(&outcome));
    machine.boot(async {});
    machine.spawn(async move {
        let started = Instant::now();
        let builder = plug.client(&cluster, &key).connect_timeout(CONNECT_TIMEOUT);
        let client: Result<Client<Lists>, _> = builder.connect().await;
        let told = &mut *told.lock().unwrap_or_else(PoisonError::into_inner);
        *told = Some((client.err(), started.elapsed().as_millis() as u64));
    });
    let is_over = |_: &World| outcome.lock().unwrap_or_else(PoisonError::into_inner).is_some();
    world.run_until(CONNECT_TIMEOUT.as_millis() as u64 + 500, "word for a guest", is_over)?;
    world.guest.cut_power();
    let outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner).take();
    match outcome {
        Some((Some(error), ms)) => Ok((error, ms)),
        _ => Err("a guest was let in".to_owned()),
    }
}

/// The guest is turned away at once, and the words say why.
fn turned_away(world: &mut World, cluster: &ClusterFile, key: &SigningKey, why: &str) -> Outcome {
    let (error, ms) = attempt(world, cluster, key)?;
    let is_told = matches!(error, ConnectError::TurnedAway(_)) && error.to_string().contains(why);
    if !is_told || ms > AT_ONCE_MS {
        return Err(format!("after {ms} ms a guest was told: {error}; it should have been at once, and: {why}"));
    }
    Ok(())
}

/// One whose key is on no list tries and tries; it is told so, and nobody else notices.
pub(crate) fn stranger(world: &mut World) -> Outcome {
    let (cluster, key) = (world.cluster.clone(), world.keys().guest.clone());
    for _ in 0..4 {
        turned_away(world, &cluster, &key, "not among those that may connect")?;
    }
    let replica = world.keys().replicas[0].0.clone();
    let (error, ms) = attempt(world, &cluster, &replica)?;
    if !matches!(error, ConnectError::ReplicaKey(ReplicaId(0))) || ms > 1 {
        return Err(format!("a replica's key was taken for a client's: {error}"));
    }
    world.run_until_answered(3_000, 20, "beside a stranger")
}

/// Files that do not belong together: another cluster's nonce, another replica's key, and a replica that was given
/// another cluster's file. Each is told so in words, and the cluster goes on.
pub(crate) fn mismatch(world: &mut World) -> Outcome {
    let key = world.keys().guest.clone();
    let right = world.cluster.clone();
    let other = ClusterFile { nonce: Nonce(world.random.bytes()), ..right.clone() };
    turned_away(world, &other, &key, "belongs to another cluster")?;
    let mut swapped = right.clone();
    for (id, entry) in (100..).zip(&mut swapped.replicas) {
        entry.identity = SigningKey::from_seed(&[id; 32]).public();
    }
    turned_away(world, &swapped, &key, "another node listens there, or the cluster file is old")?;

    // A replica that nobody will talk to, for it believes in another cluster.
    let who = *world.random.pick(&world.ids()).ok_or("a replica")?;
    world.crash(who);
    let (log, state) = (world.replica(who).log.clone(), world.replica(who).state.clone());
    let replica = world.replica(who);
    replica.cluster = other;
    if replica.start().is_ok() {
        return Err(format!("{who} started over the data of another cluster"));
    }
    replica.crash();
    replica.forget();
    replica.start()?;
    world.run(2_500);
    let report = world.replica(who).report().ok_or("a report")?;
    let said: Vec<String> = report.peers.iter().filter_map(|peer| peer.last_error.clone()).collect();
    if report.ready().is_ok() || said.len() < 2 || !said.iter().all(|said| said.contains("belongs to another cluster"))
    {
        return Err(format!("a replica of another cluster says: {} and {said:?}", ready(&report)));
    }
    world.run_until_answered(5_000, 10, "beside a replica of another cluster")?;
    let replica = world.replica(who);
    replica.crash();
    (replica.cluster, replica.log, replica.state) = (right, log, state);
    world.start(who);
    Ok(())
}
