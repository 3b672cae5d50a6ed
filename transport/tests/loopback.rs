//! The transport over real sockets on the loopback interface.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::future::Future as _;
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use polder_transport::seam::{AsyncUdpSocket, RecvMeta, Transmit, UdpPoller};
use polder_transport::{
    Allow, Config, ConnectError, Connection, Endpoint, Inbox, Lane, Lanes, Limits, Link, LinkConfig, LinkEvent,
    Listener, SendError, Wiring,
};
use polder_types::{ClusterId, Digest, PublicKey, SigningKey};
use tokio::sync::mpsc;

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn config(seed: u8, limits: Limits) -> Config {
    Config { identity: key(seed), cluster: ClusterId(Digest([9; 32])), limits }
}

fn allow(lanes: Lanes) -> Allow {
    Arc::new(move |_| Some(lanes))
}

struct Server {
    endpoint: Endpoint,
    listener: Listener,
    address: String,
}

/// A listener with key 1.
fn server_with(limits: Limits, allow: Allow) -> Server {
    let wiring = Wiring::real(LOOPBACK).unwrap();
    let (endpoint, listener) = Endpoint::listening(config(1, limits), wiring, allow).unwrap();
    let address = endpoint.local_address().unwrap().to_string();
    Server { endpoint, listener, address }
}

fn server(lanes: Lanes) -> Server {
    server_with(Limits::default(), allow(lanes))
}

fn dialer(seed: u8) -> Endpoint {
    Endpoint::dialing(config(seed, Limits::default()), Wiring::real(LOOPBACK).unwrap()).unwrap()
}

/// A dialer's connection to the server, and the server's side of it. Both endpoints stay open through them.
async fn pair(server: &mut Server, dialer: &Endpoint, lanes: Lanes) -> ((Connection, Inbox), (Connection, Inbox)) {
    let (dialed, accepted) =
        tokio::join!(dialer.connect(&server.address, key(1).public(), lanes), server.listener.accept());
    (dialed.unwrap(), accepted.unwrap())
}

fn bytes(len: usize, fill: u8) -> Bytes {
    Bytes::from(vec![fill; len])
}

#[tokio::test]
async fn frames_of_all_sizes_go_both_ways_in_order() {
    let mut server = server(Lanes::REPLICA);
    let ((dialed, mut dialed_inbox), (accepted, mut accepted_inbox)) =
        pair(&mut server, &dialer(2), Lanes::REPLICA).await;
    assert_eq!(dialed.peer(), key(1).public());
    assert_eq!(accepted.peer(), key(2).public());
    // A NEW-VIEW of 3 MiB and the largest frame among them.
    let sizes = [0, 1, 100, 1_200, 70_000, 3 << 20, Limits::default().replica_frame_bytes_max, 5];
    let sending = async {
        for (fill, size) in sizes.iter().enumerate() {
            dialed.send(Lane::Ordering, bytes(*size, fill as u8)).await.unwrap();
            accepted.send(Lane::Transfer, bytes(*size, fill as u8)).await.unwrap();
        }
    };
    let receiving = async {
        for (fill, size) in sizes.iter().enumerate() {
            assert_eq!(accepted_inbox.recv().await.unwrap(), (Lane::Ordering, bytes(*size, fill as u8)));
            assert_eq!(dialed_inbox.recv().await.unwrap(), (Lane::Transfer, bytes(*size, fill as u8)));
        }
    };
    tokio::join!(sending, receiving);
    assert_eq!(dialed.stats().frames_sent, sizes.len() as u64);
    assert_eq!(dialed.stats().frames_received, sizes.len() as u64);
}

#[tokio::test]
async fn many_small_frames_arrive_in_order() {
    const FRAMES: u32 = 20_000;
    let mut server = server(Lanes::CLIENT);
    let ((dialed, _), (_accepted, mut inbox)) = pair(&mut server, &dialer(2), Lanes::CLIENT).await;
    let sending = async {
        for number in 0..FRAMES {
            dialed.send(Lane::Client, Bytes::copy_from_slice(&number.to_le_bytes())).await.unwrap();
        }
    };
    let receiving = async {
        for number in 0..FRAMES {
            let (_, frame) = inbox.recv().await.unwrap();
            assert_eq!(frame[..], number.to_le_bytes());
        }
    };
    tokio::join!(sending, receiving);
}

