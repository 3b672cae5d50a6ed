//! A cluster, its clients, the network between them, and the clock by which all of it goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use polder_node::Report;
use polder_node::replica::Phase;
use polder_sim_tests::random::{Purpose, Random};
use polder_sim_tests::trace::Trace;
use polder_types::{
    ClientAccess, ClientKey, ClusterFile, Constants, Digest, FaultModel, Nonce, ReplicaEntry, ReplicaId, Role, Seq,
    SigningKey,
};

use crate::load::{self, Book, Habits};
use crate::machine::{Machine, Replica};
use crate::network::{Faults, Names, Network, PORT, Port};

/// What a scenario comes to: nothing, or why it failed.
pub(crate) type Outcome = Result<(), String>;

/// How a world is made; what stands here may be drawn from the seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) replicas: u8,
    pub(crate) fault_model: FaultModel,
    pub(crate) clients: usize,
    pub(crate) habits: Habits,
    /// The longest delay of a datagram; the shortest is a millisecond.
    pub(crate) delay_ms_max: u64,
    /// A replica that runs no node: something else has its key.
    pub(crate) liar: Option<ReplicaId>,
}

impl Options {
    /// Two kinds of clusters, near and far.
    pub(crate) fn drawn(random: &mut Random, has_liar: bool) -> Self {
        let is_crash = random.chance(300) && !has_liar;
        Self {
            replicas: if is_crash { 3 } else { 4 },
            fault_model: if is_crash { FaultModel::Crash } else { FaultModel::Byzantine },
            clients: 2,
            habits: Habits { callers: 2, think_ms: 60 },
            delay_ms_max: random.weighted(&[(2, 3), (2, 10), (1, 40)], 3),
            liar: has_liar.then_some(ReplicaId(3)),
        }
    }
}

/// Hosts beside replicas and clients: what a scenario puts there, and the last reader.
const GUESTS: [&str; 2] = ["guest", "reader"];

/// All of it.
pub(crate) struct World {
    /// What goes wrong, and when.
    pub(crate) random: Random,
    pub(crate) options: Options,
    pub(crate) network: Arc<Network>,
    pub(crate) cluster: ClusterFile,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) clients: Vec<Machine>,
    pub(crate) guest: Machine,
    pub(crate) book: Arc<Book>,
    sim: turmoil::Sim<'static>,
    reader: Machine,
    keys: Keys,
    now_ms: u64,
    /// Whose end is no surprise.
    doomed: BTreeSet<ReplicaId>,
    roots: BTreeMap<Seq, Digest>,
    histories: BTreeMap<Seq, Digest>,
}

/// All keys of a world.
pub(crate) struct Keys {
    pub(crate) replicas: Vec<(SigningKey, SigningKey)>,
    clients: Vec<SigningKey>,
    pub(crate) guest: SigningKey,
    reader: SigningKey,
}

fn constants() -> Constants {
    Constants {
        window_slots: 64,
        interval_slots: 16,
        request_bytes_max: 16 << 10,
        batch_bytes_max: 64 << 10,
        reply_bytes_max: 64 << 10,
        timeout_first_ms: 400,
        timeout_max_ms: 3_200,
        idle_ms: 300,
        partitions: 4,
        session_partitions: 2,
        turn_cuts: 2,
        ..Constants::default()
    }
}

