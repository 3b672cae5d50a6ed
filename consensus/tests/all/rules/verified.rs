//! What is verified of what others enclose: every part, each by its own rule (R2, R3, R9, R42).

use polder_consensus::{BadMessage, Message, Phase, Seen, Suspect, ViewChange, ViewChangeBody, verify};
use polder_types::{Epoch, Proof, Seq, Signed, View};

use crate::solo::{Solo, batch, vote};

type Change = (Signed<ViewChange>, ViewChangeBody);

fn verdict(solo: &Solo, message: Message) -> Result<(), BadMessage> {
    verify(&solo.keyring, &solo.genesis.constants, &mut Seen::new(64), message).map(drop)
}

/// A VIEW-CHANGE of r1 for view 2 with all that one may have.
fn body(solo: &Solo) -> ViewChangeBody {
    let stable = solo.stable(8, &[]).proof().clone();
    let entries = vec![solo.entry(1, 9, &batch(9)), solo.entry(0, 11, &batch(11))];
    solo.change(1, 2, Some(stable), entries).1
}

fn signed(solo: &Solo, by: u8, body: ViewChangeBody) -> Change {
    (solo.sign(by, ViewChange { epoch: Epoch(0), view: View(2), body: body.digest() }), body)
}

/// The verdict on a VIEW-CHANGE that is changed before it is signed: alone, and as any of those in a NEW-VIEW.
fn changed(change: impl Fn(&Solo, &mut ViewChangeBody)) -> Result<(), BadMessage> {
    let solo = Solo::new(4, 1, 3);
    let mut bad = body(&solo);
    change(&solo, &mut bad);
    let alone = {
        let (signed, body) = signed(&solo, 1, bad.clone());
        verdict(&solo, Message::ViewChange(signed, body))
    };
    for place in 0..3 {
        let enclosed = (0..3).map(|by| signed(&solo, by, if by == place { bad.clone() } else { body(&solo) }));
        let new_view = solo.new_view(2, enclosed.collect());
        assert_eq!(verdict(&solo, new_view), alone, "enclosed at {place}");
    }
    alone
}

#[test]
fn r9_every_part_of_a_view_change_is_verified() {
    let is_shape = |change: fn(&Solo, &mut ViewChangeBody)| changed(change) == Err(BadMessage::Shape);
    let is_forged = |change: fn(&Solo, &mut ViewChangeBody)| changed(change) == Err(BadMessage::Signature);
    assert_eq!(changed(|_, _| {}), Ok(()));
    // SC(v-1).
    let few = |solo: &Solo| solo.proof(&[0, 1], &Suspect { epoch: Epoch(0), view: View(1) });
    assert_eq!(changed(|solo, body| body.suspects = few(solo)), Err(BadMessage::Signature), "r+1 suspect");
    assert!(is_forged(|solo, body| body.suspects.signers = solo.ended(7).signers), "they suspect another view");
    assert!(is_shape(|solo, body| body.suspects = solo.ended(0)), "it ends another view");
    // cert(h).
    assert!(is_shape(|_, body| body.stable = None), "no certificate of its cut");
    assert!(is_shape(|_, body| body.low = Seq(4)), "of another cut");
    assert!(is_forged(|_, body| body.stable.iter_mut().for_each(|stable| stable.signers.truncate(2))));
    assert!(is_forged(|_, body| body.stable.iter_mut().for_each(|stable| stable.statement.root.0[0] ^= 1)));
    // P.
    assert!(is_shape(|_, body| body.entries[0].prepared = None), "no certificate");
    assert!(is_shape(|_, body| body.entries[0].digest.0[0] ^= 1), "of another batch");
    assert!(is_shape(|_, body| body.entries[0].view = View(0)), "of another view");
    assert!(is_shape(|solo, body| body.entries[0] = solo.entry(2, 9, &batch(9))), "of the view that is entered");
    assert!(is_shape(|solo, body| body.entries[0] = solo.entry(1, 8, &batch(9))), "at h");
    let beyond = |solo: &Solo| solo.entry(1, 9 + solo.genesis.constants.window_slots, &batch(9));
    assert_eq!(changed(|solo, body| body.entries.push(beyond(solo))), Err(BadMessage::Shape), "above h+L");
    assert!(is_shape(|_, body| body.entries.reverse()), "not in order");
    let commits = |solo: &Solo| Some(solo.proof(&[0, 1, 2], &vote(Phase::Commit, 1, 9, &batch(9))));
    assert_eq!(changed(|solo, body| body.entries[0].prepared = commits(solo)), Err(BadMessage::Shape), "COMMITs");
    let too_few = |solo: &Solo| Some(solo.proof(&[0, 1], &vote(Phase::Prepare, 1, 9, &batch(9))));
    assert_eq!(
        changed(|solo, body| body.entries[0].prepared = too_few(solo)),
        Err(BadMessage::Signature),
        "r+1 of them"
    );
    let signers = |proof: &mut Proof<_>, other: Proof<_>| proof.signers = other.signers;
    let others = |solo: &Solo| solo.proof(&[0, 1, 2], &vote(Phase::Prepare, 1, 9, &batch(7)));
    let stitched = changed(|solo, body| body.entries[0].prepared.iter_mut().for_each(|p| signers(p, others(solo))));
    assert_eq!(stitched, Err(BadMessage::Signature), "signatures of another batch");
}

