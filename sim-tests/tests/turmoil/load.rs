//! The load: clients with several callers each, what they asked for, and what they came to believe.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use polder_client::{CallError, Client};
use polder_sim_tests::history::{Command, History, Operation};
use polder_sim_tests::random::Random;
use polder_sim_tests::service::Lists;
use polder_types::{Answer, Blob, ClusterFile, SigningKey, Wire as _};
use tokio::time::Instant;

use crate::machine::Plug;
use crate::network::Network;

/// How long a call may take.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(8);
/// How long connecting may take.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long closing may take.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// What the clocks here are coarser than.
const SLACK: Duration = Duration::from_millis(20);
/// Keys that are written.
const KEYS: u64 = 6;

/// What all clients write down.
pub(crate) struct Book {
    network: Arc<Network>,
    pages: Mutex<Pages>,
}

#[derive(Default)]
struct Pages {
    history: History,
    next_id: u64,
    /// Appends that were certainly not executed, as the client said.
    not_executed: Vec<u64>,
    answered: usize,
    under_way: usize,
    has_stopped: bool,
    complaints: Vec<String>,
}

impl Book {
    pub(crate) fn new(network: &Arc<Network>) -> Arc<Self> {
        Arc::new(Self { network: Arc::clone(network), pages: Mutex::default() })
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_us(&self) -> u64 {
        self.network.now_ms() * 1_000
    }

    /// No client begins anything from now on.
    pub(crate) fn stop(&self) {
        self.pages().has_stopped = true;
    }

    fn has_stopped(&self) -> bool {
        self.pages().has_stopped
    }

    /// Commands that were answered so far.
    pub(crate) fn answered(&self) -> usize {
        self.pages().answered
    }

    /// Commands of one client that were answered so far.
    pub(crate) fn answered_to(&self, client: usize) -> usize {
        let pages = self.pages();
        let answered = pages.history.operations.iter().filter(|operation| operation.answered.is_some());
        answered.filter(|operation| operation.client == client).count()
    }

    /// Clients that have not left.
    pub(crate) fn under_way(&self) -> usize {
        self.pages().under_way
    }

    /// A client has lost its power: its calls never end.
    pub(crate) fn lost(&self) {
        self.pages().under_way -= 1;
    }

    /// Something that must not be.
    pub(crate) fn complain(&self, what: String) {
        self.network.note(format_args!("! {what}"));
        self.pages().complaints.push(what);
    }

    pub(crate) fn complaints(&self) -> Vec<String> {
        self.pages().complaints.clone()
    }

    /// The history, and which appends were certainly not executed.
    pub(crate) fn history(&self) -> (History, Vec<u64>) {
        let pages = self.pages();
        (pages.history.clone(), pages.not_executed.clone())
    }

    fn begin(&self, client: usize, random: &mut Random) -> (usize, Command) {
        let invoked_us = self.now_us();
        let mut pages = self.pages();
        let mut id = || {
            pages.next_id += 1;
            pages.next_id
        };
        let mut key = || random.below(KEYS as usize) as u64;
        let (first, second) = (key(), key());
        let command = match random.range(0, 9) {
            0..=4 => Command::Append { key: first, id: id() },
            5..=6 => Command::AppendBoth { first, second, id: id() },
            _ => Command::Read { key: first },
        };
        self.network.note(format_args!("c{client} {command}"));
        pages.history.operations.push(Operation { client, command, invoked_us, answered: None });
        (pages.history.operations.len() - 1, command)
    }

    fn end(&self, number: usize, outcome: Result<polder_sim_tests::history::Reply, CallError>, took: Duration) {
        let now_us = self.now_us();
        if took > CALL_TIMEOUT + SLACK {
            self.complain(format!("a call took {took:?}, and may take {CALL_TIMEOUT:?}"));
        }
        let mut pages = self.pages();
        let Some(operation) = pages.history.operations.get_mut(number) else { return };
        self.network.note(format_args!("c{} {} = {outcome:?}", operation.client, operation.command));
        match outcome {
            Ok(reply) => {
                operation.answered = Some((now_us, Answer::Done(Blob::from(reply.to_wire()))));
                pages.answered += 1;
            }
            Err(CallError::Rejected(failure)) => operation.answered = Some((now_us, Answer::Failed(failure))),
            Err(error) if error.is_not_executed() => {
                let id = operation.command.appends().map(|(id, _)| id);
                pages.not_executed.extend(id);
            }
            // It may have been executed, or not.
            Err(error) if error.is_outcome_unknown() => {}
            Err(error) => pages.complaints.push(error.to_string()),
        }
    }
}

/// What a client does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habits {
    /// Callers that call at the same time.
    pub(crate) callers: usize,
    /// About how long each waits before it calls again.
    pub(crate) think_ms: u64,
}

