//! Random runs: chaos, then a quorum is healed and every request must be answered.

use crate::clusters::SHAPES;
use crate::liars::Lie;
use crate::world::{Random, Weather, World, constants};

fn run(seed: u64, trace: bool) -> u64 {
    let mut random = Random::new(seed);
    let (n, r) = SHAPES[random.below(SHAPES.len() as u64) as usize];
    let mut world = World::new(n, r, seed, constants());
    world.trace = trace;
    let faults = world.keyring.quorum().faults();
    let liars = random.below(u64::from(r) + 1) as u8;
    for liar in 0..liars {
        let replica = (random.below(n as u64) as u8 + liar) % n as u8;
        world.nodes[usize::from(replica)].lie = Some(Lie::ALL[random.below(4) as usize]);
    }
    (0..1 + random.below(3)).for_each(|_| world.add_client(10 + random.below(40)));
    for _ in 0..4 + random.below(12) {
        world.weather = Weather {
            loss_percent: random.below(25),
            copy_percent: random.below(10),
            delay_ms_max: 1 + random.below(60),
            sync_ms_max: 1 + random.below(30),
            cut: Default::default(),
        };
        if random.chance(40) {
            for _ in 0..random.below(2 * n as u64) {
                world.weather.cut.insert((random.below(n as u64) as u8, random.below(n as u64) as u8));
            }
        }
        for _ in 0..random.below(3) {
            let replica = random.below(n as u64) as u8;
            if world.is_up(replica) {
                world.crash(replica);
                world.restart_after(replica, random.below(400));
            }
        }
        world.run_for(random.below(600));
    }
    world.weather = Weather::fair();
    // Liars count among the faulty: only the others may stay down as well.
    let lying = world.nodes.iter().filter(|node| node.lie.is_some()).count();
    let mut may_stay_down = faults.saturating_sub(lying);
    for replica in 0..n as u8 {
        if !world.is_up(replica) && (may_stay_down == 0 || random.chance(50)) {
            world.restart_after(replica, 1);
        } else if !world.is_up(replica) {
            may_stay_down -= 1;
        }
    }
    let done = world.run_until(60_000, World::all_answered);
    let lines: Vec<_> = world.up().map(|replica| world.core(replica).status().to_string()).collect();
    assert!(done, "seed {seed}: n={n} r={r}: not answered: {lines:#?}");
    world.steps
}

/// `POLDER_SEED=7` runs one seed and prints its trace.
#[test]
fn random_runs_agree_and_answer() {
    if let Ok(seed) = std::env::var("POLDER_SEED") {
        run(seed.parse().unwrap(), true);
        return;
    }
    let seeds = std::env::var("POLDER_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(60);
    let mut steps = 0;
    for seed in 0..seeds {
        let outcome = std::panic::catch_unwind(|| run(seed, false));
        assert!(outcome.is_ok(), "seed {seed} failed: POLDER_SEED={seed} prints its trace");
        steps += outcome.unwrap();
    }
    println!("{steps} steps in {seeds} runs");
    assert!(steps > seeds * 100, "too little happened");
}
