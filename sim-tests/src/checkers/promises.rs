//! **Durable before sent.** What a correct replica signs leaves only once the row that remembers it is synced, beside a mark
//! that counts that row; and no row goes that something still depends on.
//!
//! R8, R11 (the body is held, and durable with the vote), R18 (a mark counts the row, and nothing that is not durable), R29,
//! C10. Stronger than that a restart finds it: no crash need come between.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use polder_checkpoint::{Durability, Family, Write, Writes};
use polder_consensus::{Message, Phase, Record, Vote};
use polder_types::{Batch, Checkpoint, Digest, ReplicaId, Seq, Signed, View, decode};
use serde::{Deserialize, Serialize};

use super::{Verdict, Violation, violation};

/// The name of this checker.
pub const NAME: &str = "promises";

/// A row of the vote log, as it is written.
#[derive(Serialize, Deserialize)]
struct Row {
    chain: Digest,
    entry: Entry,
}

/// What a row says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Entry {
    /// A record of the ordering core.
    Ordering(Record),
    /// The own CHECKPOINT.
    Checkpoint(Signed<Checkpoint>),
}

/// What is promised in a log: by what it was asked to write, or by what is synced of that.
#[derive(Clone, Debug, Default)]
struct Log {
    /// One more than the number of the last row.
    next: u64,
    /// The row that remembers each vote.
    votes: BTreeMap<(Phase, View, Seq), (Digest, u64)>,
    bodies: BTreeSet<(Seq, Digest)>,
    /// The views that were entered: the VIEW-CHANGE (none in view 0), and its row.
    views: BTreeMap<View, (Option<Digest>, u64)>,
    cuts: BTreeMap<Seq, (Digest, u64)>,
    /// `h`: the cut of the newest certificate in the log, or of the state that it was started from.
    low: Seq,
    /// The row of the newest certificate.
    carried: u64,
    /// The slots that rows are about which promise something.
    slots: BTreeMap<u64, Seq>,
    /// `L`.
    window: u64,
}

/// What a replica has asked its log to keep, and what of that is synced.
#[derive(Clone, Debug, Default)]
pub struct Promises {
    durable: Log,
    waiting: VecDeque<(u64, Durability, Vec<Step>)>,
    /// Of what it was asked to write: what was accepted from a proposal, prepared, decided.
    accepted: BTreeMap<Seq, (View, Digest)>,
    prepared: BTreeMap<Seq, View>,
    decided: BTreeSet<Seq>,
    committed: BTreeMap<Seq, View>,
}

#[derive(Clone, Debug)]
enum Step {
    Row(u64, Box<Entry>),
    Gone(u64, u64),
}

impl Promises {
    /// A log as it is read at a start; `base` is the cut of the state that is read with it, `window_slots` is `L`.
    ///
    /// # Errors
    ///
    /// When a row is none.
    pub fn starts(rows: &[(Vec<u8>, Vec<u8>)], base: Seq, window_slots: u64) -> Result<Self, Violation> {
        let mut promises = Self::default();
        (promises.durable.low, promises.durable.window) = (base, window_slots);
        for (key, value) in rows {
            let (row, entry) = row(key, value)?;
            promises.note(&entry);
            promises.durable.keep(row, &entry);
        }
        Ok(promises)
    }

    /// A replica asks for a write of its log.
    ///
    /// # Errors
    ///
    /// When a row is none.
    pub fn written(&mut self, ticket: u64, durability: Durability, writes: &Writes) -> Verdict {
        // A write is whole: what it deletes, it may replace.
        let (mut steps, mut gone) = (Vec::new(), Vec::new());
        for write in writes {
            match write {
                Write::Put { family: Family::Log, key, value } => {
                    let (row, entry) = row(key, value)?;
                    self.note(&entry);
                    steps.push(Step::Row(row, Box::new(entry)));
                }
                Write::DeleteRange { family: Family::Log, from, to } => {
                    gone.push(Step::Gone(number(from)?, number(to)?));
                }
                _ => {}
            }
        }
        steps.append(&mut gone);
        self.waiting.push_back((ticket, durability, steps));
        Ok(())
    }

