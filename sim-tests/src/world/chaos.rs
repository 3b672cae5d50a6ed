//! Chaos: what fails, drawn as the run goes on.
//!
//! **The fault model.** Which replicas lie is drawn at the start: at most `r`, for the whole run. A crashed replica
//! counts as faulty while it is down and no longer: its disks keep what was synced, so it remembers what it promised.
//! A replica whose data folder is damaged so that it is refused or halts is down for good; one that forgets what nobody can
//! show it counts in `r`. At every moment liars and replicas that are down are at most `u` together, but for a power cut, which all correct ones
//! come back from. Pauses, splits, losses and delays are the network's and the clocks' faults, which no number bounds
//! until the healing.

use polder_types::ReplicaId;

use super::point::{Aim, Doom, Point};
use super::{Happening, World};
use crate::checkers::Verdict;
use crate::network::{Blocked, Party, Shape};

/// What fails next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A replica crashes.
    Crash,
    /// A replica stands still.
    Pause,
    /// A replica stands still for longer than any time-out.
    LongPause,
    /// A replica gets few steps.
    Starve,
    /// The network splits.
    Split,
    /// A few replicas lose one other, or one direction of one link.
    Partial,
    /// Links hold what they carry, and give it all at one time.
    Clog,
    /// A wall clock jumps.
    Jump,
    /// A wall clock stands still.
    Freeze,
    /// All correct replicas crash at once.
    PowerCut,
    /// A disk stands still.
    Stall,
    /// A disk fails a write or a sync, or is full.
    Trouble,
    /// A data folder is copied, as for a backup.
    Save,
    /// A data folder is damaged while its replica is down.
    Damage,
}

impl Fault {
    /// How many there are.
    pub const COUNT: usize = 14;

    /// All of them.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Crash,
        Self::Pause,
        Self::LongPause,
        Self::Starve,
        Self::Split,
        Self::Partial,
        Self::Clog,
        Self::Jump,
        Self::Freeze,
        Self::PowerCut,
        Self::Stall,
        Self::Trouble,
        Self::Save,
        Self::Damage,
    ];

    /// Its name, for counts.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Crash => "crashes",
            Self::Pause => "pauses",
            Self::LongPause => "long pauses",
            Self::Starve => "starvations",
            Self::Split => "splits",
            Self::Partial => "partial splits",
            Self::Clog => "clogs",
            Self::Jump => "jumps",
            Self::Freeze => "freezes",
            Self::PowerCut => "power cuts",
            Self::Stall => "disk stalls",
            Self::Trouble => "disk troubles",
            Self::Save => "copies of folders",
            Self::Damage => "damages to folders",
        }
    }
}

/// Sometimes a wall clock jumps by an hour.
const HOUR_MS: u64 = 3_600_000;

/// How far a wall clock jumps, in milliseconds: well beyond what a batch's time may be ahead (R27).
const JUMP_MS_MAX: u64 = 2_000;

impl World {
    pub(super) fn schedule_chaos(&mut self) {
        for fault in Fault::ALL {
            self.schedule_fault(fault);
        }
        self.schedule(self.options.chaos_ms * 1_000, Happening::Heal);
    }

    fn schedule_fault(&mut self, fault: Fault) {
        let (faults, hazards) = (&self.options.faults, &self.options.hazards);
        let gap_ms = match fault {
            Fault::Crash => faults.crash_gap_ms,
            Fault::Pause => faults.pause_gap_ms,
            Fault::LongPause => hazards.long_pause_gap_ms,
            Fault::Starve => hazards.starve_gap_ms,
            Fault::Split => faults.split_gap_ms,
            Fault::Partial => hazards.partial_gap_ms,
            Fault::Clog => hazards.clog_gap_ms,
            Fault::Jump => faults.jump_gap_ms,
            Fault::Freeze => hazards.freeze_gap_ms,
            Fault::PowerCut => hazards.power_cut_gap_ms,
            Fault::Stall => hazards.stall_gap_ms,
            Fault::Trouble => hazards.trouble_gap_ms,
            Fault::Save | Fault::Damage => hazards.damage_gap_ms,
        };
        if gap_ms > 0 {
            let after_us = self.fault_random.around(gap_ms * 1_000);
            self.schedule(after_us, Happening::Fault(fault));
        }
    }

