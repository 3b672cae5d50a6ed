//! A simulated client: opens a session, keeps several signed requests in flight, turns to all replicas when an answer
//! is late, and believes `r+1` equal answers (R23).

use std::collections::{BTreeMap, VecDeque};

use polder_types::{
    Answer, Blob, Call, ClientId, ClusterId, Digest, Failure, NodeFrame, Quorum, ReplicaId, Reply, Request, Seq,
    SessionId, SignedRequest, SigningKey, Verified, View, Wire as _,
};

use crate::history::{Command, History, Operation};
use crate::random::{Purpose, Random};
use crate::swarm::{LoadOptions, Options};

/// The longest wait before a request is sent again, in microseconds.
const RETRY_US_MAX: u64 = 1_000_000;

/// How much a client that reads slowly leaves unread; the rest is lost.
const UNREAD_MAX: usize = 64;

/// How long it reads nothing at a time, at most, in milliseconds.
const UNREAD_MS_MAX: u64 = 600;

/// What a client sends.
#[derive(Clone, Debug)]
pub enum Say {
    /// Where are you?
    Where,
    /// A signed request.
    Request(Verified<SignedRequest>),
}

/// To whom it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// The replica that it takes for the leader.
    One(ReplicaId),
    /// All.
    All,
}

/// One client.
#[derive(Debug)]
pub struct Client {
    index: usize,
    id: ClientId,
    key: SigningKey,
    cluster: ClusterId,
    quorum: Quorum,
    options: LoadOptions,
    random: Random,
    view: View,
    cuts: BTreeMap<ReplicaId, Seq>,
    state: State,
    next_number: u64,
    next_id: u64,
    made: usize,
    next_at_us: u64,
    pending: BTreeMap<u64, Pending>,
    session_window: u64,
    is_endless: bool,
    /// What it has not read yet, and until when it reads nothing.
    unread: VecDeque<(ReplicaId, NodeFrame)>,
    reads_at_us: u64,
    /// Extra requests asked for from outside.
    orders: Vec<Vec<Command>>,
    /// How often there was no room for a command of its (R25).
    no_room: u64,
}

#[derive(Debug)]
enum State {
    Closed,
    Opening { request: Verified<SignedRequest>, retry: Retry, votes: Votes },
    Open { session: SessionId },
}

#[derive(Clone, Copy, Debug)]
struct Retry {
    at_us: u64,
    wait_us: u64,
}

#[derive(Debug)]
struct Pending {
    request: Verified<SignedRequest>,
    digest: Digest,
    /// The operation in the history of each command, in order of number.
    operations: Vec<usize>,
    votes: Vec<Votes>,
    retry: Retry,
    /// What it acknowledges, if there was no room for one of its commands: with more acknowledged it is signed anew.
    refused_at: Option<u64>,
}

/// The answers of the replicas to one command; a replica's last one counts.
#[derive(Debug, Default)]
struct Votes {
    replies: BTreeMap<ReplicaId, Reply>,
    believed: bool,
}

impl Votes {
    /// Adds an answer; returns it when enough are equal to it for the first time.
    fn add(&mut self, from: ReplicaId, reply: &Reply, enough: usize) -> Option<Answer> {
        self.replies.insert(from, reply.clone());
        let equal = self.replies.values().filter(|other| *other == reply).count();
        if self.believed || equal < enough {
            return None;
        }
        self.believed = true;
        Some(reply.answer.clone())
    }
}

impl Client {
    /// A client of a cluster.
    #[must_use]
    pub fn new(index: usize, cluster: ClusterId, quorum: Quorum, options: &Options) -> Self {
        let seed = options.seed;
        let mut random = Random::new(seed.wrapping_mul(1_000_003).wrapping_add(index as u64), Purpose::Workload);
        let key = SigningKey::from_seed(&random.bytes());
        Self {
            index,
            id: ClientId(key.public()),
            key,
            cluster,
            quorum,
            options: options.load.clone(),
            random,
            view: View::ZERO,
            cuts: BTreeMap::new(),
            state: State::Closed,
            next_number: 1,
            next_id: 1,
            made: 0,
            next_at_us: 0,
            pending: BTreeMap::new(),
            session_window: options.constants.session_window,
            is_endless: options.load.is_endless && index > 0,
            unread: VecDeque::new(),
            reads_at_us: 0,
            orders: Vec::new(),
            no_room: 0,
        }
    }

