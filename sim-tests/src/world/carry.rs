//! Giving events to a replica, and carrying out what it asks for: in order, and only so far as it lives.

use std::panic::{AssertUnwindSafe, catch_unwind};

use polder_checkpoint::StoreError;
use polder_consensus::{Message, To, verify_evidence};
use polder_node::replica::{Action, Disk, Event, PeerMessage, VerifiedPeer, verify_peer};
use polder_types::{ClientId, NodeFrame, ReplicaId};

use super::{Happening, Job, Parcel, Point, Standing, World};
use crate::byzantine::Plot;
use crate::checkers::certificates::Certificates;
use crate::checkers::{Verdict, evidence, violation};
use crate::network::Party;

/// Of how many votes of correct replicas one is verified when it is sent.
const VOTES_PER_CHECK: u64 = 4;

fn is_vote(message: &VerifiedPeer) -> bool {
    matches!(message, VerifiedPeer::Ordering(ordering, _) if matches!(ordering.message(), Message::Vote(_)))
}

impl World {
    /// A step: the replica is given an event, and what it asks for is carried out.
    pub(super) fn step(&mut self, host: usize, event: Event) -> Verdict {
        let now = self.hosts[host].clocks(self.now_us);
        let is_tick = matches!(event, Event::Tick);
        // Before the step, so that a trace that ends in a panic ends with what led to it.
        if !is_tick && self.hosts[host].is_up() {
            self.trace.line(format_args!("{} r{host} <- {event}", self.now_us));
        }
        // What liars say is followed up, in runs that have some.
        let said = match &event {
            Event::Peer { message: VerifiedPeer::Ordering(message, _), .. } if self.options.liars > 0 => {
                Some(message.clone()).filter(|_| self.hosts[host].is_correct() && self.hosts[host].is_up())
            }
            _ => None,
        };
        let mut actions = Vec::new();
        let is_liar = self.hosts[host].liar.is_some();
        if is_liar && self.hosts[host].is_up() {
            let (goes_on, said) = self.with_liar(host, |liar, plot| liar.hears(plot, &event));
            said.into_iter().for_each(|(to, message)| self.send_lie(host, to, message));
            if !goes_on {
                return Ok(());
            }
        }
        let Some(replica) = self.hosts[host].replica.as_mut() else { return Ok(()) };
        self.counts.steps += 1;
        if is_liar {
            // What others make of its lies may come back and confuse it: then it crashes, which is one more fault of
            // a replica that is faulty anyway.
            let step = catch_unwind(AssertUnwindSafe(|| replica.step(now, event, &mut actions)));
            if step.is_err() {
                self.trace.line(format_args!("{} r{host}, a liar, fell over its own lies", self.now_us));
                self.hosts[host].crash(&mut self.disk_random);
                self.hosts[host].is_gone = true;
                return Ok(());
            }
        } else {
            replica.step(now, event, &mut actions);
        }
        if is_tick && !actions.is_empty() {
            self.trace.line(format_args!("{} r{host} <- tick", self.now_us));
        }
        let Some(said) = said else { return self.carry_out(host, actions) };
        let due = self.due_evidence(host, said.message());
        let before = self.checkers.named.get(&self.hosts[host].id).map(|(_, at)| *at).unwrap_or_default();
        let life = self.hosts[host].life;
        self.carry_out(host, actions)?;
        if self.is_current(host, life) && self.hosts[host].is_correct() {
            self.observe_taken(host, said.message(), &before, due)?;
        }
        Ok(())
    }

