//! Admission: what is received waits here, bounded and in turns, until its signatures are checked off the loop.
//!
//! Nobody's flood stops others (promise 4): each peer and each client has a queue of its own, bounded in
//! number and bytes; replicas and clients alternate, and within each the sources take turns. What a client sends
//! beyond its share is answered `Busy` at once; what a replica sends beyond its is dropped, for STATUS restores what
//! matters (R15). One who goes on sending beyond his share is served little beside the others, and one who signs badly
//! is served nothing more of what he has sent.

use std::collections::BTreeMap;

use polder_consensus::{BadMessage, Header};
use polder_types::{BadSignature, ClientId, Constants, Digest, ReplicaId, SignedRequest, Verified};

use crate::replica::{PeerMessage, VerifiedPeer};
use crate::shares::Shares;
use crate::turns::Turns;

/// Messages of one replica that wait.
const PEER_MESSAGES_MAX: usize = 4_096;

/// Bytes of memory that one replica's messages take while they wait.
const PEER_BYTES_MAX: usize = 32 << 20;

/// Requests of a client that wait for its share: what it sends beyond them is refused.
const WITHHELD_MAX: usize = 8;

/// For so many ticks a replica that misled this one is served only one message a tick (R20).
const PENALTY_TICKS: u32 = 100;

/// Something whose signatures are to be checked.
#[derive(Debug)]
pub(crate) enum Job {
    Peer { from: ReplicaId, message: Box<PeerMessage> },
    Client { connection: u64, client: ClientId, commands: u64, request: SignedRequest },
}

/// Its verdict.
#[derive(Debug)]
pub(crate) enum Checked {
    Peer { from: ReplicaId, outcome: Result<VerifiedPeer, BadMessage> },
    Client { connection: u64, client: ClientId, bytes: usize, outcome: Result<Verified<SignedRequest>, BadSignature> },
}

/// A request that has no place here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) connection: u64,
    pub(crate) request: Digest,
}

/// How much of something is under way.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    count: usize,
    bytes: usize,
}

impl Load {
    fn add(&mut self, bytes: usize) {
        self.count += 1;
        self.bytes += bytes;
    }

    fn remove(&mut self, bytes: usize) {
        self.count = self.count.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    fn exceeds(&self, count_max: usize, bytes_max: usize, bytes: usize) -> bool {
        self.count >= count_max || self.bytes.saturating_add(bytes) > bytes_max
    }
}

/// What waits for its signatures to be checked, and what is being checked.
#[derive(Debug)]
pub(crate) struct Admission {
    peers: Turns<ReplicaId, Job>,
    clients: Turns<ClientId, Job>,
    peer_loads: BTreeMap<ReplicaId, Load>,
    client_loads: BTreeMap<ClientId, Load>,
    clients_in_all: Load,
    shares: Shares,
    /// Peers that misled this replica: ticks until that is forgotten, and whether this tick's one message is left.
    penalties: BTreeMap<ReplicaId, (u32, bool)>,
    is_clients_turn: bool,
    limits: ClientLimits,
}

/// The caps on clients.
#[derive(Clone, Copy, Debug)]
struct ClientLimits {
    count_max: usize,
    bytes_max: usize,
    count_in_all_max: usize,
    bytes_in_all_max: usize,
}

impl Admission {
    pub(crate) fn new(constants: &Constants) -> Self {
        let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        Self {
            peers: Turns::new(),
            clients: Turns::new(),
            peer_loads: BTreeMap::new(),
            client_loads: BTreeMap::new(),
            clients_in_all: Load::default(),
            shares: Shares::default(),
            penalties: BTreeMap::new(),
            is_clients_turn: false,
            limits: ClientLimits {
                count_max: size(constants.admitted_per_client_max.into()),
                bytes_max: size(constants.admitted_bytes_per_client_max),
                count_in_all_max: size(constants.admitted_max.into()),
                bytes_in_all_max: size(constants.admitted_bytes_max),
            },
        }
    }

    /// Takes a replica's message, which takes so many bytes of memory; false: it is dropped.
    pub(crate) fn peer(&mut self, from: ReplicaId, message: Box<PeerMessage>, bytes: usize) -> bool {
        let load = self.peer_loads.entry(from).or_default();
        if load.exceeds(PEER_MESSAGES_MAX, PEER_BYTES_MAX, bytes) {
            return false;
        }
        load.add(bytes);
        self.peers.push(from, Job::Peer { from, message }, bytes);
        true
    }

