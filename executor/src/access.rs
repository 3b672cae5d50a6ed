//! A command's window on the state.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::ops::Bound;
use std::panic::resume_unwind;

use polder_types::{Blob, Failure, PartitionId, Position, Timestamp};

use crate::footprint::Declared;
use crate::state::{Entry, State};

/// What one command may do at most (R28). The same on all replicas: whether a command fails depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Accesses: one a key read, put or deleted; a range counts one a key partition and one an entry.
    pub accesses_max: u32,
    /// Bytes of the keys and values that it puts, and of the keys that it deletes.
    pub written_bytes_max: u64,
    /// Bytes of its encoded reply (`B`).
    pub reply_bytes_max: u32,
}

impl Limits {
    /// See [`Limits::accesses_max`].
    pub const ACCESSES_MAX: u32 = 65_536;
    /// See [`Limits::written_bytes_max`].
    pub const WRITTEN_BYTES_MAX: u64 = 4 << 20;
    /// The replies of one slot take no more bytes than so many of the largest: a batch of small commands with large
    /// replies must not exhaust the memory of all replicas. What does not fit, in the order of the commands, is lost: a
    /// command that wrote has [`Failure::ReplyNotKept`], a read has [`Failure::TooMuch`].
    pub const SLOT_REPLIES_MAX: u64 = 256;
    /// Spans of a footprint.
    pub const SPANS_MAX: usize = 65_536;
}

/// A command's window on the state: the service's keys, as the commands before it left them, with its own writes on
/// top. Nothing is written before the command has succeeded.
///
/// An access beyond the declared footprint or the limits ends the command there and then, without effects and with a
/// coded failure: the call does not return.
#[derive(Debug)]
pub struct Access<'a> {
    state: &'a State,
    declared: &'a Declared,
    limits: Limits,
    at: Timestamp,
    position: Position,
    writes: BTreeMap<Blob, Change>,
    accesses: u32,
    written_bytes: u64,
    /// By how many bytes the state would grow.
    growth_bytes: i64,
    failure: Option<Failure>,
}

/// What a command leaves under a key.
#[derive(Debug)]
struct Change {
    partition: PartitionId,
    /// None: nothing.
    entry: Option<Entry>,
}

/// Some entries of a range, in order of their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The entries.
    pub entries: Vec<(Blob, Entry)>,
    /// Where the range goes on: its first key that is not among the entries.
    pub next: Option<Blob>,
}

/// Ends a command whose failure is noted in its [`Access`].
struct Stopped;

impl<'a> Access<'a> {
    pub(crate) fn new(
        state: &'a State,
        declared: &'a Declared,
        limits: Limits,
        at: Timestamp,
        position: Position,
    ) -> Self {
        let writes = BTreeMap::new();
        Self {
            state,
            declared,
            limits,
            at,
            position,
            writes,
            accesses: 0,
            written_bytes: 0,
            growth_bytes: 0,
            failure: None,
        }
    }

    /// The batch's time: the only clock that a command has (R27).
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// The command's own place in the order: what it writes is marked with it.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// The most bytes that the encoded reply may have; a larger one makes the command fail without effects (R25).
    #[must_use]
    pub fn reply_bytes_max(&self) -> usize {
        self.limits.reply_bytes_max as usize
    }

    /// What is under a key.
    pub fn get(&mut self, key: &[u8]) -> Option<Entry> {
        self.count(1);
        self.require(self.declared.may_read(key));
        self.look(key, self.state.layout().of_key(key)).cloned()
    }

    /// Puts a value under a key and returns the entry that it makes there.
    pub fn put(&mut self, key: &[u8], value: Blob) -> Entry {
        self.count(1);
        self.require(self.declared.may_write(key));
        self.count_written(key.len() + value.len());
        let partition = self.state.layout().of_key(key);
        let before = self.look(key, partition);
        let entry = Entry::after(before, value, self.position);
        self.growth_bytes += entry.bytes(key) as i64 - before.map_or(0, |before| before.bytes(key) as i64);
        self.writes.insert(Blob::copy(key), Change { partition, entry: Some(entry.clone()) });
        entry
    }

    /// Deletes what is under a key and returns it. Where nothing is, nothing changes.
    pub fn delete(&mut self, key: &[u8]) -> Option<Entry> {
        self.count(1);
        self.require(self.declared.may_write(key));
        self.count_written(key.len());
        let partition = self.state.layout().of_key(key);
        let before = self.look(key, partition)?.clone();
        self.growth_bytes -= before.bytes(key) as i64;
        if self.state.partition(partition).get(key).is_some() {
            self.writes.insert(Blob::copy(key), Change { partition, entry: None });
        } else {
            // The command's own: as if it had never been.
            self.writes.remove(key);
        }
        Some(before)
    }

