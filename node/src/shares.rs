//! Who of the clients has how much under way: taken, and not answered yet. A command waits as long as what is under way
//! takes, whoever's it is; so one client may have no more of it than the busiest of the others, or a little. One who floods,
//! who goes on sending though he is told that his share is used up, may have only a small part of that. Who is alone may
//! have all there is.

use std::collections::{BTreeMap, BTreeSet};

use polder_types::ClientId;

/// Commands that any client may have under way: so that one who has a lot to do is not made as slow as another who asks
/// little.
const COMMANDS_MIN: u64 = 64;
/// The same of one who floods.
const COMMANDS_OF_FLOOD_MIN: u64 = 4;
/// One who floods may have one part in so many of what the busiest of the others has.
const PARTS: u64 = 32;
/// So often what was refused lately is halved, in ticks.
const HALVED_TICKS: u32 = 4;
/// So often an eighth of what is under way is forgotten, in ticks: not every request is answered.
const FORGOTTEN_TICKS: u32 = 8;
/// So many refusals lately make a flood. A client that waits as long as it is told stays far below.
const REFUSALS_MAX: u32 = 64;
/// For so many ticks a flood is remembered.
const FLOOD_TICKS: u32 = 100;
/// Clients that are remembered as flooding: beyond them a flood is not seen.
const FLOODS_MAX: usize = 4_096;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    under_way: BTreeMap<ClientId, u64>,
    /// The same, the busiest last: it is asked for with every request.
    by_commands: BTreeSet<(u64, ClientId)>,
    refusals: BTreeMap<ClientId, u32>,
    /// Those who flood, and for how many ticks that is remembered.
    floods: BTreeMap<ClientId, u32>,
    ticks: u32,
}

impl Shares {
    /// A request of this client, with so many commands, is taken.
    pub(crate) fn taken(&mut self, client: ClientId, commands: u64) {
        self.set(client, self.of(client).saturating_add(commands));
    }

    /// So many commands of this client are answered.
    pub(crate) fn answered(&mut self, client: ClientId, commands: u64) {
        self.set(client, self.of(client).saturating_sub(commands));
    }

    /// How many commands of this client are under way.
    fn of(&self, client: ClientId) -> u64 {
        self.under_way.get(&client).copied().unwrap_or(0)
    }

    fn set(&mut self, client: ClientId, commands: u64) {
        self.by_commands.remove(&(self.of(client), client));
        if commands == 0 {
            self.under_way.remove(&client);
        } else {
            self.under_way.insert(client, commands);
            self.by_commands.insert((commands, client));
        }
    }

    /// A request of this client is refused: its share is used up.
    pub(crate) fn refused(&mut self, client: ClientId) {
        let refusals = self.refusals.entry(client).or_default();
        *refusals += 1;
        if *refusals > REFUSALS_MAX {
            self.floods(client);
        }
    }

    /// This client did what only one who floods does.
    pub(crate) fn floods(&mut self, client: ClientId) {
        if self.floods.len() < FLOODS_MAX || self.floods.contains_key(&client) {
            self.floods.insert(client, FLOOD_TICKS);
        }
    }

    /// Whether it floods.
    pub(crate) fn is_flooding(&self, client: ClientId) -> bool {
        self.floods.contains_key(&client)
    }

    /// Whether the next request of this client may be taken now.
    pub(crate) fn may(&self, client: ClientId) -> bool {
        let own = self.of(client);
        let busiest = self.by_commands.iter().rev().find(|(_, other)| *other != client).map(|(commands, _)| *commands);
        let Some(busiest) = busiest.filter(|_| own > 0) else { return true };
        let most = if self.is_flooding(client) {
            (busiest / PARTS).max(COMMANDS_OF_FLOOD_MIN)
        } else {
            busiest.max(COMMANDS_MIN)
        };
        own < most
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self) {
        self.floods.retain(|_, ticks| {
            *ticks -= 1;
            *ticks > 0
        });
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(HALVED_TICKS) {
            self.refusals.retain(|_, refusals| {
                *refusals /= 2;
                *refusals > 0
            });
        }
        if self.ticks.is_multiple_of(FORGOTTEN_TICKS) {
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
            shares.taken(client, 16);
            commands += 16;
        }
        commands
    }

    #[test]
    fn flood_one_who_has_much_to_do_has_no_more_under_way_than_the_busiest_of_the_others() {
        let mut shares = Shares::default();
        shares.taken(client(1), 160);
        shares.taken(client(2), 8);
        assert_eq!(fill(&mut shares, client(3)), 160);
        shares.answered(client(3), 48);
        assert_eq!(fill(&mut shares, client(3)), 48);
        // Beside one who asks little it may have more than that one.
        shares.answered(client(1), 160);
        shares.answered(client(3), 160);
        assert_eq!(fill(&mut shares, client(3)), COMMANDS_MIN);
    }

    #[test]
    fn flood_one_who_floods_has_a_small_part_of_that() {
        let mut shares = Shares::default();
        (0..=REFUSALS_MAX).for_each(|_| shares.refused(client(2)));
        shares.taken(client(1), 3_200);
        assert!(fill(&mut shares, client(2)) <= 3_200 / PARTS + 16);
    }

    #[test]
    fn flood_one_who_is_alone_has_all_there_is() {
        let mut shares = Shares::default();
        (0..=REFUSALS_MAX).for_each(|_| shares.refused(client(2)));
        assert_eq!(fill(&mut shares, client(2)), 10_000);
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
        shares.taken(client(2), 1_000);
        (0..10 * FLOOD_TICKS).for_each(|_| shares.tick());
        assert!(!shares.is_flooding(client(2)) && shares.refusals.is_empty());
        assert!(shares.under_way.is_empty() && shares.by_commands.is_empty());
    }
}
