//! From a cut to a stable checkpoint: freeze, digest, sign, certify, persist, truncate (C2, R29).
//!
//! The planner decides; here its outputs become writes, signatures and messages, in the order that it asks for.

use std::collections::BTreeMap;

use polder_checkpoint::planner::{self, Divergence};
use polder_checkpoint::{Durability, effects_log, transfer};
use polder_consensus::{CommittedBatch, Input, To};
use polder_executor::{Frozen, Service};
use polder_types::{Certificate, Checkpoint, Digest, Epoch, Seq, Signed, Verified};

use super::Replica;
use super::event::Action;
use super::log::{Entry, Then};
use super::message::VerifiedPeer;

/// How long a replica that diverged waits for a peer's digests before it halts without them.
const DIVERGENCE_WAIT_MS: u64 = 3_000;

/// The own statements that are not stable yet: the same bytes are sent again for ever (R29).
#[derive(Debug, Default)]
pub(super) struct Statements(BTreeMap<Seq, Statement>);

#[derive(Debug)]
struct Statement {
    signed: Verified<Signed<Checkpoint>>,
    /// Whether its row is durable: it was sent.
    durable: bool,
    /// STATUS periods since it was sent.
    periods: u32,
}

impl Statements {
    /// Takes up what the log holds, at a start.
    pub(super) fn recovered(statements: Vec<Verified<Signed<Checkpoint>>>) -> Self {
        let durable = |signed: Verified<Signed<Checkpoint>>| {
            (signed.statement.seq, Statement { signed, durable: true, periods: 0 })
        };
        Self(statements.into_iter().map(durable).collect())
    }

    fn forget_through(&mut self, stable: Seq) {
        self.0 = self.0.split_off(&stable.next());
    }
}

/// Snapshots that wait to be digested: one at a time, so that a replica that digests slowly holds few of them.
#[derive(Debug, Default)]
pub(super) struct Digesting {
    /// The cut in digestion.
    now: Option<Seq>,
    /// Snapshots that wait, and the history of each cut, the one in digestion included.
    waiting: BTreeMap<Seq, Frozen>,
    histories: BTreeMap<Seq, Digest>,
}

impl Digesting {
    /// How many snapshots are held.
    pub(super) fn len(&self) -> usize {
        self.histories.len()
    }

    /// Forgets all: another state has taken their place.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Forgets snapshots that are of no use. Of cuts that are stable already only the newest is: its certificate is at
    /// hand, and nobody waits for this replica's statement about the others. A cut above them is never skipped.
    fn skip(&mut self, stable: Seq) {
        let Some(newest) = self.waiting.range(..=stable).next_back().map(|(cut, _)| *cut) else { return };
        self.waiting = self.waiting.split_off(&newest);
        let now = self.now;
        self.histories.retain(|cut, _| *cut >= newest || Some(*cut) == now);
    }

    /// The next snapshot to digest, once none is in digestion.
    fn next(&mut self) -> Option<Frozen> {
        if self.now.is_some() {
            return None;
        }
        let (cut, frozen) = self.waiting.pop_first()?;
        self.now = Some(cut);
        Some(frozen)
    }
}

/// What a replica does once it knows that its state is not the certified one (R35).
#[derive(Debug)]
pub(super) struct Diverged {
    divergence: Box<Divergence>,
    waited_ms: u64,
}

impl<S: Service> Replica<S> {
    /// The slot of this batch is a cut, and it was executed: freezes the state and has it digested.
    pub(super) fn cut(&mut self, batch: &CommittedBatch, out: &mut Vec<Action>) {
        effects_log::frontier(&mut self.state_writes, batch.slot);
        self.digesting.histories.insert(batch.slot, batch.history);
        self.digesting.waiting.insert(batch.slot, self.executor.freeze());
        self.digest_next(out);
    }

    fn digest_next(&mut self, out: &mut Vec<Action>) {
        let stable = self.planner.stable().map_or(Seq::ZERO, |certificate| certificate.statement().seq);
        // Also while one is in digestion: a slow digest must not gather all cuts that pass meanwhile.
        self.digesting.skip(stable);
        if let Some(frozen) = self.digesting.next() {
            out.push(Action::Digest { frozen });
        }
    }

    pub(super) fn digested(&mut self, frozen: Frozen, out: &mut Vec<Action>) {
        if self.digesting.now.take_if(|cut| *cut == frozen.seq()).is_none() {
            return; // Of a state that another has replaced.
        }
        self.judge_digested(frozen, out);
        self.digest_next(out);
    }

    fn judge_digested(&mut self, frozen: Frozen, out: &mut Vec<Action>) {
        let Some(history) = self.digesting.histories.remove(&frozen.seq()) else { return };
        let checkpoint = Checkpoint {
            epoch: Epoch::ZERO,
            seq: frozen.seq(),
            root: frozen.root(),
            history,
            time: frozen.time(),
            config: self.config_digest,
            pending: Digest::ZERO,
        };
        #[cfg(polder_mutations)]
        self.image_at_once(&frozen, out);
        self.plan(planner::Input::Digested { frozen, checkpoint }, out);
    }

    /// Planted: images of a cut that nobody has certified yet.
    #[cfg(polder_mutations)]
    fn image_at_once(&mut self, frozen: &Frozen, out: &mut Vec<Action>) {
        if mutated!(self, ImagesBeforeCertification) && !self.images_in_flight {
            self.images_in_flight = true;
            out.push(Action::WriteImages { cut: frozen.seq(), partitions: frozen.partitions().to_vec() });
        }
    }

