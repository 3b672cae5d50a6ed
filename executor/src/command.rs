//! One command: from its bytes to what it does, with every way in which a service may fail caught (R28).

use std::panic::{AssertUnwindSafe, catch_unwind};

use polder_types::{Blob, Failure, Position, Role, Timestamp, Wire};

use crate::access::{Access, Limits, Writes};
use crate::footprint::Declared;
use crate::state::State;
use crate::{Footprint, Service};

/// A command that is to run.
#[derive(Debug)]
pub(crate) struct Task<C> {
    command: C,
    position: Position,
    pub(crate) declared: Declared,
    shrinking: bool,
    pub(crate) read_only: bool,
}

/// What decides, beside the command itself, whether it may run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admission {
    /// What its client may do.
    pub(crate) role: Option<Role>,
    /// R28: whether the state is full.
    pub(crate) full: bool,
}

/// The task that these bytes ask for.
pub(crate) fn prepare<S: Service>(
    service: &S,
    bytes: &[u8],
    position: Position,
    admission: Admission,
) -> Result<Task<S::Command>, Failure> {
    let (command, footprint) = caught(|| {
        let command = S::Command::from_wire(bytes).map_err(|_| Failure::Malformed)?;
        let footprint = service.footprint(&command);
        Ok((command, footprint))
    })?;
    let read_only = footprint.is_read_only();
    if footprint.reads.len().saturating_add(footprint.writes.len()) > Limits::SPANS_MAX {
        return Err(Failure::TooMuch);
    }
    match admission.role {
        Some(Role::Write | Role::Admin) => {}
        Some(Role::Read) if read_only => {}
        Some(Role::Read) | None => return Err(Failure::NotPermitted),
    }
    let Footprint { shrinking, .. } = footprint;
    if admission.full && !shrinking && !read_only {
        return Err(Failure::StateFull);
    }
    Ok(Task { command, position, declared: Declared::new(footprint), shrinking, read_only })
}

impl<C> Task<C> {
    /// Runs the command against the state; what it would write is in the result, with its encoded reply.
    pub(crate) fn run<S: Service<Command = C>>(
        &self,
        service: &S,
        state: &State,
        limits: Limits,
        at: Timestamp,
    ) -> Result<(Blob, Writes), Failure> {
        let mut access = Access::new(state, &self.declared, limits, at, self.position);
        let reply = caught(|| Ok(service.execute(at, &self.command, &mut access).to_wire()));
        // First, because a service that was stopped may have caught that, or panicked on its way out.
        if let Some(failure) = access.failure() {
            return Err(failure);
        }
        let reply = reply?;
        if reply.len() > limits.reply_bytes_max as usize {
            return Err(Failure::ReplyTooLarge);
        }
        if self.shrinking && access.growth_bytes() > 0 {
            return Err(Failure::Undeclared);
        }
        Ok((Blob::from(reply), access.into_writes()))
    }
}

/// R28: runs code of the service; a panic is a coded failure.
fn caught<T>(run: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    // Whatever the code may have left half done is dropped, or is the service itself, which keeps nothing (its docs).
    catch_unwind(AssertUnwindSafe(run)).unwrap_or(Err(Failure::Panicked))
}
