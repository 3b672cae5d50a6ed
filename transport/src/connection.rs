//! A connection: lanes of frames over QUIC streams, with bounded queues on both sides.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use polder_types::PublicKey;
use quinn::VarInt;
use tokio::sync::Notify;

use crate::budget::{Account, Budget, Budgets};
use crate::frame::{Decoder, TooLarge, WRITE_BYTES, join};
use crate::hello::{Code, describe, end};
use crate::queue::{Bound, Queue, Refused};
use crate::{Ended, Lane, Lanes, Limits, SendError};

/// The window of a stream: quinn's default. Larger ones make many small writes dear.
const STREAM_WINDOW_BYTES: u32 = 1_250_000;

/// What QUIC holds for a client's connection in either direction: it counts in no budget, and there may be many.
const CLIENT_WINDOW_BYTES: u32 = 256 << 10;

/// One queue a lane, where the connection has that lane; in order of [`Lane::index`].
type Queues = [Option<Arc<Queue>>; 3];

/// An authenticated connection: the sending half, shared by cloning. When the last clone is dropped the connection
/// is closed.
#[derive(Clone, Debug)]
pub struct Connection {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    quic: quinn::Connection,
    peer: PublicKey,
    limits: Limits,
    queues: Queues,
    counters: Arc<Counters>,
}

/// The receiving half of a connection. When it is dropped, nothing more is received.
#[derive(Debug)]
pub struct Inbox {
    queues: Queues,
    readable: Arc<Notify>,
    counters: Arc<Counters>,
    turn: u32,
}

/// What a connection did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionStats {
    /// Frames given to QUIC.
    pub frames_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Frames refused because a queue was full.
    pub frames_refused: u64,
    /// Frames handed out by the inbox.
    pub frames_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
    /// The round trip, as QUIC measures it.
    pub round_trip: Duration,
}

#[derive(Debug, Default)]
struct Counters {
    frames_sent: AtomicU64,
    bytes_sent: AtomicU64,
    frames_refused: AtomicU64,
    frames_received: AtomicU64,
    bytes_received: AtomicU64,
}

impl Connection {
    /// Starts the tasks of a connection whose hellos were exchanged. What waits to be sent, and what was received
    /// and not yet read, counts in `budgets`, if there are any; the connection is ended in words when it holds most of
    /// what used one up.
    pub(crate) fn start(
        quic: quinn::Connection,
        peer: PublicKey,
        lanes: Lanes,
        limits: &Limits,
        budgets: Option<&Budgets>,
    ) -> (Connection, Inbox) {
        // Until now a stranger could make us hold little; from here on each lane has its window.
        let windows = STREAM_WINDOW_BYTES.saturating_mul(u32::try_from(lanes.iter().count()).unwrap_or(1));
        let (receive_window, send_window) = match budgets {
            Some(_) => (CLIENT_WINDOW_BYTES, CLIENT_WINDOW_BYTES),
            None => (windows, windows.saturating_mul(2)),
        };
        quic.set_receive_window(VarInt::from_u32(receive_window));
        quic.set_send_window(send_window.into());

        let counters = Arc::new(Counters::default());
        let readable = Arc::new(Notify::new());
        let send_bound = Bound { frames: limits.queue_frames_max, bytes: limits.send_queue_bytes_max };
        let account = |budget: &Arc<Budget>, words: &'static str| {
            let quic = quic.clone();
            budget.open(peer, move || end(&quic, Code::TooSlow, words))
        };
        let account_to_send =
            || budgets.map(|all| account(&all.sending, "too much waits to be sent, and most of it here"));
        let account_to_read = || {
            budgets
                .map(|all| account(&all.receiving, "too much was sent that is not read yet, and most of it from here"))
        };
        let sending = queues(lanes, || Queue::new(send_bound, account_to_send(), Arc::default()));
        let receive_bytes_max = match budgets {
            Some(_) => limits.receive_queue_bytes_max.min(limits.client_frame_bytes_max),
            None => limits.receive_queue_bytes_max,
        };
        let receive_bound = Bound { frames: limits.queue_frames_max, bytes: receive_bytes_max };
        let receiving = queues(lanes, || Queue::new(receive_bound, account_to_read(), Arc::clone(&readable)));

