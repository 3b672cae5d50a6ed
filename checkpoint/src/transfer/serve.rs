//! The serving side of state transfer: answers from the frozen snapshots of the last stable cuts, capped for each peer.

use std::collections::{BTreeMap, VecDeque};

use polder_types::{Blob, PartitionId, ReplicaId, Seq};

use super::{Input, Message};
use crate::state::CertifiedState;

/// How much a replica serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServeConfig {
    /// Bytes of a chunk, at most 1 MiB; a single larger entry makes a chunk alone.
    pub chunk_bytes: usize,
    /// Bytes that one peer gets in a second.
    pub bytes_per_second: u64,
    /// Questions of one peer that wait; what comes beyond is dropped, and asked again by an honest peer.
    pub waiting_max: usize,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self { chunk_bytes: 256 << 10, bytes_per_second: 64 << 20, waiting_max: 16 }
    }
}

/// Serves state to peers. Pure; every answer leads to a message at once or to none.
#[derive(Clone, Debug)]
pub struct Serve {
    config: ServeConfig,
    peers: BTreeMap<ReplicaId, Peer>,
    now_ms: u64,
}

#[derive(Clone, Debug)]
struct Peer {
    /// Bytes that may be sent; below zero after a large answer.
    budget: i64,
    waiting: VecDeque<Message>,
}

impl Serve {
    /// Serves nothing yet.
    #[must_use]
    pub fn new(config: ServeConfig) -> Self {
        Self { config, peers: BTreeMap::new(), now_ms: 0 }
    }

    /// Takes a question or a tick. `sources` are [`crate::Planner::sources`]; what is pushed is to be sent on the lane
    /// of transfer and may be dropped. Messages that are no questions are ignored.
    pub fn step(&mut self, now_ms: u64, input: Input, sources: &[CertifiedState], out: &mut Vec<(ReplicaId, Message)>) {
        self.refill(now_ms);
        match input {
            Input::Message { from, message } if message.is_question() => {
                let budget = self.burst();
                let peer = self.peers.entry(from).or_insert(Peer { budget, waiting: VecDeque::new() });
                if peer.waiting.len() < self.config.waiting_max && !peer.waiting.contains(&message) {
                    peer.waiting.push_back(message);
                }
                self.answer(from, sources, out);
            }
            Input::Message { .. } => {}
            Input::Tick => {
                let peers: Vec<ReplicaId> = self.peers.keys().copied().collect();
                peers.into_iter().for_each(|peer| self.answer(peer, sources, out));
            }
        }
    }

    /// The most that a peer may save up: a tenth of a second's worth, and at least one chunk.
    fn burst(&self) -> i64 {
        let burst = (self.config.bytes_per_second / 10).max(self.config.chunk_bytes as u64);
        i64::try_from(burst).unwrap_or(i64::MAX)
    }

    fn refill(&mut self, now_ms: u64) {
        let elapsed_ms = now_ms.saturating_sub(self.now_ms);
        self.now_ms = self.now_ms.max(now_ms);
        let bytes = i64::try_from(self.config.bytes_per_second.saturating_mul(elapsed_ms) / 1_000).unwrap_or(i64::MAX);
        let burst = self.burst();
        for peer in self.peers.values_mut() {
            peer.budget = peer.budget.saturating_add(bytes).min(burst);
        }
    }

    fn answer(&mut self, to: ReplicaId, sources: &[CertifiedState], out: &mut Vec<(ReplicaId, Message)>) {
        let chunk_bytes = self.config.chunk_bytes;
        let Some(peer) = self.peers.get_mut(&to) else { return };
        while peer.budget > 0 {
            let Some(question) = peer.waiting.pop_front() else { return };
            if let Some(answer) = answer(&question, sources, chunk_bytes) {
                peer.budget = peer.budget.saturating_sub_unsigned(answer.bytes());
                out.push((to, answer));
            }
        }
    }
}

fn answer(question: &Message, sources: &[CertifiedState], chunk_bytes: usize) -> Option<Message> {
    let at = |cut: Seq| sources.iter().find(|source| source.cut() == cut);
    match question {
        Message::Ask { above } => Some(match sources.last().filter(|source| source.cut() > *above) {
            Some(newest) => {
                Message::Offer { certificate: newest.certificate().proof().clone(), digests: newest.digests() }
            }
            None => Message::Nothing { above: *above },
        }),
        Message::AskPartition { cut, partition, after } => match at(*cut) {
            Some(source) => chunk(source, *partition, after.as_deref(), chunk_bytes.min(1 << 20)),
            None => Some(Message::Gone { cut: *cut }),
        },
        Message::AskDigests { cut } => Some(match at(*cut) {
            Some(source) => Message::Digests { cut: *cut, digests: source.digests() },
            None => Message::Gone { cut: *cut },
        }),
        _ => None,
    }
}

/// None when there is no such partition.
fn chunk(source: &CertifiedState, id: PartitionId, after: Option<&[u8]>, chunk_bytes: usize) -> Option<Message> {
    let partition = source.frozen().partitions().get(usize::from(id.0))?;
    let chunk = partition.chunk(after, chunk_bytes);
    Some(Message::Chunk {
        cut: source.cut(),
        partition: id,
        after: after.map(Blob::copy),
        entries: chunk.entries,
        last_delete: partition.last_delete(),
        done: chunk.done,
    })
}
