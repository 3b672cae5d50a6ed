//! The world: replicas, network, disks and clocks, all from one seed, and one queue of what happens next.
//!
//! ```text
//!   queue ─ happening ─▶ host ─ event ─▶ Replica::step ─ actions ─▶ network, disks, jobs ─▶ queue
//!                                             └──▶ checkers, trace
//! ```
//!
//! The queue is ordered by time, then by a drawn number: what happens at one time happens in any order. Chaos comes
//! first ([`chaos`]); then a quorum is healed and must answer everything ([`end`]).

mod carry;
mod chaos;
mod end;
mod host;
mod manual;
mod observe;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use polder_consensus::{EvidenceKind, Seen};
use polder_executor::Frozen;
use polder_node::replica::{Disk, Event, Replica, ReplicaConfig, Start, VerifiedPeer, verify_peer};
use polder_types::{
    ClientAccess, Digest, Domain, Genesis, GenesisError, Keyring, Member, NodeFrame, Nonce, ReplicaId, Seq, SessionId,
    SignedRequest, SigningKey, Verified, decode,
};

use crate::byzantine::{Liar, Shared, is_in};
use crate::checkers::progress::End;
use crate::checkers::{Verdict, violation};
use crate::client::{Client, Say, Whom};
use crate::history::History;
use crate::mischief::{Troublemaker, describe};
use crate::network::{Copy, Network, Party};
use crate::random::{Purpose, Random};
use crate::service::Lists;
use crate::swarm::Options;
use crate::trace::Trace;

pub use host::{Doom, Host, Job, Point};
pub use observe::Checkers;

/// Digests of checked signatures that the run remembers: each is checked once.
const SEEN_MAX: usize = 200_000;

/// How often a client looks at the time, in microseconds.
const CLIENT_TICK_US: u64 = 10_000;

/// How long a run may take in steps, whatever its clocks say: a storm of messages is a bug too.
const STEPS_MAX: u64 = 3_000_000;

/// What travels.
#[derive(Clone, Debug)]
pub enum Parcel {
    /// From replica to replica.
    Peer(VerifiedPeer),
    /// From client to replica.
    Request(Verified<SignedRequest>),
    /// From client to replica: where are you?
    Where,
    /// From replica to client.
    Frame(NodeFrame),
}

impl fmt::Display for Parcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(message) => message.fmt(f),
            Self::Request(request) => write!(f, "REQUEST {}", request.digest()),
            Self::Where => f.write_str("WHERE"),
            Self::Frame(NodeFrame::At { view, cut, .. }) => write!(f, "AT {view} {cut}"),
            Self::Frame(NodeFrame::Replies(replies)) => write!(f, "REPLIES {}", replies.len()),
            Self::Frame(NodeFrame::Busy { request, .. }) => write!(f, "BUSY {request}"),
            Self::Frame(NodeFrame::Status(_)) => f.write_str("STATUS"),
        }
    }
}

/// What happens. Where a `life` is named, it happens only if the replica has not crashed since.
#[derive(Debug)]
enum Happening {
    Tick { host: usize, life: u64 },
    Arrive(Box<Copy<Parcel>>),
    DiskDone { host: usize, life: u64, disk: Disk },
    Digested { host: usize, life: u64, frozen: Frozen },
    Work { host: usize, life: u64 },
    Resume { host: usize, life: u64 },
    Restart { host: usize, life: u64 },
    MakeUp { host: usize },
    Mischief,
    ClientTick { client: usize },
    Fault(chaos::Fault),
    Heal,
    Look,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events given to replicas.
    pub steps: u64,
    /// Messages dropped because their receiver did not want them.
    pub unwanted: u64,
    /// Messages of liars that did not verify.
    pub forged: u64,
    /// Crashes.
    pub crashes: u64,
    /// Restarts.
    pub restarts: u64,
    /// View changes, as the replicas count them.
    pub view_changes: u64,
    /// State transfers that ended in a new base.
    pub transfers: u64,
}

impl Counts {
    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.unwanted += other.unwanted;
        self.forged += other.forged;
        self.crashes += other.crashes;
        self.restarts += other.restarts;
        self.view_changes += other.view_changes;
        self.transfers += other.transfers;
    }
}

