//! Seed → options. Every seed draws its own cluster, constants, faults and load ("swarm"), so that no single setting
//! of them hides a bug.

use std::fmt;

use polder_types::{Constants, FaultModel, Quorum};

use crate::hazards::Hazards;
use crate::random::{Purpose, Random};

/// How messages travel. Times in microseconds, rates in thousandths.
#[derive(Clone, Debug)]
pub struct NetworkOptions {
    /// The shortest delay.
    pub delay_us_min: u64,
    /// The mean of what comes on top; each message draws its own, so messages overtake one another.
    pub delay_us_mean: u64,
    /// How many are delayed a hundredfold.
    pub slow_per_mille: u64,
    /// How many are lost.
    pub loss_per_mille: u64,
    /// How many arrive twice.
    pub duplicate_per_mille: u64,
    /// How often an old message arrives again with a new one.
    pub replay_per_mille: u64,
    /// How many are encoded and decoded on their way.
    pub encoded_per_mille: u64,
    /// How often a message that the receiver says it does not want is given to it all the same.
    pub unwanted_per_mille: u64,
    /// How much healed parties still lose, of what they send for the first time.
    pub healed_loss_per_mille: u64,
}

/// How disks behave. Times in microseconds, rates in thousandths.
#[derive(Clone, Debug)]
pub struct DiskOptions {
    /// The shortest time of one sync.
    pub sync_us_min: u64,
    /// The mean of what comes on top.
    pub sync_us_mean: u64,
    /// How many syncs stall.
    pub stall_per_mille: u64,
    /// How long a stall lasts.
    pub stall_us: u64,
    /// How long one replica, the slowest, takes for a digest, at most.
    pub digest_us_max: u64,
}

/// How often what fails during chaos. Mean gaps in milliseconds, 0 for never.
#[derive(Clone, Debug)]
pub struct FaultOptions {
    /// Between crashes.
    pub crash_gap_ms: u64,
    /// How long a crashed replica stays down, in the mean.
    pub down_ms: u64,
    /// Between pauses.
    pub pause_gap_ms: u64,
    /// How long a pause lasts, in the mean.
    pub pause_ms: u64,
    /// How many replicas are to crash again in the middle of their recovery, in thousandths.
    pub again_per_mille: u64,
    /// Between jumps of a wall clock.
    pub jump_gap_ms: u64,
    /// Between splits.
    pub split_gap_ms: u64,
    /// How long a split lasts, in the mean.
    pub split_ms: u64,
    /// How far the wall clocks of two replicas lie apart, at most.
    pub skew_ms_max: u64,
    /// Whether a faulty replica stays down when the others are healed.
    pub stay_down: bool,
    /// Whether a correct replica is left alone with a bad connection when the others are healed.
    pub leaves_stray: bool,
}

/// What clients do.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// How many there are.
    pub clients: usize,
    /// How many requests each makes.
    pub requests: usize,
    /// How many requests each keeps in flight.
    pub in_flight: usize,
    /// Whether all but the first go on making requests until the first has its answers.
    pub is_endless: bool,
    /// Commands in a request, at most.
    pub commands_max: usize,
    /// Different keys.
    pub keys: u64,
    /// The mean pause before the next request, in milliseconds.
    pub think_ms: u64,
    /// How many commands are reads.
    pub read_per_mille: u64,
    /// How often somebody sends requests that can never execute, or not now: between two, in milliseconds; 0 for never.
    pub mischief_gap_ms: u64,
    /// How many commands make the service panic (R28).
    pub panic_per_mille: u64,
    /// How many calls are abandoned when they are late.
    pub abandon_per_mille: u64,
    /// How often a client stops reading for a while when something comes.
    pub unread_per_mille: u64,
    /// How long a client waits before it turns to all replicas, in milliseconds; doubles.
    pub retry_ms: u64,
}

