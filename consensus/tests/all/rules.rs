//! One core at a time: a test for each rule that is not better seen in a whole cluster.

mod evidence;
mod order;
mod slips;
mod standing;
mod verified;
mod views;
mod waiting;

use polder_consensus::{Message, Phase, SessionWindow};
use polder_types::{Batch, Blob, Epoch, Seq, Signature, View};

use crate::solo::{Solo, WALL};

pub const WINDOW: Option<SessionWindow> = Some(SessionWindow { ack: 0, high: 1_024 });

pub fn is_suspect(message: &Message) -> bool {
    matches!(message, Message::Suspect(_))
}

/// Brings a slot of view 0 to its decision at a backup of four.
pub fn decide(solo: &mut Solo, slot: u64, bytes: &Blob) {
    solo.give(0, solo.propose(0, slot, bytes));
    for phase in [Phase::Prepare, Phase::Commit] {
        for by in [0, 2, 3] {
            solo.give(by, solo.vote(by, phase, 0, slot, bytes));
        }
    }
}

pub fn empty_status() -> Message {
    Message::Status(polder_consensus::StatusMessage {
        epoch: Epoch(0),
        view: View(0),
        new_view: None,
        low: Seq(0),
        committed: Seq(0),
        executed: Seq(0),
        suspects: 0,
        view_changes: 0,
        slots: Vec::new(),
    })
}

pub fn forged_batch(solo: &Solo) -> Blob {
    let mut request = solo.request(50, 1);
    request.signature = Signature([7; 64]);
    Batch { ts: WALL, requests: vec![request] }.to_blob()
}
