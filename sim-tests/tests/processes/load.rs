//! Clients that write down what they were told, judged by the checkers of the simulator.
//!
//! The key-value service has no lists, so an append is a compare-and-swap from the list that a client last saw to that
//! list and one more id: if it is answered with success, the place of the id is known; if not, with what is there
//! instead, it was a read.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use polder_client::Builder;
use polder_kv::{CallError, KvClient};
use polder_node::files::{read_cluster, read_key};
use polder_sim_tests::checkers::{exactly_once, linearizable};
use polder_sim_tests::history::{Command, History, Operation, Reply};
use polder_sim_tests::random::{Purpose, Random};
use polder_types::{Answer, Blob, Wire as _};
use tokio::runtime;
use tokio::task::JoinSet;

use crate::cluster::{Cluster, wait_until};

/// Clients, each with a session of its own and one command at a time.
const CLIENTS: usize = 6;
/// Lists that are written at a time.
const LISTS: u64 = 5;
/// A list of so many ids is left alone, and another one begun.
const IDS_MAX: usize = 150;
/// Reads among a thousand commands.
const READS_PER_MILLE: u64 = 350;
/// As long as any fault lasts here, and longer.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// A load that goes on until it is finished.
pub(crate) struct Load {
    shared: Arc<Shared>,
    thread: JoinHandle<Recorded>,
}

struct Shared {
    files: [PathBuf; 2],
    begun: Instant,
    is_over: AtomicBool,
    answered: AtomicU64,
    next_id: AtomicU64,
    /// How many lists were left alone, by place.
    generations: Vec<AtomicU64>,
}

#[derive(Default)]
struct Recorded {
    operations: Vec<Operation>,
    /// Ids of which a client was told that they were not, nor ever will be, appended.
    refused: Vec<u64>,
}

impl Load {
    pub(crate) fn start(cluster: &Cluster, seed: u64) -> Self {
        Self::start_by(cluster, &cluster.file(), seed)
    }

    /// A load of clients that know the cluster by this file.
    pub(crate) fn start_by(cluster: &Cluster, file: &Path, seed: u64) -> Self {
        let shared = Arc::new(Shared {
            files: [file.to_owned(), cluster.folder.join("client.key")],
            begun: Instant::now(),
            is_over: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            next_id: AtomicU64::new(0),
            generations: (0..LISTS).map(|_| AtomicU64::new(0)).collect(),
        });
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                run(async move {
                    let mut clients = JoinSet::new();
                    for client in 0..CLIENTS {
                        clients.spawn(Caller::new(client, seed, Arc::clone(&shared)).run());
                    }
                    let mut all = Recorded::default();
                    for recorded in clients.join_all().await {
                        all.operations.extend(recorded.operations);
                        all.refused.extend(recorded.refused);
                    }
                    all
                })
            }
        });
        Self { shared, thread }
    }

    pub(crate) fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Until so many more commands are answered.
    #[track_caller]
    pub(crate) fn wait_for_answers(&self, count: u64) {
        let goal = self.answered() + count;
        wait_until("answers to the clients", || self.answered() >= goal);
    }

    /// Ends the load, waits until all replicas hold the same, and judges what the clients were told. Returns how many
    /// commands were answered.
    #[track_caller]
    pub(crate) fn finish(self, cluster: &Cluster) -> u64 {
        self.shared.is_over.store(true, Ordering::Relaxed);
        let mut recorded = self.thread.join().expect("the clients end");
        recorded.operations.sort_by_key(|operation| operation.invoked_us);
        let lists = run(read_lists(&self.shared.files, &recorded.operations));
        let history = History { operations: recorded.operations, lists, ..History::default() };
        for id in recorded.refused {
            let found = history.lists.values().any(|list| list.contains(&id));
            assert!(!found, "{id} was appended, though a client was told that it was not");
        }
        for verdict in [linearizable::check(&history), exactly_once::check(&history)] {
            assert_eq!(verdict, Ok(()));
        }
        cluster.wait_for_equal_roots();
        cluster.assert_sane();
        self.shared.answered.load(Ordering::Relaxed)
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be made").block_on(future)
}

async fn connect(files: &[PathBuf; 2]) -> KvClient {
    let [cluster, key] = files;
    loop {
        let cluster = read_cluster(cluster).expect("a cluster file");
        let key = read_key(key).expect("the client's key");
        let builder = Builder::new(cluster, key).call_timeout(CALL_TIMEOUT).connect_timeout(CALL_TIMEOUT);
        if let Ok(client) = builder.connect().await {
            return KvClient::new(client);
        }
    }
}