/// All options of one run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The seed they were drawn from.
    pub seed: u64,
    /// Replicas.
    pub replicas: usize,
    /// Fault model.
    pub fault_model: FaultModel,
    /// How many replicas lie; at most `r`.
    pub liars: usize,
    /// The lies that each of them tells all the time; drawn when none is named.
    pub lies: Vec<&'static str>,
    /// Whether the end is watched for views that change for no reason (R5).
    pub is_watched: bool,
    /// The constants of the epoch.
    pub constants: Constants,
    /// Fresh slots a leader keeps uncommitted.
    pub pipeline_slots: u64,
    /// Between two ticks, in milliseconds.
    pub tick_ms: u64,
    /// How long chaos lasts, in milliseconds.
    pub chaos_ms: u64,
    /// How messages travel.
    pub network: NetworkOptions,
    /// How disks behave.
    pub disk: DiskOptions,
    /// What fails.
    pub faults: FaultOptions,
    /// What else fails.
    pub hazards: Hazards,
    /// What clients do.
    pub load: LoadOptions,
}

/// Which fault models a seed may draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// `r = ⌊(n−1)/3⌋`.
    Byzantine,
    /// `r = 0`.
    Crash,
    /// In between.
    Hybrid,
}

impl Model {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Byzantine, Self::Crash, Self::Hybrid];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Byzantine => "byzantine",
            Self::Crash => "crash",
            Self::Hybrid => "hybrid",
        }
    }

    /// The model of this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|model| model.name() == name)
    }
}

impl Options {
    /// The options of a seed; of this fault model, if one is asked for.
    #[must_use]
    pub fn draw(seed: u64, model: Option<Model>) -> Self {
        let mut random = Random::new(seed, Purpose::Swarm);
        let drawn = random.weighted(&[(5, Model::Byzantine), (3, Model::Crash), (2, Model::Hybrid)], Model::Byzantine);
        let (replicas, fault_model) = cluster(&mut random, model.unwrap_or(drawn));
        let quorum = Quorum::new(replicas, fault_model).ok();
        let liars_max = quorum.map_or(0, Quorum::liars);
        let liars = if random.chance(650) { random.range(1, liars_max as u64) as usize } else { 0 }.min(liars_max);
        let mut constants = constants(&mut random);
        scarce_rows(seed, &mut constants);
        let network = network(&mut random);
        if network.healed_loss_per_mille > 0 {
            // What is lost comes with one of the next STATUSes: a view must last for some of them.
            constants.timeout_max_ms = constants.timeout_max_ms.max(24 * constants.status_period_ms);
        }
        let disk = disk(&mut random);
        // Only where no honest delay comes near the first time-out.
        let is_calm = network.healed_loss_per_mille == 0
            && disk.sync_us_mean <= 1_000
            && disk.digest_us_max <= 5_000
            && constants.timeout_first_ms >= 300;
        Self {
            seed,
            replicas,
            fault_model,
            liars,
            lies: Vec::new(),
            is_watched: is_calm,
            pipeline_slots: random.range(1, 4).min(constants.fresh_slots_max),
            tick_ms: *random.pick(&[5, 10, 10, 20]).unwrap_or(&10),
            chaos_ms: random.range(3_000, 7_000),
            network,
            disk,
            faults: faults(&mut random, &constants),
            hazards: Hazards::draw(seed, &constants),
            load: load(&mut random, &constants),
            constants,
        }
    }
}

fn cluster(random: &mut Random, model: Model) -> (usize, FaultModel) {
    match model {
        Model::Byzantine => {
            let sizes = [(24, 4), (4, 5), (4, 6), (11, 7), (1, 8), (1, 9), (2, 10), (1, 11), (1, 12), (1, 13)];
            (random.weighted(&sizes, 4), FaultModel::Byzantine)
        }
        Model::Crash => {
            let sizes = [(3, 1), (3, 2), (24, 3), (4, 4), (12, 5), (2, 6), (3, 7), (1, 8), (2, 9), (1, 11), (1, 13)];
            (random.weighted(&sizes, 3), FaultModel::Crash)
        }
        Model::Hybrid => {
            let sizes = [(8, (4, 1)), (8, (5, 1)), (16, (6, 1)), (4, (7, 1)), (4, (7, 2)), (4, (5, 0))];
            let large = [(1, (9, 2)), (1, (10, 1)), (1, (11, 3)), (1, (12, 2)), (1, (13, 1))];
            let sizes: Vec<_> = sizes.into_iter().chain(large).collect();
            let (replicas, byzantine) = random.weighted(&sizes, (6, 1));
            (replicas, FaultModel::Hybrid { byzantine })
        }
    }
}

