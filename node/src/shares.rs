//! Who of the clients has how much under way: taken, and not answered yet. A command waits as long as what is under way
//! takes, whoever's it is; so one client may have no more of it than the busiest of the others, or a little. What is beyond
//! that, because it came in one large request, is paid off by the share of each slot that follows. One who floods, who goes
//! on sending though he is told that his share is used up, is no measure for others, and is served in proportion to what
//! those are answered, at a small part of it. Who is alone may have all there is.

use std::collections::{BTreeMap, BTreeSet};

use polder_types::ClientId;

/// Commands that any client may have under way.
const COMMANDS_MIN: u64 = 16;
/// Commands under way in all that nobody's latency suffers from: they are anybody's, so that one who has a lot to do is not
/// made as slow as another who asks little.
const COMMANDS_FREE: u64 = 32;
/// One who floods earns one command for so many that others are answered. Each replica takes as much of him, and the
/// backups forward theirs.
const PARTS: u64 = 128;
/// He earns so many commands a tick at least, and keeps so many.
const EARNED_MIN: i64 = 1;
const EARNED_MAX: i64 = 64;
/// So many bytes of a request of his count as a command.
const BYTES_PER_COMMAND: usize = 512;
/// For so many ticks after the last answer to one who does not flood it counts that there are others.
const QUIET_TICKS: u32 = 16;
/// So often what was refused lately is halved, in ticks.
const HALVED_TICKS: u32 = 4;
/// So often an eighth of what is under way is forgotten, in ticks: not every request is answered.
const FORGOTTEN_TICKS: u32 = 8;
/// So many refusals lately make a flood. A client that waits as long as it is told stays far below.
const REFUSALS_MAX: u32 = 64;
/// So many keep it one: for then little is read of it.
const REFUSALS_OF_FLOOD_MAX: u32 = 8;
/// For so many ticks a flood is remembered.
const FLOOD_TICKS: u32 = 100;
/// Clients that are remembered as flooding: beyond them a flood is not seen.
const FLOODS_MAX: usize = 4_096;

/// One who floods.
#[derive(Debug)]
struct Flood {
    /// For how many ticks that is remembered.
    ticks: u32,
    /// Commands that he has earned; below zero after a large request.
    credit: i64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    under_way: BTreeMap<ClientId, u64>,
    /// What each was answered since the last slot, and was taken off what it has under way; and what is still to be.
    paid: BTreeMap<ClientId, u64>,
    owed: BTreeMap<ClientId, u64>,
    /// Of those who do not flood, in all.
    in_all: u64,
    /// And each, the busiest last: it is asked for with every request.
    by_commands: BTreeSet<(u64, ClientId)>,
    refusals: BTreeMap<ClientId, u32>,
    floods: BTreeMap<ClientId, Flood>,
    /// Commands of those who do not flood, answered since the last tick; and for how many ticks there have been none.
    answered: u64,
    quiet_ticks: u32,
    ticks: u32,
}

impl Shares {
    /// A request of this client, with so many commands and bytes, is taken.
    pub(crate) fn taken(&mut self, client: ClientId, commands: u64, bytes: usize) {
        if let Some(flood) = self.floods.get_mut(&client) {
            let cost = commands.max((bytes / BYTES_PER_COMMAND) as u64);
            flood.credit = flood.credit.saturating_sub(i64::try_from(cost).unwrap_or(i64::MAX));
        }
        self.set(client, self.of(client).saturating_add(commands));
    }

    /// So many commands of this client are answered.
    pub(crate) fn answered(&mut self, client: ClientId, commands: u64) {
        if !self.is_flooding(client) {
            self.answered = self.answered.saturating_add(commands);
        }
        let owed = self.owed.remove(&client).unwrap_or(0);
        self.pay(client, owed.saturating_add(commands));
    }

    /// A slot was executed: its answers follow.
    pub(crate) fn slot_executed(&mut self) {
        self.paid.clear();
        for (client, owed) in std::mem::take(&mut self.owed) {
            self.pay(client, owed);
        }
    }

    /// Takes off what is under way what was answered, as far as the client's share of a slot goes; the rest is owed.
    fn pay(&mut self, client: ClientId, answered: u64) {
        let own = self.of(client);
        let answered = answered.min(own);
        let paid = self.paid.get(&client).copied().unwrap_or(0);
        let now = answered.min(self.most(client).saturating_sub(paid));
        self.set(client, own - now);
        if now > 0 {
            self.paid.insert(client, paid.saturating_add(now));
        }
        if answered > now {
            self.owed.insert(client, answered - now);
        }
    }

    /// How many commands of this client are under way.
    fn of(&self, client: ClientId) -> u64 {
        self.under_way.get(&client).copied().unwrap_or(0)
    }

