//! What becomes of calls whose outcome was unknown, asked for later, by others, and interrupted at every point.
#![allow(clippy::unwrap_used, clippy::panic)]

#[allow(dead_code, reason = "shared with other tests")]
mod fake;

use std::time::Duration;

use fake::{Cluster, Counter, Lost, Manner, client_key};
use polder_client::{
    Builder, CallError, Client, ConnectError, Resolution, ResolveError, ResumableClient, Token, Unknown,
};
use polder_types::{Application, Blob, Failure, Nonce, SigningKey};

const AMOUNT: u64 = 5;

fn builder(cluster: &Cluster) -> Builder {
    Builder::new(cluster.file.clone(), client_key()).late_after(Duration::from_millis(20))
}

fn impatient(cluster: &Cluster) -> Builder {
    builder(cluster).call_timeout(Duration::from_millis(40))
}

/// The token of an error, after a way through a file.
fn token<R: std::fmt::Debug>(outcome: Result<R, CallError>) -> Token {
    let error = outcome.unwrap_err();
    assert!(error.is_outcome_unknown(), "{error}");
    error.token().unwrap().to_string().parse().unwrap()
}

/// Waits until the fake has seen what was sent: `seen` of its state.
async fn arrived(cluster: &Cluster, seen: impl Fn(&fake::State) -> bool) {
    while !seen(&cluster.state()) {
        tokio::task::yield_now().await;
    }
}

/// Who made the call: still there, and sending, or gone.
enum Caller {
    There(Client<Counter>),
    Gone,
}

impl Caller {
    /// A call that is lost so.
    async fn unanswered(cluster: &Cluster, lost: Lost, is_gone: bool) -> (Self, Token) {
        cluster.cut(Some((0, lost)));
        let has_arrived = |state: &fake::State| match lost {
            // The first was the OPEN.
            Lost::Request => state.requests >= 2,
            Lost::Reply => state.executed == 1,
        };
        if is_gone {
            // It sends the command once.
            let builder = impatient(cluster).late_after(Duration::from_secs(600));
            let client: ResumableClient<Counter> = builder.connect_resumable().await.unwrap();
            let token = token(client.call(1, &AMOUNT).await);
            arrived(cluster, has_arrived).await;
            (Self::Gone, token)
        } else {
            let client: Client<Counter> = builder(cluster).connect().await.unwrap();
            let token = token(client.with_call_timeout(Duration::from_millis(40)).call(&AMOUNT).await);
            arrived(cluster, has_arrived).await;
            (Self::There(client), token)
        }
    }
}

/// The call is cut off before it arrives or before it is answered; then who asks is cut off at each of its two questions,
/// before they arrive or before they are answered; then all is well again, and somebody asks to the end.
#[tokio::test]
async fn r25_wherever_it_is_interrupted_a_token_tells_the_truth_and_asking_executes_nothing() {
    for (lost, is_gone) in [(Lost::Request, true), (Lost::Reply, true), (Lost::Request, false), (Lost::Reply, false)] {
        for interruption in
            [None, Some((0, Lost::Request)), Some((0, Lost::Reply)), Some((1, Lost::Request)), Some((1, Lost::Reply))]
        {
            interrupted(lost, is_gone, interruption).await;
        }
    }
}

async fn interrupted(lost: Lost, is_gone: bool, interruption: Option<(usize, Lost)>) {
    let case = format!("{lost:?} {is_gone} {interruption:?}");
    let cluster = Cluster::start();
    let (caller, token) = Caller::unanswered(&cluster, lost, is_gone).await;
    let was_executed = lost == Lost::Reply;
    assert_eq!(cluster.state().executed, u64::from(was_executed), "{case}");

    cluster.cut(interruption);
    let first = impatient(&cluster).resolve::<Counter>(&token).await;
    cluster.cut(None);
    let resolution = builder(&cluster).resolve::<Counter>(&token).await.unwrap();
    if let Ok(first) = first {
        assert_eq!(first, resolution, "{case}");
    }
    match resolution {
        Resolution::Executed(total) => assert_eq!((total, cluster.state().executed), (AMOUNT, 1), "{case}"),
        Resolution::NotExecuted(None) => assert_eq!(cluster.state().executed, 0, "{case}"),
        _ => panic!("{case}: {resolution:?}"),
    }
    if is_gone {
        // Nobody sends it any more: what decides is whether it had arrived.
        assert_eq!(matches!(resolution, Resolution::Executed(_)), was_executed, "{case}");
    } else if was_executed {
        assert!(matches!(resolution, Resolution::Executed(_)), "{case}");
    }
    if let Caller::There(client) = caller {
        // The client has sent the command all the time.
        let executed = cluster.state().executed;
        assert_eq!(client.call(&1).await, Ok(AMOUNT * executed + 1), "{case}");
        client.close().await;
        assert_eq!(cluster.state().closes, 0, "{case}");
    }
    assert_eq!(builder(&cluster).resolve::<Counter>(&token).await.unwrap(), resolution, "{case}");
}

