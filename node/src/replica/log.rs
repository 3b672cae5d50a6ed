//! The vote log: first in, first out, numbered without a gap, chained by hash (R8, R18).
//!
//! ```text
//!   Meta "anchor": where the log begins, the chain before it, and the slots that it has forgotten
//!   Log  first ─ row ─ row ─ row ─ row ─ next
//!                                   └─ chain = H(chain before ‖ entry)
//! ```
//!
//! What waits for a record leaves when the store says that the record, and all before it, is durable. One write and one
//! sync cover everything that a step appended.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use polder_checkpoint::{Durability, Family, Store, Writes};
use polder_consensus::{Record, Ticket, VerifiedMessage};
use polder_types::{Checkpoint, ClusterId, Digest, Domain, Hasher, ReplicaId, Seq, Signed, Verified, decode, encode};
use serde::{Deserialize, Serialize};

use super::OpenError;
use super::event::{Action, Disk};
use super::memory::Heard;

/// A log entry: what the ordering core recorded, or the replica's own statement about a cut.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Entry {
    /// The ordering core's.
    Ordering(Record),
    /// The own CHECKPOINT, durable before it is sent, the same bytes re-sent for ever (R29).
    Checkpoint(Signed<Checkpoint>),
}

#[derive(Serialize, Deserialize)]
struct Row {
    chain: Digest,
    entry: Entry,
}

/// Where the log begins: its first row's number, the chain before it, and the first slot of which all rows are kept. The
/// state on disk must lead to the slot before that one.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Anchor {
    first: u64,
    chain: Digest,
    below: Seq,
}

/// Whose log it is. Written at the first start, looked for at every other (R18).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    cluster: ClusterId,
    me: ReplicaId,
}

/// What leaves once a row is durable.
#[derive(Clone, Debug)]
pub(super) enum Then {
    /// The core's votes: to all, and back to the core by the same road.
    Votes(Vec<Arc<VerifiedMessage>>),
    /// The core waits for this.
    Ticket(Ticket),
    /// The own statement about a cut: to all, and to the own planner.
    Checkpoint(Verified<Signed<Checkpoint>>),
}

/// When a row may go.
#[derive(Clone, Copy, Debug)]
enum Lifetime {
    /// Once this slot is truncated.
    Slot(Seq),
    /// Once a later `Record::Stable` carries it forward.
    Carried,
}

/// The vote log, and what waits for it.
#[derive(Debug)]
pub(super) struct Log {
    anchor: Anchor,
    chain: Digest,
    rows: VecDeque<(Lifetime, Digest)>,
    stable_index: u64,
    ticket: u64,
    writes: Writes,
    sync: bool,
    then: Vec<Then>,
    /// Synced writes that are under way: their tickets, the rows that the log has with them, and what waits.
    waiting: VecDeque<(u64, u64, Vec<Then>)>,
    /// None before the first sync of this start.
    durable_rows: Option<u64>,
}

/// What a log says when it is opened.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) log: Log,
    pub(super) records: Vec<Record>,
    pub(super) checkpoints: Vec<Signed<Checkpoint>>,
    pub(super) heard: BTreeMap<ReplicaId, Heard>,
}

/// The number of the first write on a disk. Drivers count what is done from 0 up, so no write has that number.
pub(super) const FIRST_TICKET: u64 = 1;
const ROWS_A_SCAN: usize = 1_024;
const ROW_BYTES_MAX: usize = 16 << 20;

impl Log {
    /// A new log, at the first start: its identity is its first write, before anything else.
    pub(super) fn create(store: &dyn Store, cluster: ClusterId, me: ReplicaId) -> Result<Opened, OpenError> {
        if store.get(Family::Meta, b"identity").map_err(OpenError::Store)?.is_some() {
            return Err(OpenError::NotEmpty);
        }
        let mut log = Self::empty(Anchor::default());
        log.write_identity(&Identity { cluster, me });
        log.writes.put(Family::Meta, b"anchor".to_vec(), encode(&log.anchor));
        Ok(Opened { log, records: Vec::new(), checkpoints: Vec::new(), heard: BTreeMap::new() })
    }

