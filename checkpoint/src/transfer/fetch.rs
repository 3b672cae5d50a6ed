//! The fetching side of state transfer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use polder_executor::{Entry, Frozen, FrozenPartition, PartitionBuilder};
use polder_types::{
    Blob, Certificate, Checkpoint, Digest, Keyring, PartitionId, Position, Proof, ReplicaId, Seq, merkle_root,
};

use super::{Input, Message};
use crate::state::CertifiedState;

/// What a fetch must know.
#[derive(Clone, Debug)]
pub struct FetchConfig {
    /// The fetching replica.
    pub me: ReplicaId,
    /// The keys by which certificates are verified.
    pub keyring: Arc<Keyring>,
    /// How many partitions a state has.
    pub partitions: u16,
    /// A peer that answers nothing for so long is replaced.
    pub deadline_ms: u64,
    /// Partitions fetched at once from one peer.
    pub at_once_per_peer: usize,
    /// A peer must send at least so many bytes in a deadline, or it trickles.
    pub bytes_per_deadline: u64,
    /// Bytes, not yet checked, that all partitions in flight may take together.
    pub unchecked_bytes_max: u64,
    /// The same of one that is in flight alone and that `r+1` peers say is larger than all may be together: who writes
    /// chooses the keys, so one partition may hold what the whole state may.
    pub alone_bytes_max: u64,
}

impl FetchConfig {
    /// Deadlines of two seconds, two partitions at once from each peer.
    #[must_use]
    pub fn new(me: ReplicaId, keyring: Arc<Keyring>, partitions: u16, unchecked_bytes_max: u64) -> Self {
        Self {
            me,
            keyring,
            partitions,
            deadline_ms: 2_000,
            at_once_per_peer: 2,
            bytes_per_deadline: 256 << 10,
            unchecked_bytes_max,
            alone_bytes_max: unchecked_bytes_max,
        }
    }
}

/// What a peer did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// It offered what no quorum certified. It is not asked again.
    Offer,
    /// It sent a partition that is not the certified one, or entries out of order, or too many. It is not asked again.
    Partition(PartitionId),
    /// It answered too late or too little; that may be the network. Others are asked first from now on.
    Late(PartitionId),
}

/// What a fetch asks for, in this order.
#[derive(Clone, Debug)]
pub enum Output {
    /// Send this on the lane of transfer. May be dropped.
    Send {
        /// To whom.
        to: ReplicaId,
        /// What.
        message: Message,
    },
    /// This peer was no help. The driver counts and reports it; the fetch has asked another already.
    Blame {
        /// The peer.
        replica: ReplicaId,
        /// Why.
        why: Blame,
    },
    /// The certified state is complete and checked. The driver installs it ([`crate::install::write`]); the fetch is
    /// done and can be dropped.
    Restored(CertifiedState),
    /// A quorum certified a state that this program cannot use: it is older than theirs, or they lie. The driver stops
    /// with these words; the fetch is done.
    Unusable {
        /// The certificate.
        certificate: Certificate<Checkpoint>,
        /// Why, in words.
        why: String,
    },
}

/// How far a fetch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The cut that is fetched.
    pub cut: Seq,
    /// Partitions that are checked.
    pub partitions_done: usize,
    /// Partitions in all.
    pub partitions: usize,
    /// Bytes received of those in flight.
    pub unchecked_bytes: u64,
    /// How often a newer cut was taken because nobody held the one before any more.
    pub retargets: u64,
}

/// Fetches one certified state. It ends with [`Output::Restored`], whatever the leader does meanwhile.
#[derive(Debug)]
pub struct Fetch {
    config: FetchConfig,
    /// The state that one has: its partitions are kept where they are the certified ones.
    own: Option<Frozen>,
    target: Certificate<Checkpoint>,
    phase: Phase,
    peers: BTreeMap<ReplicaId, Peer>,
    done: BTreeMap<PartitionId, FrozenPartition>,
    /// The most partitions in flight: lowered when they do not fit together.
    flights_max: usize,
    /// Who has sent more of a partition, alone in flight, than all may take together.
    oversize: BTreeMap<PartitionId, BTreeSet<ReplicaId>>,
    retargets: u64,
}

