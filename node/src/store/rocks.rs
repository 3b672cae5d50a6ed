//! `Store` over RocksDB: the only file that names it (R19).
//!
//! A node has two of them, so that neither a write stall nor the write-ahead log of the state stands before a vote.
//! Recovery tolerates a torn tail of the write-ahead log and no other damage; logs are not recycled and are tracked in
//! the manifest, so that a missing one is seen; and after any failed write, sync or background job the store answers
//! nothing but that failure, so that nobody retries over it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use polder_checkpoint::{Durability, Family, Rows, Store, StoreError, Write, Writes};
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, CompactOptions, DB, DBRecoveryMode, Direction,
    IteratorMode, LogLevel, Options, ReadOptions, WriteBatch, WriteOptions, properties,
};

use super::wal;

/// How often the housekeeper looks.
const HOUSEKEEPING_PERIOD: Duration = Duration::from_secs(2);

/// A family is compacted once it has grown to twice what the last compaction left, and by at least this much more.
const COMPACTION_SLACK_BYTES: u64 = 64 << 20;

/// How to open a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RocksOptions {
    /// Whether to make it when it is not there. Only before a replica's first start (R18).
    pub create: bool,
    /// Whether [`Durability::Synced`] syncs; if not, a crash of the machine loses what the system had not written.
    pub sync: bool,
    /// Bytes of one family's changes held in memory before they are written as a sorted file; a few such buffers exist
    /// at once.
    pub write_buffer_bytes: usize,
}

impl Default for RocksOptions {
    fn default() -> Self {
        Self { create: false, sync: true, write_buffer_bytes: 16 << 20 }
    }
}

/// A [`Store`] in a folder of its own.
pub struct RocksStore {
    inner: Arc<Inner>,
    housekeeper: Option<(SyncSender<()>, JoinHandle<()>)>,
}

struct Inner {
    db: DB,
    path: PathBuf,
    sync: bool,
    /// The first failure; nothing works after it.
    failed: OnceLock<StoreError>,
    /// Which families had ranges deleted since they were last compacted, by place in [`Family::ALL`].
    to_compact: [AtomicBool; Family::ALL.len()],
    bytes_on_disk: AtomicU64,
    /// The folder itself, to ask about its file system; none where that cannot be done.
    #[cfg(unix)]
    folder: Option<fs::File>,
}

impl RocksStore {
    /// Opens the store in `path`, and makes it if the options say so.
    ///
    /// # Errors
    ///
    /// In words, when it is not there, another process has it open, or it is damaged.
    pub fn open(path: &Path, options: RocksOptions) -> Result<Self, StoreError> {
        if options.create {
            fs::create_dir_all(path)
                .map_err(|error| StoreError::Failed(format!("{} cannot be made: {error}", path.display())))?;
        } else if !path.join("CURRENT").exists() {
            let what = format!("there is no store in {}, or its file CURRENT was taken away", path.display());
            return Err(StoreError::Damaged(what));
        }
        match wal::stray(path) {
            Ok(None) => {}
            Ok(Some(wal::Stray { file, at })) => {
                let what = format!("the record at byte {at} of {file} is of a kind that is never written there");
                return Err(damaged(path, &what));
            }
            Err(error) => return Err(StoreError::Failed(format!("{} cannot be read: {error}", path.display()))),
        }
        let families = Family::ALL.map(|family| ColumnFamilyDescriptor::new(name(family), family_options(&options)));
        let db =
            DB::open_cf_descriptors(&db_options(&options), path, families).map_err(|error| opening(path, &error))?;
        let inner = Arc::new(Inner {
            db,
            path: path.to_owned(),
            sync: options.sync,
            failed: OnceLock::new(),
            to_compact: Default::default(),
            bytes_on_disk: AtomicU64::new(folder_bytes(path)),
            #[cfg(unix)]
            folder: fs::File::open(path).ok(),
        });
        let housekeeper = housekeeper(&inner)?;
        Ok(Self { inner, housekeeper: Some(housekeeper) })
    }
}

impl Drop for RocksStore {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.housekeeper.take() {
            drop(stop);
            // A compaction under way is waited for: the folder is free when this returns.
            self.inner.db.cancel_all_background_work(false);
            if thread.join().is_err() {
                tracing::error!(folder = %self.inner.path.display(), "the housekeeper panicked");
            }
        }
    }
}

