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
mod counts;
mod damage;
mod end;
mod host;
mod manual;
mod observe;
mod pace;
mod point;
mod strays;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use polder_consensus::{EvidenceKind, Seen};
use polder_executor::Frozen;
use polder_node::replica::{Disk, Event, Replica, ReplicaConfig, Start, VerifiedPeer};
use polder_types::{
    ClientAccess, Genesis, GenesisError, Keyring, Member, NodeFrame, Nonce, ReplicaId, Seq, SessionId, SignedRequest,
    SigningKey, Verified, View,
};

use crate::byzantine::{Liar, Shared, is_in};
use crate::checkers::progress::End;
use crate::checkers::{Verdict, Violation, violation};
use crate::client::{Client, Say, Whom};
use crate::history::History;
use crate::mischief::{Troublemaker, describe};
use crate::network::{Blocked, Copy, Network, Party};
use crate::random::{Purpose, Random};
use crate::service::Lists;
use crate::swarm::Options;
use crate::trace::Trace;

pub use chaos::Fault;
pub use counts::{Counts, Tallied};
pub use damage::Damage;
pub use host::{Host, Job, Standing};
pub use observe::Checkers;
pub use point::{Aim, Doom, Point};
pub use strays::Manner;

/// Digests of checked signatures that the run remembers: each is checked once.
const SEEN_MAX: usize = 200_000;

/// How often a client looks at the time, in microseconds.
const CLIENT_TICK_US: u64 = 10_000;

/// After how long a replica is started again whose disk is full, in microseconds.
const RETRY_START_US: u64 = 100_000;

/// How long a run may take in steps, whatever its clocks say: a storm of messages is a bug too.
const STEPS_MAX: u64 = 3_000_000;

