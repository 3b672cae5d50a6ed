//! A view change of thirteen replicas with a full window (R13): how large the NEW-VIEW is, how long it takes to verify and
//! to enter. `cargo bench -p polder-sim-tests --bench view_change [-- REPLICAS...]`.
//!
//! *alike*: all enclose the same prepared certificates, as in a run without losses. *each its own*: every VIEW-CHANGE has
//! certificates of other signers for every slot, the most that can be asked of who verifies it.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Instant;

use polder_consensus::{
    Config, Core, Entry, Input, Message, NewView, Now, Output, Phase, Seen, Suspect, ViewChange, ViewChangeBody, Vote,
    verify,
};
use polder_types::{
    Batch, ClientAccess, Constants, Epoch, FaultModel, Genesis, Keyring, Member, Nonce, Proof, ReplicaId, Seq, Signed,
    SigningKey, Statement, Timestamp, View, decode, encode, signing_bytes,
};

struct Cluster {
    keys: Vec<SigningKey>,
    keyring: Keyring,
    constants: Constants,
}

impl Cluster {
    fn new(replicas: u8, window_slots: u64) -> Self {
        let key = |id: u8, kind: u8| SigningKey::from_seed(&[kind + id; 32]);
        let keys: Vec<SigningKey> = (0..replicas).map(|id| key(id, 100)).collect();
        let constants = Constants { window_slots, interval_slots: window_slots / 2, ..Constants::default() };
        let member = |id: u8| Member { identity: key(id, 1).public(), signing: key(id, 100).public() };
        let genesis = Genesis {
            nonce: Nonce([0; 16]),
            replicas: (0..replicas).map(member).collect(),
            fault_model: FaultModel::Byzantine,
            constants: constants.clone(),
            clients: ClientAccess { open: true, keys: Vec::new() },
        };
        Self { keys, keyring: genesis.check().unwrap(), constants }
    }

    fn sign<S: Statement>(&self, by: usize, statement: S) -> Signed<S> {
        Signed::sign(ReplicaId(by as u8), statement, self.keyring.cluster(), &self.keys[by]).into_inner()
    }

    /// A certificate of `q` replicas, from this one on.
    fn proof<S: Statement>(&self, statement: S, from: usize) -> Proof<S> {
        let n = self.keys.len();
        let bytes = signing_bytes(self.keyring.cluster(), &statement);
        let mut by: Vec<usize> = (0..self.keyring.quorum().quorum()).map(|index| (from + index) % n).collect();
        by.sort_unstable();
        let signers = by.into_iter().map(|by| (ReplicaId(by as u8), self.keys[by].sign(&bytes))).collect();
        Proof { statement, signers }
    }

    fn new_view(&self, each_its_own: bool) -> Message {
        let epoch = Epoch::ZERO;
        let alike: Vec<Entry> = self.entries(0);
        let enclosed: Vec<(Signed<ViewChange>, ViewChangeBody)> = (0..self.keys.len())
            .map(|by| {
                let body = ViewChangeBody {
                    suspects: self.proof(Suspect { epoch, view: View(0) }, 0),
                    low: Seq::ZERO,
                    stable: None,
                    entries: if each_its_own { self.entries(by) } else { alike.clone() },
                };
                (self.sign(by, ViewChange { epoch, view: View(1), body: body.digest() }), body)
            })
            .collect();
        let body = NewView::body_digest(&enclosed);
        Message::NewView(self.sign(1, NewView { epoch, view: View(1), body }), enclosed)
    }

    fn entries(&self, from: usize) -> Vec<Entry> {
        let entry = |slot: u64| {
            let batch = Batch { ts: Timestamp(slot), requests: Vec::new() };
            let (slot, digest) = (Seq(slot), Batch::digest(&batch.to_blob()));
            let vote = Vote { phase: Phase::Prepare, epoch: Epoch::ZERO, view: View(0), slot, digest };
            Entry { slot, view: View(0), digest, prepared: Some(self.proof(vote, from)) }
        };
        (1..=self.constants.window_slots).map(entry).collect()
    }
}

fn measure(replicas: u8, each_its_own: bool) {
    // The largest window that such a cluster may have, up to the default.
    let quorum = polder_types::Quorum::new(replicas.into(), FaultModel::Byzantine).unwrap();
    let fits = |slots: &u64| {
        let constants = Constants { window_slots: *slots, ..Constants::default() };
        constants.new_view_bytes(quorum) <= Constants::NEW_VIEW_BYTES_MAX
    };
    let window_slots = [256, 128, 64, 32].into_iter().find(fits).unwrap();
    let cluster = Cluster::new(replicas, window_slots);
    let bytes = encode(&cluster.new_view(each_its_own));
    let started = Instant::now();
    let message: Message = decode(&bytes, usize::MAX).unwrap();
    let decoded = started.elapsed();
    let mut seen = Seen::for_cluster(&cluster.keyring, &cluster.constants);
    let started = Instant::now();
    let verified = verify(&cluster.keyring, &cluster.constants, &mut seen, message.clone()).unwrap();
    let checked = started.elapsed();
    // Whoever has heard the VIEW-CHANGEs before verifies little more.
    let started = Instant::now();
    verify(&cluster.keyring, &cluster.constants, &mut seen, message).unwrap();
    let checked_again = started.elapsed();
    let config = Config {
        me: ReplicaId(2),
        epoch: Epoch::ZERO,
        keyring: cluster.keyring.clone(),
        key: cluster.keys[2].clone(),
        constants: cluster.constants.clone(),
        pipeline_slots: 4,
        #[cfg(polder_mutations)]
        mutation: None,
    };
    let (mut core, mut out) = Core::new(config);
    let now = Now { monotonic_ms: 10, wall: Timestamp(1_000) };
    let suspects = Message::Suspects(cluster.proof(Suspect { epoch: Epoch::ZERO, view: View(0) }, 0));
    let suspects = verify(&cluster.keyring, &cluster.constants, &mut seen, suspects).unwrap();
    core.step(now, Input::Message { from: ReplicaId(1), message: Arc::new(suspects) }, &mut out);
    // Its VIEW-CHANGE is durable.
    let tickets: Vec<_> = out
        .iter()
        .filter_map(|output| if let Output::Persist { ticket, .. } = output { *ticket } else { None })
        .collect();
    tickets.into_iter().for_each(|ticket| core.step(now, Input::Synced(ticket), &mut out));
    out.clear();
    let started = Instant::now();
    core.step(now, Input::Message { from: ReplicaId(1), message: Arc::new(verified) }, &mut out);
    let entered = started.elapsed();
    assert_eq!(core.status().view, View(1));
    println!(
        "{replicas:>3} {window_slots:>5} {:<13} {:>8.2} MiB {:>8.1} ms {:>9.1} ms {:>9.1} ms {:>8.1} ms {:>6}",
        if each_its_own { "each its own" } else { "alike" },
        bytes.len() as f64 / f64::from(1 << 20),
        decoded.as_secs_f64() * 1e3,
        checked.as_secs_f64() * 1e3,
        checked_again.as_secs_f64() * 1e3,
        entered.as_secs_f64() * 1e3,
        out.len(),
    );
}

fn main() {
    let named: Vec<u8> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let sizes = if named.is_empty() { vec![4, 7, 13] } else { named };
    println!("  n     L certificates     NEW-VIEW      decode       verify        again       enter outputs");
    for replicas in sizes {
        measure(replicas, false);
        measure(replicas, true);
    }
}