    /// These writes are done: with a synced one, all before it is durable.
    ///
    /// # Errors
    ///
    /// When a row is gone that something depends on.
    pub fn done(&mut self, by: ReplicaId, tickets: &[u64]) -> Verdict {
        let is_synced = |(ticket, durability, _): &&(u64, Durability, Vec<Step>)| {
            *durability == Durability::Synced && tickets.contains(ticket)
        };
        let Some(last) = self.waiting.iter().rfind(is_synced).map(|(ticket, ..)| *ticket) else { return Ok(()) };
        // What was done together was synced together.
        let last = tickets.iter().copied().max().unwrap_or(last).max(last);
        while self.waiting.front().is_some_and(|(ticket, ..)| *ticket <= last)
            && let Some((_, _, steps)) = self.waiting.pop_front()
        {
            for step in steps {
                match step {
                    Step::Row(row, entry) => self.durable.keep(row, &entry),
                    Step::Gone(from, to) => self.durable.lose(by, from, to)?,
                }
            }
        }
        Ok(())
    }

    /// A correct replica sends a message about the order, beside a mark of so many rows.
    ///
    /// # Errors
    ///
    /// When it says what is not durable yet, or the mark counts too few or too many rows.
    pub fn sent(&self, by: ReplicaId, message: &Message, mark_rows: u64) -> Verdict {
        if mark_rows > self.durable.next {
            let next = self.durable.next;
            return violation(
                NAME,
                format!("{by} says {message} beside a mark of {mark_rows} rows, {next} are durable"),
            );
        }
        if message.header().by != Some(by) {
            return Ok(());
        }
        let (what, row) = match message {
            Message::Vote(vote) => ("its record", self.durable.remembers(&vote.statement)),
            Message::ViewChange(signed, body) => {
                let view = self.durable.views.get(&signed.statement.view);
                let is_same = view.filter(|(digest, _)| *digest == Some(signed.statement.body));
                ("its record", is_same.filter(|_| body.low <= self.durable.low).map(|(_, row)| *row))
            }
            Message::Proposal(signed, _) => ("the view", self.durable.entered(signed.statement.view)),
            Message::NewView(signed, _) => ("the view", self.durable.entered(signed.statement.view)),
            _ => return Ok(()),
        };
        judge(by, &message.to_string(), what, row, mark_rows)
    }

    /// A correct replica sends its statement about a cut.
    ///
    /// # Errors
    ///
    /// As [`Promises::sent`].
    pub fn announced(&self, by: ReplicaId, statement: &Checkpoint, mark_rows: u64) -> Verdict {
        let kept = self.durable.cuts.get(&statement.seq).filter(|(root, _)| *root == statement.root);
        let what = format!("CHECKPOINT {by} {}", statement.seq);
        judge(by, &what, "its row", kept.map(|(_, row)| *row), mark_rows)
    }

    /// The batch that it has accepted from a proposal for this slot, and in which view.
    #[must_use]
    pub fn accepted(&self, slot: Seq) -> Option<(View, Digest)> {
        self.accepted.get(&slot).copied()
    }

    /// Whether it has prepared a batch for this slot in this view.
    #[must_use]
    pub fn is_prepared(&self, slot: Seq, view: View) -> bool {
        self.prepared.get(&slot) == Some(&view)
    }

    /// Whether it has written that this slot is decided.
    #[must_use]
    pub fn is_decided(&self, slot: Seq) -> bool {
        self.decided.contains(&slot)
    }

    /// The highest view in which it has voted COMMIT for this slot.
    #[must_use]
    pub fn committed(&self, slot: Seq) -> Option<View> {
        self.committed.get(&slot).copied()
    }

    fn note(&mut self, entry: &Entry) {
        let Entry::Ordering(record) = entry else { return };
        match record {
            Record::Accepted { proposal, vote, .. } => {
                let Vote { phase, view, slot, digest, .. } = vote.statement;
                self.accepted.remove(&slot);
                if proposal.is_some() {
                    self.accepted.insert(slot, (view, digest));
                }
                if phase == Phase::Commit {
                    self.committed.insert(slot, view);
                }
            }
            Record::Prepared { vote, .. } => {
                self.prepared.insert(vote.statement.slot, vote.statement.view);
                self.committed.insert(vote.statement.slot, vote.statement.view);
            }
            Record::Committed { certificate, .. } => drop(self.decided.insert(certificate.statement.slot)),
            Record::Stable { certificate, .. } => {
                // What is below the cut is of no interest any more.
                let low = certificate.statement.seq.next();
                self.accepted = self.accepted.split_off(&low);
                self.prepared = self.prepared.split_off(&low);
                self.decided = self.decided.split_off(&low);
                self.committed = self.committed.split_off(&low);
            }
            _ => {}
        }
    }
}