        for (lane, queue) in pairs(&sending) {
            tokio::spawn(write_lane(quic.clone(), lane, queue, Arc::clone(&counters)));
        }
        let unfinished = lanes.iter().map(|_| account_to_read()).collect();
        tokio::spawn(accept_lanes(quic.clone(), receiving.clone(), limits.clone(), unfinished));
        let inbox = Inbox { queues: receiving, readable, counters: Arc::clone(&counters), turn: 0 };
        let shared = Shared { quic, peer, limits: limits.clone(), queues: sending, counters };
        (Connection { shared: Arc::new(shared) }, inbox)
    }

    /// The peer's identity, as proved in the handshake.
    #[must_use]
    pub fn peer(&self) -> PublicKey {
        self.shared.peer
    }

    /// The peer's address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.shared.quic.remote_address()
    }

    /// Queues a frame; never waits.
    ///
    /// That a frame was taken means that it will be sent if the connection lasts, and nothing more.
    ///
    /// # Errors
    ///
    /// [`SendError::Full`] when the lane's queue is full, [`SendError::Disconnected`] when the connection has ended,
    /// [`SendError::TooLarge`] or [`SendError::NoSuchLane`] when the frame can never be sent. The frame is dropped.
    pub fn try_send(&self, lane: Lane, frame: Bytes) -> Result<(), SendError> {
        let queue = self.queue(lane, &frame)?;
        queue.try_push(frame).map_err(|refused| self.refused(refused))
    }

    /// Queues a frame, waiting for room.
    ///
    /// # Cancel safety
    ///
    /// A future dropped before it is ready has queued nothing.
    ///
    /// # Errors
    ///
    /// As [`Connection::try_send`], but never [`SendError::Full`].
    pub async fn send(&self, lane: Lane, frame: Bytes) -> Result<(), SendError> {
        let queue = self.queue(lane, &frame)?;
        queue.push(frame).await.map_err(|refused| self.refused(refused))
    }

    /// Ends the connection at once, with words for the peer. What is queued is lost.
    pub fn close(&self, reason: &str) {
        end(&self.shared.quic, Code::Goodbye, reason);
    }

    /// Ends the connection at once: the peer did what no correct peer does, and is told what.
    pub(crate) fn violated(&self, words: &str) {
        end(&self.shared.quic, Code::Violation, words);
    }

    /// Takes no more frames, waits until the peer has received what is queued, for at most `within`, and ends the
    /// connection with words for the peer.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, no more frames are taken, what is queued is still sent, and the connection stays
    /// open until [`Connection::close`] or the last clone is dropped.
    pub async fn finish(&self, reason: &str, within: Duration) {
        for (_, queue) in pairs(&self.shared.queues) {
            queue.close();
        }
        let all_sent = async {
            for (_, queue) in pairs(&self.shared.queues) {
                queue.until_done().await;
            }
        };
        if tokio::time::timeout(within, all_sent).await.is_err() {
            tracing::debug!(peer = %self.peer(), "closed before the peer had received everything");
        }
        self.close(reason);
    }

    /// Waits until the connection has ended and says why. Cancel safe.
    pub async fn closed(&self) -> Ended {
        Ended(describe(&self.shared.quic.closed().await))
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.quic.close_reason().is_some()
    }

    /// How many bytes wait to be sent on a lane.
    #[must_use]
    pub fn waiting(&self, lane: Lane) -> usize {
        let queue = self.shared.queues.get(lane.index()).and_then(Option::as_deref);
        queue.map_or(0, Queue::bytes)
    }

    /// What the connection did so far.
    #[must_use]
    pub fn stats(&self) -> ConnectionStats {
        let counters = &self.shared.counters;
        ConnectionStats {
            frames_sent: counters.frames_sent.load(Ordering::Relaxed),
            bytes_sent: counters.bytes_sent.load(Ordering::Relaxed),
            frames_refused: counters.frames_refused.load(Ordering::Relaxed),
            frames_received: counters.frames_received.load(Ordering::Relaxed),
            bytes_received: counters.bytes_received.load(Ordering::Relaxed),
            round_trip: self.shared.quic.rtt(),
        }
    }

    fn queue(&self, lane: Lane, frame: &Bytes) -> Result<&Queue, SendError> {
        let bytes_max = self.shared.limits.frame_bytes_max(lane);
        if frame.len() > bytes_max {
            return Err(SendError::TooLarge { bytes: frame.len(), bytes_max });
        }
        self.shared.queues.get(lane.index()).and_then(Option::as_deref).ok_or(SendError::NoSuchLane)
    }

    fn refused(&self, refused: Refused) -> SendError {
        match refused {
            Refused::Full => {
                self.shared.counters.frames_refused.fetch_add(1, Ordering::Relaxed);
                SendError::Full
            }
            Refused::Closed => SendError::Disconnected,
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        end(&self.quic, Code::Goodbye, "the connection is no longer needed");
    }
}

