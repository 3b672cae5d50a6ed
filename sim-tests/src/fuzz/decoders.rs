//! Everything that is decoded: from peers, from clients, from nodes, from the disk.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::OnceLock;

use polder_consensus::{Evidence, Message, Phase, Record, Seen, ViewChange, ViewChangeBody, verify_evidence};
use polder_kv::{Command, Compare, KeyValue, Operation, Outcome, Reply, Revision, Transaction, Versioned};
use polder_node::replica::{PeerMessage, verify_peer};
use polder_types::{
    Batch, Blob, ClientFrame, Genesis, NodeFrame, Position, Proof, ReplicaId, Request, Seq, Signature, Signed,
    SignedRequest, Statement, decode, encode, signing_bytes,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Target, Verdict, counting, holds, mutate, samples, tree::Tree};
use crate::random::Random;

/// What a decoder may hold at once: so many times the bytes it was given. The densest that travels is a list of empty
/// commands, a byte each and 32 in memory, twice while the list grows.
const BYTES_PER_BYTE: usize = 128;
/// And so many bytes beside: what is reserved for a list before its elements are there. For a list that nothing bounds
/// serde reserves up to 1 MiB.
const BYTES_BESIDE: usize = 128 << 10;
const BYTES_BESIDE_UNBOUNDED: usize = (1 << 20) + BYTES_BESIDE;

/// The targets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "peer-frame",
        what: "frames between replicas; only what verifies is taken, and only what a replica signed verifies",
        iterations: 4_000,
        run: |random| peer_frame(random),
    },
    Target {
        name: "client-frame",
        what: "frames from clients, and the requests in them",
        iterations: 6_000,
        run: |random| client_frame(random),
    },
    Target {
        name: "node-frame",
        what: "frames from nodes to clients",
        iterations: 6_000,
        run: |random| wire::<NodeFrame>(random, pool(&NODES, || samples::get().nodes.iter()), BYTES_BESIDE).map(drop),
    },
    Target {
        name: "request",
        what: "bodies of requests, as their client signs them",
        iterations: 6_000,
        run: |random| wire::<Request>(random, pool(&REQUESTS, || samples::get().bodies.iter()), BYTES_BESIDE).map(drop),
    },
    Target {
        name: "batch",
        what: "batches, as they are proposed, fetched and kept",
        iterations: 4_000,
        run: |random| wire::<Batch>(random, pool(&BATCHES, || samples::get().batches.iter()), BYTES_BESIDE).map(drop),
    },
    Target {
        name: "record",
        what: "records of the ordering log",
        iterations: 4_000,
        run: |random| wire::<Record>(random, pool(&RECORDS, || records().into_iter()), BYTES_BESIDE).map(drop),
    },
    Target {
        name: "evidence",
        what: "evidence made of what correct replicas signed, restarts and view changes included: it proves nothing (R41)",
        iterations: 4_000,
        run: |random| evidence(random),
    },
    Target {
        name: "genesis",
        what: "the configuration that a cluster starts from; its check says yes or no, whatever it says",
        iterations: 4_000,
        run: |random| genesis(random),
    },
    Target {
        name: "kv-command",
        what: "commands of the key-value service",
        iterations: 6_000,
        run: |random| {
            let pool = pool(&COMMANDS, || commands().into_iter());
            let command = wire::<Command>(random, pool, BYTES_BESIDE)?;
            // R2: what a constructor would refuse is refused when it is executed, not when it is decoded.
            let _refused = command.is_some_and(|command| command.check().is_err());
            Ok(())
        },
    },
    Target {
        name: "kv-reply",
        what: "replies of the key-value service",
        iterations: 6_000,
        run: |random| wire::<Reply>(random, pool(&REPLIES, || replies().into_iter()), BYTES_BESIDE_UNBOUNDED).map(drop),
    },
];

static PEERS: OnceLock<Vec<Tree>> = OnceLock::new();
static CLIENTS: OnceLock<Vec<Tree>> = OnceLock::new();
static NODES: OnceLock<Vec<Tree>> = OnceLock::new();
static REQUESTS: OnceLock<Vec<Tree>> = OnceLock::new();
static BATCHES: OnceLock<Vec<Tree>> = OnceLock::new();
static RECORDS: OnceLock<Vec<Tree>> = OnceLock::new();
static EVIDENCE: OnceLock<Vec<Tree>> = OnceLock::new();
static COMMANDS: OnceLock<Vec<Tree>> = OnceLock::new();
static REPLIES: OnceLock<Vec<Tree>> = OnceLock::new();

/// The trees of these values, made once.
fn pool<T: Serialize, I: Iterator<Item = T>>(
    pool: &'static OnceLock<Vec<Tree>>,
    values: impl FnOnce() -> I,
) -> &'static [Tree] {
    pool.get_or_init(|| values().filter_map(|value| Tree::of(&value)).collect())
}

