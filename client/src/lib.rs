//! The client library of Polder: sessions, retries, reply matching.
//!
//! This crate knows nothing of how commands are ordered or executed, and nothing of what they mean: an
//! [`Application`](polder_types::Application) names the types of its commands and replies, and that is all.
//!
//! - [`Client`]: connects to all replicas, opens a session, numbers commands, packs those of concurrent callers into
//!   few signed requests, and believes a reply on `r+1` equal ones.
//! - [`ResumableClient`]: the caller numbers the commands, and can go on exactly once after a crash of its own.
//! - [`Builder::resolve`]: learns what became of a call that ended with an unknown outcome, also from another process.
//! - [`Builder::statuses`]: asks the replicas how they are.
//!
//! A call ends with a reply, or with a [`CallError`] that says whether the command was executed; if nobody knows yet, it
//! has a [`Token`] by which that can be learned. Sending again is the client's business: it is safe, because the replicas
//! execute each number of a session once (R25).
//!
//! ```no_run
//! use polder_client::Client;
//! use polder_types::{Application, ClusterFile, SigningKey};
//!
//! struct Counter;
//! impl Application for Counter {
//!     type Command = u64; // add this much
//!     type Reply = u64;   // the new total
//! }
//!
//! # async fn example(cluster: ClusterFile, key: SigningKey) -> Result<(), Box<dyn std::error::Error>> {
//! let counter: Client<Counter> = Client::<Counter>::builder(cluster, key).connect().await?;
//! // Both go into one request, or two; each is executed once.
//! let (a, b) = tokio::join!(counter.call(&1), counter.call(&2));
//! match a {
//!     Ok(total) => println!("{total}"),
//!     Err(error) if error.is_not_executed() => println!("nothing was added: {error}"),
//!     Err(error) => println!("it may have been added: {error}; resolve {:?}", error.token()),
//! }
//! b?;
//! counter.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! Inside, one task ([`driver`]) owns the sockets and the clock and drives one pure machine ([`machine`]):
//! [`ledger`] numbers and packs, [`courier`] sends and repeats, [`matcher`] believes, [`peers`] knows the leader.
#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod builder;
mod client;
mod courier;
mod driver;
mod error;
mod ledger;
pub mod machine;
mod matcher;
mod pace;
mod peers;
mod resolve;
mod resumable;
mod status;
mod token;

pub use builder::Builder;
pub use client::Client;
pub use error::{CallError, ConnectError, Unknown};
pub use resolve::{Resolution, ResolveError};
pub use resumable::{ResumableClient, SessionState};
pub use token::{Token, TokenError};
