//! The planner: statements become certificates, and certificates decide what is written and what is deleted.
//!
//! Pure: `step(input, &mut outputs)`, the same inputs in the same order give the same outputs. A cut goes this way:
//!
//! ```text
//!  Digested ─▶ Announce ─▶ Vote × q ─▶ Stable, and if the own state is the certified one:
//!              Persist ─▶ Persisted: the frontier F is here, older frontiers, certificates and batches go
//!                         at a turn: WriteImages ─▶ ImagesWritten: effects up to the images go
//! ```
//!
//! ```text
//!  image of p ≤ F ≤ newest own certified cut ≤ h < votes, own digested cuts ≤ h + 2L
//! ```

mod io;
mod status;

use std::collections::{BTreeMap, BTreeSet};

use polder_executor::{Frozen, FrozenPartition};
use polder_types::{
    Added, Certificate, Checkpoint, Constants, Digest, PartitionId, Quorum, Seq, Signed, Tally, Verified,
};

pub use io::{Divergence, Input, Output};
pub use status::PlannerStatus;

use crate::images::Image;
use crate::recovery::Recovered;
use crate::schedule::{Schedule, Turns};
use crate::state::CertifiedState;
use crate::store::{Family, Writes};
use crate::{certificates, effects_log, rows};

/// How many of the last stable cuts a replica serves (C12).
const SOURCES_MAX: usize = 2;

/// What a planner must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannerConfig {
    /// The quorums of the epoch.
    pub quorum: Quorum,
    /// `L`: slots between the watermarks.
    pub window_slots: u64,
    /// `I`: slots between cuts.
    pub interval_slots: u64,
    /// `M`: cuts between turns.
    pub turn_cuts: u64,
    /// Slots that leaders keep uncommitted: twice as many are kept in the log beyond what is needed (C10).
    pub pipeline_slots: u64,
    /// Who writes what at which turn.
    pub schedule: Schedule,
}

impl PlannerConfig {
    /// The coordinated schedule under these constants.
    #[must_use]
    pub fn new(constants: &Constants, quorum: Quorum, pipeline_slots: u64) -> Self {
        Self {
            quorum,
            window_slots: constants.window_slots,
            interval_slots: constants.interval_slots,
            turn_cuts: constants.turn_cuts,
            pipeline_slots,
            schedule: Schedule::coordinated(),
        }
    }

    fn turns(&self) -> Turns {
        Turns::new(self.interval_slots, self.turn_cuts)
    }

    /// The most cuts that own digested states, or certificates without one, are held of.
    fn cuts_max(&self) -> usize {
        let cuts = self.window_slots.saturating_mul(2) / self.interval_slots.max(1);
        usize::try_from(cuts).unwrap_or(usize::MAX).saturating_add(1)
    }
}

/// Decides what is certified, written and deleted. See the [module](self).
#[derive(Clone, Debug)]
pub struct Planner {
    config: PlannerConfig,
    /// The newest certificate; its cut is `h`.
    stable: Option<Certificate<Checkpoint>>,
    /// Statements about cuts in `(h, h+2L]` (R42).
    votes: BTreeMap<Seq, Tally<Checkpoint>>,
    /// Own states that no certificate is known for.
    own: BTreeMap<Seq, (Checkpoint, Frozen)>,
    /// Certificates of cuts up to `h` that execution has not reached.
    ahead: BTreeMap<Seq, Certificate<Checkpoint>>,
    /// The last own states that are certified, oldest first.
    sources: Vec<CertifiedState>,
    /// The state whose certificate is being written.
    persisting: Option<CertifiedState>,
    /// The state at `F`: the newest frontier whose certificate is durable.
    durable: Option<CertifiedState>,
    images: BTreeMap<PartitionId, Image>,
    job: Option<Job>,
    /// Whether a base is being installed: no images are written beside it.
    is_installing: bool,
    /// Whether little space is left: an image takes some before it gives any back.
    is_space_low: bool,
    /// The last turn whose images were asked for.
    turn: u64,
    truncated: Truncated,
    diverged: Option<Divergence>,
    conflicts: u64,
}

/// Images that are being written.
#[derive(Clone, Debug)]
struct Job {
    cut: Seq,
    images: Vec<(PartitionId, Image)>,
}

/// What was asked to be deleted.
#[derive(Clone, Debug, Default)]
struct Truncated {
    /// Effects up to these slots.
    effects: BTreeMap<PartitionId, Seq>,
    /// Frontiers below this one.
    frontiers: Seq,
    /// Batches below this slot.
    log: Seq,
    /// The cuts of the certificates that are on disk.
    certificates: BTreeSet<Seq>,
}

