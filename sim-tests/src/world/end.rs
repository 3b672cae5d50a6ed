//! The healing, and what must follow from it.

use polder_node::replica::ReplicaStatus;
use polder_types::{Answer, ReplicaId, View, Wire as _};

use super::{Happening, World};
use crate::checkers::progress::{self, End};
use crate::checkers::{Verdict, exactly_once, latency, linearizable, ready, undisturbed, validity, views};
use crate::client::Client;
use crate::history::{Command, Reply};
use crate::network::Party;

/// A view that is to stay.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    view: View,
    leader: ReplicaId,
    until_us: u64,
}

/// How often the end is looked for, in microseconds.
const LOOK_US: u64 = 50_000;

/// Commands answered in chaos that are enough to end it.
const ENOUGH: usize = 40;

/// By how much chaos is prolonged, in microseconds.
const LONGER_US: u64 = 500_000;

impl World {
    /// A quorum is healed: every correct replica, but for those that stay down, within the faults allowed.
    pub(super) fn heal(&mut self) -> Verdict {
        // Chaos goes on for a while where it has let little happen: a run with no traffic says nothing.
        if self.history.answered_by(self.now_us) < ENOUGH && self.now_us < 4_000 * self.options.chaos_ms {
            self.schedule(LONGER_US, Happening::Heal);
            return Ok(());
        }
        self.healed_at_us = Some(self.now_us);
        self.answered_in_chaos = self.history.answered_by(self.now_us);
        let stay_down = self.options.faults.stay_down;
        let lost = |host: &&super::Host| !host.is_correct() || host.is_gone || host.damage.is_some();
        let lost = self.hosts.iter().filter(lost).count();
        let mut may_stay_down = self.keyring.quorum().faults().saturating_sub(lost);
        for host in 0..self.hosts.len() {
            if self.hosts[host].liar.is_some() {
                if stay_down && self.fault_random.chance(300) {
                    self.hosts[host].crash(&mut self.disk_random);
                    self.hosts[host].is_gone = true;
                }
                continue;
            }
            // Down for good, or about to start from a folder that may be refused.
            if !self.hosts[host].is_correct() || self.hosts[host].is_gone || self.hosts[host].damage.is_some() {
                continue;
            }
            self.hosts[host].doom = None;
            self.hosts[host].mend_disks();
            let skew_ms = self.fault_random.range(0, self.options.faults.skew_ms_max);
            self.hosts[host].set_clock(skew_ms);
            self.hosts[host].paused_until_us = 0;
            self.hosts[host].starved_until_us = 0;
            self.hosts[host].busy_until_us = 0;
            // After a power cut more are down than may stay so.
            if !self.hosts[host].is_up() && stay_down && may_stay_down > 0 {
                may_stay_down -= 1;
                self.hosts[host].is_gone = true;
                continue;
            }
            self.healed.push(self.hosts[host].id);
        }
        self.leave_strays();
        let clients = self.hosts.len()..self.hosts.len() + self.clients.len();
        let healed = self.healed.iter().map(|id| Party(id.0.into()));
        let calm: Vec<Party> = healed.chain(clients.map(Party)).collect();
        self.network.heal(&calm);
        if self.options.is_watched {
            self.options.disk.stall_per_mille = 0;
        }
        self.trace.line(format_args!("{} healed: {:?}", self.now_us, self.healed));
        for id in self.healed.clone() {
            let host = usize::from(id.0);
            let life = self.hosts[host].life;
            self.schedule(0, Happening::Resume { host, life });
            self.schedule(0, Happening::Restart { host, life });
        }
        self.schedule(LOOK_US, Happening::Look);
        Ok(())
    }