    pub(super) fn fault(&mut self, fault: Fault) -> Verdict {
        if self.healed_at_us.is_some() {
            return Ok(());
        }
        self.schedule_fault(fault);
        self.counts.faults.count(fault as usize);
        match fault {
            Fault::Crash => self.doom(),
            Fault::Pause => {
                let pause_us = self.fault_random.around(self.options.faults.pause_ms * 1_000);
                self.pause(pause_us);
            }
            Fault::LongPause => {
                let pause_ms = self.options.hazards.long_pause_ms;
                let pause_us = self.fault_random.range(pause_ms, 2 * pause_ms) * 1_000;
                self.pause(pause_us);
            }
            Fault::Starve => self.starve(),
            Fault::Split => self.split(),
            Fault::Partial => self.split_partially(),
            Fault::Clog => self.clog(),
            Fault::Jump => self.jump(),
            Fault::Freeze => self.freeze(),
            Fault::PowerCut => return self.power_cut(),
            Fault::Stall => self.stall(),
            Fault::Trouble => self.trouble(),
            Fault::Save => self.save(),
            Fault::Damage => return self.damage(),
        }
        Ok(())
    }

    /// How many more replicas may fail now.
    pub(super) fn faults_left(&self) -> usize {
        let is_faulty = |host: &super::Host| {
            let has_trouble = host.log.trouble.is_some() || host.state.trouble.is_some();
            !host.is_correct() || !host.is_up() || host.doom.is_some() || has_trouble
        };
        let faulty = self.hosts.iter().filter(|host| is_faulty(host)).count();
        self.keyring.quorum().faults().saturating_sub(faulty)
    }

    /// A replica that has just started may be doomed to crash in the middle of its recovery.
    pub(super) fn doom_again(&mut self, host: usize) {
        let is_chaos = self.healed_at_us.is_none() && self.held.is_none() && self.now_us > 50_000;
        let again_per_mille = self.options.faults.again_per_mille;
        if is_chaos
            && self.faults_left() > 0
            && self.hosts[host].is_correct()
            && self.fault_random.chance(again_per_mille)
        {
            let latest_us = self.now_us + self.fault_random.range(0, 60_000);
            self.hosts[host].doom = Some(Doom { aim: Aim::Cut, latest_us });
        }
    }

    /// Dooms a replica: it crashes in the middle of something. Often the leader, whose crash matters most.
    fn doom(&mut self) {
        if self.faults_left() == 0 {
            return;
        }
        let correct = |host: &&super::Host| host.is_correct() && host.is_up() && host.doom.is_none();
        let candidates: Vec<ReplicaId> = self.hosts.iter().filter(correct).map(|host| host.id).collect();
        let leader = self.believed_leader().filter(|leader| candidates.contains(leader));
        let drawn = self.fault_random.pick(&candidates).copied();
        let Some(victim) = leader.filter(|_| self.fault_random.chance(350)).or(drawn) else { return };
        let point = self.fault_random.pick(&Point::ALL).copied().unwrap_or(Point::Deliver);
        let aim = self.fault_random.weighted(
            &[
                (3, Aim::Anything),
                (2, Aim::ViewChange),
                (2, Aim::Cut),
                (1, Aim::At(Point::SendProposal)),
                (4, Aim::At(point)),
            ],
            Aim::Anything,
        );
        let latest_us = self.now_us + 1_000 * self.fault_random.range(1, 600);
        self.hosts[usize::from(victim.0)].doom = Some(Doom { aim, latest_us });
    }

    /// The leader of the highest view that a correct replica is in.
    pub(super) fn believed_leader(&self) -> Option<ReplicaId> {
        let statuses = self.hosts.iter().filter(|host| host.is_correct()).filter_map(|host| host.replica.as_ref());
        statuses.map(|replica| replica.status().core).max_by_key(|core| core.view).map(|core| core.leader)
    }

