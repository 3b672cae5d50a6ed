//! When a reply is believed: on `r+1` equal ones from distinct replicas (R23). Pure.

use std::collections::{BTreeMap, VecDeque};

use polder_types::{Answer, Digest, Domain, Quorum, ReplicaId, Reply, SessionId, encode};

/// What a reply is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Subject {
    /// None: an OPEN.
    pub(crate) session: Option<SessionId>,
    /// 0: an OPEN or a CLOSE.
    pub(crate) number: u64,
    /// The digest of the command; of the whole request for an OPEN or a CLOSE.
    pub(crate) command: Digest,
}

impl Subject {
    fn of(reply: &Reply) -> Self {
        Self { session: reply.session, number: reply.number, command: reply.command }
    }
}

/// Counts equal replies to what was asked.
///
/// A correct replica may give two different replies to one command: a read is read again when its request is ordered
/// again. So each replica's last few replies count, each once; a liar gains nothing by it, since it takes `r+1`
/// replicas to say the very same. Only digests are kept, so that a liar's large replies take no memory.
#[derive(Debug)]
pub(crate) struct Matcher {
    weak: usize,
    expected: BTreeMap<Subject, Votes>,
    ignored: u64,
}

/// The digests of each replica's last replies.
type Votes = BTreeMap<ReplicaId, VecDeque<Digest>>;

/// So many replies of one replica about one subject are remembered.
const REPLIES_REMEMBERED: usize = 4;

impl Matcher {
    pub(crate) fn new(quorum: Quorum) -> Self {
        Self { weak: quorum.weak(), expected: BTreeMap::new(), ignored: 0 }
    }

    /// Starts to count replies about this.
    pub(crate) fn expect(&mut self, subject: Subject) {
        self.expected.entry(subject).or_default();
    }

    /// Counts no more replies about this.
    pub(crate) fn forget(&mut self, subject: &Subject) {
        self.expected.remove(subject);
    }

    /// Counts a reply. Once enough replicas have given the very same, their answer is believed and the subject is
    /// closed.
    pub(crate) fn hear(&mut self, from: ReplicaId, reply: Reply) -> Option<(Subject, Answer)> {
        let subject = Subject::of(&reply);
        let Some(votes) = self.expected.get_mut(&subject) else {
            // Late, or about another process's session, or made up.
            self.ignored += 1;
            return None;
        };
        // Over the whole reply: epoch, session, number, command and answer (R23).
        let digest = Digest::of(Domain::Reply, &encode(&reply));
        let own = votes.entry(from).or_default();
        if !own.contains(&digest) {
            if own.len() == REPLIES_REMEMBERED {
                own.pop_front();
            }
            own.push_back(digest);
        }
        let equal = votes.values().filter(|replies| replies.contains(&digest)).count();
        if equal < self.weak {
            return None;
        }
        self.expected.remove(&subject);
        Some((subject, reply.answer))
    }

    /// Replies that nobody waited for, so far.
    pub(crate) fn ignored(&self) -> u64 {
        self.ignored
    }
}

#[cfg(test)]
mod tests {
    use polder_types::{Blob, Epoch, FaultModel, Position, Seq};

    use super::*;

    const SESSION: SessionId = SessionId(Position { slot: Seq(3), index: 1 });

    fn reply(number: u64, answer: &[u8]) -> Reply {
        let command = Reply::command_digest(b"command");
        let answer = Answer::Done(Blob::copy(answer));
        Reply { epoch: Epoch(0), session: Some(SESSION), number, command, answer }
    }

    /// Four replicas of which one may lie, asked about number 1.
    fn matcher() -> Matcher {
        let quorum = Quorum::new(4, FaultModel::Byzantine).expect("four replicas tolerate a liar");
        let mut matcher = Matcher::new(quorum);
        matcher.expect(Subject::of(&reply(1, b"")));
        matcher
    }

    fn hear(matcher: &mut Matcher, from: u8, reply: Reply) -> Option<Answer> {
        matcher.hear(ReplicaId(from), reply).map(|(_, answer)| answer)
    }

    #[test]
    fn r23_one_reply_is_not_believed_two_equal_ones_are() {
        let mut matcher = matcher();
        assert_eq!(hear(&mut matcher, 0, reply(1, b"yes")), None);
        assert_eq!(hear(&mut matcher, 1, reply(1, b"yes")), Some(Answer::Done(Blob::copy(b"yes"))));
        // Closed: the third counts for nothing.
        assert_eq!(hear(&mut matcher, 2, reply(1, b"yes")), None);
        assert_eq!(matcher.ignored(), 1);
    }

    #[test]
    fn r23_one_replica_cannot_vote_twice() {
        let mut matcher = matcher();
        for _ in 0..10 {
            assert_eq!(hear(&mut matcher, 0, reply(1, b"yes")), None);
        }
    }

    #[test]
    fn r23_a_liar_is_outvoted_whatever_comes_first() {
        let mut matcher = matcher();
        assert_eq!(hear(&mut matcher, 3, reply(1, b"lie")), None);
        assert_eq!(hear(&mut matcher, 0, reply(1, b"yes")), None);
        assert_eq!(hear(&mut matcher, 3, reply(1, b"another lie")), None);
        assert_eq!(hear(&mut matcher, 2, reply(1, b"yes")), Some(Answer::Done(Blob::copy(b"yes"))));
    }

    #[test]
    fn r23_the_whole_reply_counts_not_only_the_answer() {
        let mut matcher = matcher();
        assert_eq!(hear(&mut matcher, 0, reply(1, b"yes")), None);
        let later = Reply { epoch: Epoch(1), ..reply(1, b"yes") };
        assert_eq!(hear(&mut matcher, 1, later.clone()), None);
        assert!(hear(&mut matcher, 2, later).is_some());
    }

    #[test]
    fn r26_a_read_read_again_is_believed_on_the_replies_of_one_reading() {
        let mut matcher = matcher();
        assert_eq!(hear(&mut matcher, 0, reply(1, b"old")), None);
        assert_eq!(hear(&mut matcher, 0, reply(1, b"new")), None);
        assert_eq!(hear(&mut matcher, 1, reply(1, b"new")), Some(Answer::Done(Blob::copy(b"new"))));
    }

    #[test]
    fn what_was_not_asked_is_ignored_and_takes_no_memory() {
        let mut matcher = matcher();
        let other_command = Reply { command: Digest::ZERO, ..reply(1, b"yes") };
        let other_session = Reply { session: None, ..reply(1, b"yes") };
        for from in 0..4 {
            assert_eq!(hear(&mut matcher, from, other_command.clone()), None);
            assert_eq!(hear(&mut matcher, from, other_session.clone()), None);
            assert_eq!(hear(&mut matcher, from, reply(2, b"yes")), None);
        }
        assert_eq!(matcher.ignored(), 12);
        assert_eq!(matcher.expected.len(), 1);
    }

    #[test]
    fn a_liars_replies_take_bounded_memory() {
        let mut matcher = matcher();
        for lie in 0..100u8 {
            assert_eq!(hear(&mut matcher, 3, reply(1, &[lie])), None);
        }
        let votes = matcher.expected.values().next().expect("one subject");
        assert_eq!(votes.values().map(VecDeque::len).sum::<usize>(), REPLIES_REMEMBERED);
    }
}
