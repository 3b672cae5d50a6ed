//! The client against a small cluster over real sockets.
#![allow(clippy::unwrap_used, clippy::panic)]

#[allow(dead_code, reason = "shared with other tests")]
mod fake;

use std::net::Ipv4Addr;
use std::time::Duration;

use fake::{Cluster, Counter, Manner, client_key};
use polder_client::{Builder, CallError, Client, ConnectError, ResumableClient, SessionState, Unknown};
use polder_types::{Nonce, ReplicaId};

fn builder(cluster: &Cluster) -> Builder {
    Builder::new(cluster.file.clone(), client_key())
}

/// Why an outcome is unknown; none if it is known.
fn why(outcome: Result<u64, CallError>) -> Option<Unknown> {
    match outcome {
        Err(CallError::OutcomeUnknown { why, .. }) => Some(why),
        _ => None,
    }
}

async fn connect(cluster: &Cluster) -> Client<Counter> {
    builder(cluster).connect().await.unwrap()
}

#[tokio::test]
async fn commands_are_executed_in_a_session_that_is_closed_at_the_end() {
    let cluster = Cluster::start();
    let client = connect(&cluster).await;
    assert_eq!(client.call(&5).await, Ok(5));
    assert_eq!(client.call(&7).await, Ok(12));
    client.close().await;
    assert_eq!(client.call(&1).await, Err(CallError::NotSent("the client is closed")));
    let state = cluster.state();
    assert_eq!((state.executed, state.opens, state.closes), (2, 1, 1));
}

#[tokio::test]
async fn a_replicas_key_is_refused_before_anything_is_sent() {
    let cluster = Cluster::start();
    let builder = Builder::new(cluster.file.clone(), fake::identity(2));
    let refused = builder.connect::<Counter>().await.map(|_| ()).unwrap_err();
    assert!(matches!(refused, ConnectError::ReplicaKey(ReplicaId(2))), "{refused}");
    assert!(refused.to_string().contains("a key of its own"), "{refused}");
}

#[tokio::test]
async fn many_callers_share_few_requests_and_each_gets_its_own_reply() {
    const CALLERS: u64 = 500;
    let cluster = Cluster::start();
    let client = connect(&cluster).await;
    let calls: Vec<_> = (1..=CALLERS)
        .map(|amount| {
            let client = client.clone();
            tokio::spawn(async move { client.call(&(amount << 32)).await.unwrap() })
        })
        .collect();
    let mut totals = Vec::new();
    for call in calls {
        totals.push(call.await.unwrap());
    }
    totals.sort_unstable();
    totals.dedup();
    assert_eq!(totals.len() as u64, CALLERS);
    assert_eq!(totals.last(), Some(&((CALLERS * (CALLERS + 1) / 2) << 32)));
    let state = cluster.state();
    assert_eq!(state.executed, CALLERS);
    assert!(state.packed_max > 50, "at most {} commands in a request", state.packed_max);
    assert!(state.packed_max <= 128);
}

#[tokio::test]
async fn r23_one_lying_replica_is_outvoted() {
    let cluster = Cluster::start();
    cluster.set_manner(2, Manner::Lies);
    let client = connect(&cluster).await;
    for total in 1..=50 {
        assert_eq!(client.call(&1).await, Ok(total));
    }
}

#[tokio::test]
async fn r6_a_silent_leader_is_passed_over() {
    let cluster = Cluster::start();
    let client: Client<Counter> = builder(&cluster).late_after(Duration::from_millis(20)).connect().await.unwrap();
    assert_eq!(client.call(&1).await, Ok(1));
    cluster.set_manner(0, Manner::Silent);
    assert_eq!(client.call(&1).await, Ok(2));
    assert_eq!(client.call(&1).await, Ok(3));
    assert!(cluster.state().view > 0);
}

#[tokio::test]
async fn a_stopped_leader_is_passed_over_at_once() {
    let cluster = Cluster::start();
    // Late only after a minute: it is the lost connection that sends to all.
    let client: Client<Counter> = builder(&cluster).late_after(Duration::from_secs(60)).connect().await.unwrap();
    assert_eq!(client.call(&1).await, Ok(1));
    cluster.set_manner(0, Manner::Silent);
    let (answer, ()) = tokio::join!(client.call(&1), cluster.stop(0));
    assert_eq!(answer, Ok(2));
}

#[tokio::test]
async fn a_busy_leader_is_asked_again() {
    let cluster = Cluster::start();
    let client: Client<Counter> = builder(&cluster).late_after(Duration::from_secs(60)).connect().await.unwrap();
    cluster.set_manner(0, Manner::Busy(3));
    assert_eq!(client.call(&1).await, Ok(1));
    assert_eq!(cluster.state().manners[0], Manner::Busy(0));
}