#[tokio::test]
async fn a_frame_too_large_is_refused_before_it_is_sent() {
    let mut server = server(Lanes::CLIENT);
    let ((dialed, _), _accepted) = pair(&mut server, &dialer(2), Lanes::CLIENT).await;
    let bytes_max = Limits::default().client_frame_bytes_max;
    let refused = dialed.try_send(Lane::Client, bytes(bytes_max + 1, 0));
    assert_eq!(refused, Err(SendError::TooLarge { bytes: bytes_max + 1, bytes_max }));
    assert_eq!(dialed.try_send(Lane::Ordering, bytes(1, 0)), Err(SendError::NoSuchLane));
}

#[tokio::test]
async fn a_frame_too_large_for_the_receiver_ends_the_connection_in_words() {
    let limits = Limits { client_frame_bytes_max: 1_000, ..Limits::default() };
    let mut server = server_with(limits, allow(Lanes::CLIENT));
    let ((dialed, _inbox), (_accepted, mut accepted_inbox)) = pair(&mut server, &dialer(2), Lanes::CLIENT).await;
    dialed.send(Lane::Client, bytes(1_000, 0)).await.unwrap();
    dialed.send(Lane::Client, bytes(1_001, 0)).await.unwrap();
    assert!(accepted_inbox.recv().await.is_some());
    assert_eq!(accepted_inbox.recv().await, None);
    let why = dialed.closed().await.to_string();
    assert!(why.contains("a frame of 1001 bytes; at most 1000"), "{why}");
}

#[tokio::test]
async fn a_lane_that_the_listener_did_not_grant_ends_the_connection_in_words() {
    let mut server = server(Lanes::CLIENT);
    let ((dialed, _inbox), (_accepted, mut accepted_inbox)) = pair(&mut server, &dialer(2), Lanes::REPLICA).await;
    dialed.send(Lane::Ordering, bytes(1, 0)).await.unwrap();
    assert_eq!(accepted_inbox.recv().await, None);
    let why = dialed.closed().await.to_string();
    assert!(why.contains("a lane that this connection does not have"), "{why}");
}

#[tokio::test]
async fn another_cluster_is_refused_in_words() {
    let server = server(Lanes::CLIENT);
    let stranger = Config { cluster: ClusterId(Digest([8; 32])), ..config(2, Limits::default()) };
    let dialer = Endpoint::dialing(stranger, Wiring::real(LOOPBACK).unwrap()).unwrap();
    let error = dialer.connect(&server.address, key(1).public(), Lanes::CLIENT).await.unwrap_err();
    assert!(matches!(&error, ConnectError::WrongCluster(words) if words.contains("was met by cluster")), "{error}");
    assert!(error.is_permanent());
    assert_eq!(server.listener.stats().refused, 1);
}

#[tokio::test]
async fn an_unknown_key_is_refused_in_words() {
    let known = key(2).public();
    let server =
        server_with(Limits::default(), Arc::new(move |key: &PublicKey| (*key == known).then_some(Lanes::CLIENT)));
    let error = dialer(3).connect(&server.address, key(1).public(), Lanes::CLIENT).await.unwrap_err();
    assert!(matches!(&error, ConnectError::NotAllowed(words) if words.contains(&key(3).public().to_hex())), "{error}");
    assert!(dialer(2).connect(&server.address, key(1).public(), Lanes::CLIENT).await.is_ok());
}

