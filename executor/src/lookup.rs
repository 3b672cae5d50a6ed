//! What to do with a request before it is ordered: the same table that decides at execution, asked ahead of it.

use polder_types::{Answer, Blob, Call, ClientId, Digest, Domain, Failure, Reply, Request, Seq, SessionId, encode};

use crate::plan::Numbered;
use crate::sessions::Verdict;
use crate::{Executor, Service};

/// What to do with a request before it is ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Do not order it: everything that it asks for was done, and these are the answers.
    Answered(Vec<Reply>),
    /// Order it.
    Order {
        /// The session's acknowledged number and the highest that would execute now; none for an OPEN. `(0, 0)` for a
        /// session that is not open here yet: nothing of it would execute now.
        window: Option<(u64, u64)>,
        /// Answers to those of its commands that were done before.
        known: Vec<Reply>,
    },
    /// Do not order it: what of it was not done can never execute any more. These are the answers.
    Never(Vec<Reply>),
}

/// What a lookup may hand out of answers; the rest is for later copies of the request (R23).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Bytes that are left. While there are any, the next answer is handed out, however large it is.
    pub bytes: u64,
    /// The number of the last answer that an earlier copy of the request was given, if it was not given all: this one
    /// is given what comes behind it first. Afterwards the same for the next copy; none when this one was given all.
    pub after: Option<u64>,
}

impl Share {
    /// Everything, from the start.
    pub const ALL: Self = Self { bytes: u64::MAX, after: None };

    /// About what an answer takes beside the bytes of the application.
    const OVERHEAD_BYTES: u64 = 80;

    fn spend(&mut self, reply: &Reply) {
        let bytes = if let Answer::Done(bytes) = &reply.answer { bytes.len() as u64 } else { 0 };
        self.bytes = self.bytes.saturating_sub(bytes + Self::OVERHEAD_BYTES);
    }
}

impl<S: Service> Executor<S> {
    /// What to do with a request before it is ordered, as of the last executed slot: copies are answered from the cache
    /// (R23), and what can never execute is not ordered. What is to be ordered may still fail at execution, which alone
    /// decides (R12). Of the answers to commands as many are handed out as `share` allows.
    #[must_use]
    pub fn lookup(&self, request: &Request, share: &mut Share) -> Lookup {
        match &request.call {
            Call::Open { cut, .. } => self.lookup_open(request, *cut),
            Call::Close { session } => self.lookup_close(request, *session),
            Call::Commands { session, first, commands, .. } => {
                self.lookup_commands(request.client, *session, (*first, commands), share)
            }
        }
    }

    fn lookup_open(&self, request: &Request, cut: Seq) -> Lookup {
        let digest = digest_of(request);
        let never = |failure| Lookup::Never(vec![self.reply(None, digest, Answer::Failed(failure))]);
        if let Some(session) = self.front.opened(&digest) {
            return Lookup::Answered(vec![self.reply(None, digest, Answer::Opened(session))]);
        }
        if self.front.role(request.client).is_none() {
            return never(Failure::NotPermitted);
        }
        // A cut above what is executed here may be one that this replica has yet to reach.
        if !self.front.may_be_fresh(cut, self.executed().next()) {
            return never(Failure::StaleOpen);
        }
        Lookup::Order { window: None, known: Vec::new() }
    }

    fn lookup_close(&self, request: &Request, session: SessionId) -> Lookup {
        match self.front.session(request.client, session) {
            Some(open) => Lookup::Order { window: Some(open.window()), known: Vec::new() },
            None if self.may_open_later(session) => Lookup::Order { window: Some((0, 0)), known: Vec::new() },
            None => {
                let numbered = Some(Numbered { session, number: 0 });
                Lookup::Answered(vec![self.reply(numbered, digest_of(request), Answer::Closed)])
            }
        }
    }

    fn lookup_commands(
        &self,
        client: ClientId,
        session: SessionId,
        (first, commands): (u64, &[Blob]),
        share: &mut Share,
    ) -> Lookup {
        let open = self.front.session(client, session);
        if open.is_none() && self.may_open_later(session) {
            return Lookup::Order { window: Some((0, 0)), known: Vec::new() };
        }
        let (mut known, mut order, mut never) = (Vec::new(), false, false);
        let behind = share.after.map_or(0, |after| after.saturating_add(1).saturating_sub(first));
        let behind = usize::try_from(behind).unwrap_or(usize::MAX).min(commands.len());
        let (earlier, later) = commands.split_at(behind);
        // Nothing is copied out of the state that is not handed out.
        let mut left_out = false;
        let mut hand_out = |answer: &dyn Fn() -> Reply| match share.bytes {
            0 => left_out = true,
            _ => {
                let reply = answer();
                share.spend(&reply);
                known.push(reply);
            }
        };
        let numbered = later.iter().zip(first.saturating_add(behind as u64)..).chain(earlier.iter().zip(first..));
        for (bytes, number) in numbered {
            let command = Reply::command_digest(bytes);
            let numbered = Numbered { session, number };
            let verdict = open.map(|open| (open.judge(number, &command), number > open.window().1));
            let failure = match verdict {
                None => Failure::NoSession,
                // Beyond the window: not now, but once more is acknowledged.
                Some((Verdict::Fresh | Verdict::ReadAgain, _) | (Verdict::Refused(_), true)) => {
                    order = true;
                    continue;
                }
                Some((Verdict::Refused(failure), false)) => failure,
                Some((Verdict::Copy, _)) => {
                    hand_out(&|| self.recorded(numbered, command));
                    continue;
                }
            };
            never = true;
            hand_out(&|| self.reply(Some(numbered), command, Answer::Failed(failure)));
        }
        match known.last() {
            Some(last) if left_out => share.after = Some(last.number),
            None if left_out => {}
            _ => share.after = None,
        }
        match open {
            Some(open) if order => Lookup::Order { window: Some(open.window()), known },
            _ if never => Lookup::Never(known),
            _ => Lookup::Answered(known),
        }
    }

    /// Whether a session that is not open may be one that a slot above the executed ones opens: ids are positions, and
    /// never come back (R24).
    fn may_open_later(&self, session: SessionId) -> bool {
        session.0.slot > self.executed()
    }
}

/// As [`polder_types::SignedRequest::digest`] of the request as it was signed: a request has one encoding (R2).
fn digest_of(request: &Request) -> Digest {
    Digest::of(Domain::Request, &encode(request))
}