    /// Takes a client's request of so many commands. Returns those that have no place: this one, or those whose place it
    /// takes. Their clients are to be told `Busy`.
    pub(crate) fn client(
        &mut self,
        connection: u64,
        client: ClientId,
        commands: u64,
        request: SignedRequest,
    ) -> Vec<Refused> {
        let bytes = request.bytes();
        let limits = self.limits;
        let own = self.client_loads.get(&client).copied().unwrap_or_default();
        let is_withheld = self.clients.waiting(client) >= WITHHELD_MAX && !self.shares.may(client);
        let mut refused = Vec::new();
        let is_taken = !is_withheld
            && !own.exceeds(limits.count_max, limits.bytes_max, bytes)
            && self.make_room(client, own, bytes, &mut refused);
        if !is_taken {
            self.refused(client);
            refused.push(Refused { connection, request: request.digest() });
            return refused;
        }
        self.client_loads.entry(client).or_default().add(bytes);
        self.clients_in_all.add(bytes);
        self.clients.push(client, Job::Client { connection, client, commands, request }, bytes);
        refused
    }

    /// When all places are taken, the newest requests of whoever has most here give way to one who has less, so that no
    /// number of floods keeps the places for itself. False: there is no room.
    fn make_room(&mut self, client: ClientId, own: Load, bytes: usize, refused: &mut Vec<Refused>) -> bool {
        let limits = self.limits;
        while self.clients_in_all.exceeds(limits.count_in_all_max, limits.bytes_in_all_max, bytes) {
            let is_by_count = self.clients_in_all.count >= limits.count_in_all_max;
            let share = |load: Load| if is_by_count { load.count } else { load.bytes };
            let of = |source: &ClientId| self.client_loads.get(source).copied().map_or(0, share);
            let Some(most) = self.clients.sources().max_by_key(of) else { return false };
            if most == client || share(own) + if is_by_count { 1 } else { bytes } >= of(&most) {
                return false;
            }
            let Some((job, bytes)) = self.clients.take_newest(most) else { return false };
            self.settled(most, bytes);
            if let Job::Client { connection, request, .. } = job {
                refused.push(Refused { connection, request: request.digest() });
            }
        }
        true
    }

    /// A request of this client is refused, here or where it was to wait next.
    pub(crate) fn refused(&mut self, client: ClientId) {
        self.shares.refused(client);
    }

    /// So many commands of this client were answered.
    pub(crate) fn answered(&mut self, client: ClientId, commands: u64) {
        self.shares.answered(client, commands);
        self.clients.call_back(client);
    }

    /// A slot was executed: its answers follow.
    pub(crate) fn slot_executed(&mut self) {
        self.shares.slot_executed();
    }

    /// Whether this client goes on sending though it is refused.
    pub(crate) fn is_flooding(&self, client: ClientId) -> bool {
        self.shares.is_flooding(client)
    }

    /// A client has signed badly (R20): nothing that it has sent is looked at any more.
    pub(crate) fn signed_badly(&mut self, client: ClientId) {
        for (_, bytes) in self.clients.take(client) {
            self.settled(client, bytes);
        }
        self.shares.floods(client);
    }

    /// A request of this client was checked.
    pub(crate) fn settled(&mut self, client: ClientId, bytes: usize) {
        self.clients_in_all.remove(bytes);
        if let Some(load) = self.client_loads.get_mut(&client) {
            load.remove(bytes);
            if load.count == 0 {
                self.client_loads.remove(&client);
            }
        }
    }

    /// This replica sent what a correct one does not send (R20).
    pub(crate) fn misled(&mut self, by: ReplicaId) {
        self.penalties.insert(by, (PENALTY_TICKS, false));
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self) {
        self.shares.tick();
        self.clients.call_all_back();
        self.peers.call_all_back();
        self.penalties.retain(|_, (ticks, is_left)| {
            *ticks -= 1;
            *is_left = true;
            *ticks > 0
        });
    }

    /// Whether messages of replicas wait that may be served now.
    pub(crate) fn has_peers_waiting(&self) -> bool {
        self.peers.has_any(|from| !self.penalties.contains_key(&from))
    }

