//! Hostile bytes: everything that decodes something, and the handlers behind, given real frames, rows and files that were
//! changed. Structure-aware: a value is taken apart into a [`tree::Tree`] and changed there, so that most of what comes
//! out can be decoded and reaches what is behind; the bytes are changed too.
//!
//! A target is a function of a seed: the same seed is the same input, on every machine. See README.md.

pub mod clients;
pub mod counting;
pub mod decoders;
pub mod executing;
pub mod files;
pub mod lists;
pub mod mutate;
pub mod replicas;
pub mod samples;
pub mod stores;
pub mod tree;

use crate::random::{Purpose, Random};
use crate::run::caught;

/// What a target says of one input: nothing, or what does not hold, in words.
pub type Verdict = Result<(), String>;

/// Something that takes what comes from outside.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it takes, and what must hold.
    pub what: &'static str,
    /// How many inputs the tests give it.
    pub iterations: u64,
    /// Makes an input from randomness, and judges what becomes of it.
    pub run: fn(&mut Random) -> Verdict,
}

/// All targets.
pub const TARGETS: &[&[Target]] = &[
    decoders::TARGETS,
    lists::TARGETS,
    files::TARGETS,
    stores::TARGETS,
    executing::TARGETS,
    clients::TARGETS,
    replicas::TARGETS,
];

/// The targets, in order.
pub fn targets() -> impl Iterator<Item = &'static Target> {
    TARGETS.iter().flat_map(|room| room.iter())
}

/// An input that broke something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The target's name.
    pub target: &'static str,
    /// The seed of the input.
    pub seed: u64,
    /// What does not hold.
    pub sentence: String,
}

impl Failure {
    /// The command that replays exactly this input.
    #[must_use]
    pub fn replay(&self) -> String {
        format!("./run fuzz {} --seed {} --iterations 1", self.target, self.seed)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}\n  {}", self.target, self.sentence, self.replay())
    }
}

impl Target {
    /// Gives it the input of a seed. A panic is a failure like any other.
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub fn attempt(&self, seed: u64) -> Result<(), Failure> {
        let mut random = Random::new(seed, Purpose::Fuzz);
        let ran = caught(|| (self.run)(&mut random));
        let verdict = ran.unwrap_or_else(|panic| Err(format!("it panicked: {panic}")));
        verdict.map_err(|sentence| Failure { target: self.name, seed, sentence })
    }
}

/// A condition, and what to say when it does not hold.
fn holds(condition: bool, sentence: impl FnOnce() -> String) -> Verdict {
    if condition { Ok(()) } else { Err(sentence()) }
}
