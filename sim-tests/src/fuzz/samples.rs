//! Real frames, rows and files: what a small cluster says and writes while a view changes, a replica restarts and another
//! is left behind and fetches the state. Everything that is changed by the targets starts from these.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use polder_checkpoint::MemStore;
use polder_consensus::{Fetch, Message};
use polder_node::replica::{Mark, PeerMessage};
use polder_types::{
    Batch, ClientFrame, Digest, Epoch, Genesis, Keyring, NodeFrame, NodeStatus, ReplicaId, Request, Seq, SignedRequest,
    View,
};

use crate::history::Command;
use crate::network::{Copy, Party};
use crate::script;
use crate::world::{Parcel, World};

/// Messages of a kind that are kept.
const KIND_MAX: usize = 24;
/// Rounds of messages after which a cluster that has not come to rest is left alone.
const ROUNDS_MAX: usize = 200;

/// Real frames, rows and files.
#[derive(Debug)]
pub struct Samples {
    /// The cluster that they are of.
    pub genesis: Arc<Genesis>,
    /// Its keys, public.
    pub keyring: Keyring,
    /// What replicas said to one another.
    pub peers: Vec<PeerMessage>,
    /// What clients said to replicas.
    pub clients: Vec<ClientFrame>,
    /// What replicas said to clients.
    pub nodes: Vec<NodeFrame>,
    /// What clients signed.
    pub requests: Vec<SignedRequest>,
    /// The same without the signature.
    pub bodies: Vec<Request>,
    /// What was proposed.
    pub batches: Vec<Batch>,
    /// The log and the state of every replica.
    pub disks: Vec<(ReplicaId, MemStore, MemStore)>,
}

/// The samples, made once.
///
/// # Panics
///
/// When the cluster breaks a property by itself: then the simulator finds it too.
#[must_use]
pub fn get() -> &'static Samples {
    static SAMPLES: OnceLock<Samples> = OnceLock::new();
    SAMPLES.get_or_init(|| match Recorder::record() {
        Ok(samples) => samples,
        Err(why) => unreachable!("a cluster without faults: {why}"),
    })
}

/// A cluster moved by hand, and what was said in it.
struct Recorder {
    world: World,
    peers: BTreeMap<String, Vec<PeerMessage>>,
    frames: Vec<NodeFrame>,
    requests: Vec<SignedRequest>,
    next_id: u64,
}

impl Recorder {
    fn record() -> Result<Samples, String> {
        let mut options = script::options();
        options.load.clients = 2;
        options.load.commands_max = 3;
        options.load.retry_ms = 100;
        options.constants.partitions = 3;
        let world = World::manual(options).map_err(|why| why.to_string())?;
        let (peers, frames, requests) = (BTreeMap::new(), Vec::new(), Vec::new());
        let mut this = Self { world, peers, frames, requests, next_id: 0 };
        this.live().map_err(|violation| violation.to_string())?;
        this.finish()
    }

    fn live(&mut self) -> crate::checkers::Verdict {
        let all: Vec<ReplicaId> = (0..4).map(ReplicaId).collect();
        for replica in &all {
            self.world.start(*replica)?;
        }
        self.pass(100, 3, None)?;
        self.ask(2);
        self.pass(100, 4, None)?;
        for _ in 0..9 {
            self.ask(3);
            self.pass(20, 1, None)?;
        }
        // The leader is cut off, with requests under way: the view changes.
        self.ask(2);
        self.pass(100, 40, Some(all[0]))?;
        self.pass(100, 10, None)?;
        // The leader restarts: it abdicates.
        self.world.stop(all[1]);
        self.world.start(all[1])?;
        self.pass(200, 12, None)?;
        // A replica is left behind, beyond the log of the others.
        for _ in 0..24 {
            self.ask(2);
            self.pass(40, 1, Some(all[3]))?;
        }
        self.pass(100, 20, None)
    }

    /// Each client asks for so many commands.
    fn ask(&mut self, commands: usize) {
        for client in 0..2 {
            let mut next = || {
                self.next_id += 1;
                let (key, id) = (self.next_id % 5, self.next_id);
                match id % 4 {
                    0 => Command::Read { key },
                    1 => Command::AppendBoth { first: key, second: key + 1, id },
                    _ => Command::Append { key, id },
                }
            };
            let commands = (0..commands).map(|_| next()).collect();
            self.world.ask(client, commands);
        }
    }

    /// Time passes, so often; what one replica sends and gets is lost, if one is named.
    fn pass(&mut self, after_ms: u64, times: usize, lost: Option<ReplicaId>) -> crate::checkers::Verdict {
        let all: Vec<ReplicaId> = (0..4).map(ReplicaId).collect();
        for _ in 0..times {
            self.world.tick(after_ms, &all)?;
            (0..2).for_each(|client| self.world.ask(client, Vec::new()));
            for _ in 0..ROUNDS_MAX {
                let Some(copy) = self.world.take_held(0) else { break };
                self.keep(&copy);
                let is_of = |who: ReplicaId| [copy.from, copy.to].contains(&Party(who.0.into()));
                if !lost.is_some_and(is_of) {
                    self.world.deliver(copy)?;
                }
            }
        }
        Ok(())
    }

