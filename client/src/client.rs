//! (skeleton)
use crate::{Builder, CallError};
use polder_types::{Application, ClusterFile, SigningKey};
use std::marker::PhantomData;
/// A client.
#[derive(Debug)]
pub struct Client<A: Application>(PhantomData<fn(A)>);
impl<A: Application> Clone for Client<A> { fn clone(&self) -> Self { Self(PhantomData) } }
impl<A: Application> Client<A> {
    /// Builds one.
    #[must_use]
    pub fn builder(cluster: ClusterFile, key: SigningKey) -> Builder { Builder::new(cluster, key) }
    /// Has a command executed, exactly once, and returns its reply.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn call(&self, command: &A::Command) -> Result<A::Reply, CallError> { let _ = command; Err(CallError::NotSent("skeleton")) }
    /// Closes the session.
    pub async fn close(&self) {}
}