impl Inbox {
    /// After so many frames the least urgent lane goes first once, so that it is never starved.
    const FAIR_TURN: u32 = 16;

    /// The next frame, of the most urgent lane that has one; none when the connection has ended and everything that
    /// had arrived was handed out.
    ///
    /// # Cancel safety
    ///
    /// No frame is lost when the future is dropped.
    pub async fn recv(&mut self) -> Option<(Lane, Bytes)> {
        let readable = Arc::clone(&self.readable);
        loop {
            let mut more = std::pin::pin!(readable.notified());
            more.as_mut().enable();
            if let Some(found) = self.try_recv() {
                return Some(found);
            }
            if pairs(&self.queues).all(|(_, queue)| queue.is_over()) {
                return None;
            }
            more.await;
        }
    }

    /// As [`Inbox::recv`], without waiting; none when nothing is there at the moment.
    pub fn try_recv(&mut self) -> Option<(Lane, Bytes)> {
        let mut order = Lane::ALL;
        if self.turn >= Self::FAIR_TURN {
            order.reverse();
        }
        for lane in order {
            let popped = self.queues.get(lane.index()).and_then(Option::as_ref).and_then(|queue| queue.try_pop());
            if let Some(frame) = popped {
                self.turn = if self.turn >= Self::FAIR_TURN { 0 } else { self.turn + 1 };
                self.counters.frames_received.fetch_add(1, Ordering::Relaxed);
                self.counters.bytes_received.fetch_add(frame.len() as u64, Ordering::Relaxed);
                return Some((lane, frame));
            }
        }
        None
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        for (_, queue) in pairs(&self.queues) {
            queue.abandon();
        }
    }
}

fn queues(lanes: Lanes, new: impl Fn() -> Queue) -> Queues {
    let mut queues = Queues::default();
    for lane in lanes.iter() {
        if let Some(place) = queues.get_mut(lane.index()) {
            *place = Some(Arc::new(new()));
        }
    }
    queues
}

fn pairs(queues: &Queues) -> impl Iterator<Item = (Lane, Arc<Queue>)> + '_ {
    Lane::ALL.into_iter().filter_map(|lane| Some((lane, Arc::clone(queues.get(lane.index())?.as_ref()?))))
}

/// Sends what is queued on a lane until the queue is closed and empty, or the connection ends.
async fn write_lane(quic: quinn::Connection, lane: Lane, queue: Arc<Queue>, counters: Arc<Counters>) {
    let ended = async {
        let why = quic.closed().await;
        tracing::trace!(%lane, %why, "nothing more can be sent");
    };
    let writing = async {
        if let Err(error) = write_frames(&quic, lane, &queue, &counters).await {
            tracing::trace!(%lane, %error, "the lane ended");
        }
    };
    tokio::select! {
        biased;
        () = writing => {}
        () = ended => {}
    }
    queue.set_done();
}