    /// Its public key.
    #[must_use]
    pub fn id(&self) -> ClientId {
        self.id
    }

    /// Its session, once it is open.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        match self.state {
            State::Open { session } => Some(session),
            State::Closed | State::Opening { .. } => None,
        }
    }

    /// Whether it has made all its requests and believes an answer to each.
    #[must_use]
    pub fn is_done(&self) -> bool {
        !self.is_endless && self.made >= self.options.requests && self.orders.is_empty() && self.pending.is_empty()
    }

    /// How many requests it still has to make or wait for.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.options.requests.saturating_sub(self.made) + self.orders.len() + self.pending.len()
    }

    /// Asks it to make one more request, of these commands.
    pub fn order(&mut self, commands: Vec<Command>) {
        self.orders.push(commands);
    }

    /// Signs numbers from `first` on anew, so many as one request, whatever became of them: what only a client that lies
    /// does. None before its session is open.
    #[must_use]
    pub fn pack(&self, first: u64, count: usize) -> Option<Verified<SignedRequest>> {
        let commands = vec![Blob::from(Command::Read { key: 1 }.to_wire()); count];
        let call = Call::Commands { session: self.session()?, ack: first.saturating_sub(1), first, commands };
        Request { client: self.id, call }.sign(self.cluster, &self.key).verify(self.cluster).ok()
    }

    /// Makes no more requests than it was to make at least, abandons none, and reads at once.
    pub fn stop(&mut self) {
        self.is_endless = false;
        self.options.abandon_per_mille = 0;
        self.options.unread_per_mille = 0;
    }

    /// Time has passed: new requests, and old ones again.
    pub fn tick(&mut self, now_us: u64, history: &mut History, out: &mut Vec<(Whom, Say)>) {
        while self.reads_at_us <= now_us
            && let Some((from, frame)) = self.unread.pop_front()
        {
            self.read(now_us, from, &frame, history);
        }
        match &mut self.state {
            State::Closed => self.open(now_us, out),
            State::Opening { request, retry, .. } => {
                if retry.is_due(now_us) {
                    out.push((Whom::All, Say::Where));
                    out.push((Whom::All, Say::Request(request.clone())));
                }
            }
            State::Open { session } => {
                let session = *session;
                while let Some(commands) = self.next_commands(now_us) {
                    self.make(now_us, session, &commands, history, out);
                }
                self.sign_anew(out);
                let abandon_per_mille = self.options.abandon_per_mille;
                let random = &mut self.random;
                // An abandoned call is acknowledged like one that was answered: whatever becomes of it, nobody asks again.
                self.pending.retain(|_, pending| {
                    let is_kept = !(pending.retry.is_late(now_us) && random.chance(abandon_per_mille));
                    if !is_kept {
                        history.abandoned.extend(pending.operations.iter().map(|place| (*place, now_us)));
                    }
                    is_kept
                });
                for pending in self.pending.values_mut() {
                    if pending.retry.is_due(now_us) {
                        // Whoever leads now says so.
                        out.push((Whom::All, Say::Where));
                        out.push((Whom::All, Say::Request(pending.request.clone())));
                    }
                }
            }
        }
    }

    /// A frame from a replica: read at once, or when it reads again.
    pub fn frame(&mut self, now_us: u64, from: ReplicaId, frame: &NodeFrame, history: &mut History) {
        if self.reads_at_us <= now_us && self.random.chance(self.options.unread_per_mille) {
            self.reads_at_us = now_us + 1_000 * self.random.range(1, UNREAD_MS_MAX);
        }
        if self.reads_at_us <= now_us {
            self.read(now_us, from, frame, history);
        } else if self.unread.len() < UNREAD_MAX {
            self.unread.push_back((from, frame.clone()));
        }
    }

    fn read(&mut self, now_us: u64, from: ReplicaId, frame: &NodeFrame, history: &mut History) {
        match frame {
            NodeFrame::At { view, cut, .. } => {
                // A view on its own risk: whoever is wrong about it, the retries go to all.
                self.view = *view;
                self.cuts.insert(from, *cut);
            }
            NodeFrame::Replies(replies) => {
                for reply in replies {
                    self.reply(now_us, from, reply, history);
                }
            }
            NodeFrame::Busy { request, retry_after_ms } => {
                let busy = self.pending.values_mut().find(|pending| pending.digest == *request);
                if let Some(pending) = busy {
                    pending.retry.at_us = now_us + u64::from(*retry_after_ms) * 1_000;
                }
            }
            NodeFrame::Status(_) => {}
        }
    }

    /// What it is doing, in one short line.
    #[must_use]
    pub fn describe(&self) -> String {
        let state = match &self.state {
            State::Closed => "has no session".to_string(),
            State::Opening { .. } => "opens a session".to_string(),
            State::Open { session } => format!("{session}"),
        };
        let (next, ack) = (self.next_number, self.acknowledged());
        let pending: Vec<u64> = self.pending.keys().copied().collect();
        format!("{state}, next {next}, acknowledged {ack}, waits for {pending:?}, {} unanswered", self.unanswered())
    }

    fn open(&mut self, now_us: u64, out: &mut Vec<(Whom, Say)>) {
        // R24: a cut that r+1 replicas have reached was reached.
        let mut cuts: Vec<Seq> = self.cuts.values().copied().collect();
        cuts.sort_unstable_by(|a, b| b.cmp(a));
        let Some(cut) = cuts.get(self.quorum.liars()).copied() else {
            if now_us >= self.next_at_us {
                self.next_at_us = now_us + self.options.retry_ms * 1_000;
                out.push((Whom::All, Say::Where));
            }
            return;
        };
        let call = Call::Open { nonce: self.random.bytes(), cut };
        let Some((request, _)) = self.sign(call) else { return };
        out.push((self.leader(), Say::Request(request.clone())));
        self.state = State::Opening { request, retry: self.retry(now_us), votes: Votes::default() };
    }

    fn make(
        &mut self,
        now_us: u64,
        session: SessionId,
        commands: &[Command],
        history: &mut History,
        out: &mut Vec<(Whom, Say)>,
    ) {
        let first = self.next_number;
        let ack = self.acknowledged();
        let encoded = commands.iter().map(|command| Blob::from(command.to_wire())).collect();
        let Some((request, digest)) = self.sign(Call::Commands { session, ack, first, commands: encoded }) else {
            return;
        };
        let mut operations = Vec::new();
        for command in commands {
            operations.push(history.operations.len());
            let (client, command) = (self.index, *command);
            history.operations.push(Operation { client, command, invoked_us: now_us, answered: None });
        }
        self.next_number += commands.len() as u64;
        let votes = commands.iter().map(|_| Votes::default()).collect();
        let whom = if self.random.chance(100) { Whom::All } else { self.leader() };
        out.push((whom, Say::Request(request.clone())));
        let retry = self.retry(now_us);
        self.pending.insert(first, Pending { request, digest, operations, votes, retry, refused_at: None });
    }

    /// How often there was no room for a command of its (R25).
    #[must_use]
    pub fn no_room(&self) -> u64 {
        self.no_room
    }

    /// R25: what there was no room for is asked for again, under the same numbers, once more is acknowledged.
    fn sign_anew(&mut self, out: &mut Vec<(Whom, Say)>) {
        let answered = self.pending.first_key_value().map_or(0, |(first, pending)| {
            first - 1 + pending.votes.iter().take_while(|votes| votes.believed).count() as u64
        });
        let refused = |pending: &Pending| pending.refused_at.is_some_and(|ack| ack < answered);
        let firsts: Vec<u64> =
            self.pending.iter().filter(|(_, pending)| refused(pending)).map(|(first, _)| *first).collect();
        for first in firsts {
            let Some(request) = self.pending.get(&first).and_then(|pending| pending.request.request().ok()) else {
                continue;
            };
            let Call::Commands { session, first, commands, .. } = request.call else { continue };
            let call = Call::Commands { session, ack: answered, first, commands };
            let Some((request, digest)) = self.sign(call) else { continue };
            out.push((self.leader(), Say::Request(request.clone())));
            if let Some(pending) = self.pending.get_mut(&first) {
                (pending.request, pending.digest, pending.refused_at) = (request, digest, None);
            }
        }
    }

    /// Every number up to this one was answered.
    fn acknowledged(&self) -> u64 {
        self.pending.keys().next().unwrap_or(&self.next_number) - 1
    }

    fn next_commands(&mut self, now_us: u64) -> Option<Vec<Command>> {
        // R25: nothing beyond the window that the request's own acknowledgement opens.
        let high = self.next_number + self.options.commands_max as u64 - 1;
        if self.pending.len() >= self.options.in_flight || high > self.acknowledged() + self.session_window {
            return None;
        }
        if !self.orders.is_empty() {
            return Some(self.orders.remove(0));
        }
        if (self.made >= self.options.requests && !self.is_endless) || now_us < self.next_at_us {
            return None;
        }
        self.made += 1;
        self.next_at_us = now_us + 1_000 * self.random.range(0, 2 * self.options.think_ms);
        let count = self.random.range(1, self.options.commands_max as u64);
        Some((0..count).map(|_| self.draw()).collect())
    }

    fn draw(&mut self) -> Command {
        let key = self.random.range(1, self.options.keys);
        if self.random.chance(self.options.panic_per_mille) {
            return if self.random.chance(500) { Command::Panic { key } } else { Command::Undeclared { key } };
        }
        if self.random.chance(self.options.read_per_mille) {
            return Command::Read { key };
        }
        let id = self.next_id * 100 + self.index as u64;
        self.next_id += 1;
        if self.random.chance(200) {
            return Command::AppendBoth { first: key, second: self.random.range(1, self.options.keys), id };
        }
        Command::Append { key, id }
    }

    fn reply(&mut self, now_us: u64, from: ReplicaId, reply: &Reply, history: &mut History) {
        let enough = self.quorum.weak();
        match &mut self.state {
            State::Opening { request, votes, .. } => {
                if reply.number != 0 || reply.command != request.digest() {
                    return;
                }
                match votes.add(from, reply, enough) {
                    Some(Answer::Opened(session)) => self.state = State::Open { session },
                    // Too late, or too many: another one, drawn anew.
                    Some(Answer::Failed(Failure::StaleOpen | Failure::TooManySessions)) => self.state = State::Closed,
                    _ => {}
                }
            }
            State::Open { session } => {
                if reply.session == Some(*session) {
                    self.command_reply(now_us, from, reply, history);
                }
            }
            State::Closed => {}
        }
    }

    fn command_reply(&mut self, now_us: u64, from: ReplicaId, reply: &Reply, history: &mut History) {
        let enough = self.quorum.weak();
        let Some((first, pending)) = self.pending.range_mut(..=reply.number).next_back() else { return };
        let (first, index) = (*first, (reply.number - *first) as usize);
        let Some(votes) = pending.votes.get_mut(index) else { return };
        let Some(answer) = votes.add(from, reply, enough) else { return };
        if answer == Answer::Failed(Failure::NoRoom) {
            // No answer: the number is not taken, and the command may yet be executed.
            *votes = Votes::default();
            self.no_room += 1;
            let ack = pending.request.request().ok().and_then(|request| match request.call {
                Call::Commands { ack, .. } => Some(ack),
                Call::Open { .. } | Call::Close { .. } => None,
            });
            pending.refused_at = ack;
            return;
        }
        if let Some(operation) = pending.operations.get(index).and_then(|at| history.operations.get_mut(*at)) {
            operation.answered = Some((now_us, answer));
        }
        if pending.votes.iter().all(|votes| votes.believed) {
            self.pending.remove(&first);
        }
    }

    fn sign(&self, call: Call) -> Option<(Verified<SignedRequest>, Digest)> {
        let signed = Request { client: self.id, call }.sign(self.cluster, &self.key);
        let digest = signed.digest();
        signed.verify(self.cluster).ok().map(|request| (request, digest))
    }

    fn leader(&self) -> Whom {
        Whom::One(self.quorum.leader(self.view))
    }

    fn retry(&self, now_us: u64) -> Retry {
        let wait_us = self.options.retry_ms * 1_000;
        Retry { at_us: now_us + wait_us, wait_us }
    }
}

impl Retry {
    fn is_late(&self, now_us: u64) -> bool {
        now_us >= self.at_us
    }

    fn is_due(&mut self, now_us: u64) -> bool {
        let is_due = now_us >= self.at_us;
        if is_due {
            self.wait_us = (2 * self.wait_us).min(RETRY_US_MAX);
            self.at_us = now_us + self.wait_us;
        }
        is_due
    }
}