#[derive(Debug)]
enum Phase {
    /// Who holds what?
    Asking { offers: BTreeMap<ReplicaId, Offer>, due_ms: u64 },
    /// Fetching the partitions of the target, whose digests these are.
    Fetching { digests: Vec<Digest>, flights: BTreeMap<PartitionId, Flight> },
    /// Nothing is left to do.
    Done,
}

#[derive(Debug)]
struct Offer {
    certificate: Certificate<Checkpoint>,
    digests: Vec<Digest>,
}

#[derive(Debug, Default)]
struct Peer {
    /// It has answered the question what it holds.
    has_answered: bool,
    /// The cut that it offered when everybody was last asked, or later.
    offered: Option<Seq>,
    /// It said that it does not hold the target any more.
    is_gone: bool,
    /// It sent something wrong.
    is_blamed: bool,
    /// Deadlines missed since it last completed a partition.
    late: u64,
    /// It missed one since everybody was last asked: it may be dead.
    is_late: bool,
}

impl Peer {
    /// Whether it may be asked for partitions of this cut: it has said that it holds it, or a newer one.
    fn is_able(&self, cut: Seq) -> bool {
        !self.is_blamed && !self.is_gone && self.offered.is_some_and(|offered| offered >= cut)
    }
}

/// A partition that is being fetched from one peer.
#[derive(Debug)]
struct Flight {
    from: ReplicaId,
    builder: PartitionBuilder,
    after: Option<Blob>,
    bytes: u64,
    started_ms: u64,
    /// When the chunk in flight was first asked for, and last.
    progress_ms: u64,
    asked_ms: u64,
}

impl Fetch {
    /// Starts to fetch the state of `target` or of a newer cut. `own` is the own last state, with its digests known
    /// (the newest of [`crate::Planner::sources`] will do). The target must be above all that this replica ever said
    /// that it can recover to (R29).
    #[must_use]
    pub fn start(
        config: FetchConfig,
        now_ms: u64,
        target: Certificate<Checkpoint>,
        own: Option<Frozen>,
        out: &mut Vec<Output>,
    ) -> Self {
        let members = config.keyring.quorum().members().filter(|member| *member != config.me);
        let peers = members.map(|member| (member, Peer::default())).collect();
        let (phase, done, flights_max, oversize) = (Phase::Done, BTreeMap::new(), usize::MAX, BTreeMap::new());
        let mut fetch = Self { config, own, target, phase, peers, done, flights_max, oversize, retargets: 0 };
        fetch.ask(now_ms, out);
        fetch
    }

