//! Admission: what is received waits here, bounded and in turns, until its signatures are checked off the loop.
//!
//! Nobody's flood stops others (promise 4): each peer and each client has a queue of its own, bounded in
//! number and bytes; replicas and clients alternate, and within each the sources take turns. What a client sends
//! beyond its share is answered `Busy` at once; what a replica sends beyond its is dropped, for STATUS restores what
//! matters (R15). One who goes on sending beyond his share is served little beside the others, and one who signs badly
//! is served nothing more of what he has sent.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

use polder_consensus::{BadMessage, Header, Seen};
use polder_types::{BadSignature, ClientId, Constants, Genesis, Keyring, ReplicaId, SignedRequest, Verified};
use tokio::sync::mpsc;

use crate::replica::{PeerMessage, VerifiedPeer, verify_peer};
use crate::shares::Shares;

/// Jobs that travel to a worker, and back, at once.
const JOBS_PER_BATCH_MAX: usize = 16;

/// Jobs that a worker has at once: enough to keep it busy while the loop does something else.
const JOBS_PER_WORKER_MAX: usize = 2 * JOBS_PER_BATCH_MAX;

/// Batches that a worker's channel holds; as many as there can be.
pub(crate) const BATCHES_PER_WORKER_MAX: usize = JOBS_PER_WORKER_MAX;

/// Messages of one replica that wait.
const PEER_MESSAGES_MAX: usize = 4_096;

/// Bytes of memory that one replica's messages take while they wait.
const PEER_BYTES_MAX: usize = 32 << 20;

/// For so many ticks a replica that misled this one is served only one message a tick (R20).
const PENALTY_TICKS: u32 = 100;

/// Something whose signatures are to be checked.
#[derive(Debug)]
pub(crate) enum Job {
    Peer { from: ReplicaId, message: Box<PeerMessage> },
    Client { connection: u64, client: ClientId, commands: u64, request: SignedRequest },
}

/// Its verdict.
#[derive(Debug)]
pub(crate) enum Checked {
    Peer { from: ReplicaId, outcome: Result<VerifiedPeer, BadMessage> },
    Client { connection: u64, client: ClientId, bytes: usize, outcome: Result<Verified<SignedRequest>, BadSignature> },
}

/// Queues by source, served in turns.
#[derive(Debug)]
struct Turns<K> {
    queues: BTreeMap<K, VecDeque<(Job, usize)>>,
    /// The sources with something in their queue, the next one first.
    order: VecDeque<K>,
}

impl<K: Copy + Ord> Turns<K> {
    fn new() -> Self {
        Self { queues: BTreeMap::new(), order: VecDeque::new() }
    }

    fn push(&mut self, source: K, job: Job, bytes: usize) {
        let queue = self.queues.entry(source).or_default();
        if queue.is_empty() {
            self.order.push_back(source);
        }
        queue.push_back((job, bytes));
    }

    /// The next job of the source whose turn it is, passing over those that may not be served now.
    fn pop(&mut self, may: impl Fn(K) -> bool) -> Option<(K, Job, usize)> {
        let place = self.order.iter().position(|source| may(*source))?;
        let source = self.order.remove(place)?;
        let queue = self.queues.get_mut(&source)?;
        let (job, bytes) = queue.pop_front()?;
        if queue.is_empty() {
            self.queues.remove(&source);
        } else {
            self.order.push_back(source);
        }
        Some((source, job, bytes))
    }

    /// All that waits of a source.
    fn take(&mut self, source: K) -> VecDeque<(Job, usize)> {
        self.order.retain(|other| *other != source);
        self.queues.remove(&source).unwrap_or_default()
    }
}

/// How much of something is under way.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    count: usize,
    bytes: usize,
}

impl Load {
    fn add(&mut self, bytes: usize) {
        self.count += 1;
        self.bytes += bytes;
    }

