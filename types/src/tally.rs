//! Counting distinct signers: the one place where anything is counted towards a quorum (R1).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::{Certificate, Proof, ReplicaId, Signature, Signed, Statement, Verified};

/// What adding a vote did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Added<S> {
    /// The first vote of this replica.
    New,
    /// The same vote again: counted once.
    Again,
    /// This replica said something else before, which stands; the two together are evidence (R41).
    Conflict(Signed<S>),
}

/// Votes by distinct replicas, one each (R42); counts those that agree.
#[derive(Clone, Debug)]
pub struct Tally<S> {
    votes: BTreeMap<ReplicaId, (S, Signature)>,
}

impl<S> Default for Tally<S> {
    fn default() -> Self {
        Self { votes: BTreeMap::new() }
    }
}

impl<S: Statement> Tally<S> {
    /// Adds a verified vote; a replica's first vote stands.
    pub fn add(&mut self, vote: &Verified<Signed<S>>) -> Added<S> {
        match self.votes.get(&vote.by) {
            None => {
                self.votes.insert(vote.by, (vote.statement.clone(), vote.signature));
                Added::New
            }
            Some((statement, _)) if *statement == vote.statement => Added::Again,
            Some((statement, signature)) => {
                Added::Conflict(Signed { by: vote.by, statement: statement.clone(), signature: *signature })
            }
        }
    }

    /// Replaces whatever this replica said before: for votes of which only the newest counts (R42).
    pub fn replace(&mut self, vote: &Verified<Signed<S>>) {
        self.votes.insert(vote.by, (vote.statement.clone(), vote.signature));
    }

    /// How many distinct replicas voted for this statement.
    #[must_use]
    pub fn count(&self, statement: &S) -> usize {
        self.votes.values().filter(|(voted, _)| voted == statement).count()
    }

    /// How many distinct replicas voted at all.
    #[must_use]
    pub fn voters(&self) -> usize {
        self.votes.len()
    }

    /// The vote of a replica.
    #[must_use]
    pub fn vote(&self, replica: ReplicaId) -> Option<Signed<S>> {
        let (statement, signature) = self.votes.get(&replica)?;
        Some(Signed { by: replica, statement: statement.clone(), signature: *signature })
    }

    /// All votes, in order of replica.
    pub fn votes(&self) -> impl Iterator<Item = (ReplicaId, &S)> + '_ {
        self.votes.iter().map(|(by, (statement, _))| (*by, statement))
    }

    /// Which replicas voted for this statement, a bit each.
    #[must_use]
    pub fn mask(&self, statement: &S) -> u128 {
        let voters = self.votes.iter().filter(|(_, (voted, _))| voted == statement);
        voters.fold(0, |mask, (by, _)| mask | 1u128.checked_shl(by.0.into()).unwrap_or(0))
    }

    /// The certificate on a statement, once exactly `threshold` or more agree: the first `threshold` by replica, so
    /// that a certificate has one length.
    #[must_use]
    pub fn certificate(&self, statement: &S, threshold: usize) -> Option<Certificate<S>> {
        let agreeing = self.votes.iter().filter(|(_, (voted, _))| voted == statement);
        let signers: Vec<_> = agreeing.map(|(by, (_, signature))| (*by, *signature)).take(threshold).collect();
        (threshold > 0 && signers.len() == threshold)
            .then(|| Certificate(Proof { statement: statement.clone(), signers }))
    }

    /// The first statement, in order of replica, on which `threshold` agree, as a certificate.
    #[must_use]
    pub fn any_certificate(&self, threshold: usize) -> Option<Certificate<S>> {
        self.votes.values().find_map(|(statement, _)| self.certificate(statement, threshold))
    }
}
