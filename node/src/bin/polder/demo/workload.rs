//! A mixed workload that knows what it was told: every acknowledged write is in its ledger.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use polder_kv::{CallError, KvClient};

use crate::random::Random;

/// Keys that one writer writes, alone.
const KEYS_PER_WRITER: u64 = 32;
/// The key that all writers increment.
pub(super) const COUNTER: &[u8] = b"demo/counter";

/// When writes were acknowledged, over all writers.
pub(super) struct Pulse(Mutex<Beats>);

#[derive(Clone, Copy)]
struct Beats {
    last: Instant,
    longest: Duration,
}

impl Beats {
    fn beat(&mut self, now: Instant) {
        *self = Self { last: now, longest: self.gap(now) };
    }

    /// The longest time without a beat, the one that lasts included.
    fn gap(&self, now: Instant) -> Duration {
        self.longest.max(now.saturating_duration_since(self.last))
    }
}

impl Pulse {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Beats { last: Instant::now(), longest: Duration::ZERO }))
    }

    /// Starts to look for the longest time without an acknowledged write.
    pub(super) fn watch(&self) {
        *self.beats() = Beats { last: Instant::now(), longest: Duration::ZERO };
    }

    fn beat(&self) {
        self.beats().beat(Instant::now());
    }

    /// The longest time without an acknowledged write since [`Pulse::watch`].
    pub(super) fn gap(&self) -> Duration {
        self.beats().gap(Instant::now())
    }

    fn beats(&self) -> MutexGuard<'_, Beats> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one key's only writer knows of it.
#[derive(Clone, Debug, Default)]
struct Row {
    /// Writes that were acknowledged.
    acknowledged: u64,
    /// What the last one of them wrote.
    value: Vec<u8>,
    /// What was written with unknown outcome; the key is left alone from then on.
    unknown: Option<Vec<u8>>,
}

/// What one writer was told.
pub(super) struct Ledger {
    writer: u64,
    rows: Vec<Row>,
    /// Increments of the counter that were acknowledged, and those of unknown outcome.
    increments: (u64, u64),
    /// Commands that were answered, of any kind.
    pub(super) answered: u64,
    /// Reads that did not return the last acknowledged write.
    stale: u64,
}

/// What is wrong with what is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Faults {
    pub(super) lost: u64,
    pub(super) twice: u64,
}

fn key(writer: u64, row: usize) -> Vec<u8> {
    format!("demo/{writer:03}/{row:03}").into_bytes()
}

/// Writes and reads until told to stop.
pub(super) async fn write(writer: u64, kv: KvClient, stop: &AtomicBool, pulse: &Pulse) -> anyhow::Result<Ledger> {
    let mut random = Random::new()?;
    let rows = vec![Row::default(); usize::try_from(KEYS_PER_WRITER)?];
    let mut ledger = Ledger { writer, rows, increments: (0, 0), answered: 0, stale: 0 };
    while !stop.load(Ordering::Relaxed) {
        let at = usize::try_from(random.below(KEYS_PER_WRITER))?;
        match random.below(10) {
            0..4 => ledger.put(at, &kv, pulse).await?,
            4..6 => ledger.compare_and_swap(at, &kv, pulse).await?,
            6..9 => ledger.read(at, &kv).await?,
            _ => ledger.increment(&kv, pulse).await?,
        }
    }
    Ok(ledger)
}

