//! What the checkers are told of each step.

use std::collections::BTreeMap;
use std::sync::Arc;

use polder_checkpoint::{Family, Store as _};
use polder_consensus::{EvidenceKind, Message, VerifiedMessage};
use polder_node::replica::Phase;
use polder_types::{Batch, Constants, Digest, Quorum, ReplicaId, Seq};

use super::World;
use crate::checkers::agreement::Agreement;
use crate::checkers::archive::Archive;
use crate::checkers::bounded_tables::{self, Sizes};
use crate::checkers::certificates::Certificates;
use crate::checkers::equal_roots::EqualRoots;
use crate::checkers::named::{Named, Place};
use crate::checkers::promises::Promises;
use crate::checkers::validity::Validity;
use crate::checkers::{Verdict, violation};

/// Batches that are remembered by their digest, to judge what is executed.
const BATCHES_MAX: usize = 4_096;

/// The checkers that watch every step.
pub struct Checkers {
    /// See the checker.
    pub agreement: Agreement,
    /// See the checker.
    pub archive: Archive,
    /// See the checker.
    pub validity: Validity,
    /// See the checker.
    pub equal_roots: EqualRoots,
    /// See the checker.
    pub certificates: Certificates,
    /// See the checker; by replica.
    pub promises: BTreeMap<ReplicaId, Promises>,
    /// See the checker; by replica, since its start: what it was given, and how it stands.
    pub named: BTreeMap<ReplicaId, (Named, Place)>,
    bounds: Sizes,
    batches: BTreeMap<Digest, Arc<Batch>>,
}

impl Checkers {
    /// Nothing was seen yet.
    #[must_use]
    pub fn new(constants: &Constants, quorum: Quorum) -> Self {
        Self {
            agreement: Agreement::default(),
            archive: Archive::default(),
            validity: Validity::default(),
            equal_roots: EqualRoots::default(),
            certificates: Certificates::default(),
            promises: BTreeMap::new(),
            named: BTreeMap::new(),
            bounds: bounded_tables::bounds(constants, quorum),
            batches: BTreeMap::new(),
        }
    }

    /// A verified message is on its way.
    pub(super) fn seen(&mut self, message: &VerifiedMessage) -> Verdict {
        if let Some(batch) = &message.batch
            && let Some(digest) = message.message().header().digest
            && self.batches.len() < BATCHES_MAX
        {
            self.batches.entry(digest).or_insert_with(|| batch.clone());
        }
        self.certificates.seen(message.message())
    }
}

/// How often the bytes that a replica holds are counted.
const BYTES_EVERY_STEPS: u64 = 16;

impl World {
    /// A correct replica executed a batch.
    pub(super) fn observe_execution(&mut self, host: usize, slot: Seq, digest: Digest, history: Digest) -> Verdict {
        let me = self.hosts[host].id;
        // Only a transfer moves the cursor without executing: forward, to a cut.
        let before = Seq(slot.0.saturating_sub(1));
        if self.checkers.agreement.cursor(me) < before && self.genesis.constants.is_cut(before) {
            self.counts.transfers += 1;
            self.checkers.agreement.fetched(me, before);
        }
        self.checkers.agreement.executed(me, slot, digest, history)?;
        match self.checkers.batches.get(&digest) {
            Some(batch) => self.checkers.validity.executed(me, slot, batch),
            None => Ok(()),
        }
    }

    /// A replica starts from what its log holds.
    pub(super) fn observe_start(&mut self, host: usize, base: Seq) -> Verdict {
        let me = self.hosts[host].id;
        let rows = self.hosts[host].log.store().rows(Family::Log);
        let promises = Promises::starts(&rows, base, self.genesis.constants.window_slots)?;
        self.checkers.promises.insert(me, promises);
        self.checkers.named.insert(me, (Named::default(), Place::default()));
        Ok(())
    }