impl Planner {
    /// Goes on from what the own disk gave back; from `Recovered::default()` at genesis.
    #[must_use]
    pub fn new(config: PlannerConfig, recovered: Recovered) -> (Self, Vec<Output>) {
        let Recovered { state, images, certificates } = recovered;
        let partitions = state.as_ref().map_or(0, |state| state.frozen().partitions().len());
        // Partitions without an image count as imaged at genesis.
        let oldest = images.values().map(|image| image.cut).min().filter(|_| images.len() == partitions);
        // Recovery has removed what these do not need.
        let truncated = Truncated {
            effects: images.iter().map(|(id, image)| (*id, image.cut)).collect(),
            frontiers: state.as_ref().map_or(Seq::ZERO, CertifiedState::cut),
            log: Seq::ZERO,
            certificates,
        };
        let mut planner = Self {
            config,
            stable: state.as_ref().map(|state| state.certificate().clone()),
            votes: BTreeMap::new(),
            own: BTreeMap::new(),
            ahead: BTreeMap::new(),
            sources: state.iter().cloned().collect(),
            persisting: None,
            durable: state,
            turn: config.turns().at(oldest.unwrap_or_default()),
            images,
            job: None,
            is_installing: false,
            is_space_low: false,
            truncated,
            diverged: None,
            conflicts: 0,
        };
        let mut out = Vec::new();
        planner.write_images(&mut out);
        planner.truncate(&mut out);
        (planner, out)
    }