    /// Reads a log back, and checks that it is this replica's and unbroken (R18). What was read may have been written
    /// and never synced, so its first write is synced too: once that is done, all that was read is durable.
    pub(super) fn open(
        store: &dyn Store,
        cluster: ClusterId,
        me: ReplicaId,
        replicas: impl Iterator<Item = ReplicaId>,
    ) -> Result<Opened, OpenError> {
        let identity = store.get(Family::Meta, b"identity").map_err(OpenError::Store)?.ok_or(OpenError::NoMemory)?;
        let identity: Identity = decode(&identity, 1_024).map_err(|_| OpenError::Damaged("the identity row"))?;
        if identity != (Identity { cluster, me }) {
            return Err(OpenError::Foreign { cluster: identity.cluster, replica: identity.me });
        }
        let anchor = store.get(Family::Meta, b"anchor").map_err(OpenError::Store)?.ok_or(OpenError::NoMemory)?;
        let anchor: Anchor = decode(&anchor, 1_024).map_err(|_| OpenError::Damaged("the anchor row"))?;
        let mut log = Self::empty(anchor);
        log.write_identity(&identity);
        let mut opened = Opened { log, records: Vec::new(), checkpoints: Vec::new(), heard: BTreeMap::new() };
        opened.read_rows(store)?;
        for replica in replicas {
            if let Some(row) = store.get(Family::Meta, &memory_key(replica)).map_err(OpenError::Store)? {
                let heard = decode(&row, ROW_BYTES_MAX).map_err(|_| OpenError::Damaged("a memory row"))?;
                opened.heard.insert(replica, heard);
            }
        }
        Ok(opened)
    }

    fn empty(anchor: Anchor) -> Self {
        Self {
            anchor,
            chain: anchor.chain,
            rows: VecDeque::new(),
            stable_index: anchor.first,
            ticket: FIRST_TICKET,
            writes: Writes::default(),
            sync: false,
            then: Vec::new(),
            waiting: VecDeque::new(),
            durable_rows: None,
        }
    }

    fn write_identity(&mut self, identity: &Identity) {
        self.writes.put(Family::Meta, b"identity".to_vec(), encode(identity));
        self.sync = true;
    }

    /// Appends an entry; `then` leaves when it is durable. An entry for which nothing waits needs no sync of its own.
    pub(super) fn append(&mut self, entry: Entry, then: Vec<Then>) {
        let chain = self.push(&entry);
        let key = (self.next() - 1).to_be_bytes().to_vec();
        self.writes.put(Family::Log, key, encode(&Row { chain, entry }));
        self.sync |= !then.is_empty();
        self.then.extend(then);
    }

    /// Replaces the durable row about how far another replica's log reaches; rides with the next write (R18).
    pub(super) fn remember(&mut self, replica: ReplicaId, heard: &Heard) {
        self.writes.put(Family::Meta, memory_key(replica), encode(heard));
    }

    /// What is to be written next is synced, though nothing waits for it.
    pub(super) fn sync(&mut self) {
        self.sync = true;
    }

    /// Deletes the rows that nothing needs any more: those before the newest `Record::Stable` that are about slots
    /// below `below`, or that it carries forward. The anchor moves in the same write (C10).
    pub(super) fn truncate(&mut self, below: Seq) {
        let from = self.anchor.first;
        while self.anchor.first < self.stable_index {
            let Some((lifetime, chain)) = self.rows.front().copied() else { break };
            if matches!(lifetime, Lifetime::Slot(slot) if slot >= below) {
                break;
            }
            self.rows.pop_front();
            self.anchor.chain = chain;
            self.anchor.first += 1;
        }
        if self.anchor.first > from {
            self.anchor.below = self.anchor.below.max(below);
            let to = self.anchor.first.to_be_bytes().to_vec();
            self.writes.delete_range(Family::Log, from.to_be_bytes().to_vec(), to);
            self.writes.put(Family::Meta, b"anchor".to_vec(), encode(&self.anchor));
        }
    }

    /// Whether what is written next is synced.
    pub(super) fn will_sync(&self) -> bool {
        self.sync
    }

