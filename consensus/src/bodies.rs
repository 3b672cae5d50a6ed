//! The bodies of batches: which are held, which are pulled (R11).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use polder_types::{Batch, Blob, Digest, Quorum, ReplicaId, Seq};

/// A body, decoded and hashed once.
#[derive(Clone, Debug)]
pub(crate) struct Body {
    pub(crate) bytes: Blob,
    /// The batch in it. Bytes of a forced slot that are no batch are a no-op on every replica (R10).
    pub(crate) batch: Arc<Batch>,
    /// The digests of its requests.
    pub(crate) requests: Arc<[Digest]>,
}

impl Body {
    pub(crate) fn new(bytes: Blob, batch: Option<Arc<Batch>>) -> Self {
        let batch = batch.unwrap_or_else(|| Arc::new(Batch::no_op()));
        let requests = batch.requests.iter().map(polder_types::SignedRequest::digest).collect();
        Self { bytes, batch, requests }
    }
}

/// A body that is being pulled.
#[derive(Debug)]
struct Wanted {
    /// Who is asked first, a bit each.
    likely: u128,
    attempts: usize,
    slots: BTreeSet<Seq>,
}

/// The bodies held, by digest, and those that are pulled.
#[derive(Debug)]
pub(crate) struct Bodies {
    held: BTreeMap<Digest, Body>,
    wanted: BTreeMap<Digest, Wanted>,
    no_op: (Digest, Body),
}

impl Bodies {
    pub(crate) fn new() -> Self {
        let bytes = Batch::no_op().to_blob();
        let no_op = (Batch::digest(&bytes), Body::new(bytes, None));
        Self { held: BTreeMap::new(), wanted: BTreeMap::new(), no_op }
    }

    /// The digest of a no-op, whose body everybody holds.
    pub(crate) fn no_op(&self) -> Digest {
        self.no_op.0
    }

    pub(crate) fn get(&self, digest: &Digest) -> Option<&Body> {
        if *digest == self.no_op.0 { Some(&self.no_op.1) } else { self.held.get(digest) }
    }

    pub(crate) fn has(&self, digest: &Digest) -> bool {
        self.get(digest).is_some()
    }

    /// How many are held, and how many are pulled.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.held.len(), self.wanted.len())
    }

    /// The bytes of those that are held.
    pub(crate) fn bytes(&self) -> u64 {
        self.held.values().map(|body| body.bytes.len() as u64).sum()
    }

    /// Holds a body; returns the slots that waited for it.
    pub(crate) fn insert(&mut self, digest: Digest, body: impl FnOnce() -> Body) -> BTreeSet<Seq> {
        if digest != self.no_op.0 {
            self.held.entry(digest).or_insert_with(body);
        }
        self.wanted.remove(&digest).map(|wanted| wanted.slots).unwrap_or_default()
    }

    pub(crate) fn is_wanted(&self, digest: &Digest) -> bool {
        self.wanted.contains_key(digest)
    }

    /// Pulls a body for a slot, first from `likely`. Returns whether that is news.
    pub(crate) fn want(&mut self, digest: Digest, slot: Seq, likely: impl Iterator<Item = ReplicaId>) -> bool {
        let news = !self.wanted.contains_key(&digest);
        let wanted =
            self.wanted.entry(digest).or_insert_with(|| Wanted { likely: 0, attempts: 0, slots: BTreeSet::new() });
        wanted.slots.insert(slot);
        wanted.likely = likely.fold(wanted.likely, |mask, replica| mask | bit(replica));
        news
    }

    /// Whom to ask for this body next: the likely holders in turn, then all others, then again (R11).
    pub(crate) fn ask(&mut self, digest: &Digest, quorum: Quorum, me: ReplicaId) -> Option<ReplicaId> {
        let wanted = self.wanted.get_mut(digest)?;
        let others = || quorum.members().filter(|replica| *replica != me);
        let likely = others().filter(|replica| wanted.likely & bit(*replica) != 0);
        let rest = others().filter(|replica| wanted.likely & bit(*replica) == 0);
        let order: Vec<ReplicaId> = likely.chain(rest).collect();
        let turn = wanted.attempts.checked_rem(order.len())?;
        wanted.attempts = wanted.attempts.wrapping_add(1);
        order.get(turn).copied()
    }

    /// The bodies that are pulled.
    pub(crate) fn wanted(&self) -> Vec<Digest> {
        self.wanted.keys().copied().collect()
    }

    /// Pulls nothing any more but these.
    pub(crate) fn want_only(&mut self, digests: &BTreeSet<Digest>) {
        self.wanted.retain(|digest, _| digests.contains(digest));
    }

    /// Keeps these bodies; pulls only for slots above `low`.
    pub(crate) fn retain(&mut self, kept: &BTreeSet<Digest>, above: Seq) {
        self.held.retain(|digest, _| kept.contains(digest));
        self.wanted.retain(|_, wanted| {
            wanted.slots.retain(|slot| *slot > above);
            !wanted.slots.is_empty()
        });
    }
}

/// The bit of a replica in a mask.
pub(crate) fn bit(replica: ReplicaId) -> u128 {
    1u128.checked_shl(replica.0.into()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use polder_types::FaultModel;

    #[test]
    fn r11_a_missing_body_is_asked_of_its_listers_first_and_then_of_all() {
        let Ok(quorum) = Quorum::new(4, FaultModel::Byzantine) else { return };
        let mut bodies = Bodies::new();
        let digest = Digest([7; 32]);
        assert!(bodies.want(digest, Seq(1), [ReplicaId(3)].into_iter()));
        assert!(!bodies.want(digest, Seq(2), [ReplicaId(3)].into_iter()));
        let mut ask = || bodies.ask(&digest, quorum, ReplicaId(1)).map(|replica| replica.0);
        assert_eq!([ask(), ask(), ask(), ask()], [Some(3), Some(0), Some(2), Some(3)]);
        let waiting = bodies.insert(digest, || Body::new(Blob::default(), None));
        assert_eq!(waiting.into_iter().collect::<Vec<_>>(), [Seq(1), Seq(2)]);
        assert!(bodies.has(&digest) && !bodies.is_wanted(&digest));
        bodies.retain(&BTreeSet::new(), Seq(0));
        assert!(!bodies.has(&digest) && bodies.has(&bodies.no_op()));
    }
}