    /// Whom a correct replica must report when it takes this message.
    pub(super) fn due_evidence(&self, host: usize, message: &Message) -> Option<(ReplicaId, EvidenceKind)> {
        let is_lie = |by: ReplicaId| self.hosts.get(usize::from(by.0)).is_some_and(|host| host.liar.is_some());
        let me = self.hosts[host].id;
        let is_judged = self.hosts[host].is_correct() && message.header().by.is_some_and(is_lie);
        let ((named, at), promises) = self.checkers.named.get(&me).zip(self.checkers.promises.get(&me))?;
        named.due(message, at, promises).filter(|_| is_judged && at.has_begun)
    }

    /// A correct replica has no use for a message.
    pub(super) fn observe_refusal(&self, host: usize, message: &Message) -> Verdict {
        let Some(due) = self.due_evidence(host, message) else { return Ok(()) };
        let me = self.hosts[host].id;
        let quorum = self.keyring.quorum().quorum();
        match self.checkers.named.get(&me).zip(self.checkers.promises.get(&me)) {
            Some(((named, at), promises)) if !named.may_refuse(message, at, promises, quorum) => {
                named.judge(me, due, message)
            }
            _ => Ok(()),
        }
    }

    /// A correct replica took a message, standing so before; `due` was to be reported.
    pub(super) fn observe_taken(
        &mut self,
        host: usize,
        message: &Message,
        before: &Place,
        due: Option<(ReplicaId, EvidenceKind)>,
    ) -> Verdict {
        let me = self.hosts[host].id;
        let Some((named, after)) = self.checkers.named.get_mut(&me) else { return Ok(()) };
        if let Some(due) = due {
            named.judge(me, due, message)?;
        }
        if let Some(promises) = self.checkers.promises.get(&me).filter(|_| before.has_begun) {
            named.took(message, before, after, promises);
        }
        Ok(())
    }

    /// A correct replica made a step.
    pub(super) fn observe_step(&mut self, host: usize) -> Verdict {
        let Some(replica) = self.hosts[host].replica.as_ref() else { return Ok(()) };
        replica.check();
        // Looking at every body takes long, and they come and go slowly.
        let is_due = self.counts.steps.is_multiple_of(BYTES_EVERY_STEPS);
        let (body_bytes, request_bytes) = if is_due { replica.held_bytes() } else { (0, 0) };
        let status = replica.status();
        let me = self.hosts[host].id;
        if status.core.suspects {
            self.hosts[host].suspected = Some(status.core.view);
        }
        if self.options.liars > 0
            && let Some((_, place)) = self.checkers.named.get_mut(&me)
        {
            let constants = &self.genesis.constants;
            *place = Place {
                has_begun: !matches!(status.phase, Phase::Remembering { .. } | Phase::Halted(_)),
                epoch: status.core.epoch,
                view: status.core.view,
                entered: status.core.entered,
                leader: self.keyring.quorum().leader(status.core.view),
                is_leader: status.core.is_leader,
                low: status.core.low,
                high: status.core.low.plus(constants.window_slots),
                fresh: status.core.committed.plus(constants.fresh_slots_max),
            };
        }
        let cursor = self.checkers.agreement.cursor(me);
        if status.executed != cursor {
            if status.executed < cursor || !self.genesis.constants.is_cut(status.executed) {
                return violation("agreement", format!("{me} went from {cursor} to {}", status.executed));
            }
            self.counts.transfers += 1;
            self.checkers.agreement.starts(me, status.executed, status.history)?;
        }
        if let Some(root) = status.root
            && !self.checkers.equal_roots.agrees(status.certified, root)
        {
            return violation(
                "equal-roots",
                format!("{me} holds {root} as the certified root of {}", status.certified),
            );
        }
        // Who fetches a state keeps its log until that is durable.
        let window = self.genesis.constants.window_slots;
        let keeps_log = status.planner.log_from.plus(3 * window) < status.core.low;
        let log_bytes = if keeps_log { 0 } else { self.hosts[host].log.store().bytes_on_disk() };
        let held = Sizes {
            body_bytes,
            request_bytes,
            waiting: status.core.waiting as u64,
            unexecuted: status.core.committed.0.saturating_sub(status.executed.0.max(status.core.low.0)),
            above_stable: status.core.committed.0.saturating_sub(status.core.low.0),
            log_bytes,
            timeout_ms: status.core.timeout_ms,
        };
        bounded_tables::check(me, &held, &self.checkers.bounds)
    }
}