/// Something that was changed, up to four times: as a tree, as bytes, or both.
pub(super) fn changed(random: &mut Random, pool: &[Tree]) -> Vec<u8> {
    let mut tree = random.pick(pool).cloned().unwrap_or(Tree::Bool(false));
    let as_bytes = random.chance(300);
    if !as_bytes || random.chance(300) {
        (0..random.range(1, 4)).for_each(|_| tree.mutate(random, pool));
    }
    let mut input = tree.encode();
    if as_bytes {
        let other = random.pick(pool).map(Tree::encode).unwrap_or_default();
        (0..random.range(1, 4)).for_each(|_| mutate::bytes(&mut input, random, &other));
    }
    input
}

/// Decodes something changed, and judges the decoder. Returns what it took.
fn wire<T: Serialize + DeserializeOwned + PartialEq + Debug>(
    random: &mut Random,
    pool: &[Tree],
    bytes_beside: usize,
) -> Result<Option<T>, String> {
    judge(&changed(random, pool), bytes_beside, |bytes| decode::<T>(bytes, usize::MAX).ok())
}

/// What must hold of every decoder: it holds no more than a multiple of what it was given; what it takes encodes to the
/// same bytes (R2) and decodes to the same value again; it takes nothing with a byte more or less.
pub fn judge<T: Serialize + PartialEq + Debug>(
    input: &[u8],
    bytes_beside: usize,
    decode: impl Fn(&[u8]) -> Option<T>,
) -> Result<Option<T>, String> {
    let (decoded, peak) = counting::peak_of(|| decode(input));
    let bytes_max = BYTES_PER_BYTE * input.len() + bytes_beside;
    holds(peak <= bytes_max, || format!("{} bytes made it hold {peak}: {}", input.len(), hex(input)))?;
    let Some(value) = decoded else { return Ok(None) };
    holds(encode(&value) == input, || format!("it takes bytes that {value:?} does not encode to: {}", hex(input)))?;
    holds(decode(input).as_ref() == Some(&value), || format!("it decodes twice to other things: {}", hex(input)))?;
    let longer = [input, &[0]].concat();
    holds(decode(&longer).is_none(), || format!("it takes a byte too much after {}", hex(input)))?;
    let shorter = input.get(..input.len().saturating_sub(1)).unwrap_or_default();
    holds(input.is_empty() || decode(shorter).is_none(), || format!("it takes a byte too few of {}", hex(input)))?;
    Ok(Some(value))
}

/// The bytes, as far as one may want to read them; the command that replays them makes all of them again.
fn hex(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().take(256).map(|byte| format!("{byte:02x}")).collect();
    if bytes.len() > 256 { format!("{digits}… ({} bytes)", bytes.len()) } else { digits }
}

/// A frame that decodes is verified; whatever verifies was signed by the replicas that it names, part for part.
fn peer_frame(random: &mut Random) -> Verdict {
    let samples = samples::get();
    let pool = pool(&PEERS, || samples.peers.iter());
    let Some(message) = wire::<PeerMessage>(random, pool, BYTES_BESIDE)? else { return Ok(()) };
    if let Some(header) = message.header() {
        drop(format!("{header:?}"));
    }
    let constants = &samples.genesis.constants;
    let mut seen = Seen::for_cluster(&samples.keyring, constants);
    let Ok(verified) = verify_peer(&samples.keyring, constants, &mut seen, message) else { return Ok(()) };
    drop(verified.to_string());
    let known = known();
    let unknown = signed_parts(&verified.to_message()).into_iter().find(|part| !known.contains(part));
    holds(unknown.is_none(), || {
        format!("{verified} verifies, but {:?} never signed a part of it", unknown.map(|part| part.0))
    })
}

/// A part of a message that somebody is said to have signed: who, what, and the signature.
type Part = (ReplicaId, Vec<u8>, Signature);

/// All that any replica signed in the samples.
fn known() -> &'static BTreeSet<Part> {
    static KNOWN: OnceLock<BTreeSet<Part>> = OnceLock::new();
    KNOWN.get_or_init(|| samples::get().peers.iter().flat_map(signed_parts).collect())
}

