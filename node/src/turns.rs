//! Queues by source, served in turns.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// See the module. A source that may not be served is set aside until it is called back, so that it is looked at once.
#[derive(Debug)]
pub(crate) struct Turns<K, J> {
    queues: BTreeMap<K, VecDeque<(J, usize)>>,
    /// The sources with something in their queue, the next one first.
    order: VecDeque<K>,
    /// Those of them that are set aside.
    aside: BTreeSet<K>,
}

impl<K: Copy + Ord, J> Turns<K, J> {
    pub(crate) fn new() -> Self {
        Self { queues: BTreeMap::new(), order: VecDeque::new(), aside: BTreeSet::new() }
    }

    /// Adds a job, of so many bytes, behind those of its source.
    pub(crate) fn push(&mut self, source: K, job: J, bytes: usize) {
        let queue = self.queues.entry(source).or_default();
        if queue.is_empty() {
            self.order.push_back(source);
        }
        queue.push_back((job, bytes));
    }

    /// The next job of the source whose turn it is; those that may not be served now are set aside.
    pub(crate) fn pop(&mut self, may: impl Fn(K) -> bool) -> Option<(K, J, usize)> {
        while let Some(source) = self.order.pop_front() {
            if !may(source) {
                self.aside.insert(source);
                continue;
            }
            let queue = self.queues.get_mut(&source)?;
            let (job, bytes) = queue.pop_front()?;
            if queue.is_empty() {
                self.queues.remove(&source);
            } else {
                self.order.push_back(source);
            }
            return Some((source, job, bytes));
        }
        None
    }

    /// A source that was set aside may perhaps be served again.
    pub(crate) fn call_back(&mut self, source: K) {
        if self.aside.remove(&source) {
            self.order.push_back(source);
        }
    }

    /// All that were set aside may perhaps be served again.
    pub(crate) fn call_all_back(&mut self) {
        self.order.extend(std::mem::take(&mut self.aside));
    }

    /// How many jobs of a source wait.
    pub(crate) fn waiting(&self, source: K) -> usize {
        self.queues.get(&source).map_or(0, VecDeque::len)
    }

    /// The sources of which something waits.
    pub(crate) fn sources(&self) -> impl Iterator<Item = K> + '_ {
        self.queues.keys().copied()
    }

    /// Whether something waits of a source that is not set aside and may be served.
    pub(crate) fn has_any(&self, may: impl Fn(K) -> bool) -> bool {
        self.order.iter().any(|source| may(*source))
    }

    /// Takes the newest job of a source out again.
    pub(crate) fn take_newest(&mut self, source: K) -> Option<(J, usize)> {
        let queue = self.queues.get_mut(&source)?;
        let newest = queue.pop_back();
        if queue.is_empty() {
            self.forget(source);
        }
        newest
    }

    /// Takes all that waits of a source.
    pub(crate) fn take(&mut self, source: K) -> VecDeque<(J, usize)> {
        let queue = self.queues.remove(&source).unwrap_or_default();
        self.forget(source);
        queue
    }

    fn forget(&mut self, source: K) {
        self.queues.remove(&source);
        self.order.retain(|other| *other != source);
        self.aside.remove(&source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(turns: &mut Turns<u8, u32>, may: impl Fn(u8) -> bool) -> Vec<(u8, u32)> {
        std::iter::from_fn(|| turns.pop(&may)).map(|(source, job, _)| (source, job)).collect()
    }

    #[test]
    fn sources_take_turns_and_each_is_served_in_order() {
        let mut turns = Turns::new();
        [(1, 10), (1, 11), (1, 12), (2, 20)].into_iter().for_each(|(source, job)| turns.push(source, job, 1));
        assert_eq!(of(&mut turns, |_| true), [(1, 10), (2, 20), (1, 11), (1, 12)]);
    }

    #[test]
    fn flood_one_who_may_not_be_served_is_set_aside_until_he_is_called_back() {
        let mut turns = Turns::new();
        [(1, 10), (2, 20), (3, 30), (1, 11)].into_iter().for_each(|(source, job)| turns.push(source, job, 1));
        assert_eq!(of(&mut turns, |source| source == 2), [(2, 20)]);
        turns.push(1, 12, 1);
        assert_eq!(of(&mut turns, |_| true), [], "nobody looks at those who were set aside");
        turns.call_back(1);
        assert_eq!(of(&mut turns, |_| true), [(1, 10), (1, 11), (1, 12)]);
        turns.call_all_back();
        assert_eq!(of(&mut turns, |_| true), [(3, 30)]);
    }

    #[test]
    fn what_is_taken_out_is_in_no_turn_any_more() {
        let mut turns = Turns::new();
        [(1, 10), (1, 11), (2, 20), (2, 21)].into_iter().for_each(|(source, job)| turns.push(source, job, 5));
        assert_eq!(turns.take_newest(1), Some((11, 5)));
        assert_eq!(turns.take_newest(1), Some((10, 5)));
        assert_eq!(turns.take_newest(1), None);
        assert_eq!(of(&mut turns, |_| false), []);
        assert_eq!((turns.waiting(2), turns.take(2).len()), (2, 2));
        turns.call_all_back();
        assert_eq!((of(&mut turns, |_| true), turns.sources().count()), (vec![], 0));
    }
}
