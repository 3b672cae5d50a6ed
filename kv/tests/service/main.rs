//! The key-value service, run by an executor as replicas run it.
#![allow(clippy::panic, clippy::expect_used, reason = "that is how tests fail")]

mod limits;
mod model;
mod operations;
mod world;