    /// Whether anything waits to be written.
    pub(super) fn has_writes(&self) -> bool {
        !self.writes.is_empty()
    }

    /// Hands everything that was appended to the store, as one write.
    pub(super) fn flush(&mut self, out: &mut Vec<Action>) {
        if self.writes.is_empty() {
            return;
        }
        let durability = if self.sync { Durability::Synced } else { Durability::Lazy };
        if self.sync {
            // Also when nothing waits for it: its rows count as durable all the same (R18).
            self.waiting.push_back((self.ticket, self.next(), std::mem::take(&mut self.then)));
        }
        let writes = std::mem::take(&mut self.writes);
        out.push(Action::Write { disk: Disk::Log, writes, durability, ticket: self.ticket });
        self.ticket += 1;
        self.sync = false;
    }

    /// What may leave, now that the write with this ticket, and all before it, is durable.
    pub(super) fn written(&mut self, ticket: u64) -> Vec<Then> {
        let mut released = Vec::new();
        while self.waiting.front().is_some_and(|(waiting, ..)| *waiting <= ticket)
            && let Some((_, rows, then)) = self.waiting.pop_front()
        {
            self.durable_rows = Some(rows);
            released.extend(then);
        }
        released
    }

    /// Rows held.
    pub(super) fn rows(&self) -> usize {
        self.rows.len()
    }

    /// The number of the next row: so many were ever written.
    pub(super) fn next(&self) -> u64 {
        self.anchor.first + self.rows.len() as u64
    }

    /// So many rows are known to be durable, those that were read at the start included; none before the first sync of
    /// this start is done, because it is not known then of any.
    pub(super) fn durable_rows(&self) -> Option<u64> {
        self.durable_rows
    }

    fn push(&mut self, entry: &Entry) -> Digest {
        self.chain = chain_after(&self.chain, entry);
        if matches!(entry, Entry::Ordering(Record::Stable { .. })) {
            self.stable_index = self.next();
        }
        self.rows.push_back((lifetime(entry), self.chain));
        self.chain
    }
}

impl Opened {
    /// Rows about slots below this one may be gone: the state on disk must lead to the slot before it (C10).
    pub(super) fn truncated_below(&self) -> Seq {
        self.log.anchor.below
    }

    fn read_rows(&mut self, store: &dyn Store) -> Result<(), OpenError> {
        let mut from = self.log.anchor.first;
        loop {
            let rows = store
                .scan(Family::Log, &from.to_be_bytes(), &u64::MAX.to_be_bytes(), ROWS_A_SCAN)
                .map_err(OpenError::Store)?;
            let is_last = rows.len() < ROWS_A_SCAN;
            for (key, value) in rows {
                if key != self.log.next().to_be_bytes() {
                    return Err(OpenError::Damaged("the log: a row is missing"));
                }
                let row: Row = decode(&value, ROW_BYTES_MAX).map_err(|_| OpenError::Damaged("the log: a row"))?;
                if self.log.push(&row.entry) != row.chain {
                    return Err(OpenError::Damaged("the log: its hash chain is broken"));
                }
                match row.entry {
                    Entry::Ordering(record) => self.records.push(record),
                    Entry::Checkpoint(signed) => self.checkpoints.push(signed),
                }
            }
            from = self.log.next();
            if is_last {
                return Ok(());
            }
        }
    }
}

fn chain_after(before: &Digest, entry: &Entry) -> Digest {
    Hasher::new(Domain::Log).digest(before).bytes(&encode(entry)).finish()
}

fn lifetime(entry: &Entry) -> Lifetime {
    match entry {
        Entry::Ordering(record) => record.slot().map_or(Lifetime::Carried, Lifetime::Slot),
        Entry::Checkpoint(signed) => Lifetime::Slot(signed.statement.seq),
    }
}

fn memory_key(replica: ReplicaId) -> Vec<u8> {
    [b"memory/".as_slice(), &[replica.0]].concat()
}

#[cfg(test)]
mod tests {
    use polder_checkpoint::MemStore;
    use polder_consensus::{Phase, Vote};
    use polder_types::{Epoch, FaultModel, Genesis, Member, Nonce, SigningKey, View};

    use super::*;

