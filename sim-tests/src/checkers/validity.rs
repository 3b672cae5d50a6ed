//! **Validity.** Whatever is executed was asked for by a client: every request in a decided batch is one that a client
//! signed and sent, and every id in a list comes from such a request.
//!
//! R20 (a request is authenticated before it is ordered; a forced slot holds what once was).

use std::collections::BTreeSet;

use polder_types::{Batch, Digest, ReplicaId, Seq};

use super::{Verdict, violation};
use crate::history::History;

/// The name of this checker.
pub const NAME: &str = "validity";

/// What clients signed.
#[derive(Clone, Debug, Default)]
pub struct Validity {
    signed: BTreeSet<Digest>,
}

impl Validity {
    /// A client signed a request with this digest.
    pub fn signed(&mut self, request: Digest) {
        self.signed.insert(request);
    }

    /// A correct replica executed a batch.
    ///
    /// # Errors
    ///
    /// When a request in it was never signed by a client.
    pub fn executed(&self, replica: ReplicaId, slot: Seq, batch: &Batch) -> Verdict {
        let forged = batch.requests.iter().find(|request| !self.signed.contains(&request.digest()));
        forged.map_or(Ok(()), |request| {
            violation(
                NAME,
                format!("{replica} executed request {} at {slot}, which no client signed", request.digest()),
            )
        })
    }
}

/// Every id in the final lists was asked for, on that key.
///
/// # Errors
///
/// When one was not.
pub fn check(history: &History) -> Verdict {
    let asked: BTreeSet<(u64, u64)> = history
        .operations
        .iter()
        .filter_map(|operation| operation.command.appends())
        .flat_map(|(id, keys)| keys.into_iter().map(move |key| (key, id)))
        .collect();
    for (key, list) in &history.lists {
        if let Some(id) = list.iter().find(|id| !asked.contains(&(*key, **id))) {
            return violation(NAME, format!("k{key} holds {id}, which no client appended"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use polder_types::{Blob, Call, ClientId, ClusterId, Request, SessionId, SigningKey, Timestamp};

    use super::*;
    use crate::history::{Command, Operation};

    #[test]
    fn a_batch_with_a_request_that_nobody_signed_is_caught() {
        let key = SigningKey::from_seed(&[1; 32]);
        let client = ClientId(key.public());
        let call = Call::Commands { session: SessionId::default(), ack: 0, first: 1, commands: vec![Blob::copy(b"x")] };
        let request = Request { client, call }.sign(ClusterId(Digest::ZERO), &key);
        let batch = Batch { ts: Timestamp(1), requests: vec![request.clone()] };
        let mut validity = Validity::default();
        assert!(validity.executed(ReplicaId(0), Seq(1), &batch).is_err());
        validity.signed(request.digest());
        assert_eq!(validity.executed(ReplicaId(0), Seq(1), &batch), Ok(()));
    }

    #[test]
    fn an_id_that_nobody_appended_is_caught() {
        let mut history = History::default();
        history.lists.insert(1, vec![7]);
        assert!(check(&history).is_err());
        let command = Command::Append { key: 1, id: 7 };
        history.operations.push(Operation { client: 0, command, invoked_us: 0, answered: None });
        assert_eq!(check(&history), Ok(()));
    }
}
