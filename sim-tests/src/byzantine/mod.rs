//! Replicas that lie: each is a real replica whose messages pass through actors on their way out. An actor changes,
//! withholds, adds and re-signs; all liars of a run know of one another's plans.
//!
//! Everything that leaves is verified like any other message: a liar can sign anything in its own name and nothing in
//! another's. One kind of lie a file.

use std::collections::BTreeMap;

use polder_consensus::Message;
use polder_node::replica::{Mark, PeerMessage};
use polder_types::{Blob, Digest, Keyring, NodeFrame, Quorum, ReplicaId, Seq, Signed, SigningKey, Statement, View};

use crate::random::Random;

mod conflicting_votes;
mod equivocating_leader;
mod false_checkpoints;
mod false_status;
mod hidden_entries;
mod mutated_fields;
mod selective_new_view;
mod silent_leader;
mod starving_leader;
mod suspicion;
mod withheld_votes;
mod wrong_chunks;
mod wrong_replies;

/// What one kind of lie does.
pub trait Actor {
    /// Its name, for traces.
    fn name(&self) -> &'static str;

    /// What becomes of a message on its way to one replica: nothing, itself, others.
    fn outgoing(&mut self, plot: &mut Plot<'_>, to: ReplicaId, message: PeerMessage) -> Vec<PeerMessage> {
        let _ = (plot, to);
        vec![message]
    }

    /// What becomes of a frame on its way to a client.
    fn answer(&mut self, plot: &mut Plot<'_>, frame: NodeFrame) -> Option<NodeFrame> {
        let _ = plot;
        Some(frame)
    }

    /// What it makes up by itself, now and then.
    fn make_up(&mut self, plot: &mut Plot<'_>) -> Vec<(ReplicaId, PeerMessage)> {
        let _ = plot;
        Vec::new()
    }
}

/// A second proposal for a slot of a view, and who is shown it instead of the first.
#[derive(Clone, Debug)]
pub struct Twin {
    /// The digest of the first.
    pub first: Digest,
    /// The second proposal.
    pub second: Signed<polder_consensus::Proposal>,
    /// Its batch.
    pub batch: Blob,
    /// Who is shown the second, a bit each.
    pub shown_to: u128,
}

/// What all liars of a run know together.
#[derive(Debug, Default)]
pub struct Shared {
    /// Second proposals.
    pub twins: BTreeMap<(View, Seq), Twin>,
    /// Digests seen in votes and proposals, a few a slot.
    pub digests: BTreeMap<Seq, Vec<Digest>>,
    /// The highest view seen.
    pub view: View,
}

impl Shared {
    /// Takes note of a message that a liar sends or receives.
    pub fn note(&mut self, message: &Message) {
        let header = message.header();
        self.view = self.view.max(header.view.unwrap_or_default());
        if let (Some(slot), Some(digest)) = (header.slot, header.digest) {
            let known = self.digests.entry(slot).or_default();
            if known.len() < 4 && !known.contains(&digest) {
                known.push(digest);
            }
        }
        while self.digests.len() > 128 {
            self.digests.pop_first();
        }
        while self.twins.len() > 128 {
            self.twins.pop_first();
        }
    }
}

/// What an actor works with.
pub struct Plot<'a> {
    /// Which replica it plays.
    pub me: ReplicaId,
    /// Its key.
    pub key: &'a SigningKey,
    /// The cluster.
    pub keyring: &'a Keyring,
    /// What all liars know.
    pub shared: &'a mut Shared,
    /// Where it draws from.
    pub random: &'a mut Random,
}

impl Plot<'_> {
    /// Signs anything, as itself.
    pub fn sign<S: Statement>(&self, statement: S) -> Signed<S> {
        Signed::sign(self.me, statement, self.keyring.cluster(), self.key).into_inner()
    }

    /// The quorums.
    #[must_use]
    pub fn quorum(&self) -> Quorum {
        self.keyring.quorum()
    }

    /// Some of the replicas, a bit each.
    pub fn some(&mut self) -> u128 {
        u128::from(self.random.bits())
    }

    /// All others.
    pub fn others(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        let me = self.me;
        self.quorum().members().filter(move |member| *member != me)
    }
}

