//! Checking every signature of a message, once, off the core (R3, R13, R20).

use alloc::collections::{BTreeSet, VecDeque};
use alloc::sync::Arc;
use core::convert::Infallible;
use core::fmt;

use polder_types::{
    Batch, Certificate, Constants, Digest, Domain, Keyring, Proof, Seq, Signed, Statement, Verified, encode,
};

use crate::{Message, ViewChange, ViewChangeBody};

/// A message that must be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadMessage {
    /// A signature does not verify, or there are too few.
    Signature,
    /// A body is not the one that was signed.
    Body,
    /// A list is longer than the protocol allows, or not in order.
    Shape,
}

impl fmt::Display for BadMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Signature => "a signature does not verify, or there are too few",
            Self::Body => "a body is not the one that was signed",
            Self::Shape => "a list is longer than allowed, or not in order",
        })
    }
}

impl core::error::Error for BadMessage {}

/// Whether the requests of a proposal are their clients'. A leader that proposes a forged one is at fault, unless a
/// new view forces the slot (R10, R20).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentic {
    /// Every request verifies, and the batch decodes.
    Yes,
    /// One does not, or the batch does not decode or is too large.
    No,
    /// There are no requests in this message.
    NotAsked,
}

/// A message whose every signature was checked; made by [`verify`] or from what a core signed itself.
#[derive(Clone, Debug)]
pub struct VerifiedMessage {
    message: Verified<Message>,
    /// Whether the requests in it are their clients'.
    pub authentic: Authentic,
    /// The batch in it, decoded once.
    pub batch: Option<Arc<Batch>>,
}

impl VerifiedMessage {
    /// The message.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// The message, with its mark.
    #[must_use]
    pub fn verified(&self) -> &Verified<Message> {
        &self.message
    }

    /// A message that carries nothing that anybody signs, or only what was verified or signed here before.
    pub(crate) fn own(message: Message) -> Self {
        let Ok(message) = Verified::by::<Infallible>(message, |_| Ok(()));
        Self { message, authentic: Authentic::NotAsked, batch: None }
    }

    /// A proposal of one's own: its requests were verified when they came.
    pub(crate) fn own_proposal(message: Message, batch: Arc<Batch>) -> Self {
        Self { authentic: Authentic::Yes, batch: Some(batch), ..Self::own(message) }
    }
}

/// What was checked before, by digest: a vote, a certificate or a request that comes again in another message is not
/// checked again (R13). Bounded: the oldest goes.
#[derive(Clone, Debug)]
pub struct Seen {
    digests: BTreeSet<Digest>,
    order: VecDeque<Digest>,
    entries_max: usize,
}

impl Seen {
    /// Remembers at most `entries_max` digests.
    #[must_use]
    pub fn new(entries_max: usize) -> Self {
        Self { digests: BTreeSet::new(), order: VecDeque::new(), entries_max }
    }

    /// `4·n·L`, the bound of R13.
    #[must_use]
    pub fn for_cluster(keyring: &Keyring, constants: &Constants) -> Self {
        let slots = usize::try_from(constants.window_slots).unwrap_or(usize::MAX);
        Self::new(slots.saturating_mul(4 * keyring.quorum().replicas()))
    }

    fn check<T: serde::Serialize>(
        &mut self,
        kind: &str,
        thing: &T,
        check: impl FnOnce() -> bool,
    ) -> Result<(), BadMessage> {
        let digest = Digest::of(Domain::Seen, &encode(&(kind, thing)));
        if self.digests.contains(&digest) {
            return Ok(());
        }
        if !check() {
            return Err(BadMessage::Signature);
        }
        if self.order.len() >= self.entries_max
            && let Some(oldest) = self.order.pop_front()
        {
            self.digests.remove(&oldest);
        }
        self.order.push_back(digest);
        self.digests.insert(digest);
        Ok(())
    }
}