fn constants(random: &mut Random) -> Constants {
    let window_slots = random.weighted(&[(2, 8), (3, 16), (1, 24), (2, 32)], 16);
    let interval_slots = if random.chance(700) { window_slots / 2 } else { window_slots / 4 };
    let timeout_first_ms = random.range(120, 500);
    Constants {
        window_slots,
        interval_slots,
        request_bytes_max: 2_048,
        batch_bytes_max: 4_096,
        admitted_per_client_max: random.weighted(&[(1, 4), (4, 64)], 64),
        admitted_max: 256,
        admitted_bytes_per_client_max: 32 << 10,
        admitted_bytes_max: 128 << 10,
        timeout_first_ms,
        timeout_max_ms: timeout_first_ms * random.weighted(&[(1, 2), (3, 4), (1, 8)], 4),
        fresh_slots_max: random.range(2, window_slots),
        status_period_ms: random.range(40, 100),
        idle_ms: random.range(200, 800),
        clock_ahead_max_ms: 500,
        session_window: random.weighted(&[(1, 8), (2, 32)], 32),
        reply_bytes_max: 16 << 10,
        partitions: random.range(1, 4) as u16,
        session_partitions: random.range(1, 2) as u16,
        turn_cuts: random.range(1, 3),
        ..Constants::default()
    }
}

/// In one of five runs there is room for few numbers that are not acknowledged (R25), drawn apart from all else.
fn scarce_rows(seed: u64, constants: &mut Constants) {
    let mut random = Random::new(seed ^ 0x0a11_0f25, Purpose::Swarm);
    if random.chance(200) {
        constants.reply_cache_bytes_max = random.weighted(&[(2, 1), (2, 32), (1, 64)], 32) << 10;
    }
}

fn network(random: &mut Random) -> NetworkOptions {
    let is_calm = random.chance(250);
    NetworkOptions {
        delay_us_min: random.range(50, 2_000),
        delay_us_mean: random.weighted(&[(3, 500), (3, 3_000), (2, 15_000)], 3_000),
        slow_per_mille: if is_calm { 0 } else { random.range(0, 20) },
        loss_per_mille: if is_calm { 0 } else { random.weighted(&[(2, 0), (3, 20), (2, 100), (1, 200)], 20) },
        duplicate_per_mille: random.weighted(&[(1, 0), (2, 20), (1, 100)], 20),
        replay_per_mille: random.weighted(&[(1, 0), (2, 10), (1, 50)], 10),
        encoded_per_mille: 20,
        unwanted_per_mille: random.weighted(&[(2, 0), (1, 100)], 0),
        healed_loss_per_mille: random.weighted(&[(6, 0), (2, 100), (1, 300)], 0),
    }
}

fn disk(random: &mut Random) -> DiskOptions {
    DiskOptions {
        sync_us_min: random.range(20, 500),
        sync_us_mean: random.weighted(&[(2, 100), (2, 1_000), (1, 8_000)], 1_000),
        stall_per_mille: random.range(0, 5),
        stall_us: random.range(20_000, 400_000),
        digest_us_max: random.weighted(&[(4, 5_000), (1, 100_000), (1, 800_000)], 5_000),
    }
}

fn faults(random: &mut Random, constants: &Constants) -> FaultOptions {
    let slowest = constants.timeout_max_ms;
    let gap =
        |random: &mut Random, common: u64| if random.chance(750) { random.range(common / 2, 2 * common) } else { 0 };
    FaultOptions {
        crash_gap_ms: gap(random, 400),
        down_ms: if random.chance(500) { random.range(5, 200) } else { random.range(200, slowest) },
        again_per_mille: random.weighted(&[(1, 0), (1, 300)], 0),
        jump_gap_ms: if random.chance(200) { 800 } else { 0 },
        pause_gap_ms: gap(random, 1_200),
        pause_ms: random.range(20, slowest),
        split_gap_ms: gap(random, 800),
        split_ms: random.range(50, slowest),
        skew_ms_max: random.weighted(&[(1, 0), (1, 50), (1, 200)], 0),
        stay_down: random.chance(300),
        leaves_stray: random.chance(250),
    }
}

