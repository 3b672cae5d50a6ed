//! The network: it delays, loses, copies, replays, reorders, clogs and splits, one way or both.
//!
//! Nothing here knows what a message says. Channels are authenticated: a message never arrives under another's name, and
//! never changed; what becomes of a frame whose bytes are changed on the way is told where frames are (`world::wire`).

use std::collections::{BTreeSet, VecDeque};

use crate::random::{Purpose, Random};
use crate::swarm::NetworkOptions;

/// Whoever sends and receives: replicas first, then clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Party(pub usize);

/// What happens to messages that meet a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// They are lost.
    Lose,
    /// They wait, and travel when it ends.
    Hold,
    /// They wait, and all arrive at the very time it ends, in any order.
    Burst,
}

/// Which of the two directions of which pairs a split cuts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One party from all others, both ways.
    Isolate,
    /// One party can be heard by nobody.
    Mute,
    /// One party hears nobody.
    Deaf,
    /// Two halves.
    Halves,
    /// Two groups that share one party which hears and is heard by both.
    Bridge,
    /// Any directions, each with even chances.
    Random,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Isolate, Self::Mute, Self::Deaf, Self::Halves, Self::Bridge, Self::Random];
}

/// How many old messages are kept to be replayed.
const OLD_MAX: usize = 512;

/// The network of one run, between `parties` that all can reach one another at first.
#[derive(Debug)]
pub struct Network<M> {
    options: NetworkOptions,
    random: Random,
    parties: usize,
    links: Vec<Link>,
    calm: Vec<bool>,
    /// What was sent between healed parties, by a hash of what it says.
    sent: BTreeSet<u64>,
    old: VecDeque<(Party, Party, M)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Link {
    lost_until_us: u64,
    held_until_us: u64,
    /// Until then, and not beyond, what is held arrives at one time.
    burst_at_us: u64,
}

/// A copy of a message on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy<M> {
    /// When it arrives.
    pub at_us: u64,
    /// Who sent it.
    pub from: Party,
    /// Who gets it.
    pub to: Party,
    /// What it says.
    pub message: M,
}

impl<M: Clone> Network<M> {
    /// A network between so many parties.
    #[must_use]
    pub fn new(seed: u64, options: NetworkOptions, parties: usize) -> Self {
        Self {
            options,
            random: Random::new(seed, Purpose::Network),
            parties,
            links: vec![Link::default(); parties * parties],
            calm: vec![false; parties],
            sent: BTreeSet::new(),
            old: VecDeque::new(),
        }
    }

    /// What becomes of a message that is sent now: the copies that will arrive, old ones that come along with it
    /// among them.
    pub fn send(&mut self, now_us: u64, from: Party, to: Party, message: M) -> Vec<Copy<M>> {
        let mut copies = Vec::with_capacity(1);
        let is_calm = self.is_calm(from) && self.is_calm(to);
        let link = self.link(from, to);
        if is_calm {
            let at_us = now_us + self.options.delay_us_min + self.random.range(0, self.options.delay_us_min);
            copies.push(Copy { at_us, from, to, message });
            return copies;
        }
        if link.lost_until_us > now_us || self.random.chance(self.options.loss_per_mille) {
            return copies;
        }
        let held_us = link.held_until_us.max(now_us);
        let twice = self.random.chance(self.options.duplicate_per_mille);
        for _ in 0..=usize::from(twice) {
            let at_us = if link.burst_at_us > held_us { link.burst_at_us } else { held_us + self.delay_us() };
            copies.push(Copy { at_us, from, to, message: message.clone() });
        }
        if self.random.chance(self.options.replay_per_mille) {
            let index = self.random.below(self.old.len());
            if let Some((from, to, message)) = self.old.get(index).cloned()
                && self.link(from, to).lost_until_us <= now_us
            {
                copies.push(Copy { at_us: now_us + self.delay_us(), from, to, message });
            }
        }
        if self.options.replay_per_mille > 0 {
            self.remember(from, to, message);
        }
        copies
    }