/// One run.
pub struct World {
    /// What it was drawn from.
    pub options: Options,
    /// What happened so far, as lines and as a hash.
    pub trace: Trace,
    /// What clients asked for and believe.
    pub history: History,
    /// What must hold.
    pub checkers: Checkers,
    /// What was counted.
    pub counts: Counts,
    /// The machines.
    pub hosts: Vec<Host>,
    /// The clients.
    pub clients: Vec<Client>,
    /// Whom correct replicas have evidence against, and of what kind.
    pub named: BTreeSet<(ReplicaId, EvidenceKind)>,
    /// The bug planted in every correct replica.
    #[cfg(polder_mutations)]
    pub mutation: Option<polder_consensus::Mutation>,
    genesis: Arc<Genesis>,
    keyring: Keyring,
    keys: Vec<SigningKey>,
    now_us: u64,
    serial: u64,
    queue: BTreeMap<(u64, u64, u64), Happening>,
    network: Network<Parcel>,
    /// Set in scripts: what is sent waits here until it is delivered by hand.
    held: Option<Vec<Copy<Parcel>>>,
    order: Random,
    disk_random: Random,
    fault_random: Random,
    liar_random: Random,
    shared: Shared,
    seen: Seen,
    healed_at_us: Option<u64>,
    healed: Vec<ReplicaId>,
    /// Who is to hear nobody since the healing, and when it last heard a replica all the same.
    deaf: Option<(ReplicaId, u64)>,
    answered_in_chaos: usize,
    has_read_lists: bool,
    must_reach: Option<Seq>,
    troublemaker: Troublemaker,
    watch: Option<end::Watch>,
    end: Option<End>,
}

impl World {
    /// The world of these options. Nothing has happened yet.
    ///
    /// # Errors
    ///
    /// When the options are no configuration that can be.
    pub fn new(options: Options) -> Result<Self, GenesisError> {
        let seed = options.seed;
        let mut secrets = Random::new(seed, Purpose::Keys);
        let identities: Vec<SigningKey> =
            (0..options.replicas).map(|_| SigningKey::from_seed(&secrets.bytes())).collect();
        let keys: Vec<SigningKey> = (0..options.replicas).map(|_| SigningKey::from_seed(&secrets.bytes())).collect();
        let members = identities.iter().zip(&keys);
        let genesis = Genesis {
            nonce: Nonce(secrets.bytes()),
            replicas: members.map(|(i, k)| Member { identity: i.public(), signing: k.public() }).collect(),
            fault_model: options.fault_model,
            constants: options.constants.clone(),
            clients: ClientAccess { open: true, keys: Vec::new() },
        };
        let keyring = genesis.check()?;
        let mut liar_random = Random::new(seed, Purpose::Liars);
        let mut liars: Vec<usize> = (0..options.replicas).collect();
        liar_random.shuffle(&mut liars);
        liars.truncate(options.liars);
        let hosts = keyring.quorum().members().enumerate().map(|(index, id)| {
            Host::new(id, liars.contains(&index).then(|| Liar::new(&options.lies, &mut liar_random)))
        });
        let hosts: Vec<Host> = hosts.collect();
        let clients = 0..options.load.clients;
        let clients = clients.map(|index| Client::new(index, keyring.cluster(), keyring.quorum(), &options));
        Ok(Self {
            trace: Trace::default(),
            history: History::default(),
            checkers: Checkers::new(&options.constants, keyring.quorum()),
            counts: Counts::default(),
            clients: clients.collect(),
            named: BTreeSet::new(),
            #[cfg(polder_mutations)]
            mutation: None,
            genesis: Arc::new(genesis),
            keys,
            now_us: 0,
            serial: 0,
            queue: BTreeMap::new(),
            network: Network::new(seed, options.network.clone(), options.replicas + options.load.clients),
            held: None,
            order: Random::new(seed, Purpose::Order),
            disk_random: Random::new(seed, Purpose::Disk),
            fault_random: Random::new(seed, Purpose::Faults),
            liar_random,
            shared: Shared::default(),
            seen: Seen::new(SEEN_MAX),
            healed_at_us: None,
            healed: Vec::new(),
            deaf: None,
            answered_in_chaos: 0,
            has_read_lists: false,
            must_reach: None,
            troublemaker: Troublemaker::new(seed, keyring.cluster(), options.constants.interval_slots),
            watch: None,
            end: None,
            hosts,
            keyring,
            options,
        })
    }

