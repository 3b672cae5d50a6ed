//! A cluster in memory: cores, a network that may lose, delay, reorder and split, disks that lose what is not synced,
//! clients that insist. Everything derives from one seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use polder_consensus::{
    Config, Core, Evidence, Input, Message, Now, Output, Record, RecoveredLog, Seen, To, VerifiedMessage, verify,
};
use polder_types::{
    Blob, Call, Certificate, Checkpoint, ClientAccess, ClientId, Constants, Digest, Domain, Epoch, Genesis, Keyring,
    Member, Nonce, ReplicaId, Request, Seq, Signed, SignedRequest, SigningKey, Timestamp, decode, encode,
    history_genesis,
};

use crate::liars::Lie;
pub use crate::parts::*;

pub struct World {
    pub genesis: Genesis,
    pub keyring: Keyring,
    pub keys: Vec<SigningKey>,
    pub nodes: Vec<Node>,
    pub clients: Vec<Client>,
    pub weather: Weather,
    pub random: Random,
    pub now_ms: u64,
    pub decided: BTreeMap<Seq, Digest>,
    pub batches: BTreeMap<Seq, usize>,
    pub evidence: Vec<Evidence>,
    pub steps: u64,
    pub trace: bool,
    seen: Seen,
    events: BTreeMap<(u64, u64), Event>,
    order: u64,
    /// Inputs that an output brought about: given once all outputs before them are carried out.
    inbox: VecDeque<(ReplicaId, Input)>,
}

impl World {
    pub fn new(n: usize, r: u8, seed: u64, constants: Constants) -> Self {
        let key = |kind: u8, i: usize| SigningKey::from_seed(&[kind.wrapping_add(i as u8 * 3); 32]);
        let keys: Vec<_> = (0..n).map(|i| key(1, i)).collect();
        let member = |i: usize| Member { identity: key(2, i).public(), signing: keys[i].public() };
        let genesis = Genesis {
            nonce: Nonce([9; 16]),
            replicas: (0..n).map(member).collect(),
            fault_model: model(r),
            constants,
            clients: ClientAccess { open: true, keys: Vec::new() },
        };
        let keyring = genesis.check().unwrap();
        let history = history_genesis(keyring.cluster());
        let state = State { executed: Seq::ZERO, history, done: BTreeMap::new() };
        let mut random = Random::new(seed);
        let node = |random: &mut Random| Node {
            core: None,
            state: state.clone(),
            log: Vec::new(),
            unsynced: VecDeque::new(),
            generation: 0,
            snapshots: BTreeMap::new(),
            base: None,
            cuts: BTreeMap::new(),
            own_cuts: BTreeMap::new(),
            skew_ms: random.below(100),
            lie: None,
            delivered: 0,
        };
        let nodes = (0..n).map(|_| node(&mut random)).collect();
        let seen = Seen::new(1 << 16);
        let mut world = Self {
            genesis,
            keyring,
            keys,
            nodes,
            clients: Vec::new(),
            weather: Weather::fair(),
            random,
            now_ms: 1,
            decided: BTreeMap::new(),
            batches: BTreeMap::new(),
            evidence: Vec::new(),
            steps: 0,
            trace: false,
            seen,
            events: BTreeMap::new(),
            order: 0,
            inbox: VecDeque::new(),
        };
        for i in 0..n as u8 {
            world.start(ReplicaId(i), true);
            world.at(1 + u64::from(i), Event::Tick(ReplicaId(i)));
            world.at(50 + u64::from(i), Event::Announce(ReplicaId(i)));
        }
        world
    }

    pub fn config(&self, me: ReplicaId) -> Config {
        Config {
            me,
            epoch: Epoch(0),
            keyring: self.keyring.clone(),
            key: self.keys[usize::from(me.0)].clone(),
            constants: self.genesis.constants.clone(),
            pipeline_slots: 4,
            #[cfg(polder_mutations)]
            mutation: mutation(),
        }
    }

    pub fn node(&mut self, replica: ReplicaId) -> &mut Node {
        &mut self.nodes[usize::from(replica.0)]
    }

