//! Links that carry nothing, or nothing one way, or everything later.

use polder_types::ReplicaId;

use crate::world::{Outcome, World, host, ready};

/// After so long without a word a replica no longer says that it is ready: two seconds, and what it takes to say so.
const BOAST_MS: u64 = 2_300;

/// Some replicas and the others do not reach each other, with the clients on either side. Where a quorum and the clients
/// are together, it goes on; who is alone says so.
pub(crate) fn split_and_heal(world: &mut World) -> Outcome {
    for _ in 0..2 {
        let alone = world.somebody();
        let mut these = vec![host(alone)];
        let is_pair = world.random.chance(300);
        if is_pair {
            let second = world.somebody();
            these.push(host(second));
        }
        let those = world.all_but(&these);
        world.split(&these, &those);
        if world.random.chance(300) {
            these.push("c0".to_owned());
            world.split(&these, &world.all_but(&these));
        }
        world.run(BOAST_MS);
        boasts(world, alone, these.len() == 1)?;
        if !is_pair {
            world.run_until_answered(5_000, 5, "of those that are together")?;
        }
        let ms = world.random.range(0, 3_000);
        world.run(ms);
        world.release();
        let ms = world.random.range(500, 2_000);
        world.run(ms);
    }
    Ok(())
}

/// Whoever is alone must not say that it takes part.
fn boasts(world: &World, alone: ReplicaId, is_alone: bool) -> Outcome {
    let report = world.replicas[usize::from(alone.0)].report();
    match report {
        Some(report) if is_alone && report.ready().is_ok() => {
            Err(format!("{alone} is alone and says: {}", ready(&report)))
        }
        _ => Ok(()),
    }
}

/// A replica is deaf, or mute, or one does not hear one other. The others go on.
pub(crate) fn one_way_split(world: &mut World) -> Outcome {
    for _ in 0..2 {
        let (one, other) = (world.somebody(), world.somebody());
        let these = vec![host(one)];
        let those = match world.random.range(0, 2) {
            0 if one != other => vec![host(other)],
            _ => world.all_but(&these),
        };
        if world.random.chance(500) {
            world.split_one_way(&these, &those);
        } else {
            world.split_one_way(&those, &these);
        }
        world.run(3_000);
        world.run_until_answered(6_000, 5, "of those that hear each other")?;
        let ms = world.random.range(0, 3_000);
        world.run(ms);
        world.release();
        let ms = world.random.range(500, 2_000);
        world.run(ms);
    }
    Ok(())
}

/// What is sent to and from a replica waits, for a moment or for longer than connections last, and then comes all at
/// once.
pub(crate) fn hold_and_release(world: &mut World) -> Outcome {
    for _ in 0..4 {
        let these = vec![host(world.somebody())];
        let those = if world.random.chance(500) { vec![host(world.somebody())] } else { world.all_but(&these) };
        world.hold(&these, &those);
        let ms =
            if world.random.chance(700) { world.random.range(100, 2_000) } else { world.random.range(3_500, 6_000) };
        world.run(ms);
        world.release();
        let ms = world.random.range(200, 1_500);
        world.run(ms);
    }
    Ok(())
}

/// A client does not reach the leader, but all others do: its commands are executed all the same, and nobody suspects
/// the leader for it.
pub(crate) fn client_cut_from_the_leader(world: &mut World) -> Outcome {
    world.run(1_000);
    let leader = world.leader();
    let views = |world: &World| -> Vec<_> { world.reports().iter().map(|report| report.status.core.view).collect() };
    let before = views(world);
    world.split(&["c0".to_owned()], &[host(leader)]);
    // Connections last a little longer than the cable.
    world.run(3_500);
    let goal = world.book.answered_to(0) + 20;
    world.run_until(5_000, "answers to the client that does not reach the leader", |world| {
        world.book.answered_to(0) >= goal
    })?;
    if views(world) != before {
        return Err(format!("a view ended because one client does not reach the leader: {}", world.words()));
    }
    Ok(())
}