impl Store for RocksStore {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.check()?;
        self.inner.db.get_cf(self.inner.handle(family)?, key).map_err(|error| self.inner.fail(&error))
    }

    fn scan(&self, family: Family, from: &[u8], to: &[u8], limit: usize) -> Result<Rows, StoreError> {
        self.inner.check()?;
        if from >= to {
            return Ok(Rows::new());
        }
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(to);
        // A scan reads what is read once: it must not push out what is read often.
        options.fill_cache(false);
        options.set_readahead_size(1 << 20);
        let mode = IteratorMode::From(from, Direction::Forward);
        let rows = self.inner.db.iterator_cf_opt(self.inner.handle(family)?, options, mode).take(limit);
        rows.map(|row| row.map(|(key, value)| (key.into_vec(), value.into_vec())))
            .collect::<Result<_, _>>()
            .map_err(|error| self.inner.fail(&error))
    }

    fn apply(&self, writes: &Writes, durability: Durability) -> Result<(), StoreError> {
        self.inner.apply(writes, durability)
    }

    fn bytes_on_disk(&self) -> u64 {
        self.inner.bytes_on_disk.load(Ordering::Relaxed)
    }

    #[cfg(unix)]
    fn free_bytes(&self) -> Option<u64> {
        let says = rustix::fs::fstatvfs(self.inner.folder.as_ref()?).ok()?;
        Some(says.f_bavail.saturating_mul(says.f_frsize))
    }
}

