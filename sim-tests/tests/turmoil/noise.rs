//! A network that loses, repeats, damages, or takes only small datagrams.

use crate::network::Faults;
use crate::world::{Outcome, World};

/// So long each fault lasts, in milliseconds.
const LASTS_MS: u64 = 6_000;

/// The faults last a while; commands go on being answered meanwhile.
fn under(world: &mut World, faults: Faults, answers: usize) -> Outcome {
    world.network.set_faults(faults);
    let before = world.book.answered();
    world.run(LASTS_MS);
    let answered = world.book.answered() - before;
    if answered < answers {
        return Err(format!("only {answered} answers under {faults:?}; {}", world.words()));
    }
    Ok(())
}

/// Up to one datagram in six is lost.
pub(crate) fn loss(world: &mut World) -> Outcome {
    let lost = world.random.range(20, 160);
    under(world, Faults { lost, ..Faults::NONE }, 20)?;
    // Nothing is promised here, but that it ends.
    let lost = world.random.range(300, 800);
    under(world, Faults { lost, ..Faults::NONE }, 0)
}

/// Every second datagram comes twice, and later than others.
pub(crate) fn copies(world: &mut World) -> Outcome {
    let copied = world.random.range(200, 1_000);
    under(world, Faults { copied, ..Faults::NONE }, 40)
}

/// Up to one datagram in ten is damaged: no bit of it may be believed.
pub(crate) fn damage(world: &mut World) -> Outcome {
    let damaged = world.random.range(20, 100);
    under(world, Faults { damaged, ..Faults::NONE }, 20)?;
    under(world, Faults { damaged: 50, lost: 50, copied: 100, ..Faults::NONE }, 10)
}

/// The way narrows under connections that have found it wide, to the least that QUIC needs, and widens again; meanwhile a
/// replica comes back that must fetch the state, which is in larger pieces than votes are.
pub(crate) fn narrow(world: &mut World) -> Outcome {
    for _ in 0..2 {
        let who = world.somebody();
        world.crash(who);
        // More slots than a log reaches back.
        let goal = world.executed() + 2 * world.cluster.constants.window_slots;
        world.run_until(20_000, "slots while one replica is down", |world| world.executed() >= goal)?;
        let bytes_max = world.random.weighted(&[(2, 1_200), (1, 1_280), (1, 1_400)], 1_200);
        world.network.set_faults(Faults { bytes_max, ..Faults::NONE });
        world.start(who);
        let is_back = |world: &World| {
            let report = world.replicas[usize::from(who.0)].report();
            report.is_some_and(|report| report.ready().is_ok() && report.status.executed.0 >= goal)
        };
        world.run_until(LASTS_MS, "return of a replica on a narrow way", is_back)?;
        world.run_until_answered(LASTS_MS, 10, "on a narrow way")?;
        world.network.set_faults(Faults::NONE);
        let ms = world.random.range(200, 1_000);
        world.run(ms);
    }
    Ok(())
}
