//! What becomes of a message from when it is sent to when it is there.
//!
//! **Corruption in flight.** Every packet of the real channel is authenticated: one whose bytes were changed is thrown
//! away and sent again, so a correct replica's frame arrives whole, later, and what is behind it on the connection waits
//! for it. The changed bytes are decoded and verified all the same, as if they had come through: no decoder may fall over
//! them, and nothing that a correct replica signed may come out of them as anything else. A liar encrypts what it likes:
//! of its frames the changed bytes arrive, if they decode and verify.

use polder_node::replica::{Event, PeerMessage, VerifiedPeer, verify_peer};
use polder_types::{Digest, Domain, NodeFrame, ReplicaId, SignedRequest, decode, encode};

use super::{Happening, Parcel, World};
use crate::checkers::certificates::Certificates;
use crate::checkers::{Verdict, Violation, violation};
use crate::network::{Blocked, Copy, Party};

impl World {
    /// Hands a message to the network, which the adversary rules until it is healed.
    pub(super) fn post(&mut self, from: Party, to: Party, message: Parcel) {
        if self.healed_at_us.is_none()
            && let Parcel::Peer(said) = &message
            && self.shared.loses(self.now_us, ReplicaId(from.0 as u8), ReplicaId(to.0 as u8), said)
        {
            return;
        }
        if self.healed_at_us.is_some() && self.network.is_lossy_when_healed() {
            let what = Digest::of(Domain::Seen, format!("{}>{} {message}", from.0, to.0).as_bytes());
            let what = u64::from_le_bytes(std::array::from_fn(|index| what.0[index]));
            if self.network.loses_first(from, to, what) {
                return;
            }
        }
        if let Some(held) = &mut self.held {
            held.push(Copy { at_us: self.now_us, from, to, message });
            return;
        }
        for copy in self.network.send(self.now_us, from, to, message) {
            let after_us = copy.at_us - self.now_us;
            self.schedule(after_us, Happening::Arrive(Box::new(copy)));
        }
    }

    /// A copy of a message is there.
    pub(super) fn arrive(&mut self, copy: Copy<Parcel>) -> Verdict {
        let Some(copy) = self.carried(copy)? else { return Ok(()) };
        let n = self.hosts.len();
        if copy.to.0 >= n {
            if let Parcel::Frame(frame) = &copy.message
                && let Some(client) = self.clients.get_mut(copy.to.0 - n)
            {
                client.frame(self.now_us, ReplicaId(copy.from.0 as u8), frame, &mut self.history);
            }
            return Ok(());
        }
        let host = copy.to.0;
        if !self.hosts[host].is_up() {
            return Ok(());
        }
        match copy.message {
            Parcel::Where => self.answer_where(host, copy.from),
            Parcel::Request(request) => self.give(host, Event::Request(request)),
            Parcel::Peer(message) => {
                let (me, now_us) = (self.hosts[host].id, self.now_us);
                self.deaf.iter_mut().filter(|(deaf, _)| *deaf == me).for_each(|(_, since_us)| *since_us = now_us);
                let Some(message) = self.admit(host, message)? else { return Ok(()) };
                self.give(host, Event::Peer { from: ReplicaId(copy.from.0 as u8), message })
            }
            Parcel::Frame(_) => Ok(()),
        }
    }

    /// What of a copy comes through the channel now.
    fn carried(&mut self, copy: Copy<Parcel>) -> Result<Option<Copy<Parcel>>, Violation> {
        let per_mille = self.options.hazards.corrupt_per_mille;
        let is_healed = self.network.is_calm(copy.from) && self.network.is_calm(copy.to);
        if self.held.is_some() || is_healed || !self.order.chance(per_mille) {
            return Ok(Some(copy));
        }
        self.counts.corrupted += 1;
        let changed = self.corrupted(&copy.message);
        if self.hosts.get(copy.from.0).is_some_and(|host| host.liar.is_some()) {
            return Ok(changed.map(|message| Copy { message, ..copy }));
        }
        if let (Some(Parcel::Peer(changed)), Parcel::Peer(sent)) = (&changed, &copy.message) {
            Certificates::corrupted(sent, changed)?;
        }
        if let (Some(Parcel::Request(changed)), Parcel::Request(sent)) = (&changed, &copy.message)
            && changed.digest() != sent.digest()
        {
            violation("certificates", "a changed request verifies under its client's name".to_string())?;
        }
        // It is sent again, and holds up what is behind it.
        let again_us = self.order.range(1_000, 60_000);
        self.network.block(copy.from, copy.to, self.now_us + again_us, Blocked::Burst);
        self.schedule(again_us, Happening::Arrive(Box::new(copy)));
        Ok(None)
    }

