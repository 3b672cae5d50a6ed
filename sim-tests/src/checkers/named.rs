//! **Named.** Who holds a statement of a liar and is given another that contradicts it reports that, once a kind and start.
//!
//! R41. A replica holds, of the view that it is in: a vote that came while its slot was in the window and undecided; the
//! proposal that it accepted; a VIEW-CHANGE, while it leads and the view has not started; the NEW-VIEW that the view started
//! with. And of each slot of its window the COMMITs of the last view before that had any. Nothing else is kept (R42): a liar
//! whose two statements reach no such replica, or reach it too late, is not caught, and need not be. What a replica refuses
//! to have verified (`wants`) counts as given, or a filter hides a liar.

use std::collections::{BTreeMap, BTreeSet};

use polder_consensus::{EvidenceKind, Message, Phase, Proposal, ViewChangeBody, Vote};
use polder_types::{Digest, Epoch, ReplicaId, Seq, View};

use super::promises::Promises;
use super::{Verdict, violation};

/// The name of this checker.
pub const NAME: &str = "named";

/// What of a replica's state says what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Whether its memory is proven: what comes before that is not taken up (R18).
    pub has_begun: bool,
    /// Its epoch.
    pub epoch: Epoch,
    /// Its view.
    pub view: View,
    /// Whether that has started.
    pub entered: bool,
    /// Who leads it.
    pub leader: ReplicaId,
    /// Whether that is this replica.
    pub is_leader: bool,
    /// `h`.
    pub low: Seq,
    /// `h+L`.
    pub high: Seq,
    /// Contiguous committed, and `F`.
    pub fresh: Seq,
}

impl Place {
    fn contains(&self, slot: Seq) -> bool {
        slot > self.low && slot <= self.high
    }
}

/// What one correct replica was given since its start.
#[derive(Clone, Debug, Default)]
pub struct Named {
    view: View,
    votes: BTreeMap<(Phase, Seq, ReplicaId), Digest>,
    changes: BTreeMap<ReplicaId, Digest>,
    new_view: Option<Digest>,
    /// By slot: the last view of which it holds COMMITs, and these.
    commits: BTreeMap<Seq, (View, BTreeMap<ReplicaId, Digest>)>,
    reported: BTreeSet<(ReplicaId, EvidenceKind)>,
}

impl Named {
    /// It has reported evidence.
    pub fn reports(&mut self, culprit: ReplicaId, kind: EvidenceKind) {
        self.reported.insert((culprit, kind));
    }

    /// Whom it must report when it takes this message, as it stands before that; none if it has done so.
    #[must_use]
    pub fn due(&self, message: &Message, at: &Place, promises: &Promises) -> Option<(ReplicaId, EvidenceKind)> {
        let header = message.header();
        let by = header.by.filter(|_| header.epoch == Some(at.epoch))?;
        let is_current = header.view == Some(at.view) && self.view == at.view;
        let kind = match message {
            Message::Vote(vote) if is_current => {
                let Vote { phase, slot, digest, .. } = vote.statement;
                let is_open = at.contains(slot) && !promises.is_decided(slot);
                let first = self.votes.get(&(phase, slot, by)).filter(|first| is_open && **first != digest);
                first.map(|_| EvidenceKind::Votes)
            }
            Message::Proposal(proposal, _) if is_current && at.entered && by == at.leader => {
                let Proposal { view, slot, digest, .. } = proposal.statement;
                let is_open = at.contains(slot) && slot <= at.fresh;
                let first = promises.accepted(slot).filter(|(of, first)| is_open && *of == view && *first != digest);
                first.map(|_| EvidenceKind::Proposals)
            }
            Message::ViewChange(signed, body) => {
                let is_awaited = is_current && at.is_leader && !at.entered;
                let first = self.changes.get(&by).filter(|first| is_awaited && **first != signed.statement.body);
                // One is enough: which of the two comes first is not judged here.
                let forgets = || self.forgets(by, signed.statement.view, body, at, promises);
                first.map(|_| EvidenceKind::ViewChanges).or_else(|| forgets().then_some(EvidenceKind::Forgotten))
            }
            Message::NewView(signed, _) if is_current && at.entered => {
                let first = self.new_view.filter(|first| *first != signed.statement.body);
                first.map(|_| EvidenceKind::NewViews)
            }
            _ => None,
        };
        kind.map(|kind| (by, kind)).filter(|due| !self.reported.contains(due))
    }

