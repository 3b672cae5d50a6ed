//! The one task of a client, and all its channels. It owns the machine, the links and the clock; nothing is locked.
//!
//! | channel | of | bound | when full |
//! | --- | --- | --- | --- |
//! | asks | [`Ask`] | [`ASKS_MAX`] | callers wait, at most as long as their call may take |
//! | events | [`LinkEvent`] | [`EVENTS_MAX`] | the links read nothing: the replicas' windows close |
//! | one a call | the outcome | 1 | never |

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use polder_transport::{Endpoint, Lane, Lanes, Link, LinkConfig, LinkEvent};
use polder_types::{Blob, ClusterFile, NodeFrame, Quorum, ReplicaId, SessionId, decode};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::error::{CallError, ConnectError, Unknown};
use crate::ledger::{CallId, Numbering};
use crate::machine::{Input, Machine, Output};

/// Asks that wait for the task.
const ASKS_MAX: usize = 1_024;
/// Events of all links together that wait for the task.
const EVENTS_MAX: usize = 256;
/// So many of each are taken before what they lead to is sent.
const TAKEN_MAX: usize = 256;
/// How long the task goes on to close its session when nobody waits for it.
const CLOSE_UNWATCHED: Duration = Duration::from_secs(1);

/// No wait is longer, whatever was asked for: so that no sum of times overflows.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(365 * 24 * 3_600);

/// What the owners of a client ask its task.
pub(crate) enum Ask {
    Call { number: Option<u64>, command: Blob, timeout: Duration, reply: oneshot::Sender<Outcome> },
    Close { within: Duration, done: oneshot::Sender<()> },
}

type Outcome = Result<Blob, CallError>;

/// The owners' end.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    asks: mpsc::Sender<Ask>,
    acknowledged: Arc<AtomicU64>,
    command_bytes_max: usize,
}

impl Handle {
    /// Has a command executed. Once the future was polled the command may be executed, even if it is dropped.
    pub(crate) async fn call(&self, number: Option<u64>, command: Vec<u8>, timeout: Duration) -> Outcome {
        if command.len() > self.command_bytes_max {
            return Err(CallError::TooLarge { bytes: command.len(), bytes_max: self.command_bytes_max });
        }
        let timeout = timeout.min(WAIT_MAX);
        let (reply, outcome) = oneshot::channel();
        let deadline = Instant::now() + timeout;
        let ask = Ask::Call { number, command: Blob::from(command), timeout, reply };
        match tokio::time::timeout_at(deadline, self.asks.send(ask)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(CallError::NotSent(CallError::CLOSED)),
            Err(_) => return Err(CallError::NotSent(CallError::TIMED_OUT)),
        }
        // The task answers every call by its deadline, or is gone.
        outcome.await.unwrap_or(Err(CallError::unknown(Unknown::Closed)))
    }

    /// Everything up to this number was answered, and its callers have stored it. Seen by the task before any call
    /// that is made after it.
    pub(crate) fn acknowledge(&self, number: u64) {
        self.acknowledged.fetch_max(number, Ordering::Release);
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Acquire)
    }

    pub(crate) async fn close(&self, within: Duration) {
        let (done, closed) = oneshot::channel();
        if self.asks.send(Ask::Close { within, done }).await.is_ok() {
            // Either it is closed, or the task is gone.
            drop(closed.await);
        }
    }
}

/// What a driver is started with.
pub(crate) struct Start {
    pub(crate) machine: Machine,
    pub(crate) numbering: Numbering,
    /// The session, if it is open already.
    pub(crate) session: Option<SessionId>,
    pub(crate) quorum: Quorum,
    pub(crate) endpoint: Endpoint,
    /// Up to which number all is acknowledged, if callers number.
    pub(crate) acknowledged: u64,
    pub(crate) frame_bytes_max: usize,
    pub(crate) connect_timeout: Duration,
}

