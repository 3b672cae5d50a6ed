//! Brings signed requests to the replicas: to the leader; to all when an answer is late or the leader is away (R6,
//! R20); again and again, ever more rarely, until it is answered. Pure.

use std::collections::BTreeMap;

use bytes::Bytes;
use polder_types::{ClientFrame, Digest, ReplicaId, SignedRequest, encode};

use crate::machine::Output;
use crate::peers::Peers;

/// How patient the courier is. Milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// `T_client`: after how long an answer is late. Doubles for each request.
    pub late_ms: u64,
    /// The longest wait between two times that a request is sent.
    pub late_max_ms: u64,
}

/// A request under way.
pub(crate) type LetterId = u64;

#[derive(Debug)]
pub(crate) struct Courier {
    patience: Patience,
    letters: BTreeMap<LetterId, Letter>,
    next: LetterId,
    /// When the replicas were last asked where they are.
    asked_ms: Option<u64>,
}

#[derive(Debug)]
struct Letter {
    frame: Bytes,
    digest: Digest,
    /// To whom it went; none: to all.
    to: Option<ReplicaId>,
    again_ms: u64,
    wait_ms: u64,
    /// How often the leader was too busy for it.
    busy: u32,
    /// The leader was busy: next time it goes to it alone.
    leader_again: bool,
}

/// So often is the leader believed to be busy before the request goes to all.
const BUSY_MAX: u32 = 4;
/// The longest that a busy replica can make us wait.
const BUSY_WAIT_MAX_MS: u64 = 1_000;
/// How often the replicas are asked where they are while there are requests: so a leader that changed quietly, behind
/// replicas that forward, is learned.
const WHERE_PERIOD_MS: u64 = 1_000;

impl Courier {
    pub(crate) fn new(patience: Patience) -> Self {
        Self { patience, letters: BTreeMap::new(), next: 0, asked_ms: None }
    }

    /// Sends a request for the first time.
    pub(crate) fn post(
        &mut self,
        now_ms: u64,
        request: SignedRequest,
        peers: &Peers,
        out: &mut Vec<Output>,
    ) -> LetterId {
        let id = self.next;
        self.next += 1;
        let digest = request.digest();
        let letter = Letter {
            frame: Bytes::from(encode(&ClientFrame::Request(request))),
            digest,
            to: peers.addressee(now_ms),
            again_ms: now_ms.saturating_add(self.patience.late_ms),
            wait_ms: self.patience.late_ms,
            busy: 0,
            leader_again: false,
        };
        send(&letter.frame, letter.to, peers, out);
        self.letters.insert(id, letter);
        if self.asked_ms.is_none_or(|asked| now_ms.saturating_sub(asked) >= WHERE_PERIOD_MS) {
            self.ask_where(now_ms, peers, out);
        }
        id
    }

    /// Under which id the next request will be sent.
    pub(crate) fn next_letter(&self) -> LetterId {
        self.next
    }

    /// The request was answered.
    pub(crate) fn answered(&mut self, id: LetterId) {
        self.letters.remove(&id);
    }

    /// No request is under way any more.
    pub(crate) fn forget_all(&mut self) {
        self.letters.clear();
    }

    /// A replica was too busy for a request. Only the one that it went to alone is heeded, a few times: whoever lies
    /// about it gains little time.
    pub(crate) fn busy(&mut self, now_ms: u64, from: ReplicaId, request: Digest, retry_after_ms: u32) {
        let heeded = |letter: &&mut Letter| letter.digest == request && letter.to == Some(from);
        if let Some(letter) = self.letters.values_mut().find(heeded)
            && letter.busy < BUSY_MAX
        {
            letter.busy += 1;
            letter.leader_again = true;
            letter.again_ms = now_ms + u64::from(retry_after_ms).clamp(1, BUSY_WAIT_MAX_MS);
        }
    }

    /// Sends again what is due. Returns whether an answer was late.
    pub(crate) fn tick(&mut self, now_ms: u64, peers: &Peers, out: &mut Vec<Output>) -> bool {
        let mut late = false;
        for letter in self.letters.values_mut().filter(|letter| letter.again_ms <= now_ms) {
            if letter.leader_again {
                letter.leader_again = false;
                letter.to = peers.addressee(now_ms);
            } else {
                late = true;
                letter.to = None;
                letter.wait_ms = letter.wait_ms.saturating_mul(2).min(self.patience.late_max_ms);
            }
            letter.again_ms = now_ms + letter.wait_ms;
            send(&letter.frame, letter.to, peers, out);
        }
        if late {
            self.ask_where(now_ms, peers, out);
        }
        late
    }

    /// The connection to a replica failed: what went to it alone goes to all at once.
    pub(crate) fn lost(&mut self, replica: ReplicaId, peers: &Peers, out: &mut Vec<Output>) {
        for letter in self.letters.values_mut().filter(|letter| letter.to == Some(replica)) {
            letter.to = None;
            send(&letter.frame, None, peers, out);
        }
    }

    /// There is a connection to a replica: what is meant for it or for all goes to it.
    pub(crate) fn found(&self, replica: ReplicaId, out: &mut Vec<Output>) {
        for letter in self.letters.values().filter(|letter| letter.to.is_none_or(|to| to == replica)) {
            out.push(Output::Send { to: replica, frame: letter.frame.clone() });
        }
    }

    /// Asks all replicas where they are.
    pub(crate) fn ask_where(&mut self, now_ms: u64, peers: &Peers, out: &mut Vec<Output>) {
        self.asked_ms = Some(now_ms);
        send(&Bytes::from(encode(&ClientFrame::Where)), None, peers, out);
    }