    /// Whether a VIEW-CHANGE leaves out a COMMIT that is held (as `verify_evidence` understands it).
    fn forgets(&self, by: ReplicaId, view: View, body: &ViewChangeBody, at: &Place, promises: &Promises) -> bool {
        let low = at.low.max(body.low).min(at.high);
        let held = self.commits.range(low.next()..=at.high.next());
        let mut held = held.filter_map(|(slot, (of, commits))| Some((*slot, *of, *commits.get(&by)?)));
        view >= at.view
            && held.any(|(slot, of, digest)| {
                let keeps = |entry: &polder_consensus::Entry| {
                    entry.slot == slot && (entry.view > of || entry.view == of && entry.digest == digest)
                };
                // Own COMMITs of a later view take the place of those.
                let is_last = promises.committed(slot).is_none_or(|own| own <= of);
                of < view && is_last && !body.entries.iter().any(keeps)
            })
    }

    /// Whether it may refuse to look at this message, though it would be evidence: a vote that can change nothing any more.
    #[must_use]
    pub fn may_refuse(&self, message: &Message, at: &Place, promises: &Promises, quorum: usize) -> bool {
        match message {
            Message::Vote(vote) if vote.statement.phase == Phase::Prepare => {
                promises.is_prepared(vote.statement.slot, at.view)
            }
            // Perhaps it holds the certificate and lacks the body.
            Message::Vote(vote) => {
                let commits = self.commits.get(&vote.statement.slot).filter(|(of, _)| *of == at.view);
                commits.is_some_and(|(_, commits)| commits.len() + 1 >= quorum)
            }
            // A backup in the view of a VIEW-CHANGE has no use for it.
            Message::ViewChange(signed, _) => signed.statement.view == at.view && (!at.is_leader || at.entered),
            _ => false,
        }
    }

    /// It has taken a message: how it stood before, and stands now.
    pub fn took(&mut self, message: &Message, before: &Place, after: &Place, promises: &Promises) {
        if self.view != after.view {
            self.view = after.view;
            self.votes.clear();
            self.changes.clear();
            self.new_view = None;
        }
        if after.entered {
            self.changes.clear();
        }
        let header = message.header();
        let Some(by) = header.by.filter(|_| header.view == Some(after.view) && header.epoch == Some(after.epoch))
        else {
            return;
        };
        match message {
            Message::Vote(vote) if before.view == after.view => {
                let Vote { phase, view, slot, digest, .. } = vote.statement;
                if !before.contains(slot) || !after.contains(slot) || promises.is_decided(slot) {
                    return;
                }
                self.votes.entry((phase, slot, by)).or_insert(digest);
                if phase == Phase::Commit {
                    let held = self.commits.entry(slot).or_default();
                    if held.0 != view {
                        *held = (view, BTreeMap::new());
                    }
                    held.1.entry(by).or_insert(digest);
                }
                if self.commits.len() > 64 {
                    self.commits = self.commits.split_off(&after.low.next());
                }
            }
            Message::ViewChange(signed, _) if after.is_leader && !after.entered => {
                self.changes.entry(by).or_insert(signed.statement.body);
            }
            Message::NewView(signed, _) if after.entered && !(before.view == after.view && before.entered) => {
                self.new_view = Some(signed.statement.body);
            }
            _ => {}
        }
    }

    /// It has taken, or refused, what is evidence.
    ///
    /// # Errors
    ///
    /// When it has not reported it.
    pub fn judge(&self, by: ReplicaId, due: (ReplicaId, EvidenceKind), message: &Message) -> Verdict {
        if self.reported.contains(&due) {
            return Ok(());
        }
        let (culprit, kind) = due;
        violation(NAME, format!("{by} was given {message}, holds proof that {culprit} signed {kind}, and says nothing"))
    }
}