    /// The entries from the key `from` on, below `to` where there is one: at most `entries_max` of them, and no more
    /// than fit into `bytes_max`, as [`Entry::bytes`] counts them, but at least one where there is one. Costs a look at
    /// every partition.
    pub fn range(&mut self, from: &[u8], to: Option<&[u8]>, entries_max: usize, bytes_max: usize) -> Page {
        self.count(self.state.layout().key_partitions() as u32);
        if to.is_some_and(|to| to <= from) {
            return Page::default();
        }
        self.require(self.declared.may_read_range(from, to));
        let mut page = Page::default();
        let mut bytes = 0;
        let mut left = self.limits.accesses_max.saturating_sub(self.accesses);
        let mut merged = Merged::new(self.state, &self.writes, from);
        while let Some((key, entry)) = merged.next().filter(|(key, _)| to.is_none_or(|to| *key < to)) {
            bytes += entry.bytes(key);
            if page.entries.len() >= entries_max.max(1) || (bytes > bytes_max as u64 && !page.entries.is_empty()) {
                page.next = Some(Blob::copy(key));
                break;
            }
            let Some(fewer) = left.checked_sub(1) else { break };
            left = fewer;
            page.entries.push((Blob::copy(key), entry.clone()));
        }
        drop(merged);
        // Also fails the command when the entries were cut short above.
        self.count(page.entries.len() as u32 + u32::from(left == 0));
        page
    }

    /// Why the command was stopped, if it was.
    pub(crate) fn failure(&self) -> Option<Failure> {
        self.failure
    }

    /// By how many bytes the state would grow.
    pub(crate) fn growth_bytes(&self) -> i64 {
        self.growth_bytes
    }

    /// What it would write.
    pub(crate) fn into_writes(self) -> Writes {
        Writes { changes: self.writes, at: self.position }
    }

    /// What is under a key, its own writes first.
    fn look(&self, key: &[u8], partition: PartitionId) -> Option<&Entry> {
        match self.writes.get(key) {
            Some(change) => change.entry.as_ref(),
            None => self.state.partition(partition).get(key),
        }
    }

    fn require(&mut self, declared: bool) {
        if !declared {
            self.stop(Failure::Undeclared);
        }
    }

    fn count(&mut self, accesses: u32) {
        self.accesses = self.accesses.saturating_add(accesses);
        if self.accesses > self.limits.accesses_max {
            self.stop(Failure::TooMuch);
        }
    }

    fn count_written(&mut self, bytes: usize) {
        self.written_bytes = self.written_bytes.saturating_add(bytes as u64);
        if self.written_bytes > self.limits.written_bytes_max {
            self.stop(Failure::TooMuch);
        }
    }

    /// R28: ends the command. Unwinding stops also a loop that would go on for ever; it is not reported as a panic, and
    /// a service that catches it keeps nothing by that, because the failure is noted.
    fn stop(&mut self, failure: Failure) -> ! {
        self.failure.get_or_insert(failure);
        resume_unwind(Box::new(Stopped))
    }
}

/// What a command that succeeded writes.
#[derive(Debug)]
pub(crate) struct Writes {
    changes: BTreeMap<Blob, Change>,
    at: Position,
}

impl Writes {
    pub(crate) fn apply(self, state: &mut State) {
        for (key, Change { partition, entry }) in self.changes {
            match entry {
                Some(entry) => state.put(partition, key, entry),
                None => state.delete(partition, key, self.at),
            }
        }
    }
}

/// The entries of one partition, in order.
type Source<'s> = Box<dyn Iterator<Item = (&'s [u8], &'s Entry)> + 's>;

/// The entries of all key partitions in the order of their keys, a command's own writes on top.
struct Merged<'s> {
    sources: Vec<Source<'s>>,
    /// The next entry of each source.
    heads: BinaryHeap<Reverse<(&'s [u8], usize)>>,
    head_entries: Vec<Option<&'s Entry>>,
    writes: std::iter::Peekable<std::collections::btree_map::Range<'s, Blob, Change>>,
}

impl<'s> Merged<'s> {
    fn new(state: &'s State, writes: &'s BTreeMap<Blob, Change>, from: &[u8]) -> Self {
        let partitions = state.key_partitions();
        let mut this = Self {
            sources: partitions.iter().map(|partition| Box::new(partition.range(Bound::Included(from))) as _).collect(),
            heads: BinaryHeap::with_capacity(partitions.len()),
            head_entries: vec![None; partitions.len()],
            writes: writes.range::<[u8], _>((Bound::Included(from), Bound::Unbounded)).peekable(),
        };
        (0..partitions.len()).for_each(|source| this.advance(source));
        this
    }

    fn advance(&mut self, source: usize) {
        if let Some((key, entry)) = self.sources[source].next() {
            self.heads.push(Reverse((key, source)));
            self.head_entries[source] = Some(entry);
        }
    }

    fn next_stored(&mut self) -> Option<(&'s [u8], &'s Entry)> {
        let Reverse((key, source)) = self.heads.pop()?;
        let entry = self.head_entries[source].take();
        self.advance(source);
        entry.map(|entry| (key, entry))
    }

    fn next(&mut self) -> Option<(&'s [u8], &'s Entry)> {
        loop {
            let stored = self.heads.peek().map(|Reverse((key, _))| *key);
            let own = self.writes.peek().map(|(key, _)| &key[..]);
            match (stored, own) {
                (Some(stored), Some(own)) if stored < own => return self.next_stored(),
                (_, None) => return self.next_stored(),
                (stored, Some(own)) => {
                    if stored == Some(own) {
                        self.next_stored();
                    }
                    let (key, change) = self.writes.next()?;
                    if let Some(entry) = &change.entry {
                        return Some((key, entry));
                    }
                }
            }
        }
    }
}
