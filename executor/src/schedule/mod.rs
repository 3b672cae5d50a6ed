//! Who decides what may run now. Pure: a scheduler sees footprints, never the state, threads or time; every one gives
//! exactly the result of running the commands one after the other.

mod sequential;

pub(crate) use sequential::Sequential;

use crate::footprint::Declared;

/// A task of the slot that is being executed, by its place among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TaskId(pub(crate) usize);

/// One of those that run tasks; 0 is the one that the executor runs on itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WorkerId(pub(crate) usize);

/// Decides which task runs next. Tasks are enqueued in their order; one that was handed out is finished later by the
/// one that took it.
pub(crate) trait Scheduler: Send + std::fmt::Debug {
    /// Takes in the next task of the order.
    fn enqueue(&mut self, task: TaskId, footprint: &Declared);

    /// A task that this worker may run now; none when there is none, or none yet.
    fn next(&mut self, worker: WorkerId) -> Option<TaskId>;

    /// A task that was handed out has run.
    fn finished(&mut self, task: TaskId);
}