    /// A replica crashes now, at this point, if it is one; it comes back after a while.
    pub(super) fn crash(&mut self, host: usize, at: Option<(Point, &'static str)>) -> Verdict {
        match at {
            Some((point, side)) => {
                self.counts.crashes_at.count(point as usize);
                self.trace.line(format_args!("{} r{host} crashes {side} {}", self.now_us, point.name()));
            }
            None => self.trace.line(format_args!("{} r{host} crashes", self.now_us)),
        }
        self.counts.crashes += 1;
        self.hosts[host].crash(&mut self.disk_random);
        let life = self.hosts[host].life;
        let down_us = self.fault_random.around(self.options.faults.down_ms * 1_000);
        self.schedule(down_us, Happening::Restart { host, life });
        Ok(())
    }

    /// Whether a replica is doomed to crash at this point.
    pub(super) fn is_struck(&self, host: usize, point: Point) -> bool {
        self.hosts[host].doom.is_some_and(|doom| doom.strikes_at(self.now_us, point))
    }

    /// All correct replicas crash at once; each comes back after a while.
    fn power_cut(&mut self) -> Verdict {
        self.trace.line(format_args!("{} the power fails", self.now_us));
        for host in 0..self.hosts.len() {
            if self.hosts[host].is_correct() && self.hosts[host].is_up() {
                self.crash(host, None)?;
            }
        }
        Ok(())
    }

    /// A wall clock jumps, ahead or back.
    fn jump(&mut self) {
        let host = self.fault_random.below(self.hosts.len());
        let jump_ms_max = if self.fault_random.chance(200) { HOUR_MS } else { JUMP_MS_MAX };
        let jump_ms = self.fault_random.range(0, 2 * jump_ms_max) as i64 - jump_ms_max as i64;
        self.trace.line(format_args!("{} the wall clock of r{host} jumps to {jump_ms} ms", self.now_us));
        self.hosts[host].skew_ms = jump_ms;
    }

    /// One replica: often the leader.
    fn somebody(&mut self) -> Party {
        let leader = self.believed_leader().map(|leader| Party(leader.0.into()));
        let drawn = Party(self.fault_random.below(self.hosts.len()));
        leader.filter(|_| self.fault_random.chance(500)).unwrap_or(drawn)
    }

    fn split(&mut self) {
        let n = self.hosts.len();
        let with_clients = self.fault_random.chance(300);
        let parties = if with_clients { n + self.clients.len() } else { n };
        let parties: Vec<Party> = (0..parties).map(Party).collect();
        let shape = self.fault_random.pick(&Shape::ALL).copied().unwrap_or(Shape::Isolate);
        let who = self.somebody();
        let split_us = self.fault_random.around(self.options.faults.split_ms * 1_000);
        let blocked = if self.fault_random.chance(700) { Blocked::Lose } else { Blocked::Hold };
        self.trace.line(format_args!("{} {shape:?} {blocked:?} around r{} for {split_us} us", self.now_us, who.0));
        self.network.split(shape, who, &parties, self.now_us + split_us, blocked);
    }

    /// At most `u` replicas lose one other, both ways or one, and hear and are heard by all the rest; or one client does.
    fn split_partially(&mut self) {
        let n = self.hosts.len();
        let who = self.somebody();
        let mut others: Vec<Party> = (0..n).map(Party).filter(|other| *other != who).collect();
        self.fault_random.shuffle(&mut others);
        others.truncate(self.fault_random.range(1, self.keyring.quorum().faults().max(1) as u64) as usize);
        if self.fault_random.chance(200) {
            others = vec![Party(n + self.fault_random.below(self.clients.len()))];
        }
        let ways = self.fault_random.range(0, 2);
        let split_us = self.fault_random.around(self.options.hazards.partial_ms * 1_000);
        let until_us = self.now_us + split_us;
        self.trace.line(format_args!("{} r{} and {others:?} lose one another for {split_us} us", self.now_us, who.0));
        for other in others {
            if ways != 1 {
                self.network.block(who, other, until_us, Blocked::Lose);
            }
            if ways != 2 {
                self.network.block(other, who, until_us, Blocked::Lose);
            }
        }
    }

    /// What one party is sent, or sends, or one link carries, waits and then arrives at one time.
    fn clog(&mut self) {
        let who = self.somebody();
        let clog_us = self.fault_random.around(self.options.hazards.clog_ms * 1_000);
        let until_us = self.now_us + clog_us;
        let other = Party(self.fault_random.below(self.hosts.len() + self.clients.len()));
        let which = self.fault_random.range(0, 2);
        self.trace.line(format_args!("{} clog {which} of r{} for {clog_us} us", self.now_us, who.0));
        for party in (0..self.hosts.len()).map(Party).filter(|party| *party != who) {
            match which {
                0 => self.network.block(party, who, until_us, Blocked::Burst),
                1 => self.network.block(who, party, until_us, Blocked::Burst),
                _ => self.network.block(other, who, until_us, Blocked::Burst),
            }
        }
    }
}