    /// Takes an answer or a tick. What is no answer to a question of this fetch is ignored.
    pub fn step(&mut self, now_ms: u64, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Tick => self.tick(now_ms, out),
            Input::Message { from, message } => {
                if self.peers.get(&from).is_none_or(|peer| peer.is_blamed) {
                    return;
                }
                match message {
                    Message::Offer { certificate, digests } => self.offered(now_ms, from, certificate, digests, out),
                    Message::Nothing { .. } => self.answered(now_ms, from, out),
                    Message::Chunk { cut, partition, after, entries, last_delete, done } if cut == self.cut() => {
                        let chunk = Chunk { partition, after, entries, last_delete, done };
                        self.chunk(now_ms, from, chunk, out);
                    }
                    Message::Gone { cut } if cut == self.cut() => self.gone(now_ms, from, out),
                    _ => {}
                }
            }
        }
    }

    /// The cut that is fetched; it may move forward until the fetch is done.
    #[must_use]
    pub fn cut(&self) -> Seq {
        self.target.statement().seq
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let unchecked_bytes = match &self.phase {
            Phase::Fetching { flights, .. } => flights.values().map(|flight| flight.bytes).sum(),
            Phase::Asking { .. } | Phase::Done => 0,
        };
        Progress {
            cut: self.cut(),
            partitions_done: self.done.len(),
            partitions: self.config.partitions.into(),
            unchecked_bytes,
            retargets: self.retargets,
        }
    }

    /// Asks everybody what they hold.
    fn ask(&mut self, now_ms: u64, out: &mut Vec<Output>) {
        // If everybody sent something wrong, it was not them: begin anew rather than never end.
        if self.peers.values().all(|peer| peer.is_blamed) {
            self.peers.values_mut().for_each(|peer| peer.is_blamed = false);
        }
        let above = self.cut().minus(1);
        for (id, peer) in self.peers.iter_mut().filter(|(_, peer)| !peer.is_blamed) {
            peer.has_answered = false;
            peer.offered = None;
            peer.is_gone = false;
            peer.is_late = false;
            out.push(Output::Send { to: *id, message: Message::Ask { above } });
        }
        let due_ms = now_ms.saturating_add((self.config.deadline_ms / 4).max(1));
        self.phase = Phase::Asking { offers: BTreeMap::new(), due_ms };
    }

    fn offered(
        &mut self,
        now_ms: u64,
        from: ReplicaId,
        proof: Proof<Checkpoint>,
        digests: Vec<Digest>,
        out: &mut Vec<Output>,
    ) {
        let offered = proof.statement.seq;
        if let Some(peer) = self.peers.get_mut(&from).filter(|_| offered >= self.target.statement().seq) {
            // No proof is needed: what it sends is checked.
            peer.offered = Some(offered);
        }
        if !matches!(self.phase, Phase::Asking { .. }) {
            return self.proceed_if_fetching(now_ms, out);
        }
        if offered >= self.cut() {
            let Some(certificate) = self.verified(&proof, &digests) else {
                return self.blame(now_ms, from, Blame::Offer, out);
            };
            if let Phase::Asking { offers, .. } = &mut self.phase {
                offers.insert(from, Offer { certificate, digests });
            }
        }
        self.answered(now_ms, from, out);
    }

    /// The certificate of an offer, if a quorum signed it and the digests are those under its root: no manifest is
    /// trusted (C12).
    fn verified(&self, proof: &Proof<Checkpoint>, digests: &[Digest]) -> Option<Certificate<Checkpoint>> {
        let fits = digests.len() == usize::from(self.config.partitions) && merkle_root(digests) == proof.statement.root;
        if !fits {
            return None;
        }
        if proof.statement == *self.target.statement() {
            return Some(self.target.clone());
        }
        let keyring = &self.config.keyring;
        proof.clone().verify(keyring, keyring.quorum().quorum()).ok()
    }

    fn answered(&mut self, now_ms: u64, from: ReplicaId, out: &mut Vec<Output>) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.has_answered = true;
        }
        // C12: the newest certificate held when q−1 others had answered.
        let answered = self.peers.values().filter(|peer| peer.has_answered).count();
        if answered >= self.config.keyring.quorum().quorum().saturating_sub(1) {
            self.choose(now_ms, out);
        }
    }

    /// Takes the newest cut that `r+1` of the offers reach: so one who does not lie can serve it or a newer one, and a
    /// liar that is ahead of all others cannot be the only source. Of fewer offers the oldest.
    fn choose(&mut self, now_ms: u64, out: &mut Vec<Output>) {
        let Phase::Asking { offers, .. } = &mut self.phase else { return };
        let mut offers: Vec<Offer> = std::mem::take(offers).into_values().collect();
        offers.sort_by_key(|offer| std::cmp::Reverse(offer.certificate.statement().seq));
        let weak = self.config.keyring.quorum().weak();
        offers.truncate(weak);
        let Some(Offer { certificate, digests }) = offers.pop() else { return };
        if certificate.statement().seq > self.cut() {
            self.retargets += 1;
        }
        self.target = certificate;
        self.oversize.clear();
        // What has the right digest is kept, whatever cut it was fetched for.
        let own = self.own.iter().flat_map(|own| own.partitions().iter());
        let kept: Vec<FrozenPartition> = own.chain(self.done.values()).cloned().collect();
        self.done.clear();
        for partition in kept {
            if digests.get(usize::from(partition.id().0)) == Some(&partition.digest()) {
                self.done.insert(partition.id(), partition);
            }
        }
        self.phase = Phase::Fetching { digests, flights: BTreeMap::new() };
        self.proceed(now_ms, out);
    }

    /// Sends for what nobody was asked for; ends when nothing is missing; asks anew when nobody is left.
    fn proceed(&mut self, now_ms: u64, out: &mut Vec<Output>) {
        let Phase::Fetching { digests, flights } = &mut self.phase else { return };
        if self.done.len() == digests.len() {
            return self.finish(out);
        }
        let cut = self.target.statement().seq;
        for index in 0..self.config.partitions {
            let partition = PartitionId(index);
            if flights.len() >= self.flights_max {
                break;
            }
            if self.done.contains_key(&partition) || flights.contains_key(&partition) {
                continue;
            }
            let busy = |id: ReplicaId| flights.values().filter(|flight| flight.from == id).count();
            let able = || self.peers.iter().filter(|(_, peer)| peer.is_able(cut));
            // One that is busy is better than one that was later: that may be dead, and the cut pass before it is replaced.
            let least_late = able().map(|(_, peer)| peer.late).min().unwrap_or(0);
            let quick = able().filter(|(_, peer)| peer.late <= least_late);
            let free = quick.filter(|(id, _)| busy(**id) < self.config.at_once_per_peer);
            // Who offered exactly this cut has not passed it.
            let order = |(id, peer): &(&ReplicaId, &Peer)| (peer.offered != Some(cut), busy(**id), **id);
            let Some((from, _)) = free.min_by_key(order) else { break };
            let from = *from;
            let builder = PartitionBuilder::new(partition);
            let flight = Flight {
                from,
                builder,
                after: None,
                bytes: 0,
                started_ms: now_ms,
                progress_ms: now_ms,
                asked_ms: now_ms,
            };
            flights.insert(partition, flight);
            out.push(Output::Send { to: from, message: Message::AskPartition { cut, partition, after: None } });
        }
        if flights.is_empty() {
            self.ask(now_ms, out);
        }
    }

    fn chunk(&mut self, now_ms: u64, from: ReplicaId, chunk: Chunk, out: &mut Vec<Output>) {
        let (cut, partition) = (self.cut(), chunk.partition);
        let bytes: u64 = chunk.entries.iter().map(|(key, entry)| entry.bytes(key)).sum();
        let Phase::Fetching { flights, .. } = &mut self.phase else { return };
        if flights.get(&partition).is_none_or(|flight| flight.from != from || flight.after != chunk.after) {
            return; // Late, or a second answer to one question.
        }
        while flights.len() > 1 && !fits(flights, bytes, self.config.unchecked_bytes_max) {
            drop_largest(flights);
            self.flights_max = flights.len();
        }
        let is_oversize = !fits(flights, bytes, self.config.unchecked_bytes_max);
        let is_right = chunk.is_ordered()
            && (chunk.done || !chunk.entries.is_empty())
            && (!is_oversize || fits(flights, bytes, self.config.alone_bytes_max));
        if !is_right {
            return self.blame(now_ms, from, Blame::Partition(partition), out);
        }
        if is_oversize && !self.is_believed_oversize(from, partition) {
            return self.ask_another(now_ms, from, partition, out);
        }
        let Phase::Fetching { digests, flights } = &mut self.phase else { return };
        let Some(flight) = flights.get_mut(&partition) else { return };
        flight.bytes += bytes;
        flight.progress_ms = now_ms;
        flight.asked_ms = now_ms;
        flight.after = chunk.entries.last().map(|(key, _)| key.clone());
        chunk.entries.into_iter().for_each(|(key, entry)| flight.builder.put(key, entry));
        if !chunk.done {
            let after = flight.after.clone();
            out.push(Output::Send { to: from, message: Message::AskPartition { cut, partition, after } });
            return;
        }
        let Some(mut flight) = flights.remove(&partition) else { return };
        flight.builder.set_last_delete(chunk.last_delete);
        let received = flight.builder.finish();
        if digests.get(usize::from(partition.0)) != Some(&received.digest()) {
            return self.blame(now_ms, from, Blame::Partition(partition), out);
        }
        self.done.insert(partition, received);
        if let Some(peer) = self.peers.get_mut(&from) {
            (peer.late, peer.is_late) = (0, false);
        }
        // Who sent more of it than there is has lied.
        let said = self.oversize.remove(&partition).filter(|_| flight.bytes <= self.config.unchecked_bytes_max);
        said.into_iter().flatten().for_each(|liar| self.blame(now_ms, liar, Blame::Partition(partition), out));
        self.proceed(now_ms, out);
    }

    /// Whether `r+1` peers, this one included, have sent so much of a partition that it is larger than all may be
    /// together: one of them does not lie, and it must be held all the same.
    fn is_believed_oversize(&mut self, from: ReplicaId, partition: PartitionId) -> bool {
        let said = self.oversize.entry(partition).or_default();
        said.insert(from);
        said.len() >= self.config.keyring.quorum().weak()
    }

    /// Drops what a peer has sent of a partition, and asks another for it: that one may never end.
    fn ask_another(&mut self, now_ms: u64, from: ReplicaId, partition: PartitionId, out: &mut Vec<Output>) {
        if let Phase::Fetching { flights, .. } = &mut self.phase {
            flights.remove(&partition);
        }
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.late = peer.late.saturating_add(1);
        }
        self.proceed(now_ms, out);
    }

    fn gone(&mut self, now_ms: u64, from: ReplicaId, out: &mut Vec<Output>) {
        let Phase::Fetching { flights, .. } = &mut self.phase else { return };
        flights.retain(|_, flight| flight.from != from);
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.is_gone = true;
        }
        self.proceed_or_ask(now_ms, out);
    }

    /// Names a peer that sent something wrong, drops all that it sent unchecked, and asks others.
    fn blame(&mut self, now_ms: u64, replica: ReplicaId, why: Blame, out: &mut Vec<Output>) {
        out.push(Output::Blame { replica, why });
        if let Some(peer) = self.peers.get_mut(&replica) {
            peer.is_blamed = true;
        }
        if let Phase::Fetching { flights, .. } = &mut self.phase {
            flights.retain(|_, flight| flight.from != replica);
        }
        self.proceed(now_ms, out);
    }

    fn tick(&mut self, now_ms: u64, out: &mut Vec<Output>) {
        match &self.phase {
            Phase::Asking { offers, due_ms } if now_ms >= *due_ms => {
                if offers.is_empty() {
                    self.ask(now_ms, out);
                } else {
                    self.choose(now_ms, out);
                }
            }
            Phase::Fetching { .. } => {
                self.replace_late(now_ms, out);
                self.ask_again(now_ms, out);
            }
            Phase::Asking { .. } | Phase::Done => {}
        }
    }

    /// Who answers nothing for a deadline, or less than the least in a deadline on average, is replaced.
    fn replace_late(&mut self, now_ms: u64, out: &mut Vec<Output>) {
        let Phase::Fetching { flights, .. } = &mut self.phase else { return };
        let deadline_ms = self.config.deadline_ms.max(1);
        // When everybody was late it is the network: what is demanded halves each time round.
        let cut = self.target.statement().seq;
        let able = self.peers.values().filter(|peer| peer.is_able(cut));
        let rounds = able.map(|peer| peer.late).min().unwrap_or(0).min(32);
        let is_late = |flight: &Flight| {
            let deadlines = now_ms.saturating_sub(flight.started_ms) / deadline_ms;
            let least = deadlines.saturating_sub(1).saturating_mul(self.config.bytes_per_deadline >> rounds);
            now_ms.saturating_sub(flight.progress_ms) >= deadline_ms || flight.bytes < least
        };
        let late: Vec<(PartitionId, ReplicaId)> =
            flights.iter().filter(|(_, flight)| is_late(flight)).map(|(id, flight)| (*id, flight.from)).collect();
        if late.is_empty() {
            return;
        }
        for (partition, replica) in late {
            flights.remove(&partition);
            if let Some(peer) = self.peers.get_mut(&replica) {
                peer.late = peer.late.saturating_add(1);
                peer.is_late = true;
            }
            out.push(Output::Blame { replica, why: Blame::Late(partition) });
        }
        self.proceed_or_ask(now_ms, out);
    }

    /// When all who hold this cut were late since they were last asked, and may be dead, everybody is asked anew: others
    /// may hold it by now, or a newer one.
    fn proceed_or_ask(&mut self, now_ms: u64, out: &mut Vec<Output>) {
        let cut = self.cut();
        if self.peers.values().filter(|peer| peer.is_able(cut)).all(|peer| peer.is_late) {
            self.ask(now_ms, out);
        } else {
            self.proceed(now_ms, out);
        }
    }

    /// One more peer holds the target.
    fn proceed_if_fetching(&mut self, now_ms: u64, out: &mut Vec<Output>) {
        if matches!(self.phase, Phase::Fetching { .. }) {
            self.proceed(now_ms, out);
        }
    }

    /// A message may be lost: a chunk is asked for again four times within its deadline.
    fn ask_again(&mut self, now_ms: u64, out: &mut Vec<Output>) {
        let cut = self.cut();
        let again_ms = (self.config.deadline_ms / 4).max(1);
        let Phase::Fetching { flights, .. } = &mut self.phase else { return };
        for (partition, flight) in flights {
            if now_ms.saturating_sub(flight.asked_ms) >= again_ms {
                flight.asked_ms = now_ms;
                let message = Message::AskPartition { cut, partition: *partition, after: flight.after.clone() };
                out.push(Output::Send { to: flight.from, message });
            }
        }
    }

    /// Every partition has the digest that is under the certified root: the whole is the certified state.
    fn finish(&mut self, out: &mut Vec<Output>) {
        self.phase = Phase::Done;
        let partitions = std::mem::take(&mut self.done).into_values().collect();
        let certificate = self.target.clone();
        let unusable = |why: String| Output::Unusable { certificate: certificate.clone(), why };
        out.push(match Frozen::assemble(self.cut(), partitions) {
            Err(error) => unusable(error.to_string()),
            Ok(frozen) => match CertifiedState::new(certificate.clone(), frozen) {
                Some(state) => Output::Restored(state),
                None => unusable("its time is not the one in the certificate".to_string()),
            },
        });
    }
}

