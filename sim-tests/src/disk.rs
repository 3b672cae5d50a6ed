//! A disk: writes reach it after a while, survive a crash only once synced, and a crash may tear what is not. It may be
//! slow, stall, be full, and fail a write or a sync; whoever runs on it then ends (R19).

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
    /// How many times longer than others it takes.
    pub slowness: u64,
    /// Nothing that is begun ends before this time.
    pub stalled_until_us: u64,
    /// What is wrong with it.
    pub trouble: Option<Trouble>,
}

/// What is wrong with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The next write fails.
    Write,
    /// The next sync fails: what it was to sync may have reached the disk or not.
    Sync,
    /// There is no space left until somebody gives some back.
    Full {
        /// When.
        until_us: u64,
    },
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
            slowness: 1,
            stalled_until_us: 0,
            trouble: None,
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
    pub fn start(
        &mut self,
        now_us: u64,
        random: &mut Random,
        options: &DiskOptions,
    ) -> Result<Option<u64>, StoreError> {
        if !self.running.is_empty() || self.waiting.is_empty() {
            return Ok(None);
        }
        let refused = self.refused(now_us);
        let count = if random.chance(800) { self.waiting.len() } else { 1 + random.below(self.waiting.len()) };
        for pending in self.waiting.drain(..count) {
            // In the cache of the machine from now on: a crash keeps any prefix of it.
            self.store.apply(&pending.writes, Durability::Lazy)?;
            self.running.push(pending);
            if refused.is_err() && random.chance(500) {
                break;
            }
        }
        if refused.is_err() {
            // Nothing follows a write that failed: the log has no holes.
            self.waiting.clear();
        }
        refused?;
        if !self.running.iter().any(|pending| pending.durability == Durability::Synced) {
            return Ok(Some(1 + random.range(0, 20)));
        }
        let stall_us = if random.chance(options.stall_per_mille) { options.stall_us } else { 0 };
        let sync_us = self.slowness * (options.sync_us_min + random.around(options.sync_us_mean));
        // A stall of the whole disk is looked at when this would be done.
        Ok(Some(sync_us + stall_us))
    }

    /// Whether there is no space left on it.
    #[must_use]
    pub fn is_full(&self, now_us: u64) -> bool {
        matches!(self.trouble, Some(Trouble::Full { until_us }) if now_us < until_us)
    }

    /// Whether it refuses a write now; one that fails fails once.
    ///
    /// # Errors
    ///
    /// When it does.
    pub fn refused(&mut self, now_us: u64) -> Result<(), StoreError> {
        let what = match self.trouble {
            Some(Trouble::Full { .. }) if self.is_full(now_us) => "no space left on the device",
            Some(Trouble::Write) => "a write failed",
            _ => return Ok(()),
        };
        self.trouble = self.trouble.filter(|trouble| *trouble != Trouble::Write);
        Err(StoreError::Failed(what.to_string()))
    }

    /// Ends what runs, with one sync if any of it asked for one. Returns the tickets that are done, in order.
    ///
    /// # Errors
    ///
    /// When the store fails.
    pub fn finish(&mut self) -> Result<Vec<u64>, StoreError> {
        if self.running.iter().any(|pending| pending.durability == Durability::Synced) {
            if self.trouble.take_if(|trouble| *trouble == Trouble::Sync).is_some() {
                return Err(StoreError::Failed("a sync failed".to_string()));
            }
            self.store.apply(&Writes::new(), Durability::Synced)?;
        }
        let tickets: Vec<u64> = self.running.drain(..).map(|pending| pending.ticket).collect();
        self.done = tickets.last().copied().or(self.done);
        Ok(tickets)
    }

    /// The machine crashes: of what was not synced any prefix survives, whole writes each. That is also the torn tail of a
    /// real log: what is torn is dropped when it is opened. What waited may have been on its way.
    pub fn crash(&mut self, random: &mut Random) {
        if !self.waiting.is_empty() && random.chance(300) {
            for pending in self.waiting.drain(..) {
                // A disk that fails keeps less.
                drop(self.store.apply(&pending.writes, Durability::Lazy));
            }
        }
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
            assert!(disk.start(0, &mut random, &options()).is_ok_and(|due| due.is_some()));
            assert_eq!(disk.finish(), Ok(vec![1]));
            for ticket in 2..6 {
                disk.submit(put(ticket), Durability::Synced, ticket.into());
            }
            assert!(disk.start(0, &mut random, &options()).is_ok());
            disk.crash(&mut random);
            let kept = rows(&disk);
            assert!((1..=5).contains(&kept));
            assert!((1..=kept as u8).all(|value| disk.store().get(Family::Log, &[value]) == Ok(Some(vec![value]))));
            assert_eq!(disk.store().unsynced(), 0);
        }
    }

    #[test]
    fn a_disk_that_fails_says_so_and_keeps_what_was_synced() {
        for (trouble, seed) in [Trouble::Write, Trouble::Sync, Trouble::Full { until_us: 9 }].into_iter().zip(0..) {
            let mut random = Random::new(seed, Purpose::Disk);
            let mut disk = Disk::default();
            disk.submit(put(1), Durability::Synced, 1);
            assert!(disk.start(0, &mut random, &options()).is_ok());
            assert_eq!(disk.finish(), Ok(vec![1]));
            disk.trouble = Some(trouble);
            disk.submit(put(2), Durability::Synced, 2);
            let ended = disk.start(0, &mut random, &options()).and_then(|_| disk.finish());
            assert!(matches!(ended, Err(StoreError::Failed(_))), "{trouble:?}");
            disk.crash(&mut random);
            assert!((1..=2).contains(&rows(&disk)));
            disk.submit(put(3), Durability::Synced, 1);
            assert!(disk.start(9, &mut random, &options()).is_ok(), "{trouble:?} is over");
        }
    }

    #[test]
    fn a_lazy_write_is_done_without_a_sync_and_may_be_lost() {
        let mut lost = 0;
        for seed in 0..50 {
            let mut random = Random::new(seed, Purpose::Disk);
            let mut disk = Disk::default();
            disk.submit(put(1), Durability::Lazy, 1);
            assert!(disk.start(0, &mut random, &options()).is_ok());
            assert_eq!(disk.finish(), Ok(vec![1]));
            disk.crash(&mut random);
            lost += usize::from(rows(&disk) == 0);
        }
        assert!((10..50).contains(&lost));
    }
}
