//! The façade: slots in, replies and effects out.

use std::collections::BTreeMap;
use std::sync::Arc;

use polder_types::{
    Answer, Batch, Blob, ClientId, Constants, Digest, Epoch, Failure, Genesis, Position, Reply, Seq, SessionId,
    Timestamp,
};

use crate::access::Limits;
use crate::plan::{Keep, Numbered, Plan, Planner, Step};
use crate::schedule::{Scheduler, Sequential, TaskId};
use crate::sessions::{Committer, Front, Outcome, Record, Row, read_partition};
use crate::state::{Effects, Frozen, Layout, RestoreError, State};
use crate::system::System;
use crate::{Service, pool};

/// What an executor must know.
#[derive(Clone, Debug)]
pub struct ExecutorConfig {
    /// The configuration that the cluster started from, checked ([`Genesis::check`]).
    pub genesis: Arc<Genesis>,
    /// The epoch, which replies carry (R23).
    pub epoch: Epoch,
}

/// Executes the ordered batches, one slot after the other.
#[derive(Debug)]
pub struct Executor<S: Service> {
    service: Arc<S>,
    config: ExecutorConfig,
    scheduler: Box<dyn Scheduler>,
    pub(crate) front: Front,
    committer: Committer,
    system: System,
    pub(crate) state: State,
    executed: Seq,
}

/// Sessions with their windows: the acknowledged number and the highest that would execute now; none for a session that
/// is gone.
pub type Windows = Vec<(ClientId, SessionId, Option<(u64, u64)>)>;

/// What became of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executed {
    /// The slot.
    pub slot: Seq,
    /// Its time (R27).
    pub time: Timestamp,
    /// The answers, in the order of the commands.
    pub replies: Vec<(ClientId, Reply)>,
    /// What changed.
    pub effects: Effects,
    /// The sessions that changed (R26), in order of their ids.
    pub windows: Windows,
    /// Commands of the service that ran, failing ones and ones that were read again included; copies answered from the
    /// cache are not.
    pub commands: u32,
    /// How many answers were failures, by their code.
    pub failures: BTreeMap<Failure, u32>,
}

/// The bytes that the replies of a slot may still take (R28).
struct Room(u64);

impl Room {
    fn of_slot(constants: &Constants) -> Self {
        Self(u64::from(constants.reply_bytes_max).saturating_mul(Limits::SLOT_REPLIES_MAX))
    }

    /// Whether these bytes fit; then they are taken.
    fn take(&mut self, bytes: usize) -> bool {
        let left = self.0.checked_sub(bytes as u64);
        self.0 = left.unwrap_or(self.0);
        left.is_some()
    }
}

/// What a task came to: its reply, encoded.
type Outcomes = Vec<Option<Result<Blob, Failure>>>;

impl<S: Service> Executor<S> {
    /// The executor of a cluster that has executed nothing. Its state follows from the genesis configuration alone.
    #[must_use]
    pub fn genesis(service: Arc<S>, config: ExecutorConfig) -> Self {
        let mut state = State::empty(Layout::new(&config.genesis.constants));
        let system = System::genesis(&mut state, &config.genesis.digest());
        // The effects of genesis are in genesis.
        drop(state.take_effects());
        Self::with(service, config, state, system, Seq::ZERO)
    }

    /// The executor that goes on from a state.
    ///
    /// # Errors
    ///
    /// [`RestoreError`] when the state is not one of this configuration or cannot be read.
    pub fn restore(service: Arc<S>, config: ExecutorConfig, frozen: &Frozen) -> Result<Self, RestoreError> {
        let state = State::thaw(Layout::new(&config.genesis.constants), frozen)?;
        let system = System::restore(&state, &config.genesis.digest())?;
        let mut this = Self::with(service, config, state, system, frozen.seq());
        this.restore_sessions()?;
        Ok(this)
    }

    /// The last slot that was executed.
    #[must_use]
    pub fn executed(&self) -> Seq {
        self.executed
    }

