//! What becomes of the commands of a session.

use polder_types::{ClientId, ClusterId, PublicKey, SessionId};

use super::*;

fn command(fill: u8) -> Blob {
    Blob::copy(&[fill; 10])
}

fn constants(session_window: u64) -> Constants {
    Constants { session_window, reply_cache_per_session_bytes_max: 4 * 25, ..Constants::default() }
}

fn state() -> SessionState {
    SessionState {
        cluster: ClusterId(Digest([1; 32])),
        client: ClientId(PublicKey([2; 32])),
        session: SessionId::default(),
        acknowledged: 0,
    }
}

fn own(window: u64, commands: u64) -> Ledger {
    let mut ledger = Ledger::new(Numbering::Own, 0, &constants(window));
    ledger.name(state());
    (0..commands).for_each(|call| ledger.submit(call, command(call as u8), 1_000));
    ledger
}

fn numbers(packed: Option<Packed>) -> Option<(u64, u64, usize)> {
    packed.map(|packed| (packed.ack, packed.first, packed.commands.len()))
}

fn answer(ledger: &mut Ledger, number: u64) -> (Vec<Output>, Option<LetterId>) {
    let mut out = Vec::new();
    let letter = ledger.answered(number, &Ok(command(9)), &mut out);
    (out, letter)
}

#[test]
fn commands_are_packed_in_order_up_to_the_limits() {
    let mut ledger = own(1_000, 10);
    assert_eq!(numbers(ledger.pack(0, 4, 1_000, 0)), Some((0, 1, 4)));
    // 15 bytes a command.
    assert_eq!(numbers(ledger.pack(0, 100, 30, 1)), Some((0, 5, 2)));
    assert_eq!(numbers(ledger.pack(0, 100, 1_000, 2)), Some((0, 7, 4)));
    assert_eq!(ledger.pack(0, 100, 1_000, 3), None);
    assert_eq!(ledger.letters(), 3);
}

#[test]
fn r25_the_window_holds_until_the_lowest_is_answered() {
    let mut ledger = own(3, 3);
    ledger.submit(3, command(3), 1_000);
    assert_eq!(numbers(ledger.pack(0, 100, 1_000, 0)), Some((0, 1, 3)));
    assert_eq!(ledger.pack(0, 100, 1_000, 1), None);
    answer(&mut ledger, 2);
    assert_eq!(ledger.pack(0, 100, 1_000, 1), None);
    answer(&mut ledger, 1);
    assert_eq!(numbers(ledger.pack(0, 100, 1_000, 1)), Some((2, 4, 1)));
}

#[test]
fn a_request_is_answered_when_all_its_commands_are() {
    let mut ledger = own(10, 2);
    ledger.pack(0, 100, 1_000, 7);
    assert_eq!(answer(&mut ledger, 2).1, None);
    let (out, letter) = answer(&mut ledger, 1);
    assert_eq!(letter, Some(7));
    assert!(matches!(out[..], [Output::Finished { call: 0, outcome: Ok(_) }]));
    assert!(ledger.is_empty());
    assert_eq!(ledger.ack(), 2);
    // A late copy of the reply.
    assert_eq!(answer(&mut ledger, 1).1, None);
}

#[test]
fn time_is_up_before_and_after_sending() {
    let mut ledger = own(1, 2);
    ledger.pack(0, 100, 1_000, 0);
    let mut out = Vec::new();
    ledger.tick(999, &mut out);
    assert!(out.is_empty());
    ledger.tick(1_000, &mut out);
    let token = Some(Token::new(state(), 1, command(0)));
    let unknown = CallError::OutcomeUnknown { why: Unknown::TimedOut, token };
    let not_sent = CallError::NotSent(CallError::TIMED_OUT);
    assert!(matches!(&out[..], [
        Output::Finished { call: 0, outcome: Err(first) },
        Output::Finished { call: 1, outcome: Err(second) },
    ] if *first == unknown && *second == not_sent));
    // The first stays under way, and blocks the acknowledgement; the second is gone.
    assert!(ledger.has_pending());
    assert!(!ledger.has_waiting());
    assert_eq!(ledger.ack(), 0);
    assert_eq!(answer(&mut ledger, 1).1, Some(0));
    // Whoever has the token may still ask.
    assert_eq!(ledger.ack(), 0);
}

#[test]
fn r25_what_a_token_asks_for_is_kept_while_later_commands_have_room() {
    let mut ledger = own(8, 1);
    ledger.pack(0, 1, 1_000, 0);
    ledger.tick(1_000, &mut Vec::new());
    answer(&mut ledger, 1);
    assert!(ledger.has_tokens());
    for number in 2..=6 {
        ledger.submit(number, command(1), 2_000);
        // By numbers: half a window.
        let ack = if number < 6 { 0 } else { number - 1 };
        assert_eq!(numbers(ledger.pack(0, 1, 1_000, number)), Some((ack, number, 1)));
        let mut out = Vec::new();
        ledger.answered(number, &Ok(Blob::default()), &mut out);
    }
    assert!(!ledger.has_tokens());
    assert_eq!(ledger.ack(), 6);
}

