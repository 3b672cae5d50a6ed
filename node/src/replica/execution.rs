//! What comes in from clients, and what is decided: lookup before ordering, execution after it, cuts between slots.

use std::collections::BTreeMap;

use polder_checkpoint::{Durability, effects_log};
use polder_consensus::{CommittedBatch, Input, SessionWindow};
use polder_executor::{Lookup, Service, Share};
use polder_types::{ClientId, NodeFrame, Reply, SignedRequest, Verified};

use super::event::{Action, Disk};
use super::{RETRY_WITH_SPACE_AFTER_MS, Replica};

impl<S: Service> Replica<S> {
    /// A client's request: answered from the cache, refused for good, or ordered.
    pub(super) fn request(&mut self, request: Verified<SignedRequest>, out: &mut Vec<Action>) {
        let Ok(parsed) = request.request() else { return };
        if self.is_diverged() {
            return;
        }
        let client = parsed.client;
        let share = self.copies.share(&parsed);
        let mut left = share;
        let found = self.executor.lookup(&parsed, &mut left);
        self.copies.given(&parsed, share.bytes - left.bytes, left);
        let window = match found {
            Lookup::Answered(replies) | Lookup::Never(replies) => {
                mark!(AnsweredFromCache);
                reply(client, replies, out);
                // A row that waits for it here would be forwarded, and count against leaders, for ever (R6).
                if self.core.is_waiting(&request.digest()) {
                    self.queue.push_back(Input::Settled { request: request.digest() });
                }
                return;
            }
            Lookup::Order { window, known } => {
                reply(client, known, out);
                window.map(|(ack, high)| SessionWindow { ack, high })
            }
        };
        // C10: what is new is not taken and not proposed, wherever it came from, and waits here for nobody; others arm
        // their timers for it, and so a leader without space is replaced by one that has some.
        if self.is_space_low {
            let frame = NodeFrame::Busy { request: request.digest(), retry_after_ms: RETRY_WITH_SPACE_AFTER_MS };
            out.push(Action::Reply { client, frame });
            return;
        }
        self.queue.push_back(Input::Request { request, window });
    }

    /// Whether all that a request asks for is answered here already, or can never execute: it may have waited since
    /// before its numbers were used by others.
    pub(super) fn is_settled(&self, request: &SignedRequest) -> bool {
        let mut nothing = Share { bytes: 0, after: None };
        let lookup = request.request().map(|request| self.executor.lookup(&request, &mut nothing));
        matches!(lookup, Ok(Lookup::Answered(_) | Lookup::Never(_)))
    }

    /// A batch is decided: executes it, answers, logs its effects, and freezes the state after a cut.
    pub(super) fn deliver(&mut self, batch: &CommittedBatch, out: &mut Vec<Action>) {
        if self.catch_up.installing().is_some() {
            return self.hold(batch);
        }
        if batch.slot != self.executor.executed().next() {
            return; // Below a restored cut: its effects are in the state.
        }
        let executed = self.executor.execute(batch.slot, &batch.batch);
        self.history = batch.history;
        out.push(Action::Executed {
            slot: batch.slot,
            digest: batch.digest,
            history: batch.history,
            commands: executed.commands,
        });
        let mut by_client: BTreeMap<ClientId, Vec<Reply>> = BTreeMap::new();
        for (client, answer) in executed.replies {
            by_client.entry(client).or_default().push(answer);
        }
        if !self.is_diverged() {
            by_client.into_iter().for_each(|(client, replies)| reply(client, replies, out));
        }
        effects_log::append(&mut self.state_writes, batch.slot, &executed.effects);
        let windows = executed.windows.into_iter();
        let windows = windows
            .map(|(client, session, window)| (client, session, window.map(|(ack, high)| SessionWindow { ack, high })));
        self.queue.push_back(Input::Executed { slot: batch.slot, windows: windows.collect() });
        self.tell_session_clock();
        if self.constants.is_cut(batch.slot) {
            self.cut(batch, out);
        }
    }

    /// Tells the core whether the session clock must run by itself, when that has changed (R24).
    pub(super) fn tell_session_clock(&mut self) {
        let must_run = self.executor.session_clock_must_run();
        if must_run != self.session_clock_must_run {
            self.session_clock_must_run = must_run;
            self.queue.push_back(Input::SessionClock { must_run });
        }
    }

    /// Hands what this step wrote to the state store, as one write.
    pub(super) fn flush_state(&mut self, durability: Durability, out: &mut Vec<Action>) -> Option<u64> {
        if self.state_writes.is_empty() {
            return None;
        }
        let ticket = self.state_ticket;
        self.state_ticket += 1;
        let writes = std::mem::take(&mut self.state_writes);
        out.push(Action::Write { disk: Disk::State, writes, durability, ticket });
        Some(ticket)
    }
}

fn reply(client: ClientId, replies: Vec<Reply>, out: &mut Vec<Action>) {
    if !replies.is_empty() {
        out.push(Action::Reply { client, frame: NodeFrame::Replies(replies) });
    }
}
