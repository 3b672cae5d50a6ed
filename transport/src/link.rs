//! A link: one connection to an address and identity, kept alive.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use polder_types::PublicKey;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::{ConnectError, Connection, Endpoint, Inbox, Lane, Lanes, SendError};

/// To whom a link is.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// `host:port`; a name is looked up anew at every attempt.
    pub address: String,
    /// The key that the peer must hold.
    pub identity: PublicKey,
    /// The lanes.
    pub lanes: Lanes,
    /// What its events carry, to tell links apart.
    pub tag: usize,
    /// Whether the peer may answer on it. If not, the first frame that comes in ends the connection: what nobody waits
    /// for must not pile up.
    pub takes_frames: bool,
}

/// What happens to a link. Where nobody receives the events, the link ends.
#[derive(Clone, Debug)]
pub enum LinkEvent {
    /// There is a connection: frames can be sent.
    Up {
        /// The link's tag.
        tag: usize,
    },
    /// A frame came in, on a link that takes frames.
    Frame {
        /// The link's tag.
        tag: usize,
        /// The lane.
        lane: Lane,
        /// The frame.
        frame: Bytes,
    },
    /// The connection ended, or an attempt to make one failed. Another attempt follows by itself.
    Down {
        /// The link's tag.
        tag: usize,
        /// Why.
        why: ConnectError,
    },
}

/// How a link fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkStatus {
    /// Whether there is a connection now.
    pub connected: bool,
    /// Attempts to connect so far.
    pub attempts: u64,
    /// Connections made so far.
    pub connections: u64,
    /// Why the last attempt failed or the last connection ended.
    pub last_error: Option<String>,
}

/// Keeps one connection to an address and identity alive, with exponential back-off and jitter. While there is none,
/// what is sent is dropped: nothing piles up. When the link is dropped, its connection is closed.
#[derive(Debug)]
pub struct Link {
    state: Arc<Mutex<State>>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    connection: Option<Connection>,
    status: LinkStatus,
}

impl Link {
    /// Starts a link. Its events go to `events`; while that channel is full, the link reads nothing.
    #[must_use]
    pub fn spawn(endpoint: &Endpoint, config: LinkConfig, events: mpsc::Sender<LinkEvent>) -> Self {
        let state = Arc::new(Mutex::default());
        let runner = Runner { endpoint: endpoint.clone(), config, events, state: Arc::clone(&state) };
        Self { state, task: tokio::spawn(runner.run()) }
    }

    /// Queues a frame on the connection; never waits.
    ///
    /// # Errors
    ///
    /// [`SendError::Disconnected`] when there is no connection, else as [`Connection::try_send`]. The frame is
    /// dropped.
    pub fn try_send(&self, lane: Lane, frame: Bytes) -> Result<(), SendError> {
        match &lock(&self.state).connection {
            Some(connection) => connection.try_send(lane, frame),
            None => Err(SendError::Disconnected),
        }
    }

    /// The connection, if there is one now.
    #[must_use]
    pub fn connection(&self) -> Option<Connection> {
        lock(&self.state).connection.clone()
    }

    /// How the link fares.
    #[must_use]
    pub fn status(&self) -> LinkStatus {
        lock(&self.state).status.clone()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(connection) = lock(&self.state).connection.take() {
            connection.close("the link is no longer needed");
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Runner {
    endpoint: Endpoint,
    config: LinkConfig,
    events: mpsc::Sender<LinkEvent>,
    state: Arc<Mutex<State>>,
}

impl Runner {
    async fn run(self) {
        let limits = &self.endpoint.inner.limits;
        let mut wait = limits.back_off_first;
        loop {
            lock(&self.state).status.attempts += 1;
            let attempt = self.endpoint.connect(&self.config.address, self.config.identity, self.config.lanes).await;
            let why = match attempt {
                Ok((connection, inbox)) => {
                    let since = Instant::now();
                    let Some(why) = self.serve(connection, inbox).await else { return };
                    // A connection that lasted shows that the peer is well; one that is closed at once does not.
                    if since.elapsed() >= limits.back_off_max {
                        wait = limits.back_off_first;
                    }
                    why
                }
                Err(why) => why,
            };
            if why == ConnectError::Closed {
                return;
            }
            if why.is_permanent() {
                wait = limits.back_off_max;
            }
            lock(&self.state).status.last_error = Some(why.to_string());
            if self.events.send(LinkEvent::Down { tag: self.config.tag, why }).await.is_err() {
                return;
            }
            tokio::time::sleep(self.jittered(wait)).await;
            wait = wait.saturating_mul(2).min(limits.back_off_max);
        }
    }

    /// Hands on what the connection brings until it ends; none when nobody receives it any more.
    async fn serve(&self, connection: Connection, mut inbox: Inbox) -> Option<ConnectError> {
        let tag = self.config.tag;
        {
            let mut state = lock(&self.state);
            state.connection = Some(connection.clone());
            state.status.connected = true;
            state.status.connections += 1;
        }
        let mut event = LinkEvent::Up { tag };
        let mut violation = None;
        let heard = loop {
            if self.events.send(event).await.is_err() {
                break false;
            }
            match inbox.recv().await {
                Some((lane, frame)) if self.config.takes_frames => event = LinkEvent::Frame { tag, lane, frame },
                Some((lane, _)) => {
                    let words = format!("a frame on the {lane} lane of a connection on which only this side speaks");
                    connection.violated(&words);
                    violation = Some(words);
                    break true;
                }
                None => break true,
            }
        };
        {
            let mut state = lock(&self.state);
            state.connection = None;
            state.status.connected = false;
        }
        // A peer that ended its streams but not the connection says nothing more either.
        connection.close("nothing more is sent");
        let why = connection.closed().await;
        heard.then(|| ConnectError::Failed(violation.unwrap_or_else(|| why.to_string())))
    }

    /// Between half of it and all of it, so that peers that lost the same node do not return in step.
    fn jittered(&self, wait: Duration) -> Duration {
        let most = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.endpoint.inner.random.between(most / 2, most))
    }
}
