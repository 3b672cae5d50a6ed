//! Correct replicas that are left alone when the others are healed, within the faults allowed: they crash, they hear and
//! are heard by whom it pleases the network, and none of it may cost the others their view (R5).

use polder_types::ReplicaId;

use super::{Happening, World};
use crate::checkers::Verdict;
use crate::network::{Blocked, Party, Shape};

/// How a replica that is left alone fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It hears nobody.
    Deaf,
    /// Nobody hears it.
    Mute,
    /// Both.
    Isolated,
    /// It has lost one replica only, often the leader: the partial split of five servers.
    Apart,
    /// Whom it hears and who hears it changes all the time.
    Moving,
    /// It crashes and comes back all the time.
    Bouncing,
}

const MANNERS: [(u64, Manner); 6] = [
    (3, Manner::Deaf),
    (1, Manner::Mute),
    (1, Manner::Isolated),
    (2, Manner::Apart),
    (2, Manner::Moving),
    (1, Manner::Bouncing),
];

impl World {
    /// Some correct replicas may be left alone, as many as the faults allow.
    pub(super) fn leave_strays(&mut self) {
        let spare = self.healed.len().saturating_sub(self.keyring.quorum().quorum()) as u64;
        if !self.options.faults.leaves_stray || spare == 0 {
            return;
        }
        for _ in 0..self.fault_random.range(1, spare.min(self.options.hazards.strays_max)) {
            let index = self.fault_random.below(self.healed.len());
            let stray = self.healed.remove(index);
            let manner = self.fault_random.weighted(&MANNERS, Manner::Deaf);
            self.leave(stray, manner);
        }
    }

    /// From now on the last `u` replicas hear and are heard by anybody, otherwise all the time. Returns the others.
    pub fn stray_last(&mut self) -> Vec<u8> {
        let well = self.hosts.len() - self.keyring.quorum().faults();
        for host in well..self.hosts.len() {
            self.leave(self.hosts[host].id, Manner::Moving);
        }
        (0..well as u8).collect()
    }

    fn leave(&mut self, stray: ReplicaId, manner: Manner) {
        self.trace.line(format_args!("{} {stray} is left alone: {manner:?}", self.now_us));
        let host = usize::from(stray.0);
        self.hosts[host].manner = Some(manner);
        let parties: Vec<Party> = (0..self.hosts.len()).map(Party).collect();
        let mut split = |shape| self.network.split(shape, Party(host), &parties, u64::MAX, Blocked::Lose);
        match manner {
            Manner::Deaf => split(Shape::Deaf),
            Manner::Mute => split(Shape::Mute),
            Manner::Isolated => split(Shape::Isolate),
            Manner::Apart => {
                let drawn = self.fault_random.pick(&self.healed).copied();
                let leader = self.believed_leader().filter(|leader| self.healed.contains(leader)).or(drawn);
                let other = Party(usize::from(leader.unwrap_or_default().0));
                self.network.block(Party(host), other, u64::MAX, Blocked::Lose);
                self.network.block(other, Party(host), u64::MAX, Blocked::Lose);
            }
            Manner::Moving | Manner::Bouncing => self.schedule(0, Happening::Stray { host }),
        }
        if matches!(manner, Manner::Deaf | Manner::Isolated) {
            self.deaf.get_or_insert((stray, self.now_us));
        }
        let life = self.hosts[host].life;
        self.schedule(0, Happening::Resume { host, life });
        self.schedule(0, Happening::Restart { host, life });
    }

    /// A replica that is left alone fails in another way.
    pub(super) fn stray(&mut self, host: usize) -> Verdict {
        let after_us = self.fault_random.range(20_000, 600_000);
        self.schedule(after_us, Happening::Stray { host });
        if self.hosts[host].manner == Some(Manner::Moving) {
            for other in (0..self.hosts.len()).filter(|other| *other != host) {
                for (from, to) in [(host, other), (other, host)] {
                    if self.fault_random.chance(500) {
                        self.network.block(Party(from), Party(to), self.now_us + after_us, Blocked::Lose);
                    }
                }
            }
            return Ok(());
        }
        if self.hosts[host].is_up() { self.crash(host, None) } else { self.restart(host) }
    }
}
