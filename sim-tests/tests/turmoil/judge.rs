//! What must hold at the end of every scenario, once everything is healed.

use polder_sim_tests::checkers::{exactly_once, linearizable};

use crate::load::{CALL_TIMEOUT, CLOSE_TIMEOUT, CONNECT_TIMEOUT};
use crate::world::{Outcome, World};

/// Answers within so long after the healing, in milliseconds: the last time-out, twice, and a handshake.
const PROGRESS_MS: u64 = 10_000;
/// All replicas agree and say that they are ready, in milliseconds.
const CONVERGENCE_MS: u64 = 10_000;
/// Fewer answered commands, or cuts, show nothing.
const ANSWERS_MIN: usize = 40;
const CUTS_MIN: usize = 2;

/// Heals the world, and judges it.
pub(crate) fn judge(world: &mut World) -> Outcome {
    world.heal();
    world.run_until_answered(PROGRESS_MS, 20, "after the healing")?;
    world.book.stop();
    let longest = CONNECT_TIMEOUT + CALL_TIMEOUT + CLOSE_TIMEOUT;
    let longest_ms = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX) + 500;
    world.run_until(longest_ms, "end of all calls", |world| world.book.under_way() == 0)?;
    world.read_all();
    world.run_until(longest_ms, "end of the last reads", |world| world.book.under_way() == 0)?;
    world.run_until(CONVERGENCE_MS, "agreement of all, ready", has_converged)?;
    for id in world.ids() {
        world.judge_accusations(id);
    }
    let complaints = world.book.complaints();
    if let Some(first) = complaints.first() {
        return Err(format!("{first} ({} complaints)", complaints.len()));
    }
    let (history, not_executed) = world.book.history();
    linearizable::check(&history).map_err(|violation| violation.to_string())?;
    exactly_once::check(&history).map_err(|violation| violation.to_string())?;
    let executed = not_executed.iter().find(|id| history.lists.values().any(|list| list.contains(id)));
    if let Some(id) = executed {
        return Err(format!("a client said of {id} that it was certainly not executed, and it was"));
    }
    let (answered, cuts) = (world.book.answered(), world.cuts());
    if answered < ANSWERS_MIN || cuts < CUTS_MIN {
        return Err(format!("void: only {answered} commands were answered and {cuts} cuts certified"));
    }
    Ok(())
}

/// Whether all replicas have executed the same, hold the same certified root, and say that they are ready.
fn has_converged(world: &World) -> bool {
    let reports = world.reports();
    let same = |report: &polder_node::Report| {
        let status = &report.status;
        (status.executed, status.history, status.certified, status.root)
    };
    reports.len() == world.ids().len()
        && reports.windows(2).all(|pair| same(&pair[0]) == same(&pair[1]))
        && reports.iter().all(|report| report.ready().is_ok())
}