#[test]
fn r25_what_a_token_asks_for_is_kept_while_there_is_room_for_later_replies() {
    let mut ledger = own(1_000, 1);
    ledger.pack(0, 1, 1_000, 0);
    ledger.tick(1_000, &mut Vec::new());
    answer(&mut ledger, 1);
    // Ten bytes a reply, the first included; 25 are kept.
    for (number, ack) in [(2, 0), (3, 0), (4, 3)] {
        ledger.submit(number, command(1), 2_000);
        assert_eq!(numbers(ledger.pack(0, 1, 1_000, number)), Some((ack, number, 1)));
        answer(&mut ledger, number);
    }
    assert!(!ledger.has_tokens());
}

/// Its window begins where that request said, not where an earlier one did.
#[test]
fn a_token_says_what_its_request_acknowledged() {
    let mut ledger = own(10, 1);
    ledger.pack(0, 1, 1_000, 0);
    answer(&mut ledger, 1);
    ledger.submit(7, command(7), 2_000);
    ledger.pack(0, 1, 1_000, 1);
    let mut out = Vec::new();
    ledger.end_pending(Unknown::Closed, &mut out);
    let token = Some(Token::new(SessionState { acknowledged: 1, ..state() }, 2, command(7)));
    let expected = CallError::OutcomeUnknown { why: Unknown::Closed, token };
    assert!(matches!(&out[..], [Output::Finished { call: 7, outcome: Err(error) }] if *error == expected));
}

#[test]
fn numbered_commands_are_packed_in_runs() {
    let mut ledger = Ledger::new(Numbering::Callers, 10, &constants(100));
    let mut out = Vec::new();
    for (call, number) in [(0, 15), (1, 12), (2, 11)] {
        ledger.submit_numbered(call, number, command(number as u8), 1_000, &mut out);
    }
    assert_eq!(numbers(ledger.pack(0, 100, 1_000, 0)), Some((10, 11, 2)));
    assert_eq!(numbers(ledger.pack(0, 100, 1_000, 1)), Some((10, 15, 1)));
    assert!(out.is_empty());
    // Not beyond what is under way.
    ledger.acknowledge(20);
    assert_eq!(ledger.ack(), 10);
    answer(&mut ledger, 11);
    ledger.acknowledge(20);
    assert_eq!(ledger.ack(), 11);
}

#[test]
fn numbered_commands_outside_the_window_or_reused_are_refused_here() {
    let mut ledger = Ledger::new(Numbering::Callers, 10, &constants(5));
    let mut out = Vec::new();
    ledger.submit_numbered(0, 10, command(1), 1_000, &mut out);
    ledger.submit_numbered(1, 16, command(1), 1_000, &mut out);
    ledger.submit_numbered(2, 11, command(1), 1_000, &mut out);
    ledger.submit_numbered(3, 11, command(2), 1_000, &mut out);
    ledger.pack(0, 100, 1_000, 0);
    ledger.submit_numbered(4, 11, command(2), 1_000, &mut out);
    let errors: Vec<_> = out
        .iter()
        .filter_map(|output| match output {
            Output::Finished { call, outcome: Err(error) } => Some((*call, error.clone())),
            _ => None,
        })
        .collect();
    let in_use = CallError::NotSent(CallError::NUMBER_IN_USE);
    assert_eq!(
        errors,
        [
            (0, CallError::unknown(Unknown::Acknowledged)),
            (1, CallError::NotSent(CallError::BEYOND_WINDOW)),
            (3, in_use.clone()),
            (4, in_use),
        ]
    );
    // The same command again shares the answer.
    ledger.submit_numbered(5, 11, command(1), 1_000, &mut out);
    assert_eq!(answer(&mut ledger, 11).0.len(), 2);
}

#[test]
fn r27_when_the_session_is_gone_what_was_sent_is_unknown_and_what_waits_stays() {
    let mut ledger = own(2, 3);
    ledger.pack(0, 100, 1_000, 0);
    let mut out = Vec::new();
    assert_eq!(ledger.session_gone(&mut out).len(), 2);
    let unknown = CallError::unknown(Unknown::SessionGone);
    assert_eq!(out.len(), 2);
    assert!(out.iter().all(|output| matches!(output, Output::Finished { outcome: Err(e), .. } if *e == unknown)));
    ledger.renumber();
    assert_eq!(numbers(ledger.pack(0, 100, 1_000, 1)), Some((0, 1, 1)));
}
