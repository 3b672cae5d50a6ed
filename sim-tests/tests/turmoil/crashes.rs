//! Machines that lose their power, stand still, or come back all at once.

use std::collections::BTreeSet;

use crate::load::CALL_TIMEOUT;
use crate::machine::DISK_RESERVE_BYTES;
use crate::world::{Outcome, World};

/// One replica after the other loses its power under load, now and then in the middle of what it writes; what its disks
/// had not synced is lost in part. The others go on, and it comes back from what it remembers.
pub(crate) fn crash_and_bounce(world: &mut World) -> Outcome {
    for _ in 0..4 {
        let who = world.somebody();
        if world.random.chance(500) {
            let (nth, is_log) = (world.random.range(1, 40), world.random.chance(600));
            world.doom(who);
            let replica = world.replica(who);
            let disk = if is_log { &replica.log } else { &replica.state };
            disk.fail_at(nth);
            world.run_until(15_000, "write that fails", |world| !world.is_on(who))?;
        } else {
            world.crash(who);
        }
        world.run_until_answered(8_000, 5, "while one replica is down")?;
        let ms = world.random.range(0, 4_000);
        world.run(ms);
        world.start(who);
        let ms = world.random.range(500, 1_500);
        world.run(ms);
    }
    Ok(())
}

/// All replicas lose their power at one moment, twice, and come back one after the other, in any order.
pub(crate) fn all_down_and_up(world: &mut World) -> Outcome {
    for _ in 0..2 {
        let ms = world.random.range(500, 2_500);
        world.run(ms);
        let mut ids = world.ids();
        ids.iter().for_each(|id| world.crash(*id));
        world.random.shuffle(&mut ids);
        // Longer than a call may take: then nobody knows what became of it.
        if world.random.chance(500) {
            world.run(CALL_TIMEOUT.as_millis() as u64);
        }
        for id in ids {
            let ms = world.random.range(0, 1_500);
            world.run(ms);
            world.start(id);
        }
        world.run_until_answered(10_000, 5, "after all were down")?;
    }
    Ok(())
}

/// The leader stands still, as SIGSTOP makes it, for up to 15 s, and goes on as if nothing had happened. Meanwhile the
/// others choose another.
pub(crate) fn leader_paused(world: &mut World) -> Outcome {
    for _ in 0..2 {
        world.run(1_000);
        let leader = world.leader();
        world.replica(leader).machine.pause();
        let ms =
            if world.random.chance(300) { world.random.range(200, 1_500) } else { world.random.range(3_000, 15_000) };
        if ms >= 3_000 {
            world.run(2_500);
            world.run_until_answered(ms - 2_500 + 3_000, 5, "while the leader stands still")?;
        } else {
            world.run(ms);
        }
        world.replica(leader).machine.resume();
        world.run_until_answered(5_000, 5, "after the leader goes on")?;
    }
    Ok(())
}

/// The wall clock of one replica, often the leader's, leaps by an hour or by a day, forwards or back; while it is wrong the
/// replica may restart; then it leaps back. So does a client's, which connects meanwhile. Others are neither stopped nor
/// misled: a time that is ahead is held, one that stays behind costs a leader its place (R27), and nobody's session
/// expires (the judge reads all back).
pub(crate) fn clocks(world: &mut World) -> Outcome {
    const HOUR_MS: i64 = 3_600_000;
    for _ in 0..4 {
        let who = world.somebody();
        let by_ms = world.random.pick(&[HOUR_MS, -HOUR_MS, 24 * HOUR_MS, -24 * HOUR_MS]).copied().unwrap_or(HOUR_MS);
        world.replica(who).machine.shift_clock(by_ms);
        let ms = world.random.range(0, 3_000);
        world.run(ms);
        world.run_until_answered(15_000, 10, "while a replica's clock is wrong")?;
        if world.random.chance(400) {
            world.crash(who);
            let ms = world.random.range(0, 1_000);
            world.run(ms);
            world.start(who);
        }
        let client = world.random.below(world.clients.len());
        world.clients[client].shift_clock(by_ms);
        world.crash_client(client);
        world.start_client(client);
        world.run_until_answered(15_000, 10, "while a client's clock is wrong too")?;
        world.replica(who).machine.shift_clock(-by_ms);
        world.clients[client].shift_clock(-by_ms);
        world.run_until_answered(15_000, 10, "after the clocks leaped back")?;
    }
    Ok(())
}

/// Disks get short of space, the leader's first and in the end those of more than may fail, and get it back. Nobody ends:
/// while a quorum has space, clients are answered; when none has, they are told so, and answered once there is some.
pub(crate) fn short_of_space(world: &mut World) -> Outcome {
    let leader = world.leader();
    world.replica(leader).state.set_free_bytes(Some(DISK_RESERVE_BYTES - 1));
    world.run(1_500);
    world.run_until_answered(8_000, 10, "while the leader's disk is short of space")?;
    for id in world.ids() {
        let replica = world.replica(id);
        let disk = if id.0 % 2 == 0 { &replica.log } else { &replica.state };
        disk.set_free_bytes(Some(0));
    }
    let ms = world.random.range(1_500, 6_000);
    world.run(ms);
    for id in world.ids() {
        let report = world.replica(id).report().ok_or_else(|| format!("{id} has ended"))?;
        let why = report.checks().into_iter().find(|check| check.name == "disk-space").map(|check| check.outcome);
        if !matches!(why, Some(Err(_))) {
            return Err(format!("{id} does not say that it is short of space"));
        }
    }
    let mut ids = world.ids();
    world.random.shuffle(&mut ids);
    for id in ids {
        let replica = world.replica(id);
        [&replica.log, &replica.state].iter().for_each(|disk| disk.set_free_bytes(Some(2 * DISK_RESERVE_BYTES)));
        let ms = world.random.range(0, 1_500);
        world.run(ms);
    }
    world.run_until_answered(8_000, 10, "after there is space again")
}

/// Clients that come and go all the time, links that break and mend faster than connections notice, and all replicas
/// back at one moment: everybody connects to everybody at once.
pub(crate) fn reconnect_storm(world: &mut World) -> Outcome {
    for _ in 0..30 {
        let client = world.random.below(world.clients.len());
        world.crash_client(client);
        world.start_client(client);
        if world.random.chance(500) {
            let all = world.all_but(&[]);
            let one = world.random.below(all.len());
            let other = world.random.below(all.len());
            world.split(&all[one..=one], &all[other..=other]);
        }
        if world.random.chance(300) {
            world.release();
        }
        let ms = world.random.range(50, 300);
        world.run(ms);
    }
    world.release();
    let ids: BTreeSet<_> = world.ids().into_iter().collect();
    ids.iter().for_each(|id| world.crash(*id));
    world.run(200);
    ids.iter().for_each(|id| world.start(*id));
    world.run_until_answered(8_000, 10, "after the storm")
}
