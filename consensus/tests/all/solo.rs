//! One core, and the keys of everybody else: what it does is seen input by input.

use std::sync::Arc;

use polder_consensus::{
    Config, Core, Entry, Input, Message, NewView, Now, Output, Phase, Proposal, Record, RecoveredLog, Seen, Suspect,
    VerifiedMessage, ViewChange, ViewChangeBody, Vote, verify,
};
use polder_types::{
    Batch, Blob, Call, Certificate, Checkpoint, ClientAccess, ClientId, Constants, Digest, Epoch, Genesis, Keyring,
    Member, Nonce, Proof, ReplicaId, Request, Seq, SessionId, Signed, SignedRequest, SigningKey, Statement, Tally,
    Timestamp, View, history_after, history_genesis,
};

use crate::world::{constants, model, session};

pub const WALL: Timestamp = Timestamp(1_700_000_000_000);

pub struct Solo {
    pub core: Core,
    pub keys: Vec<SigningKey>,
    pub keyring: Keyring,
    pub genesis: Genesis,
    pub log: Vec<Record>,
    pub sent: Vec<Message>,
    pub delivered: Vec<(Seq, Digest)>,
    pub others: Vec<Output>,
    pub wall: Timestamp,
    me: ReplicaId,
    now_ms: u64,
    seen: Seen,
    /// Whether what is written is synced at once, and executed at once.
    pub syncs: bool,
    pub executes: bool,
}

fn genesis(n: usize, r: u8, constants: Constants) -> (Vec<SigningKey>, Genesis) {
    let keys: Vec<_> = (0..n).map(|i| SigningKey::from_seed(&[10 + i as u8; 32])).collect();
    let identity = |i: usize| SigningKey::from_seed(&[100 + i as u8; 32]).public();
    let replicas = (0..n).map(|i| Member { identity: identity(i), signing: keys[i].public() }).collect();
    let clients = ClientAccess { open: true, keys: Vec::new() };
    (keys, Genesis { nonce: Nonce([9; 16]), replicas, fault_model: model(r), constants, clients })
}

impl Solo {
    pub fn new(n: usize, r: u8, me: u8) -> Self {
        Self::with(n, r, me, constants(), None)
    }

    pub fn with(n: usize, r: u8, me: u8, constants: Constants, log: Option<RecoveredLog>) -> Self {
        let (keys, genesis) = genesis(n, r, constants);
        let keyring = genesis.check().unwrap();
        let config = Config {
            me: ReplicaId(me),
            epoch: Epoch(0),
            keyring: keyring.clone(),
            key: keys[usize::from(me)].clone(),
            constants: genesis.constants.clone(),
            pipeline_slots: 4,
            #[cfg(polder_mutations)]
            mutation: crate::world::mutation(),
        };
        let records = log.as_ref().map(|log| log.records.clone()).unwrap_or_default();
        let (core, out) = match log {
            None => Core::new(config),
            Some(log) => Core::recover(config, log),
        };
        let mut solo = Self {
            core,
            keys,
            keyring,
            genesis,
            log: records,
            sent: Vec::new(),
            delivered: Vec::new(),
            others: Vec::new(),
            wall: WALL,
            me: ReplicaId(me),
            now_ms: 0,
            seen: Seen::new(4_096),
            syncs: true,
            executes: true,
        };
        solo.carry_out(out);
        solo.step(Input::Tick);
        solo.sent.clear();
        solo
    }

    pub fn step(&mut self, input: Input) {
        let mut out = Vec::new();
        self.core.step(Now { monotonic_ms: self.now_ms, wall: self.wall }, input, &mut out);
        self.core.check();
        self.carry_out(out);
    }

    fn carry_out(&mut self, out: Vec<Output>) {
        let mut next = Vec::new();
        for output in out {
            match output {
                Output::Persist { record, then, ticket } => {
                    self.log.push(record);
                    if self.syncs {
                        self.sent.extend(then.iter().map(|message| message.message().clone()));
                        next.extend(then.into_iter().map(|message| Input::Message { from: self.me, message }));
                        next.extend(ticket.map(Input::Synced));
                    }
                }
                Output::Send { message, .. } => self.sent.push(message.message().clone()),
                Output::Deliver(batch) => {
                    let decoded = Batch::from_blob(&batch.bytes, usize::MAX).unwrap_or_else(|_| Batch::no_op());
                    assert_eq!(*batch.batch, decoded, "what is executed is what the digest covers");
                    self.delivered.push((batch.slot, batch.digest));
                    if self.executes {
                        next.push(Input::Executed { slot: batch.slot, windows: Vec::new() });
                    }
                }
                other => self.others.push(other),
            }
        }
        next.into_iter().for_each(|input| self.step(input));
    }

    /// Lets time pass, 10 ms at a time; the wall clock goes with it.
    pub fn wait(&mut self, ms: u64) {
        for _ in 0..ms / 10 {
            self.now_ms += 10;
            self.wall = self.wall.plus(10);
            self.step(Input::Tick);
        }
    }

    pub fn verified(&mut self, message: Message) -> Arc<VerifiedMessage> {
        let constants = self.genesis.constants.clone();
        Arc::new(verify(&self.keyring, &constants, &mut self.seen, message).unwrap())
    }

    pub fn give(&mut self, from: u8, message: Message) {
        let message = self.verified(message);
        self.step(Input::Message { from: ReplicaId(from), message });
    }

    /// As a replica does: what is not wanted is not even verified.
    pub fn offer(&mut self, from: u8, message: Message) -> bool {
        let wants = self.core.wants(&message.header());
        if wants {
            self.give(from, message);
        }
        wants
    }