    /// Runs to the end: chaos, healing, and everything answered.
    ///
    /// # Errors
    ///
    /// The first property that does not hold.
    pub fn run(&mut self) -> Verdict {
        self.trace.line(format_args!("{}", self.options));
        for host in 0..self.hosts.len() {
            if let Some(liar) = &self.hosts[host].liar {
                self.trace.line(format_args!("r{host} lies: {}", liar.describe()));
                self.schedule(0, Happening::MakeUp { host });
            }
            let skew_max = self.options.faults.skew_ms_max;
            self.hosts[host].skew_ms = self.fault_random.range(0, skew_max) as i64;
            let after_us = self.order.range(0, 20_000);
            let life = self.hosts[host].life;
            self.schedule(after_us, Happening::Restart { host, life });
        }
        let slowest = self.fault_random.below(self.hosts.len());
        self.hosts[slowest].digest_us_max = self.options.disk.digest_us_max;
        for client in 0..self.clients.len() {
            let after_us = self.order.range(0, CLIENT_TICK_US);
            self.schedule(after_us, Happening::ClientTick { client });
        }
        if self.options.load.mischief_gap_ms > 0 {
            self.schedule(100_000, Happening::Mischief);
        }
        self.schedule_chaos();
        while self.end.is_none() {
            let Some(((at_us, _, _), happening)) = self.queue.pop_first() else { break };
            self.now_us = at_us;
            self.happen(happening)?;
            if self.counts.steps > STEPS_MAX {
                let unanswered: usize = self.clients.iter().map(Client::unanswered).sum();
                return violation("storm", format!("{STEPS_MAX} steps and no end, {unanswered} requests unanswered"));
            }
        }
        self.conclude()
    }