    fn remove(&mut self, bytes: usize) {
        self.count = self.count.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    fn exceeds(&self, count_max: usize, bytes_max: usize, bytes: usize) -> bool {
        self.count >= count_max || self.bytes.saturating_add(bytes) > bytes_max
    }
}

/// What waits for its signatures to be checked, and what is being checked.
#[derive(Debug)]
pub(crate) struct Admission {
    peers: Turns<ReplicaId>,
    clients: Turns<ClientId>,
    peer_loads: BTreeMap<ReplicaId, Load>,
    client_loads: BTreeMap<ClientId, Load>,
    clients_in_all: Load,
    shares: Shares,
    /// Peers that misled this replica: ticks until that is forgotten, and whether this tick's one message is left.
    penalties: BTreeMap<ReplicaId, (u32, bool)>,
    is_clients_turn: bool,
    limits: ClientLimits,
}

/// The caps on clients.
#[derive(Clone, Copy, Debug)]
struct ClientLimits {
    count_max: usize,
    bytes_max: usize,
    count_in_all_max: usize,
    bytes_in_all_max: usize,
}

impl Admission {
    pub(crate) fn new(constants: &Constants) -> Self {
        let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        Self {
            peers: Turns::new(),
            clients: Turns::new(),
            peer_loads: BTreeMap::new(),
            client_loads: BTreeMap::new(),
            clients_in_all: Load::default(),
            shares: Shares::default(),
            penalties: BTreeMap::new(),
            is_clients_turn: false,
            limits: ClientLimits {
                count_max: size(constants.admitted_per_client_max.into()),
                bytes_max: size(constants.admitted_bytes_per_client_max),
                count_in_all_max: size(constants.admitted_max.into()),
                bytes_in_all_max: size(constants.admitted_bytes_max),
            },
        }
    }

    /// Takes a replica's message, which takes so many bytes of memory; false: it is dropped.
    pub(crate) fn peer(&mut self, from: ReplicaId, message: Box<PeerMessage>, bytes: usize) -> bool {
        let load = self.peer_loads.entry(from).or_default();
        if load.exceeds(PEER_MESSAGES_MAX, PEER_BYTES_MAX, bytes) {
            return false;
        }
        load.add(bytes);
        self.peers.push(from, Job::Peer { from, message }, bytes);
        true
    }

    /// Takes a client's request of so many commands; false: the client is to be told that its share is used up.
    pub(crate) fn client(&mut self, connection: u64, client: ClientId, commands: u64, request: SignedRequest) -> bool {
        let bytes = request.bytes();
        let limits = self.limits;
        let load = self.client_loads.entry(client).or_default();
        if load.exceeds(limits.count_max, limits.bytes_max, bytes)
            || self.clients_in_all.exceeds(limits.count_in_all_max, limits.bytes_in_all_max, bytes)
        {
            self.refused(client);
            return false;
        }
        load.add(bytes);
        self.clients_in_all.add(bytes);
        self.clients.push(client, Job::Client { connection, client, commands, request }, bytes);
        true
    }

    /// A request of this client is refused, here or where it was to wait next.
    pub(crate) fn refused(&mut self, client: ClientId) {
        self.shares.refused(client);
    }

    /// So many commands of this client were answered.
    pub(crate) fn answered(&mut self, client: ClientId, commands: u64) {
        self.shares.answered(client, commands);
    }

    /// Whether this client goes on sending though it is refused.
    pub(crate) fn is_flooding(&self, client: ClientId) -> bool {
        self.shares.is_flooding(client)
    }

    /// A client has signed badly (R20): nothing that it has sent is looked at any more.
    pub(crate) fn signed_badly(&mut self, client: ClientId) {
        for (_, bytes) in self.clients.take(client) {
            self.settled(client, bytes);
        }
        self.shares.floods(client);
    }

    /// A request of this client was checked.
    pub(crate) fn settled(&mut self, client: ClientId, bytes: usize) {
        self.clients_in_all.remove(bytes);
        if let Some(load) = self.client_loads.get_mut(&client) {
            load.remove(bytes);
            if load.count == 0 {
                self.client_loads.remove(&client);
            }
        }
    }

    /// This replica sent what a correct one does not send (R20).
    pub(crate) fn misled(&mut self, by: ReplicaId) {
        self.penalties.insert(by, (PENALTY_TICKS, false));
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self) {
        self.shares.tick();
        self.penalties.retain(|_, (ticks, is_left)| {
            *ticks -= 1;
            *is_left = true;
            *ticks > 0
        });
    }