    /// Carries out actions, unless a crash strikes in their middle.
    pub(super) fn carry_out(&mut self, host: usize, mut actions: Vec<Action>) -> Verdict {
        let struck = self.struck(host, &actions);
        if let Some((kept, _)) = struck {
            actions.truncate(kept);
        }
        let is_correct = self.hosts[host].is_correct();
        for action in actions {
            if !matches!(action, Action::Executed { .. }) {
                self.trace.line(format_args!("    {action}"));
            }
            match action {
                Action::Send { to, message } => self.send(host, to, &message)?,
                Action::Reply { client, frame } => self.reply(host, client, frame),
                Action::Write { disk, writes, durability, ticket } => {
                    let me = self.hosts[host].id;
                    if disk == Disk::Log
                        && is_correct
                        && let Some(promises) = self.checkers.promises.get_mut(&me)
                    {
                        promises.written(ticket, durability, &writes)?;
                    }
                    self.disk(host, disk).submit(writes, durability, ticket);
                }
                Action::Digest { frozen } => {
                    let life = self.hosts[host].life;
                    let after_us = 10 + self.disk_random.range(0, self.hosts[host].digest_us_max);
                    self.schedule(after_us, Happening::Digested { host, life, frozen });
                }
                Action::WriteImages { cut, partitions } => {
                    self.add_job(host, Job::Images { cut, partitions: partitions.into() });
                }
                Action::InstallBase { state } => {
                    let after = self.hosts[host].state.submitted();
                    self.add_job(host, Job::Base { state: Box::new(state), after });
                }
                Action::Executed { slot, digest, history, commands } => {
                    self.trace.line(format_args!("    executed {slot} {digest}: {commands}"));
                    if is_correct {
                        self.observe_execution(host, slot, digest, history)?;
                    }
                }
                Action::Evidence(found) if is_correct => {
                    let accused = found.culprit();
                    let is_liar = !self.hosts[usize::from(accused.0)].is_correct();
                    evidence::check(self.hosts[host].id, accused, is_liar, &format!("{found:?}"))?;
                    evidence::proves(&found, verify_evidence(&self.keyring, &found.to_bytes()))?;
                    let me = self.hosts[host].id;
                    let named = self.checkers.named.get_mut(&me);
                    named.into_iter().for_each(|(named, _)| named.reports(accused, found.kind()));
                    self.named.insert((accused, found.kind()));
                }
                Action::Misled(accused) if is_correct => {
                    let is_liar = !self.hosts[usize::from(accused.0)].is_correct();
                    evidence::check(self.hosts[host].id, accused, is_liar, "it sent what no correct replica sends")?;
                }
                Action::Halt(why) if is_correct => {
                    return violation("halt", format!("r{host} is correct and halts: {why}"));
                }
                Action::Halt(why) if self.hosts[host].liar.is_none() => return self.halted(host, &why),
                Action::Evidence(_) | Action::Misled(_) | Action::Halt(_) => {}
            }
        }
        if let Some((_, at)) = struck {
            return self.crash(host, Some(at));
        }
        let life = self.hosts[host].life;
        self.start_disk(host, Disk::Log)?;
        if self.is_current(host, life) {
            self.start_disk(host, Disk::State)?;
        }
        if is_correct { self.observe_step(host) } else { Ok(()) }
    }

