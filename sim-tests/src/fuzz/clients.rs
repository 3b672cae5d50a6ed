//! The client's machine, given what a lying node sends: frames of its own, taken apart and changed, beside what the others
//! answer honestly. It believes only what an honest replica answered, and it is answered in the end.

use std::collections::{BTreeMap, VecDeque};

use polder_client::machine::{Input, Machine, Numbering, Output, Patience, Settings};
use polder_types::{
    Answer, Blob, Call, ClientFrame, Constants, Epoch, NodeFrame, Position, Quorum, ReplicaId, Reply, Seq, SessionId,
    SignedRequest, SigningKey, View, decode, encode,
};

use super::{Target, Verdict, counting, holds, samples, tree::Tree};
use crate::random::Random;

/// What taking one frame may make the machine hold: so many times its bytes, and so many beside.
const BYTES_PER_BYTE: usize = 32;
const BYTES_BESIDE: usize = 64 << 10;
/// What frames that nobody waits for may leave behind, however many they are.
const BYTES_LEFT: usize = 256 << 10;
/// Calls of one input.
const CALLS: u64 = 24;
/// By then, in the machine's time, all is answered: the liar can delay a client, not stop it.
const PATIENCE_MS: u64 = 60_000;

/// The targets.
pub const TARGETS: &[Target] = &[Target {
    name: "client",
    what: "the client's machine: believes what r+1 say (R23), whatever one of them makes up",
    iterations: 200,
    run: |random| client(random),
}];

/// Four replicas played by hand, one of which lies.
struct Cluster<'a> {
    random: &'a mut Random,
    liar: ReplicaId,
    /// Frames on their way to the machine.
    sent: Vec<(ReplicaId, NodeFrame)>,
    /// What the liar takes parts from.
    donors: VecDeque<Tree>,
    session: SessionId,
}

impl Cluster<'_> {
    /// What an honest replica answers.
    fn answer(&self, frame: &ClientFrame) -> Option<NodeFrame> {
        let at = NodeFrame::At { epoch: Epoch::ZERO, view: View(0), cut: Seq(256) };
        let request = match frame {
            ClientFrame::Where => return Some(at),
            ClientFrame::Attach(_) | ClientFrame::Status => return None,
            ClientFrame::Request(request) => request,
        };
        Some(NodeFrame::Replies(replies(self.session, request)?))
    }

    /// A replica is sent a frame: it answers, the liar with something else, or not, or more than once.
    fn hear(&mut self, to: ReplicaId, frame: &ClientFrame) {
        let Some(answer) = self.answer(frame) else { return };
        if to != self.liar {
            self.sent.push((to, answer));
            return;
        }
        for _ in 0..self.random.range(0, 3) {
            let lie = self.lie(&answer);
            self.sent.push((to, lie));
        }
    }

    /// Something like this frame.
    fn lie(&mut self, frame: &NodeFrame) -> NodeFrame {
        let Some(mut tree) = Tree::of(frame) else { return frame.clone() };
        self.donors.push_back(tree.clone());
        if self.donors.len() > 32 {
            self.donors.pop_front();
        }
        let donors = self.donors.make_contiguous();
        (0..self.random.range(1, 3)).for_each(|_| tree.mutate(self.random, donors));
        decode(&tree.encode(), usize::MAX).unwrap_or_else(|_| frame.clone())
    }

    /// A frame that nobody asked for.
    fn unasked(&mut self) -> NodeFrame {
        let sample = self.random.pick(&samples::get().nodes).cloned();
        let sample = sample.unwrap_or(NodeFrame::At { epoch: Epoch::ZERO, view: View(9), cut: Seq(512) });
        self.lie(&sample)
    }
}

/// The replies to a request: the echo of each command.
fn replies(session: SessionId, signed: &SignedRequest) -> Option<Vec<Reply>> {
    let request = signed.request().ok()?;
    let whole = |answer: Answer, session: Option<SessionId>| {
        vec![Reply { epoch: Epoch::ZERO, session, number: 0, command: signed.digest(), answer }]
    };
    match request.call {
        Call::Open { .. } => Some(whole(Answer::Opened(session), None)),
        Call::Close { session } => Some(whole(Answer::Closed, Some(session))),
        Call::Commands { session, first, commands, .. } => {
            let reply = |(number, command): (u64, Blob)| Reply {
                epoch: Epoch::ZERO,
                session: Some(session),
                number,
                command: Reply::command_digest(&command),
                answer: Answer::Done(echo(&command)),
            };
            Some((first..).zip(commands).map(reply).collect())
        }
    }
}

fn echo(command: &[u8]) -> Blob {
    Blob::from([b"echo of ", command].concat())
}

