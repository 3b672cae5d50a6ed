//! Certified cuts (R14, R29, R30): the window moves at once; what is missing below it is proved by the certified
//! history, pulled, or, when it is not to be had, transferred as state.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use polder_types::{Certificate, Checkpoint, ClientId, Digest, Seq, SessionId, history_after};

use crate::progress::Timer;
use crate::verify::carried;
use crate::window::Slot;
use crate::{Core, Ignored, Message, Output, Record, SessionWindow, VerifiedMessage, Why};

/// A gap below the watermark is pulled from peers for so many periods of STATUS before the state is transferred.
const GAP_PERIODS: u64 = 4;

impl Core {
    /// A certificate from a peer.
    pub(crate) fn on_stable(&mut self, message: &VerifiedMessage, out: &mut Vec<Output>) -> Result<(), Ignored> {
        let stable = carried(message, |message| match message {
            Message::Stable(proof) => Some(proof),
            _ => None,
        });
        let Some(stable) = stable else { return Err(Ignored::Invalid) };
        self.adopt(stable.clone(), out)?;
        out.push(Output::Certified(stable));
        Ok(())
    }

    /// Moves the window up to a certified cut; execution follows separately (R14).
    pub(crate) fn adopt(&mut self, certificate: Certificate<Checkpoint>, out: &mut Vec<Output>) -> Result<(), Ignored> {
        let Checkpoint { epoch, seq, history, .. } = *certificate.statement();
        if epoch != self.config.epoch {
            return Err(Ignored::OtherEpoch);
        }
        if seq <= self.window.low {
            return Err(Ignored::Duplicate);
        }
        let own = self.window.decided.get(&seq).and_then(|decided| decided.history);
        if let Some(own) = own.filter(|own| *own != history) {
            self.halt(Why::History { seq, own, certified: history }, out);
            return Err(Ignored::Conflict);
        }
        let left_behind = self.window.raise(certificate.clone());
        if !mutated!(self, StableNotDurable) {
            self.record_stable(out);
        }
        self.prove_by_history(&certificate, &left_behind, out);
        self.deliver(out);
        self.drop_bodies();
        self.leading.next = self.leading.next.max(self.window.low.next());
        self.restart_session_clock();
        self.watch_gap(out);
        Ok(())
    }

    /// R8: the certificate is durable no later than what relies on `h`. Carries forward what outlives older records.
    pub(crate) fn record_stable(&self, out: &mut Vec<Output>) {
        let Some(stable) = &self.window.stable else { return };
        let change = self.term.change.as_ref().and_then(|message| match message.message() {
            Message::ViewChange(signed, body) => Some((signed.clone(), body.clone())),
            _ => None,
        });
        let record = Record::Stable { certificate: stable.proof().clone(), view: self.term.view, view_change: change };
        out.push(Output::Persist { record, then: Vec::new(), ticket: None });
    }

    /// R30: local batches whose chain equals the certified history are committed.
    pub(crate) fn prove_by_history(
        &mut self,
        certificate: &Certificate<Checkpoint>,
        slots: &BTreeMap<Seq, Slot>,
        out: &mut Vec<Output>,
    ) {
        let Checkpoint { seq, history: certified, .. } = *certificate.statement();
        let from = self.window.delivered;
        if seq <= from || seq.0 - from.0 > self.window.length.saturating_mul(2) {
            return;
        }
        let mut history = self.window.history;
        let mut chain: Vec<(Seq, Digest)> = Vec::new();
        for slot in (from.0.saturating_add(1)..=seq.0).map(Seq) {
            let decided = self.window.decided.get(&slot).map(|decided| decided.digest);
            let Some(digest) = decided.or_else(|| slots.get(&slot).and_then(Slot::candidate)) else { return };
            if !self.bodies.has(&digest) {
                return;
            }
            history = history_after(&history, slot, &digest);
            chain.push((slot, digest));
        }
        if history == certified {
            mark!(ProvedByHistory);
            chain.into_iter().for_each(|(slot, digest)| self.decide(slot, digest, None, out));
        }
    }

