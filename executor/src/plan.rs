//! The front's walk over a batch: every request in order, every command judged, before anything runs (R26).

use std::collections::BTreeMap;

use polder_types::{
    Answer, Batch, Call, ClientId, Digest, Failure, Position, Reply, Request, Seq, SessionId, SignedRequest,
};

use crate::Service;
use crate::command::{Admission, Task, prepare};
use crate::executor::Windows;
use crate::schedule::TaskId;
use crate::sessions::{Front, Meta, Opened, Opening, Verdict};
use crate::system::Clock;

/// What the committer does, in order, once the tasks have run.
#[derive(Debug)]
pub(crate) enum Step {
    /// Forget an OPEN whose copies are stale.
    Forget { request: Digest, at: Position },
    /// Delete a session.
    End { session: SessionId, at: Position },
    /// Write a session, and that this OPEN opened it.
    Open { request: Digest, opened: Opened, at: Position },
    /// Delete the replies up to a number.
    Acknowledge { session: SessionId, ack: u64, at: Position },
    /// Answer, and record nothing.
    Answer(ClientId, Option<Numbered>, Digest, Answer),
    /// Record an answer, and give it.
    Record(ClientId, Numbered, Digest, Failure, Position),
    /// Answer what the task came to, and record it as this says.
    Run(ClientId, Numbered, Digest, TaskId, Keep, Position),
    /// Answer what is recorded.
    Copy(ClientId, Numbered, Digest),
}

/// A command's number in its session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbered {
    pub(crate) session: SessionId,
    pub(crate) number: u64,
}

/// What of a task's answer is recorded (R25).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// The answer.
    Answer,
    /// That it was executed: it is read-only.
    Done,
    /// Nothing: it is recorded already.
    Nothing,
}

/// What is to be done in a slot.
#[derive(Debug)]
pub(crate) struct Plan<C> {
    pub(crate) clock: Clock,
    pub(crate) steps: Vec<Step>,
    pub(crate) tasks: Vec<Task<C>>,
    /// The sessions that were used, as they are at the end, with the last use.
    pub(crate) used: Vec<(SessionId, Meta, Position)>,
    /// As [`crate::Executed::windows`].
    pub(crate) windows: Windows,
}

/// Walks over a batch.
pub(crate) struct Planner<'a, S: Service> {
    service: &'a S,
    front: &'a mut Front,
    clock: Clock,
    full: bool,
    next: Position,
    steps: Vec<Step>,
    tasks: Vec<Task<S::Command>>,
    touched: BTreeMap<SessionId, (ClientId, Position)>,
}

impl<'a, S: Service> Planner<'a, S> {
    pub(crate) fn new(service: &'a S, front: &'a mut Front, slot: Seq, clock: Clock, full: bool) -> Self {
        let next = Position { slot, index: 0 };
        let (steps, tasks, touched) = (Vec::new(), Vec::new(), BTreeMap::new());
        Self { service, front, clock, full, next, steps, tasks, touched }
    }

    pub(crate) fn plan(mut self, batch: &Batch) -> Plan<S::Command> {
        for (session, client) in self.front.expire(self.clock.session_ms) {
            self.end(session, client, self.next);
        }
        for request in self.front.forget_opens(self.next.slot) {
            self.steps.push(Step::Forget { request, at: self.next });
        }
        for signed in &batch.requests {
            // Whoever ordered what is no request has nobody to answer to (R12: a deterministic error at execution).
            let Ok(Request { client, call }) = signed.request() else { continue };
            match call {
                Call::Open { cut, .. } => self.open(client, signed, cut),
                Call::Close { session } => self.close(client, signed, session),
                Call::Commands { session, ack, first, commands } => {
                    self.commands(client, session, ack, first, &commands);
                }
            }
        }
        self.finish()
    }