    pub fn sign<S: Statement>(&self, by: u8, statement: S) -> Signed<S> {
        Signed::sign(ReplicaId(by), statement, self.keyring.cluster(), &self.keys[usize::from(by)]).into_inner()
    }

    pub fn proof<S: Statement>(&self, by: &[u8], statement: &S) -> Proof<S> {
        self.certificate(by, statement).proof().clone()
    }

    pub fn certificate<S: Statement>(&self, by: &[u8], statement: &S) -> Certificate<S> {
        let mut tally = Tally::default();
        for by in by {
            tally.add(&self.sign(*by, statement.clone()).verify(&self.keyring).unwrap());
        }
        tally.certificate(statement, by.len()).unwrap()
    }

    pub fn propose(&self, view: u64, slot: u64, batch: &Blob) -> Message {
        let (view, slot, digest) = (View(view), Seq(slot), Batch::digest(batch));
        let by = self.keyring.quorum().leader(view).0;
        Message::Proposal(self.sign(by, Proposal { epoch: Epoch(0), view, slot, digest }), batch.clone())
    }

    pub fn vote(&self, by: u8, phase: Phase, view: u64, slot: u64, batch: &Blob) -> Message {
        Message::Vote(self.sign(by, vote(phase, view, slot, batch)))
    }

    pub fn suspect(&self, by: u8, view: u64) -> Message {
        Message::Suspect(self.sign(by, Suspect { epoch: Epoch(0), view: View(view) }))
    }

    /// `SC(view)`.
    pub fn ended(&self, view: u64) -> Proof<Suspect> {
        let q = self.keyring.quorum().quorum() as u8;
        self.proof(&(0..q).collect::<Vec<_>>(), &Suspect { epoch: Epoch(0), view: View(view) })
    }

    pub fn leave(&mut self, view: u64) {
        let ended = self.ended(view);
        self.give(1, Message::Suspects(ended));
    }

    /// An entry of a VIEW-CHANGE, with its certificate where there is a prepare phase.
    pub fn entry(&self, view: u64, slot: u64, batch: &Blob) -> Entry {
        let quorum = self.keyring.quorum();
        let signers: Vec<u8> = (0..quorum.quorum() as u8).collect();
        let prepared =
            quorum.has_prepare_phase().then(|| self.proof(&signers, &vote(Phase::Prepare, view, slot, batch)));
        Entry { slot: Seq(slot), view: View(view), digest: Batch::digest(batch), prepared }
    }

    pub fn change(
        &self,
        by: u8,
        view: u64,
        stable: Option<Proof<Checkpoint>>,
        entries: Vec<Entry>,
    ) -> (Signed<ViewChange>, ViewChangeBody) {
        let low = stable.as_ref().map_or(Seq::ZERO, |stable| stable.statement.seq);
        let body = ViewChangeBody { suspects: self.ended(view - 1), low, stable, entries };
        (self.sign(by, ViewChange { epoch: Epoch(0), view: View(view), body: body.digest() }), body)
    }

    pub fn new_view(&self, view: u64, enclosed: Vec<(Signed<ViewChange>, ViewChangeBody)>) -> Message {
        let body = NewView::body_digest(&enclosed);
        let by = self.keyring.quorum().leader(View(view)).0;
        Message::NewView(self.sign(by, NewView { epoch: Epoch(0), view: View(view), body }), enclosed)
    }

    /// A NEW-VIEW of empty VIEW-CHANGEs.
    pub fn empty_new_view(&self, view: u64) -> Message {
        let q = self.keyring.quorum().quorum() as u8;
        self.new_view(view, (0..q).map(|by| self.change(by, view, None, Vec::new())).collect())
    }

    /// The certificate of a cut, for a history of these batches from slot 1 on.
    pub fn stable(&self, seq: u64, batches: &[Blob]) -> Certificate<Checkpoint> {
        let genesis = history_genesis(self.keyring.cluster());
        let slots = (1..).map(Seq).zip(batches);
        let history =
            slots.fold(genesis, |history, (slot, batch)| history_after(&history, slot, &Batch::digest(batch)));
        let statement = Checkpoint {
            epoch: Epoch(0),
            seq: Seq(seq),
            root: Digest([1; 32]),
            history,
            time: Timestamp(0),
            config: Digest::ZERO,
            pending: Digest::ZERO,
        };
        let q = self.keyring.quorum().quorum() as u8;
        self.certificate(&(0..q).collect::<Vec<_>>(), &statement)
    }

    pub fn has_sent(&self, what: impl Fn(&Message) -> bool) -> bool {
        self.sent.iter().any(what)
    }

    pub fn suspects(&self) -> bool {
        self.core.status().suspects
    }

    pub fn request(&self, client: u8, number: u64) -> SignedRequest {
        self.request_in(client, session(), number, number - 1)
    }

    pub fn request_in(&self, client: u8, session: SessionId, number: u64, ack: u64) -> SignedRequest {
        let key = SigningKey::from_seed(&[client; 32]);
        let call = Call::Commands { session, ack, first: number, commands: vec![Blob::copy(&[client, number as u8])] };
        Request { client: ClientId(key.public()), call }.sign(self.keyring.cluster(), &key)
    }
}

pub fn vote(phase: Phase, view: u64, slot: u64, batch: &Blob) -> Vote {
    Vote { phase, epoch: Epoch(0), view: View(view), slot: Seq(slot), digest: Batch::digest(batch) }
}

/// A batch without requests, told apart by its time.
pub fn batch(at: u64) -> Blob {
    Batch { ts: WALL.plus(at), requests: Vec::new() }.to_blob()
}

pub fn voted(phase: Phase, slot: u64) -> impl Fn(&Message) -> bool {
    move |message| matches!(message, Message::Vote(vote) if vote.statement.phase == phase && vote.statement.slot == Seq(slot))
}
