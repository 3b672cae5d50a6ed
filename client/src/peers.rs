//! What the replicas say of themselves: who is connected, who leads, how far the cluster is. Pure.

use polder_types::{Constants, Quorum, ReplicaId, Seq, View};

/// The replicas, as seen from here.
#[derive(Debug)]
pub(crate) struct Peers {
    quorum: Quorum,
    interval_slots: u64,
    peers: Vec<Peer>,
    /// The leader let a request wait too long: until then everything goes to all, unless the view changes.
    leader_late_until_ms: u64,
}

/// So long a late leader is not relied on.
const LEADER_LATE_MS: u64 = 2_000;

#[derive(Clone, Debug, Default)]
struct Peer {
    is_up: bool,
    view: Option<View>,
    cut: Option<Seq>,
}

impl Peers {
    pub(crate) fn new(quorum: Quorum, constants: &Constants) -> Self {
        let peers = vec![Peer::default(); quorum.replicas()];
        Self { quorum, interval_slots: constants.interval_slots.max(1), peers, leader_late_until_ms: 0 }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        // At most `Quorum::REPLICAS_MAX` replicas.
        (0..=u8::MAX).map(ReplicaId).take(self.quorum.replicas())
    }

    pub(crate) fn set_up(&mut self, replica: ReplicaId, is_up: bool) {
        if let Some(peer) = self.peers.get_mut(usize::from(replica.0)) {
            peer.is_up = is_up;
        }
    }

    pub(crate) fn is_up(&self, replica: ReplicaId) -> bool {
        self.peers.get(usize::from(replica.0)).is_some_and(|peer| peer.is_up)
    }

    pub(crate) fn up_count(&self) -> usize {
        self.peers.iter().filter(|peer| peer.is_up).count()
    }

    /// A replica says where it is.
    pub(crate) fn at(&mut self, replica: ReplicaId, view: View, cut: Seq) {
        let leader = self.leader();
        if let Some(peer) = self.peers.get_mut(usize::from(replica.0)) {
            peer.view = Some(view);
            peer.cut = Some(cut);
        }
        if self.leader() != leader {
            self.leader_late_until_ms = 0;
        }
    }

    /// The leader to send to. The view is believed on `r+1` replicas at or above it; while fewer have spoken, on the
    /// lowest that was said: a wrong guess costs time only.
    pub(crate) fn leader(&self) -> ReplicaId {
        let mut views: Vec<View> = self.peers.iter().filter_map(|peer| peer.view).collect();
        views.sort_unstable_by(|a, b| b.cmp(a));
        let index = self.quorum.weak().min(views.len()).saturating_sub(1);
        self.quorum.leader(views.get(index).copied().unwrap_or_default())
    }

    /// Where a request goes now: to the leader, unless it is late or not connected; none: to all.
    pub(crate) fn addressee(&self, now_ms: u64) -> Option<ReplicaId> {
        let leader = self.leader();
        (now_ms >= self.leader_late_until_ms && self.is_up(leader)).then_some(leader)
    }

    /// The leader let a request wait too long.
    pub(crate) fn leader_is_late(&mut self, now_ms: u64) {
        self.leader_late_until_ms = now_ms.saturating_add(LEADER_LATE_MS);
    }

    /// The cut that an OPEN may name (R24): `r+1` replicas say that they are at or above it, so that one who does not
    /// lie is; none while fewer have spoken.
    pub(crate) fn cut(&self) -> Option<Seq> {
        let mut cuts: Vec<Seq> = self.peers.iter().filter_map(|peer| peer.cut).collect();
        cuts.sort_unstable_by(|a, b| b.cmp(a));
        let believed = cuts.get(self.quorum.weak().saturating_sub(1))?;
        // A liar's number may be the one: it need not be a multiple of the interval.
        Some(Seq(believed.0 - believed.0 % self.interval_slots))
    }

    /// The cuts heard so far were too old.
    pub(crate) fn forget_cuts(&mut self) {
        self.peers.iter_mut().for_each(|peer| peer.cut = None);
    }
}

#[cfg(test)]
mod tests {
    use polder_types::FaultModel;

    use super::*;

    fn peers() -> Peers {
        let quorum = Quorum::new(4, FaultModel::Byzantine).expect("four replicas tolerate a liar");
        Peers::new(quorum, &Constants { interval_slots: 128, ..Constants::default() })
    }

    #[test]
    fn r24_a_cut_is_believed_on_two_at_or_above_it() {
        let mut peers = peers();
        assert_eq!(peers.cut(), None);
        peers.at(ReplicaId(0), View(0), Seq(256));
        assert_eq!(peers.cut(), None);
        peers.at(ReplicaId(3), View(0), Seq(1 << 40));
        assert_eq!(peers.cut(), Some(Seq(256)));
        peers.at(ReplicaId(1), View(0), Seq(384));
        assert_eq!(peers.cut(), Some(Seq(384)));
        peers.forget_cuts();
        assert_eq!(peers.cut(), None);
    }

    #[test]
    fn r24_a_liars_cut_is_rounded_down_to_one_that_can_be() {
        let mut peers = peers();
        peers.at(ReplicaId(3), View(0), Seq(300));
        peers.at(ReplicaId(0), View(0), Seq(384));
        assert_eq!(peers.cut(), Some(Seq(256)));
    }

    #[test]
    fn a_liar_cannot_name_the_leader_once_two_have_spoken() {
        let mut peers = peers();
        peers.at(ReplicaId(3), View(7), Seq(0));
        peers.at(ReplicaId(0), View(1), Seq(0));
        assert_eq!(peers.leader(), ReplicaId(1));
        peers.at(ReplicaId(2), View(2), Seq(0));
        peers.at(ReplicaId(0), View(2), Seq(0));
        assert_eq!(peers.leader(), ReplicaId(2));
    }

    #[test]
    fn requests_go_to_all_while_the_leader_is_late_or_away() {
        let mut peers = peers();
        assert_eq!(peers.addressee(0), None);
        peers.set_up(ReplicaId(0), true);
        assert_eq!(peers.addressee(0), Some(ReplicaId(0)));
        peers.leader_is_late(0);
        assert_eq!(peers.addressee(LEADER_LATE_MS - 1), None);
        assert_eq!(peers.addressee(LEADER_LATE_MS), Some(ReplicaId(0)));
        // A new leader is trusted afresh.
        peers.set_up(ReplicaId(1), true);
        peers.at(ReplicaId(1), View(1), Seq(0));
        peers.at(ReplicaId(2), View(1), Seq(0));
        assert_eq!(peers.addressee(1), Some(ReplicaId(1)));
    }
}