    /// Whether messages of replicas wait that may be served now.
    pub(crate) fn has_peers_waiting(&self) -> bool {
        self.peers.order.iter().any(|from| !self.penalties.contains_key(from))
    }

    /// The next job, by turns. Messages that nobody wants any more are dropped here, as late as can be, and counted by
    /// `unwanted`: after the quorum no signature is checked.
    pub(crate) fn next(&mut self, wants: impl Fn(&Header) -> bool, mut unwanted: impl FnMut()) -> Option<Job> {
        loop {
            let clients_first = self.is_clients_turn;
            self.is_clients_turn = !clients_first;
            if clients_first && let Some(job) = self.next_of_clients() {
                return Some(job);
            }
            let penalties = &self.penalties;
            let Some((from, job, bytes)) = self.peers.pop(|from| penalties.get(&from).is_none_or(|(_, left)| *left))
            else {
                return self.next_of_clients();
            };
            if let Some(load) = self.peer_loads.get_mut(&from) {
                load.remove(bytes);
            }
            if let Some((_, is_left)) = self.penalties.get_mut(&from) {
                *is_left = false;
            }
            if let Job::Peer { message, .. } = &job
                && message.header().is_some_and(|header| !wants(&header))
            {
                unwanted();
                continue;
            }
            return Some(job);
        }
    }
}

impl Admission {
    /// The next job of a client that may be served now.
    fn next_of_clients(&mut self) -> Option<Job> {
        let shares = &self.shares;
        let (client, job, _) = self.clients.pop(|client| shares.may(client))?;
        if let Job::Client { commands, .. } = &job {
            self.shares.taken(client, *commands);
        }
        Some(job)
    }
}

/// Checks signatures: what a worker is, wherever it runs.
pub(crate) struct Checker {
    keyring: Keyring,
    genesis: Arc<Genesis>,
    seen: Seen,
}

impl Checker {
    pub(crate) fn new(keyring: Keyring, genesis: Arc<Genesis>) -> Self {
        let seen = Seen::for_cluster(&keyring, &genesis.constants);
        Self { keyring, genesis, seen }
    }

    fn check(&mut self, job: Job) -> Checked {
        match job {
            Job::Peer { from, message } => {
                let outcome = verify_peer(&self.keyring, &self.genesis.constants, &mut self.seen, *message);
                Checked::Peer { from, outcome }
            }
            Job::Client { connection, client, request, .. } => {
                let bytes = request.bytes();
                Checked::Client { connection, client, bytes, outcome: request.verify(self.keyring.cluster()) }
            }
        }
    }

    /// The life of a worker's thread: until the jobs' other end is gone.
    pub(crate) fn run(
        mut self,
        worker: usize,
        jobs: &Receiver<Vec<Job>>,
        checked: &mpsc::Sender<(usize, Vec<Checked>)>,
    ) {
        while let Ok(batch) = jobs.recv() {
            let verdicts = batch.into_iter().map(|job| self.check(job)).collect();
            if checked.blocking_send((worker, verdicts)).is_err() {
                return;
            }
        }
    }
}

/// Where signatures are checked: on threads, or at once by the caller.
pub(crate) enum Pool {
    Inline(Box<Checker>),
    Workers(Vec<Worker>),
}

/// A thread of the node has panicked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThreadGone;

/// The loop's end of a worker.
pub(crate) struct Worker {
    pub(crate) jobs: SyncSender<Vec<Job>>,
    /// Jobs that it has.
    pub(crate) outstanding: usize,
}

impl Pool {
    /// Gives the workers what they have room for; returns the verdicts that are there at once.
    ///
    /// # Errors
    ///
    /// When a worker's thread is gone, which only a bug can cause.
    pub(crate) fn feed(&mut self, mut next: impl FnMut() -> Option<Job>) -> Result<Vec<Checked>, ThreadGone> {
        match self {
            Self::Inline(checker) => Ok(std::iter::from_fn(next).map(|job| checker.check(job)).collect()),
            Self::Workers(workers) => {
                while let Some(worker) = workers.iter_mut().min_by_key(|worker| worker.outstanding)
                    && worker.outstanding + JOBS_PER_BATCH_MAX <= JOBS_PER_WORKER_MAX
                {
                    let batch: Vec<Job> = std::iter::from_fn(&mut next).take(JOBS_PER_BATCH_MAX).collect();
                    if batch.is_empty() {
                        break;
                    }
                    worker.outstanding += batch.len();
                    // Never full: the channel has room for as many batches as a worker can have jobs.
                    worker.jobs.try_send(batch).map_err(|_| ThreadGone)?;
                }
                Ok(Vec::new())
            }
        }
    }

