//! The machine against four replicas played by hand.

use std::collections::VecDeque;

use polder_types::{Epoch, FaultModel, Position, Reply, Seq, View, decode};

use super::*;

const SESSION: SessionId = SessionId(Position { slot: Seq(300), index: 2 });

fn settings() -> Settings {
    let mut drawn = 0;
    Settings {
        cluster: ClusterId(polder_types::Digest([9; 32])),
        quorum: Quorum::new(4, FaultModel::Byzantine).expect("four replicas tolerate a liar"),
        constants: Constants { session_expiry_ms: 100_000, ..Constants::default() },
        key: SigningKey::from_seed(&[1; 32]),
        patience: Patience { late_ms: 250, late_max_ms: 4_000 },
        requests_in_flight_max: 2,
        commands_per_request_max: 3,
        nonce: Box::new(move || {
            drawn += 1;
            [drawn; 16]
        }),
    }
}

/// A machine, what it wanted, and its time.
struct Fixture {
    machine: Machine,
    now_ms: u64,
    sent: VecDeque<(ReplicaId, ClientFrame)>,
    other: Vec<Output>,
}

impl Fixture {
    fn new(machine: Machine) -> Self {
        Self { machine, now_ms: 0, sent: VecDeque::new(), other: Vec::new() }
    }

    /// All four replicas are connected and say that they are in view 0 at cut 256.
    fn connected(machine: Machine) -> Self {
        let mut fixture = Self::new(machine);
        for replica in 0..4 {
            fixture.step(Input::Up(ReplicaId(replica)));
            fixture.at(replica, 0, 256);
        }
        fixture
    }

    /// Connected, and the session is open.
    fn open() -> Self {
        let mut fixture = Self::connected(Machine::new(settings(), Numbering::Own));
        let (_, open) = fixture.requests().remove(0);
        fixture.answer(&[0, 1], &open, 0, Answer::Opened(SESSION));
        fixture.other.clear();
        fixture.sent.clear();
        fixture
    }

    fn step(&mut self, input: Input) {
        let mut out = Vec::new();
        self.machine.step(self.now_ms, input, &mut out);
        self.machine.flush(self.now_ms, &mut out);
        for output in out {
            match output {
                Output::Send { to, frame } => {
                    let frame = decode(&frame, usize::MAX).expect("what a machine sends can be decoded");
                    self.sent.push_back((to, frame));
                }
                other => self.other.push(other),
            }
        }
    }

    fn pass(&mut self, wait_ms: u64) {
        self.now_ms += wait_ms;
        // Any input lets the machine see the time.
        self.step(Input::Acknowledge(0));
    }

    fn at(&mut self, replica: u8, view: u64, cut: u64) {
        let at = NodeFrame::At { epoch: Epoch(0), view: View(view), cut: Seq(cut) };
        self.step(Input::Frame(ReplicaId(replica), at));
    }

    fn submit(&mut self, call: CallId) {
        let command = Blob::copy(&[call as u8]);
        self.step(Input::Submit { call, number: None, command, deadline_ms: self.now_ms + 30_000 });
    }

    /// The requests sent since last asked, with to whom.
    fn requests(&mut self) -> Vec<(ReplicaId, Request)> {
        let request = |(to, frame)| match frame {
            ClientFrame::Request(signed) => Some((to, signed.request().expect("what a machine sends is a request"))),
            _ => None,
        };
        self.sent.drain(..).filter_map(request).collect()
    }

    /// These replicas answer the request, its `index`-th command if it has any.
    fn answer(&mut self, replicas: &[u8], request: &Request, index: usize, answer: Answer) {
        let digest = || request.sign(settings().cluster, &settings().key).digest();
        let (session, number, command) = match &request.call {
            Call::Open { .. } => (None, 0, digest()),
            Call::Close { session } => (Some(*session), 0, digest()),
            Call::Commands { session, first, commands, .. } => {
                (Some(*session), first + index as u64, Reply::command_digest(&commands[index]))
            }
        };
        for replica in replicas {
            let reply = Reply { epoch: Epoch(0), session, number, command, answer: answer.clone() };
            self.step(Input::Frame(ReplicaId(*replica), NodeFrame::Replies(vec![reply])));
        }
    }

    fn outcomes(&mut self) -> Vec<(CallId, Result<Blob, CallError>)> {
        let outcome = |output| match output {
            Output::Finished { call, outcome } => Some((call, outcome)),
            _ => None,
        };
        self.other.drain(..).filter_map(outcome).collect()
    }
}