#[tokio::test]
async fn a_server_with_another_key_is_refused_in_words_and_hears_of_it() {
    let server = server(Lanes::CLIENT);
    let error = dialer(2).connect(&server.address, key(7).public(), Lanes::CLIENT).await.unwrap_err();
    let ConnectError::WrongKey { expected, found, .. } = error else { panic!("{error}") };
    assert_eq!((expected, found), (key(7).public(), key(1).public()));
    while server.listener.stats().handshakes_failed == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn nobody_listening_is_said_after_the_time_out() {
    let silent = std::net::UdpSocket::bind(LOOPBACK).unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let limits = Limits { connect_timeout: Duration::from_millis(50), ..Limits::default() };
    let dialer = Endpoint::dialing(config(2, limits), Wiring::real(LOOPBACK).unwrap()).unwrap();
    let error = dialer.connect(&address, key(1).public(), Lanes::CLIENT).await.unwrap_err();
    assert_eq!(error, ConnectError::Unreachable { address });
    let error = dialer.connect("no port", key(1).public(), Lanes::CLIENT).await.unwrap_err();
    assert!(matches!(error, ConnectError::Resolve { .. }), "{error}");
}

#[tokio::test]
async fn a_key_holds_so_many_connections_and_its_newest_wins() {
    for lanes in [Lanes::CLIENT, Lanes::REPLICA] {
        let limits =
            Limits { client_connections_per_key_max: 2, replica_connections_per_key_max: 2, ..Limits::default() };
        let mut server = server_with(limits, allow(lanes));
        let dialer = dialer(2);
        let ((first, _), _accepted) = pair(&mut server, &dialer, lanes).await;
        let ((second, _), _accepted_too) = pair(&mut server, &dialer, lanes).await;
        let ((third, _), _accepted_as_well) = pair(&mut server, &dialer, lanes).await;
        let why = first.closed().await.to_string();
        assert!(why.contains("a newer connection of this key took its seat: a key has at most 2"), "{why}");
        assert!(!second.is_closed() && !third.is_closed());
        assert_eq!(server.listener.stats().displaced, 1);
        let stats = server.listener.stats();
        assert_eq!(stats.client_connections + stats.replica_connections, 2);
    }
}

#[tokio::test]
async fn one_key_cannot_take_all_seats() {
    let limits = Limits { client_connections_max: 3, ..Limits::default() };
    let mut server = server_with(limits, allow(Lanes::CLIENT));
    let (greedy, other) = (dialer(2), dialer(3));
    let ((first, _), _accepted) = pair(&mut server, &greedy, Lanes::CLIENT).await;
    let ((second, _), _accepted_too) = pair(&mut server, &greedy, Lanes::CLIENT).await;
    let ((third, _), _accepted_as_well) = pair(&mut server, &greedy, Lanes::CLIENT).await;
    let ((fourth, _), _accepted_last) = pair(&mut server, &other, Lanes::CLIENT).await;
    let why = first.closed().await.to_string();
    assert!(why.contains("all 3 seats are taken"), "{why}");
    assert!(!second.is_closed() && !third.is_closed() && !fourth.is_closed());
}

#[tokio::test]
async fn who_sent_most_of_what_is_not_read_is_closed_when_it_is_too_much() {
    let limits = Limits { client_receive_bytes_max: 3_000_000, ..Limits::default() };
    let mut server = server_with(limits, allow(Lanes::CLIENT));
    let (greedy, polite) = (dialer(2), dialer(3));
    let ((little, _), (_from_polite, mut polite_inbox)) = pair(&mut server, &polite, Lanes::CLIENT).await;
    little.send(Lane::Client, bytes(1_000, 7)).await.unwrap();
    let mut connections = Vec::new();
    // Each is within its own bounds, and nobody reads what they send.
    for _ in 0..4 {
        let (dialed, accepted) = pair(&mut server, &greedy, Lanes::CLIENT).await;
        dialed.0.send(Lane::Client, bytes(1_000_000, 1)).await.unwrap();
        connections.push((dialed, accepted));
    }
    let mut closed: Vec<_> = connections.iter().map(|((dialed, _), _)| Box::pin(dialed.closed())).collect();
    let why = std::future::poll_fn(|context| {
        closed
            .iter_mut()
            .find_map(|closed| match closed.as_mut().poll(context) {
                Poll::Ready(why) => Some(Poll::Ready(why)),
                Poll::Pending => None,
            })
            .unwrap_or(Poll::Pending)
    });
    let why = why.await.to_string();
    assert!(why.contains("most of it from here"), "{why}");
    assert!(!little.is_closed());
    assert_eq!(polite_inbox.recv().await, Some((Lane::Client, bytes(1_000, 7))));
}

#[tokio::test]
async fn the_slowest_of_those_that_use_up_the_budget_is_closed() {
    let limits = Limits { client_send_bytes_max: 5_000_000, ..Limits::default() };
    let mut server = server_with(limits, allow(Lanes::CLIENT));
    let (dialer_two, dialer_three) = (dialer(2), dialer(3));
    // The first does not read; the second does.
    let ((slow, _slow_inbox), (to_slow, _)) = pair(&mut server, &dialer_two, Lanes::CLIENT).await;
    let ((quick, mut quick_inbox), (to_quick, _)) = pair(&mut server, &dialer_three, Lanes::CLIENT).await;
    for _ in 0..100 {
        // Its own queue has room for more than the budget.
        if to_slow.try_send(Lane::Client, bytes(1 << 20, 0)).is_err() {
            break;
        }
        to_quick.send(Lane::Client, bytes(100_000, 0)).await.unwrap();
        assert!(quick_inbox.recv().await.is_some());
    }
    // Whether it hears why is its own affair: it does not read.
    assert!(to_slow.is_closed() && !to_quick.is_closed() && !quick.is_closed());
    drop(slow);
    to_quick.send(Lane::Client, bytes(5, 0)).await.unwrap();
    assert!(quick_inbox.recv().await.is_some());
}

#[tokio::test]
async fn a_link_that_takes_no_frames_ends_at_the_first() {
    let mut server = server(Lanes::REPLICA);
    let dialer = dialer(2);
    let (sender, mut events) = mpsc::channel(16);
    let address = server.address.clone();
    let to = LinkConfig { address, identity: key(1).public(), lanes: Lanes::REPLICA, tag: 7, takes_frames: false };
    let _link = Link::spawn(&dialer, to, sender);
    let (accepted, _inbox) = server.listener.accept().await.unwrap();
    assert!(matches!(events.recv().await, Some(LinkEvent::Up { tag: 7 })));
    accepted.send(Lane::Ordering, bytes(1, 1)).await.unwrap();
    let Some(LinkEvent::Down { tag: 7, why }) = events.recv().await else { panic!("the link is down") };
    assert!(why.to_string().contains("a frame on the ordering lane"), "{why}");
    let why = accepted.closed().await.to_string();
    assert!(why.contains("only this side speaks"), "{why}");
}

#[tokio::test]
async fn clients_do_not_take_the_replicas_seats() {
    let limits = Limits { client_connections_max: 0, ..Limits::default() };
    let replica = key(2).public();
    let lanes = move |key: &PublicKey| Some(if *key == replica { Lanes::REPLICA } else { Lanes::CLIENT });
    let server = server_with(limits, Arc::new(lanes));
    let error = dialer(3).connect(&server.address, key(1).public(), Lanes::CLIENT).await.unwrap_err();
    assert!(matches!(error, ConnectError::Busy(_)), "{error}");
    assert!(dialer(2).connect(&server.address, key(1).public(), Lanes::REPLICA).await.is_ok());
}

#[tokio::test]
async fn who_does_not_read_stops_the_sender() {
    let limits = Limits { receive_queue_bytes_max: 100_000, ..Limits::default() };
    let mut server = server_with(limits, allow(Lanes::REPLICA));
    let ((dialed, _), (_accepted, mut inbox)) = pair(&mut server, &dialer(2), Lanes::REPLICA).await;
    // The sender's queue, QUIC's window and the receiver's queue fill up; then nothing more is taken. The last frames
    // move from queue to window for a while: full is what stays full.
    let mut sent = 0u64;
    let mut still_full = 0;
    while still_full < 2_000 {
        match dialed.try_send(Lane::Transfer, bytes(10_000, 0)) {
            Ok(()) => {
                sent += 10_000;
                still_full = 0;
            }
            Err(SendError::Full) => still_full += 1,
            Err(error) => panic!("{error}"),
        }
        tokio::task::yield_now().await;
    }
    let held = Limits::default().send_queue_bytes_max as u64 + 3_000_000;
    assert!(sent <= held, "{sent} bytes were taken, {held} can be held");
    // The other lane does not wait.
    dialed.send(Lane::Ordering, bytes(3, 1)).await.unwrap();
    let mut transfer = 0u64;
    let mut before_ordering = None;
    while transfer < sent {
        match inbox.recv().await.unwrap() {
            (Lane::Transfer, frame) => transfer += frame.len() as u64,
            (lane, _) => {
                assert_eq!(lane, Lane::Ordering);
                before_ordering = Some(transfer);
            }
        }
    }
    assert!(before_ordering.is_some_and(|bytes| bytes < sent / 2), "ordering waited behind transfer");
    assert_eq!(transfer, sent);
}

#[tokio::test]
async fn what_is_queued_arrives_before_a_finished_connection_ends() {
    let mut server = server(Lanes::CLIENT);
    let ((dialed, _), (accepted, mut inbox)) = pair(&mut server, &dialer(2), Lanes::CLIENT).await;
    for _ in 0..100 {
        dialed.send(Lane::Client, bytes(10_000, 0)).await.unwrap();
    }
    let receiving = async {
        let mut frames = 0;
        while inbox.recv().await.is_some() {
            frames += 1;
        }
        frames
    };
    let ((), frames) = tokio::join!(dialed.finish("the client is done", Duration::from_secs(30)), receiving);
    assert_eq!(frames, 100);
    assert_eq!(dialed.try_send(Lane::Client, bytes(1, 0)), Err(SendError::Disconnected));
    let why = accepted.closed().await.to_string();
    assert!(why.contains("the client is done"), "{why}");
}

#[tokio::test]
async fn a_dropped_connection_is_closed() {
    let mut server = server(Lanes::CLIENT);
    let ((dialed, inbox), (accepted, mut accepted_inbox)) = pair(&mut server, &dialer(2), Lanes::CLIENT).await;
    drop((dialed, inbox));
    assert_eq!(accepted_inbox.recv().await, None);
    assert!(accepted.closed().await.to_string().contains("no longer needed"));
    assert!(accepted.is_closed());
}

#[tokio::test]
async fn a_link_comes_back_when_the_listener_restarts_elsewhere() {
    let mut first = server(Lanes::REPLICA);
    let place = Arc::new(Mutex::new(first.endpoint.local_address().unwrap()));
    let mut wiring = Wiring::real(LOOPBACK).unwrap();
    // The name is looked up anew at every attempt.
    let names = Arc::clone(&place);
    wiring.resolve = Arc::new(move |name| {
        assert_eq!(name, "replica-1:4433");
        let address = *names.lock().unwrap();
        Box::pin(async move { Ok(vec![address]) })
    });
    let moment = Duration::from_millis(50);
    let limits = Limits { back_off_max: moment, connect_timeout: 4 * moment, ..Limits::default() };
    let dialer = Endpoint::dialing(config(2, limits), wiring).unwrap();
    let (sender, mut events) = mpsc::channel(16);
    let address = "replica-1:4433".to_owned();
    let to = LinkConfig { address, identity: key(1).public(), lanes: Lanes::REPLICA, tag: 7, takes_frames: true };
    let link = Link::spawn(&dialer, to, sender);
    assert_eq!(link.try_send(Lane::Ordering, bytes(1, 0)), Err(SendError::Disconnected));

    assert!(matches!(events.recv().await, Some(LinkEvent::Up { tag: 7 })));
    let (accepted, mut inbox) = first.listener.accept().await.unwrap();
    link.try_send(Lane::Ordering, bytes(1, 1)).unwrap();
    assert_eq!(inbox.recv().await, Some((Lane::Ordering, bytes(1, 1))));
    accepted.send(Lane::Ordering, bytes(1, 2)).await.unwrap();
    let Some(LinkEvent::Frame { tag: 7, frame, .. }) = events.recv().await else { panic!("a frame") };
    assert_eq!(frame, bytes(1, 2));

    first.endpoint.close("stopping").await;
    let Some(LinkEvent::Down { tag: 7, why }) = events.recv().await else { panic!("the link is down") };
    assert!(why.to_string().contains("stopping"), "{why}");
    assert_eq!(link.try_send(Lane::Ordering, bytes(1, 0)), Err(SendError::Disconnected));

    let mut second = server(Lanes::REPLICA);
    *place.lock().unwrap() = second.endpoint.local_address().unwrap();
    let (_accepted, mut inbox) = second.listener.accept().await.unwrap();
    while !matches!(events.recv().await, Some(LinkEvent::Up { tag: 7 })) {}
    link.try_send(Lane::Ordering, bytes(1, 3)).unwrap();
    assert_eq!(inbox.recv().await, Some((Lane::Ordering, bytes(1, 3))));
    assert_eq!(link.status().connections, 2);
    assert!(link.status().last_error.is_some());

    drop(link);
    assert_eq!(inbox.recv().await, None);
}

/// A socket that can be made to send nothing more, as if its process had been killed.
#[derive(Debug)]
struct Mortal {
    socket: Arc<dyn AsyncUdpSocket>,
    is_dead: Arc<AtomicBool>,
}

impl AsyncUdpSocket for Mortal {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.is_dead.load(Ordering::Relaxed) { Ok(()) } else { self.socket.try_send(transmit) }
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_recv(context, buffers, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }
}

#[tokio::test]
async fn a_killed_and_restarted_listener_tells_its_old_peers_at_once() {
    // Nothing but the reset can end the connection within the test.
    let hour = Duration::from_secs(3_600);
    let limits = Limits { idle_timeout: hour, keep_alive: Duration::from_millis(20), ..Limits::default() };
    let is_dead = Arc::new(AtomicBool::new(false));
    let mut wiring = Wiring::real(LOOPBACK).unwrap();
    wiring.socket = Arc::new(Mortal { socket: wiring.socket, is_dead: Arc::clone(&is_dead) });
    let (endpoint, mut listener) =
        Endpoint::listening(config(1, limits.clone()), wiring, allow(Lanes::REPLICA)).unwrap();
    let address = endpoint.local_address().unwrap();
    let dialer = Endpoint::dialing(config(2, limits.clone()), Wiring::real(LOOPBACK).unwrap()).unwrap();
    let to = address.to_string();
    let (dialed, accepted) = tokio::join!(dialer.connect(&to, key(1).public(), Lanes::REPLICA), listener.accept());
    let (dialed, _inbox) = dialed.unwrap();

    is_dead.store(true, Ordering::Relaxed);
    drop((accepted, listener, endpoint));
    let wiring = loop {
        match Wiring::real(address) {
            Ok(wiring) => break wiring,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let _restarted = Endpoint::listening(config(1, limits), wiring, allow(Lanes::REPLICA)).unwrap();
    assert_eq!(dialed.closed().await.to_string(), "the peer was restarted");
}

#[tokio::test]
async fn handshakes_under_way_are_bounded() {
    // Nobody takes the connections: with one place, the second handshake is refused.
    let limits = Limits { handshakes_max: 1, ..Limits::default() };
    let server = server_with(limits, allow(Lanes::CLIENT));
    let dialer = dialer(2);
    let (_first, _inbox) = dialer.connect(&server.address, key(1).public(), Lanes::CLIENT).await.unwrap();
    let error = dialer.connect(&server.address, key(1).public(), Lanes::CLIENT).await.unwrap_err();
    assert!(matches!(error, ConnectError::Busy(_)), "{error}");
}

#[tokio::test]
async fn a_closed_endpoint_connects_no_more_and_accepts_no_more() {
    let mut server = server(Lanes::CLIENT);
    let dialer = dialer(2);
    dialer.close("done").await;
    let error = dialer.connect(&server.address, key(1).public(), Lanes::CLIENT).await.unwrap_err();
    assert_eq!(error, ConnectError::Closed);
    server.endpoint.close("done").await;
    assert!(server.listener.accept().await.is_none());
}
