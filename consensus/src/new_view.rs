//! How a view starts: the re-proposal, a pure function of the VIEW-CHANGEs that its NEW-VIEW encloses (R9).
//!
//! With `h*` the highest `h` among them, for each slot of `(h*, last entry]`:
//!
//! | entries for the slot | chosen |
//! | --- | --- |
//! | none | a no-op |
//! | one | its batch |
//! | several, of different views | the batch of the highest view |
//! | several of the highest view, one batch | that batch |
//! | `r = 0`: several of one view, different batches | nothing: a fault outside the model, stop |
//! | entries at or below `h*` | not looked at |
//!
//! Fresh slots start after the last entry, or after `h*` when there is none above it.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use polder_types::{Digest, ReplicaId, Seq, View};

use crate::{Entry, ViewChangeBody, Why};

/// What a view starts with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// `h*`.
    pub(crate) low: Seq,
    /// The last forced slot; at least `h*`.
    pub(crate) last: Seq,
    /// What each slot of `(h*, last]` is forced to.
    pub(crate) chosen: BTreeMap<Seq, Chosen>,
}

/// What a slot is forced to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) digest: Digest,
    /// Whose VIEW-CHANGEs list this batch for this slot in the chosen view: who should have its body.
    pub(crate) listers: Vec<ReplicaId>,
}

/// Computes how a view starts from the VIEW-CHANGEs that its NEW-VIEW encloses.
///
/// # Errors
///
/// With `r = 0`, when two of them name different batches for one slot in one view: somebody lied.
pub(crate) fn plan<'a>(
    changes: impl Iterator<Item = (ReplicaId, &'a ViewChangeBody)> + Clone,
    no_op: Digest,
) -> Result<Plan, Why> {
    let low = changes.clone().map(|(_, body)| body.low).max().unwrap_or_default();
    let mut best: BTreeMap<Seq, (View, Chosen)> = BTreeMap::new();
    let mut unproved: BTreeMap<(Seq, View), Digest> = BTreeMap::new();
    let entries = changes.flat_map(|(by, body)| body.entries.iter().map(move |entry| (by, entry)));
    for (by, entry) in entries.filter(|(_, entry)| entry.slot > low) {
        let Entry { slot, view, digest, prepared } = entry;
        let (slot, view, digest) = (*slot, *view, *digest);
        if prepared.is_none() {
            let first = *unproved.entry((slot, view)).or_insert(digest);
            if first != digest {
                return Err(Why::Equivocation { slot, first, second: digest });
            }
        }
        let none = Chosen { digest, listers: Vec::new() };
        let (best_view, chosen) = best.entry(slot).or_insert_with(|| (view, none.clone()));
        // Two prepared certificates of one view and slot need more liars than there may be; even then all choose alike.
        if (view, digest) > (*best_view, chosen.digest) {
            mark!(HigherViewWins);
            (*best_view, *chosen) = (view, none);
        }
        if (view, digest) == (*best_view, chosen.digest) {
            chosen.listers.push(by);
        }
    }
    let last = best.keys().next_back().copied().unwrap_or_default().max(low);
    let chosen = (low.0.saturating_add(1)..=last.0).map(Seq).map(|slot| {
        let chosen = best.remove(&slot).map(|(_, chosen)| chosen);
        (slot, chosen.unwrap_or_else(|| no_op_chosen(no_op)))
    });
    Ok(Plan { low, last, chosen: chosen.collect() })
}

