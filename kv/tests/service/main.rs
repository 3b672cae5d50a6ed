//! The key-value service, run by an executor as replicas run it.

mod limits;
mod model;
mod operations;
mod world;
