//! What must hold in every run: one property a file, each with its statement, its rule and where it comes from. A
//! checker sees only what it is told, so that a test can tell it a lie and hear the alarm.

use std::fmt;

pub mod agreement;
pub mod archive;
pub mod bounded_tables;
pub mod certificates;
pub mod equal_roots;
pub mod evidence;
pub mod exactly_once;
pub mod latency;
pub mod linearizable;
pub mod named;
pub mod progress;
pub mod promises;
pub mod ready;
pub mod undisturbed;
pub mod validity;
pub mod views;

/// A property that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which checker says so.
    pub checker: &'static str,
    /// One sentence.
    pub sentence: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.checker, self.sentence)
    }
}

/// What a checker says.
pub type Verdict = Result<(), Violation>;

pub(crate) fn violation(checker: &'static str, sentence: String) -> Verdict {
    Err(Violation { checker, sentence })
}
