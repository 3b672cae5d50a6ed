//! Requests as they come: from a client, or forwarded by a backup (R6, R20).

use alloc::sync::Arc;
use alloc::vec::Vec;

use polder_types::{ReplicaId, SignedRequest, Verified};

use crate::lane::Way;
use crate::requests::Admission;
use crate::verify::part;
use crate::{Core, Ignored, Message, Output, Refusal, SessionWindow, To, VerifiedMessage};

impl Core {
    /// A client's own request. A backup forwards it to the leader and starts its deadline (R6).
    pub(crate) fn on_request(
        &mut self,
        request: Verified<SignedRequest>,
        window: Option<SessionWindow>,
        out: &mut Vec<Output>,
    ) -> Result<(), Ignored> {
        match self.requests.admit(request.clone(), Way::Direct, window, self.next_slot(), self.window.high()) {
            Admission::Taken => {
                let (now_ms, timeout_ms) = (self.progress.now_ms(), self.progress.timeout_ms());
                let forwards = !self.is_leader() && self.term.start.is_some();
                if forwards && self.requests.forward_at_once(&request.digest(), now_ms, timeout_ms) {
                    self.forward(&request, out);
                }
                Ok(())
            }
            Admission::Again => Err(Ignored::Duplicate),
            Admission::Settled => Err(Ignored::Settled),
            Admission::Busy => {
                if let Ok(decoded) = request.request() {
                    let (client, request) = (decoded.client, request.digest());
                    out.push(Output::Refused { client, request, why: Refusal::Busy });
                }
                Err(Ignored::Flood)
            }
        }
    }

    /// A request that a backup forwards. Of its session nothing is known here unless its client has sent some, too: it
    /// may be ordered, and arms no deadline.
    pub(crate) fn on_forwarded(&mut self, from: ReplicaId, message: &Arc<VerifiedMessage>) -> Result<(), Ignored> {
        if !self.is_leader() {
            return Err(Ignored::NotLeader);
        }
        let request = part(message, |message| match message {
            Message::Request(request) => Some(request),
            _ => None,
        });
        let Some(request) = request else { return Err(Ignored::Invalid) };
        match self.requests.admit(request, Way::Forwarded(from), None, self.next_slot(), self.window.high()) {
            Admission::Taken => Ok(()),
            Admission::Again => Err(Ignored::Duplicate),
            Admission::Settled => Err(Ignored::Settled),
            Admission::Busy => Err(Ignored::Flood),
        }
    }

    pub(crate) fn forward(&self, request: &Verified<SignedRequest>, out: &mut Vec<Output>) {
        self.send(To::One(self.leader()), Message::Request(SignedRequest::clone(request)), out);
    }
}