fn client(random: &mut Random) -> Verdict {
    let quorum = Quorum::new(4, polder_types::FaultModel::Byzantine).map_err(|why| why.to_string())?;
    let mut drawn = 0;
    let settings = Settings {
        cluster: samples::get().keyring.cluster(),
        quorum,
        constants: Constants { session_window: random.range(4, 64), ..Constants::default() },
        key: SigningKey::from_seed(&[5; 32]),
        patience: Patience { late_ms: 250, late_max_ms: 4_000 },
        requests_in_flight_max: random.range(1, 4) as usize,
        commands_per_request_max: random.range(1, 8) as usize,
        nonce: Box::new(move || {
            drawn += 1;
            [drawn; 16]
        }),
    };
    let liar = ReplicaId(random.range(0, 3) as u8);
    let session = SessionId(Position { slot: Seq(300), index: 2 });
    let mut cluster = Cluster { random, liar, sent: Vec::new(), donors: VecDeque::new(), session };
    let mut machine = Machine::new(settings, Numbering::Own);
    let mut waiting: BTreeMap<u64, Blob> = BTreeMap::new();
    let (mut now_ms, mut next) = (0, 0);
    for replica in quorum.members() {
        drive(&mut machine, &mut cluster, &mut waiting, now_ms, Input::Up(replica))?;
        let at = NodeFrame::At { epoch: Epoch::ZERO, view: View(0), cut: Seq(256) };
        cluster.sent.push((replica, at));
    }
    while next < CALLS || !waiting.is_empty() {
        holds(now_ms < PATIENCE_MS, || format!("{} calls are never answered", waiting.len()))?;
        let choice = cluster.random.range(0, 9);
        if next < CALLS && choice < 3 {
            let command = Blob::from(encode(&(next, cluster.random.bits())));
            waiting.insert(next, command.clone());
            let submit = Input::Submit { call: next, number: None, command, deadline_ms: 10 * PATIENCE_MS };
            next += 1;
            drive(&mut machine, &mut cluster, &mut waiting, now_ms, submit)?;
        } else if choice < 4 {
            let frame = cluster.unasked();
            drive(&mut machine, &mut cluster, &mut waiting, now_ms, Input::Frame(liar, frame))?;
        } else if !cluster.sent.is_empty() {
            let at = cluster.random.below(cluster.sent.len());
            let (from, frame) = cluster.sent.remove(at);
            drive(&mut machine, &mut cluster, &mut waiting, now_ms, Input::Frame(from, frame))?;
        } else {
            now_ms += cluster.random.range(1, 300);
            // Any input lets the machine see the time.
            drive(&mut machine, &mut cluster, &mut waiting, now_ms, Input::Acknowledge(0))?;
        }
    }
    // Nobody waits for anything: what the liar goes on sending leaves nothing behind.
    let frames: Vec<NodeFrame> = (0..200).map(|_| cluster.unasked()).collect();
    let largest = frames.iter().map(|frame| encode(frame).len()).max().unwrap_or_default();
    let (_, left) = counting::peak_of(|| {
        let mut out = Vec::new();
        for frame in frames {
            machine.step(now_ms, Input::Frame(liar, frame), &mut out);
            machine.flush(now_ms, &mut out);
            out.clear();
        }
    });
    holds(left <= BYTES_LEFT + BYTES_PER_BYTE * largest, || format!("200 frames for nobody left {left} bytes"))
}

/// One input, and what follows from it.
fn drive(
    machine: &mut Machine,
    cluster: &mut Cluster<'_>,
    waiting: &mut BTreeMap<u64, Blob>,
    now_ms: u64,
    input: Input,
) -> Verdict {
    let bytes = if let Input::Frame(_, frame) = &input { encode(frame).len() } else { 4_096 };
    let mut out = Vec::new();
    let (_, peak) = counting::peak_of(|| {
        machine.step(now_ms, input, &mut out);
        machine.flush(now_ms, &mut out);
    });
    holds(peak <= BYTES_PER_BYTE * bytes + BYTES_BESIDE, || format!("a frame of {bytes} bytes made it hold {peak}"))?;
    for output in out {
        match output {
            Output::Send { to, frame } => {
                let frame = decode(&frame, usize::MAX).map_err(|why| format!("it sends what is no frame: {why}"))?;
                cluster.hear(to, &frame);
            }
            Output::Finished { call, outcome } => {
                let command = waiting.remove(&call).ok_or_else(|| format!("call {call} ends twice"))?;
                // R23: the liar alone is never believed.
                holds(outcome == Ok(echo(&command)), || format!("call {call} ends with {outcome:?}"))?;
            }
            Output::Opened(session) => {
                holds(session == cluster.session, || format!("{session:?} is believed to be open"))?;
            }
            Output::Refused(failure) => return Err(format!("a session is believed to be refused: {failure}")),
            Output::Closed => return Err("nobody closed it".to_owned()),
        }
    }
    Ok(())
}