    /// The next job, by turns. Messages that nobody wants any more are dropped here, as late as can be, and counted by
    /// `unwanted`: after the quorum no signature is checked.
    pub(crate) fn next(&mut self, wants: impl Fn(&Header) -> bool, mut unwanted: impl FnMut()) -> Option<Job> {
        loop {
            let clients_first = self.is_clients_turn;
            self.is_clients_turn = !clients_first;
            if clients_first && let Some(job) = self.next_of_clients() {
                return Some(job);
            }
            let penalties = &self.penalties;
            let Some((from, job, bytes)) = self.peers.pop(|from| penalties.get(&from).is_none_or(|(_, left)| *left))
            else {
                return self.next_of_clients();
            };
            if let Some(load) = self.peer_loads.get_mut(&from) {
                load.remove(bytes);
            }
            if let Some((_, is_left)) = self.penalties.get_mut(&from) {
                *is_left = false;
            }
            if let Job::Peer { message, .. } = &job
                && message.header().is_some_and(|header| !wants(&header))
            {
                unwanted();
                continue;
            }
            return Some(job);
        }
    }
}

impl Admission {
    /// The next job of a client that may be served now.
    fn next_of_clients(&mut self) -> Option<Job> {
        let shares = &self.shares;
        let (client, job, bytes) = self.clients.pop(|client| shares.may(client))?;
        if let Job::Client { commands, .. } = &job {
            self.shares.taken(client, *commands, bytes);
        }
        Some(job)
    }
}

#[cfg(test)]
mod tests {
    use polder_types::{Call, ClusterId, Digest, Request, SigningKey};

    use super::*;

    fn request(client: u8, commands: usize) -> (ClientId, SignedRequest) {
        let key = SigningKey::from_seed(&[client; 32]);
        let client = ClientId(key.public());
        let commands = vec![polder_types::Blob::copy(&[0; 1_000]); commands];
        let call = Call::Commands { session: Default::default(), ack: 0, first: 1, commands };
        (client, Request { client, call }.sign(ClusterId(Digest::ZERO), &key))
    }

    fn takes(
        admission: &mut Admission,
        connection: u64,
        client: ClientId,
        commands: u64,
        request: SignedRequest,
    ) -> bool {
        let digest = request.digest();
        admission.client(connection, client, commands, request).iter().all(|refused| refused.request != digest)
    }

