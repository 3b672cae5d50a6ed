//! Carrying out what the replica asks for.

use std::sync::Arc;

use bytes::Bytes;
use polder_checkpoint::{Store, StoreError};
use polder_consensus::To;
use polder_executor::Service;
use polder_transport::Lane;
use polder_types::NodeFrame;

use super::{DiskEnd, EventLoop, TICKS_PER_REPORT};
use crate::disk::{self, DiskJob, Done, PendingWrite, SlowJob};
use crate::node::NodeError;
use crate::replica::{self, Action, Disk, Event};
use crate::report::{PeerReport, Report};

impl<S: Service> EventLoop<S> {
    /// Does all that the replica asked for, in order.
    pub(super) fn carry_out(&mut self) -> Result<(), NodeError> {
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Send { to, message } => self.send(to, &message),
                Action::Reply { client, frame } => {
                    match &frame {
                        NodeFrame::Replies(replies) => self.admission.answered(client, replies.len() as u64),
                        NodeFrame::Busy { .. } => self.admission.refused(client),
                        NodeFrame::At { .. } | NodeFrame::Status(_) => {}
                    }
                    self.metrics.replies.inc_by(self.clients.send(client, frame));
                }
                Action::Write { disk, writes, durability, ticket } => {
                    let pending = PendingWrite { writes, durability, ticket };
                    let (end, store) = match disk {
                        Disk::Log => (&mut self.log, &self.stores.log),
                        Disk::State => (&mut self.state, &self.stores.state),
                    };
                    match end.write(store.as_ref(), pending)? {
                        Asked::Written => self.events.push_back(Event::Written { disk, ticket }),
                        Asked::Waiting => {}
                        Asked::ThreadGone => return Err(self.why_gone()),
                    }
                }
                Action::InstallBase { state } => match &self.state.jobs {
                    Some(jobs) => {
                        let sent = jobs.send(DiskJob::Install { state });
                        sent.map_err(|_| self.why_gone())?;
                    }
                    None => {
                        let done = disk::install(self.stores.state.as_ref(), &state)?;
                        self.slow_done(done)?;
                    }
                },
                Action::Digest { frozen } => self.do_slowly(SlowJob::Digest { frozen })?,
                Action::WriteImages { cut, partitions } => {
                    self.metrics.image_partitions.inc_by(partitions.len() as u64);
                    self.do_slowly(SlowJob::WriteImages { cut, partitions })?;
                }
                Action::Executed { commands, .. } => {
                    self.metrics.commands.inc_by(commands.into());
                    self.admission.slot_executed();
                }
                Action::Evidence(evidence) => {
                    let culprit = evidence.culprit();
                    self.metrics.evidence.with_label_values(&[&culprit.0.to_string()]).inc();
                    let kind = evidence.kind();
                    tracing::error!(%culprit, %kind, "a replica signed two statements that exclude each other");
                    tracing::debug!(%culprit, ?evidence, "the statements");
                    self.evidence.send_modify(|all| all.push(Arc::new(evidence)));
                }
                Action::Misled(by) => {
                    if let Some(not_logged) = self.complaints.next(by) {
                        tracing::warn!(%by, not_logged, "this replica sent what a correct one does not send");
                    }
                    self.misled(by);
                }
                Action::Halt(why) => {
                    self.publish();
                    return Err(NodeError::Halted(why));
                }
            }
        }
        self.clients.flush();
        if self.ticks_to_report == 0 {
            self.ticks_to_report = TICKS_PER_REPORT;
            self.publish();
        }
        Ok(())
    }

    /// One encoding serves all receivers. What cannot be queued is dropped: STATUS restores what matters (R15).
    fn send(&self, to: To, message: &replica::VerifiedPeer) {
        let lane = match message.lane() {
            replica::Lane::Ordering => Lane::Ordering,
            replica::Lane::Transfer => Lane::Transfer,
        };
        let frame = Bytes::from(message.to_bytes());
        for peer in self.peers.iter().filter(|peer| to == To::All || to == To::One(peer.id)) {
            match peer.link.try_send(lane, frame.clone()) {
                Ok(()) => self.metrics.frames_sent.inc(),
                Err(error) => {
                    tracing::trace!(to = %peer.id, %error, "a frame is dropped");
                    self.metrics.frames_dropped.with_label_values(&[&peer.id.0.to_string()]).inc();
                }
            }
        }
    }

    /// Why a thread is gone: it said so if a store failed; otherwise it has panicked.
    fn why_gone(&mut self) -> NodeError {
        while let Ok(done) = self.done.try_recv() {
            if let Done::Failed(error) = done {
                return NodeError::Store(error);
            }
        }
        NodeError::Bug("a thread has panicked")
    }

    fn do_slowly(&mut self, job: SlowJob) -> Result<(), NodeError> {
        let thread = match &job {
            SlowJob::Digest { .. } => &self.slow.digests,
            SlowJob::WriteImages { .. } => &self.slow.images,
        };
        match thread {
            Some(thread) => {
                let sent = thread.send(job);
                sent.map_err(|_| self.why_gone())
            }
            None => {
                let done = disk::run(self.stores.state.as_ref(), job);
                self.slow_done(done)
            }
        }
    }

    pub(super) fn make_report(&self) -> Report {
        let peers = self.peers.iter().map(|peer| PeerReport {
            replica: peer.id,
            is_connected: peer.is_up,
            heard_ms_ago: peer.heard.map(|heard| u64::try_from(heard.elapsed().as_millis()).unwrap_or(u64::MAX)),
            last_error: peer.link.status().last_error,
        });
        let log_bytes = self.stores.log.bytes_on_disk();
        Report {
            status: self.replica.status(),
            peers: peers.collect(),
            quorum: self.quorum,
            clients: self.clients.len(),
            log_bytes,
            disk_bytes: log_bytes + self.stores.state.bytes_on_disk(),
            space: self.reserve.space(),
            is_draining: self.drain_until.is_some(),
        }
    }

    pub(super) fn publish(&self) {
        let report = self.make_report();
        self.metrics.observe(&report);
        self.report.send_replace(Some(Arc::new(report)));
    }
}

/// What became of a write.
enum Asked {
    /// It is done: there is no thread for it.
    Written,
    /// The disk's thread has it.
    Waiting,
    /// The disk's thread has ended.
    ThreadGone,
}

impl DiskEnd {
    /// Asks for a write; when there is no thread, it is done on return.
    fn write(&mut self, store: &dyn Store, pending: PendingWrite) -> Result<Asked, StoreError> {
        let (ticket, bytes) = (pending.ticket, pending.writes.bytes());
        self.asked = ticket;
        let Some(jobs) = &self.jobs else {
            self.told = disk::apply(store, pending, 1, &self.metrics)?;
            return Ok(Asked::Written);
        };
        self.waiting.push_back((ticket, bytes));
        self.bytes += bytes;
        Ok(if jobs.send(DiskJob::Write(pending)).is_ok() { Asked::Waiting } else { Asked::ThreadGone })
    }

    /// What was written since the last time.
    pub(super) fn news(&mut self) -> Option<Event> {
        let ticket = *self.written.borrow_and_update();
        if ticket <= self.told {
            return None;
        }
        self.told = ticket;
        while let Some((waiting, bytes)) = self.waiting.front()
            && *waiting <= ticket
        {
            self.bytes -= bytes;
            self.waiting.pop_front();
        }
        Some(Event::Written { disk: self.disk, ticket })
    }
}
