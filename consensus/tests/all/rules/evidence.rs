//! Evidence (R41): a liar that is caught is named, by bytes that prove it to anybody; a correct replica never is.

use polder_consensus::{
    Entry, Evidence, EvidenceKind, Message, NotEvidence, Output, Phase, Record, RecoveredLog, ViewChange,
    verify_evidence,
};
use polder_types::{Digest, Epoch, ReplicaId, Seq, View};

use crate::solo::{Solo, batch};
use crate::world::constants;

/// What a core has reported, in order.
fn reported(solo: &Solo) -> Vec<Evidence> {
    let found = solo.others.iter().filter_map(|output| match output {
        Output::Misbehaviour(evidence) => Some(evidence.clone()),
        _ => None,
    });
    found.collect()
}

#[test]
fn r41_two_of_a_kind_are_evidence_once() {
    let mut solo = Solo::new(4, 1, 1);
    for at in 1..=3 {
        solo.offer(0, solo.propose(0, 1, &batch(at)));
        solo.offer(2, solo.vote(2, Phase::Prepare, 0, 1, &batch(at)));
    }
    let evidence: Vec<_> = solo.others.iter().filter(|output| matches!(output, Output::Misbehaviour(_))).collect();
    assert_eq!(evidence.len(), 2, "{evidence:?}");
    assert!(solo.suspects(), "r6: proof of the leader's fault");
}

#[test]
fn r41_a_view_change_that_forgets_its_commit_is_evidence() {
    let mut solo = Solo::new(4, 1, 1);
    let bytes = batch(1);
    solo.give(0, solo.propose(0, 1, &bytes));
    solo.give(3, solo.vote(3, Phase::Commit, 0, 1, &bytes));
    solo.leave(0);
    let (signed, body) = solo.change(3, 1, None, Vec::new());
    solo.give(3, Message::ViewChange(signed, body));
    assert!(matches!(solo.others[..], [Output::Misbehaviour(Evidence::Forgotten(..))]));
}

/// One liar a kind of evidence, and a core that catches it.
fn caught(kind: EvidenceKind) -> (Solo, u8) {
    let mut solo = Solo::new(4, 1, 1);
    let (one, other) = (batch(1), batch(2));
    let liar = match kind {
        EvidenceKind::Proposals => {
            solo.give(0, solo.propose(0, 1, &one));
            solo.give(0, solo.propose(0, 1, &other));
            0
        }
        EvidenceKind::Votes => {
            solo.give(2, solo.vote(2, Phase::Commit, 0, 1, &one));
            solo.give(2, solo.vote(2, Phase::Commit, 0, 1, &other));
            2
        }
        EvidenceKind::ViewChanges => {
            solo.leave(0);
            for entries in [vec![solo.entry(0, 1, &one)], Vec::new()] {
                let (signed, body) = solo.change(3, 1, None, entries);
                solo.give(3, Message::ViewChange(signed, body));
            }
            3
        }
        EvidenceKind::NewViews => {
            solo.leave(0);
            solo.leave(1);
            solo.give(2, solo.empty_new_view(2));
            let others = [1, 2, 3].map(|by| solo.change(by, 2, None, Vec::new()));
            solo.give(2, solo.new_view(2, others.to_vec()));
            2
        }
        EvidenceKind::Forgotten => {
            solo.give(0, solo.propose(0, 1, &one));
            solo.give(3, solo.vote(3, Phase::Commit, 0, 1, &one));
            solo.leave(0);
            let (signed, body) = solo.change(3, 1, None, Vec::new());
            solo.give(3, Message::ViewChange(signed, body));
            3
        }
    };
    (solo, liar)
}

#[test]
fn r41_each_kind_is_reported_once_and_its_bytes_alone_name_the_liar() {
    for kind in EvidenceKind::ALL {
        let (solo, liar) = caught(kind);
        let found = reported(&solo);
        assert_eq!(found.len(), 1, "{kind}: {found:?}");
        assert_eq!(found[0].kind(), kind);
        let misdeed = verify_evidence(&solo.keyring, &found[0].to_bytes()).unwrap();
        assert_eq!((misdeed.culprit, misdeed.kind, misdeed.epoch), (ReplicaId(liar), kind, Epoch(0)));
        assert_eq!(misdeed.slot.is_some(), !matches!(kind, EvidenceKind::ViewChanges | EvidenceKind::NewViews));
        assert!(misdeed.to_string().starts_with(&format!("r{liar} signed {kind}")), "{misdeed}");
    }
}

#[test]
fn r41_bytes_that_were_changed_or_cut_and_those_of_another_cluster_prove_nothing() {
    for kind in EvidenceKind::ALL {
        let (solo, _) = caught(kind);
        let bytes = reported(&solo)[0].to_bytes();
        // Every bit would take long: one of each byte, another one each time.
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 8);
            assert!(verify_evidence(&solo.keyring, &changed).is_err(), "{kind}: bit {} of byte {at}", at % 8);
        }
        for length in 0..bytes.len() {
            assert_eq!(verify_evidence(&solo.keyring, &bytes[..length]), Err(NotEvidence::Malformed));
        }
        let stranger = Solo::new(5, 1, 1).keyring;
        assert_eq!(verify_evidence(&stranger, &bytes), Err(NotEvidence::Signature));
    }
}

