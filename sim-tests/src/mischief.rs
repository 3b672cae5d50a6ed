//! A client that lies, or is broken: whatever it signs and to whomever it sends it, it must arm nothing that cannot
//! execute, change nothing for others, and change no view (R6: a request that cannot execute must not arm anything, or
//! one client changes views for ever).

use std::collections::VecDeque;

use polder_types::{
    Answer, Blob, Call, ClientId, ClusterId, NodeFrame, Position, Reply, Request, Seq, SessionId, SignedRequest,
    SigningKey, Verified, Wire as _,
};

use crate::history::Command;
use crate::random::{Purpose, Random};

/// Sessions of its own that it plays with at once.
const SESSIONS_MAX: usize = 8;

/// Old requests that it may send again.
const OLD_MAX: usize = 64;

/// The lying client of a run.
#[derive(Debug)]
pub struct Troublemaker {
    id: ClientId,
    key: SigningKey,
    cluster: ClusterId,
    interval_slots: u64,
    random: Random,
    /// Its sessions, and the next number in each.
    own: VecDeque<(SessionId, u64)>,
    old: VecDeque<Verified<SignedRequest>>,
}

/// A request, and who gets it, a bit each; and who gets it with a signature that is not the client's (R20).
#[derive(Clone, Debug)]
pub struct Sent {
    /// Who gets it as it was signed.
    pub to: u128,
    /// Who gets it signed badly.
    pub badly_to: u128,
    /// The request.
    pub request: Verified<SignedRequest>,
}

impl Sent {
    /// As it arrives where it is signed badly.
    #[must_use]
    pub fn badly(&self) -> SignedRequest {
        let mut request = SignedRequest::clone(&self.request);
        request.signature.0[0] ^= 1;
        request
    }
}

impl Troublemaker {
    /// The lying client of a run.
    #[must_use]
    pub fn new(seed: u64, cluster: ClusterId, interval_slots: u64) -> Self {
        let mut random = Random::new(seed ^ 0x5eed, Purpose::Workload);
        let key = SigningKey::from_seed(&random.bytes());
        let id = ClientId(key.public());
        Self { id, key, cluster, interval_slots, random, own: VecDeque::new(), old: VecDeque::new() }
    }

    /// Its public key.
    #[must_use]
    pub fn id(&self) -> ClientId {
        self.id
    }

    /// What a replica answers: it believes anybody that a session is open.
    pub fn hear(&mut self, frame: &NodeFrame) {
        let NodeFrame::Replies(replies) = frame else { return };
        for reply in replies {
            if let Reply { answer: Answer::Opened(session), .. } = reply
                && self.own.len() < SESSIONS_MAX
                && self.own.iter().all(|(own, _)| own != session)
            {
                self.own.push_back((*session, 1));
            }
        }
    }

    /// Something to send. `others` are sessions of other clients, `highest` is the highest slot so far.
    pub fn make(&mut self, others: &[SessionId], highest: Seq) -> Vec<Sent> {
        if self.own.is_empty() || self.random.chance(100) {
            let cut = Seq(highest.0 - highest.0 % self.interval_slots);
            let open = Call::Open { nonce: self.random.bytes(), cut };
            return self.send_to_some(open);
        }
        match self.random.range(0, 5) {
            0 => self.impossible(others, highest),
            1 => {
                let index = self.random.below(self.old.len());
                let old = self.old.get(index).cloned();
                old.into_iter().map(|request| Sent { to: self.some(), badly_to: 0, request }).collect()
            }
            _ => self.in_own_session(),
        }
    }