impl Log {
    fn keep(&mut self, row: u64, entry: &Entry) {
        self.next = self.next.max(row + 1);
        let record = match entry {
            Entry::Checkpoint(signed) => {
                self.cuts.insert(signed.statement.seq, (signed.statement.root, row));
                return;
            }
            Entry::Ordering(record) => record,
        };
        match record {
            Record::Entered { view, .. } => drop(self.views.insert(*view, (None, row))),
            Record::Accepted { body, vote, .. } => self.keep_vote(row, &vote.statement, body.is_some()),
            Record::Prepared { body, vote, .. } => self.keep_vote(row, &vote.statement, body.is_some()),
            Record::Committed { certificate, body } => {
                if body.is_some() {
                    self.bodies.insert((certificate.statement.slot, certificate.statement.digest));
                }
            }
            Record::ViewChange { signed, .. } => {
                self.views.insert(signed.statement.view, (Some(signed.statement.body), row));
            }
            Record::Stable { certificate, view, view_change } => {
                self.low = self.low.max(certificate.statement.seq);
                self.carried = row;
                let digest = view_change.as_ref().map(|(signed, _)| signed.statement.body);
                // The rows before it may go now.
                let (_, first) = *self.views.entry(*view).or_insert((digest, row));
                self.views.insert(*view, (digest, first.min(row)));
            }
            #[cfg(polder_mutations)]
            Record::Volatile => {}
        }
    }

    fn keep_vote(&mut self, row: u64, vote: &Vote, has_body: bool) {
        self.votes.insert((vote.phase, vote.view, vote.slot), (vote.digest, row));
        self.slots.insert(row, vote.slot);
        if has_body {
            self.bodies.insert((vote.slot, vote.digest));
        }
    }

    /// Rows `from..to` are gone: none may be about a slot above `h`, and a stable cut must carry forward what they said of
    /// views (C10).
    fn lose(&mut self, by: ReplicaId, from: u64, to: u64) -> Verdict {
        let (low, carried) = (self.low, self.carried);
        let needed = self.slots.range(from..to).find(|(_, slot)| **slot > low);
        if let Some((row, slot)) = needed {
            return violation(NAME, format!("{by} deletes row {row}, about {slot}, and its cut is {low} only"));
        }
        if carried < to {
            return violation(NAME, format!("{by} deletes rows up to {to}, and that of its cut is {carried}"));
        }
        let kept = self.slots.split_off(&to);
        self.slots.retain(|row, _| *row < from);
        self.slots.extend(kept);
        Ok(())
    }

    fn entered(&self, view: View) -> Option<u64> {
        self.views.get(&view).map(|(_, row)| *row)
    }

    /// The row that remembers a vote, if its view is entered, its body there, and its slot in the window.
    fn remembers(&self, vote: &Vote) -> Option<u64> {
        let (digest, row) = *self.votes.get(&(vote.phase, vote.view, vote.slot))?;
        let has_body = self.bodies.contains(&(vote.slot, digest)) || digest == Batch::digest(&Batch::no_op().to_blob());
        let is_entered = self.views.last_key_value().is_some_and(|(view, _)| *view >= vote.view);
        let is_inside = vote.slot <= self.low.plus(self.window);
        (digest == vote.digest && has_body && is_entered && is_inside).then_some(row)
    }
}

fn judge(by: ReplicaId, said: &str, what: &str, row: Option<u64>, mark_rows: u64) -> Verdict {
    match row {
        None => violation(NAME, format!("{by} says {said} before {what} is durable, body and all")),
        Some(row) if mark_rows <= row => {
            violation(NAME, format!("{by} says {said}, which row {row} remembers, beside a mark of {mark_rows} rows"))
        }
        Some(_) => Ok(()),
    }
}

fn number(key: &[u8]) -> Result<u64, Violation> {
    let bytes = key.try_into().map_err(|_| Violation { checker: NAME, sentence: "a row has no number".to_string() })?;
    Ok(u64::from_be_bytes(bytes))
}

fn row(key: &[u8], value: &[u8]) -> Result<(u64, Entry), Violation> {
    let number = number(key)?;
    let row: Row = decode(value, usize::MAX)
        .map_err(|why| Violation { checker: NAME, sentence: format!("row {number} of a log is none: {why}") })?;
    Ok((number, row.entry))
}

#[cfg(test)]
mod tests {
    use polder_types::{ClusterId, Epoch, Proof, SigningKey, Timestamp, encode};

    use super::*;

