//! State transfer at the two ends: fetching when this replica fell behind the truncated log (R14, C12), serving others.

use std::collections::VecDeque;
use std::sync::Arc;

use polder_checkpoint::transfer::{Blame, Fetch, FetchConfig, Input, Message, Output, Progress};
use polder_checkpoint::{CertifiedState, Durability, planner};
use polder_consensus::{CommittedBatch, To};
use polder_executor::{Executor, ExecutorConfig, Service};
use polder_types::{Certificate, Checkpoint, Epoch, ReplicaId, Seq};

use super::Replica;
use super::event::Action;
use super::message::VerifiedPeer;

/// Bytes of partitions in flight that are not checked yet, at most; more where a partition may be larger.
const UNCHECKED_BYTES_MAX: u64 = 256 << 20;

/// A replica that fetches state, from the moment it fell behind until the state is declared on its own disk.
#[derive(Debug, Default)]
pub(super) struct CatchUp {
    fetch: Option<Fetch>,
    /// The state that is being written, or waits for images that are.
    installing: Option<CertifiedState>,
    /// Batches decided meanwhile: they are executed on top of the new state. At most `2L`, as the core delivers no
    /// more than that beyond what is executed (R14).
    held: VecDeque<CommittedBatch>,
}

impl CatchUp {
    /// How far the fetch is, if there is one.
    pub(super) fn progress(&self) -> Option<Progress> {
        self.fetch.as_ref().map(Fetch::progress)
    }

    /// The state that is being installed.
    pub(super) fn installing(&self) -> Option<&CertifiedState> {
        self.installing.as_ref()
    }
}

impl<S: Service> Replica<S> {
    /// The batches between the executed slot and this cut are not to be had any more: the state is fetched.
    pub(super) fn fell_behind(&mut self, certificate: Certificate<Checkpoint>, out: &mut Vec<Action>) {
        let is_ahead = certificate.statement().seq > self.executor.executed();
        if !is_ahead || self.catch_up.fetch.is_some() || self.catch_up.installing.is_some() || self.is_diverged() {
            return;
        }
        let keyring = Arc::new(self.keyring.clone());
        let partitions = self.constants.partitions_in_all();
        // Keys are spread by hash: mostly no partition takes more than four times the average. But who writes chooses
        // the keys, so one may take all that the state may: beyond its bound by what a few slots add, and with replies.
        let partition_bytes_max = self.constants.state_bytes_max / u64::from(self.constants.partitions.max(1));
        let unchecked_bytes_max = UNCHECKED_BYTES_MAX.max(partition_bytes_max.saturating_mul(4));
        let state_bytes_max = self.constants.state_bytes_max.saturating_add(self.constants.reply_cache_bytes_max);
        let config = FetchConfig {
            alone_bytes_max: state_bytes_max.saturating_mul(2),
            ..FetchConfig::new(self.me, keyring, partitions, unchecked_bytes_max)
        };
        let own = self.planner.sources().last().map(|state| state.frozen().clone());
        let mut outputs = Vec::new();
        self.catch_up.fetch = Some(Fetch::start(config, self.last_tick_ms, certificate, own, &mut outputs));
        self.carry_out_fetch(outputs, out);
    }

    /// A message of state transfer: a question to serve, or an answer to the own fetch or the planner.
    pub(super) fn transfer(&mut self, from: ReplicaId, message: &Arc<Message>, out: &mut Vec<Action>) {
        let message = (**message).clone();
        match message {
            message if message.is_question() => self.serve_step(Input::Message { from, message }, out),
            Message::Digests { cut, digests } => self.plan(planner::Input::Digests { cut, digests }, out),
            message => self.fetch_step(Input::Message { from, message }, out),
        }
    }

    pub(super) fn transfer_tick(&mut self, out: &mut Vec<Action>) {
        self.serve_step(Input::Tick, out);
        self.fetch_step(Input::Tick, out);
    }

    fn serve_step(&mut self, input: Input, out: &mut Vec<Action>) {
        let mut answers = Vec::new();
        self.serve.step(self.last_tick_ms, input, self.planner.sources(), &mut answers);
        out.extend(answers.into_iter().map(|(to, message)| send(to, message)));
    }

    fn fetch_step(&mut self, input: Input, out: &mut Vec<Action>) {
        let Some(fetch) = &mut self.catch_up.fetch else { return };
        let mut outputs = Vec::new();
        fetch.step(self.last_tick_ms, input, &mut outputs);
        self.carry_out_fetch(outputs, out);
    }

    fn carry_out_fetch(&mut self, outputs: Vec<Output>, out: &mut Vec<Action>) {
        for output in outputs {
            match output {
                Output::Send { to, message } => out.push(send(to, message)),
                // Being late may be the network's fault.
                Output::Blame { why: Blame::Late(_), .. } => {}
                Output::Blame { replica, .. } => out.push(Action::Misled(replica)),
                Output::Restored(state) => {
                    self.catch_up.fetch = None;
                    self.install(state, out);
                }
                Output::Unusable { why, .. } => self.halt(why, out),
            }
        }
    }

    /// The state is complete and checked: it counts as executed only when it is declared on the own disk (R29).
    fn install(&mut self, state: CertifiedState, out: &mut Vec<Action>) {
        if state.cut() <= self.executor.executed() {
            // The batches came after all. The core learns that this fetch is over: it may have asked for a newer cut
            // meanwhile, and asks again.
            let certificate = state.certificate().clone();
            self.queue.push_back(polder_consensus::Input::Restored { certificate });
            return;
        }
        self.catch_up.installing = Some(state);
        self.install_when_free(out);
    }

    /// Writes of images and of a base on one store come one after the other.
    fn install_when_free(&mut self, out: &mut Vec<Action>) {
        let Some(state) = self.catch_up.installing.clone().filter(|_| !self.images_in_flight) else { return };
        self.plan(planner::Input::Installing, out);
        self.flush_state(Durability::Lazy, out);
        out.push(Action::InstallBase { state });
    }

    pub(super) fn images_written(&mut self, cut: Seq, out: &mut Vec<Action>) {
        self.images_in_flight = false;
        if self.catch_up.installing.is_some() {
            self.install_when_free(out);
        } else {
            self.plan(planner::Input::ImagesWritten { cut }, out);
        }
    }

    /// The transferred state is the base that recovery would start from: execution goes on from it.
    pub(super) fn base_installed(&mut self, cut: Seq, out: &mut Vec<Action>) {
        let Some(state) = self.catch_up.installing.take_if(|state| state.cut() == cut) else { return };
        let config = ExecutorConfig { genesis: self.genesis.clone(), epoch: Epoch::ZERO };
        match Executor::restore(self.service.clone(), config, state.frozen()) {
            Ok(executor) => self.executor = executor,
            Err(error) => return self.halt(format!("the transferred state at {cut} cannot be used: {error}"), out),
        }
        let certificate = state.certificate().clone();
        self.history = certificate.statement().history;
        self.digesting.clear();
        self.frontiers.clear();
        self.plan(planner::Input::Installed(state), out);
        self.queue.push_back(polder_consensus::Input::Restored { certificate });
        self.tell_session_clock();
        for batch in std::mem::take(&mut self.catch_up.held) {
            self.deliver(&batch, out);
        }
    }

    /// While a base is written nothing may be executed: its effects would be voided.
    pub(super) fn hold(&mut self, batch: &CommittedBatch) {
        self.catch_up.held.push_back(batch.clone());
    }
}

fn send(to: ReplicaId, message: Message) -> Action {
    Action::Send { to: To::One(to), message: VerifiedPeer::Transfer(Arc::new(message)) }
}