    /// Where in these actions a crash strikes, if it does: how many of them are still carried out, and the point.
    fn struck(&mut self, host: usize, actions: &[Action]) -> Option<(usize, (Point, &'static str))> {
        let doom = self.hosts[host].doom?;
        let points = actions.iter().enumerate().filter_map(|(index, action)| Some((index, Point::of(action)?)));
        let fits: Vec<(usize, Point)> = points.filter(|(_, point)| doom.strikes_at(self.now_us, *point)).collect();
        let (index, point) = *self.fault_random.pick(&fits)?;
        let is_after = self.fault_random.chance(500);
        Some((index + usize::from(is_after), (point, if is_after { "after" } else { "before" })))
    }

    /// A replica whose log was set back halts, and says why.
    fn halted(&mut self, host: usize, why: &str) -> Verdict {
        if !why.contains("R18") {
            return violation("halt", format!("r{host} has lost memory and halts for another reason: {why}"));
        }
        self.trace.line(format_args!("{} r{host} has halted", self.now_us));
        self.counts.halted += 1;
        self.hosts[host].crash(&mut self.disk_random);
        self.hosts[host].is_gone = true;
        Ok(())
    }

    pub(super) fn disk(&mut self, host: usize, disk: Disk) -> &mut crate::disk::Disk {
        match disk {
            Disk::Log => &mut self.hosts[host].log,
            Disk::State => &mut self.hosts[host].state,
        }
    }

    fn start_disk(&mut self, host: usize, disk: Disk) -> Verdict {
        let on = match disk {
            Disk::Log => &mut self.hosts[host].log,
            Disk::State => &mut self.hosts[host].state,
        };
        let started = on.start(self.now_us, &mut self.disk_random, &self.options.disk);
        let life = self.hosts[host].life;
        match started {
            Ok(Some(after_us)) => self.schedule(after_us, Happening::DiskDone { host, life, disk }),
            Ok(None) => {}
            Err(why) => return self.disk_failed(host, &why),
        }
        Ok(())
    }

    /// A write or a sync failed: the process ends, in words, and nothing is tried over it (R19).
    fn disk_failed(&mut self, host: usize, why: &StoreError) -> Verdict {
        self.trace.line(format_args!("{} r{host} ends: {why}", self.now_us));
        self.counts.disk_failures += 1;
        self.crash(host, None)
    }

    /// A write is done: says so, and starts on the next.
    pub(super) fn disk_done(&mut self, host: usize, disk: Disk) -> Verdict {
        let tickets = match self.disk(host, disk).finish() {
            Ok(tickets) => tickets,
            Err(why) => return self.disk_failed(host, &why),
        };
        let life = self.hosts[host].life;
        let point = if disk == Disk::Log { Point::LogWritten } else { Point::StateWritten };
        if !tickets.is_empty() && self.is_struck(host, point) {
            return self.crash(host, Some((point, "at")));
        }
        let me = self.hosts[host].id;
        if disk == Disk::Log
            && self.hosts[host].is_correct()
            && let Some(promises) = self.checkers.promises.get_mut(&me)
        {
            promises.done(me, &tickets)?;
        }
        self.start_disk(host, disk)?;
        if !self.is_current(host, life) {
            return Ok(());
        }
        // The last ticket covers all before it.
        let only_last = self.disk_random.chance(500);
        let skip = if only_last { tickets.len().saturating_sub(1) } else { 0 };
        for ticket in tickets.into_iter().skip(skip) {
            if self.is_current(host, life) {
                self.give(host, Event::Written { disk, ticket })?;
            }
        }
        if self.is_current(host, life) && disk == Disk::State {
            self.schedule_work(host);
        }
        Ok(())
    }

    fn add_job(&mut self, host: usize, job: Job) {
        self.hosts[host].add_job(job);
        self.schedule_work(host);
    }

    fn schedule_work(&mut self, host: usize) {
        if self.hosts[host].job().is_some() {
            let life = self.hosts[host].life;
            let after_us = self.options.disk.sync_us_min + self.disk_random.around(self.options.disk.sync_us_mean);
            self.schedule(after_us, Happening::Work { host, life });
        }
    }

    /// Does a part of what is written beside the loop.
    pub(super) fn work(&mut self, host: usize) -> Verdict {
        let Some(job) = self.hosts[host].job() else { return Ok(()) };
        if self.is_struck(host, Point::Work) {
            return self.crash(host, Some((Point::Work, "in")));
        }
        if let Err(why) = self.hosts[host].state.refused(self.now_us) {
            return self.disk_failed(host, &why);
        }
        let chunk_bytes = self.disk_random.range(64, 4_096) as usize;
        let ended = match self.hosts[host].work(job, chunk_bytes) {
            Ok(ended) => ended,
            Err(why) => return failed(host, &why),
        };
        if let Some(event) = ended {
            self.give(host, event)?;
        }
        self.schedule_work(host);
        Ok(())
    }

    fn send(&mut self, host: usize, to: To, message: &VerifiedPeer) -> Verdict {
        let me = self.hosts[host].id;
        let receivers: Vec<ReplicaId> = match to {
            To::All => self.keyring.quorum().members().filter(|to| *to != me).collect(),
            To::One(to) if to == me => return violation("invariant", format!("{me} sends {message} to itself")),
            To::One(to) => vec![to],
        };
        if self.hosts[host].liar.is_some() {
            for to in receivers {
                let messages = self.with_liar(host, |liar, plot| liar.outgoing(plot, to, message.to_message()));
                messages.into_iter().for_each(|message| self.send_lie(host, to, message));
            }
            return Ok(());
        }
        let standing = self.hosts[host].standing;
        let is_signed = matches!(message, VerifiedPeer::Ordering(..) | VerifiedPeer::Checkpoint(..));
        if standing == Standing::MustHalt && is_signed {
            return violation("memory", format!("{me} goes on from an older copy of its folder and sends {message}"));
        }
        // Verified when it is sent, once for all receivers. Of the votes, which are most of it, one in some: a replica's own
        // are as good as verified, and certificates of them are verified whole.
        let verified = if is_vote(message) && !self.counts.steps.is_multiple_of(VOTES_PER_CHECK) {
            message.clone()
        } else {
            match verify_peer(&self.keyring, &self.genesis.constants, &mut self.seen, message.to_message()) {
                Ok(verified) => verified,
                Err(why) => return Certificates::sent(me, &message.to_string(), Err(why)),
            }
        };
        if standing == Standing::Excused {
            drop(self.note(&verified));
        } else {
            self.note(&verified)?;
            if let VerifiedPeer::Ordering(message, mark) = &verified {
                self.checkers.archive.sent(me, message.message(), &self.keyring)?;
                if let Some(promises) = self.checkers.promises.get(&me) {
                    promises.sent(me, message.message(), mark.rows)?;
                }
            }
        }
        if let VerifiedPeer::Checkpoint(signed, mark) = &verified
            && signed.by == me
            && standing == Standing::Correct
        {
            if signed.statement.config != self.genesis.digest() {
                return violation("equal-roots", format!("{me} says {message} of another configuration"));
            }
            self.checkers.equal_roots.announced(me, &signed.statement)?;
            if let Some(promises) = self.checkers.promises.get(&me) {
                promises.announced(me, &signed.statement, mark.rows)?;
            }
        }
        for to in receivers {
            self.post(Party(me.0.into()), Party(to.0.into()), Parcel::Peer(verified.clone()));
        }
        Ok(())
    }

    fn note(&mut self, message: &VerifiedPeer) -> Verdict {
        match message {
            VerifiedPeer::Ordering(message, _) => self.checkers.seen(message),
            _ => Ok(()),
        }
    }

    /// Sends what a liar says, if it verifies: it can sign in its own name only.
    fn send_lie(&mut self, host: usize, to: ReplicaId, message: PeerMessage) {
        let verified = verify_peer(&self.keyring, &self.genesis.constants, &mut self.seen, message);
        let Ok(verified) = verified else {
            self.counts.forged += 1;
            return;
        };
        // A liar may show a certificate that correct replicas never made only if more lie than may.
        drop(self.note(&verified));
        self.post(Party(host), Party(to.0.into()), Parcel::Peer(verified));
    }

    fn reply(&mut self, host: usize, client: ClientId, frame: NodeFrame) {
        if client == self.troublemaker.id() {
            self.troublemaker.hear(&frame);
            return;
        }
        let Some(index) = self.clients.iter().position(|other| other.id() == client) else { return };
        self.send_frame(host, Party(self.hosts.len() + index), frame);
    }

    /// Sends a frame to a client; a liar sends what it likes.
    pub(super) fn send_frame(&mut self, host: usize, client: Party, frame: NodeFrame) {
        let frame = if self.hosts[host].liar.is_some() {
            self.with_liar(host, |liar, plot| liar.answer(plot, frame))
        } else {
            Some(frame)
        };
        if let Some(frame) = frame {
            self.post(Party(host), client, Parcel::Frame(frame));
        }
    }

    /// What a liar makes up by itself.
    pub(super) fn make_up(&mut self, host: usize) -> Verdict {
        let after_us = self.liar_random.range(5_000, 100_000);
        self.schedule(after_us, Happening::MakeUp { host });
        if !self.hosts[host].is_up() || self.hosts[host].liar.is_none() {
            return Ok(());
        }
        let lies = self.with_liar(host, |liar, plot| {
            if plot.random.chance(50) {
                liar.change_mood(plot.random);
            }
            liar.make_up(plot)
        });
        lies.into_iter().for_each(|(to, message)| self.send_lie(host, to, message));
        Ok(())
    }

    /// Lets a liar act; a replica that does not lie does nothing.
    fn with_liar<T: Default>(
        &mut self,
        host: usize,
        act: impl FnOnce(&mut crate::byzantine::Liar, &mut Plot<'_>) -> T,
    ) -> T {
        let Some(mut liar) = self.hosts[host].liar.take() else { return T::default() };
        let mut plot = Plot {
            me: self.hosts[host].id,
            key: &self.keys[host],
            keyring: &self.keyring,
            genesis: &self.genesis,
            now: self.hosts[host].clocks(self.now_us),
            now_us: self.now_us,
            is_healed: self.healed_at_us.is_some(),
            shared: &mut self.shared,
            random: &mut self.liar_random,
        };
        let result = act(&mut liar, &mut plot);
        self.hosts[host].liar = Some(liar);
        result
    }
}

fn failed(host: usize, why: &StoreError) -> Verdict {
    violation("invariant", format!("the simulated disk of r{host} failed unasked: {why}"))
}