    const ME: ReplicaId = ReplicaId(1);
    const VIEW: View = View(0);

    fn signed<S: polder_types::Statement>(statement: S) -> Signed<S> {
        Signed::sign(ME, statement, ClusterId(Digest::ZERO), &SigningKey::from_seed(&[1; 32])).into_inner()
    }

    fn vote(slot: u64) -> Signed<Vote> {
        let digest = Digest([7; 32]);
        signed(Vote { phase: Phase::Prepare, epoch: Epoch(0), view: VIEW, slot: Seq(slot), digest })
    }

    fn accepted(slot: u64, has_body: bool) -> Entry {
        let body = has_body.then(Default::default);
        Entry::Ordering(Record::Accepted { proposal: None, body, vote: vote(slot) })
    }

    fn entered() -> Entry {
        Entry::Ordering(Record::Entered { epoch: Epoch(0), view: VIEW })
    }

    fn stable(seq: u64) -> Entry {
        let (root, history, config, pending) = (Digest::ZERO, Digest::ZERO, Digest::ZERO, Digest::ZERO);
        let statement =
            Checkpoint { epoch: Epoch(0), seq: Seq(seq), root, history, time: Timestamp(0), config, pending };
        let certificate = Proof { statement, signers: Vec::new() };
        Entry::Ordering(Record::Stable { certificate, view: VIEW, view_change: None })
    }

    fn bytes(row: u64, entry: Entry) -> (Vec<u8>, Vec<u8>) {
        (row.to_be_bytes().to_vec(), encode(&Row { chain: Digest::ZERO, entry }))
    }

    /// A log of these rows, all of them durable.
    fn log(entries: Vec<Entry>) -> Promises {
        let rows: Vec<_> = (0..).zip(entries).map(|(row, entry)| bytes(row, entry)).collect();
        Promises::starts(&rows, Seq(0), 8).expect("rows")
    }

    fn says(promises: &Promises, slot: u64, mark_rows: u64) -> Verdict {
        promises.sent(ME, &Message::Vote(vote(slot)), mark_rows)
    }

    #[test]
    fn a_vote_whose_record_or_body_or_view_is_not_durable_is_caught() {
        assert_eq!(says(&log(vec![entered(), accepted(3, true)]), 3, 2), Ok(()));
        assert!(says(&log(vec![entered()]), 3, 1).is_err(), "no record");
        assert!(says(&log(vec![entered(), accepted(3, false)]), 3, 2).is_err(), "no body");
        assert!(says(&log(vec![accepted(3, true)]), 3, 1).is_err(), "no view");
        assert!(says(&log(vec![entered(), accepted(9, true)]), 9, 2).is_err(), "above the durable window");
    }

    #[test]
    fn a_write_counts_once_it_is_synced() {
        let mut promises = log(vec![entered()]);
        let (key, value) = bytes(1, accepted(3, true));
        let mut writes = Writes::new();
        writes.put(Family::Log, key, value);
        assert_eq!(promises.written(1, Durability::Lazy, &writes), Ok(()));
        assert_eq!(promises.done(ME, &[1]), Ok(()));
        assert!(says(&promises, 3, 2).is_err());
        assert_eq!(promises.written(2, Durability::Synced, &Writes::new()), Ok(()));
        assert_eq!(promises.done(ME, &[2]), Ok(()));
        assert_eq!(says(&promises, 3, 2), Ok(()));
    }

    #[test]
    fn a_mark_that_counts_too_few_or_too_many_rows_is_caught() {
        let promises = log(vec![entered(), accepted(3, true)]);
        assert!(says(&promises, 3, 1).is_err());
        assert!(says(&promises, 3, 3).is_err());
    }

    #[test]
    fn a_row_that_is_deleted_though_something_depends_on_it_is_caught() {
        let gone = |mut promises: Promises, to: u64| {
            let mut writes = Writes::new();
            writes.delete_range(Family::Log, 0u64.to_be_bytes().to_vec(), to.to_be_bytes().to_vec());
            promises.written(1, Durability::Synced, &writes).and_then(|()| promises.done(ME, &[1]))
        };
        let rows = || vec![entered(), accepted(3, true), accepted(5, true), stable(4)];
        assert_eq!(gone(log(rows()), 2), Ok(()));
        assert!(gone(log(rows()), 3).is_err(), "a slot above the cut");
        assert!(gone(log(vec![entered(), stable(4)]), 2).is_err(), "the certificate of the cut");
    }
}
