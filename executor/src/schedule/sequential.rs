//! One task after the other, in order: the reference.

use std::collections::VecDeque;

use super::{Scheduler, TaskId, WorkerId};
use crate::footprint::Declared;

/// Runs every task alone, in order.
#[derive(Debug, Default)]
pub(crate) struct Sequential {
    waiting: VecDeque<TaskId>,
    running: Option<TaskId>,
}

impl Scheduler for Sequential {
    fn enqueue(&mut self, task: TaskId, _: &Declared) {
        self.waiting.push_back(task);
    }

    fn next(&mut self, _: WorkerId) -> Option<TaskId> {
        if self.running.is_none() {
            self.running = self.waiting.pop_front();
            return self.running;
        }
        None
    }

    fn finished(&mut self, task: TaskId) {
        assert_eq!(self.running.take(), Some(task), "only the task that was handed out can have run");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Footprint;

    #[test]
    fn tasks_run_in_order_and_never_two_at_once() {
        let mut scheduler = Sequential::default();
        let footprint = Declared::new(Footprint::default());
        (0..3).for_each(|task| scheduler.enqueue(TaskId(task), &footprint));
        for task in 0..3 {
            assert_eq!(scheduler.next(WorkerId(0)), Some(TaskId(task)));
            assert_eq!(scheduler.next(WorkerId(1)), None);
            scheduler.finished(TaskId(task));
        }
        assert_eq!(scheduler.next(WorkerId(0)), None);
    }
}
