//! What else befalls links, machines, disks and clocks, beside what `swarm` draws: each seed draws which of these it
//! meets, and how often. Drawn from a stream of their own, so that the rest of a seed stays what it is.

use polder_types::Constants;

use crate::random::{Purpose, Random};

/// Rates in thousandths; mean gaps between two in milliseconds, 0 for never; lengths in milliseconds, in the mean.
/// Nothing of all this by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hazards {
    /// How many frames have some of their bytes changed on the way.
    pub corrupt_per_mille: u64,
    /// Between clogs: some links hold what is sent, and then deliver all of it at one time.
    pub clog_gap_ms: u64,
    /// How long a clog lasts.
    pub clog_ms: u64,
    /// Between partial splits: at most `u` replicas lose the leader, or one link, and nothing else.
    pub partial_gap_ms: u64,
    /// How long a partial split lasts.
    pub partial_ms: u64,
    /// Between pauses that are longer than any time-out.
    pub long_pause_gap_ms: u64,
    /// How long such a pause lasts, at least.
    pub long_pause_ms: u64,
    /// Between starvations: a replica gets very few steps.
    pub starve_gap_ms: u64,
    /// How long a starvation lasts.
    pub starve_ms: u64,
    /// How long a starved replica takes for a step, in microseconds.
    pub starved_step_us: u64,
    /// Between power cuts: all correct replicas are down at once.
    pub power_cut_gap_ms: u64,
    /// How much faster or slower the clocks of two replicas run than they should, at most.
    pub drift_per_mille: u64,
    /// Between wall clocks that stand still.
    pub freeze_gap_ms: u64,
    /// How long a wall clock stands still.
    pub freeze_ms: u64,
    /// How many times longer than others one replica's two disks take, of the log and of the state.
    pub slowness: [u64; 2],
    /// Between disks that stand still.
    pub stall_gap_ms: u64,
    /// How long a disk stands still.
    pub stall_ms: u64,
    /// Between disks that fail a write or a sync, or are full.
    pub trouble_gap_ms: u64,
    /// How long a disk is full.
    pub full_ms: u64,
    /// Between damages to a data folder while its replica is down.
    pub damage_gap_ms: u64,
    /// How many correct replicas may be left with bad connections when the others are healed, within the faults allowed.
    pub strays_max: u64,
}

impl Hazards {
    /// The hazards of a seed.
    #[must_use]
    pub fn draw(seed: u64, constants: &Constants) -> Self {
        let mut random = Random::new(seed, Purpose::Hazards);
        let slowest_ms = constants.timeout_max_ms;
        let mut gap = |per_mille: u64, common_ms: u64| {
            let length_ms = random.range(common_ms / 2, 2 * common_ms);
            if random.chance(per_mille) { length_ms } else { 0 }
        };
        let [clog_gap_ms, partial_gap_ms, starve_gap_ms, freeze_gap_ms] =
            [(350, 700), (300, 800), (200, 1_500), (150, 1_500)].map(|(per_mille, common)| gap(per_mille, common));
        let [long_pause_gap_ms, power_cut_gap_ms, stall_gap_ms, trouble_gap_ms, damage_gap_ms] =
            [(150, 2_500), (120, 2_500), (200, 1_000), (200, 1_200), (200, 1_500)]
                .map(|(per_mille, common)| gap(per_mille, common));
        Self {
            corrupt_per_mille: random.weighted(&[(3, 0), (1, 5), (1, 30)], 0),
            clog_gap_ms,
            clog_ms: random.range(20, 2 * constants.timeout_first_ms),
            partial_gap_ms,
            partial_ms: random.range(50, 2 * slowest_ms),
            long_pause_gap_ms,
            long_pause_ms: slowest_ms + random.range(0, slowest_ms),
            starve_gap_ms,
            starve_ms: random.range(100, slowest_ms),
            starved_step_us: random.range(1_000, 30_000),
            power_cut_gap_ms,
            drift_per_mille: random.weighted(&[(3, 0), (1, 10), (1, 100)], 0),
            freeze_gap_ms,
            freeze_ms: random.range(100, slowest_ms),
            slowness: random.weighted(&[(6, [1, 1]), (1, [30, 1]), (1, [1, 100])], [1, 1]),
            stall_gap_ms,
            stall_ms: random.range(100, 2 * slowest_ms),
            trouble_gap_ms,
            full_ms: random.range(100, slowest_ms),
            damage_gap_ms,
            strays_max: random.weighted(&[(2, 1), (2, 6)], 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hazard_is_drawn_by_some_seeds_and_not_by_all() {
        let constants = Constants::default();
        let drawn: Vec<Hazards> = (0..400).map(|seed| Hazards::draw(seed, &constants)).collect();
        let rates: [fn(&Hazards) -> u64; 11] = [
            |hazards| hazards.corrupt_per_mille,
            |hazards| hazards.clog_gap_ms,
            |hazards| hazards.partial_gap_ms,
            |hazards| hazards.long_pause_gap_ms,
            |hazards| hazards.starve_gap_ms,
            |hazards| hazards.power_cut_gap_ms,
            |hazards| hazards.drift_per_mille,
            |hazards| hazards.freeze_gap_ms,
            |hazards| hazards.stall_gap_ms,
            |hazards| hazards.trouble_gap_ms,
            |hazards| hazards.damage_gap_ms,
        ];
        for (index, rate) in rates.iter().enumerate() {
            let met = drawn.iter().filter(|hazards| rate(hazards) > 0).count();
            assert!((20..300).contains(&met), "hazard {index} is met by {met} of 400 seeds");
        }
    }
}