async fn read_lists(files: &[PathBuf; 2], operations: &[Operation]) -> BTreeMap<u64, Vec<u64>> {
    let kv = connect(files).await;
    let mut lists = BTreeMap::new();
    for operation in operations {
        let (Command::Append { key, .. } | Command::Read { key }) = operation.command else { continue };
        if let Entry::Vacant(place) = lists.entry(key) {
            let found = kv.get(&name(key)).await.expect("a cluster that is well answers");
            place.insert(found.map_or_else(Vec::new, |found| from_bytes(&found.value)));
        }
    }
    kv.close().await;
    lists
}

/// One client.
struct Caller {
    client: usize,
    random: Random,
    shared: Arc<Shared>,
    /// The lists as they were last seen.
    seen: BTreeMap<u64, Vec<u64>>,
    recorded: Recorded,
}

impl Caller {
    fn new(client: usize, seed: u64, shared: Arc<Shared>) -> Self {
        let random = Random::new(seed.wrapping_mul(1_000) + client as u64, Purpose::Workload);
        Self { client, random, shared, seen: BTreeMap::new(), recorded: Recorded::default() }
    }

    async fn run(mut self) -> Recorded {
        let mut kv = connect(&self.shared.files).await;
        while !self.shared.is_over.load(Ordering::Relaxed) {
            if self.call(&kv).await.is_err() {
                // The session may be gone.
                kv = connect(&self.shared.files).await;
            }
        }
        kv.close().await;
        self.recorded
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.shared.begun.elapsed().as_micros()).expect("a test ends")
    }

    async fn call(&mut self, kv: &KvClient) -> Result<(), ()> {
        let place = self.random.below(LISTS as usize);
        let generation = &self.shared.generations[place];
        let old = generation.load(Ordering::Relaxed);
        let key = old * LISTS + place as u64;
        let list = self.seen.get(&key).cloned().unwrap_or_default();
        if list.len() >= IDS_MAX {
            // If another client has begun the next list already, this changes nothing.
            let _raced = generation.compare_exchange(old, old + 1, Ordering::Relaxed, Ordering::Relaxed);
            return Ok(());
        }
        let invoked_us = self.now_us();
        if self.random.chance(READS_PER_MILLE) {
            let found = kv.get(&name(key)).await;
            let found = found.map(|found| found.map_or_else(Vec::new, |found| from_bytes(&found.value)));
            return self.read(key, invoked_us, found);
        }
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let expected = (!list.is_empty()).then(|| to_bytes(&list));
        let mut longer = list.clone();
        longer.push(id);
        let append = Command::Append { key, id };
        match kv.compare_and_swap(&name(key), expected.as_deref(), &to_bytes(&longer)).await {
            Ok(Ok(_)) => {
                self.answered(append, invoked_us, &Reply::Appended(vec![list.len() as u64]));
                self.seen.insert(key, longer);
                Ok(())
            }
            Ok(Err(found)) => {
                self.recorded.refused.push(id);
                self.read(key, invoked_us, Ok(found.map_or_else(Vec::new, |found| from_bytes(&found.value))))
            }
            Err(error) if error.is_outcome_unknown() => {
                self.seen.remove(&key);
                self.note(append, invoked_us, None);
                Err(())
            }
            Err(error) => {
                assert!(error.is_not_executed(), "{error}");
                self.recorded.refused.push(id);
                Err(())
            }
        }
    }

    fn read(&mut self, key: u64, invoked_us: u64, found: Result<Vec<u64>, CallError>) -> Result<(), ()> {
        let list = found.map_err(|_| ())?;
        self.answered(Command::Read { key }, invoked_us, &Reply::List(list.clone()));
        self.seen.insert(key, list);
        Ok(())
    }

    fn answered(&mut self, command: Command, invoked_us: u64, reply: &Reply) {
        let answer = Answer::Done(Blob::from(reply.to_wire()));
        let answered_us = self.now_us();
        self.note(command, invoked_us, Some((answered_us, answer)));
        self.shared.answered.fetch_add(1, Ordering::Relaxed);
    }

    fn note(&mut self, command: Command, invoked_us: u64, answered: Option<(u64, Answer)>) {
        self.recorded.operations.push(Operation { client: self.client, command, invoked_us, answered });
    }
}

fn name(key: u64) -> Vec<u8> {
    format!("list/{key:08}").into_bytes()
}

fn to_bytes(list: &[u64]) -> Vec<u8> {
    list.iter().flat_map(|id| id.to_be_bytes()).collect()
}

fn from_bytes(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks(8).map(|chunk| chunk.iter().fold(0, |id, byte| id << 8 | u64::from(*byte))).collect()
}
