//! A replica that shows certificates: stale ones, which verify and must change nothing, and ones that it has put together
//! from signatures of different statements, or of one signer twice, which must not verify (R1, R3).

use std::collections::{BTreeMap, VecDeque};

use polder_consensus::{Message, Phase, Vote};
use polder_node::replica::{Event, PeerMessage};
use polder_types::{Blob, Digest, Proof, Signed};

use super::{Actor, Plot, Said, heard, say};

/// Votes, bodies and old certificates that it remembers, of each at most.
const KEPT_MAX: usize = 64;

/// See the module.
#[derive(Default)]
pub(super) struct StitchedCertificates {
    votes: VecDeque<Signed<Vote>>,
    bodies: BTreeMap<Digest, Blob>,
    stale: VecDeque<PeerMessage>,
}

impl StitchedCertificates {
    fn note(&mut self, message: &Message) {
        match message {
            Message::Vote(vote) => {
                self.votes.push_back(vote.clone());
                if self.votes.len() > KEPT_MAX {
                    self.votes.pop_front();
                }
            }
            Message::Proposal(proposal, body) => {
                self.bodies.insert(proposal.statement.digest, body.clone());
                if self.bodies.len() > KEPT_MAX {
                    self.bodies.pop_first();
                }
            }
            Message::Suspects(_) | Message::Stable(_) | Message::Committed(..) => {
                self.stale.push_back(say(message.clone()));
                if self.stale.len() > KEPT_MAX {
                    self.stale.pop_front();
                }
            }
            _ => {}
        }
    }

    /// A commit certificate for something that it voted for itself: made of whatever signatures there are.
    fn stitch(&self, plot: &mut Plot<'_>) -> Option<PeerMessage> {
        let votes: Vec<&Signed<Vote>> = self.votes.iter().collect();
        let model = plot.random.pick(&votes)?.statement;
        let bodies: Vec<(&Digest, &Blob)> = self.bodies.iter().collect();
        let (digest, body) = plot.random.pick(&bodies).copied()?;
        let statement = Vote { phase: Phase::Commit, digest: *digest, ..model };
        let same_slot = votes.iter().filter(|vote| vote.statement.slot == model.slot && vote.by != plot.me);
        let mut signers: BTreeMap<_, _> = same_slot.map(|vote| (vote.by, vote.signature)).collect();
        signers.insert(plot.me, plot.sign(statement).signature);
        let mut signers: Vec<_> = signers.into_iter().collect();
        let enough = plot.quorum().quorum();
        while signers.len() < enough {
            // One signer several times: nobody is counted twice.
            signers.insert(0, *signers.first()?);
        }
        signers.truncate(enough);
        Some(say(Message::Committed(Proof { statement, signers }, body.clone())))
    }
}

impl Actor for StitchedCertificates {
    fn name(&self) -> &'static str {
        "stitched-certificates"
    }

    fn hears(&mut self, _plot: &mut Plot<'_>, event: &Event) -> (bool, Said) {
        if let Some((_, message)) = heard(event) {
            self.note(message);
        }
        (true, Vec::new())
    }

    fn make_up(&mut self, plot: &mut Plot<'_>) -> Said {
        let others: Vec<_> = plot.others().collect();
        let Some(to) = plot.random.pick(&others).copied() else { return Vec::new() };
        let stale: Vec<&PeerMessage> = self.stale.iter().collect();
        let stale = plot.random.pick(&stale).map(|stale| (*stale).clone());
        stale.into_iter().chain(self.stitch(plot)).map(|message| (to, message)).collect()
    }
}