    fn keep(&mut self, copy: &Copy<Parcel>) {
        match &copy.message {
            Parcel::Peer(message) => {
                let said = message.to_string();
                let mut words = said.split(' ');
                let name = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
                // Of transfer and FETCH the second word says what is wanted.
                let kind = if ["TRANSFER", "FETCH"].contains(&name.0) {
                    format!("{} {}", name.0, name.1)
                } else {
                    name.0.to_owned()
                };
                let message = message.to_message();
                let kept = self.peers.entry(kind).or_default();
                if kept.len() < KIND_MAX && !kept.contains(&message) {
                    kept.push(message);
                }
            }
            Parcel::Request(request) => {
                if !self.requests.contains(request) {
                    self.requests.push((**request).clone());
                }
            }
            Parcel::Frame(frame) => {
                if self.frames.len() < 8 * KIND_MAX && !self.frames.contains(frame) {
                    self.frames.push(frame.clone());
                }
            }
            Parcel::Where => {}
        }
    }

    fn finish(mut self) -> Result<Samples, String> {
        let digest = Digest([7; 32]);
        let status = NodeStatus {
            replica: ReplicaId(1),
            is_leader: true,
            not_ready: Some("it waits for others".to_owned()),
            view: View(3),
            executed: Seq(70),
            committed: Seq(71),
            stable: Seq(64),
            root: digest,
            log_bytes: 1 << 20,
            disk_bytes: 1 << 30,
        };
        self.frames.push(NodeFrame::Status(status));
        self.frames.push(NodeFrame::Busy { request: digest, retry_after_ms: 10 });
        self.frames.push(NodeFrame::At { epoch: Epoch::ZERO, view: View(1), cut: Seq(64) });
        let session =
            self.world.clients.iter().find_map(crate::client::Client::session).ok_or("no session was opened")?;
        let mut clients: Vec<ClientFrame> =
            self.requests.iter().take(KIND_MAX).cloned().map(ClientFrame::Request).collect();
        clients.extend([ClientFrame::Where, ClientFrame::Status, ClientFrame::Attach(session)]);
        let batches: Vec<Batch> = self.peers.values().flatten().filter_map(batch).collect();
        // What is asked for one at a time, of each kind one.
        let body = batches.last().map(Batch::to_blob).ok_or("nothing was proposed")?;
        let wanted =
            [Message::Fetch(Fetch::Body(digest)), Message::Fetch(Fetch::Committed(Seq(9))), Message::Body(body)];
        let wanted = wanted.into_iter().map(|message| PeerMessage::Ordering(message, Mark::default()));
        self.peers.entry("FETCH".to_owned()).or_default().extend(wanted);
        let disks = self.world.hosts.iter();
        let disks = disks.map(|host| (host.id, host.log.store().snapshot(), host.state.store().snapshot()));
        Ok(Samples {
            genesis: self.world.genesis().clone(),
            keyring: self.world.keyring().clone(),
            disks: disks.collect(),
            clients,
            nodes: self.frames,
            bodies: self.requests.iter().filter_map(|request| request.request().ok()).collect(),
            requests: self.requests,
            batches,
            peers: self.peers.into_values().flatten().collect(),
        })
    }
}

fn batch(message: &PeerMessage) -> Option<Batch> {
    let PeerMessage::Ordering(Message::Proposal(_, body) | Message::Body(body) | Message::Committed(_, body), _) =
        message
    else {
        return None;
    };
    Batch::from_blob(body, body.len()).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Samples that have become thin would reach nothing behind the decoders.
    #[test]
    fn every_kind_of_message_is_among_the_samples() {
        let samples = get();
        let all = Recorder::record().expect("a cluster without faults");
        assert_eq!(samples.peers, all.peers, "the same cluster says the same");
        let kinds: BTreeSet<String> = samples
            .peers
            .iter()
            .map(|message| {
                let debug = format!("{message:?}");
                debug.split(['(', '{', ' ']).filter(|word| !word.is_empty()).take(2).collect::<Vec<_>>().join(" ")
            })
            .collect();
        let wanted = [
            "Ordering Request",
            "Ordering Proposal",
            "Ordering Vote",
            "Ordering Suspect",
            "Ordering Suspects",
            "Ordering Abdicate",
            "Ordering ViewChange",
            "Ordering NewView",
            "Ordering Status",
            "Ordering Fetch",
            "Ordering Committed",
            "Ordering Stable",
            "Transfer Ask",
            "Transfer Offer",
            "Transfer AskPartition",
            "Transfer Chunk",
            "MemoryAsk nonce:",
            "Memory nonce:",
        ];
        let missing: Vec<&&str> = wanted.iter().filter(|kind| !kinds.contains(**kind)).collect();
        assert!(missing.is_empty(), "{missing:?} of {kinds:?}");
        assert!(kinds.iter().any(|kind| kind.starts_with("Checkpoint")), "{kinds:?}");
        assert!(samples.requests.len() > 20 && samples.batches.len() > 5 && samples.nodes.len() > 20);
    }
}