impl Inner {
    fn apply(&self, writes: &Writes, durability: Durability) -> Result<(), StoreError> {
        self.check()?;
        let mut batch = WriteBatch::default();
        for write in writes {
            match write {
                Write::Put { family, key, value } => batch.put_cf(self.handle(*family)?, key, value),
                Write::Delete { family, key } => batch.delete_cf(self.handle(*family)?, key),
                Write::DeleteRange { family, from, to } if from < to => {
                    batch.delete_range_cf(self.handle(*family)?, from, to);
                    self.compact_later(*family);
                }
                Write::DeleteRange { .. } => {}
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(self.sync && durability == Durability::Synced);
        self.db.write_opt(batch, &options).map_err(|error| self.fail(&error))?;
        if durability == Durability::Synced {
            self.check_background()?;
        }
        Ok(())
    }

    fn check(&self) -> Result<(), StoreError> {
        self.failed.get().cloned().map_or(Ok(()), Err)
    }

    /// R19: RocksDB resumes by itself after some failures of its background jobs; a store that had one is not used on.
    fn check_background(&self) -> Result<(), StoreError> {
        match self.db.property_int_value(properties::BACKGROUND_ERRORS) {
            Ok(Some(0) | None) => Ok(()),
            Ok(Some(errors)) => {
                // Why, is said by whatever is written after it: so nothing is, and without waiting.
                let mut options = WriteOptions::default();
                options.set_no_slowdown(true);
                let why = self.db.write_opt(WriteBatch::default(), &options).err();
                let why = why.map_or_else(|| "see LOG there".to_owned(), |error| error.to_string());
                let what = format!("{errors} background jobs failed in {}: {why}", self.path.display());
                Err(self.failed.get_or_init(|| StoreError::Failed(what)).clone())
            }
            Err(error) => Err(self.fail(&error)),
        }
    }

    fn fail(&self, error: &rocksdb::Error) -> StoreError {
        let words = format!("{}: {error}", self.path.display());
        let error = match error.kind() {
            rocksdb::ErrorKind::Corruption => StoreError::Damaged(words),
            _ => StoreError::Failed(words),
        };
        self.failed.get_or_init(|| error).clone()
    }

    fn handle(&self, family: Family) -> Result<&ColumnFamily, StoreError> {
        self.db
            .cf_handle(name(family))
            .ok_or_else(|| StoreError::Damaged(format!("{} lacks the family {}", self.path.display(), name(family))))
    }

    fn compact_later(&self, family: Family) {
        if let Some(flag) = self.flag(family) {
            flag.store(true, Ordering::Relaxed);
        }
    }

    fn flag(&self, family: Family) -> Option<&AtomicBool> {
        let place = Family::ALL.iter().position(|other| *other == family)?;
        self.to_compact.get(place)
    }

    /// Gives the disk back what deleted ranges held. By compaction and not by deleting whole files in a range, which
    /// is quicker but would also drop rows that were written into the range after it was deleted.
    fn keep_house(&self, left: &mut BTreeMap<Family, u64>) -> Result<(), rocksdb::Error> {
        for family in Family::ALL {
            let (Some(handle), Some(flag)) = (self.db.cf_handle(name(family)), self.flag(family)) else { continue };
            let bytes = self.db.property_int_value_cf(handle, properties::TOTAL_SST_FILES_SIZE)?.unwrap_or(0);
            let before = left.entry(family).or_insert(bytes);
            if bytes < before.saturating_mul(2).saturating_add(COMPACTION_SLACK_BYTES) {
                continue;
            }
            if flag.swap(false, Ordering::Relaxed) {
                let mut options = CompactOptions::default();
                options.set_exclusive_manual_compaction(false);
                self.db.compact_range_cf_opt(handle, None::<&[u8]>, None::<&[u8]>, &options);
                *before = self.db.property_int_value_cf(handle, properties::TOTAL_SST_FILES_SIZE)?.unwrap_or(0);
            }
        }
        Ok(())
    }
}

fn housekeeper(inner: &Arc<Inner>) -> Result<(SyncSender<()>, JoinHandle<()>), StoreError> {
    // Nothing is ever sent: the channel's end is the sign to stop.
    let (stop, stopped) = sync_channel::<()>(0);
    let inner = inner.clone();
    let run = move || {
        let mut left = BTreeMap::new();
        while matches!(stopped.recv_timeout(HOUSEKEEPING_PERIOD), Err(RecvTimeoutError::Timeout)) {
            if let Err(error) = inner.keep_house(&mut left) {
                inner.fail(&error);
            }
            inner.bytes_on_disk.store(folder_bytes(&inner.path), Ordering::Relaxed);
        }
    };
    let thread = std::thread::Builder::new().name("polder-tidy".to_owned()).spawn(run);
    thread
        .map(|thread| (stop, thread))
        .map_err(|error| StoreError::Failed(format!("no thread can be started: {error}")))
}

fn db_options(options: &RocksOptions) -> Options {
    let mut db = Options::default();
    db.create_if_missing(options.create);
    db.create_missing_column_families(options.create);
    // R19: a torn tail is what a crash leaves; anything else is damage, and opening fails.
    db.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    db.set_recycle_log_file_num(0);
    db.set_track_and_verify_wals_in_manifest(true);
    db.set_paranoid_checks(true);
    // One small row can hold a log file for ever: at this size the family it is in is flushed.
    db.set_max_total_wal_size(4 * options.write_buffer_bytes as u64);
    db.set_max_background_jobs(2);
    db.set_max_open_files(256);
    // Written steadily, not in one burst at the end of a file.
    db.set_bytes_per_sync(1 << 20);
    db.set_keep_log_file_num(2);
    db.set_max_log_file_size(1 << 20);
    db.set_log_level(LogLevel::Warn);
    db.set_stats_dump_period_sec(0);
    db
}

fn family_options(options: &RocksOptions) -> Options {
    let mut family = Options::default();
    family.set_write_buffer_size(options.write_buffer_bytes);
    family.set_max_write_buffer_number(3);
    family.set_target_file_size_base(options.write_buffer_bytes as u64);
    family.set_max_bytes_for_level_base(4 * options.write_buffer_bytes as u64);
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(4 << 20));
    table.set_block_size(16 << 10);
    table.set_format_version(5);
    family.set_block_based_table_factory(&table);
    family
}

/// What a family is called on disk: never to be changed.
fn name(family: Family) -> &'static str {
    match family {
        Family::Log => "log",
        Family::Meta => "meta",
        Family::Effects => "effects",
        Family::Images => "images",
        Family::Certificates => "certificates",
    }
}

fn damaged(path: &Path, words: &str) -> StoreError {
    StoreError::Damaged(format!(
        "{}: {words}. More than a torn tail is wrong; do not repair it by hand: a replica that forgot what it signed \
         must not vote. The others go on without it",
        path.display()
    ))
}

