//! A replica whose VIEW-CHANGEs are true but old: for each slot they list the entry of the lowest view for which it ever
//! saw a certificate, and below the watermark that it has they claim an older one (R9: the highest view counts).

use std::collections::BTreeMap;

use polder_consensus::{Entry, Message, ViewChange, ViewChangeBody};
use polder_node::replica::{Event, PeerMessage};
use polder_types::{Checkpoint, Proof, ReplicaId, Seq};

use super::{Actor, Plot, Said, heard};

/// Slots that it remembers.
const SLOTS_MAX: usize = 128;

/// See the module.
#[derive(Default)]
pub(super) struct OldEntries {
    oldest: BTreeMap<Seq, Entry>,
    stable: BTreeMap<Seq, Proof<Checkpoint>>,
}

impl OldEntries {
    fn note(&mut self, body: &ViewChangeBody) {
        for entry in &body.entries {
            let oldest = self.oldest.entry(entry.slot).or_insert_with(|| entry.clone());
            if entry.view < oldest.view {
                *oldest = entry.clone();
            }
        }
        if let Some(stable) = &body.stable {
            self.stable.insert(body.low, stable.clone());
        }
        while self.oldest.len() > SLOTS_MAX {
            self.oldest.pop_first();
        }
        while self.stable.len() > 4 {
            self.stable.pop_first();
        }
    }
}

impl Actor for OldEntries {
    fn name(&self) -> &'static str {
        "old-entries"
    }

    fn hears(&mut self, _plot: &mut Plot<'_>, event: &Event) -> (bool, Said) {
        match heard(event) {
            Some((_, Message::ViewChange(_, body))) => self.note(body),
            Some((_, Message::NewView(_, enclosed))) => enclosed.iter().for_each(|(_, body)| self.note(body)),
            _ => {}
        }
        (true, Vec::new())
    }

    fn outgoing(&mut self, plot: &mut Plot<'_>, _to: ReplicaId, message: PeerMessage) -> Vec<PeerMessage> {
        let PeerMessage::Ordering(Message::ViewChange(signed, body), mark) = &message else { return vec![message] };
        if signed.by != plot.me {
            return vec![message];
        }
        self.note(body);
        let mut body = body.clone();
        if plot.random.chance(300)
            && let Some((low, stable)) = self.stable.range(..body.low).next_back()
        {
            (body.low, body.stable) = (*low, Some(stable.clone()));
        }
        let high = body.low.plus(plot.genesis.constants.window_slots);
        let mut entries: BTreeMap<Seq, Entry> = body.entries.into_iter().map(|entry| (entry.slot, entry)).collect();
        for (slot, oldest) in self.oldest.range(body.low.next()..=high) {
            if oldest.view < signed.statement.view {
                entries.insert(*slot, oldest.clone());
            }
        }
        body.entries = entries.into_values().collect();
        let signed = plot.sign(ViewChange { body: body.digest(), ..signed.statement });
        vec![PeerMessage::Ordering(Message::ViewChange(signed, body), *mark)]
    }
}