    /// The time of that slot (R27).
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.system.clock.time
    }

    /// Open sessions.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.front.len()
    }

    /// Whether so many sessions are open that an empty batch is due every `2·T_idle`, lest the session clock stand still
    /// (R24).
    #[must_use]
    pub fn session_clock_must_run(&self) -> bool {
        self.front.len() > self.config.genesis.constants.sessions_max as usize / 2
    }

    /// The bytes that `state_bytes_max` bounds, as they are now.
    #[must_use]
    pub fn state_bytes(&self) -> u64 {
        self.state.bytes()
    }

    /// The state as it is now. Costs the number of partitions, whatever is in them.
    #[must_use]
    pub fn freeze(&self) -> Frozen {
        self.state.freeze(self.executed, self.time())
    }

    /// Executes the next slot.
    ///
    /// # Panics
    ///
    /// When `slot` is not the one after [`Executor::executed`]: a caller that skips a slot must not go on.
    pub fn execute(&mut self, slot: Seq, batch: &Batch) -> Executed {
        assert_eq!(slot, self.executed.next(), "slots are executed in order, each once");
        let constants = &self.config.genesis.constants;
        let clock = self.system.clock.advance(batch.ts, constants.idle_ms);
        let full = self.system.totals.full(slot, constants);
        let plan = Planner::new(&*self.service, &mut self.front, slot, clock, full).plan(batch);
        self.system.set_clock(&mut self.state, clock, slot);
        let mut room = Room::of_slot(&self.config.genesis.constants);
        let outcomes = self.run(&plan, &mut room);
        let commands = plan.tasks.len() as u32;
        let (replies, windows) = self.commit(plan, outcomes, &mut room);
        if self.config.genesis.constants.is_cut(slot) {
            self.system.note_total(&mut self.state, slot);
        }
        self.executed = slot;
        let mut failures = BTreeMap::new();
        for (_, reply) in &replies {
            if let Answer::Failed(failure) = reply.answer {
                *failures.entry(failure).or_default() += 1;
            }
        }
        let effects = self.state.take_effects();
        Executed { slot, time: clock.time, replies, effects, windows, commands, failures }
    }

    pub(crate) fn reply(&self, numbered: Option<Numbered>, command: Digest, answer: Answer) -> Reply {
        let (session, number) = numbered.map_or((None, 0), |numbered| (Some(numbered.session), numbered.number));
        Reply { epoch: self.config.epoch, session, number, command, answer }
    }

    /// The answer to a copy of a command that is recorded as executed, and not to be read again.
    pub(crate) fn recorded(&self, numbered: Numbered, command: Digest) -> Reply {
        let row = Committer::row(&self.state, numbered.session, numbered.number);
        let epoch = row.as_ref().map_or(self.config.epoch, |row| row.epoch);
        let answer = row.and_then(|row| row.outcome.answer()).unwrap_or(Answer::Failed(Failure::ReplyNotKept));
        Reply { epoch, ..self.reply(Some(numbered), command, answer) }
    }

    fn with(service: Arc<S>, config: ExecutorConfig, state: State, system: System, executed: Seq) -> Self {
        let genesis = &config.genesis;
        let front = Front::new(&genesis.constants, &genesis.clients);
        let committer = Committer::new(&genesis.constants);
        let scheduler = Box::new(Sequential::default());
        Self { service, config, scheduler, front, committer, system, state, executed }
    }

    /// R26: the front of a restored state knows what the session partitions say, and nothing else.
    fn restore_sessions(&mut self) -> Result<(), RestoreError> {
        for id in self.state.layout().session_partitions() {
            for record in read_partition(self.state.partition(id)) {
                match record.ok_or(RestoreError::Sessions(id))? {
                    Record::Session(session, meta) => {
                        self.front.restore_session(session, &meta);
                        self.committer.restore_session(session, &meta);
                    }
                    // In order of the keys a session comes before its rows.
                    Record::Row(session, number, row) => {
                        if !self.front.restore_row(session, number, &row) {
                            return Err(RestoreError::Sessions(id));
                        }
                    }
                    Record::Opened(request, opened) => self.front.restore_open(request, opened),
                }
            }
        }
        Ok(())
    }

    /// Runs the tasks, as the scheduler hands them out.
    fn run(&mut self, plan: &Plan<S::Command>, room: &mut Room) -> Outcomes {
        let limits = Limits {
            accesses_max: Limits::ACCESSES_MAX,
            written_bytes_max: Limits::WRITTEN_BYTES_MAX,
            reply_bytes_max: self.config.genesis.constants.reply_bytes_max,
        };
        for (index, task) in plan.tasks.iter().enumerate() {
            self.scheduler.enqueue(TaskId(index), &task.declared);
        }
        let mut outcomes: Outcomes = vec![None; plan.tasks.len()];
        let (service, state, at) = (&*self.service, &mut self.state, plan.clock.time);
        pool::run_inline(&mut *self.scheduler, |TaskId(index)| {
            let task = &plan.tasks[index];
            outcomes[index] = Some(task.run(service, state, limits, at).and_then(|(reply, writes)| {
                writes.apply(state);
                let lost = if task.read_only { Failure::TooMuch } else { Failure::ReplyNotKept };
                if room.take(reply.len()) { Ok(reply) } else { Err(lost) }
            }));
        });
        outcomes
    }

    /// Records what was decided and what came of it, in order, and answers.
    fn commit(
        &mut self,
        plan: Plan<S::Command>,
        mut outcomes: Outcomes,
        room: &mut Room,
    ) -> (Vec<(ClientId, Reply)>, Windows) {
        let mut replies = Vec::with_capacity(plan.steps.len());
        for step in plan.steps {
            match step {
                Step::Forget { request, at } => self.committer.forgot(&mut self.state, &request, at),
                Step::End { session, at } => self.committer.ended(&mut self.state, session, at),
                Step::Open { request, opened, at } => self.committer.opened(&mut self.state, &request, opened, at),
                Step::Acknowledge { session, ack, at } => {
                    self.committer.acknowledged(&mut self.state, session, ack, at);
                }
                Step::Answer(client, numbered, command, answer) => {
                    replies.push((client, self.reply(numbered, command, answer)));
                }
                Step::Record(client, numbered, command, failure, at) => {
                    let answer = Answer::Failed(failure);
                    self.record(numbered, command, Outcome::Answer(answer.clone()), at);
                    replies.push((client, self.reply(Some(numbered), command, answer)));
                }
                Step::Run(client, numbered, command, TaskId(task), keep, at) => {
                    // Every task has run when its slot is committed.
                    let outcome = outcomes.get_mut(task).and_then(Option::take).unwrap_or(Err(Failure::Panicked));
                    let answer = outcome.map_or_else(Answer::Failed, Answer::Done);
                    match keep {
                        Keep::Answer => self.record(numbered, command, Outcome::Answer(answer.clone()), at),
                        Keep::Done => self.record(numbered, command, Outcome::Read, at),
                        Keep::Nothing => {}
                    }
                    replies.push((client, self.reply(Some(numbered), command, answer)));
                }
                Step::Copy(client, numbered, command) => {
                    let mut reply = self.recorded(numbered, command);
                    if matches!(&reply.answer, Answer::Done(bytes) if !room.take(bytes.len())) {
                        reply.answer = Answer::Failed(Failure::ReplyNotKept);
                    }
                    replies.push((client, reply));
                }
            }
        }
        for (session, meta, at) in plan.used {
            self.committer.used(&mut self.state, session, meta, at);
        }
        (replies, plan.windows)
    }

    fn record(&mut self, numbered: Numbered, command: Digest, outcome: Outcome, at: Position) {
        let row = Row { epoch: self.config.epoch, command, outcome };
        self.committer.executed(&mut self.state, numbered.session, numbered.number, row, at);
    }
}
