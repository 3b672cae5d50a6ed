//! What was counted in a run.

use super::chaos::Fault;
use super::damage::Damage;
use super::point::Point;

/// How often each of some kinds happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tallied<const N: usize>([u64; N]);

impl<const N: usize> Default for Tallied<N> {
    fn default() -> Self {
        Self([0; N])
    }
}

impl<const N: usize> Tallied<N> {
    /// Counts one of a kind, by its place.
    pub fn count(&mut self, kind: usize) {
        if let Some(count) = self.0.get_mut(kind) {
            *count += 1;
        }
    }

    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(count, more)| *count += more);
    }

    /// How often each happened, in order of place.
    pub fn each(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().copied()
    }

    /// How often a kind happened.
    #[must_use]
    pub fn of(&self, kind: usize) -> u64 {
        self.0.get(kind).copied().unwrap_or_default()
    }
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events given to replicas.
    pub steps: u64,
    /// Messages dropped because their receiver did not want them.
    pub unwanted: u64,
    /// Messages of liars that did not verify.
    pub forged: u64,
    /// Frames whose bytes were changed on the way.
    pub corrupted: u64,
    /// Frames that a replica which stood still or starved had no room for.
    pub overflown: u64,
    /// Crashes.
    pub crashes: u64,
    /// Crashes by the point at which they struck; those at no point are left out.
    pub crashes_at: Tallied<{ Point::COUNT }>,
    /// Faults by kind.
    pub faults: Tallied<{ Fault::COUNT }>,
    /// Damages to data folders, by kind.
    pub damages: Tallied<{ Damage::COUNT }>,
    /// Starts that were refused in words.
    pub refused: u64,
    /// Replicas that halted in words because their log was set back.
    pub halted: u64,
    /// Processes that ended because a disk failed.
    pub disk_failures: u64,
    /// Restarts.
    pub restarts: u64,
    /// View changes, as the replicas count them.
    pub view_changes: u64,
    /// State transfers that ended in a new base.
    pub transfers: u64,
    /// Commands that there was no room for when they came, as their clients count them (R25).
    pub no_room: u64,
}

impl Counts {
    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.unwanted += other.unwanted;
        self.forged += other.forged;
        self.corrupted += other.corrupted;
        self.overflown += other.overflown;
        self.crashes += other.crashes;
        self.crashes_at.add(&other.crashes_at);
        self.faults.add(&other.faults);
        self.damages.add(&other.damages);
        self.refused += other.refused;
        self.halted += other.halted;
        self.disk_failures += other.disk_failures;
        self.restarts += other.restarts;
        self.view_changes += other.view_changes;
        self.transfers += other.transfers;
        self.no_room += other.no_room;
    }

    /// The points at which replicas crashed, and how often.
    pub fn points(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Point::ALL.into_iter().map(Point::name).zip(self.crashes_at.each())
    }

    /// The damages to data folders, and how often.
    pub fn damage_kinds(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        Damage::ALL.into_iter().map(|damage| format!("{damage:?}")).zip(self.damages.each())
    }

    /// The faults that were met, and how often.
    pub fn fault_kinds(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Fault::ALL.into_iter().map(Fault::name).zip(self.faults.each())
    }
}