    /// Cuts links of these parties until a time, and says which directions.
    pub fn split(&mut self, shape: Shape, who: Party, parties: &[Party], until_us: u64, blocked: Blocked) {
        let half: Vec<bool> = (0..self.parties).map(|_| self.random.chance(500)).collect();
        let side = |party: Party| half.get(party.0).copied().unwrap_or(false);
        for &from in parties {
            for &to in parties {
                let is_cut = from != to
                    && match shape {
                        Shape::Isolate => from == who || to == who,
                        Shape::Mute => from == who,
                        Shape::Deaf => to == who,
                        Shape::Halves => side(from) != side(to),
                        Shape::Bridge => from != who && to != who && side(from) != side(to),
                        Shape::Random => self.random.chance(500),
                    };
                if is_cut {
                    self.block(from, to, until_us, blocked);
                }
            }
        }
    }

    /// Cuts one direction of one link until a time.
    pub fn block(&mut self, from: Party, to: Party, until_us: u64, blocked: Blocked) {
        let Some(link) = self.place(from, to).and_then(|place| self.links.get_mut(place)) else { return };
        match blocked {
            Blocked::Lose => link.lost_until_us = link.lost_until_us.max(until_us),
            Blocked::Hold => link.held_until_us = link.held_until_us.max(until_us),
            Blocked::Burst => link.burst_at_us = link.burst_at_us.max(until_us),
        }
    }

    /// Heals these parties: what they send to one another from now on arrives once, soon.
    pub fn heal(&mut self, healed: &[Party]) {
        for party in healed {
            if let Some(calm) = self.calm.get_mut(party.0) {
                *calm = true;
            }
        }
    }

    /// Whether a party was healed.
    #[must_use]
    pub fn is_calm(&self, party: Party) -> bool {
        self.calm.get(party.0).copied().unwrap_or(false)
    }

    /// Whether healed parties lose some of what they send. Such a network is fair: it loses only what it has not
    /// carried before, so that whatever is sent again arrives.
    #[must_use]
    pub fn is_lossy_when_healed(&self) -> bool {
        self.options.healed_loss_per_mille > 0
    }

    /// Whether a message between healed parties is lost. `what` stands for all that it says.
    pub fn loses_first(&mut self, from: Party, to: Party, what: u64) -> bool {
        self.is_calm(from)
            && self.is_calm(to)
            && self.sent.insert(what)
            && self.random.chance(self.options.healed_loss_per_mille)
    }

    /// Whether a message is to travel as bytes, to be decoded on arrival.
    pub fn is_encoded(&mut self) -> bool {
        self.random.chance(self.options.encoded_per_mille)
    }

    /// Whether an unwanted message is to be given to its receiver all the same.
    pub fn is_forced(&mut self) -> bool {
        self.random.chance(self.options.unwanted_per_mille)
    }

    fn link(&self, from: Party, to: Party) -> Link {
        self.place(from, to).and_then(|place| self.links.get(place)).copied().unwrap_or_default()
    }

    /// Where a link is kept; none when one of the two is nobody of the run, as the lying client.
    fn place(&self, from: Party, to: Party) -> Option<usize> {
        (from.0 < self.parties && to.0 < self.parties).then(|| from.0 * self.parties + to.0)
    }

    fn delay_us(&mut self) -> u64 {
        let mut delay_us = self.options.delay_us_min + self.random.around(self.options.delay_us_mean);
        if self.random.chance(self.options.slow_per_mille) {
            delay_us *= 100;
        }
        delay_us
    }