/// Whether a replica is in a set.
#[must_use]
pub fn is_in(set: u128, replica: ReplicaId) -> bool {
    set >> u32::from(replica.0 % 128) & 1 == 1
}

/// A replica that lies: the kinds of lies that it tells, and which of them it is telling now.
pub struct Liar {
    actors: Vec<(bool, Box<dyn Actor>)>,
    is_moody: bool,
}

impl Liar {
    /// A liar that tells these lies all the time; without any, one that draws its kinds.
    #[must_use]
    pub fn new(lies: &[&str], random: &mut Random) -> Self {
        let mut actors: Vec<(bool, Box<dyn Actor>)> = Vec::new();
        for make in kinds() {
            let actor = make(random);
            let (is_told, is_active) = (random.chance(350), random.chance(600));
            if lies.contains(&actor.name()) {
                actors.push((true, actor));
            } else if lies.is_empty() && is_told {
                actors.push((is_active, actor));
            }
        }
        if actors.is_empty() {
            actors.push((true, Box::new(equivocating_leader::EquivocatingLeader::new(random))));
        }
        // The order matters: what one lets pass, the next changes.
        random.shuffle(&mut actors);
        Self { actors, is_moody: lies.is_empty() }
    }

    /// Its lies, for traces.
    #[must_use]
    pub fn describe(&self) -> String {
        self.actors.iter().map(|(_, actor)| actor.name()).collect::<Vec<_>>().join("+")
    }

    /// Now and then it starts or stops telling one kind.
    pub fn change_mood(&mut self, random: &mut Random) {
        for (is_active, _) in &mut self.actors {
            if self.is_moody && random.chance(200) {
                *is_active = !*is_active;
            }
        }
    }

    /// What becomes of a message on its way to one replica.
    pub fn outgoing(&mut self, plot: &mut Plot<'_>, to: ReplicaId, message: PeerMessage) -> Vec<PeerMessage> {
        let mut messages = vec![message];
        for (_, actor) in self.actors.iter_mut().filter(|(is_active, _)| *is_active) {
            messages = messages.into_iter().flat_map(|message| actor.outgoing(plot, to, message)).collect();
        }
        messages
    }

    /// What becomes of a frame on its way to a client.
    pub fn answer(&mut self, plot: &mut Plot<'_>, frame: NodeFrame) -> Option<NodeFrame> {
        let mut active = self.actors.iter_mut().filter(|(is_active, _)| *is_active);
        active.try_fold(frame, |frame, (_, actor)| actor.answer(plot, frame))
    }

    /// What it makes up by itself.
    pub fn make_up(&mut self, plot: &mut Plot<'_>) -> Vec<(ReplicaId, PeerMessage)> {
        let active = self.actors.iter_mut().filter(|(is_active, _)| *is_active);
        active.flat_map(|(_, actor)| actor.make_up(plot)).collect()
    }
}

type Make = fn(&mut Random) -> Box<dyn Actor>;

fn kinds() -> [Make; 13] {
    [
        |random| Box::new(equivocating_leader::EquivocatingLeader::new(random)),
        |random| Box::new(silent_leader::SilentLeader::new(random)),
        |random| Box::new(withheld_votes::WithheldVotes::new(random)),
        |random| Box::new(conflicting_votes::ConflictingVotes::new(random)),
        |random| Box::new(hidden_entries::HiddenEntries::new(random)),
        |_| Box::new(selective_new_view::SelectiveNewView),
        |_| Box::new(false_status::FalseStatus),
        |_| Box::new(false_checkpoints::FalseCheckpoints),
        |_| Box::new(suspicion::Suspicion),
        |random| Box::new(mutated_fields::MutatedFields::new(random)),
        |_| Box::<starving_leader::StarvingLeader>::default(),
        |_| Box::new(wrong_chunks::WrongChunks),
        |_| Box::new(wrong_replies::WrongReplies),
    ]
}

/// What a liar says about the order: its marks are of no use to anybody but itself.
#[must_use]
pub fn say(message: Message) -> PeerMessage {
    PeerMessage::Ordering(message, Mark::default())
}

/// The ordering message in a peer's message.
#[must_use]
pub fn ordering(message: &PeerMessage) -> Option<&Message> {
    match message {
        PeerMessage::Ordering(message, _) => Some(message),
        _ => None,
    }
}