/// How long a disk that stalls is left alone before it is looked at again, in microseconds.
const STALL_LOOK_US: u64 = 50_000;

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
    Thaw { host: usize },
    Stray { host: usize },
    Mischief,
    ClientTick { client: usize },
    Fault(chaos::Fault),
    Heal,
    Look,
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
    /// The highest view of a healed replica when the time-outs had grown after the healing.
    settled_view: Option<View>,
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
            settled_view: None,
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
        self.begin();
        self.schedule_chaos();
        while self.end.is_none() && self.happen_next(u64::MAX)? {}
        self.conclude()
    }

    /// Runs until a time, or to the end, if that comes before it.
    ///
    /// # Errors
    ///
    /// The first property that does not hold.
    pub fn advance(&mut self, until_us: u64) -> Verdict {
        while self.end.is_none() && self.happen_next(until_us)? {}
        self.now_us = self.now_us.max(until_us);
        Ok(())
    }

    /// Lets the next thing happen, if it is due by then.
    fn happen_next(&mut self, until_us: u64) -> Result<bool, Violation> {
        let Some(next) = self.queue.first_entry().filter(|next| next.key().0 <= until_us) else { return Ok(false) };
        let ((at_us, _, _), happening) = next.remove_entry();
        self.now_us = at_us;
        self.happen(happening)?;
        if self.counts.steps > STEPS_MAX {
            let unanswered: usize = self.clients.iter().map(Client::unanswered).sum();
            violation("storm", format!("{STEPS_MAX} steps and no end, {unanswered} requests unanswered"))?;
        }
        Ok(true)
    }

    /// What happens first: replicas start, clients begin to ask. Nothing fails yet.
    pub fn begin(&mut self) {
        self.trace.line(format_args!("{}", self.options));
        for host in 0..self.hosts.len() {
            if let Some(liar) = &self.hosts[host].liar {
                self.trace.line(format_args!("r{host} lies: {}", liar.describe()));
                self.schedule(0, Happening::MakeUp { host });
            }
            let skew_max = self.options.faults.skew_ms_max;
            self.hosts[host].skew_ms = self.fault_random.range(0, skew_max) as i64;
            let drift = self.options.hazards.drift_per_mille;
            self.hosts[host].drift_per_mille =
                [0; 2].map(|_: i64| self.fault_random.range(0, 2 * drift) as i64 - drift as i64);
            let after_us = self.order.range(0, 20_000);
            let life = self.hosts[host].life;
            self.schedule(after_us, Happening::Restart { host, life });
        }
        let slowest = self.fault_random.below(self.hosts.len());
        self.hosts[slowest].digest_us_max = self.options.disk.digest_us_max;
        [self.hosts[slowest].log.slowness, self.hosts[slowest].state.slowness] = self.options.hazards.slowness;
        for client in 0..self.clients.len() {
            let after_us = self.order.range(0, CLIENT_TICK_US);
            self.schedule(after_us, Happening::ClientTick { client });
        }
        if self.options.load.mischief_gap_ms > 0 {
            self.schedule(100_000, Happening::Mischief);
        }
    }

    /// Cuts the link between two replicas, both ways and for ever; a healing does not mend it while it is between
    /// replicas of which one is not healed.
    pub fn cut(&mut self, one: ReplicaId, other: ReplicaId) {
        let [one, other] = [one, other].map(|replica| Party(replica.0.into()));
        self.network.block(one, other, u64::MAX, Blocked::Lose);
        self.network.block(other, one, u64::MAX, Blocked::Lose);
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
                self.give(host, Event::Tick)
            }
            Happening::DiskDone { host, life, disk } if self.is_current(host, life) => {
                let stalled_us = self.disk(host, disk).stalled_until_us.saturating_sub(self.now_us);
                if stalled_us > 0 {
                    // Looked at again and again: the disk may be mended before the stall would be over.
                    self.schedule(stalled_us.min(STALL_LOOK_US), Happening::DiskDone { host, life, disk });
                    return Ok(());
                }
                // What was heard before may count only now.
                let (me, now_us) = (self.hosts[host].id, self.now_us);
                self.deaf.iter_mut().filter(|(deaf, _)| *deaf == me).for_each(|(_, since_us)| *since_us = now_us);
                self.disk_done(host, disk)
            }
            Happening::Digested { host, life, frozen } if self.is_current(host, life) => {
                drop(frozen.digests());
                self.give(host, Event::Digested { frozen })
            }
            Happening::Work { host, life } if self.is_current(host, life) => self.work(host),
            Happening::Resume { host, life } if self.is_current(host, life) => self.resume(host),
            Happening::Restart { host, life } if self.is_current(host, life) => self.restart(host),
            Happening::Arrive(copy) => self.arrive(*copy),
            Happening::MakeUp { host } => self.make_up(host),
            Happening::Thaw { host } => {
                self.hosts[host].frozen_wall_ms = None;
                Ok(())
            }
            Happening::Stray { host } => self.stray(host),
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

    /// Starts a replica from what its disks remember.
    fn restart(&mut self, host: usize) -> Verdict {
        if self.hosts[host].is_up() || self.hosts[host].is_gone {
            return Ok(());
        }
        if self.hosts[host].log.is_full(self.now_us) || self.hosts[host].state.is_full(self.now_us) {
            // Its first write would fail, and it would end. Somebody tries again.
            let life = self.hosts[host].life;
            self.schedule(RETRY_START_US, Happening::Restart { host, life });
            return Ok(());
        }
        let damage = self.hosts[host].damage.take();
        let is_blank = self.hosts[host].is_blank() && damage.is_none();
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
            Err(why) if damage.is_some_and(|damage| damage.explains(&why)) => {
                self.trace.line(format_args!("{} {me} is refused: {why}", self.now_us));
                self.counts.refused += 1;
                self.hosts[host].is_gone = true;
                return Ok(());
            }
            Err(why) => return violation("recovery", format!("{me} cannot start again ({start:?}): {why}")),
        };
        if let Some(damage) = damage.filter(|damage| damage.is_refused()) {
            return violation("memory", format!("{me} starts from a folder that is not its own any more: {damage:?}"));
        }
        self.counts.restarts += 1;
        let status = replica.status();
        self.trace.line(format_args!("{} {me} starts: {status}", self.now_us));
        if self.hosts[host].is_correct() {
            self.checkers.agreement.starts(me, status.executed, status.history)?;
        }
        self.observe_start(host, status.core.low)?;
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