    fn open(&mut self, client: ClientId, signed: &SignedRequest, cut: Seq) {
        let at = self.take_position();
        let request = signed.digest();
        let answer = match self.front.open(at, client, request, cut, self.clock.session_ms) {
            Opening::Refused(failure) => Answer::Failed(failure),
            Opening::Copy(session) => Answer::Opened(session),
            Opening::Opens { evicted, until } => {
                if let Some(session) = evicted {
                    self.end(session, client, at);
                }
                let session = SessionId(at);
                self.steps.push(Step::Open { request, opened: Opened { session, client, until }, at });
                self.touched.insert(session, (client, at));
                Answer::Opened(session)
            }
        };
        self.steps.push(Step::Answer(client, None, request, answer));
    }

    fn close(&mut self, client: ClientId, signed: &SignedRequest, session: SessionId) {
        let at = self.take_position();
        if self.front.close(client, session) {
            self.end(session, client, at);
        }
        self.steps.push(Step::Answer(client, Some(Numbered { session, number: 0 }), signed.digest(), Answer::Closed));
    }

    fn commands(&mut self, client: ClientId, session: SessionId, ack: u64, first: u64, commands: &[impl AsRef<[u8]>]) {
        let admission = Admission { role: self.front.role(client), full: self.full };
        let mut open = self.front.session_mut(client, session);
        if let Some((open, rows)) = &mut open {
            if ack > open.ack {
                open.acknowledge(ack, rows);
                self.steps.push(Step::Acknowledge { session, ack, at: self.next });
            }
            open.used_ms = self.clock.session_ms;
            self.touched.insert(session, (client, self.next));
        }
        // In this order: the numbers are not asked for one beyond the last command, which might not exist.
        for (bytes, number) in commands.iter().zip(first..) {
            let at = self.next;
            self.next.index = self.next.index.saturating_add(1);
            let command = Reply::command_digest(bytes.as_ref());
            let numbered = Numbered { session, number };
            let Some((open, rows)) = &mut open else {
                let answer = Answer::Failed(Failure::NoSession);
                self.steps.push(Step::Answer(client, Some(numbered), command, answer));
                continue;
            };
            let verdict = match open.judge(number, &command) {
                Verdict::Fresh if !open.has_room(number, rows) => Verdict::Refused(Failure::NoRoom),
                verdict => verdict,
            };
            self.steps.push(match verdict {
                Verdict::Refused(failure) => Step::Answer(client, Some(numbered), command, Answer::Failed(failure)),
                Verdict::Copy => Step::Copy(client, numbered, command),
                Verdict::Fresh | Verdict::ReadAgain => {
                    let task = prepare(self.service, bytes.as_ref(), at, admission);
                    let read_only = task.as_ref().is_ok_and(|task| task.read_only);
                    let keep = match verdict {
                        Verdict::ReadAgain => Keep::Nothing,
                        _ if read_only => Keep::Done,
                        _ => Keep::Answer,
                    };
                    if keep != Keep::Nothing {
                        open.claim(number, command, read_only, rows);
                    }
                    match task {
                        Ok(task) => {
                            self.tasks.push(task);
                            Step::Run(client, numbered, command, TaskId(self.tasks.len() - 1), keep, at)
                        }
                        Err(failure) => Step::Record(client, numbered, command, failure, at),
                    }
                }
            });
        }
    }

    fn end(&mut self, session: SessionId, client: ClientId, at: Position) {
        self.steps.push(Step::End { session, at });
        self.touched.insert(session, (client, at));
    }

    fn take_position(&mut self) -> Position {
        let at = self.next;
        self.next.index = self.next.index.saturating_add(1);
        at
    }

    fn finish(self) -> Plan<S::Command> {
        let mut used = Vec::new();
        let mut windows = Vec::with_capacity(self.touched.len());
        for (id, (client, at)) in self.touched {
            let session = self.front.any_session(id);
            windows.push((client, id, session.map(|session| session.window())));
            if let Some(session) = session {
                let (ack, used_ms) = (session.ack, session.used_ms);
                used.push((id, Meta { client, ack, used_ms, cached_bytes: 0 }, at));
            }
        }
        Plan { clock: self.clock, steps: self.steps, tasks: self.tasks, used, windows }
    }
}