    /// When [`Courier::tick`] has something to do.
    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        self.letters.values().map(|letter| letter.again_ms).min()
    }
}

fn send(frame: &Bytes, to: Option<ReplicaId>, peers: &Peers, out: &mut Vec<Output>) {
    let addressed = peers.all().filter(|replica| to.is_none_or(|to| to == *replica) && peers.is_up(*replica));
    out.extend(addressed.map(|to| Output::Send { to, frame: frame.clone() }));
}

#[cfg(test)]
mod tests {
    use polder_types::{Blob, Constants, FaultModel, Quorum, Seq, Signature, View};

    use super::*;

    const PATIENCE: Patience = Patience { late_ms: 250, late_max_ms: 1_000 };

    struct Fixture {
        courier: Courier,
        peers: Peers,
    }

    fn request(body: u8) -> SignedRequest {
        SignedRequest { body: Blob::copy(&[body]), signature: Signature([0; 64]) }
    }

    impl Fixture {
        /// Four replicas, all connected, replica 0 leads; the replicas were just asked where they are.
        fn new() -> Self {
            let quorum = Quorum::new(4, FaultModel::Byzantine).expect("four replicas tolerate a liar");
            let mut peers = Peers::new(quorum, &Constants::default());
            peers.all().for_each(|replica| peers.set_up(replica, true));
            let mut courier = Courier::new(PATIENCE);
            courier.ask_where(0, &peers, &mut Vec::new());
            Self { courier, peers }
        }

        fn post(&mut self, now_ms: u64, body: u8) -> Vec<u8> {
            let mut out = Vec::new();
            self.courier.post(now_ms, request(body), &self.peers, &mut out);
            addressees(&out)
        }

        fn tick(&mut self, now_ms: u64) -> Vec<u8> {
            let mut out = Vec::new();
            self.courier.tick(now_ms, &self.peers, &mut out);
            addressees(&out)
        }
    }

    /// To whom requests are sent.
    fn addressees(out: &[Output]) -> Vec<u8> {
        let question = Bytes::from(encode(&ClientFrame::Where));
        out.iter()
            .filter_map(|output| match output {
                Output::Send { to, frame } if *frame != question => Some(to.0),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn r6_first_to_the_leader_then_to_all_ever_more_rarely() {
        let mut fixture = Fixture::new();
        assert_eq!(fixture.post(0, 1), [0]);
        assert_eq!(fixture.tick(249), []);
        assert_eq!(fixture.tick(250), [0, 1, 2, 3]);
        assert_eq!(fixture.courier.deadline_ms(), Some(750));
        assert_eq!(fixture.tick(750), [0, 1, 2, 3]);
        assert_eq!(fixture.courier.deadline_ms(), Some(1_750));
        assert_eq!(fixture.tick(1_750), [0, 1, 2, 3]);
        assert_eq!(fixture.courier.deadline_ms(), Some(2_750));
        fixture.courier.answered(0);
        assert_eq!(fixture.courier.deadline_ms(), None);
    }

    #[test]
    fn at_once_to_all_when_the_leaders_connection_fails() {
        let mut fixture = Fixture::new();
        fixture.post(0, 1);
        fixture.peers.set_up(ReplicaId(0), false);
        let mut out = Vec::new();
        fixture.courier.lost(ReplicaId(0), &fixture.peers, &mut out);
        assert_eq!(addressees(&out), [1, 2, 3]);
        assert_eq!(fixture.post(1, 2), [1, 2, 3]);
        // It is back: what goes to all goes to it too.
        out.clear();
        fixture.courier.found(ReplicaId(0), &mut out);
        assert_eq!(addressees(&out), [0, 0]);
    }

    #[test]
    fn a_busy_leader_is_asked_again_when_it_says_but_not_for_ever() {
        let mut fixture = Fixture::new();
        fixture.post(0, 1);
        let digest = request(1).digest();
        let mut now_ms = 0;
        for _ in 0..BUSY_MAX {
            fixture.courier.busy(now_ms, ReplicaId(0), digest, 400);
            assert_eq!(fixture.tick(now_ms + 399), []);
            now_ms += 400;
            assert_eq!(fixture.tick(now_ms), [0]);
        }
        fixture.courier.busy(now_ms, ReplicaId(0), digest, 400);
        assert_eq!(fixture.tick(now_ms + 250), [0, 1, 2, 3]);
    }

    #[test]
    fn nobody_else_can_make_us_wait_and_nobody_for_long() {
        let mut fixture = Fixture::new();
        fixture.post(0, 1);
        fixture.courier.busy(0, ReplicaId(3), request(1).digest(), 900);
        assert_eq!(fixture.courier.deadline_ms(), Some(250));
        fixture.courier.busy(0, ReplicaId(0), request(2).digest(), 900);
        assert_eq!(fixture.courier.deadline_ms(), Some(250));
        fixture.courier.busy(0, ReplicaId(0), request(1).digest(), u32::MAX);
        assert_eq!(fixture.courier.deadline_ms(), Some(BUSY_WAIT_MAX_MS));
    }

    #[test]
    fn a_quiet_change_of_leader_is_learned() {
        let mut fixture = Fixture::new();
        let mut out = Vec::new();
        fixture.courier.post(999, request(1), &fixture.peers, &mut out);
        assert_eq!(out.len(), 1);
        fixture.courier.post(1_000, request(2), &fixture.peers, &mut out);
        assert_eq!(out.len(), 2 + 4);
        fixture.peers.at(ReplicaId(1), View(2), Seq(0));
        fixture.peers.at(ReplicaId(2), View(2), Seq(0));
        assert_eq!(fixture.post(1_001, 3), [2]);
    }
}