#[test]
fn r2_the_digest_of_a_view_change_covers_every_field_and_that_of_a_new_view_every_view_change() {
    let solo = Solo::new(4, 1, 3);
    let fields: [fn(&Solo, &mut ViewChangeBody); 5] = [
        |solo, body| body.suspects = solo.ended(0),
        |_, body| body.low = Seq(4),
        |_, body| body.stable = None,
        |_, body| body.entries[1].view = View(1),
        |_, body| body.entries.truncate(1),
    ];
    for (field, change) in fields.into_iter().enumerate() {
        let mut other = body(&solo);
        change(&solo, &mut other);
        assert_ne!(other.digest(), body(&solo).digest(), "field {field}");
    }
    // Whatever is signed otherwise, the body beside it must be the one that was signed.
    let (statement, mut other) = signed(&solo, 1, body(&solo));
    other.entries.pop();
    assert_eq!(verdict(&solo, Message::ViewChange(statement, other.clone())), Err(BadMessage::Body));
    let three = || (0..3).map(|by| signed(&solo, by, body(&solo)));
    let Message::NewView(statement, _) = solo.new_view(2, three().collect()) else { return };
    for place in 0..3 {
        let mut enclosed: Vec<Change> = three().collect();
        enclosed[place] = signed(&solo, place as u8, other.clone());
        assert_eq!(verdict(&solo, Message::NewView(statement.clone(), enclosed)), Err(BadMessage::Body), "{place}");
    }
}

#[test]
fn r9_a_new_view_encloses_q_view_changes_of_different_replicas() {
    let solo = Solo::new(4, 1, 3);
    let of = |by: &[u8]| solo.new_view(2, by.iter().map(|by| signed(&solo, *by, body(&solo))).collect());
    assert_eq!(verdict(&solo, of(&[0, 1, 3])), Ok(()));
    for by in [&[0, 1][..], &[0, 1, 1], &[0, 2, 1], &[0, 1, 2, 3, 3]] {
        assert_eq!(verdict(&solo, of(by)), Err(BadMessage::Shape), "{by:?}");
    }
}

#[test]
fn r9_a_decision_is_proved_by_commits() {
    let solo = Solo::new(4, 1, 3);
    let proof = |phase, by: &[u8]| Message::Committed(solo.proof(by, &vote(phase, 1, 9, &batch(9))), batch(9));
    assert_eq!(verdict(&solo, proof(Phase::Commit, &[0, 1, 2])), Ok(()));
    assert_eq!(verdict(&solo, proof(Phase::Prepare, &[0, 1, 2])), Err(BadMessage::Shape));
    assert_eq!(verdict(&solo, proof(Phase::Commit, &[0, 1])), Err(BadMessage::Signature));
}
