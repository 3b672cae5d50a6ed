//! Replicas that lie: each is a real replica whose messages pass through actors on their way out. An actor changes,
//! withholds, adds and re-signs; all liars of a run know of one another's plans.
//!
//! Everything that leaves is verified like any other message: a liar can sign anything in its own name and nothing in
//! another's. One kind of lie a file.

use std::collections::BTreeMap;
use std::sync::Arc;

use polder_consensus::{Message, Now};
use polder_node::replica::{Event, Mark, PeerMessage, VerifiedPeer};
use polder_types::{
    Blob, Digest, Genesis, Keyring, NodeFrame, Quorum, ReplicaId, Seq, Signed, SigningKey, Statement, View,
};

use crate::random::Random;

mod absurd_batches;
mod accomplices;
mod changed_messages;
mod conflicting_votes;
mod equivocating_leader;
mod false_checkpoints;
mod false_status;
mod floods;
mod forged_votes;
mod garbage;
mod half_prepared;
mod hidden_entries;
mod instead;
mod lost_votes;
mod mutated_fields;
mod old_entries;
mod replays;
mod selective_new_view;
mod silent_leader;
mod slow_leader;
mod starving_leader;
mod stitched_certificates;
mod suspicion;
mod twins;
mod two_stories;
mod withheld_votes;
mod wrong_chunks;
mod wrong_replies;

/// Messages of a liar, and to whom.
pub type Said = Vec<(ReplicaId, PeerMessage)>;

/// The lie that only who names it is told: it changes everything, at any place.
pub const CHANGED_MESSAGES: &str = "changed-messages";

/// What one kind of lie does.
pub trait Actor {
    /// Its name, for traces.
    fn name(&self) -> &'static str;

    /// What it does about something that its replica is about to be given: whether that gets it, and what is sent.
    fn hears(&mut self, plot: &mut Plot<'_>, event: &Event) -> (bool, Said) {
        let _ = (plot, event);
        (true, Vec::new())
    }

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
    fn make_up(&mut self, plot: &mut Plot<'_>) -> Said {
        let _ = plot;
        Vec::new()
    }
}

/// A link that the adversary, who rules the network until it is healed, has cut: what it carries is lost.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// From whom, a bit each.
    pub from: u128,
    /// To whom, a bit each.
    pub to: u128,
    /// Whether only votes are lost.
    pub only_votes: bool,
    /// Until when, in microseconds.
    pub until_us: u64,
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
    /// The links that are cut, by the liar that cut them.
    pub cuts: BTreeMap<ReplicaId, Vec<Cut>>,
}

/// How far a view may be above the highest seen to be believed.
const NEAR_VIEWS: u64 = 8;

impl Shared {
    /// Whether a message between two replicas is lost.
    #[must_use]
    pub fn loses(&self, now_us: u64, from: ReplicaId, to: ReplicaId, message: &VerifiedPeer) -> bool {
        let is_vote =
            matches!(message, VerifiedPeer::Ordering(message, _) if matches!(message.message(), Message::Vote(_)));
        let is_lost = |cut: &Cut| {
            cut.until_us > now_us && is_in(cut.from, from) && is_in(cut.to, to) && (is_vote || !cut.only_votes)
        };
        self.cuts.values().flatten().any(is_lost)
    }