fn done(reply: &[u8]) -> Answer {
    Answer::Done(Blob::copy(reply))
}

fn first_of(request: &Request) -> (u64, u64, usize) {
    match &request.call {
        Call::Commands { ack, first, commands, .. } => (*ack, *first, commands.len()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn r24_an_open_waits_for_cuts_of_two_and_names_one() {
    let mut fixture = Fixture::new(Machine::new(settings(), Numbering::Own));
    fixture.step(Input::Up(ReplicaId(0)));
    fixture.at(0, 0, 256);
    assert!(fixture.requests().is_empty());
    fixture.step(Input::Up(ReplicaId(1)));
    fixture.at(1, 0, 128);
    let [(to, open)] = &fixture.requests()[..] else { panic!("one request") };
    assert_eq!(*to, ReplicaId(0));
    assert_eq!(open.call, Call::Open { nonce: [1; 16], cut: Seq(128) });
}

#[test]
fn r24_a_stale_open_is_followed_by_another_with_new_bits() {
    let mut fixture = Fixture::connected(Machine::new(settings(), Numbering::Own));
    let (_, open) = fixture.requests().remove(0);
    fixture.answer(&[0, 1], &open, 0, Answer::Failed(Failure::StaleOpen));
    assert!(fixture.sent.iter().any(|(_, frame)| *frame == ClientFrame::Where));
    assert!(fixture.requests().is_empty());
    fixture.at(0, 0, 1_280);
    fixture.at(1, 0, 1_280);
    let (_, open) = fixture.requests().remove(0);
    assert_eq!(open.call, Call::Open { nonce: [2; 16], cut: Seq(1_280) });
    fixture.answer(&[2, 3], &open, 0, Answer::Opened(SESSION));
    assert!(matches!(fixture.other[..], [Output::Opened(SESSION)]));
}

#[test]
fn r24_a_refused_open_refuses_what_waits_and_is_tried_again_for_the_next() {
    let mut fixture = Fixture::connected(Machine::new(settings(), Numbering::Own));
    let (_, open) = fixture.requests().remove(0);
    fixture.submit(5);
    fixture.answer(&[0, 1], &open, 0, Answer::Failed(Failure::TooManySessions));
    assert!(matches!(
        &fixture.other[..],
        [
            Output::Finished { call: 5, outcome: Err(CallError::Rejected(Failure::TooManySessions)) },
            Output::Refused(Failure::TooManySessions),
        ]
    ));
    assert!(fixture.requests().is_empty());
    fixture.submit(6);
    assert!(matches!(fixture.requests()[..], [(_, Request { call: Call::Open { nonce: [2, ..], .. }, .. })]));
}

#[test]
fn replicas_are_told_where_the_sessions_replies_go_also_after_a_reconnection() {
    let mut fixture = Fixture::connected(Machine::new(settings(), Numbering::Own));
    let (_, open) = fixture.requests().remove(0);
    fixture.answer(&[0, 1], &open, 0, Answer::Opened(SESSION));
    let attach = ClientFrame::Attach(SESSION);
    assert_eq!(fixture.sent.iter().filter(|(_, frame)| *frame == attach).count(), 4);
    fixture.sent.clear();
    fixture.step(Input::Down(ReplicaId(2)));
    fixture.step(Input::Up(ReplicaId(2)));
    assert_eq!(fixture.sent, [(ReplicaId(2), attach)]);
}

#[test]
fn the_first_command_goes_at_once_and_what_comes_meanwhile_is_packed() {
    let mut fixture = Fixture::open();
    (0..5).for_each(|call| fixture.submit(call));
    let requests = fixture.requests();
    let sizes: Vec<_> = requests.iter().map(|(_, request)| first_of(request)).collect();
    assert_eq!(sizes, [(0, 1, 1), (0, 2, 2)]);
    fixture.answer(&[0, 3], &requests[0].1, 0, done(b"a"));
    assert!(fixture.requests().is_empty(), "the caller that was just answered may call again");
    fixture.submit(5);
    assert_eq!(first_of(&fixture.requests()[0].1), (1, 4, 3));
    fixture.answer(&[1, 2], &requests[1].1, 0, done(b"b"));
    assert_eq!(fixture.outcomes(), [(0, Ok(Blob::copy(b"a"))), (1, Ok(Blob::copy(b"b")))]);
}

#[test]
fn a_second_request_waits_for_more_than_is_under_way_but_not_for_long() {
    let mut fixture = Fixture::open();
    (0..2).for_each(|call| fixture.submit(call));
    assert_eq!(fixture.requests().len(), 1);
    let held_until_ms = fixture.machine.deadline_ms();
    assert!(held_until_ms.is_some_and(|at_ms| at_ms <= fixture.now_ms + 25), "{held_until_ms:?}");
    fixture.pass(25);
    assert_eq!(first_of(&fixture.requests()[0].1), (0, 2, 1));
}

#[test]
fn a_request_that_is_full_is_not_held_back() {
    let mut fixture = Fixture::open();
    fixture.machine.settings.commands_per_request_max = 2;
    // Two callers that were answered make the next wait, if it is not full.
    (0..3).for_each(|call| fixture.submit(call));
    assert_eq!(fixture.requests().len(), 2);
    (3..6).for_each(|call| fixture.submit(call));
    fixture.machine.settings.requests_in_flight_max = 3;
    fixture.submit(6);
    assert_eq!(first_of(&fixture.requests()[0].1), (0, 4, 2), "three are under way, and four wait");
}

#[test]
fn r23_a_lying_replica_is_outvoted() {
    let mut fixture = Fixture::open();
    fixture.submit(0);
    let (_, request) = fixture.requests().remove(0);
    fixture.answer(&[3], &request, 0, done(b"lie"));
    fixture.answer(&[0], &request, 0, done(b"truth"));
    assert!(fixture.outcomes().is_empty());
    fixture.answer(&[2], &request, 0, done(b"truth"));
    assert_eq!(fixture.outcomes(), [(0, Ok(Blob::copy(b"truth")))]);
}

#[test]
fn r6_a_late_answer_sends_the_request_to_all_and_the_next_ones_too() {
    let mut fixture = Fixture::open();
    fixture.submit(0);
    assert_eq!(fixture.requests().len(), 1);
    fixture.pass(250);
    assert_eq!(fixture.requests().len(), 4);
    fixture.submit(1);
    fixture.pass(25);
    assert_eq!(fixture.requests().len(), 4);
    // The view has changed: the new leader alone is sent to.
    for replica in 1..4 {
        fixture.at(replica, 1, 256);
    }
    fixture.submit(2);
    assert!(fixture.requests().is_empty(), "two requests are in flight");
    fixture.pass(500);
    let requests = fixture.requests();
    fixture.answer(&[1, 2], &requests[0].1, 0, done(b"a"));
    fixture.pass(25);
    assert!(matches!(fixture.requests()[..], [(ReplicaId(_), _), ..]));
}

#[test]
fn r6_the_leaders_connection_fails_and_its_requests_go_to_all_at_once() {
    let mut fixture = Fixture::open();
    fixture.submit(0);
    fixture.requests();
    fixture.step(Input::Down(ReplicaId(0)));
    let to: Vec<u8> = fixture.requests().iter().map(|(to, _)| to.0).collect();
    assert_eq!(to, [1, 2, 3]);
}

#[test]
fn every_repeat_is_the_very_same_request() {
    let mut fixture = Fixture::open();
    fixture.submit(0);
    let (_, first) = fixture.requests().remove(0);
    fixture.pass(250);
    fixture.pass(500);
    let repeats = fixture.requests();
    assert_eq!(repeats.len(), 8);
    assert!(repeats.iter().all(|(_, request)| *request == first));
}

#[test]
fn r27_no_session_means_unknown_and_what_was_not_sent_goes_under_the_next() {
    let mut fixture = Fixture::open();
    (0..4).for_each(|call| fixture.submit(call));
    let requests = fixture.requests();
    assert_eq!(requests.len(), 2);
    fixture.answer(&[0, 1], &requests[0].1, 0, Answer::Failed(Failure::NoSession));
    let unknown = |call| (call, Err(CallError::unknown(Unknown::SessionGone)));
    assert_eq!(fixture.outcomes(), [unknown(0), unknown(1), unknown(2)]);
    let (_, open) = fixture.requests().remove(0);
    assert!(matches!(open.call, Call::Open { nonce: [2, ..], .. }));
    let next = SessionId(Position { slot: Seq(900), index: 0 });
    fixture.answer(&[0, 1], &open, 0, Answer::Opened(next));
    let commands = fixture.requests().remove(0).1;
    assert!(matches!(commands.call, Call::Commands { session, first: 1, ack: 0, .. } if session == next));
    // Late replies about the old session change nothing.
    fixture.answer(&[2, 3], &requests[1].1, 0, done(b"late"));
    assert!(fixture.outcomes().is_empty());
}

#[test]
fn rejections_are_told_from_unknown_outcomes() {
    for (failure, is_not_executed) in [
        (Failure::NotPermitted, true),
        (Failure::Malformed, true),
        (Failure::StateFull, true),
        (Failure::ReplyTooLarge, true),
        (Failure::NumberReused, true),
        (Failure::OutsideWindow, false),
        (Failure::ReplyNotKept, false),
    ] {
        let mut fixture = Fixture::open();
        fixture.submit(0);
        let (_, request) = fixture.requests().remove(0);
        fixture.answer(&[0, 1], &request, 0, Answer::Failed(failure));
        let Some((0, Err(error))) = fixture.outcomes().pop() else { panic!("an error") };
        assert_eq!((error.is_not_executed(), error.is_outcome_unknown()), (is_not_executed, !is_not_executed));
    }
}

#[test]
fn an_idle_session_is_left_before_it_expires() {
    let mut fixture = Fixture::open();
    fixture.submit(0);
    let (_, request) = fixture.requests().remove(0);
    fixture.answer(&[0, 1], &request, 0, done(b"a"));
    fixture.pass(49_999);
    fixture.submit(1);
    let (_, request) = fixture.requests().remove(0);
    assert_eq!(first_of(&request), (1, 2, 1));
    fixture.answer(&[0, 1], &request, 0, done(b"b"));
    fixture.pass(50_000);
    fixture.submit(2);
    let (_, request) = fixture.requests().remove(0);
    assert!(matches!(request.call, Call::Open { nonce: [2, ..], .. }));
}

#[test]
fn closing_waits_for_what_is_under_way_then_closes_the_session() {
    let mut fixture = Fixture::open();
    fixture.submit(0);
    let (_, request) = fixture.requests().remove(0);
    fixture.step(Input::Close);
    fixture.submit(1);
    assert_eq!(fixture.outcomes(), [(1, Err(CallError::NotSent(CallError::CLOSED)))]);
    assert!(fixture.requests().is_empty());
    fixture.answer(&[0, 1], &request, 0, done(b"a"));
    assert_eq!(fixture.outcomes(), [(0, Ok(Blob::copy(b"a")))]);
    let (_, close) = fixture.requests().remove(0);
    assert_eq!(close.call, Call::Close { session: SESSION });
    fixture.answer(&[1, 2], &close, 0, Answer::Closed);
    assert!(matches!(fixture.other[..], [Output::Closed]));
}

#[test]
fn closing_a_client_without_a_session_is_done_at_once() {
    let mut fixture = Fixture::new(Machine::new(settings(), Numbering::Own));
    fixture.step(Input::Close);
    assert!(matches!(fixture.other[..], [Output::Closed]));
}

#[test]
fn closing_while_the_session_opens_closes_it_once_it_is_known() {
    let mut fixture = Fixture::connected(Machine::new(settings(), Numbering::Own));
    let (_, open) = fixture.requests().remove(0);
    fixture.step(Input::Close);
    assert!(fixture.other.is_empty());
    fixture.answer(&[0, 1], &open, 0, Answer::Opened(SESSION));
    assert_eq!(fixture.requests().remove(0).1.call, Call::Close { session: SESSION });
}

#[test]
fn a_resumed_session_sends_the_same_numbers_and_bytes_again() {
    let submit = |fixture: &mut Fixture, number: u64| {
        let command = Blob::copy(&[number as u8]);
        fixture.step(Input::Submit { call: number, number: Some(number), command, deadline_ms: 30_000 });
    };
    let mut before = Fixture::connected(Machine::resume(settings(), SESSION, 10));
    (11..14).for_each(|number| submit(&mut before, number));
    let mut after = Fixture::connected(Machine::resume(settings(), SESSION, 10));
    (11..14).for_each(|number| submit(&mut after, number));
    let requests = before.requests();
    assert_eq!(requests, after.requests());
    assert_eq!(requests.iter().map(|(_, request)| first_of(request)).collect::<Vec<_>>(), [(10, 11, 1), (10, 12, 2)]);
    // Acknowledged only when the caller says so.
    after.answer(&[0, 1], &requests[0].1, 0, done(b"a"));
    after.answer(&[0, 1], &requests[1].1, 0, done(b"b"));
    after.answer(&[0, 1], &requests[1].1, 1, done(b"c"));
    (14..17).for_each(|number| submit(&mut after, number));
    assert_eq!(first_of(&after.requests().remove(0).1), (10, 14, 3));
    after.step(Input::Acknowledge(13));
    submit(&mut after, 17);
    after.pass(25);
    assert_eq!(first_of(&after.requests().remove(0).1), (13, 17, 1));
}

#[test]
fn r27_a_resumed_session_that_is_gone_stays_gone() {
    let mut fixture = Fixture::connected(Machine::resume(settings(), SESSION, 0));
    let submit = |fixture: &mut Fixture, number| {
        let command = Blob::copy(b"c");
        fixture.step(Input::Submit { call: number, number: Some(number), command, deadline_ms: 30_000 });
    };
    submit(&mut fixture, 1);
    let (_, request) = fixture.requests().remove(0);
    fixture.answer(&[0, 1], &request, 0, Answer::Failed(Failure::NoSession));
    submit(&mut fixture, 2);
    let unknown = CallError::unknown(Unknown::SessionGone);
    assert_eq!(fixture.outcomes(), [(1, Err(unknown.clone())), (2, Err(unknown))]);
    assert!(fixture.requests().is_empty());
}

#[test]
fn an_abandoned_machine_ends_every_call() {
    let mut fixture = Fixture::open();
    (0..2).for_each(|call| fixture.submit(call));
    let mut out = Vec::new();
    fixture.machine.abandon(&mut out);
    fixture.other.extend(out);
    let mut outcomes = fixture.outcomes();
    outcomes.sort_by_key(|(call, _)| *call);
    let token = Some(crate::Token::new(fixture.machine.state(SESSION), 1, Blob::copy(&[0])));
    let unknown = CallError::OutcomeUnknown { why: Unknown::Closed, token };
    let not_sent = CallError::NotSent(CallError::CLOSED);
    assert_eq!(outcomes, [(0, Err(unknown)), (1, Err(not_sent))]);
}

/// R25, R27: with the session the replicas forget what a token asks for.
#[test]
fn a_session_of_which_a_token_is_out_is_not_closed() {
    for gives_up in [true, false] {
        let mut fixture = Fixture::open();
        fixture.submit(0);
        let (_, request) = fixture.requests().remove(0);
        fixture.pass(if gives_up { 30_000 } else { 1 });
        assert_eq!(fixture.outcomes().len(), usize::from(gives_up));
        fixture.answer(&[0, 1], &request, 0, done(b"a"));
        fixture.requests();
        fixture.step(Input::Close);
        let closes = fixture.requests().iter().any(|(_, request)| matches!(request.call, Call::Close { .. }));
        let is_over = fixture.other.iter().any(|output| matches!(output, Output::Closed));
        assert_eq!((closes, is_over), (!gives_up, gives_up));
    }
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let run = || {
        let mut fixture = Fixture::open();
        (0..20).for_each(|call| fixture.submit(call));
        fixture.pass(300);
        fixture.sent.drain(..).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}

/// the driver sleeps until `deadline_ms`: what lies in the past makes it spin.
#[test]
fn while_a_new_session_is_opened_the_machine_wants_no_time_in_the_past() {
    let mut fixture = Fixture::open();
    (0..2).for_each(|call| fixture.submit(call));
    let requests = fixture.requests();
    assert_eq!(requests.len(), 1, "the second command is held back");
    fixture.answer(&[0, 1], &requests[0].1, 0, Answer::Failed(Failure::NoSession));
    // The OPEN is under way, and its answer takes a while.
    fixture.pass(40);
    let at_ms = fixture.machine.deadline_ms().expect("something is under way");
    assert!(at_ms > fixture.now_ms, "it is {} and the machine wants to be called at {at_ms}", fixture.now_ms);
}

#[test]
fn while_the_window_is_full_the_machine_wants_no_time_in_the_past() {
    let mut settings = settings();
    settings.constants.session_window = 4;
    let mut fixture = Fixture::connected(Machine::new(settings, Numbering::Own));
    let (_, open) = fixture.requests().remove(0);
    fixture.answer(&[0, 1], &open, 0, Answer::Opened(SESSION));
    // Number 1 is not answered for a while; 2 to 4 are; 5 must wait for 1.
    for call in 0..4 {
        fixture.submit(call);
        fixture.pass(30);
        let requests = fixture.requests();
        let (_, request) = requests.iter().find(|(_, request)| first_of(request).1 == call + 1).expect("sent");
        if call > 0 {
            fixture.answer(&[0, 1], &request.clone(), 0, done(b"a"));
        }
    }
    fixture.submit(4);
    for _ in 0..4 {
        fixture.pass(30);
        let at_ms = fixture.machine.deadline_ms().expect("something is under way");
        assert!(at_ms > fixture.now_ms, "it is {} and the machine wants to be called at {at_ms}", fixture.now_ms);
    }
}

/// The session has three commands under way, in one request, behind one that was answered.
fn without_room() -> (Fixture, Request) {
    let mut fixture = Fixture::open();
    fixture.submit(0);
    let requests = fixture.requests();
    fixture.answer(&[0, 1], &requests[0].1, 0, done(b"0"));
    for call in 1..4 {
        let command = Blob::copy(&[call as u8]);
        let submit = Input::Submit { call, number: None, command, deadline_ms: fixture.now_ms + 30_000 };
        fixture.machine.step(fixture.now_ms, submit, &mut Vec::new());
    }
    fixture.pass(2);
    let requests = fixture.requests();
    let (_, request) = requests.first().expect("sent").clone();
    assert_eq!(first_of(&request), (1, 2, 3));
    fixture.outcomes();
    (fixture, request)
}

#[test]
fn r25_what_had_no_room_is_sent_again_under_its_number_with_what_is_answered_acknowledged() {
    let (mut fixture, request) = without_room();
    fixture.answer(&[0, 1], &request, 1, Answer::Failed(Failure::NoRoom));
    fixture.answer(&[0, 1], &request, 2, Answer::Failed(Failure::NoRoom));
    // Nobody is told, and nothing is sent: there is nothing to acknowledge yet.
    assert!(fixture.outcomes().is_empty() && fixture.requests().is_empty());
    fixture.answer(&[0, 1], &request, 0, done(b"1"));
    let requests = fixture.requests();
    let (_, again) = requests.first().expect("sent at once").clone();
    // As many as there was room for, and one more for the answer.
    assert_eq!(first_of(&again), (2, 3, 2));
    fixture.answer(&[2, 3], &again, 1, done(b"3"));
    fixture.answer(&[2, 3], &again, 0, done(b"2"));
    let outcomes = fixture.outcomes();
    let calls: Vec<_> = outcomes.iter().map(|(call, outcome)| (*call, outcome.is_ok())).collect();
    assert_eq!(calls, [(1, true), (3, true), (2, true)]);
}

#[test]
fn r25_one_liar_says_in_vain_that_there_is_no_room() {
    let (mut fixture, request) = without_room();
    fixture.answer(&[3], &request, 0, Answer::Failed(Failure::NoRoom));
    fixture.pass(300);
    assert!(fixture.requests().iter().all(|(_, sent)| *sent == request));
}

#[test]
fn r25_what_had_no_room_is_tried_again_after_a_while_though_nothing_was_acknowledged() {
    let (mut fixture, request) = without_room();
    for index in 0..3 {
        fixture.answer(&[0, 1], &request, index, Answer::Failed(Failure::NoRoom));
    }
    // The lowest has room in any case (R25): who says so of it says what was true of an older acknowledgement.
    let requests = fixture.requests();
    assert_eq!(first_of(&requests.first().expect("sent at once").1), (1, 2, 1));
    let at_ms = fixture.machine.deadline_ms().expect("something is under way");
    assert!(at_ms > fixture.now_ms);
    fixture.pass(250);
    assert!(fixture.requests().iter().any(|(_, sent)| first_of(sent).1 == 3), "and others may have made room");
}

#[test]
fn r25_a_call_that_had_no_room_in_its_time_has_an_unknown_outcome() {
    let (mut fixture, request) = without_room();
    fixture.answer(&[0, 1], &request, 2, Answer::Failed(Failure::NoRoom));
    for _ in 0..125 {
        fixture.pass(250);
        let at_ms = fixture.machine.deadline_ms().expect("something is under way");
        assert!(at_ms > fixture.now_ms, "it is {} and the machine wants to be called at {at_ms}", fixture.now_ms);
    }
    let outcomes = fixture.outcomes();
    assert_eq!(outcomes.len(), 3);
    // A copy may yet be executed.
    assert!(outcomes.iter().all(|(_, outcome)| outcome.as_ref().is_err_and(CallError::is_outcome_unknown)));
}