    /// A worker has finished so many jobs.
    pub(crate) fn finished(&mut self, worker: usize, jobs: usize) {
        if let Self::Workers(workers) = self
            && let Some(worker) = workers.get_mut(worker)
        {
            worker.outstanding = worker.outstanding.saturating_sub(jobs);
        }
    }

    /// Whether nothing is being checked.
    pub(crate) fn is_idle(&self) -> bool {
        match self {
            Self::Inline(_) => true,
            Self::Workers(workers) => workers.iter().all(|worker| worker.outstanding == 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use polder_types::{Call, ClusterId, Digest, Request, SigningKey};

    use super::*;

    fn request(client: u8, commands: usize) -> (ClientId, SignedRequest) {
        let key = SigningKey::from_seed(&[client; 32]);
        let client = ClientId(key.public());
        let commands = vec![polder_types::Blob::copy(&[0; 1_000]); commands];
        let call = Call::Commands { session: Default::default(), ack: 0, first: 1, commands };
        (client, Request { client, call }.sign(ClusterId(Digest::ZERO), &key))
    }

    fn constants() -> Constants {
        Constants { admitted_per_client_max: 4, admitted_max: 10, ..Constants::default() }
    }

    fn ask(nonce: u64) -> Box<PeerMessage> {
        Box::new(PeerMessage::MemoryAsk { nonce })
    }

    fn from(job: Option<Job>) -> Option<String> {
        job.map(|job| match job {
            Job::Peer { from, .. } => from.to_string(),
            Job::Client { connection, .. } => format!("client {connection}"),
        })
    }

    #[test]
    fn flood_one_client_is_told_busy_and_others_are_not() {
        let mut admission = Admission::new(&constants());
        let (flooder, one) = request(1, 1);
        for _ in 0..4 {
            assert!(admission.client(1, flooder, 1, one.clone()));
        }
        assert!(!admission.client(1, flooder, 1, one.clone()), "its fifth is too many");
        let (other, another) = request(2, 1);
        assert!(admission.client(2, other, 1, another));
        // What is being checked counts, until the verdict.
        let served = from(admission.next(|_| true, || {}));
        assert_eq!(served.as_deref(), Some("client 1"));
        assert!(!admission.client(1, flooder, 1, one.clone()));
        admission.settled(flooder, one.bytes());
        assert!(admission.client(1, flooder, 1, one));
    }

    #[test]
    fn flood_bytes_are_capped_for_one_client_and_in_all() {
        let constants = Constants {
            admitted_bytes_per_client_max: 20_000,
            admitted_bytes_max: 50_000,
            admitted_per_client_max: 1_000,
            ..Constants::default()
        };
        let mut admission = Admission::new(&constants);
        let mut admitted = BTreeMap::new();
        for _ in 0..10 {
            for client in 1..=9 {
                let (id, request) = request(client, 9);
                if admission.client(client.into(), id, 1, request) {
                    *admitted.entry(client).or_insert(0) += 1;
                }
            }
        }
        assert_eq!(admitted, BTreeMap::from([(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)]));
    }

    #[test]
    fn flood_replicas_and_clients_alternate_and_each_source_has_its_turn() {
        let mut admission = Admission::new(&constants());
        for nonce in 0..3 {
            assert!(admission.peer(ReplicaId(1), ask(nonce), 10));
        }
        assert!(admission.peer(ReplicaId(2), ask(0), 10));
        for (connection, client, count) in [(1, 1, 3), (2, 2, 1)] {
            let (id, request) = request(client, 1);
            for _ in 0..count {
                assert!(admission.client(connection, id, 1, request.clone()));
            }
        }
        let served: Vec<String> = std::iter::from_fn(|| from(admission.next(|_| true, || {}))).collect();
        assert_eq!(served, ["r1", "client 1", "r2", "client 2", "r1", "client 1", "r1", "client 1"]);
    }

    #[test]
    fn flood_a_replica_that_floods_loses_its_own_messages_only() {
        let mut admission = Admission::new(&constants());
        let taken = (0..PEER_MESSAGES_MAX as u64 + 5).filter(|nonce| admission.peer(ReplicaId(1), ask(*nonce), 10));
        assert_eq!(taken.count(), PEER_MESSAGES_MAX);
        assert!(admission.peer(ReplicaId(2), ask(0), 10));
        assert!(!admission.peer(ReplicaId(3), ask(0), PEER_BYTES_MAX + 1));
    }

    #[test]
    fn r20_a_replica_that_misled_is_served_one_message_a_tick() {
        let mut admission = Admission::new(&constants());
        admission.misled(ReplicaId(1));
        for nonce in 0..200 {
            assert!(admission.peer(ReplicaId(1), ask(nonce), 10));
        }
        let mut served = 0;
        for _ in 0..PENALTY_TICKS - 1 {
            admission.tick();
            served += std::iter::from_fn(|| admission.next(|_| true, || {})).count();
        }
        assert_eq!(served, PENALTY_TICKS as usize - 1);
        admission.tick();
        assert!(std::iter::from_fn(|| admission.next(|_| true, || {})).count() > 50, "it is forgotten");
    }

    #[test]
    fn r20_of_what_a_client_that_signed_badly_has_sent_nothing_is_looked_at_any_more() {
        let mut admission = Admission::new(&constants());
        let ((liar, bad), (other, good)) = (request(1, 1), request(2, 1));
        for _ in 0..3 {
            assert!(admission.client(1, liar, 1, bad.clone()));
            assert!(admission.client(2, other, 1, good.clone()));
        }
        assert_eq!(from(admission.next(|_| true, || {})).as_deref(), Some("client 1"));
        admission.signed_badly(liar);
        let served: Vec<String> = std::iter::from_fn(|| from(admission.next(|_| true, || {}))).collect();
        assert_eq!(served, ["client 2", "client 2", "client 2"]);
        // What was left out counts no more: the whole share is free again.
        admission.settled(liar, bad.bytes());
        (0..3).for_each(|_| admission.settled(other, good.bytes()));
        assert!(admission.client_loads.is_empty());
        assert_eq!((admission.clients_in_all.count, admission.clients_in_all.bytes), (0, 0));
    }

    #[test]
    fn flood_one_who_goes_on_though_he_is_refused_is_served_little_beside_others() {
        let mut admission = Admission::new(&Constants { admitted_per_client_max: 4, ..constants() });
        let ((flood, request_of_flood), (other, request_of_other)) = (request(1, 1), request(2, 1));
        let mut served = BTreeMap::new();
        for _ in 0..100 {
            for _ in 0..20 {
                let _refused = admission.client(1, flood, 1, request_of_flood.clone());
            }
            (0..4).for_each(|_| assert!(admission.client(2, other, 1, request_of_other.clone())));
            while let Some(Job::Client { client, request, .. }) = admission.next(|_| true, || {}) {
                admission.settled(client, request.bytes());
                *served.entry(client).or_insert(0) += 1;
            }
            // They are answered later.
            admission.answered(other, 3);
            admission.answered(flood, 1);
            admission.tick();
        }
        assert_eq!(served.get(&other), Some(&400));
        assert!(served.get(&flood).is_some_and(|served| (10..200).contains(served)), "{served:?}");
    }

    #[test]
    fn after_the_quorum_no_signature_is_checked() {
        let mut admission = Admission::new(&constants());
        let vote = polder_consensus::Message::Fetch(polder_consensus::Fetch::Body(Digest::ZERO));
        assert!(admission.peer(
            ReplicaId(1),
            Box::new(PeerMessage::Ordering(vote, crate::replica::Mark::default())),
            10
        ));
        let mut unwanted = 0;
        assert!(admission.next(|_| false, || unwanted += 1).is_none());
        assert_eq!(unwanted, 1);
    }
}