    /// How many a client that does not flood may have.
    fn most(&self, client: ClientId) -> u64 {
        let mut others = self.by_commands.iter().rev().filter(|(_, other)| *other != client);
        let Some((busiest, _)) = others.next() else { return u64::MAX };
        let own = if self.is_flooding(client) { 0 } else { self.of(client) };
        let free = COMMANDS_FREE.saturating_sub(self.in_all.saturating_sub(own));
        (*busiest).max(COMMANDS_MIN).max(free)
    }

    fn set(&mut self, client: ClientId, commands: u64) {
        self.uncount(client);
        if commands == 0 {
            self.under_way.remove(&client);
            return;
        }
        self.under_way.insert(client, commands);
        if !self.is_flooding(client) {
            self.by_commands.insert((commands, client));
            self.in_all = self.in_all.saturating_add(commands);
        }
    }

    /// What this client has under way is no measure for others.
    fn uncount(&mut self, client: ClientId) {
        let commands = self.of(client);
        if self.by_commands.remove(&(commands, client)) {
            self.in_all = self.in_all.saturating_sub(commands);
        }
    }

    /// A request of this client is refused: its share is used up.
    pub(crate) fn refused(&mut self, client: ClientId) {
        let most = if self.is_flooding(client) { REFUSALS_OF_FLOOD_MAX } else { REFUSALS_MAX };
        let refusals = self.refusals.entry(client).or_default();
        *refusals += 1;
        if *refusals > most {
            self.floods(client);
        }
    }

    /// This client did what only one who floods does.
    pub(crate) fn floods(&mut self, client: ClientId) {
        if let Some(flood) = self.floods.get_mut(&client) {
            flood.ticks = FLOOD_TICKS;
        } else if self.floods.len() < FLOODS_MAX {
            self.floods.insert(client, Flood { ticks: FLOOD_TICKS, credit: 0 });
            self.uncount(client);
        }
    }

    /// Whether it floods.
    pub(crate) fn is_flooding(&self, client: ClientId) -> bool {
        self.floods.contains_key(&client)
    }