/// Whether that many bytes more may be held unchecked.
fn fits(flights: &BTreeMap<PartitionId, Flight>, bytes: u64, bytes_max: u64) -> bool {
    let unchecked: u64 = flights.values().map(|flight| flight.bytes).sum();
    unchecked.saturating_add(bytes) <= bytes_max
}

/// Partitions that do not fit together are fetched one after the other. The largest goes: it may be a liar's.
fn drop_largest(flights: &mut BTreeMap<PartitionId, Flight>) {
    let largest = flights.iter().max_by_key(|(_, flight)| flight.bytes).map(|(id, _)| *id);
    if let Some(largest) = largest {
        flights.remove(&largest);
    }
}

struct Chunk {
    partition: PartitionId,
    after: Option<Blob>,
    entries: Vec<(Blob, Entry)>,
    last_delete: Position,
    done: bool,
}

impl Chunk {
    /// Whether the keys ascend, from the one that was asked with: so that no key comes twice and every chunk is
    /// progress.
    fn is_ordered(&self) -> bool {
        let first = self.entries.first().map(|(key, _)| key);
        let follows = first.is_none_or(|first| self.after.as_ref().is_none_or(|after| after < first));
        follows && self.entries.is_sorted_by(|(left, _), (right, _)| left < right)
    }
}