fn signed_parts(message: &PeerMessage) -> Vec<Part> {
    let cluster = samples::get().keyring.cluster();
    fn one<S: Statement>(cluster: polder_types::ClusterId, signed: &Signed<S>) -> Part {
        (signed.by, signing_bytes(cluster, &signed.statement), signed.signature)
    }
    fn all<S: Statement>(cluster: polder_types::ClusterId, proof: &Proof<S>) -> Vec<Part> {
        let bytes = signing_bytes(cluster, &proof.statement);
        proof.signers.iter().map(|(by, signature)| (*by, bytes.clone(), *signature)).collect()
    }
    let of_change = |(signed, body): &(Signed<ViewChange>, ViewChangeBody)| {
        let mut parts = vec![one(cluster, signed)];
        parts.extend(all(cluster, &body.suspects));
        parts.extend(body.stable.iter().flat_map(|stable| all(cluster, stable)));
        parts.extend(
            body.entries.iter().filter_map(|entry| entry.prepared.as_ref()).flat_map(|proof| all(cluster, proof)),
        );
        parts
    };
    match message {
        PeerMessage::Ordering(message, _) => match message {
            Message::Proposal(signed, _) => vec![one(cluster, signed)],
            Message::Vote(signed) => vec![one(cluster, signed)],
            Message::Suspect(signed) => vec![one(cluster, signed)],
            Message::Abdicate(signed) => vec![one(cluster, signed)],
            Message::Suspects(proof) => all(cluster, proof),
            Message::Stable(proof) => all(cluster, proof),
            Message::Committed(proof, _) => all(cluster, proof),
            Message::ViewChange(signed, body) => of_change(&(signed.clone(), body.clone())),
            Message::NewView(signed, enclosed) => {
                let mut parts = vec![one(cluster, signed)];
                parts.extend(enclosed.iter().flat_map(of_change));
                parts
            }
            Message::Request(_) | Message::Status(_) | Message::Fetch(_) | Message::Body(_) => Vec::new(),
        },
        PeerMessage::Checkpoint(signed, _) => vec![one(cluster, signed)],
        // Nothing in a transfer is signed for this message: what is told is checked against a certificate later.
        PeerMessage::Transfer(_) | PeerMessage::MemoryAsk { .. } | PeerMessage::Memory { .. } => Vec::new(),
    }
}

/// A client's frame; a request in it verifies only if it is one that a client signed.
fn client_frame(random: &mut Random) -> Verdict {
    let samples = samples::get();
    let pool = pool(&CLIENTS, || samples.clients.iter());
    let Some(ClientFrame::Request(signed)) = wire::<ClientFrame>(random, pool, BYTES_BESIDE)? else { return Ok(()) };
    // Its body is decoded before its signature is checked.
    let body: Option<Request> = judge(&signed.body, BYTES_BESIDE, |bytes| decode(bytes, usize::MAX).ok())?;
    let verifies = signed.check(samples.keyring.cluster()).is_ok();
    holds(!verifies || body.is_some(), || "a request verifies whose body is none".to_owned())?;
    let is_known = |signed: &SignedRequest| samples.requests.contains(signed);
    holds(!verifies || is_known(&signed), || format!("a request verifies that no client signed: {body:?}"))
}

/// Nothing that correct replicas signed proves anything against one of them, however it is put together.
fn evidence(random: &mut Random) -> Verdict {
    let pool = pool(&EVIDENCE, || evidences().into_iter());
    let input = changed(random, pool);
    let Some(evidence) = judge(&input, BYTES_BESIDE, |bytes| decode::<Evidence>(bytes, usize::MAX).ok())? else {
        return Ok(());
    };
    let proved = verify_evidence(&samples::get().keyring, &evidence.to_bytes());
    holds(proved.is_err(), || format!("a correct replica is accused: {proved:?} by {evidence:?}"))
}

/// Statements of correct replicas, two and two, as evidence would have them.
pub(super) fn evidences() -> Vec<Evidence> {
    let (mut proposals, mut votes, mut changes, mut views) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for message in &samples::get().peers {
        let PeerMessage::Ordering(message, _) = message else { continue };
        match message {
            Message::Proposal(signed, _) => proposals.push(signed.clone()),
            Message::Vote(signed) => votes.push(signed.clone()),
            Message::ViewChange(signed, body) => changes.push((signed.clone(), body.clone())),
            Message::NewView(signed, _) => views.push(signed.clone()),
            _ => {}
        }
    }
    let mut all = Vec::new();
    all.extend(pairs(&proposals).map(|(one, other)| Evidence::Proposals(one, other)));
    all.extend(pairs(&votes).map(|(one, other)| Evidence::Votes(one, other)));
    all.extend(pairs(&changes).map(|(one, other)| Evidence::ViewChanges(one.0, other.0)));
    all.extend(pairs(&views).map(|(one, other)| Evidence::NewViews(one, other)));
    let commits = votes.iter().filter(|vote| vote.statement.phase == Phase::Commit);
    let forgotten = commits.zip(changes.iter().cycle());
    all.extend(forgotten.map(|(vote, change)| Evidence::Forgotten(vote.clone(), Box::new(change.clone()))));
    all
}