/// Starts the task and waits until there is a session.
pub(crate) async fn start(start: Start, cluster: &ClusterFile) -> Result<(Handle, SessionId), ConnectError> {
    let (asks_sender, asks) = mpsc::channel(ASKS_MAX);
    let (events_sender, events) = mpsc::channel(EVENTS_MAX);
    let link = |(tag, replica): (usize, &polder_types::ReplicaEntry)| {
        let (address, identity) = (replica.address.clone(), replica.identity);
        let config = LinkConfig { address, identity, lanes: Lanes::CLIENT, tag, takes_frames: true };
        Link::spawn(&start.endpoint, config, events_sender.clone())
    };
    let links: Vec<Link> = cluster.replicas.iter().enumerate().map(link).collect();
    let acknowledged = Arc::new(AtomicU64::new(start.acknowledged));
    let handle = Handle {
        asks: asks_sender,
        acknowledged: Arc::clone(&acknowledged),
        command_bytes_max: start.machine.command_bytes_max(),
    };
    let (reply, connected) = oneshot::channel();
    let driver = Driver {
        machine: start.machine,
        numbering: start.numbering,
        quorum: start.quorum,
        endpoint: start.endpoint,
        frame_bytes_max: start.frame_bytes_max,
        reasons: vec![None; links.len()],
        links,
        asks: Some(asks),
        acknowledged,
        events,
        calls: BTreeMap::new(),
        next_call: 0,
        since: Instant::now(),
        connecting: Some(Connecting {
            reply,
            session: start.session,
            until: Instant::now() + start.connect_timeout.min(WAIT_MAX),
        }),
        closers: Vec::new(),
        close_until: None,
        is_over: false,
    };
    tokio::spawn(driver.run());
    let session = connected.await.unwrap_or(Err(ConnectError::TimedOut(Vec::new())))?;
    Ok((handle, session))
}

struct Driver {
    machine: Machine,
    numbering: Numbering,
    quorum: Quorum,
    endpoint: Endpoint,
    frame_bytes_max: usize,
    links: Vec<Link>,
    /// Why each replica is not connected, and whether trying again cannot help.
    reasons: Vec<Option<(String, bool)>>,
    /// None once all owners are gone.
    asks: Option<mpsc::Receiver<Ask>>,
    /// As the owners set it, ever larger.
    acknowledged: Arc<AtomicU64>,
    events: mpsc::Receiver<LinkEvent>,
    calls: BTreeMap<CallId, oneshot::Sender<Outcome>>,
    next_call: CallId,
    since: Instant,
    connecting: Option<Connecting>,
    closers: Vec<oneshot::Sender<()>>,
    close_until: Option<Instant>,
    is_over: bool,
}

/// Somebody waits for the session.
struct Connecting {
    reply: oneshot::Sender<Result<SessionId, ConnectError>>,
    session: Option<SessionId>,
    until: Instant,
}