#[tokio::test]
async fn two_clients_of_one_key_do_not_hear_each_others_replies() {
    let cluster = Cluster::start();
    let (first, second) = tokio::join!(connect(&cluster), connect(&cluster));
    for _ in 0..20 {
        let (a, b) = tokio::join!(first.call(&1), second.call(&1));
        assert_ne!(a.unwrap(), b.unwrap());
    }
    assert_eq!(cluster.state().total, 40);
}

#[tokio::test]
async fn a_time_out_says_whether_the_command_was_sent() {
    let cluster = Cluster::start();
    let client: Client<Counter> = builder(&cluster).requests_in_flight_max(1).connect().await.unwrap();
    (0..4).for_each(|replica| cluster.set_manner(replica, Manner::Silent));
    let impatient = client.with_call_timeout(Duration::from_millis(50));
    assert_eq!(why(impatient.call(&1).await), Some(Unknown::TimedOut));
    // The request of the first is still in flight: the second is never sent.
    let error = impatient.call(&2).await.unwrap_err();
    assert!(error.is_timeout() && error.is_not_executed(), "{error}");
    (0..4).for_each(|replica| cluster.set_manner(replica, Manner::Honest));
    // The first is executed after all, once.
    assert_eq!(client.call(&4).await, Ok(5));
    assert_eq!(cluster.state().executed, 2);
}

#[tokio::test]
async fn r27_an_expired_session_is_an_unknown_outcome_and_the_next_call_is_fine() {
    let cluster = Cluster::start();
    let client = connect(&cluster).await;
    assert_eq!(client.call(&1).await, Ok(1));
    cluster.expire_sessions();
    assert_eq!(why(client.call(&1).await), Some(Unknown::SessionGone));
    assert_eq!(client.call(&1).await, Ok(2));
    assert_eq!(cluster.state().opens, 2);
}

#[tokio::test]
async fn a_resumed_session_executes_each_number_once() {
    let cluster = Cluster::start();
    let first: ResumableClient<Counter> = builder(&cluster).connect_resumable().await.unwrap();
    let stored = through_bytes(&first.state());
    let (a, b) = tokio::join!(first.call(1, &10), first.call(2, &20));
    assert!(a.is_ok() && b.is_ok());
    first.acknowledge(1);
    assert_eq!(first.call(3, &30).await, Ok(60));
    // The process is gone, and knows only what it had stored: nothing was acknowledged, says the store of number 1.
    drop(first);
    let stored = SessionState { acknowledged: 1, ..stored };
    let second: ResumableClient<Counter> = builder(&cluster).resume(stored).await.unwrap();
    assert_eq!(second.call(2, &20).await, b);
    assert_eq!(second.call(3, &30).await, Ok(60));
    assert_eq!(second.call(4, &40).await, Ok(100));
    assert_eq!(why(second.call(1, &10).await), Some(Unknown::Acknowledged));
    assert!(matches!(second.call(1 + 1_025, &1).await, Err(CallError::NotSent(_))));
    {
        let state = cluster.state();
        assert_eq!((state.executed, state.opens, state.closes), (4, 1, 0));
    }
    second.close().await;
    assert_eq!(cluster.state().closes, 1);
    let third: ResumableClient<Counter> = builder(&cluster).resume(stored).await.unwrap();
    assert_eq!(why(third.call(5, &1).await), Some(Unknown::SessionGone));
}

/// A state goes through bytes, as through a file.
fn through_bytes(state: &SessionState) -> SessionState {
    polder_types::decode(&polder_types::encode(state), 1_000).unwrap()
}

#[tokio::test]
async fn a_state_of_another_key_or_cluster_is_not_resumed() {
    let cluster = Cluster::start();
    let client: ResumableClient<Counter> = builder(&cluster).connect_resumable().await.unwrap();
    let other_key = polder_types::SigningKey::from_seed(&[201; 32]);
    let error = Builder::new(cluster.file.clone(), other_key).resume::<Counter>(client.state()).await.unwrap_err();
    assert!(matches!(error, ConnectError::WrongState(_)), "{error}");
    let mut file = cluster.file.clone();
    file.nonce = Nonce([6; 16]);
    let error = Builder::new(file, client_key()).resume::<Counter>(client.state()).await.unwrap_err();
    assert!(matches!(error, ConnectError::WrongState(_)), "{error}");
}

