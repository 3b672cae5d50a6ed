//! The executor's rules, each with a test that fails without it. The service is a script: a command says what it does.
#![allow(clippy::panic, clippy::expect_used, reason = "that is how tests fail")]

mod limits;
mod opening;
mod property;
mod recovery;
mod room;
mod script;
mod sessions;
mod time;
mod world;