    /// Simulated time, in microseconds.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        self.now_us
    }

    /// Whether too little happened for the run to mean anything.
    #[must_use]
    pub fn is_void(&self) -> bool {
        self.answered_in_chaos < 10 || self.checkers.equal_roots.cuts() == 0
    }

    /// Adds what every replica says of itself to the trace.
    pub fn trace_statuses(&mut self) {
        for host in &self.hosts {
            let liar = if host.liar.is_some() { " (lies)" } else { "" };
            match &host.replica {
                Some(replica) => self.trace.line(format_args!("  {}{liar}", replica.status())),
                None => self.trace.line(format_args!("  {}{liar} down", host.id)),
            }
        }
        for (index, client) in self.clients.iter().enumerate().filter(|_| self.held.is_none()) {
            self.trace.line(format_args!("  c{index} {}", client.describe()));
        }
    }

    fn schedule(&mut self, after_us: u64, happening: Happening) {
        self.serial += 1;
        self.queue.insert((self.now_us + after_us, self.order.bits() >> 8, self.serial), happening);
    }

    fn is_current(&self, host: usize, life: u64) -> bool {
        self.hosts.get(host).is_some_and(|host| host.life == life)
    }

    fn happen(&mut self, happening: Happening) -> Verdict {
        match happening {
            Happening::Tick { host, life } if self.is_current(host, life) => {
                let after_us = self.options.tick_ms * 1_000 + self.order.range(0, 500);
                self.schedule(after_us, Happening::Tick { host, life });
                if self.hosts[host].paused_until_us > self.now_us { Ok(()) } else { self.give(host, Event::Tick) }
            }
            Happening::DiskDone { host, life, disk } if self.is_current(host, life) => self.disk_done(host, disk),
            Happening::Digested { host, life, frozen } if self.is_current(host, life) => {
                drop(frozen.digests());
                self.give(host, Event::Digested { frozen })
            }
            Happening::Work { host, life } if self.is_current(host, life) => self.work(host),
            Happening::Resume { host, life } if self.is_current(host, life) => self.resume(host),
            Happening::Restart { host, life } if self.is_current(host, life) => self.restart(host),
            Happening::Arrive(copy) => self.arrive(*copy),
            Happening::MakeUp { host } => self.make_up(host),
            Happening::Mischief => {
                self.mischief();
                Ok(())
            }
            Happening::ClientTick { client } => {
                self.schedule(CLIENT_TICK_US, Happening::ClientTick { client });
                self.client_tick(client);
                Ok(())
            }
            Happening::Fault(fault) => self.fault(fault),
            Happening::Heal => self.heal(),
            Happening::Look => self.look(),
            _ => Ok(()),
        }
    }

    /// A copy of a message is there.
    fn arrive(&mut self, copy: Copy<Parcel>) -> Verdict {
        let n = self.hosts.len();
        if copy.to.0 >= n {
            if let Parcel::Frame(frame) = &copy.message
                && let Some(client) = self.clients.get_mut(copy.to.0 - n)
            {
                client.frame(self.now_us, ReplicaId(copy.from.0 as u8), frame, &mut self.history);
            }
            return Ok(());
        }
        let host = copy.to.0;
        if !self.hosts[host].is_up() {
            return Ok(());
        }
        match copy.message {
            Parcel::Where => self.answer_where(host, copy.from),
            Parcel::Request(request) => self.give(host, Event::Request(request)),
            Parcel::Peer(message) => {
                let (me, now_us) = (self.hosts[host].id, self.now_us);
                self.deaf.iter_mut().filter(|(deaf, _)| *deaf == me).for_each(|(_, since_us)| *since_us = now_us);
                let Some(message) = self.admit(host, message)? else { return Ok(()) };
                self.give(host, Event::Peer { from: ReplicaId(copy.from.0 as u8), message })
            }
            Parcel::Frame(_) => Ok(()),
        }
    }

    /// Asks the receiver whether it wants the message; some messages come as bytes and are verified anew.
    fn admit(
        &mut self,
        host: usize,
        message: VerifiedPeer,
    ) -> Result<Option<VerifiedPeer>, crate::checkers::Violation> {
        if let VerifiedPeer::Ordering(ordering, _) = &message {
            if self.hosts[host].liar.is_some() {
                self.shared.note(ordering.message());
            }
            let replica = self.hosts[host].replica.as_ref();
            let is_wanted = replica.is_some_and(|replica| replica.wants(&ordering.message().header()));
            if !is_wanted && !self.network.is_forced() {
                self.counts.unwanted += 1;
                return Ok(None);
            }
        }
        if !self.network.is_encoded() {
            return Ok(Some(message));
        }
        let bytes = message.to_bytes();
        let Ok(decoded) = decode(&bytes, usize::MAX) else {
            violation("certificates", format!("{message} does not decode from its own {} bytes", bytes.len()))?;
            return Ok(None);
        };
        let verified = verify_peer(&self.keyring, &self.genesis.constants, &mut self.seen, decoded);
        verified.map(Some).or_else(|why| {
            violation("certificates", format!("{message} does not verify after its journey: {why}")).map(|()| None)
        })
    }

    fn answer_where(&mut self, host: usize, client: Party) -> Verdict {
        let Some(replica) = self.hosts[host].replica.as_ref() else { return Ok(()) };
        if self.hosts[host].paused_until_us > self.now_us {
            return Ok(());
        }
        let status = replica.status();
        let frame = NodeFrame::At { epoch: status.core.epoch, view: status.core.view, cut: status.stable };
        self.send_frame(host, client, frame);
        Ok(())
    }

    /// The lying client sends something to some replicas.
    fn mischief(&mut self) {
        let after_us = self.order.range(0, 2_000 * self.options.load.mischief_gap_ms);
        self.schedule(after_us, Happening::Mischief);
        let sessions: Vec<SessionId> = self.clients.iter().filter_map(Client::session).collect();
        for sent in self.troublemaker.make(&sessions, self.checkers.agreement.highest()) {
            let request = sent.request.clone();
            self.checkers.validity.signed(request.digest());
            if let Ok(asked) = request.request() {
                self.trace.line(format_args!(
                    "{} mischief {}: {}",
                    self.now_us,
                    request.digest(),
                    describe(&asked.call)
                ));
            }
            for to in self.keyring.quorum().members().filter(|to| is_in(sent.to, *to)) {
                let (from, to) = (Party(usize::MAX), Party(to.0.into()));
                let copy = Copy { at_us: self.now_us, from, to, message: Parcel::Request(request.clone()) };
                let after_us = self.order.range(100, 5_000);
                self.schedule(after_us, Happening::Arrive(Box::new(copy)));
            }
            if sent.badly_to != 0 {
                // A node verifies before its replica hears of it (R20): whoever gets it badly signed never does.
                let is_bad = sent.badly().verify(self.keyring.cluster()).is_err();
                self.counts.forged += u64::from(is_bad);
            }
        }
    }

    fn client_tick(&mut self, client: usize) {
        let mut said = Vec::new();
        let from = Party(self.hosts.len() + client);
        if let Some(client) = self.clients.get_mut(client) {
            client.tick(self.now_us, &mut self.history, &mut said);
        }
        for (whom, say) in said {
            let parcel = match say {
                Say::Where => Parcel::Where,
                Say::Request(request) => {
                    self.checkers.validity.signed(request.digest());
                    Parcel::Request(request)
                }
            };
            match whom {
                Whom::One(to) => self.post(from, Party(to.0.into()), parcel),
                Whom::All => (0..self.hosts.len()).for_each(|to| self.post(from, Party(to), parcel.clone())),
            }
        }
    }

    /// Hands a message to the network, which the adversary rules until it is healed.
    fn post(&mut self, from: Party, to: Party, message: Parcel) {
        if self.healed_at_us.is_none()
            && let Parcel::Peer(said) = &message
            && self.shared.loses(self.now_us, ReplicaId(from.0 as u8), ReplicaId(to.0 as u8), said)
        {
            return;
        }
        if self.healed_at_us.is_some() && self.network.is_lossy_when_healed() {
            let what = Digest::of(Domain::Seen, format!("{}>{} {message}", from.0, to.0).as_bytes());
            let what = u64::from_le_bytes(std::array::from_fn(|index| what.0[index]));
            if self.network.loses_first(from, to, what) {
                return;
            }
        }
        if let Some(held) = &mut self.held {
            held.push(Copy { at_us: self.now_us, from, to, message });
            return;
        }
        for copy in self.network.send(self.now_us, from, to, message) {
            let after_us = copy.at_us - self.now_us;
            self.schedule(after_us, Happening::Arrive(Box::new(copy)));
        }
    }

    /// Starts a replica from what its disks remember.
    fn restart(&mut self, host: usize) -> Verdict {
        if self.hosts[host].is_up() || self.hosts[host].is_gone {
            return Ok(());
        }
        let is_blank = self.hosts[host].is_blank();
        let start = if is_blank { Start::Genesis } else { Start::Memory };
        let me = self.hosts[host].id;
        let config = ReplicaConfig {
            genesis: self.genesis.clone(),
            me,
            key: self.keys[host].clone(),
            pipeline_slots: self.options.pipeline_slots,
            nonce: self.order.bits(),
            #[cfg(polder_mutations)]
            mutation: self.mutation.filter(|_| self.hosts[host].liar.is_none()),
        };
        let (log, state) = (self.hosts[host].log.store().clone(), self.hosts[host].state.store().clone());
        let opened = Replica::open(config, Arc::new(Lists), log.as_ref(), state.as_ref(), start);
        let (replica, actions) = match opened {
            Ok(opened) => opened,
            Err(why) => return violation("recovery", format!("{me} cannot start again ({start:?}): {why}")),
        };
        self.counts.restarts += 1;
        let status = replica.status();
        self.trace.line(format_args!("{} {me} starts: {status}", self.now_us));
        if self.hosts[host].liar.is_none() {
            self.checkers.agreement.starts(me, status.executed, status.history)?;
        }
        self.hosts[host].replica = Some(replica);
        self.hosts[host].started_us = self.now_us;
        let life = self.hosts[host].life;
        if self.options.tick_ms > 0 {
            let after_us = self.order.range(0, self.options.tick_ms * 1_000);
            self.schedule(after_us, Happening::Tick { host, life });
        }
        self.doom_again(host);
        self.carry_out(host, actions)
    }
}
