//! The client for who must go on exactly once after a crash of its own.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use polder_types::{Application, ClientId, ClusterId, SessionId, Wire as _};
use serde::{Deserialize, Serialize};

use crate::CallError;
use crate::driver::Handle;

/// What a session needs to be resumed by another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionState {
    /// The cluster.
    pub cluster: ClusterId,
    /// The client's key, public.
    pub client: ClientId,
    /// The session.
    pub session: SessionId,
    /// Every number up to this one was answered, and the caller has stored what came of it.
    pub acknowledged: u64,
}

/// A client whose caller numbers the commands, so that a process that crashed can go on exactly once.
///
/// The replicas execute each number of a session once. Whoever sends the same number with the same command again,
/// even from another process, gets the first reply. So a caller that can make the same commands again under the same
/// numbers, from a file for instance, needs to store only which numbers are done:
///
/// 1. [`Builder::connect_resumable`](crate::Builder::connect_resumable), and store [`ResumableClient::state`] before
///    the first call.
/// 2. Call with numbers from 1 upwards, in any order and many at once, up to [`ResumableClient::window`] above the
///    acknowledged one. The same number must always carry the same command, byte for byte.
/// 3. When every number up to `n` was answered: store [`SessionState`] with `acknowledged: n` together with one's own
///    progress, *then* call [`ResumableClient::acknowledge`]. In this order: what is acknowledged, the replicas may
///    forget.
/// 4. After a crash: [`Builder::resume`](crate::Builder::resume) with what was stored, and call again from
///    `acknowledged + 1`.
/// 5. At the end, [`ResumableClient::close`]. Dropping the client leaves the session open, to be resumed until it
///    expires (`session_expiry_ms`).
///
/// If the session is gone, calls end with [`Unknown::SessionGone`](crate::Unknown::SessionGone): which of the numbers
/// above `acknowledged` were executed is then not known any more. One process at a time may use a session.
///
/// ```no_run
/// use polder_client::{Builder, CallError, ResumableClient, SessionState};
/// # use polder_types::{Application, ClusterFile, SigningKey};
/// # struct Counter;
/// # impl Application for Counter { type Command = u64; type Reply = u64; }
/// # fn stored() -> Option<SessionState> { None }
/// # fn store(_: &SessionState) -> std::io::Result<()> { Ok(()) }
/// # async fn example(cluster: ClusterFile, key: SigningKey, amounts: &[u64]) -> Result<(), Box<dyn std::error::Error>> {
/// let builder = Builder::new(cluster, key);
/// let counter: ResumableClient<Counter> = match stored() {
///     Some(state) => builder.resume(state).await?,
///     None => {
///         let counter = builder.connect_resumable().await?;
///         store(&counter.state())?;
///         counter
///     }
/// };
/// let done = counter.state().acknowledged;
/// for (number, amount) in (1..).zip(amounts).skip(done as usize) {
///     counter.call(number, amount).await?;
///     store(&SessionState { acknowledged: number, ..counter.state() })?;
///     counter.acknowledge(number);
/// }
/// counter.close().await;
/// # Ok(())
/// # }
/// ```
pub struct ResumableClient<A: Application> {
    handle: Handle,
    state: SessionState,
    window: u64,
    call_timeout: Duration,
    close_timeout: Duration,
    application: PhantomData<fn(A)>,
}

impl<A: Application> ResumableClient<A> {
    pub(crate) fn new(
        handle: Handle,
        state: SessionState,
        window: u64,
        call_timeout: Duration,
        close_timeout: Duration,
    ) -> Self {
        Self { handle, state, window, call_timeout, close_timeout, application: PhantomData }
    }

    /// What to store so that the session can be resumed.
    #[must_use]
    pub fn state(&self) -> SessionState {
        SessionState { acknowledged: self.handle.acknowledged(), ..self.state }
    }

    /// How many numbers above the acknowledged one may be used at a time (`W`).
    #[must_use]
    pub fn window(&self) -> u64 {
        self.window
    }

    /// Has the command of this number executed, exactly once over all processes of the session, and returns its
    /// reply. Calls under way at the same time are packed into few requests, best if their numbers follow one
    /// another.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not cancel the command. Calling again with the same number and command gets the same
    /// reply.
    ///
    /// # Errors
    ///
    /// [`CallError`]. After [`CallError::is_timeout`], call again with the same number and command. A
    /// [`CallError::Rejected`] uses up the number: it is answered.
    pub async fn call(&self, number: u64, command: &A::Command) -> Result<A::Reply, CallError> {
        let reply = self.handle.call(Some(number), command.to_wire(), self.call_timeout).await?;
        A::Reply::from_wire(&reply).map_err(|_| CallError::BadReply)
    }

    /// Says that every number up to this one was answered *and that the caller has stored it*: none of them is ever
    /// called again, and the replicas may forget their replies. Numbers that are under way limit it.
    ///
    /// It travels with the next request; nothing waits.
    pub fn acknowledge(&self, number: u64) {
        self.handle.acknowledge(number);
    }

    /// Ends the session: it cannot be resumed. As [`Client::close`](crate::Client::close) otherwise.
    ///
    /// # Cancel safety
    ///
    /// Once the future was polled the client closes, whether it is dropped or not.
    pub async fn close(&self) {
        self.handle.close(self.close_timeout).await;
    }
}

impl<A: Application> Clone for ResumableClient<A> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone(), application: PhantomData, ..*self }
    }
}

impl<A: Application> fmt::Debug for ResumableClient<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResumableClient").field("state", &self.state()).finish_non_exhaustive()
    }
}
