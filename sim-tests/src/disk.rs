//! A disk: writes reach it after a while, survive a crash only once synced, and a crash may tear what is not.

use std::collections::VecDeque;
use std::sync::Arc;

use polder_checkpoint::{Durability, MemStore, Store as _, StoreError, Writes};

use crate::random::Random;
use crate::swarm::DiskOptions;

/// One of the two disks of a replica. First in, first out.
#[derive(Debug)]
pub struct Disk {
    store: Arc<MemStore>,
    waiting: VecDeque<Pending>,
    running: Vec<Pending>,
    done: Option<u64>,
    submitted: Option<u64>,
}

#[derive(Debug)]
struct Pending {
    writes: Writes,
    durability: Durability,
    ticket: u64,
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            store: Arc::new(MemStore::new()),
            waiting: VecDeque::new(),
            running: Vec::new(),
            done: None,
            submitted: None,
        }
    }
}

impl Disk {
    /// The store on it, as a replica reads it when it starts.
    #[must_use]
    pub fn store(&self) -> &Arc<MemStore> {
        &self.store
    }

    /// Queues a write.
    pub fn submit(&mut self, writes: Writes, durability: Durability, ticket: u64) {
        self.submitted = Some(ticket);
        self.waiting.push_back(Pending { writes, durability, ticket });
    }

    /// The last ticket submitted since the last crash.
    #[must_use]
    pub fn submitted(&self) -> Option<u64> {
        self.submitted
    }

    /// The last ticket done since the last crash.
    #[must_use]
    pub fn done(&self) -> Option<u64> {
        self.done
    }

    /// Starts on what waits, if nothing runs: some or all of it as one. Returns how long it takes; [`Disk::finish`] is
    /// due then.
    ///
    /// # Errors
    ///
    /// When the store fails.
    pub fn start(&mut self, random: &mut Random, options: &DiskOptions) -> Result<Option<u64>, StoreError> {
        if !self.running.is_empty() || self.waiting.is_empty() {
            return Ok(None);
        }
        let count = if random.chance(800) { self.waiting.len() } else { 1 + random.below(self.waiting.len()) };
        for pending in self.waiting.drain(..count) {
            // In the cache of the machine from now on: a crash keeps any prefix of it.
            self.store.apply(&pending.writes, Durability::Lazy)?;
            self.running.push(pending);
        }
        if !self.running.iter().any(|pending| pending.durability == Durability::Synced) {
            return Ok(Some(1 + random.range(0, 20)));
        }
        let stall_us = if random.chance(options.stall_per_mille) { options.stall_us } else { 0 };
        Ok(Some(options.sync_us_min + random.around(options.sync_us_mean) + stall_us))
    }

    /// Ends what runs, with one sync if any of it asked for one. Returns the tickets that are done, in order.
    ///
    /// # Errors
    ///
    /// When the store fails.
    pub fn finish(&mut self) -> Result<Vec<u64>, StoreError> {
        if self.running.iter().any(|pending| pending.durability == Durability::Synced) {
            self.store.apply(&Writes::new(), Durability::Synced)?;
        }
        let tickets: Vec<u64> = self.running.drain(..).map(|pending| pending.ticket).collect();
        self.done = tickets.last().copied().or(self.done);
        Ok(tickets)
    }

    /// The machine crashes: what waited is gone, and of what was not synced any prefix survives, whole writes each.
    pub fn crash(&mut self, random: &mut Random) {
        self.waiting.clear();
        self.running.clear();
        self.done = None;
        self.submitted = None;
        let unsynced = self.store.unsynced();
        let keep = match random.range(0, 2) {
            0 => 0,
            1 => unsynced,
            _ => random.range(0, unsynced as u64) as usize,
        };
        self.store.crash(keep);
    }
}

#[cfg(test)]
mod tests {
    use polder_checkpoint::Family;

    use super::*;
    use crate::random::Purpose;

    fn options() -> DiskOptions {
        DiskOptions { sync_us_min: 10, sync_us_mean: 10, stall_per_mille: 0, stall_us: 0, digest_us_max: 0 }
    }

    fn put(value: u8) -> Writes {
        let mut writes = Writes::new();
        writes.put(Family::Log, vec![value], vec![value]);
        writes
    }

    fn rows(disk: &Disk) -> usize {
        disk.store().rows(Family::Log).len()
    }

    #[test]
    fn what_is_finished_survives_and_what_is_not_survives_as_a_prefix() {
        for seed in 0..50 {
            let mut random = Random::new(seed, Purpose::Disk);
            let mut disk = Disk::default();
            disk.submit(put(1), Durability::Synced, 1);
            assert!(disk.start(&mut random, &options()).is_ok_and(|due| due.is_some()));
            assert_eq!(disk.finish(), Ok(vec![1]));
            for ticket in 2..6 {
                disk.submit(put(ticket), Durability::Synced, ticket.into());
            }
            assert!(disk.start(&mut random, &options()).is_ok());
            disk.crash(&mut random);
            let kept = rows(&disk);
            assert!((1..=5).contains(&kept));
            assert!((1..=kept as u8).all(|value| disk.store().get(Family::Log, &[value]) == Ok(Some(vec![value]))));
            assert_eq!(disk.store().unsynced(), 0);
        }
    }

    #[test]
    fn a_lazy_write_is_done_without_a_sync_and_may_be_lost() {
        let mut lost = 0;
        for seed in 0..50 {
            let mut random = Random::new(seed, Purpose::Disk);
            let mut disk = Disk::default();
            disk.submit(put(1), Durability::Lazy, 1);
            assert!(disk.start(&mut random, &options()).is_ok());
            assert_eq!(disk.finish(), Ok(vec![1]));
            disk.crash(&mut random);
            lost += usize::from(rows(&disk) == 0);
        }
        assert!((10..50).contains(&lost));
    }
}