#[tokio::test]
async fn a_cluster_that_lets_nobody_in_says_so_at_once() {
    let cluster = Cluster::start_closed();
    let error = builder(&cluster).connect_timeout(Duration::from_secs(600)).connect::<Counter>().await.unwrap_err();
    assert!(matches!(&error, ConnectError::TurnedAway(said) if said.len() >= 3), "{error}");
    assert!(error.to_string().contains("is not among those that may connect"), "{error}");
}

#[tokio::test]
async fn another_clusters_file_is_told_at_once() {
    let cluster = Cluster::start();
    let mut file = cluster.file.clone();
    file.nonce = Nonce([6; 16]);
    let connecting = Builder::new(file, client_key()).connect_timeout(Duration::from_secs(600)).connect::<Counter>();
    let error = connecting.await.unwrap_err();
    assert!(matches!(error, ConnectError::TurnedAway(_)), "{error}");
    assert!(error.to_string().contains("another cluster"), "{error}");
}

#[tokio::test]
async fn replicas_that_say_nothing_are_a_time_out_in_words() {
    let cluster = Cluster::start();
    (0..3).for_each(|replica| cluster.set_manner(replica, Manner::Silent));
    let connecting = builder(&cluster).connect_timeout(Duration::from_millis(100)).connect::<Counter>();
    let error = connecting.await.unwrap_err();
    assert!(matches!(error, ConnectError::TimedOut(_)), "{error}");
}

#[tokio::test]
async fn a_cluster_file_that_cannot_be_is_refused() {
    let cluster = Cluster::start();
    let mut file = cluster.file.clone();
    file.replicas.truncate(3);
    let error = Builder::new(file, client_key()).connect::<Counter>().await.unwrap_err();
    assert!(matches!(error, ConnectError::ClusterFile(_)), "{error}");
}

#[tokio::test]
async fn a_command_too_large_is_refused_here() {
    struct Bytes;
    impl polder_types::Application for Bytes {
        type Command = polder_types::Blob;
        type Reply = u64;
    }
    let cluster = Cluster::start();
    let client: Client<Bytes> = builder(&cluster).connect().await.unwrap();
    let largest = polder_types::Blob::from(vec![0; (5 << 18) - 300]);
    assert!(matches!(client.call(&largest).await, Err(CallError::Rejected(_))), "it is no number, but it was sent");
    let larger = polder_types::Blob::from(vec![0; 5 << 18]);
    assert!(matches!(client.call(&larger).await, Err(CallError::TooLarge { .. })));
}

#[tokio::test]
async fn a_dropped_call_is_executed_all_the_same_and_confuses_nobody() {
    let cluster = Cluster::start();
    let client = connect(&cluster).await;
    {
        let mut call = std::pin::pin!(client.call(&100));
        tokio::select! {
            biased;
            _ = &mut call => panic!("nothing can be answered yet"),
            () = tokio::task::yield_now() => {}
        }
    }
    assert_eq!(client.call(&1).await, Ok(101));
}

#[tokio::test]
async fn times_as_long_as_can_be_written_do_no_harm() {
    let cluster = Cluster::start();
    let for_ever = builder(&cluster)
        .call_timeout(Duration::MAX)
        .connect_timeout(Duration::MAX)
        .close_timeout(Duration::MAX)
        .late_after(Duration::MAX);
    let client: Client<Counter> = for_ever.connect().await.unwrap();
    assert_eq!(client.call(&1).await, Ok(1));
    client.close().await;
}

#[tokio::test]
async fn dropping_the_last_client_closes_the_session() {
    let cluster = Cluster::start();
    let client = connect(&cluster).await;
    assert_eq!(client.clone().call(&1).await, Ok(1));
    drop(client);
    while cluster.state().closes == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn every_replica_says_how_it_is_or_why_not() {
    let cluster = Cluster::start();
    let silent = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut file = cluster.file.clone();
    file.replicas[3].address = silent.local_addr().unwrap().to_string();
    let builder = Builder::new(file, client_key()).connect_timeout(Duration::from_millis(500));
    let statuses = builder.statuses().await.unwrap();
    assert_eq!(statuses.len(), 4);
    for (id, status) in &statuses[..3] {
        let status = status.as_ref().unwrap();
        assert_eq!((status.replica, status.is_leader), (*id, *id == ReplicaId(0)));
    }
    assert!(statuses[3].1.is_err());
}

#[tokio::test]
async fn one_stopped_replica_is_not_missed() {
    let cluster = Cluster::start();
    cluster.stop(3).await;
    let client = connect(&cluster).await;
    assert_eq!(client.call(&1).await, Ok(1));
}