fn load(random: &mut Random, constants: &Constants) -> LoadOptions {
    let commands_max = random.range(1, 4) as usize;
    let window = constants.session_window as usize;
    LoadOptions {
        clients: random.range(2, 5) as usize,
        requests: random.range(25, 80) as usize,
        in_flight: (random.range(1, 6) as usize).min(window / (2 * commands_max)).max(1),
        is_endless: random.chance(200),
        commands_max,
        keys: random.range(2, 8),
        think_ms: random.weighted(&[(2, 5), (3, 40), (1, 120)], 40),
        read_per_mille: 200,
        mischief_gap_ms: random.weighted(&[(2, 0), (1, 60)], 0),
        panic_per_mille: random.weighted(&[(2, 0), (1, 20)], 0),
        retry_ms: random.range(80, 300),
        abandon_per_mille: random.weighted(&[(3, 0), (1, 100)], 0),
        unread_per_mille: random.weighted(&[(3, 0), (1, 20)], 0),
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (n, c) = (self.network.clone(), &self.constants);
        write!(
            f,
            "seed {} n={} {:?} liars={} L={} I={} F={} T={}..{} ms tau={} ms idle={} ms pipeline={} tick={} ms chaos={} ms",
            self.seed,
            self.replicas,
            self.fault_model,
            self.liars,
            c.window_slots,
            c.interval_slots,
            c.fresh_slots_max,
            c.timeout_first_ms,
            c.timeout_max_ms,
            c.status_period_ms,
            c.idle_ms,
            self.pipeline_slots,
            self.tick_ms,
            self.chaos_ms,
        )?;
        write!(
            f,
            " delay={}+{} us loss={}/1000 copies={}/1000 sync={}+{} us",
            n.delay_us_min,
            n.delay_us_mean,
            n.loss_per_mille,
            n.duplicate_per_mille,
            self.disk.sync_us_min,
            self.disk.sync_us_mean
        )?;
        write!(
            f,
            " crash={}/{} ms pause={}/{} ms split={}/{} ms clients={}x{} keys={}",
            self.faults.down_ms,
            self.faults.crash_gap_ms,
            self.faults.pause_ms,
            self.faults.pause_gap_ms,
            self.faults.split_ms,
            self.faults.split_gap_ms,
            self.load.clients,
            self.load.requests,
            self.load.keys
        )?;
        write!(f, " {:?}", self.hazards)
    }
}

#[cfg(test)]
mod tests {
    use polder_types::{ClientAccess, Genesis, Member, Nonce, SigningKey};

    use super::*;

    fn genesis(options: &Options) -> Genesis {
        let key = |index: usize, kind: u8| SigningKey::from_seed(&[kind + 2 * index as u8; 32]).public();
        Genesis {
            nonce: Nonce([0; 16]),
            replicas: (0..options.replicas).map(|i| Member { identity: key(i, 0), signing: key(i, 1) }).collect(),
            fault_model: options.fault_model,
            constants: options.constants.clone(),
            clients: ClientAccess { open: true, keys: Vec::new() },
        }
    }

    #[test]
    fn every_seed_draws_a_configuration_that_can_be_and_no_more_liars_than_it_allows() {
        for seed in 0..2_000 {
            let options = Options::draw(seed, None);
            let keyring = genesis(&options).check();
            assert!(keyring.is_ok(), "{options}: {keyring:?}");
            assert!(keyring.is_ok_and(|keyring| options.liars <= keyring.quorum().liars()));
            assert!(options.pipeline_slots <= options.constants.fresh_slots_max);
        }
    }

    #[test]
    fn a_model_that_is_asked_for_is_drawn() {
        for model in Model::ALL {
            assert_eq!(Model::of(model.name()), Some(model));
            let drawn = Options::draw(5, Some(model)).fault_model;
            let fits = match model {
                Model::Byzantine => drawn == FaultModel::Byzantine,
                Model::Crash => drawn == FaultModel::Crash,
                Model::Hybrid => matches!(drawn, FaultModel::Hybrid { .. }),
            };
            assert!(fits, "{model:?} drew {drawn:?}");
        }
    }
}