impl World {
    /// A cluster that is on, and clients that begin to call.
    pub(crate) fn new(seed: u64, options: Options, is_traced: bool) -> Self {
        let trace = if is_traced { Trace::printing() } else { Trace::default() };
        let network = Network::new(Random::new(seed, Purpose::Network), trace);
        network.note(format_args!("seed {seed}: {options:?}"));
        let mut random = Random::new(seed, Purpose::Keys);
        let keys = Keys::drawn(&options, &mut random);
        let cluster = keys.cluster(&options, &mut random);

        let mut builder = turmoil::Builder::new();
        let ms = std::time::Duration::from_millis;
        builder.rng_seed(seed).epoch(std::time::SystemTime::UNIX_EPOCH).simulation_duration(ms(3_600_000));
        builder.min_message_latency(ms(1)).max_message_latency(ms(options.delay_ms_max)).udp_capacity(8_192);
        let mut sim = builder.build();
        let replicas = (0..options.replicas).map(|id| format!("r{id}"));
        let clients = (0..options.clients).map(|client| format!("c{client}"));
        let hosts: Vec<String> = replicas.chain(clients).chain(GUESTS.map(str::to_owned)).collect();
        let names = hosts.iter().map(|host| (host.clone(), sim.lookup(host.as_str()))).collect();
        let names = Arc::new(Names(names));
        let mut machines = hosts.iter().map(|host| {
            let port = Port::new(&network, host, names.0[host]);
            let cable = Arc::clone(&port);
            sim.host(host.as_str(), move || Arc::clone(&cable).carry());
            Machine::new(&port, &names, Random::new(random.bits(), Purpose::Keys))
        });
        let mut machine = || machines.next().expect("a machine a host");
        let replicas = keys.replicas.iter().zip(0..).map(|(own, id)| {
            let machine = machine();
            Replica::new(machine, ReplicaId(id), &cluster, own.clone())
        });
        let replicas: Vec<Replica> = replicas.collect();
        let clients: Vec<Machine> = keys.clients.iter().map(|_| machine()).collect();
        let (guest, reader) = (machine(), machine());
        drop(machines);
        let random = Random::new(seed, Purpose::Faults);
        let (roots, histories, doomed) = Default::default();
        let book = Book::new(&network);
        let now_ms = 0;
        let mut world = Self {
            random,
            options,
            network,
            cluster,
            replicas,
            clients,
            guest,
            book,
            sim,
            reader,
            keys,
            now_ms,
            doomed,
            roots,
            histories,
        };
        world.ids().into_iter().for_each(|id| world.start(id));
        (0..world.clients.len()).for_each(|client| world.start_client(client));
        world
    }

    /// The replicas that run nodes.
    pub(crate) fn ids(&self) -> Vec<ReplicaId> {
        let ids = (0..self.options.replicas).map(ReplicaId);
        ids.filter(|id| Some(*id) != self.options.liar).collect()
    }

    pub(crate) fn replica(&mut self, id: ReplicaId) -> &mut Replica {
        &mut self.replicas[usize::from(id.0)]
    }