impl Ledger {
    fn settle(
        &mut self,
        at: usize,
        value: Vec<u8>,
        called: Result<bool, CallError>,
        pulse: &Pulse,
    ) -> anyhow::Result<()> {
        let Some(row) = self.rows.get_mut(at) else { return Ok(()) };
        match called {
            Ok(true) => {
                row.acknowledged += 1;
                row.value = value;
                self.answered += 1;
                pulse.beat();
            }
            // Nobody else writes this key: what was acknowledged is not there.
            Ok(false) => self.stale += 1,
            Err(error) if error.is_outcome_unknown() => row.unknown = Some(value),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn row(&self, at: usize) -> Option<Row> {
        self.rows.get(at).filter(|row| row.unknown.is_none()).cloned()
    }

    async fn put(&mut self, at: usize, kv: &KvClient, pulse: &Pulse) -> anyhow::Result<()> {
        let Some(row) = self.row(at) else { return Ok(()) };
        let value = format!("write {} of writer {}", row.acknowledged + 1, self.writer).into_bytes();
        let called = kv.put(&key(self.writer, at), &value).await.map(|_| true);
        self.settle(at, value, called, pulse)
    }

    async fn compare_and_swap(&mut self, at: usize, kv: &KvClient, pulse: &Pulse) -> anyhow::Result<()> {
        let Some(row) = self.row(at).filter(|row| row.acknowledged > 0) else { return Ok(()) };
        let value = format!("swap {} of writer {}", row.acknowledged + 1, self.writer).into_bytes();
        let called =
            kv.compare_and_swap(&key(self.writer, at), Some(&row.value), &value).await.map(|swapped| swapped.is_ok());
        self.settle(at, value, called, pulse)
    }

    async fn read(&mut self, at: usize, kv: &KvClient) -> anyhow::Result<()> {
        let Some(row) = self.row(at) else { return Ok(()) };
        match kv.get(&key(self.writer, at)).await {
            Ok(item) => {
                self.answered += 1;
                let is_current = item.map(|item| item.value.to_vec()).unwrap_or_default() == row.value;
                self.stale += u64::from(!is_current);
                Ok(())
            }
            Err(error) if error.is_outcome_unknown() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the counter and swaps it for one more, until nobody was faster.
    async fn increment(&mut self, kv: &KvClient, pulse: &Pulse) -> anyhow::Result<()> {
        loop {
            let old = match kv.get(COUNTER).await {
                Ok(item) => item.map(|item| item.value.to_vec()),
                Err(error) if error.is_outcome_unknown() => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let new = (number(old.as_deref()) + 1).to_string().into_bytes();
            match kv.compare_and_swap(COUNTER, old.as_deref(), &new).await {
                Ok(Ok(_)) => {
                    self.increments.0 += 1;
                    self.answered += 2;
                    pulse.beat();
                    return Ok(());
                }
                Ok(Err(_)) => self.answered += 2,
                Err(error) if error.is_outcome_unknown() => {
                    self.increments.1 += 1;
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads every key back. Each was written by one writer alone: its version is the number of writes executed.
    pub(super) async fn verify(&self, kv: &KvClient) -> anyhow::Result<Faults> {
        let prefix = format!("demo/{:03}/", self.writer).into_bytes();
        let mut found = BTreeMap::new();
        let mut from = Some(prefix.clone());
        while let Some(first) = from.take() {
            let page = kv.prefix_after(&prefix, &first, 0).await?;
            found.extend(page.entries.into_iter().map(|entry| (entry.key.to_vec(), entry)));
            from = page.next.map(|next| next.to_vec());
        }
        let mut faults = Faults { lost: self.stale, twice: 0 };
        for (at, row) in self.rows.iter().enumerate() {
            let entry = found.get(&key(self.writer, at));
            let value = entry.map_or(&[][..], |entry| &entry.value);
            faults += row.compare(value, entry.map_or(0, |entry| entry.revision.version));
        }
        Ok(faults)
    }
}

impl std::ops::AddAssign for Faults {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.twice += other.twice;
    }
}

impl Row {
    fn compare(&self, value: &[u8], version: u64) -> Faults {
        let is_there = value == self.value || self.unknown.as_deref() == Some(value);
        let most = self.acknowledged + u64::from(self.unknown.is_some());
        Faults {
            lost: u64::from(!is_there).max(self.acknowledged.saturating_sub(version)),
            twice: version.saturating_sub(most),
        }
    }
}

/// Compares the counter with all increments.
pub(super) async fn verify_counter(ledgers: &[Ledger], kv: &KvClient) -> anyhow::Result<Faults> {
    let item = kv.get(COUNTER).await?;
    let counted = number(item.as_ref().map(|item| &*item.value));
    let acknowledged: u64 = ledgers.iter().map(|ledger| ledger.increments.0).sum();
    let unknown: u64 = ledgers.iter().map(|ledger| ledger.increments.1).sum();
    Ok(Faults { lost: acknowledged.saturating_sub(counted), twice: counted.saturating_sub(acknowledged + unknown) })
}

fn number(value: Option<&[u8]>) -> u64 {
    value.and_then(|value| std::str::from_utf8(value).ok()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The demo's verdict rests on it: a lost write and a write executed twice are both seen.
    #[test]
    fn a_lost_write_and_a_second_execution_are_seen() {
        let row = Row { acknowledged: 3, value: b"c".to_vec(), unknown: None };
        assert_eq!(row.compare(b"c", 3), Faults::default());
        assert_eq!(row.compare(b"b", 2), Faults { lost: 1, twice: 0 });
        assert_eq!(row.compare(b"", 0), Faults { lost: 3, twice: 0 });
        assert_eq!(row.compare(b"c", 4), Faults { lost: 0, twice: 1 });
        let open = Row { unknown: Some(b"d".to_vec()), ..row };
        assert_eq!(open.compare(b"c", 3), Faults::default());
        assert_eq!(open.compare(b"d", 4), Faults::default());
        assert_eq!(open.compare(b"d", 5), Faults { lost: 0, twice: 1 });
    }

    #[test]
    fn the_longest_gap_is_found_also_while_it_lasts() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut beats = Beats { last: start, longest: Duration::ZERO };
        [10, 900, 910].into_iter().for_each(|ms| beats.beat(at(ms)));
        assert_eq!(beats.gap(at(920)), Duration::from_millis(890));
        assert_eq!(beats.gap(at(2_910)), Duration::from_millis(2_000));
    }
}