    const ME: ReplicaId = ReplicaId(0);

    fn key(index: u8) -> SigningKey {
        SigningKey::from_seed(&[index; 32])
    }

    fn genesis() -> Genesis {
        let member = |index: u8| Member { identity: key(100 + index).public(), signing: key(index).public() };
        Genesis {
            nonce: Nonce([0; 16]),
            replicas: (0..4).map(member).collect(),
            fault_model: FaultModel::Byzantine,
            constants: polder_types::Constants::default(),
            clients: polder_types::ClientAccess::default(),
        }
    }

    fn cluster() -> ClusterId {
        genesis().cluster()
    }

    fn entered(view: u64) -> Entry {
        Entry::Ordering(Record::Entered { epoch: Epoch::ZERO, view: View(view) })
    }

    fn vote(view: u64, slot: u64) -> Signed<Vote> {
        let statement =
            Vote { phase: Phase::Commit, epoch: Epoch::ZERO, view: View(view), slot: Seq(slot), digest: Digest::ZERO };
        Signed::sign(ME, statement, cluster(), &key(0)).into_inner()
    }

    fn committed(slot: u64) -> Entry {
        let certificate = polder_types::Proof { statement: vote(0, slot).statement, signers: Vec::new() };
        Entry::Ordering(Record::Committed { certificate, body: None })
    }

    fn stable(seq: u64) -> Entry {
        let statement = Checkpoint {
            epoch: Epoch::ZERO,
            seq: Seq(seq),
            root: Digest::ZERO,
            history: Digest::ZERO,
            time: polder_types::Timestamp(0),
            config: Digest::ZERO,
            pending: Digest::ZERO,
        };
        let certificate = polder_types::Proof { statement, signers: Vec::new() };
        Entry::Ordering(Record::Stable { certificate, view: View(0), view_change: None })
    }

    /// Applies what the log asks for, as a driver would.
    fn apply(log: &mut Log, store: &MemStore) -> Vec<Action> {
        let mut out = Vec::new();
        log.flush(&mut out);
        for action in &out {
            if let Action::Write { writes, durability, .. } = action {
                assert!(store.apply(writes, *durability).is_ok());
            }
        }
        out
    }

    fn filled(entries: &[Entry]) -> (Log, MemStore) {
        let store = MemStore::new();
        let mut log = Log::create(&store, cluster(), ME).expect("the store is empty").log;
        apply(&mut log, &store);
        for entry in entries {
            log.append(entry.clone(), vec![Then::Ticket(Ticket::Entered(View(0)))]);
            apply(&mut log, &store);
        }
        (log, store)
    }

    fn open(store: &MemStore) -> Result<Opened, OpenError> {
        Log::open(store, cluster(), ME, (0..4).map(ReplicaId))
    }

