//! Two copies of one replica under one key, each with disks of its own: some hear and are heard by the first, some by the
//! second, some by both (Bano and others, "Twins", 2020). Neither of the two lies; together they do.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use polder_checkpoint::{Durability, MemStore, Store as _, images, install};
use polder_consensus::To;
use polder_node::replica::{Action, Event, Mark, PeerMessage, Replica, ReplicaConfig, Start, VerifiedPeer};
use polder_types::ReplicaId;

use super::{Actor, Plot, Said, is_in};
use crate::random::Random;
use crate::service::Lists;

/// Bytes of a chunk of an image.
const CHUNK_BYTES: usize = 4_096;

/// What the second copy calls its start.
const NONCE: u64 = 2;

/// See the module.
pub(super) struct Twins {
    second: Option<Second>,
    is_over: bool,
    /// Who talks with the first, and who with the second, a bit each.
    sides: [u128; 2],
}

struct Second {
    replica: Replica<Lists>,
    log: MemStore,
    state: MemStore,
}

impl Twins {
    pub(super) fn new(random: &mut Random) -> Self {
        let mut twins = Self { second: None, is_over: false, sides: [0; 2] };
        twins.choose_sides(random);
        twins
    }

    fn choose_sides(&mut self, random: &mut Random) {
        let first = u128::from(random.bits());
        let both = u128::from(random.bits() & random.bits());
        self.sides = [first | both, !first | both];
    }

    /// Gives the second copy events until it rests; returns what it sends. It may fall over what the first said.
    fn give(&mut self, plot: &mut Plot<'_>, event: Event) -> Said {
        let Some(second) = &mut self.second else { return Vec::new() };
        let mut sent = Vec::new();
        let ran = catch_unwind(AssertUnwindSafe(|| second.run(plot, VecDeque::from([event]), &mut sent)));
        if !ran.is_ok_and(|lives| lives) {
            (self.second, self.is_over) = (None, true);
        }
        self.route(plot, sent)
    }

    fn route(&self, plot: &Plot<'_>, sent: Vec<(To, PeerMessage)>) -> Said {
        let mut said = Vec::new();
        for (to, message) in sent {
            let receivers = plot.others().filter(|other| to == To::All || to == To::One(*other));
            let receivers = receivers.filter(|other| is_in(self.sides[1], *other));
            said.extend(receivers.map(|other| (other, message.clone())));
        }
        said
    }

    fn start(&mut self, plot: &mut Plot<'_>) -> Said {
        let config = ReplicaConfig {
            genesis: plot.genesis.clone(),
            me: plot.me,
            key: plot.key.clone(),
            pipeline_slots: 1,
            nonce: NONCE,
            #[cfg(polder_mutations)]
            mutation: None,
        };
        let (log, state) = (MemStore::new(), MemStore::new());
        let Ok((replica, actions)) = Replica::open(config, Arc::new(Lists), &log, &state, Start::Genesis) else {
            self.is_over = true;
            return Vec::new();
        };
        let mut second = Second { replica, log, state };
        let mut sent = Vec::new();
        let mut events = VecDeque::new();
        second.carry_out(actions, &mut events, &mut sent);
        // Nobody remembers anything of it, it says itself: its memory is proven (R18).
        let answer = |from| Event::Peer { from, message: VerifiedPeer::Memory { nonce: NONCE, mark: Mark::default() } };
        events.extend(plot.others().map(answer));
        second.run(plot, events, &mut sent);
        self.second = Some(second);
        self.route(plot, sent)
    }
}

impl Second {
    /// Whether it lives on.
    fn run(&mut self, plot: &Plot<'_>, mut events: VecDeque<Event>, sent: &mut Vec<(To, PeerMessage)>) -> bool {
        while let Some(event) = events.pop_front() {
            let mut actions = Vec::new();
            self.replica.step(plot.now, event, &mut actions);
            if !self.carry_out(actions, &mut events, sent) {
                return false;
            }
        }
        true
    }

    /// Its disks are done at once. Whether it lives on.
    fn carry_out(
        &mut self,
        actions: Vec<Action>,
        events: &mut VecDeque<Event>,
        sent: &mut Vec<(To, PeerMessage)>,
    ) -> bool {
        for action in actions {
            let done = match action {
                Action::Send { to, message } => {
                    sent.extend(unmarked(&message).map(|message| (to, message)));
                    Ok(None)
                }
                Action::Write { disk, writes, ticket, .. } => {
                    let store = if disk == polder_node::replica::Disk::Log { &self.log } else { &self.state };
                    store.apply(&writes, Durability::Synced).map(|()| Some(Event::Written { disk, ticket }))
                }
                Action::Digest { frozen } => {
                    drop(frozen.digests());
                    Ok(Some(Event::Digested { frozen }))
                }
                Action::WriteImages { cut, partitions } => {
                    let written = images::write(&self.state, cut, &partitions, CHUNK_BYTES);
                    written.map(|_| Some(Event::ImagesWritten { cut }))
                }
                Action::InstallBase { state } => {
                    let written = install::write(&self.state, &state, CHUNK_BYTES);
                    written.map(|_| Some(Event::BaseInstalled { cut: state.cut() }))
                }
                Action::Halt(_) => return false,
                Action::Reply { .. } | Action::Executed { .. } | Action::Evidence(_) | Action::Misled(_) => Ok(None),
            };
            match done {
                Ok(event) => events.extend(event),
                Err(_) => return false,
            }
        }
        true
    }
}

/// What the second copy says, without its marks: they would give it away to the first.
fn unmarked(message: &VerifiedPeer) -> Option<PeerMessage> {
    match message.to_message() {
        PeerMessage::Ordering(message, _) => Some(PeerMessage::Ordering(message, Mark::default())),
        PeerMessage::Checkpoint(signed, _) => Some(PeerMessage::Checkpoint(signed, Mark::default())),
        PeerMessage::MemoryAsk { .. } | PeerMessage::Memory { .. } => None,
        other => Some(other),
    }
}

impl Actor for Twins {
    fn name(&self) -> &'static str {
        "twins"
    }

    fn hears(&mut self, plot: &mut Plot<'_>, event: &Event) -> (bool, Said) {
        let mut said = Vec::new();
        if self.second.is_none() && !self.is_over {
            said = self.start(plot);
        }
        let [for_first, for_second] = match event {
            Event::Peer { message: VerifiedPeer::MemoryAsk { .. } | VerifiedPeer::Memory { .. }, .. } => [true, false],
            Event::Peer { from, .. } => self.sides.map(|side| is_in(side, *from)),
            Event::Tick | Event::Request(_) => [true, true],
            _ => [true, false],
        };
        if for_second {
            said.extend(self.give(plot, event.clone()));
        }
        (for_first, said)
    }

    fn outgoing(&mut self, _plot: &mut Plot<'_>, to: ReplicaId, message: PeerMessage) -> Vec<PeerMessage> {
        let is_memory = matches!(message, PeerMessage::MemoryAsk { .. } | PeerMessage::Memory { .. });
        if is_memory || is_in(self.sides[0], to) { vec![message] } else { Vec::new() }
    }

    fn make_up(&mut self, plot: &mut Plot<'_>) -> Said {
        if plot.random.chance(30) {
            self.choose_sides(plot.random);
        }
        Vec::new()
    }
}