    /// Takes note of a message that a liar sends or receives.
    pub fn note(&mut self, message: &Message) {
        let header = message.header();
        // Not those that an accomplice has made up.
        let near = self.view.0..=self.view.0.saturating_add(NEAR_VIEWS);
        self.view = header.view.filter(|view| near.contains(&view.0)).unwrap_or(self.view);
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
    /// The configuration that it started from.
    pub genesis: &'a Arc<Genesis>,
    /// Its clocks.
    pub now: Now,
    /// Simulated time, in microseconds.
    pub now_us: u64,
    /// Whether chaos is over.
    pub is_healed: bool,
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

    /// The replica that leads so many views after this one.
    #[must_use]
    pub fn after_me(&self, places: u64) -> ReplicaId {
        self.quorum().leader(View(u64::from(self.me.0) + places))
    }

    /// Cuts these links in place of those that it cut before.
    pub fn cut(&mut self, cuts: Vec<Cut>) {
        self.shared.cuts.insert(self.me, cuts);
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

/// A replica as a bit.
#[must_use]
pub fn bit(replica: ReplicaId) -> u128 {
    1 << u32::from(replica.0 % 128)
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
        for (per_mille, make) in kinds() {
            let actor = make(random);
            let (is_told, is_active) = (random.chance(per_mille), random.chance(600));
            if lies.contains(&actor.name()) {
                actors.push((true, actor));
            } else if lies.is_empty() && is_told {
                actors.push((is_active, actor));
            }
        }
        if lies.contains(&CHANGED_MESSAGES) {
            actors.push((true, Box::new(changed_messages::ChangedMessages::new(random))));
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

    /// What it does about something that its replica is about to be given: whether that gets it, and what is sent.
    pub fn hears(&mut self, plot: &mut Plot<'_>, event: &Event) -> (bool, Said) {
        let mut all = (true, Vec::new());
        for (_, actor) in self.actors.iter_mut().filter(|(is_active, _)| *is_active) {
            let (goes_on, said) = actor.hears(plot, event);
            all.0 &= goes_on;
            all.1.extend(said);
        }
        all
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
    pub fn make_up(&mut self, plot: &mut Plot<'_>) -> Said {
        let active = self.actors.iter_mut().filter(|(is_active, _)| *is_active);
        active.flat_map(|(_, actor)| actor.make_up(plot)).collect()
    }
}

type Make = fn(&mut Random) -> Box<dyn Actor>;

/// Every kind of lie, and how many liars in a thousand tell it. Those that rule the network or follow one plan are rare:
/// they keep others from happening.
fn kinds() -> [(u64, Make); 26] {
    [
        (300, |random| Box::new(equivocating_leader::EquivocatingLeader::new(random))),
        (250, |random| Box::new(silent_leader::SilentLeader::new(random))),
        (250, |random| Box::new(withheld_votes::WithheldVotes::new(random))),
        (250, |random| Box::new(conflicting_votes::ConflictingVotes::new(random))),
        (300, |random| Box::new(hidden_entries::HiddenEntries::new(random))),
        (250, |_| Box::<selective_new_view::SelectiveNewView>::default()),
        (200, |_| Box::new(false_status::FalseStatus)),
        (200, |_| Box::new(false_checkpoints::FalseCheckpoints)),
        (250, |_| Box::new(suspicion::Suspicion)),
        (250, |random| Box::new(mutated_fields::MutatedFields::new(random))),
        (100, |_| Box::<starving_leader::StarvingLeader>::default()),
        (200, |_| Box::new(wrong_chunks::WrongChunks)),
        (250, |_| Box::new(wrong_replies::WrongReplies)),
        (100, |random| Box::new(slow_leader::SlowLeader::new(random))),
        (100, |random| Box::new(absurd_batches::AbsurdBatches::new(random))),
        (100, |random| Box::new(forged_votes::ForgedVotes::new(random))),
        (200, |_| Box::<stitched_certificates::StitchedCertificates>::default()),
        (250, |_| Box::<old_entries::OldEntries>::default()),
        (200, |random| Box::new(replays::Replays::new(random))),
        (100, |random| Box::new(garbage::Garbage::new(random))),
        (60, |random| Box::new(floods::Floods::new(random))),
        (250, |_| Box::<accomplices::Accomplices>::default()),
        (60, |random| Box::new(twins::Twins::new(random))),
        (60, |random| Box::new(half_prepared::HalfPrepared::new(random))),
        (60, |_| Box::<two_stories::TwoStories>::default()),
        (20, |_| Box::<lost_votes::LostVotes>::default()),
    ]
}

/// The names of all kinds of lies.
#[must_use]
pub fn names() -> Vec<&'static str> {
    let mut random = Random::new(0, crate::random::Purpose::Liars);
    kinds().into_iter().map(|(_, make)| make(&mut random).name()).collect()
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

/// The ordering message in a peer's message that a liar hears.
#[must_use]
pub fn heard(event: &Event) -> Option<(ReplicaId, &Message)> {
    match event {
        Event::Peer { from, message: VerifiedPeer::Ordering(message, _) } => Some((*from, message.message())),
        _ => None,
    }
}
