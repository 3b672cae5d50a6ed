//! The other replicas: what each was sent lately, which limits what it can ask for, and what it showed last, from which
//! this replica tells whether it takes part in a quorum.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use polder_types::{Constants, Quorum, ReplicaId, Seq, View};

use crate::{Core, StatusMessage};

/// Bytes of bodies sent to one peer in half a period of STATUS; one answer always goes, so that there is progress.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// What peers were sent lately, which limits what each can ask for, and what they showed last.
#[derive(Debug)]
pub(crate) struct Peers {
    peers: BTreeMap<ReplicaId, Peer>,
    period_ms: u64,
    turn: usize,
}

#[derive(Debug, Default)]
struct Peer {
    /// When its STATUS was last answered.
    answered_ms: Option<u64>,
    /// The committed slot that it showed last, and since when.
    committed: Seq,
    stands_ms: u64,
    /// Bytes of bodies sent since `since_ms`.
    bytes: usize,
    since_ms: u64,
    shown: Option<Shown>,
}

/// What a peer's last STATUS showed.
#[derive(Clone, Copy, Debug)]
struct Shown {
    /// The view, if it has started there.
    view: Option<View>,
    committed: Seq,
    at_ms: u64,
}

impl Peers {
    pub(crate) fn new(constants: &Constants, quorum: Quorum) -> Self {
        let peers = quorum.members().map(|replica| (replica, Peer::default())).collect();
        Self { peers, period_ms: constants.status_period_ms, turn: 0 }
    }

    /// Notes what a peer shows.
    pub(crate) fn note(&mut self, replica: ReplicaId, status: &StatusMessage, now_ms: u64) {
        let has_started = status.view == View::ZERO || status.new_view.is_some();
        let view = has_started.then_some(status.view);
        if let Some(peer) = self.peers.get_mut(&replica) {
            peer.shown = Some(Shown { view, committed: status.committed, at_ms: now_ms });
        }
    }

    fn shown(&self) -> impl Iterator<Item = Shown> + '_ {
        self.peers.values().filter_map(|peer| peer.shown)
    }

    /// When so many peers had last shown this view, and this very slot as the last one decided; none if they never did.
    pub(crate) fn agreed_ms(&self, peers: usize, view: View, committed: Seq, now_ms: u64) -> Option<u64> {
        let agrees = |shown: &Shown| shown.view == Some(view) && shown.committed == committed;
        let mut at_ms: Vec<u64> = self.shown().filter(agrees).map(|shown| shown.at_ms).collect();
        at_ms.sort_unstable();
        at_ms.reverse();
        peers.checked_sub(1).map_or(Some(now_ms), |last| at_ms.get(last).copied())
    }

    /// The slot up to which so many peers say that all are decided: the highest such.
    pub(crate) fn committed(&self, peers: usize) -> Seq {
        let mut committed: Vec<Seq> = self.shown().map(|shown| shown.committed).collect();
        committed.sort_unstable();
        committed.reverse();
        peers.checked_sub(1).and_then(|last| committed.get(last)).copied().unwrap_or_default()
    }

    /// Whether a STATUS of this peer is answered now: once in half a period.
    pub(crate) fn may_answer(&mut self, replica: ReplicaId, now_ms: u64) -> bool {
        let period_ms = self.period_ms;
        let Some(peer) = self.peers.get_mut(&replica) else { return false };
        let may = peer.answered_ms.is_none_or(|at_ms| now_ms.saturating_sub(at_ms) >= period_ms / 2);
        if may {
            peer.answered_ms = Some(now_ms);
        }
        may
    }

    /// Notes what a peer shows as committed; returns for how long that has not changed.
    pub(crate) fn stands(&mut self, replica: ReplicaId, committed: Seq, now_ms: u64) -> u64 {
        let Some(peer) = self.peers.get_mut(&replica) else { return 0 };
        if peer.committed != committed {
            (peer.committed, peer.stands_ms) = (committed, now_ms);
        }
        now_ms.saturating_sub(peer.stands_ms)
    }

    /// Whether this peer may be sent so many more bytes now.
    pub(crate) fn may_send(&mut self, replica: ReplicaId, bytes: usize, now_ms: u64) -> bool {
        let period_ms = self.period_ms;
        let Some(peer) = self.peers.get_mut(&replica) else { return false };
        if now_ms.saturating_sub(peer.since_ms) >= period_ms / 2 {
            (peer.bytes, peer.since_ms) = (0, now_ms);
        }
        let may = peer.bytes == 0 || peer.bytes.saturating_add(bytes) <= ANSWER_BYTES_MAX;
        if may {
            // Also nothing counts for something.
            peer.bytes = peer.bytes.saturating_add(bytes.max(64));
        }
        may
    }

    /// The peers in turn.
    pub(crate) fn next(&mut self, me: ReplicaId) -> Option<ReplicaId> {
        let others: Vec<ReplicaId> = self.peers.keys().copied().filter(|replica| *replica != me).collect();
        let at = self.turn.checked_rem(others.len())?;
        self.turn = self.turn.wrapping_add(1);
        others.get(at).copied()
    }
}

impl Core {
    /// How many slots fewer were executed here than others have decided, as `r+1` of them say: one of those does not lie.
    pub(crate) fn behind_slots(&self) -> u64 {
        self.peers.committed(self.quorum.weak()).0.saturating_sub(self.window.executed.0)
    }

    /// How long ago this replica last took part in a quorum (R15), by the logical clock: the decided slots went on here,
    /// and not so far behind the others that it cannot accept what they order now; or nothing waited that could execute,
    /// and `q` replicas, this one included, showed the same view and the same slot. None: never since this start.
    pub(crate) fn took_part_ms_ago(&self) -> Option<u64> {
        let now_ms = self.progress.now_ms();
        self.agreed_ms.max(self.moved_ms).map(|at_ms| now_ms.saturating_sub(at_ms))
    }

    /// Notes whether `q` replicas agree that nothing is left to decide: kept, for what comes a moment later does not
    /// undo it. What cannot execute does not count, or who asks for the impossible makes every replica look apart.
    pub(crate) fn note_agreement(&mut self) {
        let is_idle = !self.requests.has_executable(self.next_slot());
        let is_able = self.term.start.is_some() && self.window.contains(self.window.committed.next());
        if is_idle && is_able {
            let others = self.quorum.quorum().saturating_sub(1);
            let now_ms = self.progress.now_ms();
            let agreed_ms = self.peers.agreed_ms(others, self.term.view, self.window.committed, now_ms);
            self.agreed_ms = self.agreed_ms.max(agreed_ms);
        }
    }

    /// The decided slots reach further than before.
    pub(crate) fn note_moved(&mut self) {
        if self.behind_slots() <= self.config.constants.fresh_slots_max {
            self.moved_ms = Some(self.progress.now_ms());
        }
    }
}
