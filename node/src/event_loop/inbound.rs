//! What the loop does with what arrives, and with the verdicts on it.

use polder_executor::Service;
use polder_types::{Call, ClientFrame, ClientId, NodeFrame, ReplicaId, Request, SignedRequest};
use tokio::time::Instant;

use super::EventLoop;
use crate::admission::{Checked, Refused};
use crate::receive::{Inbound, Permits};
use crate::replica::Event;

/// Questions of one key that are answered in a tick: where the node is, and how.
const QUESTIONS_PER_TICK_MAX: u32 = 8;

/// After how long a client that was told `Busy` should try again.
const RETRY_AFTER_MS: u32 = 20;

impl<S: Service> EventLoop<S> {
    pub(super) fn received(&mut self, inbound: Inbound, permits: Permits) {
        match inbound {
            Inbound::Peer { from, message, bytes } => {
                self.metrics.peer_messages.inc();
                if !self.admission.peer(from, message, bytes) {
                    self.metrics.peer_messages_dropped.with_label_values(&[&from.0.to_string()]).inc();
                }
            }
            Inbound::BadPeer { from } => {
                if let Some(not_logged) = self.complaints.next(from) {
                    tracing::warn!(%from, not_logged, "a replica sent what is no message");
                }
                self.misled(from);
            }
            Inbound::Up { id, client, connection } => {
                self.clients.add(id, client, connection);
                self.clients.send_to(id, &self.at());
            }
            Inbound::Down { id } => self.clients.remove(id),
            Inbound::Client { id, client, frame } => self.asked(id, client, &frame, permits),
            Inbound::Request { id, client, request, signed } => self.requested(id, client, &request, signed, permits),
        }
    }

    /// A client asks something else: so much of that a connection is read in a tick as there are turns, and so many
    /// questions of a key are answered.
    fn asked(&mut self, id: u64, client: ClientId, frame: &ClientFrame, permits: Permits) {
        let questions = self.questions.entry(client).or_default();
        *questions += 1;
        if *questions > QUESTIONS_PER_TICK_MAX {
            self.admission.refused(client);
        }
        let is_answered = *questions <= QUESTIONS_PER_TICK_MAX;
        let turns = if self.admission.is_flooding(client) { &mut self.refused } else { &mut self.turns_of_tick };
        turns.extend(permits.turn);
        match frame {
            ClientFrame::Attach(session) => self.clients.attached(id, *session),
            ClientFrame::Where if is_answered => self.clients.send_to(id, &self.at()),
            ClientFrame::Status if is_answered => {
                let report = self.report.borrow().clone();
                let status = report.map_or_else(|| self.make_report().node_status(), |report| report.node_status());
                self.clients.send_to(id, &NodeFrame::Status(status));
            }
            ClientFrame::Where | ClientFrame::Status | ClientFrame::Request(_) => {}
        }
    }

    /// A client asks for commands.
    fn requested(&mut self, id: u64, client: ClientId, request: &Request, signed: SignedRequest, permits: Permits) {
        if !self.clients.has(id) {
            // It was closed for what came before this (R20).
            return;
        }
        self.metrics.requests.inc();
        let digest = signed.digest();
        let commands = match &request.call {
            Call::Commands { commands, .. } => commands.len() as u64,
            Call::Open { .. } | Call::Close { .. } => 1,
        };
        self.clients.requested(id, request, digest);
        // Who does not read his answers is given no more of them.
        let reads = self.clients.reads(client);
        let refused = if self.drain_until.is_none() && self.has_room_for_requests() && reads {
            self.admission.client(id, client, commands, signed)
        } else {
            if !reads {
                self.admission.refused(client);
            }
            vec![Refused { connection: id, request: digest }]
        };
        if refused.iter().any(|refused| refused.request == digest) && self.admission.is_flooding(client) {
            self.refused.extend(permits.turn);
        }
        for Refused { connection, request } in refused {
            self.metrics.requests_busy.inc();
            self.clients.send_to(connection, &NodeFrame::Busy { request, retry_after_ms: RETRY_AFTER_MS });
        }
    }

    /// Where the node is, as clients are told.
    fn at(&self) -> NodeFrame {
        let (epoch, view, cut) = self.replica.position();
        NodeFrame::At { epoch, view, cut }
    }

    pub(super) fn verdicts(&mut self, worker: usize, checked: Vec<Checked>) {
        self.pool.finished(worker, checked.len());
        for checked in checked {
            match checked {
                Checked::Peer { from, outcome: Ok(message) } => {
                    if let Some(peer) = self.peers.iter_mut().find(|peer| peer.id == from) {
                        peer.heard = Some(Instant::now());
                    }
                    self.events.push_back(Event::Peer { from, message });
                }
                Checked::Peer { from, outcome: Err(error) } => {
                    if let Some(not_logged) = self.complaints.next(from) {
                        tracing::warn!(%from, %error, not_logged, "a replica's message is dropped");
                    }
                    self.misled(from);
                }
                Checked::Client { client, bytes, outcome: Ok(request), .. } => {
                    self.admission.settled(client, bytes);
                    self.events.push_back(Event::Request(request));
                }
                Checked::Client { connection, client, bytes, outcome: Err(error) } => {
                    tracing::debug!(%client, connection, "a client has signed badly");
                    self.admission.settled(client, bytes);
                    self.metrics.requests_bad.inc();
                    // R20: it arms nothing, is not forwarded, and its sender's channels are closed. The key is the
                    // sender: what else it has sent is not looked at, and it is not heard for a while.
                    self.admission.signed_badly(client);
                    self.shunned.add(client);
                    self.clients.close_all(client, &error.to_string());
                }
            }
        }
    }

    pub(super) fn misled(&mut self, by: ReplicaId) {
        self.metrics.peer_messages_bad.with_label_values(&[&by.0.to_string()]).inc();
        self.admission.misled(by);
    }
}