    /// Batches below the watermark are missing: pulled for a while if peers still keep them, else the state is fetched.
    pub(crate) fn watch_gap(&mut self, out: &mut Vec<Output>) {
        let Some(stable) = &self.window.stable else { return };
        if self.window.delivered >= self.window.low {
            return;
        }
        let reached = self.window.delivered.max(self.window.transfer.unwrap_or_default());
        if reached < self.window.low.minus(self.window.interval) {
            // Peers keep one interval below their watermark, no more.
            if self.window.transfer.is_none_or(|cut| cut < self.window.keep_above()) {
                let stable = stable.clone();
                self.fall_behind(stable, out);
            }
        } else if self.window.transfer.is_none() && !self.progress.is_armed(Timer::Gap) {
            self.progress.arm(Timer::Gap, self.gap_ms());
        }
    }

    pub(crate) fn gap_ms(&self) -> u64 {
        self.config.constants.status_period_ms.saturating_mul(GAP_PERIODS)
    }

    /// The batches that were missing were not to be had.
    pub(crate) fn on_gap(&mut self, out: &mut Vec<Output>) {
        mark!(GapTimesOut);
        let stable = self.window.stable.clone().filter(|_| self.window.delivered < self.window.low);
        stable.into_iter().for_each(|stable| self.fall_behind(stable, out));
    }

    /// Asks for the state as of a cut. Undelivered batches up to it are of no more use (R14).
    fn fall_behind(&mut self, certificate: Certificate<Checkpoint>, out: &mut Vec<Output>) {
        mark!(FellBehind);
        let cut = certificate.statement().seq;
        self.window.transfer = Some(cut);
        self.progress.disarm(Timer::Gap);
        let delivered = self.window.delivered;
        self.window.decided.retain(|slot, _| *slot <= delivered || *slot > cut);
        self.drop_bodies();
        out.push(Output::FellBehind(certificate));
    }

    /// The executor has executed, and the front has decided, up to a slot. The cursor is monotone (R14).
    pub(crate) fn on_executed(
        &mut self,
        slot: Seq,
        windows: Vec<(ClientId, SessionId, Option<SessionWindow>)>,
        out: &mut Vec<Output>,
    ) -> Result<(), Ignored> {
        if slot > self.window.delivered {
            return Err(Ignored::Invalid);
        }
        self.window.executed = self.window.executed.max(slot);
        self.requests.execute(slot, windows);
        self.deliver(out);
        Ok(())
    }

    /// State was transferred: execution goes on after its cut. An older state than the own changes nothing.
    pub(crate) fn on_restored(
        &mut self,
        certificate: Certificate<Checkpoint>,
        out: &mut Vec<Output>,
    ) -> Result<(), Ignored> {
        let Checkpoint { epoch, seq, history, .. } = *certificate.statement();
        if epoch != self.config.epoch {
            return Err(Ignored::OtherEpoch);
        }
        if seq > self.window.low {
            // Whatever is missing below it comes with the state.
            self.window.transfer = Some(seq);
            self.adopt(certificate, out).unwrap_or_default();
        }
        self.window.transfer = None;
        if seq <= self.window.delivered {
            self.window.executed = self.window.executed.max(seq);
            self.watch_gap(out);
            return Err(Ignored::Duplicate);
        }
        mark!(Restored);
        let delivered = self.window.delivered;
        self.window.decided.retain(|slot, _| *slot <= delivered || *slot > seq);
        self.window.delivered = seq;
        self.window.executed = seq;
        self.window.history = history;
        self.window.tail = None;
        self.progress.disarm(Timer::Gap);
        self.progress.disarm(Timer::Tail);
        self.progress.disarm(Timer::Filler);
        self.restart_session_clock();
        self.requests.forget_waiting(seq);
        self.deliver(out);
        self.drop_bodies();
        self.watch_gap(out);
        Ok(())
    }
}