    #[test]
    fn what_was_appended_comes_back_in_order() {
        let (_, store) = filled(&[entered(0), committed(1), committed(2)]);
        let opened = open(&store).expect("an intact log opens");
        let shown: Vec<String> = opened.records.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["entered v0", "committed s1", "committed s2"]);
    }

    #[test]
    fn r8_nothing_leaves_before_its_record_is_written() {
        let (mut log, store) = filled(&[]);
        assert!(log.ticket > FIRST_TICKET && FIRST_TICKET > 0, "zero means that nothing is written yet");
        log.append(entered(0), vec![Then::Ticket(Ticket::Entered(View(0)))]);
        let Some(Action::Write { ticket, durability, .. }) = apply(&mut log, &store).pop() else {
            unreachable!("an entry is written")
        };
        assert_eq!(durability, Durability::Synced);
        assert!(log.written(ticket - 1).is_empty());
        assert_eq!(log.written(ticket).len(), 1);
        assert!(log.written(ticket).is_empty(), "it leaves once");
    }

    #[test]
    fn r18_a_lost_an_emptied_and_a_foreign_log_are_refused() {
        assert!(matches!(open(&MemStore::new()), Err(OpenError::NoMemory)));
        let (_, store) = filled(&[entered(0)]);
        assert!(matches!(Log::create(&store, cluster(), ME), Err(OpenError::NotEmpty)));
        let foreign = Log::open(&store, cluster(), ReplicaId(1), (0..4).map(ReplicaId));
        assert!(matches!(foreign, Err(OpenError::Foreign { .. })));
    }

    #[test]
    fn r18_a_missing_row_and_a_changed_row_are_found() {
        let (_, store) = filled(&[entered(0), committed(1), committed(2)]);
        let intact = store.snapshot();
        let mut writes = Writes::new();
        writes.delete(Family::Log, 1u64.to_be_bytes().to_vec());
        assert!(store.apply(&writes, Durability::Synced).is_ok());
        assert!(matches!(open(&store), Err(OpenError::Damaged(_))));

        store.restore(&intact);
        let mut writes = Writes::new();
        let row = Row { chain: Digest::ZERO, entry: committed(7) };
        writes.put(Family::Log, 1u64.to_be_bytes().to_vec(), encode(&row));
        assert!(store.apply(&writes, Durability::Synced).is_ok());
        assert!(matches!(open(&store), Err(OpenError::Damaged(_))));
    }

    #[test]
    fn c10_only_rows_before_the_newest_stable_record_and_below_the_slot_go() {
        let (mut log, store) = filled(&[entered(0), committed(1), committed(2), committed(3), stable(2), committed(4)]);
        log.truncate(Seq(3));
        apply(&mut log, &store);
        let shown = |store: &MemStore| -> Vec<String> {
            open(store).expect("a truncated log opens").records.iter().map(ToString::to_string).collect()
        };
        assert_eq!(shown(&store), ["committed s3", "stable s2", "committed s4"]);
        log.truncate(Seq(9));
        apply(&mut log, &store);
        assert_eq!(shown(&store), ["stable s2", "committed s4"], "nothing at or after the stable record goes");
    }

    #[test]
    fn r18_rows_count_as_durable_once_a_sync_that_covers_them_is_done() {
        let (mut log, store) = filled(&[entered(0), committed(1)]);
        assert_eq!((log.next(), log.durable_rows()), (2, None), "nobody said that they are");
        log.append(committed(2), Vec::new());
        apply(&mut log, &store);
        log.append(committed(3), vec![Then::Ticket(Ticket::Entered(View(0)))]);
        let Some(Action::Write { ticket, .. }) = apply(&mut log, &store).pop() else {
            unreachable!("an entry is written")
        };
        log.written(ticket - 1);
        assert_eq!(log.durable_rows(), Some(2), "a row for which nothing waits may still be lost");
        log.written(ticket);
        assert_eq!(log.durable_rows(), Some(4));
    }

    #[test]
    fn r18_a_log_that_was_read_is_durable_once_the_first_sync_of_the_start_is_done() {
        let (_, store) = filled(&[entered(0), committed(1)]);
        let mut log = open(&store).expect("an intact log opens").log;
        assert_eq!(log.durable_rows(), None, "what was read may never have been synced");
        let Some(Action::Write { ticket, durability, .. }) = apply(&mut log, &store).pop() else {
            unreachable!("a start writes")
        };
        assert_eq!(durability, Durability::Synced);
        assert!(log.written(ticket).is_empty());
        assert_eq!(log.durable_rows(), Some(2));
    }

    #[test]
    fn r18_rows_for_which_nothing_waits_count_with_the_next_sync() {
        let (mut log, store) = filled(&[]);
        log.append(committed(1), Vec::new());
        log.sync();
        let Some(Action::Write { ticket, .. }) = apply(&mut log, &store).pop() else {
            unreachable!("an entry is written")
        };
        log.written(ticket);
        assert_eq!(log.durable_rows(), Some(1));
    }

    #[test]
    fn c8_a_log_says_which_slots_the_state_on_disk_must_lead_to() {
        let (mut log, store) = filled(&[entered(0), committed(1), stable(2)]);
        assert_eq!(open(&store).expect("an intact log opens").truncated_below(), Seq(0));
        log.truncate(Seq(3));
        log.truncate(Seq(2));
        apply(&mut log, &store);
        assert_eq!(open(&store).expect("a truncated log opens").truncated_below(), Seq(3));
    }
}