    /// Under a session of others or one that no slot has opened, OPENs from long ago and for long from now.
    fn impossible(&mut self, others: &[SessionId], highest: Seq) -> Vec<Sent> {
        let random = &mut self.random;
        let foreign = random.pick(others).copied().unwrap_or_default();
        let slots = if random.chance(500) { random.range(1, 24) } else { random.range(1, 1_000_000) };
        let ahead = SessionId(Position { slot: highest.plus(slots), index: 0 });
        let far = Seq(self.interval_slots << random.range(10, 40));
        let call = match random.range(0, 4) {
            0 => commands(foreign, 0, 1, 1),
            1 => commands(ahead, 0, 1, 1),
            2 => Call::Open { nonce: random.bytes(), cut: Seq(1) },
            3 => Call::Open { nonce: random.bytes(), cut: far },
            _ => Call::Close { session: foreign },
        };
        self.send_to_some(call)
    }

    /// Numbers beyond the window, acknowledgements of what never was, two requests under one number, gaps, an end
    /// before what it sent.
    fn in_own_session(&mut self) -> Vec<Sent> {
        let index = self.random.below(self.own.len());
        let Some((session, next)) = self.own.get(index).copied() else { return Vec::new() };
        let mut ahead = 1;
        let sent = match self.random.range(0, 7) {
            // More than anybody may have waiting: `Busy`, and nobody else is kept from being served.
            6 if self.random.chance(200) => {
                ahead = self.random.range(40, 100);
                let each = (0..ahead).map(|number| commands(session, next - 1, next + number, 1));
                let each: Vec<Call> = each.collect();
                each.into_iter().flat_map(|call| self.send_to_some(call)).collect()
            }
            // Good for whoever leads, bad for the others: what they cannot verify they must not wait for.
            7 => {
                let mut sent = self.send_to_some(commands(session, next - 1, next, 1));
                let good = 1 << self.random.range(0, 6);
                sent.iter_mut().for_each(|sent| (sent.to, sent.badly_to) = (good, !good));
                sent
            }
            0 => {
                let first = next + self.random.range(1_000, 100_000);
                self.send_to_some(commands(session, 0, first, 1))
            }
            1 => {
                ahead = self.random.range(1_000, 10_000);
                self.send_to_some(commands(session, next + ahead - 1, next + ahead, 1))
            }
            2 => {
                let mut two = self.send_to_some(commands(session, next - 1, next, 1));
                two.extend(self.send_to_some(commands(session, next - 1, next, 2)));
                two
            }
            3 if self.random.chance(300) => {
                self.own.remove(index);
                let mut both = self.send_to_some(Call::Close { session });
                both.extend(self.send_to_some(commands(session, next - 1, next, 1)));
                return both;
            }
            4 => {
                ahead = 2;
                self.send_to_some(commands(session, next - 1, next + 1, 1))
            }
            _ => self.send_to_some(commands(session, next - 1, next, 3)),
        };
        if let Some((_, next)) = self.own.get_mut(index) {
            *next += ahead;
        }
        sent
    }

    fn send_to_some(&mut self, call: Call) -> Vec<Sent> {
        let signed = Request { client: self.id, call }.sign(self.cluster, &self.key).verify(self.cluster);
        let Ok(request) = signed else { return Vec::new() };
        if self.old.len() >= OLD_MAX {
            self.old.pop_front();
        }
        self.old.push_back(request.clone());
        vec![Sent { to: self.some(), badly_to: 0, request }]
    }

    /// All replicas, one of them, or any.
    fn some(&mut self) -> u128 {
        match self.random.range(0, 2) {
            0 => u128::MAX,
            1 => 1 << self.random.range(0, 6),
            _ => self.random.bits().into(),
        }
    }
}

/// A call in one short line.
#[must_use]
pub fn describe(call: &Call) -> String {
    match call {
        Call::Open { cut, .. } => format!("open at {cut}"),
        Call::Commands { session, ack, first, commands } => {
            format!("{} commands from {first}, {ack} acknowledged, in {session}", commands.len())
        }
        Call::Close { session } => format!("close {session}"),
    }
}

fn commands(session: SessionId, ack: u64, first: u64, count: u64) -> Call {
    let read = |key: u64| Blob::from(Command::Read { key }.to_wire());
    Call::Commands { session, ack, first, commands: (1..=count).map(read).collect() }
}
