//! How fast a replica gets its steps: at once, not at all while it stands still, one by one while it starves; and how
//! fast its clocks and disks are.

use polder_node::replica::{Disk, Event};

use super::{Happening, Host, World};
use crate::checkers::Verdict;
use crate::disk::Trouble;

/// Events that wait for a replica; of what others send no more is kept, as their windows close and their lanes fill.
const BACKLOG_MAX: usize = 1_024;

impl Host {
    /// Whether it takes an event now.
    fn is_free(&self, now_us: u64) -> bool {
        self.paused_until_us <= now_us && self.busy_until_us <= now_us && self.backlog.is_empty()
    }

    /// Keeps an event for later, if there is room; a tick but once, as those that are missed are not made up for (R7).
    fn keep(&mut self, event: Event) -> bool {
        let is_kept = match &event {
            Event::Tick => !std::mem::replace(&mut self.has_tick, true),
            Event::Peer { .. } | Event::Request(_) => self.backlog.len() < BACKLOG_MAX,
            _ => true,
        };
        let is_tick = matches!(event, Event::Tick);
        if is_kept {
            self.backlog.push_back(event);
        }
        is_kept || is_tick
    }
}

impl World {
    /// Gives a replica an event: a step now, or later.
    pub(super) fn give(&mut self, host: usize, event: Event) -> Verdict {
        if self.hosts[host].is_free(self.now_us) {
            return self.pace(host, event);
        }
        if self.hosts[host].is_up() && !self.hosts[host].keep(event) {
            self.counts.overflown += 1;
        }
        Ok(())
    }

    /// A step; a starved replica is busy with it for a while.
    fn pace(&mut self, host: usize, event: Event) -> Verdict {
        self.step(host, event)?;
        if self.hosts[host].starved_until_us > self.now_us && self.hosts[host].is_up() {
            let busy_us = self.options.hazards.starved_step_us;
            self.hosts[host].busy_until_us = self.now_us + busy_us;
            let life = self.hosts[host].life;
            self.schedule(busy_us, Happening::Resume { host, life });
        }
        Ok(())
    }

    /// A replica goes on: what arrived meanwhile comes at once, in order; to a starved one the next of it.
    pub(super) fn resume(&mut self, host: usize) -> Verdict {
        let life = self.hosts[host].life;
        while self.is_current(host, life)
            && self.hosts[host].paused_until_us <= self.now_us
            && self.hosts[host].busy_until_us <= self.now_us
            && let Some(event) = self.hosts[host].backlog.pop_front()
        {
            if matches!(event, Event::Tick) {
                self.hosts[host].has_tick = false;
            }
            self.pace(host, event)?;
        }
        Ok(())
    }

    /// A replica stands still.
    pub(super) fn pause(&mut self, pause_us: u64) {
        let host = self.fault_random.below(self.hosts.len());
        if !self.hosts[host].is_up() || self.hosts[host].paused_until_us > self.now_us {
            return;
        }
        self.trace.line(format_args!("{} r{host} stands still for {pause_us} us", self.now_us));
        self.hosts[host].paused_until_us = self.now_us + pause_us;
        let life = self.hosts[host].life;
        self.schedule(pause_us, Happening::Resume { host, life });
    }

    /// A replica gets few steps.
    pub(super) fn starve(&mut self) {
        let host = self.fault_random.below(self.hosts.len());
        let starve_us = self.fault_random.around(self.options.hazards.starve_ms * 1_000);
        self.trace.line(format_args!("{} r{host} starves for {starve_us} us", self.now_us));
        self.hosts[host].starved_until_us = self.now_us + starve_us;
    }

    /// A disk stands still for a while.
    pub(super) fn stall(&mut self) {
        let host = self.fault_random.below(self.hosts.len());
        let disk = if self.fault_random.chance(500) { Disk::Log } else { Disk::State };
        let stall_us = self.fault_random.around(self.options.hazards.stall_ms * 1_000);
        let until_us = self.now_us + stall_us;
        self.trace.line(format_args!("{} the {disk:?} disk of r{host} stalls for {stall_us} us", self.now_us));
        self.disk(host, disk).stalled_until_us = until_us;
    }

    /// A disk fails its next write or sync, or is full for a while: its process ends (R19).
    pub(super) fn trouble(&mut self) {
        let fits = |host: &&Host| host.is_correct() && host.is_up() && host.doom.is_none();
        let candidates: Vec<usize> = self.hosts.iter().filter(fits).map(|host| usize::from(host.id.0)).collect();
        let Some(host) = self.fault_random.pick(&candidates).copied().filter(|_| self.faults_left() > 0) else {
            return;
        };
        let disk = if self.fault_random.chance(700) { Disk::Log } else { Disk::State };
        let full_us = self.fault_random.around(self.options.hazards.full_ms * 1_000);
        let full = Trouble::Full { until_us: self.now_us + full_us };
        let trouble = self.fault_random.weighted(&[(1, Trouble::Write), (1, Trouble::Sync), (1, full)], full);
        self.trace.line(format_args!("{} the {disk:?} disk of r{host}: {trouble:?}", self.now_us));
        self.disk(host, disk).trouble = Some(trouble);
    }

    /// A wall clock stands still.
    pub(super) fn freeze(&mut self) {
        let host = self.fault_random.below(self.hosts.len());
        let freeze_us = self.fault_random.around(self.options.hazards.freeze_ms * 1_000);
        self.trace.line(format_args!("{} the wall clock of r{host} stands still for {freeze_us} us", self.now_us));
        self.hosts[host].frozen_wall_ms = Some(self.hosts[host].clocks(self.now_us).wall.0);
        self.schedule(freeze_us, Happening::Thaw { host });
    }
}

#[cfg(test)]
mod tests {
    use polder_types::ReplicaId;

    use super::*;

    #[test]
    fn a_busy_replica_keeps_one_tick_and_takes_them_in_order() {
        let mut host = Host::new(ReplicaId(0), None);
        assert!(host.is_free(0));
        host.busy_until_us = 5;
        assert!(!host.is_free(4) && host.is_free(5));
        assert!(host.keep(Event::Tick) && host.keep(Event::Tick));
        assert_eq!(host.backlog.len(), 1);
        assert!(!host.is_free(5), "what came before comes first");
    }
}
