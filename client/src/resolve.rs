//! Learns what became of a command whose outcome is unknown, by the protocol's own means.
//!
//! The replicas give each number of a session to one command, the first that the order brings (R25). So first the
//! number is asked for with a *void*, a command of no bytes, which no service takes for one of its own:
//!
//! - The void gets the number: the command did not get it, nor ever will. It is **not executed, for ever**: a copy of it
//!   that is still under way is answered `NumberReused`.
//! - `NumberReused`: the command has the number. Sent again, it is a copy, and is answered as it was then (R23).
//! - The number was acknowledged, or the session is gone: the replicas have forgotten what became of it (R25, R27).
//!
//! Nothing is ever executed because somebody asks. Both questions may be asked again, by anybody, at any time, with the
//! same answer: who is interrupted asks anew.

use polder_types::{Application, Blob, Failure, Reply, Wire as _};
use tokio::time::Instant;

use crate::driver::{Handle, WAIT_MAX};
use crate::error::{CallError, ConnectError, Unknown};
use crate::{Builder, Token};

/// What became of a command whose outcome was unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resolution<R> {
    /// It was executed, once; this is its reply. If the command only reads, it was read again just now.
    Executed(R),
    /// It was executed, once; its reply is no longer kept (R25).
    ExecutedReplyNotKept,
    /// It was not executed, and never will be: nobody has to fear a copy that is still under way. Why, if the
    /// replicas refused it; none if it had not come to its turn, and now never will.
    NotExecuted(Option<Failure>),
    /// The replicas have forgotten what became of it, and nobody can learn it any more. It is not under way any more: if
    /// it was not executed by now, it never will be.
    Forgotten(Unknown),
}

/// Why nothing was learned about a token.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// No connection, or the token is another cluster's or another key's.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Too few replicas answered in time. What becomes of the command is still open; ask again later.
    #[error("still unknown: too few replicas answered in time; ask again later")]
    StillUnknown,
    /// No client sends such a command as such a number.
    #[error("no client sent what this token says: {0}")]
    WrongToken(CallError),
    /// The command was executed, once, but its reply is not one of this application.
    #[error("executed, but the reply is not one of this application: does the cluster run another service?")]
    BadReply,
}

impl Builder {
    /// Learns what became of a command whose outcome is unknown, and settles it: afterwards the command is executed or
    /// never will be. Asking never makes it execute. To be called within a tokio runtime, with the key of the client that
    /// made the call; that client may be gone, or may still be there.
    ///
    /// It may be asked as often as one likes, and interrupted at any point: the answer stays the same, until the session
    /// has expired. It takes [`Builder::connect_timeout`] and [`Builder::call_timeout`] together at most.
    ///
    /// ```no_run
    /// use polder_client::{Builder, Resolution};
    /// # use polder_client::Client;
    /// # use polder_types::{Application, ClusterFile, SigningKey};
    /// # struct Counter;
    /// # impl Application for Counter { type Command = u64; type Reply = u64; }
    ///
    /// # async fn example(cluster: ClusterFile, key: SigningKey) -> Result<(), Box<dyn std::error::Error>> {
    /// let counter: Client<Counter> = Builder::new(cluster.clone(), key.clone()).connect().await?;
    /// if let Err(error) = counter.call(&5).await
    ///     && let Some(token) = error.token()
    /// {
    ///     // Now, or later by another process: a token can be stored.
    ///     match Builder::new(cluster, key).resolve::<Counter>(token).await? {
    ///         Resolution::Executed(total) => println!("5 was added: {total}"),
    ///         Resolution::NotExecuted(_) => println!("5 was not added, and never will be: call again if you like"),
    ///         other => println!("nobody can tell any more: {other:?}"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the command may have been barred; asking again tells.
    ///
    /// # Errors
    ///
    /// [`ResolveError`]; after [`ResolveError::StillUnknown`] ask again.
    pub async fn resolve<A: Application>(mut self, token: &Token) -> Result<Resolution<A::Reply>, ResolveError> {
        let handle = self.go_on(token.state()).await?;
        let until = Instant::now() + self.call_timeout.min(WAIT_MAX);
        let resolution = settle(&handle, token, until).await?;
        Ok(match resolution {
            Resolution::Executed(reply) => {
                Resolution::Executed(A::Reply::from_wire(&reply).map_err(|_| ResolveError::BadReply)?)
            }
            Resolution::ExecutedReplyNotKept => Resolution::ExecutedReplyNotKept,
            Resolution::NotExecuted(why) => Resolution::NotExecuted(why),
            Resolution::Forgotten(why) => Resolution::Forgotten(why),
        })
    }
}

async fn settle(handle: &Handle, token: &Token, until: Instant) -> Result<Resolution<Blob>, ResolveError> {
    let ask = |command: &[u8]| {
        let left = until.saturating_duration_since(Instant::now());
        handle.call(Some(token.number()), command.to_vec(), left)
    };
    let void = Blob::default();
    // If the service has one command only, it has no bytes either, and is its own void: it is sent again itself.
    if token.digest() != Reply::command_digest(&void) {
        match ask(&void).await {
            Err(CallError::Rejected(Failure::NumberReused)) => {}
            // R25: the void has the number.
            Ok(_) | Err(CallError::Rejected(_) | CallError::BadReply) => return Ok(Resolution::NotExecuted(None)),
            Err(error) => return unanswered(error),
        }
    }
    match ask(token.command_bytes()).await {
        Ok(reply) => Ok(Resolution::Executed(reply)),
        Err(CallError::Rejected(failure)) => Ok(Resolution::NotExecuted(Some(failure))),
        Err(CallError::OutcomeUnknown { why: Unknown::ReplyNotKept, .. }) => Ok(Resolution::ExecutedReplyNotKept),
        Err(CallError::BadReply) => Err(ResolveError::BadReply),
        Err(error) => unanswered(error),
    }
}

/// What it means that a question was not answered, or that there is nothing left to answer it from.
fn unanswered(error: CallError) -> Result<Resolution<Blob>, ResolveError> {
    match error {
        CallError::OutcomeUnknown { why: why @ (Unknown::SessionGone | Unknown::Acknowledged), .. } => {
            Ok(Resolution::Forgotten(why))
        }
        error if error.is_timeout() => Err(ResolveError::StillUnknown),
        CallError::OutcomeUnknown { .. } => Err(ResolveError::StillUnknown),
        error => Err(ResolveError::WrongToken(error)),
    }
}