fn pairs<T: Clone>(all: &[T]) -> impl Iterator<Item = (T, T)> + '_ {
    all.iter().cloned().zip(all.iter().cloned().cycle().skip(1))
}

/// A configuration: decoding it bounds nothing (a file says it), but its check must bear anything.
fn genesis(random: &mut Random) -> Verdict {
    let pool: Vec<Tree> = Tree::of(&*samples::get().genesis).into_iter().collect();
    let Some(genesis) = wire::<Genesis>(random, &pool, BYTES_BESIDE_UNBOUNDED)? else { return Ok(()) };
    if genesis.check().is_ok() {
        let constants = &genesis.constants;
        let limits = polder_transport::Limits::new(constants);
        let frames = limits.client_frame_bytes_max.min(limits.replica_frame_bytes_max);
        holds(frames >= constants.request_bytes_max as usize, || format!("no request fits: {constants:?}"))?;
        holds(constants.doublings_max() <= u64::BITS, || format!("the time-out doubles without end: {constants:?}"))?;
        holds(!constants.is_cut(Seq(0)), || "genesis is no cut".to_owned())?;
        let parts = u32::from(constants.partitions) + u32::from(constants.session_partitions) + 1;
        holds(u32::from(constants.partitions_in_all()) == parts, || format!("there are {parts} partitions"))?;
    }
    Ok(())
}

/// What the replicas of the samples wrote to their logs.
pub(super) fn records() -> Vec<Record> {
    let peers = &samples::get().peers;
    let of = |message: &PeerMessage| match message {
        PeerMessage::Ordering(Message::Vote(vote), _) => {
            Some(Record::Accepted { proposal: None, body: Some(Blob::copy(b"body")), vote: vote.clone() })
        }
        PeerMessage::Ordering(Message::Committed(certificate, body), _) => {
            Some(Record::Committed { certificate: certificate.clone(), body: Some(body.clone()) })
        }
        PeerMessage::Ordering(Message::ViewChange(signed, body), _) => {
            Some(Record::ViewChange { signed: signed.clone(), body: body.clone() })
        }
        PeerMessage::Ordering(Message::Stable(certificate), _) => {
            let view_change = peers.iter().find_map(|message| match message {
                PeerMessage::Ordering(Message::ViewChange(signed, body), _) => Some((signed.clone(), body.clone())),
                _ => None,
            });
            let view = polder_types::View(1);
            Some(Record::Stable { certificate: certificate.clone(), view, view_change })
        }
        _ => None,
    };
    peers.iter().filter_map(of).collect()
}

/// Commands of every kind.
pub(super) fn commands() -> Vec<Command> {
    let position = Position { slot: Seq(3), index: 1 };
    let operations = || {
        [
            Operation::get(b"alpha"),
            Operation::put(b"alpha", b"one"),
            Operation::put(b"beta", &[7; 300]),
            Operation::delete(b"beta"),
            Operation::compare_and_swap(b"alpha", Some(b"one"), b"two"),
            Operation::compare_and_swap(b"gamma", None, b""),
            Operation::range(b"a", Some(b"c"), 10),
            Operation::range(b"", None, 0),
        ]
        .into_iter()
        .flatten()
    };
    let compare = vec![
        Compare::absent(b"delta"),
        Compare::present(b"alpha"),
        Compare::value(b"alpha", b"two"),
        Compare::unmodified(b"alpha", position),
    ];
    let transaction = Transaction { compare, then: operations().collect(), otherwise: operations().take(3).collect() };
    let mut commands: Vec<Command> = operations().map(Command::Do).collect();
    commands.push(Command::Transaction(transaction));
    commands.push(Command::Transaction(Transaction {
        compare: Vec::new(),
        then: operations().collect(),
        otherwise: Vec::new(),
    }));
    commands
}

/// Replies of every kind.
fn replies() -> Vec<Reply> {
    let position = Position { slot: Seq(300), index: 12 };
    let revision = Revision { created: position, modified: position, version: 3 };
    let value = || Versioned { value: Blob::copy(b"value"), revision };
    let entry = |key: &[u8]| KeyValue { key: Blob::copy(key), value: Blob::copy(&[1; 40]), revision };
    let range = Outcome::Range { entries: vec![entry(b"a"), entry(b"b"), entry(b"c")], next: Some(Blob::copy(b"d")) };
    let outcomes = vec![
        Outcome::Value(None),
        Outcome::Value(Some(value())),
        Outcome::Written(revision),
        Outcome::Differs(Some(value())),
        Outcome::Deleted(Some(revision)),
        range,
    ];
    let mut replies: Vec<Reply> = outcomes.iter().cloned().map(Reply::Done).collect();
    replies.push(Reply::Transaction { succeeded: true, outcomes });
    replies.push(Reply::Refused(polder_kv::KvError::KeyTooLong));
    replies
}
