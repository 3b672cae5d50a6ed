//! The client that most use: it numbers its commands itself.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use polder_types::{Application, ClusterFile, SigningKey, Wire as _};

use crate::driver::Handle;
use crate::{Builder, CallError};

/// A client of a replicated service, with a session of its own. Clone it freely: all clones share the session and
/// the connections, and what they call at the same time is packed into few requests.
///
/// Every command is executed at most once, however often the client has to send it, and exactly once if its call
/// returns a reply. A reply is believed on `r+1` equal ones (R23).
///
/// When the last clone is dropped the session is closed in the background; [`Client::close`] waits for it.
pub struct Client<A: Application> {
    handle: Handle,
    call_timeout: Duration,
    close_timeout: Duration,
    application: PhantomData<fn(A)>,
}

impl<A: Application> Client<A> {
    /// Starts to build a client of the cluster that the file describes, which signs with `key`.
    #[must_use]
    pub fn builder(cluster: ClusterFile, key: SigningKey) -> Builder {
        Builder::new(cluster, key)
    }

    pub(crate) fn new(handle: Handle, call_timeout: Duration, close_timeout: Duration) -> Self {
        Self { handle, call_timeout, close_timeout, application: PhantomData }
    }

    /// Has a command executed, exactly once, and returns its reply.
    ///
    /// The client sends it to the leader, to all replicas when the answer is late, and again until it is answered or
    /// the time is up: there is no need to call again, except after an error for which
    /// [`CallError::is_not_executed`] holds.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not cancel the command: once it was polled, the command may be executed, exactly
    /// once, and nobody learns its reply. It never becomes the reply of another call.
    ///
    /// # Errors
    ///
    /// [`CallError`]; its predicates say whether the command was executed, or that nobody knows.
    pub async fn call(&self, command: &A::Command) -> Result<A::Reply, CallError> {
        let reply = self.handle.call(None, command.to_wire(), self.call_timeout).await?;
        A::Reply::from_wire(&reply).map_err(|_| CallError::BadReply)
    }

    /// The same client with another time-out for its calls.
    #[must_use]
    pub fn with_call_timeout(&self, timeout: Duration) -> Self {
        Self { call_timeout: timeout, ..self.clone() }
    }

    /// Takes no more calls, waits for those under way, and closes the session, so that the replicas forget it at
    /// once. Gives up after [`Builder::close_timeout`]; the session then expires by itself, and calls still under
    /// way end with [`crate::Unknown::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Once the future was polled the client closes, whether it is dropped or not.
    pub async fn close(&self) {
        self.handle.close(self.close_timeout).await;
    }
}

impl<A: Application> Clone for Client<A> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone(), application: PhantomData, ..*self }
    }
}

impl<A: Application> fmt::Debug for Client<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("call_timeout", &self.call_timeout).finish_non_exhaustive()
    }
}