    /// Takes an input. Cannot fail: what it cannot use it ignores.
    pub fn step(&mut self, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Digested { frozen, checkpoint } => self.digested(frozen, checkpoint, out),
            Input::Vote(vote) => self.vote(&vote, out),
            Input::Certified(certificate) => self.certified(certificate, out),
            Input::Persisted { cut } => self.persisted(cut, out),
            Input::ImagesWritten { cut } => self.images_written(cut, out),
            Input::Space { is_low } => {
                self.is_space_low = is_low;
                self.write_images(out);
            }
            Input::Installing => self.is_installing = true,
            Input::Installed(state) => self.installed(state, out),
            Input::Digests { cut, digests } => self.digests(cut, &digests, out),
        }
    }

    /// What can be served to a replica that fetches state: the last stable cuts, oldest first.
    #[must_use]
    pub fn sources(&self) -> &[CertifiedState] {
        &self.sources
    }

    /// The newest certificate.
    #[must_use]
    pub fn stable(&self) -> Option<&Certificate<Checkpoint>> {
        self.stable.as_ref()
    }

    /// The own divergence, once there is one.
    #[must_use]
    pub fn divergence(&self) -> Option<&Divergence> {
        self.diverged.as_ref()
    }

    /// Asserts the invariants: see the number line of the [module](self).
    ///
    /// # Panics
    ///
    /// When one does not hold, which is a bug.
    pub fn check(&self) {
        let (stable, frontier) = (self.stable_cut(), self.frontier());
        let certified = self.certified_cut();
        assert!(frontier <= certified, "what is durable is certified");
        assert!(certified <= stable, "what is certified is stable");
        assert!(self.images.values().all(|image| image.cut <= frontier), "an image is of a durable cut (C3)");
        assert!(self.job.as_ref().is_none_or(|job| job.cut <= frontier), "an image is begun when its cut is durable");
        assert!(self.truncated.log <= frontier.next(), "no batch goes before its effects are durable (C10)");
        let images = &self.images;
        let image_cut = |id: &PartitionId| images.get(id).map_or(Seq::ZERO, |image| image.cut);
        assert!(self.truncated.effects.iter().all(|(id, slot)| *slot <= image_cut(id)), "effects go after images");
        assert!(self.votes.keys().all(|cut| *cut > stable && *cut <= self.votes_max()), "votes are bounded (R42)");
        assert!(self.own.len() <= self.config.cuts_max() && self.ahead.len() <= self.config.cuts_max());
        assert!(self.sources.len() <= SOURCES_MAX);
    }

    fn digested(&mut self, frozen: Frozen, checkpoint: Checkpoint, out: &mut Vec<Output>) {
        let cut = checkpoint.seq;
        assert_eq!((frozen.seq(), frozen.root()), (cut, checkpoint.root), "a statement is about its own state");
        if self.diverged.is_some() || cut <= self.certified_cut() {
            return;
        }
        if let Some(certificate) = self.ahead.remove(&cut) {
            return self.judge(checkpoint, frozen, certificate, out);
        }
        // A cut that was skipped: a newer one is stable, and no certificate of this one is at hand.
        if cut <= self.stable_cut() {
            return;
        }
        self.own.insert(cut, (checkpoint.clone(), frozen));
        while self.own.len() > self.config.cuts_max() {
            self.own.pop_first();
        }
        out.push(Output::Announce(checkpoint));
    }

    fn vote(&mut self, vote: &Verified<Signed<Checkpoint>>, out: &mut Vec<Output>) {
        let cut = vote.statement.seq;
        // R42: one vote a replica and cut, of cuts in (h, h+2L].
        let is_wanted = cut > self.stable_cut()
            && cut <= self.votes_max()
            && cut.0.is_multiple_of(self.config.interval_slots.max(1))
            && self.config.quorum.is_member(vote.by);
        if !is_wanted {
            return;
        }
        let tally = self.votes.entry(cut).or_default();
        if let Added::Conflict(_) = tally.add(vote) {
            self.conflicts += 1;
        }
        if let Some(certificate) = tally.certificate(&vote.statement, self.config.quorum.quorum()) {
            self.certified(certificate, out);
        }
    }

    fn certified(&mut self, certificate: Certificate<Checkpoint>, out: &mut Vec<Output>) {
        let cut = certificate.statement().seq;
        if cut > self.stable_cut() {
            self.stable = Some(certificate.clone());
            self.votes = self.votes.split_off(&cut.next());
            out.push(Output::Stable(certificate.clone()));
        }
        if self.diverged.is_some() || cut <= self.certified_cut() {
            return;
        }
        let own = self.own.remove(&cut);
        // No certificate will come for a skipped cut: its votes are not counted any more.
        self.own = self.own.split_off(&self.stable_cut().next());
        match own {
            Some((checkpoint, frozen)) => self.judge(checkpoint, frozen, certificate, out),
            None => {
                self.ahead.entry(cut).or_insert(certificate);
                while self.ahead.len() > self.config.cuts_max() {
                    self.ahead.pop_first();
                }
            }
        }
    }

    /// Compares the own statement with the certified one.
    fn judge(&mut self, own: Checkpoint, frozen: Frozen, certificate: Certificate<Checkpoint>, out: &mut Vec<Output>) {
        let digests = frozen.digests();
        let state = CertifiedState::new(certificate.clone(), frozen).filter(|_| own == *certificate.statement());
        match state {
            Some(state) => {
                self.ahead = self.ahead.split_off(&state.cut().next());
                self.sources.push(state);
                let surplus = self.sources.len().saturating_sub(SOURCES_MAX);
                self.sources.drain(..surplus);
                self.persist(out);
            }
            None => {
                let divergence = Divergence { own, certified: certificate, digests, partitions: None };
                self.own.clear();
                self.ahead.clear();
                self.diverged = Some(divergence.clone());
                out.push(Output::Diverged(Box::new(divergence)));
            }
        }
    }

    /// Asks for the newest certificate to be written, unless one is being written.
    fn persist(&mut self, out: &mut Vec<Output>) {
        let newest = self.sources.last().filter(|state| state.cut() > self.frontier());
        if let Some(state) = newest.filter(|_| self.persisting.is_none()) {
            let mut writes = Writes::new();
            certificates::put(&mut writes, state);
            out.push(Output::Persist { cut: state.cut(), writes });
            self.persisting = Some(state.clone());
        }
    }

    fn persisted(&mut self, cut: Seq, out: &mut Vec<Output>) {
        if self.persisting.as_ref().is_none_or(|state| state.cut() != cut) {
            return;
        }
        self.durable = self.persisting.take();
        self.truncated.certificates.insert(cut);
        self.write_images(out);
        self.truncate(out);
        self.persist(out);
    }

    /// C2: images are written at the first durable cut at or after a turn; one that comes while others are being
    /// written waits for them.
    fn write_images(&mut self, out: &mut Vec<Output>) {
        // C10: none while little space is left; the turns that pass meanwhile are made up for.
        let may_write = self.job.is_none() && !self.is_installing && !self.is_space_low && self.diverged.is_none();
        let Some(state) = self.durable.as_ref().filter(|_| may_write) else { return };
        let cut = state.cut();
        let (last, now) = (self.turn, self.config.turns().at(cut));
        self.turn = now.max(last);
        // Turns that were skipped are made up for; a whole round of them covers everything.
        let first = last.saturating_add(1).max(now.saturating_sub(self.config.schedule.round_turns()));
        let due: Vec<_> = (first..=now).map(|turn| self.config.schedule.due(turn)).collect();
        let is_due = |id: PartitionId| {
            due.iter().any(|due| due.contains(id)) && self.images.get(&id).is_none_or(|image| image.cut < cut)
        };
        let partitions: Vec<FrozenPartition> =
            state.frozen().partitions().iter().filter(|partition| is_due(partition.id())).cloned().collect();
        if partitions.is_empty() {
            return;
        }
        let image = |partition: &FrozenPartition| (partition.id(), Image { cut, bytes: partition.bytes() });
        let images = partitions.iter().map(image).collect();
        self.job = Some(Job { cut, images });
        out.push(Output::WriteImages { cut, partitions });
    }

    fn images_written(&mut self, cut: Seq, out: &mut Vec<Output>) {
        if self.job.as_ref().is_none_or(|job| job.cut != cut) {
            return;
        }
        self.images.extend(self.job.take().into_iter().flat_map(|job| job.images));
        self.write_images(out);
        self.truncate(out);
    }

    fn installed(&mut self, state: CertifiedState, out: &mut Vec<Output>) {
        let cut = state.cut();
        assert!(cut > self.certified_cut(), "a base is newer than the own state (R29)");
        self.certified(state.certificate().clone(), out);
        self.own = self.own.split_off(&cut.next());
        self.ahead = self.ahead.split_off(&cut.next());
        self.persisting = None;
        self.job = None;
        self.is_installing = false;
        self.turn = self.config.turns().at(cut);
        for partition in state.frozen().partitions() {
            self.images.insert(partition.id(), Image { cut, bytes: partition.bytes() });
            // The install has voided all effects.
            self.truncated.effects.insert(partition.id(), cut);
        }
        self.truncated.frontiers = cut;
        self.truncated.certificates.insert(cut);
        self.sources = vec![state.clone()];
        self.durable = Some(state);
        self.truncate(out);
    }

    /// C10: what is certified and can be recovered otherwise goes.
    fn truncate(&mut self, out: &mut Vec<Output>) {
        let frontier = self.frontier();
        let mut writes = Writes::new();
        for (id, image) in &self.images {
            let through = self.truncated.effects.entry(*id).or_default();
            effects_log::remove(&mut writes, *id, *through, image.cut);
            *through = image.cut;
        }
        if self.truncated.frontiers < frontier {
            let from = rows::frontier_key(self.truncated.frontiers);
            writes.delete_range(Family::Meta, from, rows::frontier_key(frontier));
            self.truncated.frontiers = frontier;
        }
        let images = self.images.values().map(|image| image.cut);
        let needed = images.chain(self.job.as_ref().map(|job| job.cut)).collect();
        certificates::prune(&mut writes, &mut self.truncated.certificates, frontier, &needed);
        if !writes.is_empty() {
            out.push(Output::Truncate { writes });
        }
        // The batches after the oldest state that is served are kept: who fetches it goes on with them.
        let pinned = self.sources.first().map_or(frontier, |source| source.cut().min(frontier));
        let below = pinned.minus(self.config.pipeline_slots.saturating_mul(2)).next();
        if below > self.truncated.log.max(Seq(1)) {
            self.truncated.log = below;
            out.push(Output::TruncateLog { below });
        }
    }

    fn digests(&mut self, cut: Seq, digests: &[Digest], out: &mut Vec<Output>) {
        let Some(divergence) = &mut self.diverged else { return };
        if divergence.cut() == cut && divergence.partitions.is_none() && divergence.compare(digests) {
            out.push(Output::Diverged(Box::new(divergence.clone())));
        }
    }

    /// `h`.
    fn stable_cut(&self) -> Seq {
        self.stable.as_ref().map_or(Seq::ZERO, |certificate| certificate.statement().seq)
    }

    /// The newest own cut that is certified.
    fn certified_cut(&self) -> Seq {
        self.sources.last().map_or(Seq::ZERO, CertifiedState::cut)
    }

    /// `F`.
    fn frontier(&self) -> Seq {
        self.durable.as_ref().map_or(Seq::ZERO, CertifiedState::cut)
    }

    /// `h + 2L`.
    fn votes_max(&self) -> Seq {
        self.stable_cut().plus(self.config.window_slots.saturating_mul(2))
    }
}