/// Checks every signature in a message, the shape of its lists, and that bodies are the ones that were signed.
///
/// Votes need no state (R12): nothing here depends on what the replica knows, so the verdict is the same everywhere.
/// Bad requests in a proposal do not make it bad: they are the leader's fault, and the core must see them (R6).
///
/// # Errors
///
/// [`BadMessage`]: drop it. A peer whose channel carried it is faulty or relays for one that is.
pub fn verify(
    keyring: &Keyring,
    constants: &Constants,
    seen: &mut Seen,
    message: Message,
) -> Result<VerifiedMessage, BadMessage> {
    let mut authentic = Authentic::NotAsked;
    let mut batch = None;
    let message = Verified::by(message, |message| {
        let mut checker = Checker { keyring, constants, seen };
        match message {
            Message::Request(request) => {
                let cluster = keyring.cluster();
                let fits = request.bytes() <= constants.request_bytes_max as usize;
                fits.then_some(()).ok_or(BadMessage::Shape)?;
                checker.seen.check("request", request, || request.check(cluster).is_ok())
            }
            Message::Proposal(proposal, bytes) => {
                checker.body(&proposal.statement.digest, bytes)?;
                checker.signed("pre-prepare", proposal)?;
                let (verdict, decoded) = checker.requests(bytes);
                authentic = verdict;
                batch = decoded;
                Ok(())
            }
            Message::Vote(vote) => checker.signed("vote", vote),
            Message::Suspect(suspect) => checker.signed("suspect", suspect),
            Message::Suspects(proof) => checker.proof("suspects", proof),
            Message::Abdicate(abdicate) => checker.signed("abdicate", abdicate),
            Message::ViewChange(signed, body) => checker.view_change(signed, body),
            Message::NewView(signed, enclosed) => {
                let quorum = keyring.quorum();
                let right_number = enclosed.len() >= quorum.quorum() && enclosed.len() <= quorum.replicas();
                let in_order = enclosed.is_sorted_by(|(a, _), (b, _)| a.by < b.by);
                (right_number && in_order).then_some(()).ok_or(BadMessage::Shape)?;
                let digest = crate::NewView::body_digest(enclosed);
                (digest == signed.statement.body).then_some(()).ok_or(BadMessage::Body)?;
                checker.signed("new-view", signed)?;
                enclosed.iter().try_for_each(|(signed, body)| checker.view_change(signed, body))
            }
            Message::Status(status) => {
                let in_order = status.slots.is_sorted_by(|a, b| a.slot < b.slot);
                let bounded = status.slots.len() as u64 <= constants.window_slots;
                (in_order && bounded).then_some(()).ok_or(BadMessage::Shape)
            }
            Message::Fetch(_) => Ok(()),
            Message::Body(bytes) => {
                (bytes.len() <= constants.batch_bytes_max as usize).then_some(()).ok_or(BadMessage::Shape)?;
                batch = Batch::from_blob(bytes, constants.batch_bytes_max as usize).ok().map(Arc::new);
                Ok(())
            }
            Message::Committed(proof, bytes) => {
                (proof.statement.phase == crate::Phase::Commit).then_some(()).ok_or(BadMessage::Shape)?;
                checker.body(&proof.statement.digest, bytes)?;
                checker.proof("votes", proof)?;
                batch = Batch::from_blob(bytes, constants.batch_bytes_max as usize).ok().map(Arc::new);
                Ok(())
            }
            Message::Stable(proof) => checker.proof("checkpoint", proof),
        }
    })?;
    Ok(VerifiedMessage { message, authentic, batch })
}

struct Checker<'a> {
    keyring: &'a Keyring,
    constants: &'a Constants,
    seen: &'a mut Seen,
}