    /// One of a great many keys.
    fn key(number: u64) -> ClientId {
        let mut bytes = [7; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        ClientId(polder_types::PublicKey(bytes))
    }

    fn constants() -> Constants {
        Constants { admitted_per_client_max: 4, admitted_max: 10, ..Constants::default() }
    }

    fn ask(nonce: u64) -> Box<PeerMessage> {
        Box::new(PeerMessage::MemoryAsk { nonce })
    }

    fn from(job: Option<Job>) -> Option<String> {
        job.map(|job| match job {
            Job::Peer { from, .. } => from.to_string(),
            Job::Client { connection, .. } => format!("client {connection}"),
        })
    }

    #[test]
    fn flood_one_client_is_told_busy_and_others_are_not() {
        let mut admission = Admission::new(&constants());
        let (flooder, one) = request(1, 1);
        for _ in 0..4 {
            assert!(takes(&mut admission, 1, flooder, 1, one.clone()));
        }
        assert!(!takes(&mut admission, 1, flooder, 1, one.clone()), "its fifth is too many");
        let (other, another) = request(2, 1);
        assert!(takes(&mut admission, 2, other, 1, another));
        // What is being checked counts, until the verdict.
        let served = from(admission.next(|_| true, || {}));
        assert_eq!(served.as_deref(), Some("client 1"));
        assert!(!takes(&mut admission, 1, flooder, 1, one.clone()));
        admission.settled(flooder, one.bytes());
        assert!(takes(&mut admission, 1, flooder, 1, one));
    }

    #[test]
    fn flood_bytes_are_capped_for_one_client_and_in_all() {
        let constants = Constants {
            admitted_bytes_per_client_max: 20_000,
            admitted_bytes_max: 50_000,
            admitted_per_client_max: 1_000,
            ..Constants::default()
        };
        let mut admission = Admission::new(&constants);
        let mut admitted = BTreeMap::new();
        for _ in 0..10 {
            for client in 1..=9 {
                let (id, request) = request(client, 9);
                if takes(&mut admission, client.into(), id, 1, request) {
                    *admitted.entry(client).or_insert(0) += 1;
                }
            }
        }
        assert_eq!(admitted, BTreeMap::from([(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)]));
    }

    #[test]
    fn flood_replicas_and_clients_alternate_and_each_source_has_its_turn() {
        let mut admission = Admission::new(&constants());
        for nonce in 0..3 {
            assert!(admission.peer(ReplicaId(1), ask(nonce), 10));
        }
        assert!(admission.peer(ReplicaId(2), ask(0), 10));
        for (connection, client, count) in [(1, 1, 3), (2, 2, 1)] {
            let (id, request) = request(client, 1);
            for _ in 0..count {
                assert!(takes(&mut admission, connection, id, 1, request.clone()));
            }
        }
        let served: Vec<String> = std::iter::from_fn(|| from(admission.next(|_| true, || {}))).collect();
        assert_eq!(served, ["r1", "client 1", "r2", "client 2", "r1", "client 1", "r1", "client 1"]);
    }

    #[test]
    fn flood_a_replica_that_floods_loses_its_own_messages_only() {
        let mut admission = Admission::new(&constants());
        let taken = (0..PEER_MESSAGES_MAX as u64 + 5).filter(|nonce| admission.peer(ReplicaId(1), ask(*nonce), 10));
        assert_eq!(taken.count(), PEER_MESSAGES_MAX);
        assert!(admission.peer(ReplicaId(2), ask(0), 10));
        assert!(!admission.peer(ReplicaId(3), ask(0), PEER_BYTES_MAX + 1));
    }

    #[test]
    fn r20_a_replica_that_misled_is_served_one_message_a_tick() {
        let mut admission = Admission::new(&constants());
        admission.misled(ReplicaId(1));
        for nonce in 0..200 {
            assert!(admission.peer(ReplicaId(1), ask(nonce), 10));
        }
        let mut served = 0;
        for _ in 0..PENALTY_TICKS - 1 {
            admission.tick();
            served += std::iter::from_fn(|| admission.next(|_| true, || {})).count();
        }
        assert_eq!(served, PENALTY_TICKS as usize - 1);
        admission.tick();
        assert!(std::iter::from_fn(|| admission.next(|_| true, || {})).count() > 50, "it is forgotten");
    }

    #[test]
    fn r20_of_what_a_client_that_signed_badly_has_sent_nothing_is_looked_at_any_more() {
        let mut admission = Admission::new(&constants());
        let ((liar, bad), (other, good)) = (request(1, 1), request(2, 1));
        for _ in 0..3 {
            assert!(takes(&mut admission, 1, liar, 1, bad.clone()));
            assert!(takes(&mut admission, 2, other, 1, good.clone()));
        }
        assert_eq!(from(admission.next(|_| true, || {})).as_deref(), Some("client 1"));
        admission.signed_badly(liar);
        let served: Vec<String> = std::iter::from_fn(|| from(admission.next(|_| true, || {}))).collect();
        assert_eq!(served, ["client 2", "client 2", "client 2"]);
        // What was left out counts no more: the whole share is free again.
        admission.settled(liar, bad.bytes());
        (0..3).for_each(|_| admission.settled(other, good.bytes()));
        assert!(admission.client_loads.is_empty());
        assert_eq!((admission.clients_in_all.count, admission.clients_in_all.bytes), (0, 0));
    }

    #[test]
    fn flood_one_who_goes_on_though_he_is_refused_is_served_little_beside_others() {
        let mut admission = Admission::new(&Constants { admitted_per_client_max: 4, ..constants() });
        let ((flood, request_of_flood), (other, request_of_other)) = (request(1, 1), request(2, 1));
        let mut served = BTreeMap::new();
        for _ in 0..100 {
            for _ in 0..20 {
                let _refused = takes(&mut admission, 1, flood, 1, request_of_flood.clone());
            }
            (0..4).for_each(|_| assert!(takes(&mut admission, 2, other, 1, request_of_other.clone())));
            while let Some(Job::Client { client, request, .. }) = admission.next(|_| true, || {}) {
                admission.settled(client, request.bytes());
                *served.entry(client).or_insert(0) += 1;
            }
            // They are answered later.
            admission.answered(other, 3);
            admission.answered(flood, 1);
            admission.tick();
        }
        assert_eq!(served.get(&other), Some(&400));
        assert!(served.get(&flood).is_some_and(|served| (10..200).contains(served)), "{served:?}");
    }

    /// Found by a reader: 64 keys kept all places by what might not be served.
    #[test]
    fn flood_no_number_of_floods_keeps_all_places() {
        let mut admission = Admission::new(&Constants::default());
        let (_, large) = request(1, 1);
        let (_, small) = request(2, 1);
        let mut busy = 0;
        for tick in 0..200 {
            for flood in 0..64 {
                while takes(&mut admission, flood, key(flood), 1_024, large.clone()) {}
            }
            if tick % 10 == 9 {
                let refused = admission.client(1_000, key(1_000), 1, small.clone());
                busy += usize::from(refused.iter().any(|refused| refused.connection == 1_000));
                // Whoever made room hears of it.
                assert!(refused.iter().all(|refused| refused.request == large.digest()), "{refused:?}");
            }
            while let Some(Job::Client { client, request, .. }) = admission.next(|_| true, || {}) {
                admission.settled(client, request.bytes());
            }
            admission.tick();
        }
        assert_eq!(busy, 0);
    }

    #[test]
    fn flood_places_go_to_who_has_less_in_number_and_in_bytes() {
        let constants = Constants { admitted_max: 8, admitted_bytes_max: 50_000, ..constants() };
        let mut admission = Admission::new(&constants);
        let ((one, ones), (two, twos)) = (request(1, 1), request(2, 1));
        let (three, threes) = request(3, 1);
        for _ in 0..4 {
            assert!(admission.client(1, one, 1, ones.clone()).is_empty());
            assert!(admission.client(2, two, 1, twos.clone()).is_empty());
        }
        let refused = |connection, request: &SignedRequest| Refused { connection, request: request.digest() };
        let mut gave_way: Vec<u64> = (0..2)
            .flat_map(|_| admission.client(3, three, 1, threes.clone()))
            .map(|refused| refused.connection)
            .collect();
        gave_way.sort_unstable();
        assert_eq!(gave_way, [1, 2]);
        assert_eq!(
            admission.client(3, three, 1, threes.clone()),
            [refused(3, &threes)],
            "nobody has more than one more"
        );
        let mut admission = Admission::new(&constants);
        let (four, large) = request(4, 20);
        assert!(admission.client(4, four, 1, large.clone()).is_empty());
        assert!(admission.client(4, four, 1, large.clone()).is_empty());
        let (five, fives) = request(5, 14);
        assert_eq!(admission.client(5, five, 1, fives.clone()), [refused(4, &large)]);
        assert_eq!(admission.client(5, five, 1, fives.clone()), []);
        assert_eq!(admission.client(5, five, 1, fives.clone()), [refused(5, &fives)]);
    }

    #[test]
    fn flood_keys_that_are_refused_leave_nothing() {
        let mut admission = Admission::new(&constants());
        for client in 1..=5 {
            let (id, one) = request(client, 1);
            for _ in 0..2 {
                assert!(admission.client(1, id, 1, one.clone()).is_empty());
            }
        }
        let (_, one) = request(9, 1);
        // Each pushes out one of two, until everybody has one.
        let taken = (0..10_000).filter(|number| takes(&mut admission, 1, key(*number), 1, one.clone())).count();
        assert_eq!((taken, admission.client_loads.len()), (5, 10));
        while let Some(Job::Client { client, request, .. }) = admission.next(|_| true, || {}) {
            admission.settled(client, request.bytes());
        }
        assert!(admission.client_loads.is_empty());
    }

    #[test]
    fn after_the_quorum_no_signature_is_checked() {
        let mut admission = Admission::new(&constants());
        let vote = polder_consensus::Message::Fetch(polder_consensus::Fetch::Body(Digest::ZERO));
        assert!(admission.peer(
            ReplicaId(1),
            Box::new(PeerMessage::Ordering(vote, crate::replica::Mark::default())),
            10
        ));
        let mut unwanted = 0;
        assert!(admission.next(|_| false, || unwanted += 1).is_none());
        assert_eq!(unwanted, 1);
    }
}