    pub(super) fn checkpoint_vote(&mut self, signed: Verified<Signed<Checkpoint>>, out: &mut Vec<Action>) {
        self.plan(planner::Input::Vote(signed), out);
    }

    pub(super) fn certified(&mut self, certificate: Certificate<Checkpoint>, out: &mut Vec<Action>) {
        self.plan(planner::Input::Certified(certificate), out);
    }

    pub(super) fn state_written(&mut self, ticket: u64, out: &mut Vec<Action>) {
        while let Some(first) = self.frontiers.first_entry().filter(|first| *first.key() <= ticket) {
            let cut = first.remove();
            self.plan(planner::Input::Persisted { cut }, out);
        }
    }

    /// Gives the planner an input and does what it asks for.
    pub(super) fn plan(&mut self, input: planner::Input, out: &mut Vec<Action>) {
        let mut outputs = Vec::new();
        self.planner.step(input, &mut outputs);
        self.carry_out_plan(outputs, out);
    }

    pub(super) fn carry_out_plan(&mut self, outputs: Vec<planner::Output>, out: &mut Vec<Action>) {
        for output in outputs {
            match output {
                planner::Output::Announce(checkpoint) => self.announce(checkpoint, out),
                planner::Output::Stable(certificate) => {
                    self.statements.forget_through(certificate.statement().seq);
                    self.queue.push_back(Input::Stable(certificate));
                }
                planner::Output::Persist { cut, writes } => {
                    self.state_writes.append(writes);
                    let is_lazy = mutated!(self, EffectsNotDurable);
                    let durability = if is_lazy { Durability::Lazy } else { Durability::Synced };
                    if let Some(ticket) = self.flush_state(durability, out) {
                        self.frontiers.insert(ticket, cut);
                    }
                }
                planner::Output::WriteImages { cut, partitions } => {
                    self.images_in_flight = true;
                    out.push(Action::WriteImages { cut, partitions });
                }
                planner::Output::Truncate { writes } => {
                    self.state_writes.append(writes);
                }
                planner::Output::TruncateLog { below } => self.log.truncate(below),
                planner::Output::Diverged(divergence) => self.diverge(divergence, out),
            }
        }
    }

    /// Signs the own statement about a cut; it is sent when it is durable.
    fn announce(&mut self, checkpoint: Checkpoint, out: &mut Vec<Action>) {
        let seq = checkpoint.seq;
        if let Some(before) = self.statements.0.get(&seq) {
            if before.signed.statement != checkpoint {
                let words = format!(
                    "executing the same batches again up to {seq} gave another state: before the restart {}, now {}; \
                     the service is not deterministic",
                    before.signed.statement, checkpoint
                );
                self.halt(words, out);
            } else if before.durable {
                mark!(StatementSaidAgain);
                let signed = before.signed.clone();
                self.durable(Then::Checkpoint(signed), out);
            }
            return;
        }
        let signed = Signed::sign(self.me, checkpoint, self.keyring.cluster(), &self.key);
        self.log.append(Entry::Checkpoint((*signed).clone()), vec![Then::Checkpoint(signed.clone())]);
        self.statements.0.insert(seq, Statement { signed, durable: false, periods: 0 });
    }

    /// The own statement about a cut is durable: it may be sent, and counts here too.
    pub(super) fn statement_durable(&mut self, signed: Verified<Signed<Checkpoint>>, out: &mut Vec<Action>) {
        if let Some(statement) = self.statements.0.get_mut(&signed.statement.seq) {
            statement.durable = true;
        }
        out.push(Action::Send { to: To::All, message: VerifiedPeer::Checkpoint(signed.clone(), self.mark) });
        self.checkpoint_vote(signed, out);
    }

    /// Sends statements again that have not become stable within two STATUS periods (R15, R29).
    pub(super) fn resend_statements(&mut self, out: &mut Vec<Action>) {
        let mark = self.mark;
        for statement in self.statements.0.values_mut().filter(|statement| statement.durable) {
            statement.periods = statement.periods.saturating_add(1);
            if statement.periods > 1 {
                let message = VerifiedPeer::Checkpoint(statement.signed.clone(), mark);
                out.push(Action::Send { to: To::All, message });
            }
        }
    }

    /// R35: detect and report. Peers are asked which partitions differ; then the replica halts.
    fn diverge(&mut self, divergence: Box<Divergence>, out: &mut Vec<Action>) {
        if divergence.partitions.is_some() {
            self.halt(divergence.to_string(), out);
            return;
        }
        let question = transfer::Message::AskDigests { cut: divergence.cut() };
        out.push(Action::Send { to: To::All, message: VerifiedPeer::Transfer(question.into()) });
        self.diverged = Some(Diverged { divergence, waited_ms: 0 });
    }

    pub(super) fn divergence_tick(&mut self, elapsed_ms: u64, out: &mut Vec<Action>) {
        let Some(diverged) = &mut self.diverged else { return };
        diverged.waited_ms += elapsed_ms;
        if diverged.waited_ms >= DIVERGENCE_WAIT_MS {
            let words = diverged.divergence.to_string();
            self.halt(words, out);
        }
    }

    /// Whether this replica's state is known not to be the certified one: it answers nobody (R35).
    pub(super) fn is_diverged(&self) -> bool {
        self.diverged.is_some()
    }
}