impl Driver {
    async fn run(mut self) {
        let mut out = Vec::new();
        while !self.is_over {
            self.machine.flush(self.now_ms(), &mut out);
            self.act(&mut out);
            self.connect_or_give_up();
            if self.is_over {
                break;
            }
            self.wait(&mut out).await;
            self.take_events(&mut out);
            if self.act(&mut out) {
                // Who was just answered often calls again at once: that goes into the same request.
                tokio::task::yield_now().await;
            }
            self.take_asks(&mut out);
            self.act(&mut out);
        }
        self.machine.abandon(&mut out);
        self.act(&mut out);
        self.refuse_asks();
        drop(self.links);
        self.endpoint.close("the client is done").await;
        // Dropping them tells those who wait.
        drop(self.closers);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Waits for anything to happen, and takes it.
    async fn wait(&mut self, out: &mut Vec<Output>) {
        let machine_at = self.machine.deadline_ms().map(|at_ms| self.since + Duration::from_millis(at_ms));
        let connecting_at = self.connecting.as_ref().map(|connecting| connecting.until);
        let deadline = [machine_at, connecting_at, self.close_until].into_iter().flatten().min();
        let asks = self.asks.as_mut().filter(|_| self.machine.has_room());
        tokio::select! {
            biased;
            event = self.events.recv() => match event {
                Some(event) => self.event(event, out),
                None => self.is_over = true,
            },
            ask = next(asks) => self.ask(ask, out),
            () = until(deadline) => {}
        }
    }

    fn take_events(&mut self, out: &mut Vec<Output>) {
        for _ in 0..TAKEN_MAX {
            let Ok(event) = self.events.try_recv() else { return };
            self.event(event, out);
        }
    }

    fn take_asks(&mut self, out: &mut Vec<Output>) {
        for _ in 0..TAKEN_MAX {
            if !self.machine.has_room() {
                return;
            }
            match self.asks.as_mut().map(mpsc::Receiver::try_recv) {
                Some(Ok(ask)) => self.ask(Some(ask), out),
                Some(Err(mpsc::error::TryRecvError::Disconnected)) => return self.ask(None, out),
                Some(Err(mpsc::error::TryRecvError::Empty)) | None => return,
            }
        }
    }

    fn event(&mut self, event: LinkEvent, out: &mut Vec<Output>) {
        let now_ms = self.now_ms();
        let (tag, input) = match event {
            LinkEvent::Up { tag } => (tag, Some(Input::Up(replica(tag)))),
            LinkEvent::Down { tag, why } => {
                tracing::debug!(replica = %replica(tag), %why, "not connected");
                if let Some(reason) = self.reasons.get_mut(tag) {
                    *reason = Some((why.to_string(), why.is_permanent()));
                }
                return self.machine.step(now_ms, Input::Down(replica(tag)), out);
            }
            LinkEvent::Frame { tag, lane: Lane::Client, frame } => {
                let frame = decode::<NodeFrame>(&frame, self.frame_bytes_max);
                (tag, frame.ok().map(|frame| Input::Frame(replica(tag), frame)))
            }
            LinkEvent::Frame { .. } => return,
        };
        if let (Some(Input::Up(_)), Some(reason)) = (&input, self.reasons.get_mut(tag)) {
            *reason = None;
        }
        match input {
            Some(input) => self.machine.step(now_ms, input, out),
            None => tracing::debug!(replica = %replica(tag), "said what is no frame"),
        }
    }

    fn ask(&mut self, ask: Option<Ask>, out: &mut Vec<Output>) {
        let now_ms = self.now_ms();
        match ask {
            Some(Ask::Call { number, command, timeout, reply }) => {
                let call = self.next_call;
                self.next_call += 1;
                self.calls.insert(call, reply);
                let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
                let deadline_ms = now_ms.saturating_add(timeout_ms);
                let acknowledged = self.acknowledged.load(Ordering::Acquire);
                self.machine.step(now_ms, Input::Acknowledge(acknowledged), out);
                self.machine.step(now_ms, Input::Submit { call, number, command, deadline_ms }, out);
            }
            Some(Ask::Close { within, done }) => {
                self.closers.push(done);
                self.begin_to_close(within, out);
            }
            None => {
                self.asks = None;
                match self.numbering {
                    Numbering::Own => self.begin_to_close(CLOSE_UNWATCHED, out),
                    // The session is to be resumed.
                    Numbering::Callers => self.is_over = true,
                }
            }
        }
    }

    /// What was asked and not taken was never sent.
    fn refuse_asks(&mut self) {
        let Some(mut asks) = self.asks.take() else { return };
        asks.close();
        while let Ok(ask) = asks.try_recv() {
            match ask {
                Ask::Call { reply, .. } => drop(reply.send(Err(CallError::NotSent(CallError::CLOSED)))),
                // Dropping it tells who waits.
                Ask::Close { done, .. } => drop(done),
            }
        }
    }

    fn begin_to_close(&mut self, within: Duration, out: &mut Vec<Output>) {
        let until = Instant::now() + within.min(WAIT_MAX);
        self.close_until = Some(self.close_until.map_or(until, |earlier| earlier.max(until)));
        self.machine.step(self.now_ms(), Input::Close, out);
    }

    /// Does what the machine wants. Returns whether a call has ended.
    fn act(&mut self, out: &mut Vec<Output>) -> bool {
        let mut finished = false;
        for output in out.drain(..) {
            match output {
                Output::Send { to, frame } => {
                    if let Some(link) = self.links.get(usize::from(to.0))
                        && let Err(error) = link.try_send(Lane::Client, frame)
                    {
                        // The courier sends it again.
                        tracing::debug!(replica = %to, %error, "a frame was not sent");
                    }
                }
                Output::Finished { call, outcome } => {
                    finished = true;
                    if let Some(reply) = self.calls.remove(&call) {
                        // Whoever gave up does not wait for it.
                        drop(reply.send(outcome));
                    }
                }
                Output::Opened(session) => self.connecting.take().into_iter().for_each(|who| who.tell(Ok(session))),
                Output::Refused(failure) => {
                    if let Some(connecting) = self.connecting.take() {
                        connecting.tell(Err(ConnectError::Refused(failure)));
                        self.is_over = true;
                    }
                }
                Output::Closed => self.is_over = true,
            }
        }
        self.is_over |= self.close_until.is_some_and(|until| until <= Instant::now());
        finished
    }

    /// Tells who waits for a session that it is resumed, or that it cannot be had.
    fn connect_or_give_up(&mut self) {
        let Some(Connecting { session, until, .. }) = &self.connecting else { return };
        let resumed = session.filter(|_| self.machine.up_count() >= self.quorum.weak());
        let outcome = match resumed {
            Some(session) => Ok(session),
            None if self.is_turned_away() => Err(ConnectError::TurnedAway(self.said(true))),
            None if *until <= Instant::now() => Err(ConnectError::TimedOut(self.said(false))),
            None => return,
        };
        self.is_over |= outcome.is_err();
        self.connecting.take().into_iter().for_each(|who| who.tell(outcome.clone()));
    }

    /// Whether too few replicas are left that might let this client in; one that lies cannot make it so.
    fn is_turned_away(&self) -> bool {
        let weak = self.quorum.weak();
        let refusals = self.reasons.iter().flatten().filter(|(_, is_permanent)| *is_permanent).count();
        let all_failed = self.reasons.iter().all(Option::is_some);
        refusals > self.reasons.len().saturating_sub(weak) || (refusals >= weak && all_failed)
    }

    /// What each replica that is not connected said.
    fn said(&self, only_permanent: bool) -> Vec<(ReplicaId, String)> {
        let said = |(tag, reason): (usize, &Option<(String, bool)>)| match reason {
            Some((why, is_permanent)) if *is_permanent || !only_permanent => Some((replica(tag), why.clone())),
            Some(_) => None,
            None if only_permanent => None,
            None if self.links.get(tag).is_some_and(|link| link.status().connected) => {
                Some((replica(tag), "connected, but without an answer".to_owned()))
            }
            None => Some((replica(tag), "no answer yet".to_owned())),
        };
        self.reasons.iter().enumerate().filter_map(said).collect()
    }
}

impl Connecting {
    fn tell(self, outcome: Result<SessionId, ConnectError>) {
        // Whoever gave up does not wait for it.
        drop(self.reply.send(outcome));
    }
}

/// The replica of a link's tag: links are made one a replica, in order.
fn replica(tag: usize) -> ReplicaId {
    ReplicaId(u8::try_from(tag).unwrap_or(u8::MAX))
}

async fn next(asks: Option<&mut mpsc::Receiver<Ask>>) -> Option<Ask> {
    match asks {
        Some(asks) => asks.recv().await,
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