    pub(crate) fn is_on(&self, id: ReplicaId) -> bool {
        self.replicas[usize::from(id.0)].machine.is_on()
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// What everybody says of itself.
    pub(crate) fn reports(&self) -> Vec<Arc<Report>> {
        self.replicas.iter().filter_map(Replica::report).collect()
    }

    /// Who leads, as most believe.
    pub(crate) fn leader(&self) -> ReplicaId {
        let newest =
            self.reports().into_iter().map(|report| (report.status.core.view, report.status.core.leader)).max();
        newest.map_or(ReplicaId(0), |(_, leader)| leader)
    }

    /// The last slot that anybody executed.
    pub(crate) fn executed(&self) -> u64 {
        self.reports().iter().map(|report| report.status.executed.0).max().unwrap_or(0)
    }

    /// The leader, or now and then another.
    pub(crate) fn somebody(&mut self) -> ReplicaId {
        let ids = self.ids();
        if self.random.chance(600) { self.leader() } else { *self.random.pick(&ids).expect("a replica") }
    }

    /// All hosts but some.
    pub(crate) fn all_but(&self, some: &[String]) -> Vec<String> {
        let replicas = self.replicas.iter().map(|replica| &replica.machine);
        let machines = replicas.chain(&self.clients).chain([&self.guest, &self.reader]);
        machines.map(|machine| machine.name.clone()).filter(|name| !some.contains(name)).collect()
    }

    /// So many milliseconds pass.
    pub(crate) fn run(&mut self, ms: u64) {
        (0..ms).for_each(|_| self.step());
    }

    /// Time passes until something holds, at most so many milliseconds; an error is what did not come.
    pub(crate) fn run_until(&mut self, ms_max: u64, what: &str, holds: impl Fn(&Self) -> bool) -> Outcome {
        for _ in 0..ms_max {
            if holds(self) {
                return Ok(());
            }
            self.step();
        }
        Err(format!("within {ms_max} ms: no {what}; {}", self.words()))
    }

    /// Time passes until so many more commands are answered.
    pub(crate) fn run_until_answered(&mut self, ms_max: u64, more: usize, when: &str) -> Outcome {
        let goal = self.book.answered() + more;
        self.run_until(ms_max, &format!("{more} answers {when}"), |world| world.book.answered() >= goal)
    }

    /// What everybody says, for an error.
    pub(crate) fn words(&self) -> String {
        let words = self.replicas.iter().map(|replica| match replica.report() {
            Some(report) => format!("{}: {} ({})", replica.id, report.status, ready(&report)),
            None => format!("{}: off", replica.id),
        });
        words.collect::<Vec<_>>().join("; ")
    }

    fn step(&mut self) {
        self.now_ms += 1;
        self.network.set_now_ms(self.now_ms);
        self.sim.step().expect("a host of turmoil does not fail");
        // Nobody is always the first.
        let first = (self.now_ms % u64::from(self.options.replicas)) as usize;
        self.replicas.rotate_left(first);
        self.replicas.iter_mut().for_each(|replica| replica.machine.tick());
        self.replicas.rotate_right(first);
        let others = self.clients.iter_mut().chain([&mut self.guest, &mut self.reader]);
        others.for_each(Machine::tick);
        for at in 0..self.replicas.len() {
            self.observe(at);
        }
    }

    /// Hears what a replica says of itself, and what ended it.
    fn observe(&mut self, at: usize) {
        let replica = &mut self.replicas[at];
        let id = replica.id;
        if let Some(why) = replica.ended() {
            replica.crash();
            self.network.note(format_args!("{id} ended: {why}"));
            if !self.doomed.contains(&id) {
                self.book.complain(format!("{id} ended: {why}"));
            }
            return;
        }
        let Some(report) = replica.news() else { return };
        let status = &report.status;
        self.network.note(format_args!("{id} {status}"));
        if let Phase::Halted(why) = &status.phase {
            self.book.complain(format!("{id} halted: {why}"));
        }
        if replica.cluster != self.cluster {
            return;
        }
        // Promise 1: equal histories; promise 6: equal roots.
        let history = *self.histories.entry(status.executed).or_insert(status.history);
        if history != status.history {
            self.book.complain(format!("{id} executed other batches up to {} than another", status.executed));
        }
        if let Some(root) = status.root
            && *self.roots.entry(status.certified).or_insert(root) != root
        {
            self.book.complain(format!("{id} has another root at {} than another", status.certified));
        }
    }

    /// Cuts certified so far.
    pub(crate) fn cuts(&self) -> usize {
        self.roots.len()
    }

    /// Starts a replica's node from its disks.
    pub(crate) fn start(&mut self, id: ReplicaId) {
        if let Err(why) = self.replica(id).start() {
            self.book.complain(format!("{id} does not start: {why}"));
        }
        self.doomed.remove(&id);
    }

    /// A replica loses its power. What it counted is judged first.
    pub(crate) fn crash(&mut self, id: ReplicaId) {
        self.judge_accusations(id);
        self.replica(id).crash();
    }

    /// From now on this replica may end by itself: a disk of it is about to fail.
    pub(crate) fn doom(&mut self, id: ReplicaId) {
        self.doomed.insert(id);
    }

    /// R41, R20: nobody finds evidence against, or is misled by, a correct replica.
    pub(crate) fn judge_accusations(&mut self, by: ReplicaId) {
        for accused in self.ids() {
            for counter in ["polder_evidence_total", "polder_peer_messages_bad_total"] {
                let count = self.replica(by).counted(counter, accused);
                if count > 0 {
                    self.book.complain(format!("{by} counts {count} of {counter} for {accused}, which is correct"));
                }
            }
        }
    }

    /// Switches a client on.
    pub(crate) fn start_client(&mut self, client: usize) {
        let (cluster, key) = (self.cluster.clone(), self.keys.clients[client].clone());
        let (book, habits) = (Arc::clone(&self.book), self.options.habits);
        let machine = &mut self.clients[client];
        let plug = machine.plug();
        let random = plug.stream(Purpose::Workload);
        load::enter(&book);
        machine.boot(async {});
        machine.spawn(load::live(client, habits, (cluster, key), plug, book, random));
    }

    /// A client loses its power.
    pub(crate) fn crash_client(&mut self, client: usize) {
        self.clients[client].cut_power();
        self.book.lost();
    }

    /// The last client reads all that was written.
    pub(crate) fn read_all(&mut self) {
        let (cluster, key, book) = (self.cluster.clone(), self.keys.reader.clone(), Arc::clone(&self.book));
        let plug = self.reader.plug();
        load::enter(&book);
        self.reader.boot(async {});
        self.reader.spawn(load::read_all(cluster, key, plug, book));
    }

    /// No datagram passes between these and those, in either direction.
    pub(crate) fn split(&self, these: &[String], those: &[String]) {
        self.between("split", these, those, |sim, one, other| sim.partition(one, other));
    }

    /// No datagram passes from these to those.
    pub(crate) fn split_one_way(&self, these: &[String], those: &[String]) {
        self.between("one-way split", these, those, |sim, one, other| sim.partition_oneway(one, other));
    }

    /// What is sent between these and those waits.
    pub(crate) fn hold(&self, these: &[String], those: &[String]) {
        self.between("hold", these, those, |sim, one, other| sim.hold(one, other));
    }

    /// Everybody reaches everybody; what was held arrives.
    pub(crate) fn release(&self) {
        let all = self.all_but(&[]);
        self.between("release", &all, &all, |sim, one, other| sim.release(one, other));
    }

    fn between(&self, what: &str, these: &[String], those: &[String], act: impl Fn(&turmoil::Sim<'_>, &str, &str)) {
        self.network.note(format_args!("{what} {these:?} {those:?}"));
        for (one, other) in these.iter().flat_map(|one| those.iter().map(move |other| (one, other))) {
            if one != other {
                act(&self.sim, one, other);
            }
        }
    }

    /// Ends all that went wrong: everybody is on, reaches everybody, and loses nothing.
    pub(crate) fn heal(&mut self) {
        self.release();
        self.network.set_faults(Faults::NONE);
        for id in self.ids() {
            self.replica(id).machine.resume();
            if !self.replica(id).machine.is_on() {
                self.start(id);
            }
        }
    }
}

/// Whether a node says that it is ready, in words.
pub(crate) fn ready(report: &Report) -> String {
    report.ready().map_or_else(|why| why, |()| "ready".to_owned())
}

/// The name of a replica's host.
pub(crate) fn host(id: ReplicaId) -> String {
    format!("r{}", id.0)
}

impl Keys {
    fn drawn(options: &Options, random: &mut Random) -> Self {
        let mut key = || SigningKey::from_seed(&random.bytes());
        Self {
            replicas: (0..options.replicas).map(|_| (key(), key())).collect(),
            clients: (0..options.clients).map(|_| key()).collect(),
            guest: key(),
            reader: key(),
        }
    }

    /// The cluster file: closed to all but the clients and the last reader.
    fn cluster(&self, options: &Options, random: &mut Random) -> ClusterFile {
        let entry = |(id, (identity, signing)): (u8, &(SigningKey, SigningKey))| ReplicaEntry {
            address: format!("r{id}:{PORT}"),
            identity: identity.public(),
            signing: signing.public(),
        };
        let clients = self.clients.iter().chain([&self.reader]);
        let clients = clients.map(|key| ClientKey { key: key.public(), role: Role::Write });
        ClusterFile {
            nonce: Nonce(random.bytes()),
            fault_model: options.fault_model,
            constants: constants(),
            clients: ClientAccess { open: false, keys: clients.collect() },
            replicas: (0..).zip(&self.replicas).map(entry).collect(),
        }
    }
}
