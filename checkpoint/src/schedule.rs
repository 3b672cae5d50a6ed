//! Which partitions a replica writes at which turn: the family `(T, φ, G, σ, C)` of C4.
//!
//! Replica `i` images stripe `(⌊(k+φ(i))/T⌋ + σ(i)) mod G` at turn `k` iff `(k+φ(i)) mod T = 0`, and all stripes iff
//! `C` divides `k`. A strategy is a choice of the five; every replica can compute every other's turn.
//!
//! | strategy | T | φ(i) | G | σ(i) | C |
//! | --- | --- | --- | --- | --- | --- |
//! | [`Schedule::coordinated`] | 1 | 0 | 1 | 0 | – |

use polder_types::{PartitionId, Seq};

/// When a replica writes which partitions (C4). Knows turns, not slots: [`Turns`] maps one to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// `T`: this replica writes at every so many turns; at least 1.
    period_turns: u64,
    /// `φ(i)`: how many turns it is ahead of replica 0.
    phase_turns: u64,
    /// `G`: stripes of the state; at least 1.
    stripes: u64,
    /// `σ(i)`: the stripe that it starts with.
    first_stripe: u64,
    /// `C`: every so many turns all replicas write everything; none: never.
    coordinated_turns: Option<u64>,
}

impl Schedule {
    /// Every replica writes everything at every turn (PBFT, CBASE).
    #[must_use]
    pub fn coordinated() -> Self {
        Self { period_turns: 1, phase_turns: 0, stripes: 1, first_stripe: 0, coordinated_turns: None }
    }

    /// What is to be written at a turn. Turn 0 is genesis, which nobody writes.
    #[must_use]
    pub fn due(&self, turn: u64) -> Due {
        if turn == 0 {
            return Due::Nothing;
        }
        if self.coordinated_turns.is_some_and(|every| every > 0 && turn.is_multiple_of(every)) {
            return Due::Everything;
        }
        let turn = turn.saturating_add(self.phase_turns);
        let period = self.period_turns.max(1);
        if !turn.is_multiple_of(period) {
            return Due::Nothing;
        }
        let stripes = self.stripes.max(1);
        if stripes == 1 {
            return Due::Everything;
        }
        Due::Stripe { index: (turn / period).wrapping_add(self.first_stripe) % stripes, stripes }
    }

    /// After how many turns everything was written at least once, whatever the turn one starts at.
    #[must_use]
    pub fn round_turns(&self) -> u64 {
        self.period_turns.max(1).saturating_mul(self.stripes.max(1))
    }
}

/// What a replica writes at a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing.
    Nothing,
    /// One of several stripes.
    Stripe {
        /// Which.
        index: u64,
        /// Of how many.
        stripes: u64,
    },
    /// All partitions.
    Everything,
}

impl Due {
    /// Whether a partition is to be written: stripes take partitions in turn.
    #[must_use]
    pub fn contains(self, partition: PartitionId) -> bool {
        match self {
            Self::Nothing => false,
            Self::Stripe { index, stripes } => u64::from(partition.0) % stripes.max(1) == index,
            Self::Everything => true,
        }
    }
}

/// Which cuts are turns: turn `k` is the cut `k·I·M` (C2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turns {
    /// `I·M`: slots from turn to turn; at least 1.
    slots: u64,
}

impl Turns {
    /// Turns every `turn_cuts` cuts of `interval_slots` slots each.
    #[must_use]
    pub fn new(interval_slots: u64, turn_cuts: u64) -> Self {
        Self { slots: interval_slots.saturating_mul(turn_cuts).max(1) }
    }

    /// The newest turn at or before a cut; 0 is genesis.
    #[must_use]
    pub fn at(self, cut: Seq) -> u64 {
        cut.0 / self.slots
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn due_of(schedule: &Schedule, turn: u64) -> Vec<u16> {
        (0..16).filter(|id| schedule.due(turn).contains(PartitionId(*id))).collect()
    }

    #[test]
    fn c4_coordinated_writes_everything_at_every_turn_and_nothing_at_genesis() {
        let schedule = Schedule::coordinated();
        assert_eq!(schedule.due(0), Due::Nothing);
        for turn in 1..50 {
            assert_eq!(due_of(&schedule, turn).len(), 16);
        }
        assert_eq!(schedule.round_turns(), 1);
    }

    #[test]
    fn c4_the_family_gives_one_stripe_a_period_and_every_stripe_in_a_round() {
        // A member of the family that no strategy names yet: T = 2, φ = 1, G = 4, σ = 3, C = 8.
        let schedule =
            Schedule { period_turns: 2, phase_turns: 1, stripes: 4, first_stripe: 3, coordinated_turns: Some(8) };
        assert_eq!(schedule.due(1), Due::Stripe { index: 0, stripes: 4 });
        assert_eq!(schedule.due(2), Due::Nothing);
        assert_eq!(schedule.due(3), Due::Stripe { index: 1, stripes: 4 });
        assert_eq!(schedule.due(8), Due::Everything);
        for start in 1..30 {
            let mut written: Vec<u16> =
                (start..start + schedule.round_turns()).flat_map(|turn| due_of(&schedule, turn)).collect();
            written.sort_unstable();
            written.dedup();
            assert_eq!(written.len(), 16, "from turn {start}");
        }
    }

    #[test]
    fn c2_a_turn_is_every_mth_cut() {
        let turns = Turns::new(128, 8);
        assert_eq!([0, 1023, 1024, 2047, 2048].map(|cut| turns.at(Seq(cut))), [0, 0, 1, 1, 2]);
    }
}