    /// Looks whether all is answered; then reads the lists; then ends the run.
    pub(super) fn look(&mut self) -> Verdict {
        self.schedule(LOOK_US, Happening::Look);
        if self.clients.first().is_none_or(Client::is_done) {
            self.clients.iter_mut().for_each(Client::stop);
        }
        let end = self.describe_end();
        progress::check(&end)?;
        self.judge_deaf()?;
        self.judge_waiting()?;
        if !end.is_settled() {
            return Ok(());
        }
        if !self.has_read_lists {
            self.has_read_lists = true;
            // All in one request: what a client gave up may still come to be executed between two.
            let keys = 1..=self.options.load.keys;
            let reads: Vec<Command> = keys.map(|key| Command::Read { key }).collect();
            self.clients.first_mut().into_iter().for_each(|client| client.order(reads.clone()));
            return Ok(());
        }
        if self.options.is_watched {
            return self.watch(end);
        }
        self.end = Some(end);
        Ok(())
    }

    /// From when on the healed quorum is held to time: its time-outs have grown, and it has caught up.
    fn settled_us(&self) -> Option<u64> {
        let constants = &self.options.constants;
        let settle_ms = constants.timeout_max_ms * u64::from(constants.doublings_max() + 2);
        self.healed_at_us.map(|healed_us| healed_us + 1_000 * self.slow(settle_ms))
    }

    /// No request waits for too long, and views change seldom.
    fn judge_waiting(&mut self) -> Verdict {
        let Some(settled_us) = self.settled_us().filter(|settled_us| *settled_us <= self.now_us) else { return Ok(()) };
        let constants = &self.options.constants;
        let in_flight = self.options.load.in_flight as u64;
        let bound_ms = self.slow(latency::bound_ms(constants, self.keyring.quorum(), in_flight));
        latency::check(&self.history, settled_us, self.now_us, bound_ms)?;
        let elapsed_ms = (self.now_us - settled_us) / 1_000;
        let faulty = self.hosts.len() - self.healed.len();
        let changes_max = views::changes_max(constants, faulty, self.options.is_watched, elapsed_ms);
        let view = self.healed_statuses().iter().map(|(_, status)| status.core.view).max().unwrap_or_default();
        let from = *self.settled_view.get_or_insert(view);
        views::check(from, view, changes_max, elapsed_ms)
    }

    /// Who hears nobody says so: for as long as nothing came any more, also of what the network had held back.
    fn judge_deaf(&self) -> Verdict {
        let Some((replica, since_us)) = self.deaf else { return Ok(()) };
        // Its own clock goes on by ticks alone, and may be slow.
        let slowness = 1_000 - self.options.hazards.drift_per_mille;
        let deaf_ms = ((self.now_us - since_us) / 1_000 * slowness / 1_000).saturating_sub(10 * self.options.tick_ms);
        let status = self.hosts[usize::from(replica.0)].replica.as_ref().map(|replica| replica.status());
        status.map_or(Ok(()), |status| ready::check(replica, deaf_ms, status.core.took_part_ms_ago))
    }

    /// R5: under a correct leader the view stays, while a client makes a request now and then.
    fn watch(&mut self, end: End) -> Verdict {
        match self.watch {
            None => match self.calm_leader() {
                Some((view, leader)) => {
                    let until_us = self.now_us + 5_000 * self.options.constants.timeout_max_ms;
                    self.watch = Some(Watch { view, leader, until_us });
                }
                // A liar leads, or a view is changing: there is nothing to watch.
                None => self.end = Some(end),
            },
            Some(watch) => {
                let cores = self.healed_statuses().into_iter().map(|(id, status)| (id, status.core));
                let cores: Vec<_> = cores.map(|(id, core)| (id, core.view, core.suspects)).collect();
                undisturbed::check(watch.view, watch.leader, &cores)?;
                if self.now_us >= watch.until_us {
                    self.end = Some(end);
                } else if let Some(client) = self.clients.first_mut() {
                    client.order(vec![Command::Read { key: 1 }]);
                }
            }
        }
        Ok(())
    }

    fn healed_statuses(&self) -> Vec<(ReplicaId, ReplicaStatus)> {
        let status = |id: &ReplicaId| self.hosts[usize::from(id.0)].replica.as_ref().map(|replica| replica.status());
        self.healed.iter().filter_map(|id| status(id).map(|status| (*id, status))).collect()
    }

