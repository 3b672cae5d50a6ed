//! Chaos: crashes, pauses and splits, drawn as the run goes on.
//!
//! **The fault model.** Which replicas lie is drawn at the start: at most `r`, for the whole run. A crashed replica
//! counts as faulty while it is down and no longer: its disks keep what was synced, so it remembers what it promised.
//! At every moment liars and replicas that are down are at most `u` together. Pauses, splits, losses and delays are
//! the network's and the clocks' faults, which no number bounds until the healing.

use polder_types::ReplicaId;

use super::{Doom, Happening, Point, World};
use crate::checkers::Verdict;
use crate::network::{Blocked, Party, Shape};

/// What fails next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A replica crashes.
    Crash,
    /// A replica stands still.
    Pause,
    /// The network splits.
    Split,
    /// A wall clock jumps.
    Jump,
}

/// Sometimes a wall clock jumps by an hour.
const HOUR_MS: u64 = 3_600_000;

/// How far a wall clock jumps, in milliseconds: well beyond what a batch's time may be ahead (R27).
const JUMP_MS_MAX: u64 = 2_000;

impl World {
    pub(super) fn schedule_chaos(&mut self) {
        for fault in [Fault::Crash, Fault::Pause, Fault::Split, Fault::Jump] {
            self.schedule_fault(fault);
        }
        self.schedule(self.options.chaos_ms * 1_000, Happening::Heal);
    }

    fn schedule_fault(&mut self, fault: Fault) {
        let gap_ms = match fault {
            Fault::Crash => self.options.faults.crash_gap_ms,
            Fault::Pause => self.options.faults.pause_gap_ms,
            Fault::Split => self.options.faults.split_gap_ms,
            Fault::Jump => self.options.faults.jump_gap_ms,
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
        match fault {
            Fault::Crash => self.doom(),
            Fault::Pause => self.pause(),
            Fault::Split => self.split(),
            Fault::Jump => self.jump(),
        }
        Ok(())
    }

    /// How many more replicas may fail now.
    fn faults_left(&self) -> usize {
        let is_faulty = |host: &super::Host| host.liar.is_some() || !host.is_up() || host.doom.is_some();
        let faulty = self.hosts.iter().filter(|host| is_faulty(host)).count();
        self.keyring.quorum().faults().saturating_sub(faulty)
    }

    /// A replica that has just started may be doomed to crash in the middle of its recovery.
    pub(super) fn doom_again(&mut self, host: usize) {
        let is_chaos = self.healed_at_us.is_none() && self.held.is_none() && self.now_us > 50_000;
        let again_per_mille = self.options.faults.again_per_mille;
        if is_chaos
            && self.faults_left() > 0
            && self.hosts[host].liar.is_none()
            && self.fault_random.chance(again_per_mille)
        {
            let latest_us = self.now_us + self.fault_random.range(0, 60_000);
            self.hosts[host].doom = Some(Doom { point: Point::Cut, latest_us });
        }
    }

    /// Dooms a replica: it crashes in the middle of something. Often the leader, whose crash matters most.
    fn doom(&mut self) {
        if self.faults_left() == 0 {
            return;
        }
        let correct = |host: &&super::Host| host.liar.is_none() && host.is_up() && host.doom.is_none();
        let candidates: Vec<ReplicaId> = self.hosts.iter().filter(correct).map(|host| host.id).collect();
        let leader = self.believed_leader().filter(|leader| candidates.contains(leader));
        let drawn = self.fault_random.pick(&candidates).copied();
        let Some(victim) = leader.filter(|_| self.fault_random.chance(350)).or(drawn) else { return };
        let point = self.fault_random.weighted(
            &[(3, Point::Anywhere), (2, Point::ViewChange), (2, Point::Cut), (2, Point::Proposal)],
            Point::Anywhere,
        );
        let latest_us = self.now_us + 1_000 * self.fault_random.range(1, 600);
        self.hosts[usize::from(victim.0)].doom = Some(Doom { point, latest_us });
    }

    /// The leader of the highest view that a correct replica is in.
    fn believed_leader(&self) -> Option<ReplicaId> {
        let statuses = self.hosts.iter().filter(|host| host.liar.is_none()).filter_map(|host| host.replica.as_ref());
        statuses.map(|replica| replica.status().core).max_by_key(|core| core.view).map(|core| core.leader)
    }

    /// A replica crashes now; it comes back after a while.
    pub(super) fn crash(&mut self, host: usize) -> Verdict {
        self.trace.line(format_args!("{} r{host} crashes", self.now_us));
        self.counts.crashes += 1;
        self.hosts[host].crash(&mut self.disk_random);
        let life = self.hosts[host].life;
        let down_us = self.fault_random.around(self.options.faults.down_ms * 1_000);
        self.schedule(down_us, Happening::Restart { host, life });
        Ok(())
    }

    fn pause(&mut self) {
        let host = self.fault_random.below(self.hosts.len());
        let pause_us = self.fault_random.around(self.options.faults.pause_ms * 1_000);
        if !self.hosts[host].is_up() || self.hosts[host].paused_until_us > self.now_us {
            return;
        }
        self.trace.line(format_args!("{} r{host} stands still for {pause_us} us", self.now_us));
        self.hosts[host].paused_until_us = self.now_us + pause_us;
        let life = self.hosts[host].life;
        self.schedule(pause_us, Happening::Resume { host, life });
    }

    /// A replica goes on: what arrived meanwhile comes at once, in order.
    pub(super) fn resume(&mut self, host: usize) -> Verdict {
        if self.hosts[host].paused_until_us > self.now_us {
            return Ok(());
        }
        let life = self.hosts[host].life;
        while self.is_current(host, life)
            && let Some(event) = self.hosts[host].backlog.pop_front()
        {
            self.give(host, event)?;
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

    fn split(&mut self) {
        let n = self.hosts.len();
        let with_clients = self.fault_random.chance(300);
        let parties = if with_clients { n + self.clients.len() } else { n };
        let parties: Vec<Party> = (0..parties).map(Party).collect();
        let shape = self.fault_random.pick(&Shape::ALL).copied().unwrap_or(Shape::Isolate);
        let leader = self.believed_leader().map(|leader| Party(leader.0.into()));
        let drawn = Party(self.fault_random.below(n));
        let who = leader.filter(|_| self.fault_random.chance(500)).unwrap_or(drawn);
        let split_us = self.fault_random.around(self.options.faults.split_ms * 1_000);
        let blocked = if self.fault_random.chance(700) { Blocked::Lose } else { Blocked::Hold };
        self.trace.line(format_args!("{} {shape:?} {blocked:?} around r{} for {split_us} us", self.now_us, who.0));
        self.network.split(shape, who, &parties, self.now_us + split_us, blocked);
    }
}
