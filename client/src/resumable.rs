//! (skeleton)
use crate::CallError;
use polder_types::{Application, ClientId, ClusterId, SessionId};
use serde::{Deserialize, Serialize};
use std::marker::PhantomData;
/// What names a session; store it before the first command is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionState {
    /// The cluster.
    pub cluster: ClusterId,
    /// The client.
    pub client: ClientId,
    /// The session.
    pub session: SessionId,
    /// Every number up to this one was answered and the caller has stored that it was; it is never sent again.
    pub acknowledged: u64,
}
/// A client whose caller numbers its commands.
#[derive(Debug)]
pub struct ResumableClient<A: Application>(PhantomData<fn(A)>);
impl<A: Application> Clone for ResumableClient<A> { fn clone(&self) -> Self { Self(PhantomData) } }
impl<A: Application> ResumableClient<A> {
    /// What to store so that the session can be resumed.
    #[must_use]
    pub fn state(&self) -> SessionState { unimplemented!() }
    /// How many numbers above the acknowledged one may be used.
    #[must_use]
    pub fn window(&self) -> u64 { 1_024 }
    /// Has the command with this number executed, exactly once whatever happens, and returns its reply.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn call(&self, number: u64, command: &A::Command) -> Result<A::Reply, CallError> { let _ = (number, command); Err(CallError::NotSent("skeleton")) }
    /// Says that every number up to this one was answered and that the caller has stored that it was.
    pub fn acknowledge(&self, number: u64) { let _ = number; }
    /// Ends the session: it cannot be resumed.
    pub async fn close(&self) {}
}