    /// The view that all healed replicas are in, if it has a correct leader whom none of them suspects, nor has suspected
    /// in that view: one such SUSPECT and one of a replica that hears nobody are `r+1` (R4).
    fn calm_leader(&self) -> Option<(View, ReplicaId)> {
        let statuses = self.healed_statuses();
        let first = &statuses.first()?.1.core;
        let mut cores = statuses.iter().map(|(_, status)| &status.core);
        let is_calm = cores.all(|core| core.view == first.view && core.entered && !core.suspects);
        let has_suspected = |id: &ReplicaId| self.hosts[usize::from(id.0)].suspected == Some(first.view);
        let is_calm = is_calm && !self.healed.iter().any(has_suspected);
        (is_calm && self.healed.contains(&first.leader)).then_some((first.view, first.leader))
    }

    fn describe_end(&mut self) -> End {
        let since_us = self.now_us - self.healed_at_us.unwrap_or(self.now_us);
        let requests = (self.options.load.clients * self.options.load.requests) as u64;
        let statuses = self.healed_statuses();
        let executed: Vec<_> = statuses.iter().map(|(id, status)| (*id, status.executed)).collect();
        let unanswered = self.clients.iter().map(Client::unanswered).sum();
        // While clients make requests some are held; what a lying client sent is its own affair.
        let counts_held = unanswered == 0 && self.options.load.mischief_gap_ms == 0;
        let held = statuses.iter().map(|(_, status)| status.core.waiting).sum();
        let apart = statuses.iter().filter(|(_, status)| !ready::says_ready(status.core.took_part_ms_ago));
        let highest = executed.iter().map(|(_, executed)| *executed).max().unwrap_or_default();
        // The lying client may go on making requests: who keeps up with those is not asked for.
        if unanswered > 0 {
            self.must_reach = None;
        }
        let must_reach = *self.must_reach.get_or_insert(highest);
        let lag_slots = 2 * self.options.constants.interval_slots;
        let undurable = statuses.iter().map(|(id, status)| (*id, status.planner.frontier, status.stable));
        let undurable = undurable.filter(|(_, frontier, stable)| frontier.plus(lag_slots) < must_reach.min(*stable));
        let last_cut = must_reach.0 / self.options.constants.interval_slots * self.options.constants.interval_slots;
        let uncertified = statuses.iter().filter(|(_, status)| status.stable.0 < last_cut);
        End {
            since_ms: since_us / 1_000,
            bound_ms: self.slow(progress::bound_ms(&self.options.constants, self.keyring.quorum(), requests)),
            unanswered,
            held: if counts_held { held } else { 0 },
            apart: if counts_held { apart.map(|(id, _)| *id).collect() } else { Vec::new() },
            undurable: undurable.map(|(id, frontier, _)| (id, frontier)).collect(),
            uncertified: uncertified.map(|(id, status)| (*id, status.stable)).collect(),
            must_reach,
            executed,
        }
    }

    /// How long it may take the slowest clock of the run to show so much.
    fn slow(&self, ms: u64) -> u64 {
        ms * 1_000 / (1_000 - self.options.hazards.drift_per_mille).max(1)
    }

    /// The last word of the checkers that judge whole histories.
    pub(super) fn conclude(&mut self) -> Verdict {
        for operation in self.history.operations.iter().rev() {
            if let (Command::Read { key }, Some((_, Answer::Done(bytes)))) = (operation.command, &operation.answered)
                && let Ok(Reply::List(list)) = Reply::from_wire(bytes)
            {
                self.history.lists.entry(key).or_insert(list);
            }
        }
        let statuses = self.hosts.iter().filter_map(|host| host.replica.as_ref()).map(|replica| replica.status());
        self.counts.no_room = self.clients.iter().map(crate::client::Client::no_room).sum();
        self.counts.view_changes = statuses.map(|status| status.core.view.0).max().unwrap_or_default();
        validity::check(&self.history)?;
        exactly_once::check(&self.history)?;
        linearizable::check(&self.history)
    }
}