/// A hole.
fn no_op_chosen(digest: Digest) -> Chosen {
    mark!(HoleIsNoOp);
    Chosen { digest, listers: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Phase, Suspect, Vote};
    use alloc::vec;
    use polder_types::{Epoch, Proof};

    const NO_OP: Digest = Digest([0xff; 32]);

    fn digest(byte: u8) -> Digest {
        Digest([byte; 32])
    }

    /// A VIEW-CHANGE with this `h` and these (slot, view, batch); `proved` gives the entries certificates.
    fn change(low: u64, entries: &[(u64, u64, u8)], proved: bool) -> ViewChangeBody {
        let entry = |&(slot, view, batch): &(u64, u64, u8)| {
            let (slot, view, digest) = (Seq(slot), View(view), digest(batch));
            let statement = Vote { phase: Phase::Prepare, epoch: Epoch(0), view, slot, digest };
            Entry { slot, view, digest, prepared: proved.then(|| Proof { statement, signers: vec![] }) }
        };
        ViewChangeBody {
            suspects: Proof { statement: Suspect { epoch: Epoch(0), view: View(8) }, signers: vec![] },
            low: Seq(low),
            stable: None,
            entries: entries.iter().map(entry).collect(),
        }
    }

    /// `h*`, the last forced slot, and what each slot is forced to.
    type Outcome = (u64, u64, Vec<(u64, u8)>);

    fn outcome(changes: &[ViewChangeBody]) -> Result<Outcome, Why> {
        let enclosed = changes.iter().enumerate().map(|(by, body)| (ReplicaId(by as u8), body));
        plan(enclosed, NO_OP).map(|plan| {
            let chosen = plan.chosen.iter().map(|(slot, chosen)| (slot.0, chosen.digest.0[0])).collect();
            (plan.low.0, plan.last.0, chosen)
        })
    }

    #[test]
    fn r9_the_rows_of_the_table() {
        for proved in [true, false] {
            let rows: &[(&str, &[ViewChangeBody], Outcome)] = &[
                ("nothing", &[change(0, &[], proved), change(0, &[], proved)], (0, 0, vec![])),
                (
                    "a hole is a no-op",
                    &[change(0, &[(1, 0, 1), (3, 0, 3)], proved), change(0, &[], proved)],
                    (0, 3, vec![(1, 1), (2, 0xff), (3, 3)]),
                ),
                (
                    "the highest view wins, wherever it is listed",
                    &[
                        change(0, &[(1, 5, 5)], proved),
                        change(0, &[(1, 7, 7)], proved),
                        change(0, &[(1, 6, 6)], proved),
                    ],
                    (0, 1, vec![(1, 7)]),
                ),
                (
                    "per slot, not per replica",
                    &[change(0, &[(1, 2, 1), (2, 7, 2)], proved), change(0, &[(1, 3, 9), (2, 1, 8)], proved)],
                    (0, 2, vec![(1, 9), (2, 2)]),
                ),
                (
                    "the highest watermark counts, and nothing at or below it",
                    &[change(0, &[(3, 7, 3), (4, 7, 4), (5, 1, 5)], proved), change(4, &[], proved)],
                    (4, 5, vec![(5, 5)]),
                ),
                (
                    "all entries below the highest watermark",
                    &[change(0, &[(3, 7, 3)], proved), change(4, &[], proved)],
                    (4, 4, vec![]),
                ),
            ];
            for (name, changes, expected) in rows {
                assert_eq!(outcome(changes), Ok(expected.clone()), "{name}");
            }
        }
    }

    #[test]
    fn r9_without_liars_two_batches_of_one_view_stop_everything() {
        let changes = [change(0, &[(1, 7, 1)], false), change(0, &[(1, 7, 2)], false)];
        let why = Why::Equivocation { slot: Seq(1), first: digest(1), second: digest(2) };
        assert_eq!(outcome(&changes), Err(why));
        // Also of a superseded view.
        let superseded = [change(0, &[(1, 8, 3)], false), changes[0].clone(), changes[1].clone()];
        assert!(outcome(&superseded).is_err());
    }

    #[test]
    fn r9_the_listers_of_the_chosen_batch_are_those_of_the_chosen_view() {
        let changes = [change(0, &[(1, 7, 1)], true), change(0, &[(1, 6, 1)], true), change(0, &[(1, 7, 1)], true)];
        let enclosed = changes.iter().enumerate().map(|(by, body)| (ReplicaId(by as u8), body));
        let listers = plan(enclosed, NO_OP).ok().and_then(|mut plan| plan.chosen.remove(&Seq(1)));
        assert_eq!(listers.map(|chosen| chosen.listers), Some(vec![ReplicaId(0), ReplicaId(2)]));
    }
}
