//! Sessions: what makes a command execute once however often it is ordered (R23 to R27).
//!
//! The [`Front`] decides, in slot order, what executes; the [`Committer`] records, in slot order, what was decided and
//! what came of it, and re-decides nothing. All that they know is in the session partitions, under the root: the front
//! is rebuilt from them after a restart, and keeps in memory, ahead of them, only what is about to be written (R26).

mod committer;
mod front;
mod record;
mod rows;

pub(crate) use committer::Committer;
pub(crate) use front::{Front, Opening, Verdict};
pub(crate) use record::{Meta, Opened, Outcome, Record, Row, read_partition};
pub(crate) use rows::Rows;