async fn write_frames(
    quic: &quinn::Connection,
    lane: Lane,
    queue: &Queue,
    counters: &Counters,
) -> Result<(), quinn::WriteError> {
    let mut popped = queue.pop_some(WRITE_BYTES).await;
    if popped.frames.is_empty() {
        return Ok(());
    }
    let mut stream = quic.open_uni().await?;
    stream.set_priority(lane.priority())?;
    stream.write_all(&[lane.tag()]).await?;
    while !popped.frames.is_empty() {
        stream.write_all_chunks(&mut join(&popped.frames)).await?;
        counters.frames_sent.fetch_add(popped.frames.len() as u64, Ordering::Relaxed);
        let bytes: usize = popped.frames.iter().map(Bytes::len).sum();
        counters.bytes_sent.fetch_add(bytes as u64, Ordering::Relaxed);
        // Given back before more is taken.
        drop(popped);
        popped = queue.pop_some(WRITE_BYTES).await;
    }
    stream.finish()?;
    // Resolves when the peer has received everything, or wants no more.
    let stopped = stream.stopped().await;
    tracing::trace!(%lane, ?stopped, "the lane is finished");
    Ok(())
}

/// Gives each stream that the peer opens to the reader of its lane, with an account for its unfinished frame.
async fn accept_lanes(quic: quinn::Connection, queues: Queues, limits: Limits, mut unfinished: Vec<Option<Account>>) {
    let mut unopened = queues.clone();
    while let Ok(mut stream) = quic.accept_uni().await {
        // The tag travels with the first frame; a peer that sends nothing else stalls only its own later lanes.
        let mut tag = [0];
        if stream.read_exact(&mut tag).await.is_err() {
            continue;
        }
        let [tag] = tag;
        let lane = Lane::of_tag(tag);
        let queue = lane.and_then(|lane| unopened.get_mut(lane.index())).and_then(Option::take);
        let (Some(lane), Some(queue)) = (lane, queue) else {
            end(&quic, Code::Violation, "a lane that this connection does not have, or opened twice");
            break;
        };
        let decoder = Decoder::new(limits.frame_bytes_max(lane));
        tokio::spawn(read_lane(quic.clone(), stream, decoder, queue, unfinished.pop().flatten()));
    }
    for (_, queue) in pairs(&unopened) {
        queue.close();
    }
}

/// Receives the frames of a lane until the stream or the connection ends. While the queue is full the stream is not
/// read, so that its window closes and the peer waits.
async fn read_lane(
    quic: quinn::Connection,
    mut stream: quinn::RecvStream,
    mut decoder: Decoder,
    queue: Arc<Queue>,
    account: Option<Account>,
) {
    // So many packets are taken under one lock.
    let mut chunks: [Bytes; 32] = Default::default();
    'reading: while let Ok(Some(count)) = stream.read_chunks(&mut chunks).await {
        for chunk in chunks.iter_mut().take(count) {
            let chunk = std::mem::take(chunk);
            decoder.push(&chunk);
            if let Some(account) = &account {
                account.add(chunk.len());
            }
        }
        loop {
            match decoder.next() {
                Ok(Some(frame)) => {
                    // With the four bytes of its length. In the queue it has another account.
                    let bytes = frame.len() + 4;
                    if queue.push(frame).await.is_err() {
                        break 'reading;
                    }
                    if let Some(account) = &account {
                        account.remove(bytes);
                    }
                }
                Ok(None) => break,
                Err(TooLarge { bytes, bytes_max }) => {
                    let words = format!("a frame of {bytes} bytes; at most {bytes_max} are taken here");
                    end(&quic, Code::Violation, &words);
                    break 'reading;
                }
            }
        }
    }
    queue.close();
}