    /// What the receiver makes of a message some of whose bytes were changed: none when it drops it.
    fn corrupted(&mut self, message: &Parcel) -> Option<Parcel> {
        let mut bytes = match message {
            Parcel::Peer(peer) => peer.to_bytes(),
            Parcel::Request(request) => encode::<SignedRequest>(request),
            Parcel::Frame(frame) => encode(frame),
            Parcel::Where => return None,
        };
        for _ in 0..self.order.range(1, 3) {
            // Often near the beginning, where what is said of the rest stands.
            let reach = if self.order.chance(500) { bytes.len().min(16) } else { bytes.len() };
            let index = self.order.below(reach);
            let flip = 1 << self.order.range(0, 7);
            bytes.get_mut(index).into_iter().for_each(|byte| *byte ^= flip);
        }
        if self.order.chance(200) {
            bytes.truncate(self.order.below(bytes.len()));
        }
        match message {
            Parcel::Peer(_) => {
                let decoded: PeerMessage = decode(&bytes, usize::MAX).ok()?;
                let constants = &self.genesis.constants;
                verify_peer(&self.keyring, constants, &mut self.seen, decoded).ok().map(Parcel::Peer)
            }
            Parcel::Request(_) => {
                let decoded: SignedRequest = decode(&bytes, usize::MAX).ok()?;
                decoded.verify(self.keyring.cluster()).ok().map(Parcel::Request)
            }
            Parcel::Frame(_) => decode::<NodeFrame>(&bytes, usize::MAX).ok().map(Parcel::Frame),
            Parcel::Where => None,
        }
    }

    /// Asks the receiver whether it wants the message; some messages come as bytes and are verified anew.
    fn admit(&mut self, host: usize, message: VerifiedPeer) -> Result<Option<VerifiedPeer>, Violation> {
        if let VerifiedPeer::Ordering(ordering, _) = &message {
            if self.hosts[host].liar.is_some() {
                self.shared.note(ordering.message());
            }
            let replica = self.hosts[host].replica.as_ref();
            let is_wanted = replica.is_some_and(|replica| replica.wants(&ordering.message().header()));
            if !is_wanted && !self.network.is_forced() {
                self.counts.unwanted += 1;
                if self.options.liars > 0 {
                    self.observe_refusal(host, ordering.message())?;
                }
                return Ok(None);
            }
        }
        if !self.network.is_encoded() {
            return Ok(Some(message));
        }
        let bytes = message.to_bytes();
        let Ok(decoded) = decode(&bytes, usize::MAX) else {
            violation("certificates", format!("{message} does not decode from its own {} bytes", bytes.len()))?;
            return Ok(None);
        };
        let verified = verify_peer(&self.keyring, &self.genesis.constants, &mut self.seen, decoded);
        verified.map(Some).or_else(|why| {
            violation("certificates", format!("{message} does not verify after its journey: {why}")).map(|()| None)
        })
    }

    fn answer_where(&mut self, host: usize, client: Party) -> Verdict {
        let Some(replica) = self.hosts[host].replica.as_ref() else { return Ok(()) };
        if self.hosts[host].paused_until_us > self.now_us {
            return Ok(());
        }
        let status = replica.status();
        let frame = NodeFrame::At { epoch: status.core.epoch, view: status.core.view, cut: status.stable };
        self.send_frame(host, client, frame);
        Ok(())
    }
}
