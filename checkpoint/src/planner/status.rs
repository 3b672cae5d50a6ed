//! What a planner says about itself.

use std::fmt;

use polder_types::{Checkpoint, Seq, Tally};

use super::Planner;

/// A planner's state in a few numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlannerStatus {
    /// `h`: the newest stable cut.
    pub stable: Seq,
    /// The newest own cut that is certified.
    pub certified: Seq,
    /// `F`: the newest cut that this replica can recover to from its own disk, as of a certificate.
    pub frontier: Seq,
    /// The cut of the oldest image; none while some partition has none.
    pub oldest_image: Option<Seq>,
    /// Bytes of all images.
    pub image_bytes: u64,
    /// The cut whose images are being written.
    pub writing: Option<Seq>,
    /// The lowest slot that the ordering log must keep.
    pub log_from: Seq,
    /// A cut at which so many replicas differ that no quorum can agree any more (R35): ordering will stop at `h+L`.
    pub undecidable: Option<Seq>,
    /// The cut at which the own state is not the certified one.
    pub diverged: Option<Seq>,
    /// Statements that contradicted an earlier one of the same replica.
    pub conflicts: u64,
}

impl fmt::Display for PlannerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stable={} certified={} frontier={}", self.stable.0, self.certified.0, self.frontier.0)?;
        self.oldest_image.map_or(Ok(()), |cut| write!(f, " images={}", cut.0))?;
        self.writing.map_or(Ok(()), |cut| write!(f, " writing={}", cut.0))?;
        self.undecidable.map_or(Ok(()), |cut| write!(f, " undecidable={}", cut.0))?;
        self.diverged.map_or(Ok(()), |cut| write!(f, " diverged={}", cut.0))
    }
}

impl Planner {
    /// The planner's state in a few numbers.
    #[must_use]
    pub fn status(&self) -> PlannerStatus {
        let quorum = self.config.quorum;
        let is_undecidable = |tally: &Tally<Checkpoint>| {
            let most = tally.votes().map(|(_, statement)| tally.count(statement)).max().unwrap_or(0);
            most + quorum.replicas().saturating_sub(tally.voters()) < quorum.quorum()
        };
        let partitions = self.durable.as_ref().map_or(0, |state| state.frozen().partitions().len());
        let is_complete = partitions > 0 && self.images.len() == partitions;
        PlannerStatus {
            stable: self.stable_cut(),
            certified: self.certified_cut(),
            frontier: self.frontier(),
            oldest_image: self.images.values().map(|image| image.cut).min().filter(|_| is_complete),
            image_bytes: self.images.values().map(|image| image.bytes).sum(),
            writing: self.job.as_ref().map(|job| job.cut),
            log_from: self.truncated.log.max(Seq(1)),
            undecidable: self.votes.iter().find(|(_, tally)| is_undecidable(tally)).map(|(cut, _)| *cut),
            diverged: self.diverged.as_ref().map(|divergence| divergence.cut()),
            conflicts: self.conflicts,
        }
    }
}