#[test]
fn r41_what_one_correct_replica_or_two_replicas_sign_is_no_evidence() {
    let solo = Solo::new(4, 1, 1);
    let (one, other) = (batch(1), batch(2));
    let vote = |by, phase, view, slot, bytes: &_| solo.sign(by, crate::solo::vote(phase, view, slot, bytes));
    let first = vote(2, Phase::Commit, 0, 1, &one);
    let change = |by, view, entries: Vec<Entry>| Box::new(solo.change(by, view, None, entries));
    let kept = solo.entry(0, 1, &one);
    let honest = [
        Evidence::Votes(first.clone(), first.clone()),
        Evidence::Votes(first.clone(), vote(3, Phase::Commit, 0, 1, &other)),
        Evidence::Votes(first.clone(), vote(2, Phase::Prepare, 0, 1, &other)),
        Evidence::Votes(first.clone(), vote(2, Phase::Commit, 1, 1, &other)),
        Evidence::Votes(first.clone(), vote(2, Phase::Commit, 0, 2, &other)),
        Evidence::ViewChanges(change(2, 1, Vec::new()).0, change(2, 2, Vec::new()).0),
        Evidence::ViewChanges(change(2, 1, Vec::new()).0, change(3, 1, vec![kept.clone()]).0),
        Evidence::Forgotten(first.clone(), change(2, 1, vec![kept])),
        Evidence::Forgotten(first, change(3, 1, Vec::new())),
    ];
    for evidence in honest {
        assert_eq!(evidence.verify(&solo.keyring), Err(NotEvidence::NoContradiction), "{evidence:?}");
    }
}

#[test]
fn r41_a_body_that_was_not_signed_proves_nothing() {
    let solo = Solo::new(4, 1, 1);
    let commit = solo.sign(2, crate::solo::vote(Phase::Commit, 0, 1, &batch(1)));
    let (signed, mut body) = solo.change(2, 1, None, vec![solo.entry(0, 1, &batch(1))]);
    body.entries.clear();
    let forged = Evidence::Forgotten(commit.clone(), Box::new((signed, body)));
    assert_eq!(forged.verify(&solo.keyring), Err(NotEvidence::Signature));
    let (_, body) = solo.change(2, 1, None, Vec::new());
    let statement = ViewChange { epoch: Epoch(0), view: View(1), body: Digest([7; 32]) };
    let forged = Evidence::Forgotten(commit, Box::new((solo.sign(2, statement), body)));
    assert_eq!(forged.verify(&solo.keyring), Err(NotEvidence::Signature));
}

/// A replica crashes after each record of its log, and comes back: nothing that it says then contradicts what it said.
#[test]
fn r41_a_replica_that_crashes_anywhere_never_signs_evidence_against_itself() {
    let bytes: Vec<_> = (1..=3).map(batch).collect();
    let mut whole = Solo::new(4, 1, 1);
    let live = |solo: &mut Solo| {
        for (slot, bytes) in (1..).zip(&bytes) {
            solo.give(0, solo.propose(0, slot, bytes));
            for by in [0, 2, 3] {
                solo.give(by, solo.vote(by, Phase::Prepare, 0, slot, bytes));
            }
        }
        solo.leave(0);
        for by in [0, 2, 3] {
            let (signed, body) = solo.change(by, 1, None, Vec::new());
            solo.give(by, Message::ViewChange(signed, body));
        }
        solo.leave(1);
    };
    live(&mut whole);
    for rows in 0..=whole.log.len() {
        let records: Vec<Record> = whole.log[..rows].to_vec();
        // What had left when the crash came is what rides in these records.
        let mut said: Vec<Message> = Vec::new();
        for record in &records {
            said.extend(match record {
                Record::Accepted { vote, .. } | Record::Prepared { vote, .. } => Some(Message::Vote(vote.clone())),
                Record::ViewChange { signed, body } => Some(Message::ViewChange(signed.clone(), body.clone())),
                _ => None,
            });
        }
        let mut again = Solo::with(4, 1, 1, constants(), Some(RecoveredLog { records, base: None }));
        // Another world: the leader, and what others prepared, are not the same after the crash.
        again.give(0, again.propose(0, 1, &batch(9)));
        live(&mut again);
        again.leave(2);
        said.extend(again.sent.iter().cloned());
        check_no_contradiction(&again, &said);
    }
}

/// Whatever pairs one makes of what replica 1 has said.
fn check_no_contradiction(solo: &Solo, said: &[Message]) {
    let mut pairs: Vec<Evidence> = Vec::new();
    for first in said {
        for second in said {
            match (first, second) {
                (Message::Vote(a), Message::Vote(b)) => pairs.push(Evidence::Votes(a.clone(), b.clone())),
                (Message::ViewChange(a, _), Message::ViewChange(b, _)) => {
                    pairs.push(Evidence::ViewChanges(a.clone(), b.clone()));
                }
                (Message::NewView(a, _), Message::NewView(b, _)) => {
                    pairs.push(Evidence::NewViews(a.clone(), b.clone()));
                }
                (Message::Proposal(a, _), Message::Proposal(b, _)) => {
                    pairs.push(Evidence::Proposals(a.clone(), b.clone()));
                }
                (Message::Vote(a), Message::ViewChange(b, body)) => {
                    pairs.push(Evidence::Forgotten(a.clone(), Box::new((b.clone(), body.clone()))));
                }
                _ => {}
            }
        }
    }
    let own = pairs.into_iter().filter(|evidence| evidence.culprit() == ReplicaId(1));
    for evidence in own {
        assert_eq!(evidence.verify(&solo.keyring), Err(NotEvidence::NoContradiction), "{evidence:?}");
    }
    assert!(said.iter().any(|message| matches!(message, Message::Vote(vote) if vote.statement.slot == Seq(1))));
}