fn opening(path: &Path, error: &rocksdb::Error) -> StoreError {
    let words = error.to_string();
    if words.contains("LOCK") || words.contains("lock hold by current process") {
        return StoreError::Failed(format!(
            "{} is in use: another polder process runs on this data folder; stop it first ({words})",
            path.display()
        ));
    }
    match error.kind() {
        rocksdb::ErrorKind::Corruption => damaged(path, &words),
        _ => StoreError::Failed(format!("{} cannot be opened: {words}", path.display())),
    }
}

/// The bytes of all files in a folder.
fn folder_bytes(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let sizes = entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|metadata| {
        #[cfg(unix)]
        {
            // Preallocated files take what they are given, not what is written in them.
            use std::os::unix::fs::MetadataExt as _;
            metadata.blocks() * 512
        }
        #[cfg(not(unix))]
        {
            metadata.len()
        }
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    const CREATE: RocksOptions = RocksOptions { create: true, sync: true, write_buffer_bytes: 1 << 20 };
    const REOPEN: RocksOptions = RocksOptions { create: false, sync: true, write_buffer_bytes: 1 << 20 };

    fn put(key: u8, value: &[u8]) -> Writes {
        let mut writes = Writes::new();
        writes.put(Family::Log, vec![key], value.to_vec());
        writes
    }

    /// The write-ahead logs, the oldest first.
    fn wals(path: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut logs: Vec<PathBuf> =
            entries.filter(|path| path.extension().is_some_and(|extension| extension == "log")).collect();
        logs.sort();
        logs
    }

    fn wal(path: &Path) -> Option<PathBuf> {
        wals(path).pop()
    }

    #[test]
    fn what_was_applied_is_there_after_reopening_and_families_are_apart() -> Outcome {
        let folder = tempfile::tempdir()?;
        {
            let store = RocksStore::open(folder.path(), CREATE)?;
            let mut writes = put(1, b"one");
            writes.put(Family::Meta, vec![1], b"other".to_vec());
            for key in 2..9 {
                writes.append(put(key, b"more"));
            }
            writes.delete_range(Family::Log, vec![3], vec![5]).delete(Family::Log, vec![8]);
            store.apply(&writes, Durability::Synced)?;
        }
        let store = RocksStore::open(folder.path(), REOPEN)?;
        assert_eq!(store.get(Family::Log, &[1])?.as_deref(), Some(b"one".as_slice()));
        assert_eq!(store.get(Family::Meta, &[1])?.as_deref(), Some(b"other".as_slice()));
        let keys = |limit| -> Result<Vec<u8>, StoreError> {
            let rows = store.scan(Family::Log, &[2], &[9], limit)?;
            Ok(rows.iter().filter_map(|(key, _)| key.first().copied()).collect())
        };
        assert_eq!(keys(100)?, [2, 5, 6, 7]);
        assert_eq!(keys(2)?, [2, 5]);
        assert!(store.bytes_on_disk() > 0);
        assert!(store.free_bytes().is_some_and(|free_bytes| free_bytes > 0));
        Ok(())
    }

    #[test]
    fn r19_a_torn_tail_loses_the_last_write_alone() -> Outcome {
        let folder = tempfile::tempdir()?;
        {
            let store = RocksStore::open(folder.path(), CREATE)?;
            for key in 1..=3 {
                store.apply(&put(key, &[key; 100]), Durability::Synced)?;
            }
        }
        let wal = wal(folder.path()).ok_or("no write-ahead log")?;
        let bytes = fs::read(&wal)?;
        fs::write(&wal, bytes.get(..bytes.len() - 10).unwrap_or_default())?;
        let store = RocksStore::open(folder.path(), REOPEN)?;
        assert_eq!(store.get(Family::Log, &[2])?, Some(vec![2; 100]));
        assert_eq!(store.get(Family::Log, &[3])?, None);
        Ok(())
    }

    #[test]
    fn r19_damage_before_the_tail_is_refused() -> Outcome {
        let folder = tempfile::tempdir()?;
        {
            let store = RocksStore::open(folder.path(), CREATE)?;
            for key in 1..=3 {
                store.apply(&put(key, &[key; 100]), Durability::Synced)?;
            }
        }
        let wal = wal(folder.path()).ok_or("no write-ahead log")?;
        let mut bytes = fs::read(&wal)?;
        let at = bytes.windows(20).position(|window| window == [1; 20]).ok_or("the row is not in the log")?;
        if let Some(byte) = bytes.get_mut(at + 5) {
            *byte ^= 1;
        }
        fs::write(&wal, bytes)?;
        assert!(RocksStore::open(folder.path(), REOPEN).is_err());
        Ok(())
    }

    /// RocksDB's own reader would turn in a circle at some of these, and take the log for an old one at others.
    #[test]
    fn r19_a_record_whose_kind_has_changed_is_refused_wherever_it_stands() -> Outcome {
        let folder = tempfile::tempdir()?;
        {
            let store = RocksStore::open(folder.path(), CREATE)?;
            for key in 1..=3 {
                store.apply(&put(key, &[key; 100]), Durability::Synced)?;
            }
        }
        let wal = wal(folder.path()).ok_or("no write-ahead log")?;
        let bytes = fs::read(&wal)?;
        let (mut at, mut flips) = (0, 0);
        while let Some([_, _, _, _, low, high, _]) = bytes.get(at..at + 7) {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                if let Some(kind) = changed.get_mut(at + 6) {
                    *kind ^= 1 << bit;
                }
                fs::write(&wal, changed)?;
                let refused = RocksStore::open(folder.path(), REOPEN).err();
                assert!(matches!(refused, Some(StoreError::Damaged(_))), "bit {bit} of byte {}: {refused:?}", at + 6);
                flips += 1;
            }
            at += 7 + usize::from(u16::from_le_bytes([*low, *high]));
        }
        assert!(flips >= 24, "{flips}");
        fs::write(&wal, bytes)?;
        RocksStore::open(folder.path(), REOPEN)?;
        Ok(())
    }

    /// The manifest tracks the logs that are closed. That the newest one is missing nobody can see here: it is a folder
    /// set back, which the replica asks its peers about (R18).
    #[test]
    fn r19_a_missing_log_is_seen() -> Outcome {
        let folder = tempfile::tempdir()?;
        {
            let store = RocksStore::open(folder.path(), CREATE)?;
            // A small row of one family keeps the first log alive, while the rows of another fill more.
            let mut writes = Writes::new();
            writes.put(Family::Meta, vec![1], b"small".to_vec());
            store.apply(&writes, Durability::Synced)?;
            for key in 0..30 {
                store.apply(&put(key, &[key; 100_000]), Durability::Synced)?;
            }
        }
        let logs = wals(folder.path());
        assert!(logs.len() > 1, "{logs:?}");
        fs::remove_file(logs.first().ok_or("no write-ahead log")?)?;
        assert!(RocksStore::open(folder.path(), REOPEN).is_err());
        Ok(())
    }

    #[test]
    fn a_second_process_is_told_who_has_it() -> Outcome {
        let folder = tempfile::tempdir()?;
        let _first = RocksStore::open(folder.path(), CREATE)?;
        let second = RocksStore::open(folder.path(), REOPEN).err().map(|error| error.to_string());
        assert!(second.is_some_and(|error| error.contains("is in use: another polder process")));
        Ok(())
    }

    #[test]
    fn r18_a_store_is_made_only_when_asked_for() -> Outcome {
        let folder = tempfile::tempdir()?;
        let error = RocksStore::open(&folder.path().join("log"), REOPEN).err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.contains("there is no store in")));
        assert!(!folder.path().join("log").exists());
        Ok(())
    }

    #[test]
    fn deleted_ranges_give_their_bytes_back() -> Outcome {
        let folder = tempfile::tempdir()?;
        let store = RocksStore::open(folder.path(), CREATE)?;
        let mut left = BTreeMap::from([(Family::Log, 0)]);
        let value = vec![7; 1 << 20];
        for round in 0..2u32 {
            for row in 0..80u32 {
                let mut writes = Writes::new();
                writes.put(Family::Log, [round.to_be_bytes(), row.to_be_bytes()].concat(), value.clone());
                store.apply(&writes, Durability::Lazy)?;
            }
        }
        let mut writes = Writes::new();
        writes.delete_range(Family::Log, vec![0], 2u32.to_be_bytes().to_vec());
        store.apply(&writes, Durability::Synced)?;
        let handle = store.inner.handle(Family::Log)?;
        store.inner.db.flush_cf(handle)?;
        let before = folder_bytes(folder.path());
        store.inner.keep_house(&mut left)?;
        let after = folder_bytes(folder.path());
        assert!(before > 100 << 20 && after < 40 << 20, "{before} {after}");
        Ok(())
    }
}