    pub fn core(&self, replica: u8) -> &Core {
        self.nodes[usize::from(replica)].core.as_ref().unwrap()
    }

    pub fn is_up(&self, replica: u8) -> bool {
        self.nodes[usize::from(replica)].core.is_some()
    }

    pub fn up(&self) -> impl Iterator<Item = u8> + '_ {
        (0..self.nodes.len() as u8).filter(|replica| self.is_up(*replica))
    }

    fn at(&mut self, delay_ms: u64, event: Event) {
        self.order += 1;
        self.events.insert((self.now_ms + delay_ms, self.order), event);
    }

    fn start(&mut self, replica: ReplicaId, is_first: bool) {
        let config = self.config(replica);
        let node = self.node(replica);
        let (core, out) = if is_first {
            Core::new(config)
        } else {
            Core::recover(config, RecoveredLog { records: node.log.clone(), base: node.base.clone() })
        };
        core.check();
        self.node(replica).core = Some(core);
        self.carry_out(replica, out);
        self.drain();
    }

    /// Loses everything that is not synced.
    pub fn crash(&mut self, replica: u8) {
        let genesis = history_genesis(self.keyring.cluster());
        let node = &mut self.nodes[usize::from(replica)];
        node.core = None;
        node.generation += 1;
        node.unsynced.clear();
        node.cuts.clear();
        let cut = node.base.as_ref().map_or(Seq::ZERO, |base| base.statement().seq);
        let fresh = State { executed: Seq::ZERO, history: genesis, done: BTreeMap::new() };
        node.state = node.snapshots.get(&cut).cloned().unwrap_or(fresh);
        node.own_cuts.retain(|seq, _| *seq <= cut);
    }

    pub fn restart_after(&mut self, replica: u8, delay_ms: u64) {
        self.at(delay_ms, Event::Restart(ReplicaId(replica)));
    }

    pub fn add_client(&mut self, requests: u64) {
        let index = self.clients.len();
        let key = SigningKey::from_seed(&[200 + index as u8; 32]);
        self.clients.push(Client { key, number: 0, request: None, since_ms: 0, left: requests });
        self.at(5, Event::Client(index));
    }

    pub fn run_for(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        while let Some((&(at, order), _)) = self.events.first_key_value() {
            if at > end {
                break;
            }
            self.now_ms = at;
            let event = self.events.remove(&(at, order)).unwrap();
            self.happen(event);
        }
        self.now_ms = end;
    }

    /// Runs until `done`, at most so long; whether it got there.
    pub fn run_until(&mut self, ms_max: u64, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now_ms + ms_max;
        while self.now_ms < end {
            if done(self) {
                return true;
            }
            self.run_for(10);
        }
        done(self)
    }

    pub fn all_answered(&self) -> bool {
        self.clients.iter().all(|client| client.left == 0 && client.request.is_none())
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Message { from, to, message } => self.receive(from, to, message),
            Event::Checkpoint { to, signed } => self.count_checkpoint(to, signed),
            Event::Tick(replica) => {
                if self.is_up(replica.0) {
                    self.step(replica, Input::Tick);
                }
                self.at(10, Event::Tick(replica));
            }
            Event::Announce(replica) => {
                if self.is_up(replica.0) {
                    let cuts: Vec<_> = self.node(replica).own_cuts.values().cloned().collect();
                    cuts.into_iter().for_each(|signed| self.announce(replica, signed));
                }
                self.at(100, Event::Announce(replica));
            }
            Event::Sync { replica, generation, writes } => self.sync(replica, generation, writes),
            Event::Restore { replica, generation, cut } => self.restore(replica, generation, cut),
            Event::Restart(replica) => {
                if !self.is_up(replica.0) {
                    self.start(replica, false);
                }
            }
            Event::Submit { replica, request } => self.submit(replica, request),
            Event::Client(index) => self.client(index),
        }
    }

    fn receive(&mut self, from: ReplicaId, to: ReplicaId, message: Message) {
        let Some(core) = &self.nodes[usize::from(to.0)].core else { return };
        if !core.wants(&message.header()) {
            return;
        }
        if let Message::Request(request) = message {
            // As a replica does: a forwarded request is looked up like a client's own.
            return self.submit(to, request);
        }
        let constants = self.genesis.constants.clone();
        match verify(&self.keyring, &constants, &mut self.seen, message) {
            Ok(message) => self.step(to, Input::Message { from, message: Arc::new(message) }),
            Err(bad) => assert!(self.node(from).lie.is_some(), "{from} sent to {to}: {bad}"),
        }
    }

    pub fn step(&mut self, replica: ReplicaId, input: Input) {
        self.step_once(replica, input);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some((replica, input)) = self.inbox.pop_front() {
            self.step_once(replica, input);
        }
    }

    fn step_once(&mut self, replica: ReplicaId, input: Input) {
        let now_ms = self.now_ms;
        let node = self.node(replica);
        let wall = Timestamp(1_700_000_000_000 + now_ms + node.skew_ms);
        let Some(core) = &mut node.core else { return };
        let mut out = Vec::new();
        let line = format!("{input}");
        core.step(Now { monotonic_ms: now_ms, wall }, input, &mut out);
        core.check();
        self.steps += 1;
        if self.trace && (line != "tick" || out.len() > 1) {
            println!("{now_ms:6} {} | {line}", self.core(replica.0).status());
            out.iter().for_each(|output| println!("            {output}"));
        }
        self.carry_out(replica, out);
    }

    fn carry_out(&mut self, replica: ReplicaId, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Persist { record, then, ticket } => {
                    // What is written is read back as it was.
                    assert_eq!(decode::<Record>(&encode(&record), usize::MAX).as_ref(), Ok(&record));
                    let delay_ms = self.random.below(self.weather.sync_ms_max + 1);
                    let node = self.node(replica);
                    node.unsynced.push_back(Write { record, then, ticket });
                    let (generation, writes) = (node.generation, node.unsynced.len());
                    self.at(delay_ms, Event::Sync { replica, generation, writes });
                }
                Output::Send { to, message } => self.send(replica, to, &message),
                Output::Deliver(batch) => self.execute(replica, batch),
                Output::Certified(_) | Output::Misled(_) | Output::Refused { .. } => {}
                Output::FellBehind(certificate) => {
                    let (generation, cut) = (self.node(replica).generation, certificate.statement().seq);
                    let delay_ms = 20 + self.random.below(100);
                    self.at(delay_ms, Event::Restore { replica, generation, cut });
                }
                Output::Misbehaviour(evidence) => {
                    let culprit = evidence.culprit();
                    assert!(self.node(culprit).lie.is_some(), "evidence against {culprit}, which is correct");
                    self.evidence.push(evidence);
                }
                Output::Halt(why) => panic!("{replica} halts: {why}"),
            }
        }
    }

    fn send(&mut self, from: ReplicaId, to: To, message: &VerifiedMessage) {
        let all: Vec<_> = self.keyring.quorum().members().filter(|replica| *replica != from).collect();
        let to = match to {
            To::All => all,
            To::One(one) => vec![one],
        };
        for to in to {
            assert_ne!(to, from, "nothing is sent to oneself");
            let message = message.message().clone();
            let message = match self.nodes[usize::from(from.0)].lie {
                Some(lie) => lie.tell(&self.keys[usize::from(from.0)], self.keyring.cluster(), from, to, message),
                None => Some(message),
            };
            message.into_iter().for_each(|message| self.post(from, to, message));
        }
    }

    pub fn post(&mut self, from: ReplicaId, to: ReplicaId, message: Message) {
        let copies = 1 + usize::from(self.random.chance(self.weather.copy_percent));
        for _ in 0..copies {
            if self.weather.cut.contains(&(from.0, to.0)) || self.random.chance(self.weather.loss_percent) {
                continue;
            }
            let delay_ms = 1 + self.random.below(self.weather.delay_ms_max);
            self.at(delay_ms, Event::Message { from, to, message: message.clone() });
        }
    }

    fn sync(&mut self, replica: ReplicaId, generation: u64, writes: usize) {
        // One sync covers everything written before it; what is already gone was synced by an earlier one.
        let node = self.node(replica);
        if node.generation != generation {
            return;
        }
        for _ in 0..writes {
            let Some(Write { record, then, ticket }) = self.node(replica).unsynced.pop_front() else { break };
            self.node(replica).log.push(record);
            for message in then {
                self.send(replica, To::All, &message);
                self.step(replica, Input::Message { from: replica, message });
            }
            if let Some(ticket) = ticket {
                self.step(replica, Input::Synced(ticket));
            }
        }
    }

    fn execute(&mut self, replica: ReplicaId, batch: polder_consensus::CommittedBatch) {
        let is_correct = self.node(replica).lie.is_none();
        let first = *self.decided.entry(batch.slot).or_insert(batch.digest);
        assert!(!is_correct || first == batch.digest, "agreement at {}: {first} and {}", batch.slot, batch.digest);
        self.batches.insert(batch.slot, batch.batch.requests.len());
        let interval = self.genesis.constants.interval_slots;
        let node = self.node(replica);
        node.delivered += 1;
        let state = &mut node.state;
        assert_eq!(batch.slot, state.executed.next(), "delivered in order, once");
        state.executed = batch.slot;
        state.history = batch.history;
        let mut changed = BTreeSet::new();
        for request in &batch.batch.requests {
            let Ok(Request { client, call }) = request.request() else { continue };
            let Call::Commands { session, ack, first, commands } = call else { continue };
            let (acked, done) = state.done.entry((client, session)).or_default();
            *acked = ack.max(*acked);
            done.extend(first..first + commands.len() as u64);
            done.retain(|number| number > acked);
            changed.insert((client, session));
        }
        let windows =
            changed.into_iter().map(|(client, session)| (client, session, Some(state.window(client, session))));
        let windows = windows.collect();
        if batch.slot.0.is_multiple_of(interval) {
            let statement = Checkpoint {
                epoch: Epoch(0),
                seq: batch.slot,
                root: Digest::of(Domain::Partition, &batch.history.0),
                history: batch.history,
                time: Timestamp::ZERO,
                config: self.genesis.digest(),
                pending: Digest::ZERO,
            };
            let key = &self.keys[usize::from(replica.0)];
            let signed = Signed::sign(replica, statement, self.keyring.cluster(), key).into_inner();
            let node = self.node(replica);
            node.snapshots.insert(batch.slot, node.state.clone());
            node.own_cuts.insert(batch.slot, signed.clone());
            self.announce(replica, signed);
        }
        self.inbox.push_back((replica, Input::Executed { slot: batch.slot, windows }));
    }

    fn announce(&mut self, from: ReplicaId, signed: Signed<Checkpoint>) {
        for to in self.keyring.quorum().members() {
            let is_lost = from != to
                && (self.weather.cut.contains(&(from.0, to.0)) || self.random.chance(self.weather.loss_percent));
            if !is_lost && !matches!(self.nodes[usize::from(from.0)].lie, Some(Lie::Mute)) {
                let delay_ms = 1 + self.random.below(self.weather.delay_ms_max);
                self.at(delay_ms, Event::Checkpoint { to, signed: signed.clone() });
            }
        }
    }

    fn count_checkpoint(&mut self, to: ReplicaId, signed: Signed<Checkpoint>) {
        let Some(core) = &self.nodes[usize::from(to.0)].core else { return };
        if signed.statement.seq <= core.status().low {
            return;
        }
        let (seq, statement) = (signed.statement.seq, signed.statement.clone());
        let verified = signed.verify(&self.keyring).unwrap();
        let quorum = self.keyring.quorum().quorum();
        let tally = self.node(to).cuts.entry(seq).or_default();
        tally.add(&verified);
        if let Some(certificate) = tally.certificate(&statement, quorum) {
            self.node(to).cuts = self.node(to).cuts.split_off(&seq.next());
            self.step(to, Input::Stable(certificate.clone()));
            self.make_base(to, certificate);
        }
    }

    /// The state as of a certified cut is on the disk: the log before it can go.
    fn make_base(&mut self, replica: ReplicaId, certificate: Certificate<Checkpoint>) {
        let seq = certificate.statement().seq;
        let node = self.node(replica);
        let is_newer = node.base.as_ref().is_none_or(|base| base.statement().seq < seq);
        if node.state.executed < seq || !is_newer || !node.snapshots.contains_key(&seq) {
            return;
        }
        node.base = Some(certificate);
        node.snapshots = node.snapshots.split_off(&seq);
        node.own_cuts = node.own_cuts.split_off(&seq);
        let last_stable = node.log.iter().rposition(|record| matches!(record, Record::Stable { .. }));
        let mut index = 0;
        node.log.retain(|record| {
            index += 1;
            record.slot().map_or(last_stable.is_none_or(|last| index > last), |slot| slot > seq)
        });
    }

    fn restore(&mut self, replica: ReplicaId, generation: u64, cut: Seq) {
        if self.node(replica).generation != generation {
            return;
        }
        let source = self.up().find(|peer| {
            let node = &self.nodes[usize::from(*peer)];
            node.base.as_ref().is_some_and(|base| base.statement().seq >= cut)
        });
        let Some(source) = source else { return self.at(50, Event::Restore { replica, generation, cut }) };
        let source = &self.nodes[usize::from(source)];
        let certificate = source.base.clone().unwrap();
        let seq = certificate.statement().seq;
        let state = source.snapshots[&seq].clone();
        let node = self.node(replica);
        if node.state.executed < seq {
            node.state = state.clone();
            node.snapshots.insert(seq, state);
            self.make_base(replica, certificate.clone());
        }
        self.step(replica, Input::Restored { certificate });
    }

    pub fn submit(&mut self, replica: ReplicaId, request: SignedRequest) {
        let state = &self.nodes[usize::from(replica.0)].state;
        let Ok(Request { client, call }) = request.request() else { return };
        let window = match call {
            Call::Commands { session, first, commands, .. } => {
                let numbers = first..first + commands.len() as u64;
                if numbers.into_iter().all(|number| state.has_done(client, session, number)) {
                    return;
                }
                Some(state.window(client, session))
            }
            Call::Close { session } => Some(state.window(client, session)),
            Call::Open { .. } => None,
        };
        let request = request.verify(self.keyring.cluster()).unwrap();
        self.step(replica, Input::Request { request, window });
    }

    pub fn request(&self, key: &SigningKey, number: u64) -> SignedRequest {
        let session = session();
        let commands = vec![Blob::copy(&number.to_le_bytes())];
        let call = Call::Commands { session, ack: number - 1, first: number, commands };
        Request { client: ClientId(key.public()), call }.sign(self.keyring.cluster(), key)
    }

    /// A client sends to one replica, and to all when the answer is late; it believes `r+1` replicas.
    fn client(&mut self, index: usize) {
        let weak = self.keyring.quorum().weak();
        let (id, number) = (ClientId(self.clients[index].key.public()), self.clients[index].number);
        let answers = self.nodes.iter().filter(|node| node.lie.is_none());
        let answers = answers.filter(|node| node.state.has_done(id, session(), number)).count();
        if number > 0 && answers >= weak.min(self.nodes.len()) {
            self.clients[index].request = None;
        }
        if self.clients[index].request.is_none() && self.clients[index].left > 0 {
            let number = number + 1;
            let request = self.request(&self.clients[index].key, number);
            let client = &mut self.clients[index];
            (client.number, client.left, client.since_ms) = (number, client.left - 1, self.now_ms);
            client.request = Some(request.clone());
            let leader = self.up().next().map_or(ReplicaId(0), |up| self.core(up).status().leader);
            self.at(1, Event::Submit { replica: leader, request });
        } else if let Some(request) = self.clients[index].request.clone()
            && self.now_ms - self.clients[index].since_ms > 250
        {
            self.clients[index].since_ms = self.now_ms;
            for replica in self.keyring.quorum().members() {
                if !self.random.chance(self.weather.loss_percent) {
                    self.at(1, Event::Submit { replica, request: request.clone() });
                }
            }
        }
        self.at(5, Event::Client(index));
    }
}