#[tokio::test]
async fn while_too_few_answer_it_is_still_unknown() {
    let cluster = Cluster::start();
    let (_, token) = Caller::unanswered(&cluster, Lost::Request, true).await;
    let asked = impatient(&cluster).resolve::<Counter>(&token).await;
    assert!(matches!(asked, Err(ResolveError::StillUnknown)), "{asked:?}");
    // One alone is not believed, whatever it says (R23).
    cluster.cut(None);
    (0..3).for_each(|replica| cluster.set_manner(replica, Manner::Mute));
    let asked = impatient(&cluster).resolve::<Counter>(&token).await;
    assert!(matches!(asked, Err(ResolveError::StillUnknown)), "{asked:?}");
}

#[tokio::test]
async fn r27_of_a_session_that_is_gone_nothing_can_be_learned() {
    let cluster = Cluster::start();
    let (_, token) = Caller::unanswered(&cluster, Lost::Reply, true).await;
    cluster.cut(None);
    cluster.expire_sessions();
    let resolution = builder(&cluster).resolve::<Counter>(&token).await.unwrap();
    assert_eq!(resolution, Resolution::Forgotten(Unknown::SessionGone));
}

#[tokio::test]
async fn r25_a_client_that_goes_on_keeps_what_a_token_asks_for_and_not_for_ever() {
    let cluster = Cluster::start();
    let (caller, token) = Caller::unanswered(&cluster, Lost::Reply, false).await;
    let Caller::There(client) = caller else { panic!("it is there") };
    cluster.cut(None);
    for commands in [100, 600] {
        let calls: Vec<_> = (0..commands)
            .map(|_| {
                tokio::spawn({
                    let client = client.clone();
                    async move { client.call(&1).await }
                })
            })
            .collect();
        for call in calls {
            call.await.unwrap().unwrap();
        }
        // The acknowledgement travels with the next request.
        client.call(&1).await.unwrap();
        let resolution = builder(&cluster).resolve::<Counter>(&token).await.unwrap();
        let expected =
            if commands == 100 { Resolution::Executed(AMOUNT) } else { Resolution::Forgotten(Unknown::Acknowledged) };
        assert_eq!(resolution, expected);
    }
    client.close().await;
    assert_eq!(cluster.state().closes, 1);
}

#[tokio::test]
async fn what_the_replicas_had_refused_was_not_executed() {
    struct Bytes;
    impl Application for Bytes {
        type Command = Blob;
        type Reply = u64;
    }
    let cluster = Cluster::start();
    // As large as can be: a token holds it whole.
    for command in [vec![1, 2, 3], vec![7; (5 << 18) - 300]] {
        let client: ResumableClient<Bytes> = impatient(&cluster).connect_resumable().await.unwrap();
        cluster.cut(Some((0, Lost::Reply)));
        let before = cluster.state().refused;
        let token = token(client.call(1, &Blob::from(command.clone())).await);
        arrived(&cluster, |state| state.refused > before).await;
        assert_eq!(token.command::<Bytes>(), Ok(Blob::from(command)));
        cluster.cut(None);
        let resolution = builder(&cluster).resolve::<Bytes>(&token).await.unwrap();
        assert_eq!(resolution, Resolution::NotExecuted(Some(Failure::Malformed)));
    }
}

#[tokio::test]
async fn another_key_or_another_cluster_cannot_ask() {
    let cluster = Cluster::start();
    let (_, token) = Caller::unanswered(&cluster, Lost::Request, true).await;
    let other_key = Builder::new(cluster.file.clone(), SigningKey::from_seed(&[201; 32]));
    let mut file = cluster.file.clone();
    file.nonce = Nonce([6; 16]);
    for builder in [other_key, Builder::new(file, client_key())] {
        let refused = builder.resolve::<Counter>(&token).await.unwrap_err();
        assert!(matches!(refused, ResolveError::Connect(ConnectError::WrongState(_))), "{refused}");
    }
}
