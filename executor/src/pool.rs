//! Who runs what the scheduler hands out: for now the caller itself (`workers = 0`), which is what simulations drive.

use crate::schedule::{Scheduler, TaskId, WorkerId};

/// Runs tasks on the caller's thread until the scheduler has none.
pub(crate) fn run_inline(scheduler: &mut dyn Scheduler, mut run: impl FnMut(TaskId)) {
    while let Some(task) = scheduler.next(WorkerId(0)) {
        run(task);
        scheduler.finished(task);
    }
}
