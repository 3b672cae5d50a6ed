//! One budget in bytes for what waits on many connections, to be sent or to be read: where it is used up, whoever holds
//! most for longest goes. Who that is goes by keys and by how long nothing of it has moved: many connections that read
//! nothing, of few keys or of many, must not end one that was just sent a large frame.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use polder_types::PublicKey;
use tokio::time::Instant;

/// The budgets of all connections from clients.
#[derive(Debug)]
pub(crate) struct Budgets {
    /// For what waits to be sent.
    pub(crate) sending: Arc<Budget>,
    /// For what was received and not yet read: whole frames, and the beginnings of frames.
    pub(crate) receiving: Arc<Budget>,
}

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
    key: PublicKey,
    bytes: usize,
    /// When it began to hold something, or something of it left last.
    moved: Instant,
    end: End,
}

impl Holder {
    /// What it holds, times how long nothing of that has moved, in byte milliseconds.
    fn weight(&self, now: Instant) -> u128 {
        self.bytes as u128 * now.saturating_duration_since(self.moved).as_millis()
    }
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

    /// A new holder; `end` is called, once, when the budget is used up, the holders of this key hold most of it for longest
    /// together, and this one most of that. What it holds counts no more from then on.
    pub(crate) fn open(self: &Arc<Self>, key: PublicKey, end: impl FnOnce() + Send + 'static) -> Account {
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        state.holders.insert(id, Holder { key, bytes: 0, moved: Instant::now(), end: Box::new(end) });
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

    /// The heaviest holder of the key whose holders weigh most; where nothing has had time to move, bytes decide.
    fn most(&self) -> Option<u64> {
        let now = Instant::now();
        let weigh = |holder: &Holder| (holder.weight(now), holder.bytes);
        let mut of_key: BTreeMap<PublicKey, (u128, usize)> = BTreeMap::new();
        for holder in self.holders.values() {
            let (weight, bytes) = weigh(holder);
            let total = of_key.entry(holder.key).or_default();
            *total = (total.0 + weight, total.1 + bytes);
        }
        let total = |holder: &Holder| of_key.get(&holder.key).copied().unwrap_or_default();
        let most = self.holders.iter().max_by_key(|(_, holder)| (total(holder), holder.key, weigh(holder)));
        most.map(|(id, _)| *id)
    }

    /// Takes out the holders of most until the budget suffices.
    fn relieve(&mut self, bytes_max: usize) -> Vec<End> {
        let mut ends = Vec::new();
        while self.bytes > bytes_max {
            let Some(end) = self.most().and_then(|most| self.remove(most)) else { break };
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
            if holder.bytes == 0 {
                holder.moved = Instant::now();
            }
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
        holder.moved = Instant::now();
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

    fn account(budget: &Arc<Budget>, key: u8) -> (Account, Arc<AtomicUsize>) {
        let ended = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&ended);
        (
            budget.open(PublicKey([key; 32]), move || {
                count.fetch_add(1, Ordering::Relaxed);
            }),
            ended,
        )
    }

    #[test]
    fn whoever_holds_most_is_ended_when_the_budget_is_used_up() {
        let budget = Budget::new(100);
        let ((slow, slow_ended), (quick, quick_ended)) = (account(&budget, 1), account(&budget, 2));
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
        let ((first, _), (second, ended)) = (account(&budget, 1), account(&budget, 2));
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

    #[test]
    fn many_slow_connections_of_few_keys_do_not_end_who_reads() {
        let budget = Budget::new(256 << 20);
        let flood: Vec<_> = (0..512u16).map(|index| account(&budget, (index % 8) as u8)).collect();
        flood.iter().for_each(|(account, _)| account.add(512 << 10));
        for _ in 0..100 {
            let (honest, ended) = account(&budget, 100);
            honest.add(1 << 20);
            assert_eq!(ended.load(Ordering::Relaxed), 0);
            honest.remove(1 << 20);
        }
        let ended: usize = flood.iter().map(|(_, ended)| ended.load(Ordering::Relaxed)).sum();
        assert_eq!(ended, 2, "as few as make room");
    }

    /// Also not where each of them has a key of its own, and holds less than one large frame.
    #[test]
    fn many_slow_keys_do_not_end_who_reads() {
        let budget = Budget::new(256 << 20);
        let key = |index: u16| {
            let mut key = [0; 32];
            key[..2].copy_from_slice(&index.to_le_bytes());
            PublicKey(key)
        };
        let flood: Vec<_> = (0..1_000u16).map(|index| budget.open(key(index), || {})).collect();
        flood.iter().for_each(|account| account.add((256 << 20) / 1_000));
        // They have stood for a minute.
        let before = Instant::now().checked_sub(std::time::Duration::from_secs(60)).expect("a clock that runs");
        budget.state().holders.values_mut().for_each(|holder| holder.moved = before);
        let ended = Arc::new(AtomicUsize::new(0));
        for _ in 0..100 {
            let count = Arc::clone(&ended);
            let honest = budget.open(key(5_000), move || {
                count.fetch_add(1, Ordering::Relaxed);
            });
            honest.add(1 << 20);
            honest.remove(1 << 20);
        }
        assert_eq!(ended.load(Ordering::Relaxed), 0, "times that the one who reads was ended");
    }
}