    /// Whether the next request of this client may be taken now.
    pub(crate) fn may(&self, client: ClientId) -> bool {
        if let Some(flood) = self.floods.get(&client) {
            return flood.credit > 0 || self.quiet_ticks >= QUIET_TICKS;
        }
        self.of(client) < self.most(client)
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self) {
        let answered = std::mem::take(&mut self.answered);
        self.quiet_ticks = if answered == 0 { self.quiet_ticks.saturating_add(1) } else { 0 };
        let earned = i64::try_from(answered / PARTS).unwrap_or(i64::MAX).max(EARNED_MIN);
        let mut are_over = Vec::new();
        for (client, flood) in &mut self.floods {
            flood.credit = flood.credit.saturating_add(earned).min(EARNED_MAX);
            flood.ticks -= 1;
            if flood.ticks == 0 {
                are_over.push(*client);
            }
        }
        for client in are_over {
            self.floods.remove(&client);
            self.set(client, self.of(client));
        }
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(HALVED_TICKS) {
            self.refusals.retain(|_, refusals| {
                *refusals /= 2;
                *refusals > 0
            });
        }
        if self.ticks.is_multiple_of(FORGOTTEN_TICKS) {
            // Where no slot comes time pays off, and nobody is remembered for what he once paid.
            self.slot_executed();
            for (client, commands) in self.under_way.clone() {
                self.set(client, commands - commands.div_ceil(8));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use polder_types::PublicKey;

    use super::*;

    fn client(number: u8) -> ClientId {
        ClientId(PublicKey([number; 32]))
    }

    /// Requests of 16 commands, as many as may be taken.
    fn fill(shares: &mut Shares, client: ClientId) -> u64 {
        let mut commands = 0;
        while commands < 10_000 && shares.may(client) {
            shares.taken(client, 16, 1_000);
            commands += 16;
        }
        commands
    }

    #[test]
    fn flood_one_who_has_much_to_do_has_no_more_under_way_than_the_busiest_of_the_others() {
        let mut shares = Shares::default();
        shares.taken(client(1), 160, 1_000);
        shares.taken(client(2), 8, 1_000);
        assert_eq!(fill(&mut shares, client(3)), 160);
        shares.answered(client(3), 48);
        assert_eq!(fill(&mut shares, client(3)), 48);
    }

    #[test]
    fn flood_beside_those_who_ask_little_it_may_have_what_makes_nobody_slow() {
        let mut shares = Shares::default();
        shares.taken(client(1), 1, 1_000);
        shares.taken(client(2), 15, 1_000);
        assert_eq!(fill(&mut shares, client(3)), COMMANDS_FREE - 16);
        let mut shares = Shares::default();
        (10..19).for_each(|other| shares.taken(client(other), 7, 1_000));
        assert_eq!(fill(&mut shares, client(3)), COMMANDS_MIN);
    }

    #[test]
    fn flood_a_large_request_is_paid_off_by_the_shares_of_the_slots_that_follow() {
        let mut shares = Shares::default();
        let others = || (10..19).map(client);
        others().for_each(|other| shares.taken(other, 16, 1_000));
        let mut taken = 0;
        for _ in 0..64 {
            while shares.may(client(1)) {
                shares.taken(client(1), 256, 1_000);
                taken += 256;
            }
            shares.slot_executed();
            shares.answered(client(1), 256);
            for other in others() {
                shares.answered(other, 16);
                assert!(shares.may(other), "who asks for no more than his share waits for nothing");
                shares.taken(other, 16, 1_000);
            }
        }
        assert!((768..=1_280).contains(&taken), "sixteen a slot, as each of the others: {taken}");
    }

    /// Copies are answered from the cache, and keys may cost nothing.
    #[test]
    fn flood_while_no_slot_comes_nobody_is_remembered_for_ever() {
        let mut shares = Shares::default();
        shares.taken(client(1), 16, 1_000);
        for number in 0..1_000_u16 {
            let mut key = [9; 32];
            key[..2].copy_from_slice(&number.to_le_bytes());
            let stranger = ClientId(PublicKey(key));
            shares.answered(stranger, 1);
            shares.taken(stranger, 40, 1_000);
            shares.answered(stranger, 40);
        }
        assert!(shares.paid.len() <= 1_000 && !shares.owed.is_empty());
        (0..200 * FORGOTTEN_TICKS).for_each(|_| shares.tick());
        assert!(shares.paid.is_empty() && shares.owed.is_empty() && shares.under_way.is_empty());
    }

    /// What one who floods is given in so many ticks, in each of which another is answered so many commands.
    fn given(shares: &mut Shares, flood: ClientId, bytes: usize, ticks: u32, others: u64) -> u64 {
        let mut commands = 0;
        for _ in 0..ticks {
            (0..=REFUSALS_MAX).for_each(|_| shares.refused(flood));
            shares.taken(client(1), others, 1_000);
            while commands < 1_000_000 && shares.may(flood) {
                shares.taken(flood, 16, bytes);
                commands += 16;
            }
            shares.answered(client(1), others);
            shares.answered(flood, 1_000);
            shares.slot_executed();
            shares.tick();
        }
        commands
    }

    #[test]
    fn flood_one_who_floods_is_served_a_small_part_of_what_others_are() {
        let given = |bytes, others| given(&mut Shares::default(), client(2), bytes, 1_000, others);
        let (busy, slow) = (given(1_000, 1_280), given(1_000, 1));
        assert!((9_000..=10_500).contains(&busy), "one for 128: {busy}");
        assert!((900..=1_100).contains(&slow), "one a tick: {slow}");
        let large = given(512 * 160, 1_280);
        assert!((900..=1_100).contains(&large), "what it costs to carry counts: {large}");
    }

    #[test]
    fn flood_one_who_floods_is_no_measure_for_others() {
        let mut shares = Shares::default();
        shares.taken(client(2), 5_000, 1_000);
        shares.floods(client(2));
        shares.taken(client(1), 8, 1_000);
        assert_eq!(fill(&mut shares, client(3)), COMMANDS_FREE);
        (0..=FLOOD_TICKS).for_each(|_| shares.tick());
        assert!(!shares.is_flooding(client(2)) && shares.by_commands.len() == shares.under_way.len());
    }

    #[test]
    fn flood_one_who_is_alone_has_all_there_is() {
        let mut shares = Shares::default();
        (0..=REFUSALS_MAX).for_each(|_| shares.refused(client(2)));
        (0..QUIET_TICKS).for_each(|_| shares.tick());
        assert_eq!(fill(&mut shares, client(2)), 10_000);
        // Of two who flood neither starves the other, or himself.
        shares.floods(client(3));
        assert_eq!(fill(&mut shares, client(3)), 10_000);
    }

    #[test]
    fn flood_one_who_waits_as_he_is_told_does_not_flood_and_everything_is_forgotten() {
        let mut shares = Shares::default();
        for _ in 0..100 {
            (0..8).for_each(|_| shares.refused(client(2)));
            (0..2).for_each(|_| shares.tick());
        }
        assert!(!shares.is_flooding(client(2)));
        shares.floods(client(2));
        shares.taken(client(2), 1_000, 1_000);
        (0..10 * FLOOD_TICKS).for_each(|_| shares.tick());
        assert!(!shares.is_flooding(client(2)) && shares.refusals.is_empty());
        assert!(shares.under_way.is_empty() && shares.by_commands.is_empty());
        assert_eq!((shares.in_all, shares.owed.len()), (0, 0));
    }
}
