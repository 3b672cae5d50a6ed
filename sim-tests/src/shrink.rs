//! What a seed draws can be switched off, so that a failure can be shown with as little around it as it needs.

use crate::checkers::Violation;
use crate::run::{Setup, run};
use crate::swarm::Options;
use crate::trace::Trace;

/// Something that a seed draws and that a run can do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Switch {
    /// No replica lies.
    Liars,
    /// No client lies.
    Mischief,
    /// No command panics.
    Panics,
    /// Nothing is lost, nor delayed a hundredfold.
    Loss,
    /// Nothing arrives twice, or again.
    Copies,
    /// No bytes change on the way.
    Corruption,
    /// Healed replicas lose nothing.
    HealedLoss,
    /// No splits.
    Splits,
    /// No partial splits.
    PartialSplits,
    /// No clogs.
    Clogs,
    /// No crashes.
    Crashes,
    /// No power cuts.
    PowerCuts,
    /// No pauses.
    Pauses,
    /// Nobody starves.
    Starvation,
    /// All clocks are right.
    Clocks,
    /// No disk is slow, and no digest.
    SlowDisks,
    /// No disk fails.
    DiskTroubles,
    /// No data folder is damaged.
    Damages,
    /// Nobody is left alone at the healing.
    Strays,
    /// Nobody stays down at the healing.
    StayDown,
    /// Clients make no more requests than they must.
    EndlessLoad,
}

impl Switch {
    /// All of them.
    pub const ALL: [Self; 21] = [
        Self::Liars,
        Self::Mischief,
        Self::Panics,
        Self::Loss,
        Self::Copies,
        Self::Corruption,
        Self::HealedLoss,
        Self::Splits,
        Self::PartialSplits,
        Self::Clogs,
        Self::Crashes,
        Self::PowerCuts,
        Self::Pauses,
        Self::Starvation,
        Self::Clocks,
        Self::SlowDisks,
        Self::DiskTroubles,
        Self::Damages,
        Self::Strays,
        Self::StayDown,
        Self::EndlessLoad,
    ];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Liars => "liars",
            Self::Mischief => "mischief",
            Self::Panics => "panics",
            Self::Loss => "loss",
            Self::Copies => "copies",
            Self::Corruption => "corruption",
            Self::HealedLoss => "healed-loss",
            Self::Splits => "splits",
            Self::PartialSplits => "partial-splits",
            Self::Clogs => "clogs",
            Self::Crashes => "crashes",
            Self::PowerCuts => "power-cuts",
            Self::Pauses => "pauses",
            Self::Starvation => "starvation",
            Self::Clocks => "clocks",
            Self::SlowDisks => "slow-disks",
            Self::DiskTroubles => "disk-troubles",
            Self::Damages => "damages",
            Self::Strays => "strays",
            Self::StayDown => "stay-down",
            Self::EndlessLoad => "endless-load",
        }
    }

    /// Switches it off.
    fn apply(self, options: &mut Options) {
        let Options { network, disk, faults, hazards, load, .. } = options;
        match self {
            Self::Liars => options.liars = 0,
            Self::Mischief => load.mischief_gap_ms = 0,
            Self::Panics => load.panic_per_mille = 0,
            Self::Loss => (network.loss_per_mille, network.slow_per_mille) = (0, 0),
            Self::Copies => (network.duplicate_per_mille, network.replay_per_mille) = (0, 0),
            Self::Corruption => hazards.corrupt_per_mille = 0,
            Self::HealedLoss => network.healed_loss_per_mille = 0,
            Self::Splits => faults.split_gap_ms = 0,
            Self::PartialSplits => hazards.partial_gap_ms = 0,
            Self::Clogs => hazards.clog_gap_ms = 0,
            Self::Crashes => faults.crash_gap_ms = 0,
            Self::PowerCuts => hazards.power_cut_gap_ms = 0,
            Self::Pauses => (faults.pause_gap_ms, hazards.long_pause_gap_ms) = (0, 0),
            Self::Starvation => hazards.starve_gap_ms = 0,
            Self::Clocks => {
                (faults.jump_gap_ms, faults.skew_ms_max) = (0, 0);
                (hazards.freeze_gap_ms, hazards.drift_per_mille) = (0, 0);
            }
            Self::SlowDisks => {
                (disk.stall_per_mille, disk.digest_us_max) = (0, disk.digest_us_max.min(5_000));
                (hazards.slowness, hazards.stall_gap_ms) = ([1, 1], 0);
            }
            Self::DiskTroubles => hazards.trouble_gap_ms = 0,
            Self::Damages => hazards.damage_gap_ms = 0,
            Self::Strays => faults.leaves_stray = false,
            Self::StayDown => faults.stay_down = false,
            Self::EndlessLoad => load.is_endless = false,
        }
    }
}

/// Switches that are off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Without(u32);

impl Without {
    /// These and one more.
    #[must_use]
    pub fn and(self, switch: Switch) -> Self {
        Self(self.0 | 1 << switch as u32)
    }

    /// The switches with these names, a comma between two.
    ///
    /// # Errors
    ///
    /// In words, when there is none of a name.
    pub fn of(names: &str) -> Result<Self, String> {
        let all = || Switch::ALL.iter().map(|switch| switch.name()).collect::<Vec<_>>().join(", ");
        names.split(',').try_fold(Self::default(), |without, name| {
            let found = Switch::ALL.into_iter().find(|switch| switch.name() == name);
            found.map(|switch| without.and(switch)).ok_or_else(|| format!("{name} is none of {}", all()))
        })
    }

    /// Their names, a comma between two.
    #[must_use]
    pub fn names(self) -> String {
        self.each().map(Switch::name).collect::<Vec<_>>().join(",")
    }

    /// Whether nothing is off.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Switches all of them off.
    pub fn apply(self, options: &mut Options) {
        self.each().for_each(|switch| switch.apply(options));
    }

    fn each(self) -> impl Iterator<Item = Switch> {
        Switch::ALL.into_iter().filter(move |switch| self.0 & 1 << *switch as u32 != 0)
    }
}

/// Switches off whatever a failure does without, one after the other: the same checker must still complain.
#[must_use]
pub fn shrink(seed: u64, setup: &Setup, violation: &Violation, progress: &mut dyn FnMut(Switch, bool)) -> Setup {
    let fails = |setup: &Setup| {
        let outcome = run(seed, setup, Trace::silent());
        outcome.violation.is_some_and(|other| other.checker == violation.checker)
    };
    let mut smallest = *setup;
    for switch in Switch::ALL {
        let smaller = Setup { without: smallest.without.and(switch), ..smallest };
        let is_needed = !fails(&smaller);
        if !is_needed {
            smallest = smaller;
        }
        progress(switch, is_needed);
    }
    smallest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_have_names_that_are_read_back_and_what_is_off_is_off() {
        let all = Switch::ALL.into_iter().fold(Without::default(), Without::and);
        assert_eq!(Without::of(&all.names()), Ok(all));
        assert!(Without::of("crashes,weather").is_err_and(|why| why.starts_with("weather is none of liars")));
        let mut options = Options::draw(3, None);
        all.apply(&mut options);
        assert_eq!((options.liars, options.faults.crash_gap_ms, options.hazards.damage_gap_ms), (0, 0, 0));
        assert_eq!(Without::default().names(), "");
    }
}
