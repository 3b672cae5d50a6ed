//! One budget in bytes for what waits to be sent on many connections: where it is used up, whoever is slowest goes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes that all who hold an [`Account`] may hold together.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    bytes: usize,
    next: u64,
    holders: BTreeMap<u64, Holder>,
}

/// What ends a holder.
type End = Box<dyn FnOnce() + Send>;

struct Holder {
    bytes: usize,
    end: End,
}

impl fmt::Debug for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Holder").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// A holder's share of a budget; dropped, it holds nothing.
#[derive(Debug)]
pub(crate) struct Account {
    budget: Arc<Budget>,
    id: u64,
}

impl Budget {
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, state: Mutex::default() })
    }

    /// A new holder; `end` is called, once, when it is the one that holds most of a budget that is used up. What it
    /// holds counts no more from then on.
    pub(crate) fn open(self: &Arc<Self>, end: impl FnOnce() + Send + 'static) -> Account {
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        state.holders.insert(id, Holder { bytes: 0, end: Box::new(end) });
        Account { budget: Arc::clone(self), id }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn remove(&mut self, id: u64) -> Option<End> {
        let holder = self.holders.remove(&id)?;
        self.bytes = self.bytes.saturating_sub(holder.bytes);
        Some(holder.end)
    }

    /// Takes out the holders of most until the budget suffices.
    fn relieve(&mut self, bytes_max: usize) -> Vec<End> {
        let mut ends = Vec::new();
        while self.bytes > bytes_max {
            let most = self.holders.iter().max_by_key(|(_, holder)| holder.bytes).map(|(id, _)| *id);
            let Some(end) = most.and_then(|most| self.remove(most)) else { break };
            ends.push(end);
        }
        ends
    }
}

impl Account {
    /// So many bytes more are held.
    pub(crate) fn add(&self, bytes: usize) {
        let ends = {
            let mut state = self.budget.state();
            // Who was ended counts no more.
            let Some(holder) = state.holders.get_mut(&self.id) else { return };
            holder.bytes += bytes;
            state.bytes += bytes;
            state.relieve(self.budget.bytes_max)
        };
        ends.into_iter().for_each(|end| end());
    }

    /// So many bytes are held no more.
    pub(crate) fn remove(&self, bytes: usize) {
        let mut state = self.budget.state();
        let Some(holder) = state.holders.get_mut(&self.id) else { return };
        holder.bytes = holder.bytes.saturating_sub(bytes);
        state.bytes = state.bytes.saturating_sub(bytes);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        // What ends it is dropped after the lock.
        let _end = self.budget.state().remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn account(budget: &Arc<Budget>) -> (Account, Arc<AtomicUsize>) {
        let ended = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&ended);
        (
            budget.open(move || {
                count.fetch_add(1, Ordering::Relaxed);
            }),
            ended,
        )
    }

    #[test]
    fn whoever_holds_most_is_ended_when_the_budget_is_used_up() {
        let budget = Budget::new(100);
        let ((slow, slow_ended), (quick, quick_ended)) = (account(&budget), account(&budget));
        slow.add(60);
        quick.add(40);
        assert_eq!(slow_ended.load(Ordering::Relaxed), 0);
        quick.add(1);
        assert_eq!((slow_ended.load(Ordering::Relaxed), quick_ended.load(Ordering::Relaxed)), (1, 0));
        // It counts no more, whatever it does.
        slow.add(1_000);
        slow.remove(7);
        assert_eq!(budget.state().bytes, 41);
        quick.add(59);
        assert_eq!(quick_ended.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_is_sent_or_dropped_is_given_back() {
        let budget = Budget::new(100);
        let ((first, _), (second, ended)) = (account(&budget), account(&budget));
        first.add(90);
        first.remove(50);
        second.add(60);
        drop(first);
        second.add(40);
        assert_eq!((budget.state().bytes, ended.load(Ordering::Relaxed)), (100, 0));
        drop(second);
        assert_eq!(budget.state().bytes, 0);
        assert!(budget.state().holders.is_empty());
    }
}