impl Checker<'_> {
    fn signed<S: Statement + serde::Serialize>(&mut self, kind: &str, signed: &Signed<S>) -> Result<(), BadMessage> {
        let keyring = self.keyring;
        self.seen.check(kind, signed, || signed.clone().verify(keyring).is_ok())
    }

    fn proof<S: Statement + serde::Serialize>(&mut self, kind: &str, proof: &Proof<S>) -> Result<(), BadMessage> {
        let keyring = self.keyring;
        self.seen.check(kind, proof, || proof.check(keyring, keyring.quorum().quorum()).is_ok())
    }

    fn body(&self, digest: &Digest, bytes: &[u8]) -> Result<(), BadMessage> {
        let fits = bytes.len() <= self.constants.batch_bytes_max as usize;
        (fits && Batch::digest(bytes) == *digest).then_some(()).ok_or(BadMessage::Body)
    }

    /// The verdict on a proposal's requests: deterministic, so that backups never disagree by what they received.
    fn requests(&mut self, bytes: &[u8]) -> (Authentic, Option<Arc<Batch>>) {
        let Ok(batch) = Batch::from_blob(bytes, self.constants.batch_bytes_max as usize) else {
            return (Authentic::No, None);
        };
        let cluster = self.keyring.cluster();
        let request_bytes_max = self.constants.request_bytes_max as usize;
        let all_good = batch.requests.iter().all(|request| {
            request.bytes() <= request_bytes_max
                && self.seen.check("request", request, || request.check(cluster).is_ok()).is_ok()
        });
        (if all_good { Authentic::Yes } else { Authentic::No }, Some(Arc::new(batch)))
    }

    /// R9: the signature, `SC(v−1)`, the certificate of `low`, and each entry's prepared certificate.
    fn view_change(&mut self, signed: &Signed<ViewChange>, body: &ViewChangeBody) -> Result<(), BadMessage> {
        let has_prepare_phase = self.keyring.quorum().has_prepare_phase();
        let window_slots = self.constants.window_slots;
        (body.entries.len() as u64 <= window_slots).then_some(()).ok_or(BadMessage::Shape)?;
        (body.entries.is_sorted_by(|a, b| a.slot < b.slot)).then_some(()).ok_or(BadMessage::Shape)?;
        let suspects = &body.suspects.statement;
        let follows = suspects.epoch == signed.statement.epoch && suspects.view.next() == signed.statement.view;
        (follows && signed.statement.view > suspects.view).then_some(()).ok_or(BadMessage::Shape)?;
        (body.digest() == signed.statement.body).then_some(()).ok_or(BadMessage::Body)?;
        self.signed("view-change", signed)?;
        self.proof("suspects", &body.suspects)?;
        match &body.stable {
            None => (body.low == Seq::ZERO).then_some(()).ok_or(BadMessage::Shape)?,
            Some(stable) => {
                (stable.statement.seq == body.low).then_some(()).ok_or(BadMessage::Shape)?;
                self.proof("checkpoint", stable)?;
            }
        }
        for entry in &body.entries {
            let in_window = entry.slot > body.low && entry.slot <= body.low.plus(window_slots);
            (in_window && entry.view < signed.statement.view).then_some(()).ok_or(BadMessage::Shape)?;
            match &entry.prepared {
                None => (!has_prepare_phase).then_some(()).ok_or(BadMessage::Shape)?,
                Some(proof) => {
                    let expected = crate::Vote {
                        phase: crate::Phase::Prepare,
                        epoch: signed.statement.epoch,
                        view: entry.view,
                        slot: entry.slot,
                        digest: entry.digest,
                    };
                    (has_prepare_phase && proof.statement == expected).then_some(()).ok_or(BadMessage::Shape)?;
                    self.proof("votes", proof)?;
                }
            }
        }
        Ok(())
    }
}

/// A certificate that a verified message carries.
pub(crate) fn carried<S: Statement>(
    message: &VerifiedMessage,
    pick: impl FnOnce(&Message) -> Option<&Proof<S>>,
) -> Option<Certificate<S>> {
    Certificate::carried(message.verified(), pick)
}

/// A part of a verified message, which is verified with it.
pub(crate) fn part<T: Clone>(
    message: &VerifiedMessage,
    pick: impl FnOnce(&Message) -> Option<&T>,
) -> Option<Verified<T>> {
    Verified::carried(message.verified(), pick)
}
