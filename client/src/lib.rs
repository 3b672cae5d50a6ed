//! The client library of Polder: sessions, retries, reply matching. (skeleton)
mod builder;
mod client;
mod error;
mod resumable;
pub use builder::Builder;
pub use client::Client;
pub use error::{CallError, ConnectError, Unknown};
pub use resumable::{ResumableClient, SessionState};