    fn remember(&mut self, from: Party, to: Party, message: M) {
        if self.old.len() < OLD_MAX {
            self.old.push_back((from, to, message));
        } else if self.random.chance(100) {
            // Old ones stay for long: a replay across several views is the interesting one.
            let index = self.random.below(OLD_MAX);
            if let Some(kept) = self.old.get_mut(index) {
                *kept = (from, to, message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> NetworkOptions {
        NetworkOptions {
            delay_us_min: 10,
            delay_us_mean: 100,
            slow_per_mille: 0,
            loss_per_mille: 0,
            duplicate_per_mille: 0,
            replay_per_mille: 0,
            encoded_per_mille: 0,
            unwanted_per_mille: 0,
            healed_loss_per_mille: 0,
        }
    }

    fn arrivals(network: &mut Network<u32>, from: usize, to: usize, count: u32) -> Vec<Copy<u32>> {
        (0..count).flat_map(|message| network.send(0, Party(from), Party(to), message)).collect()
    }

    #[test]
    fn messages_overtake_one_another() {
        let mut network = Network::new(1, options(), 2);
        let copies = arrivals(&mut network, 0, 1, 100);
        assert_eq!(copies.len(), 100);
        assert!(!copies.is_sorted_by_key(|copy| copy.at_us));
    }

    #[test]
    fn losses_copies_and_replays_happen_as_often_as_asked() {
        let mut network = Network::new(1, NetworkOptions { loss_per_mille: 500, ..options() }, 2);
        assert!((300..700).contains(&arrivals(&mut network, 0, 1, 1_000).len()));
        let mut network = Network::new(1, NetworkOptions { duplicate_per_mille: 500, ..options() }, 2);
        assert!((1_300..1_700).contains(&arrivals(&mut network, 0, 1, 1_000).len()));
        let mut network = Network::new(1, NetworkOptions { replay_per_mille: 500, ..options() }, 2);
        let copies = arrivals(&mut network, 0, 1, 1_000);
        assert!((1_300..1_700).contains(&copies.len()));
    }

    #[test]
    fn a_split_cuts_the_directions_of_its_shape_until_it_ends_or_heals() {
        let parties: Vec<Party> = (0..4).map(Party).collect();
        let mut network = Network::new(1, options(), 4);
        network.split(Shape::Mute, Party(1), &parties, 1_000, Blocked::Lose);
        assert!(arrivals(&mut network, 1, 2, 1).is_empty());
        assert_eq!(arrivals(&mut network, 2, 1, 1).len(), 1);
        assert_eq!(network.send(1_000, Party(1), Party(2), 0).len(), 1);
        network.split(Shape::Isolate, Party(0), &parties, u64::MAX, Blocked::Lose);
        assert!(arrivals(&mut network, 0, 3, 1).is_empty());
        network.heal(&parties);
        assert_eq!(arrivals(&mut network, 0, 3, 1).len(), 1);
        assert_eq!(arrivals(&mut network, 1, 2, 1).len(), 1);
    }

    #[test]
    fn what_is_held_arrives_after_the_split() {
        let parties: Vec<Party> = (0..2).map(Party).collect();
        let mut network = Network::new(1, options(), 2);
        network.split(Shape::Isolate, Party(0), &parties, 5_000, Blocked::Hold);
        let copies = arrivals(&mut network, 0, 1, 10);
        assert_eq!(copies.len(), 10);
        assert!(copies.iter().all(|copy| copy.at_us >= 5_000));
    }

    #[test]
    fn what_is_clogged_arrives_at_one_time() {
        let mut network = Network::new(1, options(), 2);
        network.block(Party(0), Party(1), 5_000, Blocked::Burst);
        let copies = arrivals(&mut network, 0, 1, 10);
        assert!(copies.len() == 10 && copies.iter().all(|copy| copy.at_us == 5_000));
        assert_eq!(arrivals(&mut network, 1, 0, 1).iter().filter(|copy| copy.at_us < 5_000).count(), 1);
        assert!(network.send(5_000, Party(0), Party(1), 1).iter().all(|copy| copy.at_us > 5_000));
    }

    #[test]
    fn what_is_sent_twice_between_healed_parties_arrives() {
        let mut network: Network<u32> = Network::new(1, NetworkOptions { healed_loss_per_mille: 500, ..options() }, 2);
        assert!(!network.loses_first(Party(0), Party(1), 7), "not healed yet");
        network.heal(&[Party(0), Party(1)]);
        let lost = (0..1_000).filter(|what| network.loses_first(Party(0), Party(1), *what)).count();
        assert!((300..700).contains(&lost));
        assert!((0..1_000).all(|what| !network.loses_first(Party(0), Party(1), what)));
    }

    #[test]
    fn a_bridge_is_heard_by_both_sides() {
        let parties: Vec<Party> = (0..5).map(Party).collect();
        let mut network = Network::new(3, options(), 5);
        network.split(Shape::Bridge, Party(2), &parties, u64::MAX, Blocked::Lose);
        assert!((0..5).filter(|&to| to != 2).all(|to| arrivals(&mut network, 2, to, 1).len() == 1));
    }
}