/// The life of a client: it connects, however often it must try, and calls until it is told to stop.
pub(crate) async fn live(
    who: usize,
    habits: Habits,
    (cluster, key): (ClusterFile, SigningKey),
    plug: Plug,
    book: Arc<Book>,
    mut random: Random,
) {
    while !book.has_stopped() {
        let builder = plug.client(&cluster, &key).call_timeout(CALL_TIMEOUT).close_timeout(CLOSE_TIMEOUT);
        let started = Instant::now();
        match builder.connect_timeout(CONNECT_TIMEOUT).connect::<Lists>().await {
            Ok(client) => {
                book.network.note(format_args!("c{who} has a session"));
                let callers: Vec<_> = (0..habits.callers)
                    .map(|_| {
                        let random = Random::new(random.bits(), polder_sim_tests::random::Purpose::Workload);
                        tokio::spawn(call(who, habits.think_ms, client.clone(), book.clone(), random))
                    })
                    .collect();
                for caller in callers {
                    if caller.await.is_err() {
                        book.complain("a caller panicked".to_owned());
                    }
                }
                let closing = Instant::now();
                client.close().await;
                if closing.elapsed() > CLOSE_TIMEOUT + SLACK {
                    book.complain(format!("closing took {:?}", closing.elapsed()));
                }
            }
            Err(error) => {
                book.network.note(format_args!("c{who} {error}"));
                if started.elapsed() > CONNECT_TIMEOUT + SLACK {
                    book.complain(format!("connecting took {:?}", started.elapsed()));
                }
            }
        }
    }
    book.pages().under_way -= 1;
}

async fn call(who: usize, think_ms: u64, client: Client<Lists>, book: Arc<Book>, mut random: Random) {
    while !book.has_stopped() {
        let (number, command) = book.begin(who, &mut random);
        let started = Instant::now();
        let outcome = client.call(&command).await;
        book.end(number, outcome, started.elapsed());
        tokio::time::sleep_until(Instant::now() + Duration::from_millis(random.around(think_ms))).await;
    }
}

/// Counts a client in before it lives.
pub(crate) fn enter(book: &Book) {
    book.pages().under_way += 1;
}

/// Reads the list of every key into the book, as a last client does.
pub(crate) async fn read_all(cluster: ClusterFile, key: SigningKey, plug: Plug, book: Arc<Book>) {
    let builder = plug.client(&cluster, &key).call_timeout(CALL_TIMEOUT).connect_timeout(CONNECT_TIMEOUT);
    match builder.connect::<Lists>().await {
        Ok(client) => {
            for key in 0..KEYS {
                match client.call(&Command::Read { key }).await {
                    Ok(polder_sim_tests::history::Reply::List(list)) => {
                        book.pages().history.lists.insert(key, list);
                    }
                    other => book.complain(format!("the last read of k{key}: {other:?}")),
                }
            }
            client.close().await;
        }
        Err(error) => book.complain(format!("the last reader: {error}")),
    }
    book.pages().under_way -= 1;
}
